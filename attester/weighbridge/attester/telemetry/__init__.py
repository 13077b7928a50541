"""Where a host's sensor readings come from: one interface, plug-ins behind it, and what samples in the background."""

from __future__ import annotations

from weighbridge.attester.telemetry.interface import Factory, HostFacts, Options, TelemetrySource

__all__ = ["Factory", "HostFacts", "Options", "TelemetrySource"]
