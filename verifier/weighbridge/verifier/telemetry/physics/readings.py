"""One stretch of samples as the checks see it: readings within physical sense, times counted from the first sample.

Times are microseconds and powers milliwatts, so that integrals are whole nanojoules: sums are exact, and a replay on
another machine finds the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from weighbridge.verifier.telemetry.physics.finding import Finding, Limits
    from weighbridge.verifier.telemetry.samples.series import Series

__all__ = ["CHECK", "RANGES", "REFRESH_US", "Power", "Readings", "Track", "readings_of"]

# A sensor gives a new value every so often, however often it is asked: docs/measurements/nvml-h200.md, finding 1.
REFRESH_US: Final = 100_000
_AVERAGING_US: Final = 900_000
# Longer stretches are no units: what the checks compute is bounded.
_SPAN_MAX_US: Final = 4 * 3_600_000_000
_SPAN: Final = "at most four hours"
# No accelerator reads beyond these, in the channels' units.
RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "power": (0, 5_000_000),
    "power_instant": (0, 10_000_000),
    "power_limit": (1_000, 5_000_000),
    "energy": (0, 2**60),
    "energy_at": (-(10**10), 10**10),
    "temperature": (-40_000, 200_000),
    "memory_temperature": (-40_000, 200_000),
    "sm_clock": (0, 10_000),
    "memory_clock": (0, 50_000),
    "utilisation": (0, 1_000),
    "memory_utilisation": (0, 1_000),
}
CHECK: Final = Check(
    name="physical_range",
    channel="*",
    says="readings lie where those of accelerators lie; beyond, the sensor is broken and its channel is not looked at",
    source="the channels' units; no accelerator takes 5 kW",
)


class Track(NamedTuple):
    """The readings of one channel that there are: times in µs from the first sample of the stretch, and values.

    ``low`` and ``high`` are the least and the greatest of these.
    """

    times: NDArray[np.int64]
    values: NDArray[np.int64]
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class Power:
    """Readings of power, in mW, as a track has them, and what follows from them.

    Attributes:
        steps: from each value to the next.
        apart: the time between the two.
        span_us: from the first reading to the last.
        mean: of the values.
        integral: nanojoules from the first reading to each.
        window_us: over how long the sensor takes the mean, ``None`` where that is not known.
    """

    times: NDArray[np.int64]
    values: NDArray[np.int64]
    low: int
    high: int
    steps: NDArray[np.int64]
    apart: NDArray[np.int64]
    span_us: int
    mean: int
    integral: NDArray[np.int64]
    window_us: int | None

    @classmethod
    def of(cls, track: Track, window_ns: int | None) -> Self | None:
        """What follows from ``track``; ``None`` where it has no two readings: an integral has two ends."""
        times, values = track.times, track.values
        span_us = index(times[-1] - times[0])
        if not span_us:
            return None
        apart = times[1:] - times[:-1]
        integral = np.zeros(len(times), dtype=np.int64)
        ((values[1:] + values[:-1]) * apart).cumsum(out=integral[1:])
        return cls(
            times=times,
            values=values,
            low=track.low,
            high=track.high,
            steps=values[1:] - values[:-1],
            apart=apart,
            span_us=span_us,
            mean=index(values.sum()) // len(values),
            integral=integral // 2,
            window_us=None if window_ns is None else window_ns // 1000,
        )

    @property
    def lag_us(self) -> int:
        """By how much a reading is behind what it is the mean of."""
        return (self.window_us or 0) // 2

    @property
    def averages(self) -> bool:
        """Whether the sensor is known to take the mean over a second or so."""
        return self.window_us is not None and self.window_us >= _AVERAGING_US

    @property
    def apart_us(self) -> int:
        """The mean time between two values of the sensor."""
        return max(REFRESH_US, self.span_us // (len(self.times) - 1))

    @property
    def misses(self) -> bool:
        """Whether the sensor looks at power for less than the time between its values."""
        return self.window_us is not None and self.window_us * 10 < self.apart_us * 9

    def until(self, at: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
        """Nanojoules from the first reading to each of these times, straight lines between readings."""
        return np.rint(np.interp(at, self.times, self.integral)).astype(np.int64)

    def spread(self, low_us: int, high_us: int) -> int:
        """Highest less lowest power, in mW, from ``low_us`` to ``high_us`` and one reading on either side."""
        start, stop = self.times.searchsorted((low_us, high_us)).tolist()
        part = self.values[max(0, start - 1) : stop + 1]
        return index(part.max() - part.min()) if len(part) else 0


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """All that the checks look at.

    Attributes:
        tracks: by channel, with at least one reading each, and all of them within :data:`RANGES`.
        power: of the channel of that name, with at least two readings.
        limit_mw: of the device's power, where it is known.
        period_us: nominal, between samples.
        gap_us: the longest time between two readings of power.
        start_ns: wall clock of the first sample.
        wrapped: counters that began anew, as the host says.
    """

    tracks: Mapping[str, Track]
    power: Power | None
    limit_mw: int | None
    period_us: int
    gap_us: int
    start_ns: int
    wrapped: frozenset[str]

    def at_ns(self, at_us: int) -> int:
        """Wall clock of a time of the stretch."""
        return self.start_ns + at_us * 1000

    @property
    def dense(self) -> bool:
        """Whether power was read without a gap in which it could have been anything.

        Collectors stall, and what is read right behind a stall is no second's mean.
        """
        return self.gap_us <= max(250_000, self.period_us * 3 // 2)


@lru_cache(maxsize=16)
def readings_of(series: Series, limits: Limits) -> tuple[Readings, tuple[Finding, ...]]:
    """The readings of ``series``, and findings for channels that are out of physical sense, which are left out.

    The last ones are remembered: most windows are a unit, and are looked at as both.
    """
    tracks: dict[str, Track] = {}
    findings: list[Finding] = []
    period_us = max(1, series.period_ns // 1000)
    start_ns = index(series.times[0]) if len(series) else 0
    every = (series.times - start_ns) // 1000
    long = len(series) > 0 and index(every[-1]) > _SPAN_MAX_US
    if long:
        findings.append(CHECK.unusable(expected=_SPAN, got=f"{index(every[-1]) / 3.6e9:.1f} h", at_ns=start_ns))
    for name, low, high in () if long else _bounds(series):
        found = series.readings(name)
        if found is None:
            continue
        times, values = found
        least, most = RANGES.get(name, (low, high))
        if low < least or high > most:
            findings.append(_beyond(name, found, (least, most)))
            continue
        tracks[name] = Track(every if name not in series.absent else (times - start_ns) // 1000, values, low, high)
    if "energy" in tracks:
        tracks["energy"] = _as_read(tracks["energy"], tracks.get("energy_at"), period_us)
    power = Power.of(tracks["power"], series.windows_ns.get("power")) if "power" in tracks else None
    limit = tracks.get("power_limit")
    readings = Readings(
        tracks=tracks,
        power=power,
        limit_mw=limits.power_limit_mw or (None if limit is None else limit.high),
        period_us=period_us,
        gap_us=0 if power is None else index(power.apart.max()),
        start_ns=start_ns,
        wrapped=series.wrapped,
    )
    return readings, tuple(findings)


def _bounds(series: Series) -> list[tuple[str, int, int]]:
    """The least and the greatest reading of each channel that has any, in the order of the channels."""
    ends: dict[str, tuple[int, int]] = {}
    whole = [name for name in series.channels if name not in series.absent]
    if whole and len(series):
        # All at once: an array is gone through in less time than it takes to ask for it.
        rows = np.concatenate([series.channels[name] for name in whole]).reshape(len(whole), -1)
        ends.update(zip(whole, zip(rows.min(axis=1).tolist(), rows.max(axis=1).tolist(), strict=True), strict=True))
    for name in series.absent:
        if (found := series.readings(name)) is not None:
            ends[name] = index(found[1].min()), index(found[1].max())
    return [(name, *ends[name]) for name in series.channels if name in ends]


def _as_read(energy: Track, moved: Track | None, period_us: int) -> Track:
    """The energy counter at the times at which it was read, which are not its samples' where reading it takes long.

    They are the host's word, like all times, and within a period of the samples': else they are not taken.
    """
    if moved is None or not np.array_equal(moved.times, energy.times):
        return energy
    times = energy.times + moved.values // 1000
    apart = max(moved.high, -moved.low) // 1000
    if apart > period_us or bool((times[1:] <= times[:-1]).any()):
        return energy
    return energy._replace(times=times)


def _beyond(name: str, found: tuple[NDArray[np.int64], NDArray[np.int64]], band: tuple[int, int]) -> Finding:
    times, values = found
    where = index(np.argmax((values < band[0]) | (values > band[1])))
    return Check(name=CHECK.name, channel=name, says=CHECK.says, source=CHECK.source).unusable(
        expected=f"{band[0]} to {band[1]}", got=str(index(values[where])), at_ns=index(times[where])
    )
