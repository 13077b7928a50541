"""What commands share that list rows of a verifier's store: how many of them, times, and what was left out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.text import LINES, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["add_limit", "instant", "most", "rest", "second", "shown"]

# A program gets more than a person; both are told how many were left out. Each takes some 2.5 KB of memory.
_DOCUMENT: Final = 1000
_MOST: Final = 100_000


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Add ``--limit``."""
    parser.add_argument(
        "--limit",
        type=_limit,
        metavar="N",
        help=f"list at most N, the last ones (default: {LINES}, with --json {_DOCUMENT}; at most {_MOST})",
    )


def most(arguments: argparse.Namespace) -> int:
    """How many rows are listed."""
    asked: int | None = arguments.limit
    return shown(as_json=arguments.json) if asked is None else asked


def shown(*, as_json: bool) -> int:
    """How many rows are listed where nobody says it."""
    return _DOCUMENT if as_json else LINES


def rest(left: int) -> Sequence[str]:
    """The line that says of how many it was left out, if of some."""
    return [f"… and {counted(left, 'earlier one')}: --limit\n"] if left else []


def instant(at_ns: int | None) -> str | None:
    """A time for programs."""
    return None if at_ns is None else strict.time_encode(moment(at_ns))


def second(at_ns: int) -> str:
    """A time for people."""
    return f"{moment(at_ns):%Y-%m-%dT%H:%M:%SZ}"


def _limit(text: str) -> int:
    found = given.decimal(text, what="the limit", limit=_MOST)
    if found == 0:
        raise argparse.ArgumentTypeError("list at least one")
    return found
