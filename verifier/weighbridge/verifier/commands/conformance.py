"""``weighbridge conformance``: the corpus of what a verifier must refuse, and whether one does. Verbs are modules."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands import registry
from weighbridge.verifier.commands.registry import Command

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["configure"]

# Not wrapped by argparse, since the examples must not be.
_DESCRIPTION: Final = """\
A corpus of sessions, windows, tokens and bundles, nearly all of which a
verifier has to refuse, each by its code, and some of which it has to accept.
Any verifier can be tested by it, through a driver: a program that reads cases
as JSON and answers what that verifier says of them.
"""
_EPILOG: Final = """\
examples:
  weighbridge conformance export corpus       # from a checkout; takes minutes
  weighbridge conformance run --corpus corpus
  weighbridge conformance run --corpus corpus --driver './my-driver --quiet' \\
      --compare outcome
  weighbridge conformance show freshness/001-old-quote --corpus corpus

docs/conformance.md says what a driver has to do, and what the files are.
"""
_VERBS: Final = (
    Command("export", "write the corpus as files, from a checkout of the project", "conformance_corpus"),
    Command("list", "list the cases of a corpus", "conformance_show", "configure_list"),
    Command("show", "show one case, step by step", "conformance_show", "configure_show"),
    Command("run", "have a verifier judge a corpus, and say what it got wrong", "conformance_run"),
    Command("driver", "judge cases from standard input by this verifier", "conformance_driver"),
)


def configure(parser: argparse.ArgumentParser, words: Collection[str] | None = None) -> None:
    """Add the sub-commands to ``parser``.

    Args:
        parser: of the group.
        words: as :func:`.registry.add` takes them.
    """
    parser.description = _DESCRIPTION
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    registry.add(verbs, _VERBS, words)
