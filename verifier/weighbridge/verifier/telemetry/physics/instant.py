"""Two sensors of one power agree on average."""

from __future__ import annotations

from math import isqrt
from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings

__all__ = ["CHECK", "find"]

CHECK: Final = Check(
    name="power_agreement",
    channel="power_instant",
    says=(
        "instantaneous power and power agree on average over five seconds and more: within 15 % + 20 W, what the "
        "instantaneous misses between its looks, and what the other lags behind. It looks at 25 of 100 ms: a load in "
        "step with that is seen wrongly, hence the wide band"
    ),
    source="H200: 693.6 W and 692.1 W; arXiv 2312.02741 for the looks",
)
_SHORTEST_US: Final = 5_000_000
_LEAST: Final = 20
_FIXED_MW: Final = 20_000
_SHARE_PERCENT: Final = 15
_ERRORS: Final = 4


def find(readings: Readings) -> Finding | None:
    """Whether the means of both differ."""
    power, instant = readings.power, readings.tracks.get("power_instant")
    if power is None or instant is None or len(instant.times) < _LEAST or len(power.times) < _LEAST:
        return None
    if (
        power.span_us < _SHORTEST_US - readings.period_us
        or index(instant.times[-1] - instant.times[0]) < _SHORTEST_US // 2
    ):
        return None
    mean = index(instant.values.sum()) // len(instant.values)
    # Twice a mean deviation is more than a standard deviation of anything that power does.
    deviation = 2 * index(np.abs(instant.values - mean).sum()) // len(instant.values)
    missed = _ERRORS * deviation * 1000 // isqrt(len(instant.values) * 1_000_000)
    lagged = (instant.high - instant.low) * power.lag_us // power.span_us
    allowed = power.mean * _SHARE_PERCENT // 100 + _FIXED_MW + missed + lagged
    if abs(mean - power.mean) <= allowed:
        return None
    return CHECK.implausible(
        expected=f"{power.mean / 1000:.0f} W within {allowed / 1000:.0f} W, the mean of power",
        got=f"{mean / 1000:.0f} W",
        at_ns=readings.at_ns(index(instant.times[0])),
    )
