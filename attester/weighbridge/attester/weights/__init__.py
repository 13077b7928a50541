"""Measuring a model's files into a manifest, and the host's log of what was loaded since boot."""

from __future__ import annotations

from weighbridge.attester.weights.measurement import Progress, compare, measure
from weighbridge.attester.weights.state import Baseline, LogPosition, MeasurementLog, PcrDevice

__all__ = ["Baseline", "LogPosition", "MeasurementLog", "PcrDevice", "Progress", "compare", "measure"]
