"""A mean over a second cannot jump."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check
from weighbridge.verifier.telemetry.physics.readings import REFRESH_US

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings

__all__ = ["CHECK", "allowed_mw", "find"]

CHECK: Final = Check(
    name="power_slew",
    channel="power",
    says=(
        "where the sensor takes the mean over a second, power changes by at most 20 % of the limit in 100 ms. Left out "
        "behind gaps, where the sensor's window is shorter or unknown, and where no limit is known"
    ),
    source="H100 at 10 Hz: 0 of 584 honest stretches; from idle to full load one refresh moves 9 %, two move 18 %",
)
_TWICE: Final = 2


def allowed_mw(limit_mw: int, apart_us: int, window_us: int) -> int:
    """By how much a mean over ``window_us`` may change between two readings ``apart_us`` apart."""
    return _TWICE * limit_mw * max(apart_us, REFRESH_US) // window_us


def find(readings: Readings) -> Finding | None:
    """Whether power jumps within the stretch."""
    power, limit = readings.power, readings.limit_mw
    if power is None or limit is None or power.window_us is None or not power.averages:
        return None
    steps = np.abs(power.steps)
    least = allowed_mw(limit, REFRESH_US, power.window_us)
    for where in (steps > least).nonzero()[0]:
        apart = index(power.apart[where])
        allowed = allowed_mw(limit, apart, power.window_us)
        if index(steps[where]) > allowed and apart <= max(readings.period_us * 3 // 2, REFRESH_US):
            return CHECK.implausible(
                expected=f"a change of at most {allowed / 1000:.0f} W in {apart / 1000:.0f} ms",
                got=f"{index(steps[where]) / 1000:.0f} W",
                at_ns=readings.at_ns(index(power.times[where + 1])),
            )
    return None
