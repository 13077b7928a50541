"""``weighbridge gate``: what stands before a model at the relying party. Each verb is a module, ``gate_…``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands import registry
from weighbridge.verifier.commands.registry import Command

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["configure"]

_EPILOG: Final = """\
examples:
  weighbridge gate serve --config gates.json --listen 127.0.0.1:9001 --http 127.0.0.1:9002 \\
      --verifier verifier.example:8443 --verifier-ca ca.pem --key gate.key --certificate gate.pem \\
      --anchors anchors.json
  weighbridge gate envoy-config gates.json --upstream a=10.0.0.7:8443 -o envoy.json
  weighbridge gate watch SESSION --config gates.json --exec './switch' --verifier …

docs/gates/ has one document for each kind of gate.
"""
_VERBS: Final = (
    Command(
        "serve", "answer Envoy (ext_authz), nginx (auth_request) and others whether a session is open", "gate_serve"
    ),
    Command("watch", "run a command when a session opens and when it closes", "gate_watch"),
    Command("check", "read a gate's file, and say what it lets through", "gate_config", "configure_check"),
    Command("envoy-config", "write a configuration of Envoy for a gate's file", "gate_config", "configure_envoy"),
    Command("nginx-config", "write a configuration of nginx for a gate's file", "gate_config", "configure_nginx"),
)


def configure(parser: argparse.ArgumentParser, words: Collection[str] | None = None) -> None:
    """Add the sub-commands to ``parser``.

    Args:
        parser: of the group.
        words: as :func:`.registry.add` takes them.
    """
    parser.description = (
        "A gate lets requests through to a model only while its session is open. It is told by a\n"
        "verifier, verifies each token itself, and closes by itself when one expires, whatever has died\n"
        "by then."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    registry.add(verbs, _VERBS, words)
