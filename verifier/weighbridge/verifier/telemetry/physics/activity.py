"""What computes takes power."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings

__all__ = ["CHECK", "find"]

CHECK: Final = Check(
    name="power_utilisation",
    channel="power",
    says=(
        "power is not near idle, 130 W of 700 W, for five seconds in which utilisation is above 30 % on average. No "
        "accusation: hosts were seen whose sensors read 39 to 46 W whatever ran. Left out where no limit is known"
    ),
    source="H100 at 10 Hz: single samples break it (2.5 % under bursts), means over five seconds do not",
)
_UTILISATION: Final = 300
_SUSTAINED_US: Final = 5_000_000
_IDLE_MW: Final = 130_000
_OF_MW: Final = 700_000


def find(readings: Readings) -> Finding | None:
    """Whether power stays near idle while the device is busy."""
    power, busy, limit = readings.power, readings.tracks.get("utilisation"), readings.limit_mw
    if power is None or busy is None or limit is None or power.span_us < _SUSTAINED_US - readings.period_us:
        return None
    idle, load = _IDLE_MW * limit // _OF_MW, index(busy.values.sum()) // len(busy.values)
    if load <= _UTILISATION or power.mean >= idle:
        return None
    return CHECK.unusable(
        expected=f"at least {idle / 1000:.0f} W at {load / 10:.0f} % utilisation",
        got=f"{power.mean / 1000:.0f} W over {power.span_us / 1e6:.1f} s",
        at_ns=readings.at_ns(index(power.times[0])),
    )
