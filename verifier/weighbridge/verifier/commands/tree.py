"""Findings as a tree or a list that people read: one line each, wrapped where a line is too long."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands.text import line, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Branch", "labelled", "render", "width"]

_WIDTH: Final = 100
_WIDTH_MIN: Final = 60
_LABEL: Final = 10


def width() -> int:
    """How many columns are filled: 100, or those of the terminal where it is narrower; never fewer than 60."""
    if not sys.stdout.isatty():
        return _WIDTH
    return max(_WIDTH_MIN, min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns))


@dataclass(frozen=True, slots=True)
class Branch:
    """A line and what hangs below it.

    Attributes:
        text: one line, of any length; what cannot be printed is escaped.
        below: its own branches.
        indent: at which column of ``text`` it goes on where it is wrapped.
    """

    text: str
    below: tuple[Branch, ...] = ()
    indent: int = 0


def render(root: Branch) -> list[str]:
    """The lines of the tree, at most :func:`width` columns wide but for words that are longer."""
    return [*_lines(root, "", ""), *_below(root, "")]


def labelled(label: str, text: str) -> list[str]:
    """The lines of one finding of a list, indented by two, as wide as a tree; what cannot be printed is escaped."""
    first = f"  {label:<{_LABEL}} "
    return textwrap.wrap(
        line(text),
        width(),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _below(branch: Branch, stem: str) -> Iterator[str]:
    for number, child in enumerate(branch.below, 1):
        last = number == len(branch.below)
        inner = stem + ("   " if last else "│  ")
        yield from _lines(child, stem + ("└─ " if last else "├─ "), inner)
        yield from _below(child, inner)


def _lines(branch: Branch, first: str, rest: str) -> Iterator[str]:
    """The branch's own line, wrapped; the stem of what is below runs through it."""
    stem = rest + ("│" if branch.below else " ")
    yield from textwrap.wrap(
        plain(branch.text),
        width(),
        initial_indent=first,
        subsequent_indent=stem.ljust(len(rest) + branch.indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
