"""No stretch of power repeats exactly."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check
from weighbridge.verifier.telemetry.samples.fingerprints import GRAM, grams, looked_at, rounded

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings

__all__ = ["CHECK", "find"]

CHECK: Final = Check(
    name="power_repeated",
    channel="power",
    says=(
        "no 20 readings of a stretch come again in it, at 0.1 W, where they span 1 W and have eight different values. "
        "Copies of earlier stretches are found by their fingerprints; both are blind to a dither of 0.1 W at one "
        "reading in twenty"
    ),
    source="H100 at 10 Hz: 0 of 170 158 grams of different sessions were equal",
)


def find(readings: Readings) -> Finding | None:
    """Whether power repeats itself."""
    power = readings.power
    if power is None or len(power.values) < 2 * GRAM:
        return None
    steps = rounded(power.values)
    order = grams(steps)
    # Stable: of equal grams the earlier ones come first.
    by_value = order.argsort(kind="stable")
    ordered = order[by_value]
    equal = (ordered[1:] == ordered[:-1]).nonzero()[0]
    if len(equal) == 0:
        return None
    told = looked_at(steps)
    for first, again in zip(by_value[equal], by_value[equal + 1], strict=True):
        if told[first] and np.array_equal(steps[first : first + GRAM], steps[again : again + GRAM]):
            return CHECK.implausible(
                expected=f"no {GRAM} readings that come again",
                got=f"{GRAM} readings again after {index(power.times[again] - power.times[first]) / 1e6:.1f} s",
                at_ns=readings.at_ns(index(power.times[again])),
            )
    return None
