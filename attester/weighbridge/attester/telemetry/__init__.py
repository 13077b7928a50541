"""Where a host's sensor readings come from: one interface, an emulated source, and room for NVML."""

from __future__ import annotations

from weighbridge.attester.telemetry.interface import TelemetrySource

__all__ = ["TelemetrySource"]
