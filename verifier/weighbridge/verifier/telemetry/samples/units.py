"""Units: the stretches of samples that are scored, each with the work that was declared for it.

A unit is ten seconds at ten samples a second, thirty at one: a number of samples, since that is what features compare.
Units follow each other without a gap and without an overlap, so that no sample goes unscored whatever the windows'
lengths: windows that are shorter are collected, longer ones are cut, and what is left over begins the next unit. Where
windows are as long as units, but for one part in twenty by which clocks jitter, each window is its own. Work is
declared per window, and how it lies within one is not known: a part of the samples has that part of the work.

How long a unit lasts is told by its samples (:mod:`.coverage`), never by what headers say: so the rate at which work
was done is that of the time in which power was read.

What breaks a window drops the unit that has begun; the next begins with the next whole window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.samples import coverage
from weighbridge.verifier.telemetry.samples.coverage import SHORT
from weighbridge.verifier.telemetry.samples.series import Defect, Sampled, Series, join, read_of, source_of
from weighbridge.verifier.telemetry.samples.work import DeclaredWork

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.proto.recording import Recording
    from weighbridge.proto.telemetry import Source

__all__ = ["NO_PIECES", "Pieces", "Unit", "UnitBuilder", "units_of"]

# Whoever says that he samples more often than any profile, or reports more quantities, must not have all of it kept;
# nor whoever cuts windows as short as he can.
_SAMPLES_MAX: Final = 100_000
_VALUES_MAX: Final = 2**20
_WINDOWS_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Samples of one unit, the work declared for them, and the windows that the first and the last sample lie in."""

    series: Series
    work: DeclaredWork
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """What there is of a unit that has begun. Sums go along, so that a window costs the same however many there are.

    Attributes:
        sources: the windows, the first of them without what earlier units have of it.
        seqs: their numbers.
        works: what was declared for each; each lasts as long as its samples do.
        work: all of it; ``None`` for none.
        since_ns: wall clock of the first sample; ``None`` for none.
        samples: how many there are.
        values: how many integers are kept.
        drawn_mw: all readings of power together.
        readings: how many these are.
    """

    sources: tuple[Source, ...] = ()
    seqs: tuple[int, ...] = ()
    works: tuple[DeclaredWork, ...] = ()
    work: DeclaredWork | None = None
    since_ns: int | None = None
    samples: int = 0
    values: int = 0
    drawn_mw: int = 0
    readings: int = 0

    def and_(self, source: Source, seq: int, work: DeclaredWork, *, channel: str) -> Pieces:
        """With one more window, whose power is in ``channel``."""
        power = source.channels.get(channel)
        read = () if power is None else read_of(power)
        first_ns = source.start_wall_ns + source.offsets[0] if source.offsets else None
        return Pieces(
            sources=(*self.sources, source),
            seqs=(*self.seqs, seq),
            works=(*self.works, work),
            work=work if self.work is None else self.work + work,
            since_ns=first_ns if self.since_ns is None else self.since_ns,
            samples=self.samples + len(source.offsets),
            values=self.values + _values(source),
            drawn_mw=self.drawn_mw + sum(read),
            readings=self.readings + len(read),
        )


