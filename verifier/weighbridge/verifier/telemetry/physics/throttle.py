"""What is held at its power limit takes power."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings

__all__ = ["CHECK", "find"]

CHECK: Final = Check(
    name="power_cap_reason",
    channel="clock_reasons",
    says=(
        "clocks that are held down by the power limit for five seconds mean at least half of that limit. Nothing "
        "follows from a reason that is not given, nor from a single reading. Left out where no limit is known"
    ),
    source="H100 at 10 Hz: single samples give the reason at 201 W of 700 W, while the mean over a second lags",
)
_CAP: Final = 0x4
_SUSTAINED_US: Final = 5_000_000


def find(readings: Readings) -> Finding | None:
    """Whether the device says that it is held at its limit while its power is far from it."""
    power, reasons, limit = readings.power, readings.tracks.get("clock_reasons"), readings.limit_mw
    if power is None or reasons is None or limit is None or power.span_us < _SUSTAINED_US - readings.period_us:
        return None
    if power.mean >= limit // 2 or not bool((reasons.values & _CAP).all()):
        return None
    if index(reasons.times[-1] - reasons.times[0]) < _SUSTAINED_US - readings.period_us:
        return None
    return CHECK.implausible(
        expected=f"power of at least {limit / 2000:.0f} W while the power limit holds clocks down",
        got=f"{power.mean / 1000:.0f} W over {power.span_us / 1e6:.1f} s",
        at_ns=readings.at_ns(index(power.times[0])),
    )
