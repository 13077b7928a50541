"""Where a host's GPU reports come from: one interface, an emulated source, and room for NVML."""

from __future__ import annotations

from weighbridge.attester.gpu.interface import GpuSource

__all__ = ["GpuSource"]
