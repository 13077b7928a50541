"""Fingerprints of power traces, by which a stretch that was recorded before is found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weighbridge.verifier.telemetry.series import Series

__all__ = ["fingerprints"]


def fingerprints(series: Series) -> tuple[int, ...]:
    """The fingerprints of the power in ``series``: 64 bits each, each once, in ascending order."""
    raise NotImplementedError
