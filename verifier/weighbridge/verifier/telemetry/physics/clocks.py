"""What computes has its clock up."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings

__all__ = ["CHECK", "find"]

CHECK: Final = Check(
    name="clock_utilisation",
    channel="sm_clock",
    says=(
        "the SM clock is not below 600 MHz for a second while utilisation is above 20 %. Left out while the device "
        "gives a reason other than idleness and its power limit for clocks that are low"
    ),
    source="H100 at 10 Hz: 0 of 142 100 samples",
)
_CLOCK_MHZ: Final = 600
_UTILISATION: Final = 200
_SUSTAINED_US: Final = 1_000_000
_READINGS: Final = 3
# nvml.h, nvmlClocksEventReasons: idle, software power cap. All others slow a device down for reasons of their own.
_USUAL: Final = 0x1 | 0x4


def find(readings: Readings) -> Finding | None:
    """Whether the clock stays low while the device is busy."""
    clock, busy = readings.tracks.get("sm_clock"), readings.tracks.get("utilisation")
    if clock is None or busy is None or len(clock.times) != len(busy.times) or clock.low >= _CLOCK_MHZ:
        return None
    reasons = readings.tracks.get("clock_reasons")
    if reasons is not None and bool((reasons.values & ~_USUAL).any()):
        return None
    low = (clock.values < _CLOCK_MHZ) & (busy.values > _UTILISATION)
    # Stretches of readings of which all are low: where the next reading is not, one ends.
    edges = np.flatnonzero(np.diff(np.concatenate(([False], low, [False])).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        lasted = index(clock.times[stop - 1] - clock.times[start])
        if stop - start >= _READINGS and lasted >= _SUSTAINED_US:
            return CHECK.implausible(
                expected=f"at least {_CLOCK_MHZ} MHz while utilisation is above {_UTILISATION // 10} %",
                got=f"{index(clock.values[start])} MHz for {lasted / 1e6:.1f} s",
                at_ns=readings.at_ns(index(clock.times[start])),
            )
    return None
