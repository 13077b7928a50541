"""A working sensor moves."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check
from weighbridge.verifier.telemetry.physics.readings import REFRESH_US

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings, Track

__all__ = ["CHECK", "find"]

CHECK: Final = Check(
    name="power_constant",
    channel="power",
    says=(
        "power moves by more than 0.02 W, and in load repeats a reading less than 98 times in 100. A sensor that does "
        "not is dead: unusable. Where the energy counter meanwhile advances at a changing rate, one of them lies"
    ),
    source="honest traces: the quietest, 0.06 % of a capped mean, moves by 0.4 W; idle with a context by 0.06 W",
)
_LEAST: Final = 20
_DEVIATION_MW: Final = 20
_REPEATS_PERCENT: Final = 98
_IDLE_MW: Final = 130_000
_PART_US: Final = 2_000_000
_RATE_SHARE: Final = 20
_RATE_FIXED_MW: Final = 10_000


def find(readings: Readings) -> Finding | None:
    """Whether power stands still."""
    power = readings.power
    if power is None or len(power.values) < _LEAST:
        return None
    repeats = np.count_nonzero(power.steps == 0) * 100 >= _REPEATS_PERCENT * len(power.steps)
    oversampled = readings.period_us * 10 < 9 * REFRESH_US
    if power.high - power.low > 50 * _DEVIATION_MW and not repeats:
        return None
    centre = index(power.values[len(power.values) // 2])
    square = index(((np.clip(power.values, centre - 10**6, centre + 10**6) - power.mean) ** 2).sum()) // len(
        power.values
    )
    if square >= _DEVIATION_MW**2 and not (repeats and not oversampled and power.mean > _IDLE_MW):
        return None
    expected, got = "readings that move", f"{power.mean / 1000:.2f} W throughout"
    rates = _rates(readings.tracks.get("energy"))
    if rates is not None and rates[1] - rates[0] > rates[1] // _RATE_SHARE + _RATE_FIXED_MW:
        moves = f"while the energy counter advances at {rates[0] / 1000:.0f} to {rates[1] / 1000:.0f} W"
        return CHECK.implausible(expected=expected, got=f"{got}, {moves}", at_ns=readings.at_ns(index(power.times[0])))
    return CHECK.unusable(expected=expected, got=got, at_ns=readings.at_ns(index(power.times[0])))


def _rates(energy: Track | None) -> tuple[int, int] | None:
    """The lowest and highest power by the counter, in mW, over parts of two seconds."""
    if energy is None:
        return None
    marks = np.searchsorted(energy.times, np.arange(0, index(energy.times[-1]) + 1, _PART_US))
    times, counts = energy.times[marks], energy.values[marks]
    apart = np.diff(times)
    if len(apart) < 2 or index(apart.min()) < _PART_US // 2:  # noqa: PLR2004 - one rate does not change
        return None
    rates = np.diff(counts) * 1_000_000 // apart
    return index(rates.min()), index(rates.max())
