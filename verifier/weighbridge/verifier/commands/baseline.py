"""``weighbridge baseline``: what GPUs' power looks like under declared work. Each verb is a module, ``baseline_…``."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands import registry
from weighbridge.verifier.commands.registry import Command

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["configure"]

_WIDTH: Final = 100
_EPILOG: Final = """\
examples:

an owner's key, and the document by which verifiers believe it:
  weighbridge baseline key "Acme Physics" -o physics.pem --anchors physics.json

twelve runs of one GPU and one stack, out of sessions that were verified:
  weighbridge baseline record session.wb --anchors anchors.json --engine "vllm 0.11.0" \\
      --workload chat -o run-01.wbr

a baseline of them, its false alarms measured on runs that were held out:
  weighbridge baseline fit run-*.wbr --held-out later-*.wbr --owner "Acme Physics" --name gate --number 1 \\
      --days 90 --key physics.pem -o gate.baseline
  weighbridge baseline show gate.baseline --anchors physics.json

a run against it, and in force:
  weighbridge baseline compare gate.baseline run-99.wbr --anchors physics.json
  weighbridge serve STATE … --baseline gate.baseline --anchors physics.json

what the instrument can tell apart at all:
  weighbridge baseline power --a neutral-*.wbr --b shutdown-*.wbr

docs/baseline.md says what a baseline can and cannot say. It never vouches for weights.
"""


_VERBS: Final = (
    Command("key", "make a baselines' owner's key, and the anchors document for it", "baseline_owner", "configure_key"),
    Command("trust", "make an anchors document for somebody else's public key", "baseline_owner", "configure_trust"),
    Command("record", "make a run of a verified session", "baseline_record"),
    Command("fit", "fit and sign a baseline, measure its false alarms", "baseline_fit"),
    Command("show", "what a baseline says and promises", "baseline_show"),
    Command("compare", "judge runs by a baseline, unit by unit", "baseline_compare"),
    Command("power", "what can be told apart between two conditions", "baseline_power"),
)


def configure(parser: argparse.ArgumentParser, words: Collection[str] | None = None) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an ``Outcome``.

    Args:
        parser: of the group.
        words: as :func:`.registry.add` takes them.
    """
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    registry.add(verbs, _VERBS, words)
    for verb in verbs.choices.values():
        verb.formatter_class = argparse.RawDescriptionHelpFormatter
        verb.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
        verb.description, verb.epilog = _wrapped(verb.description), _wrapped(verb.epilog)


def _wrapped(text: str | None) -> str | None:
    """Prose within a terminal; a paragraph with examples, which are indented, as it is."""
    if text is None:
        return None
    paragraphs = [
        part if "\n  " in part else textwrap.fill(part, _WIDTH, break_long_words=False, break_on_hyphens=False)
        for part in text.rstrip("\n").split("\n\n")
    ]
    return "\n\n".join(paragraphs)
