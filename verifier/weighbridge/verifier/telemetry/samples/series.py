"""Samples of one sensor path, joined over windows: sorted, in integers, with every defect named and nothing smoothed.

A defect is not an accusation. What breaks a unit (:attr:`Defect.breaks`) makes it ``unusable``: gaps of more than one
and a half periods, missing readings of power, sentinels, stalls, steps of the clock. Readings that a sensor did not
give are marked, never filled in: :meth:`Series.readings` leaves them out.

*The host says so*: times are its wall clock's, and no reading is signed by a sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, Self

import numpy as np

from weighbridge.proto.telemetry import UNITS, EventKind, Packed
from weighbridge.proto.typed_array import WIDTHS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeVar

    from numpy.typing import NDArray

    from weighbridge.proto.telemetry import Channel, Source, Telemetry

    _Item = TypeVar("_Item", np.int64, np.bool_)

__all__ = [
    "DEFECTS_MAX",
    "GAP_PERIODS_MILLI",
    "SAMPLES_MAX",
    "Defect",
    "DefectKind",
    "Sampled",
    "Series",
    "join",
    "power_of",
    "read_of",
    "source_of",
]

# Two samples further apart than this many thousandths of a period have a gap between them.
GAP_PERIODS_MILLI: Final = 1500
# As many as one series holds: what is longer is not appraised at all.
SAMPLES_MAX: Final = 2**18
# Wall clocks beyond the year 2200 are none; sums of times stay within 64 bits.
_WALL_MAX_NS: Final = 2**62
_PERIOD_MAX_NS: Final = 3_600_000_000_000
# As many are named.
DEFECTS_MAX: Final = 64
# What drivers and meters write where they have no reading.
_SENTINELS: Final = (-1, 2**31 - 1, 2**32 - 1, 2**63 - 1, -(2**63))

# The integers of a typed array, by its tag.
_WIRE: Final = {tag: np.dtype(f">i{width}") for tag, width in WIDTHS.items()}

DefectKind = Literal[
    "gap", "missing", "stall", "sentinel", "wrap", "clock_step", "fault", "unsorted", "unit", "source", "range", "size"
]
_EVENTS: Final[Mapping[EventKind, DefectKind]] = MappingProxyType(
    {
        EventKind.GAP: "gap",
        EventKind.STALL: "stall",
        EventKind.SENTINEL: "sentinel",
        EventKind.WRAP: "wrap",
        EventKind.CLOCK_STEP: "clock_step",
        EventKind.FAULT: "fault",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """What is wrong with samples, so that they say less than they should.

    ``channel`` is ``None`` where all channels are concerned; ``at_ns`` is wall-clock time; ``detail`` is for people.
    """

    kind: DefectKind
    channel: str | None
    at_ns: int
    detail: str

    @property
    def breaks(self) -> bool:
        """Whether a unit with this defect cannot be scored: all channels, power, or a counter that began anew."""
        return self.channel in {None, "power"} or (self.kind == "wrap" and self.channel == "energy")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """Samples of one sensor path, strictly ascending in time. Arrays are read-only.

    Attributes:
        device: identity of the GPU, 32 bytes, or ``None`` for the host itself.
        name: of the sensor path.
        period_ns: nominal time between samples.
        times: wall clock of each sample, ns since 1970.
        channels: one value per sample, in the units of :data:`~weighbridge.proto.telemetry.UNITS`; channels that the
            device does not report are not here.
        absent: per channel with missing readings, where they are missing: the value there means nothing.
        windows_ns: per channel whose sensor integrates, over how much time before the sample.
        wrapped: counters that began anew within these samples, as the host says.
    """

    device: bytes | None
    name: str
    period_ns: int
    times: NDArray[np.int64]
    channels: Mapping[str, NDArray[np.int64]]
    absent: Mapping[str, NDArray[np.bool_]]
    windows_ns: Mapping[str, int]
    wrapped: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.times)

    def readings(self, channel: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Times and values of the readings that there are; ``None`` where there is none."""
        values = self.channels.get(channel)
        if values is None:
            return None
        absent = self.absent.get(channel)
        if absent is None:
            return (self.times, values) if len(values) else None
        there = ~absent
        return (self.times[there], values[there]) if there.any() else None

    def cut(self, start: int, stop: int) -> Series:
        """Samples ``start`` up to, but not including, ``stop``."""
        absent = {name: mask[start:stop] for name, mask in self.absent.items()}
        return Series(
            device=self.device,
            name=self.name,
            period_ns=self.period_ns,
            times=self.times[start:stop],
            channels={name: values[start:stop] for name, values in self.channels.items()},
            absent={name: mask for name, mask in absent.items() if mask.any()},
            windows_ns=self.windows_ns,
            wrapped=self.wrapped,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """What one window brought of one sensor path: as it was sent, joined, and what is wrong with it.

    ``source`` is ``None`` for nothing at all, ``series`` where there is none to speak of.
    """

    source: Source | None
    series: Series | None
    defects: tuple[Defect, ...]

    @classmethod
    def of(cls, source: Source | None) -> Self:
        """``source``, joined."""
        return cls(None, None, ()) if source is None else cls(source, *join((source,)))


def source_of(telemetry: Telemetry, device: bytes, named: str | None = None) -> Source | None:
    """The source by which ``device`` is judged: that of the baseline, ``named``, whatever others say beside it.

    Where there is none of that name: the first, by name, that reports the device's power; any other failing that.
    """
    sources = sorted((item for item in telemetry.sources if item.device == device), key=lambda item: item.name)
    if (its := next((item for item in sources if item.name == named), None)) is not None:
        return its
    return next((item for item in sources if _reports(item, "power")), sources[0] if sources else None)


def power_of(source: Source | None) -> tuple[int, ...]:
    """The readings of power that ``source`` has, as they were sent, whatever is wrong with them otherwise."""
    channel = None if source is None else source.channels.get("power")
    if channel is None or channel.values is None or channel.unit != UNITS["power"]:
        return ()
    return read_of(channel)


def read_of(channel: Channel) -> tuple[int, ...]:
    """The readings that there are, without those that failed."""
    values = channel.values or ()
    return values.values if isinstance(values, Packed) else tuple(value for value in values if value is not None)


def join(sources: Sequence[Source]) -> tuple[Series | None, tuple[Defect, ...]]:
    """The samples of consecutive windows of one sensor path, and what is wrong with them.

    Never raises for what the sources contain. At most 64 defects are named, the first ones.

    Args:
        sources: of one device and one name, in the order of their windows.

    Returns:
        The series, or ``None`` where there is none to speak of: no sample, times that do not ascend, sources of
        several devices, too many samples; and the defects, of which at least one says why there is none.
    """
    whole = _whole(sources)
    if whole is not None:
        return None, (whole,)
    each = [_times(source) for source in sources]
    times = _frozen(each[0] if len(each) == 1 else np.concatenate(each))
    steps = times[1:] - times[:-1]
    if len(steps) and index(steps.min()) <= 0:
        where = index(np.argmax(steps <= 0))
        detail = f"a sample follows that is {-index(steps[where]) / 1e9:.3f} s older, or as old"
        return None, (Defect(kind="unsorted", channel=None, at_ns=index(times[where]), detail=detail),)
    channels, absent, defects = _channels(sources, times)
    defects += _events(sources) + _gaps(times, steps, sources[0].period_ns)
    series = Series(
        device=sources[0].device,
        name=sources[0].name,
        period_ns=sources[0].period_ns,
        times=times,
        channels=MappingProxyType(channels),
        absent=MappingProxyType(absent),
        windows_ns=MappingProxyType(
            {name: item.window_ns for name, item in sources[-1].channels.items() if item.window_ns is not None}
        ),
        wrapped=frozenset(item.channel for item in defects if item.kind == "wrap" and item.channel is not None),
    )
    # Those that break a unit come first, so that the bound on their number hides none of them behind one that does not.
    return series, tuple(sorted(defects, key=lambda item: (not item.breaks, item.at_ns))[:DEFECTS_MAX])


def _whole(sources: Sequence[Source]) -> Defect | None:
    """Why there is no series at all."""
    if not sources or not any(source.offsets for source in sources):
        at_ns = sources[0].start_wall_ns if sources else 0
        return Defect(kind="missing", channel=None, at_ns=at_ns, detail="no sample")
    first, at_ns = sources[0], sources[0].start_wall_ns
    if len(sources) > 1 and (detail := _unlike(sources)):
        return Defect(kind="source", channel=None, at_ns=at_ns, detail=detail)
    count = sum(len(source.offsets) for source in sources)
    if count > SAMPLES_MAX:
        detail = f"{count} samples, of which at most {SAMPLES_MAX} are looked at"
        return Defect(kind="size", channel=None, at_ns=at_ns, detail=detail)
    if not 0 < first.period_ns <= _PERIOD_MAX_NS:
        return Defect(kind="range", channel=None, at_ns=at_ns, detail=f"a period of {first.period_ns} ns")
    for source in sources:
        ends = (*source.offsets[:1], *source.offsets[-1:])
        if not all(0 <= source.start_wall_ns + offset <= _WALL_MAX_NS for offset in ends):
            detail = f"a wall clock of {source.start_wall_ns} ns"
            return Defect(kind="clock_step", channel=None, at_ns=at_ns, detail=detail)
    return None


def _unlike(sources: Sequence[Source]) -> str:
    """What windows do not have in common that they must, in words; empty for nothing."""
    first, said = sources[0], dict[str, int | None]()
    for source in sources:
        if (source.device, source.name, source.period_ns) != (first.device, first.name, first.period_ns):
            return "windows of another device, sensor path or period"
        for name, channel in source.channels.items():
            if said.setdefault(name, channel.window_ns) != channel.window_ns:
                return f"windows in which {name} is a mean over different times"
    return ""


def _times(source: Source) -> NDArray[np.int64]:
    return np.array(source.offsets, dtype=np.int64) + source.start_wall_ns


def _channels(
    sources: Sequence[Source], times: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.bool_]], list[Defect]]:
    """Values and missing readings of every channel that any window has."""
    channels: dict[str, NDArray[np.int64]] = {}
    absent: dict[str, NDArray[np.bool_]] = {}
    defects: list[Defect] = []
    columns = _columns(sources)
    unpacked = _unpacked(columns, len(times))
    for name, (units, read) in sorted(columns.items()):
        if units != (UNITS.get(name, units[0]),):
            detail = f"in {', '.join(units)} where {UNITS.get(name, 'one unit')} is due"
            defects.append(Defect(kind="unit", channel=name, at_ns=index(times[0]), detail=detail))
            continue
        if read is None:
            continue  # not supported, which is a value
        try:
            values, holes = _numbers(read, len(times)) if name not in unpacked else (unpacked[name], None)
        except (OverflowError, ValueError, TypeError):
            detail = "values that are no 64-bit integers, or not one per sample"
            defects.append(Defect(kind="range", channel=name, at_ns=index(times[0]), detail=detail))
            continue
        channels[name] = _frozen(values)
        if holes is not None:
            absent[name] = _frozen(holes)
        if name == "power":
            defects += _of_power(values, holes, times)
    return channels, absent, defects


