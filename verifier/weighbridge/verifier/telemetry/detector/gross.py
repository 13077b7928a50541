"""Two looks at power that is far from what declared work explains, each unit's by itself.

A unit is off by its residual as a share of what is explained, in thousandths, with its sign.

*The early look*, which waits for no block of units: the last unit, the median of the last two and that of the last
three, after each unit. Where genuine sessions stray furthest is in their first unit, while a load begins.

*The upper side* of a block, when it is full. Its statistic is a median's, to which nearly half of the units are
nothing: work that hides in every third unit would not move it. So the third highest of twenty units (:func:`upper`) may
not be above a limit either. Only that side: genuine sessions draw less for a while, when work runs out, and hardly ever
more.

Each limit is the largest of :data:`RUNS` genuine sessions of other machines, at most 20 units each, rounded up (56.2,
36.5, 17.5 and 13.7 %). A new session passes one of them only if it is the largest of all there: by chance in 1 of 397,
and in 4 of 397 for all four, if this device strays from its own baseline as those did from theirs.

All of those sessions were looked at when the limits were chosen, so that no held-out figure of them exists
(``docs/baseline-evaluation.md``). Pure and in whole numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.profile import GROSS_UNITS, Gross

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "CLAIM_PPM",
    "LIMITS",
    "RUNS",
    "UPPER",
    "gross_of",
    "largest",
    "off_by",
    "passed",
    "stray",
    "upper",
    "widened",
]

LIMITS: Final = (570, 370, 180)
"""Thousandths of what is explained, of the last unit, the last two and the last three."""
UPPER: Final = 140
"""The same, of :func:`upper` of a block."""
RUNS: Final = 396
CLAIM_PPM: Final = -(-(len(LIMITS) + 1) * 1_000_000 // (RUNS + 1))
_HIGHEST: Final = 10
_THOUSAND: Final = 1_000


def stray(residual_mw: int, explained_mw: int) -> int:
    """How far power is off, in thousandths of what is explained, rounded towards none."""
    share = abs(residual_mw) * _THOUSAND // max(1, explained_mw)
    return share if residual_mw >= 0 else -share


def passed(strays: Sequence[int], gross: Gross) -> int | None:
    """Of how many units the median has passed its limit, the last of ``strays`` being the newest; ``None`` for none."""
    looks = zip(GROSS_UNITS, _looks(strays), gross.limits, strict=False)
    return next((size for size, off, limit in looks if off > limit), None)


def off_by(strays: Sequence[int], size: int) -> int:
    """The median of the last ``size`` of ``strays``; between two, rounded down."""
    ordered = sorted(strays[-size:])
    return (ordered[(size - 1) // 2] + ordered[size // 2]) // 2


def largest(strays: Sequence[int]) -> tuple[int, int, int]:
    """The furthest that a whole run strays, as each limit looks at it."""
    one, two, three = 0, 0, 0
    for end in range(1, len(strays) + 1):
        looks = (*_looks(strays[max(0, end - GROSS_UNITS[-1]) : end]), 0, 0)
        one, two, three = max(one, looks[0]), max(two, looks[1]), max(three, looks[2])
    return one, two, three


def upper(strays: Sequence[int]) -> int:
    """What one unit in ten of a block may be above: the third highest of twenty, the highest of fewer than ten."""
    return sorted(strays)[len(strays) - 1 - len(strays) // _HIGHEST]


def widened(gross: Gross, runs: Iterable[Sequence[int]], *, span: int) -> Gross:
    """``gross``, raised where genuine ``runs`` of this very device, their strays, contradict what it rests on.

    ``span`` is how many units a block has.
    """
    one, two, three = gross.limits
    high = gross.upper
    for strays in runs:
        first, second, third = largest(strays)
        one, two, three = max(one, first), max(two, second), max(three, third)
        high = max(high, *(upper(strays[end - span : end]) for end in range(span, len(strays) + 1, span)), 0)
    return Gross((one, two, three), high, gross.claimed_ppm, gross.runs, gross.assumption)


def gross_of(runs: Iterable[Sequence[int]], *, span: int) -> Gross:
    """The bound of a calibration whose runs stray so, in blocks of ``span`` units."""
    return widened(Gross(LIMITS, UPPER, CLAIM_PPM, RUNS, "devices-alike"), runs, span=span)


def _looks(strays: Sequence[int]) -> list[int]:
    """How far off the last unit is, the last two, the last three; fewer where there are fewer units."""
    return [abs(off_by(strays, size)) for size in GROSS_UNITS[: len(strays)]]
