"""What was probably meant: the known name that is nearest to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

__all__ = ["listed", "nearest"]

_SIMILAR: Final = 0.6
_LISTED: Final = 12
# Names are short; longer text is data, and comparing takes the square of its length.
_LONG: Final = 64
# Of more names than people write, nobody is told which was meant: a policy could else keep its reader busy for hours.
_MANY: Final = 500


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like ``name``; empty where none is like it."""
    if len(name) > _LONG:
        return ""
    short = sorted(other for other in known if len(other) <= _LONG)
    if len(short) > _MANY:
        return ""
    folded = {other.lower().replace("-", "_"): other for other in reversed(short)}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), sorted(folded), n=1, cutoff=_SIMILAR)
    return folded[found[0]] if found else ""


def listed(known: Iterable[str]) -> str:
    """The names as a list for people, which ends in … where there are many."""
    names = list(known)
    return ", ".join([*names[:_LISTED], *(["…"] if len(names) > _LISTED else [])])