_Column = tuple[tuple[str, ...], "Sequence[int | None] | None"]


def _columns(sources: Sequence[Source]) -> Mapping[str, _Column]:
    """The units of each channel, and its values in all windows; ``None`` where no window has any."""
    if len(sources) == 1:
        return {name: ((channel.unit,), channel.values) for name, channel in sources[0].channels.items()}
    return {name: _column(name, sources) for name in set[str]().union(*(source.channels for source in sources))}


def _column(name: str, sources: Sequence[Source]) -> _Column:
    """Of one channel in several windows; no value at all where one of them has not one per sample."""
    parts = [(source.channels.get(name), len(source.offsets)) for source in sources]
    units = tuple(sorted({part.unit for part, _ in parts if part is not None}))
    if all(part is None or part.values is None for part, _ in parts):
        return units, None
    read: list[int | None] = []
    for part, size in parts:
        values = (None,) * size if part is None or part.values is None else part.values
        if len(values) != size:
            return units, ()
        read += values
    return units, read


def _unpacked(columns: Mapping[str, _Column], size: int) -> dict[str, NDArray[np.int64]]:
    """The values of channels that are still as they came, of so many samples: of all in one go."""
    packed = {name: read for name, (_, read) in columns.items() if isinstance(read, Packed) and len(read) == size}
    rows = np.empty((len(packed), size), dtype=np.int64)
    for row, read in zip(rows, packed.values(), strict=True):
        row[:] = np.frombuffer(read.differences.octets, _WIRE[read.differences.tag])
    return dict(zip(packed, rows.cumsum(axis=1, out=rows), strict=True))


