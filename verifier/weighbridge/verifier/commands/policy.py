"""``weighbridge policy``: everything for policy authors. Each verb is a module of its own, ``policy_…``."""

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

  weighbridge policy init my-policy --scenario model-gate
  weighbridge policy check my.rego
  weighbridge policy test my-policy
  weighbridge policy eval my-policy --input document.json
  weighbridge policy explain session.wb --window 3
  weighbridge policy docs input.gpus
  weighbridge policy input session.wb --window 3 -o window-3.json
  weighbridge policy replay STATE --policy my-policy
  weighbridge policy diff old-policy my-policy --recorded STATE
  weighbridge policy engines
  weighbridge policy bundle sign my-policy --owner Acme --name gate --number 1 --key author.pem \\
      -o gate.policy
"""


_VERBS: Final = (
    Command("init", "write a starting policy with tests, by scenario", "policy_init"),
    Command("check", "find what is dangerous, say why, and the safe way", "policy_check"),
    Command("test", "run a policy's tests and golden inputs, with coverage", "policy_test"),
    Command("eval", "the decision on one document, or the value of a query", "policy_eval"),
    Command("explain", "why a window was refused: rule, line, both sides", "policy_explain"),
    Command("docs", "what policies see: the input, reference values, the library", "policy_docs"),
    Command("input", "what policies see of a recorded window, as JSON", "policy_input"),
    Command("invariants", "what no policy sees past, nor can switch off", "policy_invariants"),
    Command("key", "make an author's key, and the anchors document for it", "policy_bundle", "configure_key"),
    Command("trust", "make an anchors document for somebody else's public key", "policy_bundle", "configure_trust"),
    Command("bundle", "sign a policy, verify it, show what is in it", "policy_bundle"),
    Command("replay", "which recorded decisions a new policy would change", "policy_replay"),
    Command("diff", "two policies side by side: rules, looks, decisions", "policy_diff"),
    Command("engines", "which engines there are, and whether each conforms", "policy_engines"),
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
