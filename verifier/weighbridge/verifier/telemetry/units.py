"""Units: the stretches of samples that are scored, each with the work that was declared for it.

A unit is ten seconds at ten samples a second, thirty at one. Windows that are shorter are collected until they make a
unit; longer ones are cut into equal pieces, and their work with them: work is declared per window, and how it lies
within one is not known. A unit therefore lasts at least its nominal length and less than twice that, plus a window.
What breaks a unit drops it from its first sample; the next begins with the next whole window.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.series import DEFECTS_MAX, GAP_PERIODS_MILLI, Defect, join, source_of
from weighbridge.verifier.telemetry.work import DeclaredWork

if TYPE_CHECKING:
    from weighbridge.proto.recording import Recording
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.telemetry.series import Series

__all__ = ["Unit", "UnitBuilder", "units_of"]

# A unit may be short by one part in twenty: windows are cut by clocks that jitter.
_SHORT: Final = 20
# Before its first and behind its last sample, a window may miss one more period than lies between two samples.
_EDGE_PERIODS_MILLI: Final = GAP_PERIODS_MILLI + 1000
_PENDING_MAX: Final = 4096
# Later than any sample: intervals are claimed, and may end at any time.
_FAR_NS: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Samples of one unit, the work declared for them, and the windows that the first and the last sample lie in."""

    series: Series
    work: DeclaredWork
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitBuilder:
    """The unit that has begun. Pure: :meth:`after` returns another builder and changes nothing.

    Attributes:
        unit_ns: how long a unit lasts.
        pending: the windows of the unit that has begun.
        seqs: their numbers.
        work: what was declared for them.
        last_ns: wall clock of the last sample before what comes, or ``None``: what comes must follow without a gap.
    """

    unit_ns: int
    pending: tuple[Source, ...] = ()
    seqs: tuple[int, ...] = ()
    work: DeclaredWork | None = None
    last_ns: int | None = None

    def __post_init__(self) -> None:
        """Refuse units that last nothing.

        Raises:
            ValueError: ``unit_ns`` is not positive.
        """
        if self.unit_ns <= 0:
            raise ValueError("a unit lasts longer than nothing")

    def after(
        self, source: Source | None, work: DeclaredWork, interval: tuple[int, int], seq: int
    ) -> tuple[UnitBuilder, tuple[Unit, ...], tuple[Defect, ...]]:
        """The builder behind one more window, the units that it completes, and what is wrong with its samples.

        Never raises for what the evidence contains. A window with a defect drops the unit that has begun, and itself;
        one that is itself longer than two units keeps its sound pieces.

        Args:
            source: what the device's sensors read in the window, ``None`` for nothing.
            work: declared for the window.
            interval: the window's start and end, wall clock, ns.
            seq: the window's number.
        """
        if source is None:
            missing = Defect(kind="missing", channel=None, at_ns=interval[0], detail="no samples of this device")
            return UnitBuilder(unit_ns=self.unit_ns), (), (missing,)
        series, defects = join((source,))
        if series is None:
            return UnitBuilder(unit_ns=self.unit_ns), (), defects
        defects += self._edges(series, interval)
        last_ns = int(series.times[-1])
        if any(defect.breaks for defect in defects):
            units = () if len(defects) >= DEFECTS_MAX else _cut(series, work, (len(series),), (seq,), self.unit_ns)
            sound = tuple(unit for unit in units if not _hit(unit, defects))
            return UnitBuilder(unit_ns=self.unit_ns, last_ns=last_ns), sound if len(units) > 1 else (), defects
        together = work if self.work is None else self.work + work
        pending, seqs = (*self.pending, source), (*self.seqs, seq)
        if together.duration_ns < self.unit_ns - self.unit_ns // _SHORT and len(pending) < _PENDING_MAX:
            begun = UnitBuilder(unit_ns=self.unit_ns, pending=pending, seqs=seqs, work=together, last_ns=last_ns)
            return begun, (), defects
        after = UnitBuilder(unit_ns=self.unit_ns, last_ns=last_ns)
        whole, of_all = (series, ()) if len(pending) == 1 else join(pending)
        if whole is None or any(defect.breaks for defect in of_all):
            return after, (), (*defects, *of_all)
        return after, _cut(whole, together, tuple(len(item.offsets) for item in pending), seqs, self.unit_ns), defects

    def _edges(self, series: Series, interval: tuple[int, int]) -> tuple[Defect, ...]:
        """Whether samples cover the window from its start to its end, and follow those of the window before."""
        start, end = interval
        first, last = int(series.times[0]), int(series.times[-1])
        if end <= start:
            return (Defect(kind="clock_step", channel=None, at_ns=first, detail="a window that lasts nothing"),)
        edge = series.period_ns * _EDGE_PERIODS_MILLI // 1000
        found: list[Defect] = []
        if first < start - edge or last > end + edge:
            detail = "samples from outside of the window"
            found.append(Defect(kind="clock_step", channel=None, at_ns=first, detail=detail))
        if self.last_ns is not None and first <= self.last_ns:
            detail = f"samples begin {(self.last_ns - first) / 1e9:.3f} s before those of the window before ended"
            found.append(Defect(kind="unsorted", channel=None, at_ns=first, detail=detail))
        between = first - start - edge if self.last_ns is None else first - self.last_ns - _gap(series.period_ns)
        if between > 0:
            detail = "no sample at the start of the window"
            found.append(Defect(kind="gap", channel=None, at_ns=first, detail=detail))
        if last < end - edge:
            detail = f"no sample in the last {(end - last) / 1e9:.3f} s of the window"
            found.append(Defect(kind="gap", channel=None, at_ns=last, detail=detail))
        return tuple(found)


