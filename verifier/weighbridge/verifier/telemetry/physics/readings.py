"""One stretch of samples as the checks see it: readings within physical sense, times counted from the first sample.

Times are microseconds and powers milliwatts, so that integrals are whole nanojoules: sums are exact, and a replay on
another machine finds the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from weighbridge.verifier.telemetry.physics.finding import Finding, Limits
    from weighbridge.verifier.telemetry.series import Series

__all__ = ["CHECK", "RANGES", "REFRESH_US", "Power", "Readings", "Track"]

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


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The readings of one channel that there are: times in µs from the first sample of the stretch, and values."""

    times: NDArray[np.int64]
    values: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Power:
    """Readings of power, in mW, and their integral: nanojoules from the first reading to each.

    ``window_us`` is over how long the sensor takes the mean, ``None`` where that is not known.
    """

    times: NDArray[np.int64]
    values: NDArray[np.int64]
    integral: NDArray[np.int64]
    window_us: int | None

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

    @property
    def mean(self) -> int:
        """In mW."""
        return index(self.values.sum()) // len(self.values)

    @property
    def span_us(self) -> int:
        """From the first reading to the last."""
        return index(self.times[-1] - self.times[0])

    def until(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nanojoules from the first reading to each of these times, straight lines between readings."""
        return np.rint(np.interp(at, self.times, self.integral)).astype(np.int64)

    def spread(self, low_us: int, high_us: int) -> int:
        """Highest less lowest power, in mW, from ``low_us`` to ``high_us`` and one reading on either side."""
        start, stop = np.searchsorted(self.times, (low_us, high_us))
        part = self.values[max(0, index(start) - 1) : index(stop) + 1]
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

    @classmethod
    def of(cls, series: Series, limits: Limits) -> tuple[Self, tuple[Finding, ...]]:
        """The readings of ``series``, and findings for channels that are out of physical sense, which are left out."""
        tracks: dict[str, Track] = {}
        findings: list[Finding] = []
        start_ns = index(series.times[0]) if len(series) else 0
        every = (series.times - start_ns) // 1000
        long = len(series) > 0 and index(every[-1]) > _SPAN_MAX_US
        if long:
            findings.append(CHECK.unusable(expected=_SPAN, got=f"{index(every[-1]) / 3.6e9:.1f} h", at_ns=start_ns))
        for name in () if long else series.channels:
            found = series.readings(name)
            if found is None:
                continue
            low, high = RANGES.get(name, (None, None))
            values = found[1]
            if low is not None and high is not None and (index(values.min()) < low or index(values.max()) > high):
                findings.append(_beyond(name, series, (low, high)))
                continue
            tracks[name] = Track(every if name not in series.absent else (found[0] - start_ns) // 1000, values)
        if "energy" in tracks:
            tracks["energy"] = _as_read(tracks["energy"], tracks.get("energy_at"), max(1, series.period_ns // 1000))
        power = _power(tracks.get("power"), series.windows_ns.get("power"))
        limit = tracks.get("power_limit")
        return cls(
            tracks=tracks,
            power=power,
            limit_mw=limits.power_limit_mw or (None if limit is None else index(limit.values.max())),
            period_us=max(1, series.period_ns // 1000),
            gap_us=0 if power is None else index(np.diff(power.times).max()),
            start_ns=start_ns,
            wrapped=series.wrapped,
        ), tuple(findings)


def _power(track: Track | None, window_ns: int | None) -> Power | None:
    if track is None or index(track.times[-1]) == index(track.times[0]):
        return None  # an integral has two ends
    doubled = (track.values[1:] + track.values[:-1]) * np.diff(track.times)
    integral = np.zeros(len(track.times), dtype=np.int64)
    np.cumsum(doubled, out=integral[1:])
    return Power(track.times, track.values, integral // 2, None if window_ns is None else window_ns // 1000)


def _as_read(energy: Track, moved: Track | None, period_us: int) -> Track:
    """The energy counter at the times at which it was read, which are not its samples' where reading it takes long.

    They are the host's word, like all times, and within a period of the samples': else they are not taken.
    """
    if moved is None or not np.array_equal(moved.times, energy.times):
        return energy
    times = energy.times + moved.values // 1000
    apart = index(np.abs(moved.values).max()) // 1000
    if apart > period_us or bool((np.diff(times) <= 0).any()):
        return energy
    return Track(times, energy.values)


def _beyond(name: str, series: Series, band: tuple[int, int]) -> Finding:
    times, values = series.readings(name) or (series.times, series.channels[name])
    where = index(np.argmax((values < band[0]) | (values > band[1])))
    return Check(name=CHECK.name, channel=name, says=CHECK.says, source=CHECK.source).unusable(
        expected=f"{band[0]} to {band[1]}", got=str(index(values[where])), at_ns=index(times[where])
    )
