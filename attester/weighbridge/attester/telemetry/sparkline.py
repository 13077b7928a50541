"""A series as one line of block characters, for terminals. For people; no decision rests on it.

Heights run from the series' own least value to its greatest: a sparkline shows the shape, the figures beside it the
size. What was not read, or is no number, is a blank.

>>> sparkline([1, 2, 3, None, 8], 5)
'▁▂▃ █'
>>> sparkline([5.0, 5.0], 8)
'▄▄'
>>> sparkline([1, 2, 3, None, 8], 5, levels=ASCII)
'_.- #'
"""

from __future__ import annotations

import locale
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ASCII", "BLOCKS", "levels", "sparkline"]

BLOCKS: Final = "▁▂▃▄▅▆▇█"
# For locales in which blocks cannot be said: rising by the height of what is drawn.
ASCII: Final = "_.-:=+*#"
_GAP: Final = " "
_UTF8: Final = frozenset({"UTF-8", "UTF8"})


def sparkline(values: Sequence[float | None], width: int, *, levels: str = BLOCKS) -> str:
    """At most ``width`` characters, one per value or per group of neighbouring values.

    Args:
        values: oldest first; ``None``, NaN and infinities are gaps.
        width: columns to be had; longer series are averaged into as many groups, and a group without a number is a gap.
        levels: what heights are drawn with, lowest first. A series that does not change is drawn in the middle.

    Raises:
        ValueError: there is no column, or nothing to draw with.
    """
    if width < 1 or not levels:
        raise ValueError("a sparkline has a column and a level")
    heights = _grouped(values, width)
    known = [height for height in heights if height is not None]
    if not known:
        return _GAP * len(heights)
    low, high = min(known), max(known)
    # Halves: the difference of two finite numbers may be infinite, that of their halves is not.
    span = high / 2 - low / 2
    middle = levels[(len(levels) - 1) // 2]
    if span == 0:
        return "".join(_GAP if height is None else middle for height in heights)
    top = len(levels) - 1
    return "".join(_GAP if height is None else levels[round((height / 2 - low / 2) / span * top)] for height in heights)


def levels() -> str:
    """What this process's locale can draw with: blocks where it says UTF-8, else ASCII."""
    return BLOCKS if locale.nl_langinfo(locale.CODESET).upper() in _UTF8 else ASCII


def _grouped(values: Sequence[float | None], width: int) -> list[float | None]:
    """``values`` in at most ``width`` groups, each its mean."""
    count = len(values)
    if count <= width:
        return [_mean([value]) for value in values]
    edges = [index * count // width for index in range(width + 1)]
    return [_mean(values[start:end]) for start, end in pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    # Divided first: a sum of finite numbers may be infinite.
    return sum(value / len(known) for value in known) if known else None
