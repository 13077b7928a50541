"""Tables and lists as people read them on one screen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.verifier.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LINES", "counted", "cut", "line", "obeyed", "plain", "rest", "short", "size_of", "table"]

LINES: Final = 20
"""What a screen takes, of a model with 700 files or a set with 1000 models."""
_UNITS: Final = ("kB", "MB", "GB", "TB", "PB")
_THOUSAND: Final = 1000
# Control characters of ISO 6429, other ends of lines, and what has text run backwards.
_OBEYED: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def short(text: str) -> str:
    """A digest by its first 16 digits, anything else as it is."""
    return f"{text[:16]}…" if len(text) == 2 * limits.DIGEST_SIZE and text.isalnum() else plain(text)


def plain(text: str) -> str:
    """Names of a file are whatever its author wrote: nothing of them reaches the terminal that cannot be printed."""
    return text if text.isprintable() else ascii(text)


def line(text: str) -> str:
    """One line, whoever wrote parts of it: what cannot be printed is escaped, and an end of line too."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def obeyed(text: str) -> str:
    """``text`` of several lines with nothing in it that a terminal obeys, but for the ends of lines and tabs."""
    return _OBEYED.sub(lambda found: _escaped(found.group()), text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def size_of(size: int) -> str:
    """``size`` bytes in a unit that fits."""
    if size < _THOUSAND:
        return f"{size} B"
    value, power = size / _THOUSAND, 0
    while value >= _THOUSAND and power < len(_UNITS) - 1:
        value, power = value / _THOUSAND, power + 1
    return f"{value:.1f} {_UNITS[power]}"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, right: int) -> list[str]:
    """Columns as wide as their content, the first ``right`` of them flush right, the last not filled up."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    lines: list[str] = []
    for row in (head, *rows):
        cells = [f"{cell:{'>' if n < right else '<'}{widths[n]}}" for n, cell in enumerate(row[:-1])]
        lines.append("  ".join([*cells, row[-1]]))
    return lines


def cut(lines: list[str], most: int | None) -> list[str]:
    """The first ``most`` lines, and how many more there are; all for ``None``."""
    return lines if most is None else [*lines[:most], *rest(len(lines) - most, "more line")]


def rest(left: int, what: str) -> list[str]:
    """The line that says of how many of ``what`` it was left out, if of some."""
    return [f"… {counted(left, what)}: --all"] if left > 0 else []
