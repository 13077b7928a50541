"""The energy counter against the integral of power: the check that a lie costs most."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check
from weighbridge.verifier.telemetry.physics.readings import REFRESH_US

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Power, Readings

__all__ = ["CHECK", "NJ_PER_MJ", "agree", "find", "tolerance_mj"]

CHECK: Final = Check(
    name="energy_integral",
    channel="energy",
    says=(
        "the counter advances by the integral of power, which lags by half of what its sensor takes the mean over: "
        "within 1 % + 20 J, and what sensors can hide that are refreshed every 100 ms while power changes; parts of "
        "two seconds within three times that. Left out where power was not read for 0.25 s"
    ),
    source="H100 at 10 Hz: 2 of 584 honest stretches of 30 s beyond it; H200: the two means agree within 0.3 %",
)
NJ_PER_MJ: Final = 1_000_000
_SHARE: Final = 100
_FIXED_MJ: Final = 20_000
_PART_US: Final = 2_000_000
_PART_SLACK: Final = 3
_STRIDE_US: Final = 500_000
_DEAD_MJ: Final = 60_000


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Readings of the counter, and what power sums up to at each of them, in mJ."""

    times: NDArray[np.int64]
    counts: NDArray[np.int64]
    sums: NDArray[np.int64]


def find(readings: Readings) -> Finding | None:
    """Whether the counter and power agree over the stretch, and over its parts."""
    pair = _pair(readings)
    if pair is None or readings.power is None:
        return None
    advance, total = index(pair.counts[-1] - pair.counts[0]), index(pair.sums[-1] - pair.sums[0])
    if advance == 0 and total > _DEAD_MJ:
        return CHECK.unusable(
            expected=f"a counter that advances by {total / 1000:.0f} J",
            got="a counter that stands still",
            at_ns=readings.at_ns(index(pair.times[0])),
        )
    marks = np.arange(index(pair.times[0]), index(pair.times[-1]) + 1, _PART_US)
    found = _differ(readings, readings.power, pair, (0, len(pair.times) - 1), 1)
    if found is not None or readings.power.misses:
        return found
    cuts: list[int] = pair.times.searchsorted(marks).tolist()
    ends = zip(cuts, pair.counts[cuts].tolist(), pair.sums[cuts].tolist(), strict=True)
    for (first, count, total), (last, next_count, next_total) in pairwise(ends):
        if agree(next_count - count, next_total - total, _PART_SLACK):
            continue
        if (found := _differ(readings, readings.power, pair, (first, last), _PART_SLACK)) is not None:
            return found
    return None


def agree(energy_mj: int, total_mj: int, slack: int) -> bool:
    """Whether counter and integral are so near to each other that :func:`tolerance_mj` need not be known."""
    return abs(energy_mj - total_mj) <= slack * (energy_mj // _SHARE + _FIXED_MJ)


def tolerance_mj(power: Power, energy_mj: int, ends_us: tuple[int, int]) -> int:
    """By how much an honest counter may differ from the integral of power between two times of power's readings.

    What a mean over a window says of power within half a window of an end is blurred: at worst by a quarter of the
    window times by how much power changes there. Counter and power are refreshed at times of their own, each 100 ms
    apart: by as much they may be shifted against each other, which matters by how much power differs between the ends.
    A sensor that looks at power for less than the time between its readings misses what happens between: four standard
    errors of a mean.
    """
    window = power.window_us
    blur, reach = (window // 4, window) if window is not None else (5 * REFRESH_US, 10 * REFRESH_US)
    edges = sum(power.spread(end - reach, end + reach) for end in ends_us) * blur
    whole = power.spread(*ends_us)
    missed = 2 * whole * isqrt((ends_us[1] - ends_us[0]) * power.apart_us) if power.misses else 0
    return energy_mj // _SHARE + _FIXED_MJ + (edges + REFRESH_US * whole + missed) // NJ_PER_MJ


def _hidden_mj(readings: Readings, power: Power, pair: _Pair, part: tuple[int, int]) -> int:
    """What swings faster than a sensor's window hide from it at both ends.

    Were they as large as those of the counter; where that is read too rarely to show any, of instantaneous power.
    """
    stretch = slice(part[0], part[1] + 1)
    times, counts = pair.times[stretch], pair.counts[stretch]
    stride = _STRIDE_US * (len(times) - 1) // max(1, index(times[-1] - times[0]))
    instant = readings.tracks.get("power_instant")
    swing = 0
    if stride > 0:
        rates = (counts[stride:] - counts[:-stride]) * NJ_PER_MJ // np.maximum(times[stride:] - times[:-stride], 1)
        swing = index(rates.max() - rates.min())
    elif instant is not None:
        swing = index(instant.values.max() - instant.values.min())
    return swing * (power.window_us or 0) // 8 // NJ_PER_MJ


def _pair(readings: Readings) -> _Pair | None:
    """Counter and power over the time of which both tell; ``None`` where that is too short, or power has gaps."""
    power, energy = readings.power, readings.tracks.get("energy")
    if power is None or energy is None or "energy" in readings.wrapped or not readings.dense:
        return None
    # Power that was read from the first reading to the last tells of the time half a window earlier.
    lag = power.lag_us
    start, stop = energy.times.searchsorted((index(power.times[0]) - lag, index(power.times[-1]) - lag + 1)).tolist()
    times, counts = energy.times[start:stop], energy.values[start:stop]
    if len(times) == 0 or index(times[-1] - times[0]) < _PART_US or bool((counts[1:] < counts[:-1]).any()):
        return None
    return _Pair(times, counts, power.until(times + lag) // NJ_PER_MJ)


def _differ(readings: Readings, power: Power, pair: _Pair, part: tuple[int, int], slack: int) -> Finding | None:
    first, last = part
    if first == last:
        return None
    advance = index(pair.counts[last] - pair.counts[first])
    total = index(pair.sums[last] - pair.sums[first])
    if agree(advance, total, slack):
        return None
    ends = (index(pair.times[first]) + power.lag_us, index(pair.times[last]) + power.lag_us)
    allowed = slack * (tolerance_mj(power, advance, ends) + _hidden_mj(readings, power, pair, part))
    if abs(advance - total) <= allowed:
        return None
    seconds = (ends[1] - ends[0]) / 1e6
    return CHECK.implausible(
        expected=f"{total / 1000:.1f} J within {allowed / 1000:.1f} J, the integral of power over {seconds:.1f} s",
        got=f"{advance / 1000:.1f} J",
        at_ns=readings.at_ns(index(pair.times[first])),
    )
