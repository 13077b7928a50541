"""Units: the stretches of samples that are scored, each with the work that was declared for it.

A unit is ten seconds at ten samples a second, thirty at one: a number of samples, since that is what features compare.
Units follow each other without a gap and without an overlap, so that no sample goes unscored whatever the windows'
lengths: windows that are shorter are collected, longer ones are cut, and what is left over begins the next unit. Where
windows are as long as units, but for one part in twenty by which clocks jitter, each window is its own. Work is
declared per window, and how it lies within one is not known: a part of the samples has that part of the work.

What breaks a window drops the unit that has begun; the next begins with the next whole window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.samples.series import GAP_PERIODS_MILLI, Defect, Sampled, Series, join, source_of
from weighbridge.verifier.telemetry.samples.work import DeclaredWork

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from weighbridge.proto.recording import Recording
    from weighbridge.proto.telemetry import Source

__all__ = ["Unit", "UnitBuilder", "units_of"]

# A unit may be short by one part in twenty: windows are cut by clocks that jitter.
_SHORT: Final = 20
# Before its first and behind its last sample, a window may miss one more period than lies between two samples.
_EDGE_PERIODS_MILLI: Final = GAP_PERIODS_MILLI + 1000
# Samples that a window may have more or less than its length says, besides.
_ODD: Final = 3
# Whoever says that he samples more often than any profile, or reports more quantities, must not have all of it kept.
_SAMPLES_MAX: Final = 100_000
_VALUES_MAX: Final = 2**20


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
        pending: the windows of the unit that has begun, the first of them without what earlier units have of it.
        seqs: their numbers.
        works: what was declared for each.
        last_ns: wall clock of the last sample before what comes, or ``None``: what comes must follow without a gap.
    """

    unit_ns: int
    pending: tuple[Source, ...] = ()
    seqs: tuple[int, ...] = ()
    works: tuple[DeclaredWork, ...] = ()
    last_ns: int | None = None

    def __post_init__(self) -> None:
        """Refuse units that last nothing.

        Raises:
            ValueError: ``unit_ns`` is not positive.
        """
        if self.unit_ns <= 0:
            raise ValueError("a unit lasts longer than nothing")

    @property
    def work(self) -> DeclaredWork | None:
        """What was declared for the unit that has begun, if one has."""
        return _sum(self.works) if self.works else None

    def after(
        self, sampled: Sampled, work: DeclaredWork, interval: tuple[int, int], seq: int
    ) -> tuple[UnitBuilder, tuple[Unit, ...], tuple[Defect, ...]]:
        """The builder behind one more window, the units that it completes, and what is wrong with its samples.

        Never raises for what the evidence contains. A window with a defect that breaks drops the unit that has begun,
        and itself, however long it is: what ran in a gap nobody knows.

        Args:
            sampled: what the device's sensors read in the window.
            work: declared for the window.
            interval: the window's start and end, wall clock, ns.
            seq: the window's number.
        """
        source, series, defects = sampled.source, sampled.series, sampled.defects
        if source is None:
            missing = Defect(kind="missing", channel=None, at_ns=interval[0], detail="no samples of this device")
            return UnitBuilder(unit_ns=self.unit_ns), (), (missing,)
        if series is None:
            return UnitBuilder(unit_ns=self.unit_ns), (), defects
        defects += self._edges(series, interval) + self._size(source)
        last_ns = index(series.times[-1])
        if any(defect.breaks for defect in defects):
            return UnitBuilder(unit_ns=self.unit_ns, last_ns=last_ns), (), defects
        pending, seqs, works = (*self.pending, source), (*self.seqs, seq), (*self.works, work)
        begun = UnitBuilder(unit_ns=self.unit_ns, pending=pending, seqs=seqs, works=works, last_ns=last_ns)
        size = sum(len(item.offsets) for item in pending)
        if size < self._samples(source.period_ns) - self._samples(source.period_ns) // _SHORT:
            return begun, (), defects
        whole, of_all = (series, ()) if len(pending) == 1 else join(pending)
        if whole is None or any(defect.breaks for defect in of_all):
            return UnitBuilder(unit_ns=self.unit_ns, last_ns=last_ns), (), (*defects, *of_all)
        parts = tuple(
            _Part(number, len(item.offsets), of) for number, item, of in zip(seqs, pending, works, strict=True)
        )
        units, left = self._cut(whole, parts)
        rest = tuple(
            _tail(item, part.size) for item, part in zip(pending[len(pending) - len(left) :], left, strict=True)
        )
        after = UnitBuilder(
            unit_ns=self.unit_ns,
            pending=rest,
            seqs=tuple(part.seq for part in left),
            works=tuple(part.work for part in left),
            last_ns=last_ns,
        )
        return after, units, defects

    def _samples(self, period_ns: int) -> int:
        return max(1, self.unit_ns // period_ns)

    def _cut(self, series: Series, parts: tuple[_Part, ...]) -> tuple[tuple[Unit, ...], tuple[_Part, ...]]:
        """Units of the samples of whole windows, or what is left of the first, and what remains for the next unit."""
        samples, size = self._samples(series.period_ns), len(series)
        count = (size + samples // _SHORT) // samples
        if count == 0:
            return (), parts
        even = abs(size - count * samples) <= samples // _SHORT
        marks = [size * number // count if even else samples * number for number in range(count + 1)]
        units: list[Unit] = []
        for start, stop in pairwise(marks):
            taken, parts = _take(parts, stop - start)
            piece = series if stop - start == size else series.cut(start, stop)
            work = _sum(part.work for part in taken)
            units.append(Unit(series=piece, work=work, first_seq=taken[0].seq, last_seq=taken[-1].seq))
        return tuple(units), parts

    def between_gaps(self, series: Series, work: DeclaredWork, seq: int) -> tuple[Unit, ...]:
        """Units of the samples of one window with gaps that have no gap in them.

        For recordings, where a gap is a fault and hides nothing.

        Args:
            series: of the window, in which nothing is wrong but gaps.
            work: declared for the window.
            seq: its number.
        """
        gaps = np.flatnonzero(_gaps(series)) + 1
        units: list[Unit] = []
        parts: tuple[_Part, ...] = (_Part(seq, len(series), work),)
        for start, stop in pairwise([0, *gaps.tolist(), len(series)]):
            taken, parts = _take(parts, stop - start)
            units += self._cut(series.cut(start, stop), taken)[0]
        return tuple(units)

    def _size(self, source: Source) -> tuple[Defect, ...]:
        """Whether the begun unit has become larger with ``source`` than any may be."""
        values = sum(map(_values, (*self.pending, source)))
        if self._samples(source.period_ns) <= _SAMPLES_MAX and values <= _VALUES_MAX:
            return ()
        detail = f"more than a unit may have: {values} readings so far, at one every {source.period_ns} ns"
        return (Defect(kind="size", channel=None, at_ns=source.start_wall_ns, detail=detail),)

    def _edges(self, series: Series, interval: tuple[int, int]) -> tuple[Defect, ...]:
        """Whether samples cover the window from its start to its end, and follow those of the window before."""
        start, end = interval
        first, last = index(series.times[0]), index(series.times[-1])
        if end <= start:
            return (Defect(kind="clock_step", channel=None, at_ns=first, detail="a window that lasts nothing"),)
        edge = series.period_ns * _EDGE_PERIODS_MILLI // 1000
        found: list[Defect] = []
        due = (end - start) // series.period_ns
        beside = len(series) - due
        if not -due // _SHORT - _ODD <= beside <= due // _SHORT + _ODD and not (beside < 0 and _gaps(series).any()):
            detail = f"{len(series)} samples where {due} are due"
            found.append(Defect(kind="range", channel=None, at_ns=first, detail=detail))
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


def units_of(recording: Recording, device: bytes, unit_ns: int, *, source: str | None = None) -> list[Unit]:
    """All units of ``device`` in a recording, in order; broken ones are left out, and those between gaps are kept.

    ``source``: by the sensor path of this name, as :func:`.series.source_of` takes it.

    Raises:
        MalformedEvidence: for a window whose telemetry is not well-formed.
    """
    builder, found = UnitBuilder(unit_ns=unit_ns), list[Unit]()
    for number, window in enumerate(recording.windows):
        telemetry = window.readings()
        # A window that lasts nothing is a defect; its work is none's.
        work = DeclaredWork.of(window.work, max(1, window.end_ns - window.start_ns))
        interval = (window.start_ns, window.end_ns)
        sampled = Sampled.of(source_of(telemetry, device, source))
        builder, units, defects = builder.after(sampled, work, interval, number)
        found += units
        broken = {defect.kind for defect in defects if defect.breaks}
        if sampled.series is not None and broken == {"gap"}:
            found += builder.between_gaps(sampled.series, work, number)
    return found


def _values(source: Source) -> int:
    """How many integers are kept of a window."""
    return len(source.offsets) * (1 + len(source.channels))


def _gaps(series: Series) -> NDArray[np.bool_]:
    """Behind which samples there is a gap."""
    return series.times[1:] - series.times[:-1] > _gap(series.period_ns)


def _gap(period_ns: int) -> int:
    return period_ns * GAP_PERIODS_MILLI // 1000


@dataclass(frozen=True, slots=True)
class _Part:
    """Samples of one window, and the work that goes with them."""

    seq: int
    size: int
    work: DeclaredWork


def _take(parts: tuple[_Part, ...], size: int) -> tuple[tuple[_Part, ...], tuple[_Part, ...]]:
    """The first ``size`` samples of these, and the others."""
    taken: list[_Part] = []
    for at, part in enumerate(parts):
        if part.size > size:
            if size:
                taken.append(_Part(part.seq, size, _share(part.work, 0, size, part.size)))
            return tuple(taken), (
                _Part(part.seq, part.size - size, _share(part.work, size, part.size, part.size)),
                *parts[at + 1 :],
            )
        taken.append(part)
        size -= part.size
    return tuple(taken), ()


def _share(work: DeclaredWork, first: int, last: int, whole: int) -> DeclaredWork:
    """The work of samples ``first`` up to ``last`` of ``whole``; all shares together are the whole."""

    def part(amount: int) -> int:
        return amount * last // whole - amount * first // whole

    return DeclaredWork(
        duration_ns=max(1, part(work.duration_ns)),
        requests=part(work.requests),
        tokens_in=part(work.tokens_in),
        tokens_out=part(work.tokens_out),
        batch_max=work.batch_max,
        prefill_ns=part(work.prefill_ns),
        decode_ns=part(work.decode_ns),
    )


def _sum(works: Iterable[DeclaredWork]) -> DeclaredWork:
    return reduce(DeclaredWork.__add__, works)


def _tail(source: Source, size: int) -> Source:
    """The last samples of a window, without a defect that breaks a unit."""
    if size == len(source.offsets):
        return source
    channels = {
        name: channel if channel.values is None else replace(channel, values=channel.values[-size:])
        for name, channel in source.channels.items()
    }
    return replace(source, offsets=source.offsets[-size:], channels=channels, events=())
