"""What a source of telemetry can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from weighbridge.proto.telemetry import Source

__all__ = ["TelemetrySource"]


class TelemetrySource(Protocol):
    """Sensors of this host. A real source samples in the background; an emulated one computes."""

    def window(self, *, start_wall_ns: int, duration_ns: int, tokens_in: int, tokens_out: int) -> list[Source]:
        """What was read in the window that ends now, one source per device and path.

        Windows follow one another without overlap. A sample that is late or missing shows as a gap in the offsets; it
        is never filled in. Called once per window, after its work has been counted.

        Args:
            start_wall_ns: host's wall clock when the window began; copied into the sources.
            duration_ns: how long the window is, nominally.
            tokens_in: counted in the window. A real source has no use for it.
            tokens_out: likewise.

        Raises:
            EnvironmentFault: a sensor is gone. One that refuses a single quantity reports that channel as ``None``.
        """
        ...

    def close(self) -> None:
        """Stop sampling. No other call may follow."""
        ...
