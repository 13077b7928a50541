"""``weighbridge policy``: everything for policy authors. Each verb is a module of its own, ``policy_…``."""

from __future__ import annotations

import argparse
import textwrap
from typing import Final

from weighbridge.verifier.commands import (
    policy_bundle,
    policy_check,
    policy_diff,
    policy_docs,
    policy_engines,
    policy_eval,
    policy_explain,
    policy_init,
    policy_input,
    policy_invariants,
    policy_replay,
    policy_test,
)

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


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an ``Outcome``."""
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    policy_init.configure(verbs.add_parser("init", help="write a starting policy with tests, by scenario"))
    policy_check.configure(verbs.add_parser("check", help="find what is dangerous, say why, and the safe way"))
    policy_test.configure(verbs.add_parser("test", help="run a policy's tests and golden inputs, with coverage"))
    policy_eval.configure(verbs.add_parser("eval", help="the decision on one document, or the value of a query"))
    policy_explain.configure(verbs.add_parser("explain", help="why a window was refused: rule, line, both sides"))
    policy_docs.configure(verbs.add_parser("docs", help="what policies see: the input, reference values, the library"))
    policy_input.configure(verbs.add_parser("input", help="what policies see of a recorded window, as JSON"))
    policy_invariants.configure(verbs.add_parser("invariants", help="what no policy sees past, nor can switch off"))
    policy_bundle.configure_keys(
        verbs.add_parser("key", help="make an author's key, and the anchors document for it"),
        verbs.add_parser("trust", help="make an anchors document for somebody else's public key"),
    )
    policy_bundle.configure(verbs.add_parser("bundle", help="sign a policy, verify it, show what is in it"))
    policy_replay.configure(verbs.add_parser("replay", help="which recorded decisions a new policy would change"))
    policy_diff.configure(verbs.add_parser("diff", help="two policies side by side: rules, looks, decisions"))
    policy_engines.configure(verbs.add_parser("engines", help="which engines there are, and whether each conforms"))
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
