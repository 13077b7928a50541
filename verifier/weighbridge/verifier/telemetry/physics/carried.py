"""Continuity between windows: what the end of one says that the start of the next must continue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.verifier.telemetry.physics.finding import Finding, Limits

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.series import Series

__all__ = ["Carried", "check_window"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The end of the samples so far; ``Carried()`` before there are any.

    Attributes:
        power: wall clock in ns and mW of the last reading of power.
        energy: wall clock in ns and mJ of the last reading of the energy counter.
        heat_mk: bounds on how far the chip is above its coolant, in mK, at the last reading of power; ``None`` before
            there was one.
    """

    power: tuple[int, int] | None = None
    energy: tuple[int, int] | None = None
    heat_mk: tuple[int, int] | None = None


def check_window(series: Series, carried: Carried, limits: Limits | None = None) -> tuple[tuple[Finding, ...], Carried]:
    """What does not continue in ``series`` what was read before it, and what the next window must continue.

    Never raises for what the series contains.
    """
    raise NotImplementedError