def _numbers(read: Sequence[int | None], size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Values of so many samples, and where they are missing; ``None`` where none is."""
    if len(read) != size:
        raise ValueError("not one value per sample")
    # Few channels miss any, and to look for one takes as long as to fail of it.
    try:
        return np.array(read, dtype=np.int64), None
    except TypeError:
        filled = [0 if value is None else value for value in read]
        return np.array(filled, dtype=np.int64), np.array([value is None for value in read], dtype=np.bool_)


def _of_power(values: NDArray[np.int64], holes: NDArray[np.bool_] | None, times: NDArray[np.int64]) -> list[Defect]:
    """Missing readings, and what stands for none: of power alone, since others may have any of these values."""
    defects: list[Defect] = []
    if holes is not None:
        detail = f"{index(holes.sum())} readings are missing"
        at_ns = index(times[index(np.argmax(holes))])
        defects.append(Defect(kind="missing", channel="power", at_ns=at_ns, detail=detail))
    if index(values.min()) <= 0 or index(values.max()) >= _SENTINELS[1]:
        found = np.isin(values, _SENTINELS) | (values == 0)
        if holes is not None:
            found &= ~holes
        if found.any():
            where = index(np.argmax(found))
            detail = f"{index(values[where])} stands where a reading is due"
            defects.append(Defect(kind="sentinel", channel="power", at_ns=index(times[where]), detail=detail))
    return defects


def _events(sources: Sequence[Source]) -> list[Defect]:
    return [
        Defect(
            kind=_EVENTS[event.kind],
            channel=event.channel,
            at_ns=source.start_wall_ns + event.offset_ns,
            detail=f"the host reports a {event.kind.replace('_', ' ')}",
        )
        for source in sources
        for event in source.events
    ]


def _gaps(times: NDArray[np.int64], steps: NDArray[np.int64], period_ns: int) -> list[Defect]:
    limit = period_ns * GAP_PERIODS_MILLI // 1000
    if not len(steps) or index(steps.max()) <= limit:
        return []
    return [
        Defect(
            kind="gap",
            channel=None,
            at_ns=index(times[where]),
            detail=f"no sample for {index(steps[where]) / 1e9:.3f} s, at a period of {period_ns / 1e9:.3f} s",
        )
        for where in (steps > limit).nonzero()[0][:DEFECTS_MAX]
    ]


def _reports(source: Source, channel: str) -> bool:
    found = source.channels.get(channel)
    return found is not None and found.values is not None


def _frozen(array: NDArray[_Item]) -> NDArray[_Item]:
    array.setflags(write=False)
    return array