def units_of(recording: Recording, device: bytes, unit_ns: int) -> list[Unit]:
    """All units of ``device`` in a recording, in order; broken ones are left out.

    Raises:
        MalformedEvidence: for a window whose telemetry is not well-formed.
    """
    builder, found = UnitBuilder(unit_ns=unit_ns), list[Unit]()
    for number, window in enumerate(recording.windows):
        telemetry = window.readings()
        # A window that lasts nothing is a defect; its work is none's.
        work = DeclaredWork.of(window.work, max(1, window.end_ns - window.start_ns))
        interval = (window.start_ns, window.end_ns)
        builder, units, _ = builder.after(source_of(telemetry, device), work, interval, number)
        found += units
    return found


def _gap(period_ns: int) -> int:
    return period_ns * GAP_PERIODS_MILLI // 1000


def _hit(unit: Unit, defects: tuple[Defect, ...]) -> bool:
    """Whether a defect that breaks lies in the unit."""
    first, last = int(unit.series.times[0]), int(unit.series.times[-1])
    return any(defect.breaks and first <= defect.at_ns <= last for defect in defects)


def _cut(
    series: Series, work: DeclaredWork, sizes: tuple[int, ...], seqs: tuple[int, ...], unit_ns: int
) -> tuple[Unit, ...]:
    """Equal pieces of a stretch of whole windows, which have ``sizes`` samples and the numbers ``seqs``."""
    count = max(1, min(len(series), (work.duration_ns + unit_ns // _SHORT) // unit_ns))
    origin = int(series.times[0]) - series.period_ns // 2
    inner = [min(origin + work.duration_ns * number // count, _FAR_NS) for number in range(1, count)]
    marks = [0, *(int(mark) for mark in np.searchsorted(series.times, np.array(inner, dtype=np.int64))), len(series)]
    ends = list(accumulate(sizes))
    return tuple(
        Unit(
            series=series if count == 1 else series.cut(start, stop),
            work=_share(work, number, count),
            first_seq=seqs[bisect_right(ends, start)],
            last_seq=seqs[bisect_right(ends, stop - 1)],
        )
        for number, (start, stop) in enumerate(pairwise(marks))
        if start < stop
    )


def _share(work: DeclaredWork, number: int, count: int) -> DeclaredWork:
    """Piece ``number`` of ``count`` of the work; all pieces together are the whole."""

    def part(amount: int) -> int:
        return amount * (number + 1) // count - amount * number // count

    return DeclaredWork(
        duration_ns=part(work.duration_ns),
        requests=part(work.requests),
        tokens_in=part(work.tokens_in),
        tokens_out=part(work.tokens_out),
        batch_max=work.batch_max,
        prefill_ns=part(work.prefill_ns),
        decode_ns=part(work.decode_ns),
    )
