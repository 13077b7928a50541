"""Physics that every honest GPU obeys, checked without training: each check in a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.verifier.telemetry.physics.carried import Carried, check_window
from weighbridge.verifier.telemetry.physics.finding import Finding, Limits

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.units import Unit

__all__ = ["Carried", "Finding", "Limits", "check_unit", "check_window"]


def check_unit(unit: Unit, limits: Limits | None = None) -> tuple[Finding, ...]:
    """What the readings of one unit contradict. Never raises for what the unit contains."""
    raise NotImplementedError
