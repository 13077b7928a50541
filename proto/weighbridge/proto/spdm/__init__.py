"""SPDM measurement reports as NVIDIA's GPUs and switches sign them: layout, opaque data, and the evidence as sent.

:mod:`~weighbridge.proto.spdm.report` parses one report, :mod:`~weighbridge.proto.spdm.opaque` what the vendor put
into it, :mod:`~weighbridge.proto.spdm.evidence` the reports and chains of a window and their digest ``G_k``. Nothing
here is verified: that is the verifier's ``gpu`` package.
"""

from __future__ import annotations

from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.proto.spdm.opaque import OpaqueData, OpaqueType
from weighbridge.proto.spdm.report import MeasurementBlock, Report

__all__ = ["GpuEvidence", "MeasurementBlock", "OpaqueData", "OpaqueType", "Report"]
