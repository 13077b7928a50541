"""Physics that every honest, working GPU obeys, checked without training: each check in a module of its own.

:data:`CHECKS` is the table: what each says and where its bound is from. What is not reported is not checked: a host
that reports no energy counter is held to less, and its baseline says what it reported when it was recorded. *Nothing
here catches readings that agree with each other*: a full replay or simulation of all channels passes, and is left to
fingerprints, counters that continue, and whoever holds the sensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.physics import (
    activity,
    cap,
    clocks,
    constant,
    copies,
    counter,
    energy,
    heat,
    instant,
    readings,
    slew,
    throttle,
)
from weighbridge.verifier.telemetry.physics.carried import BORDER, JUMP, SUM, Carried, check_window
from weighbridge.verifier.telemetry.physics.finding import Check, Finding, Limits
from weighbridge.verifier.telemetry.physics.unreported import Unreported, unreported

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.verifier.telemetry.physics.readings import Readings
    from weighbridge.verifier.telemetry.samples.units import Unit

__all__ = [
    "CHECKS",
    "Carried",
    "Check",
    "Finding",
    "Limits",
    "Unreported",
    "check_unit",
    "check_window",
    "unreported",
]

_OF_UNITS: Final[tuple[tuple[Check, Callable[[Readings], Finding | None]], ...]] = (
    (counter.CHECK, counter.find),
    (energy.CHECK, energy.find),
    (constant.CHECK, constant.find),
    (slew.CHECK, slew.find),
    (cap.CHECK, cap.find),
    (instant.CHECK, instant.find),
    (copies.CHECK, copies.find),
    (clocks.CHECK, clocks.find),
    (activity.CHECK, activity.find),
    (throttle.CHECK, throttle.find),
    (heat.RATE, heat.rate),
    (heat.RESPONSE, heat.response),
)
# All checks, in the order in which findings are given: those of a channel, of units, of windows.
CHECKS: Final[tuple[Check, ...]] = (readings.CHECK, *(check for check, _ in _OF_UNITS), JUMP, BORDER, SUM, heat.AMBIENT)


def check_unit(unit: Unit, limits: Limits | None = None) -> tuple[Finding, ...]:
    """What the readings of one unit contradict, at most one finding a check. Never raises for what the unit contains.

    A unit without power is ``unusable``.

    Args:
        unit: the samples.
        limits: what is known of the device.
    """
    stretch, findings = readings.readings_of(unit.series, limits or Limits())
    if stretch.power is None and not findings:
        at_ns = stretch.start_ns
        findings = (constant.CHECK.unusable(expected="readings of power", got="none, or one", at_ns=at_ns),)
    found = [find(stretch) for _, find in _OF_UNITS]
    return (*findings, *[item for item in found if item is not None])