NO_PIECES: Final = Pieces()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitBuilder:
    """The unit that has begun. Pure: :meth:`after` returns another builder and changes nothing.

    Attributes:
        unit_ns: how long a unit lasts.
        channel: of which the sum is kept.
        values_max: how many integers are kept at most.
        begun: what there is of the unit.
        last_ns: wall clock of the last sample before what comes, or ``None``: what comes must follow without a gap.
    """

    unit_ns: int
    channel: str = "power"
    values_max: int = _VALUES_MAX
    begun: Pieces = NO_PIECES
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
        return self.begun.work

    def anew(self, last_ns: int | None = None) -> UnitBuilder:
        """Nothing of a unit, behind a sample at ``last_ns``."""
        return replace(self, begun=NO_PIECES, last_ns=last_ns)

    def after(
        self, sampled: Sampled, work: DeclaredWork, interval: tuple[int, int], seq: int
    ) -> tuple[UnitBuilder, tuple[Unit, ...], tuple[Defect, ...]]:
        """The builder behind one more window, the units that it completes, and what is wrong with its samples.

        Never raises for what the evidence contains. A window with a defect that breaks drops the unit that has begun,
        and itself, however long it is: what ran in a gap nobody knows.

        Args:
            sampled: what the device's sensors read in the window.
            work: declared for the window; it is taken for the time that the samples cover, however long it says.
            interval: the window's start and end, wall clock, ns.
            seq: the window's number.
        """
        source, series, defects = sampled.source, sampled.series, sampled.defects
        if source is None:
            missing = Defect(kind="missing", channel=None, at_ns=interval[0], detail="no samples of this device")
            return self.anew(), (), (missing,)
        if series is None:
            return self.anew(), (), defects
        defects += coverage.edges(series, interval, self.last_ns)
        gap = any(defect.kind == "gap" and defect.breaks for defect in defects)
        defects += coverage.pace(series, before=self.begun.samples, since_ns=self.begun.since_ns, gap=gap)
        defects += self._size(source)
        last_ns = index(series.times[-1])
        if any(defect.breaks for defect in defects):
            return self.anew(last_ns), (), defects
        done = replace(work, duration_ns=coverage.covered_ns(series, self.last_ns))
        begun = self.begun.and_(source, seq, done, channel=self.channel)
        following, units, uneven = replace(self, begun=begun, last_ns=last_ns).filled(series)
        return following, units, (*defects, *uneven)

    def filled(self, series: Series) -> tuple[UnitBuilder, tuple[Unit, ...], tuple[Defect, ...]]:
        """The units that are full now, of which the last samples are ``series``, and what is left."""
        begun, samples = self.begun, self._samples(series.period_ns)
        if begun.samples < samples - samples // SHORT:
            return self, (), ()
        whole, defects = (series, ()) if len(begun.sources) == 1 else join(begun.sources)
        if whole is None or any(defect.breaks for defect in defects):
            return self.anew(self.last_ns), (), defects
        units, left = self._cut(whole, _parts(begun))
        if uneven := tuple(item for unit in units for item in coverage.unit_pace(unit.series, samples)):
            return self.anew(self.last_ns), (), uneven
        rest = NO_PIECES
        for item, part in zip(begun.sources[len(begun.sources) - len(left) :], left, strict=True):
            rest = rest.and_(_tail(item, part.size), part.seq, part.work, channel=self.channel)
        return replace(self, begun=rest), units, ()

    def _samples(self, period_ns: int) -> int:
        return max(1, self.unit_ns // period_ns)

    def _cut(self, series: Series, parts: tuple[_Part, ...]) -> tuple[tuple[Unit, ...], tuple[_Part, ...]]:
        """Units of the samples of whole windows, or what is left of the first, and what remains for the next unit."""
        samples, size = self._samples(series.period_ns), len(series)
        count = (size + samples // SHORT) // samples
        if count == 0:
            return (), parts
        even = abs(size - count * samples) <= samples // SHORT
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
        gaps = np.flatnonzero(coverage.gaps(series)) + 1
        units: list[Unit] = []
        parts: tuple[_Part, ...] = (_Part(seq, len(series), work),)
        for start, stop in pairwise([0, *gaps.tolist(), len(series)]):
            taken, parts = _take(parts, stop - start)
            units += self._cut(series.cut(start, stop), taken)[0]
        return tuple(units)

    def _size(self, source: Source) -> tuple[Defect, ...]:
        """Whether the begun unit has become larger with ``source`` than any may be."""
        values, windows = self.begun.values + _values(source), len(self.begun.sources) + 1
        if self._samples(source.period_ns) <= _SAMPLES_MAX and values <= self.values_max and windows <= _WINDOWS_MAX:
            return ()
        detail = (
            f"more than a unit may have: {values} readings in {windows} windows so far, "
            f"at one every {source.period_ns} ns"
        )
        return (Defect(kind="size", channel=None, at_ns=source.start_wall_ns, detail=detail),)


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


@dataclass(frozen=True, slots=True)
class _Part:
    """Samples of one window, and the work that goes with them."""

    seq: int
    size: int
    work: DeclaredWork


def _parts(begun: Pieces) -> tuple[_Part, ...]:
    rows = zip(begun.seqs, begun.sources, begun.works, strict=True)
    return tuple(_Part(seq, len(source.offsets), work) for seq, source, work in rows)


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
