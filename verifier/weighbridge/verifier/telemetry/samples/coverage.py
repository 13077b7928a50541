"""What the samples of a window cover: of its interval, of the time since the samples before, at the rate that is said.

A window's interval is the host's word, and so is every sample's time; nothing is computed from the interval. How long a
unit lasts, what is left of one and at which rate work was done follow from the samples alone: from the last one of the
window before to the last one of this. Whoever says that his windows last less than their samples cover, or puts more
samples into a second than their period has room for, or fewer, is told so and is not scored.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.samples.series import GAP_PERIODS_MILLI, Defect

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from weighbridge.verifier.telemetry.samples.series import Series

__all__ = ["SHORT", "covered_ns", "edges", "gaps", "lasts_ns", "pace", "unit_pace"]

SHORT: Final = 20
"""Sensors and clocks may be off by one part in so many."""
# Before its first and behind its last sample, a window may miss one more period than lies between two samples.
_EDGE_PERIODS_MILLI: Final = GAP_PERIODS_MILLI + 1000
# The first sample of a stretch may be late by a period, and so may the last one.
_ODD: Final = 2
_SECOND: Final = 10**9


def lasts_ns(series: Series) -> int:
    """How long these samples last: from a period before the first of them to the last."""
    return index(series.times[-1] - series.times[0]) + series.period_ns


def covered_ns(series: Series, last_ns: int | None) -> int:
    """As :func:`lasts_ns`, from the last sample of the window before, ``last_ns``, where there is one.

    So what lies between two windows is part of one of them, and the windows of a unit together last as long as it does.
    """
    return lasts_ns(series) if last_ns is None else index(series.times[-1]) - last_ns


def gaps(series: Series) -> NDArray[np.bool_]:
    """Behind which samples there is a gap."""
    return series.times[1:] - series.times[:-1] > _gap(series.period_ns)


def edges(series: Series, interval: tuple[int, int], last_ns: int | None) -> tuple[Defect, ...]:
    """Whether the samples are of this interval, from its start to its end, and follow those before.

    Args:
        series: of one window.
        interval: its start and end, wall clock, ns.
        last_ns: of the last sample before, or ``None``.
    """
    start, end = interval
    first, last = index(series.times[0]), index(series.times[-1])
    if end <= start:
        return (Defect(kind="clock_step", channel=None, at_ns=first, detail="a window that lasts nothing"),)
    edge = series.period_ns * _EDGE_PERIODS_MILLI // 1000
    found: list[Defect] = []
    said, covered = end - start, lasts_ns(series)
    if covered > said + said // SHORT + edge:
        detail = f"samples of {covered / _SECOND:.3f} s in a window of {said / _SECOND:.3f} s"
        found.append(Defect(kind="range", channel=None, at_ns=first, detail=detail))
    if first < start - edge or last > end + edge:
        found.append(Defect(kind="clock_step", channel=None, at_ns=first, detail="samples from outside of the window"))
    if last_ns is not None and first <= last_ns:
        detail = f"samples begin {(last_ns - first) / _SECOND:.3f} s before those of the window before ended"
        found.append(Defect(kind="unsorted", channel=None, at_ns=first, detail=detail))
    between = first - start - edge if last_ns is None else first - last_ns - _gap(series.period_ns)
    if between > 0:
        found.append(Defect(kind="gap", channel=None, at_ns=first, detail="no sample at the start of the window"))
    if last < end - edge:
        detail = f"no sample in the last {(end - last) / _SECOND:.3f} s of the window"
        found.append(Defect(kind="gap", channel=None, at_ns=last, detail=detail))
    return tuple(found)


def pace(series: Series, *, before: int, since_ns: int | None, gap: bool) -> tuple[Defect, ...]:
    """Whether samples come at the rate that is said, over the whole unit that has begun.

    Steps between two samples vary, over any window; over a unit they make up for each other.

    Args:
        series: of one window.
        before: how many samples the unit has of earlier windows.
        since_ns: the first of them; ``None`` where there is none.
        gap: whether one is known of, be it before the window or within: what is missing there is named as that.
    """
    first, last = index(series.times[0]), index(series.times[-1])
    count, lasts = before + len(series), last - (first if since_ns is None else since_ns)
    if (gap and lasts > (count - 1) * series.period_ns) or _even(count - 1, lasts, series.period_ns, count):
        return ()
    return (_off(count, lasts, series.period_ns, first),)


def unit_pace(series: Series, samples: int) -> tuple[Defect, ...]:
    """Whether a unit, nominally of so many ``samples``, lasts as long as these do."""
    lasts = index(series.times[-1] - series.times[0])
    if _even(samples - 1, lasts, series.period_ns, samples):
        return ()
    return (_off(len(series), lasts, series.period_ns, index(series.times[0])),)


def _even(steps: int, lasts: int, period_ns: int, samples: int) -> bool:
    """Whether so many steps last so long, but for one part in twenty of all samples and what the ends may be late."""
    return abs(lasts - steps * period_ns) <= samples * period_ns // SHORT + _ODD * period_ns


def _off(count: int, lasts: int, period_ns: int, at_ns: int) -> Defect:
    detail = f"{count} samples in {lasts / _SECOND:.3f} s, at a period of {period_ns / _SECOND:.3f} s"
    return Defect(kind="range", channel=None, at_ns=at_ns, detail=detail)


def _gap(period_ns: int) -> int:
    return period_ns * GAP_PERIODS_MILLI // 1000
