"""The energy counter never falls."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings

__all__ = ["CHECK", "find"]

CHECK: Final = Check(
    name="energy_monotone",
    channel="energy",
    says="the counter never falls, except where the host says that it began anew: such samples make no unit",
    source="nvml.h, nvmlDeviceGetTotalEnergyConsumption: since the driver was last reloaded; 64 bits of mJ do not wrap",
)


def find(readings: Readings) -> Finding | None:
    """Whether the counter falls."""
    energy = readings.tracks.get("energy")
    if energy is None or "energy" in readings.wrapped:
        return None
    falls = energy.values[1:] < energy.values[:-1]
    if not falls.any():
        return None
    where = index(falls.argmax())
    return CHECK.implausible(
        expected=f"at least {index(energy.values[where])} mJ",
        got=f"{index(energy.values[where + 1])} mJ",
        at_ns=readings.at_ns(index(energy.times[where + 1])),
    )
