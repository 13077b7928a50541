"""The device holds its power at its limit."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings

__all__ = ["CHECK", "TRANSIENT_PERCENT", "find"]

CHECK: Final = Check(
    name="power_cap",
    channel="power",
    says=(
        "power stays below its limit: a mean over a second within 115 % of it, a shorter one within 200 %, that over "
        "five seconds and more within 103 %. Left out where no limit is known"
    ),
    source="H100 at 700 W: means over a second up to 759 W (108 %), held at 685 to 692 W; H200: 25 ms up to 730 W",
)
TRANSIENT_PERCENT: Final = 115
_INSTANT_PERCENT: Final = 200
_SUSTAINED_PERCENT: Final = 103
_SUSTAINED_US: Final = 5_000_000
_PERCENT: Final = 100


def find(readings: Readings) -> Finding | None:
    """Whether power is above its limit, at once or for long."""
    power, limit = readings.power, readings.limit_mw
    if power is None or limit is None:
        return None
    most = limit * (TRANSIENT_PERCENT if power.averages else _INSTANT_PERCENT) // _PERCENT
    if power.high > most:
        where = index(np.argmax(power.values > most))
        return CHECK.implausible(
            expected=f"at most {most / 1000:.0f} W, of a limit of {limit / 1000:.0f} W",
            got=f"{index(power.values[where]) / 1000:.0f} W",
            at_ns=readings.at_ns(index(power.times[where])),
        )
    most = limit * _SUSTAINED_PERCENT // _PERCENT
    if power.span_us >= _SUSTAINED_US - readings.period_us and power.mean > most:
        return CHECK.implausible(
            expected=f"at most {most / 1000:.0f} W on average, of a limit of {limit / 1000:.0f} W",
            got=f"{power.mean / 1000:.0f} W over {power.span_us / 1e6:.1f} s",
            at_ns=readings.at_ns(index(power.times[0])),
        )
    return None
