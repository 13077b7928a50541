"""The policy's input: a total document, versioned, built only from verified evidence.

Every field is present in every document (``null`` where the fact is unknown), lists have elements of one shape, and
integers stay below 2**53, larger numbers and serials being strings: a policy can then not be fooled by an absent
field (``x != "bad"`` is undefined, so not true, when ``x`` is missing) nor by an engine that reads large integers as
floating point. What the verifier's invariants already hold (chain, nonces, sequence) is not repeated here.

The same declarations (:mod:`.facts`, :mod:`.host`, :mod:`.gpu`, :mod:`.weights`, :mod:`.telemetry`) are what is
enforced both ways (:mod:`.encoding`), what the checker resolves ``input.…`` against (:func:`shape`), and what authors
read.
"""

from __future__ import annotations

from weighbridge.policy.document.facts import (
    SCHEMA,
    Finding,
    Gap,
    PolicyInput,
    Session,
    Window,
    Work,
    instant,
    shape,
)
from weighbridge.policy.document.gpu import Gpu, GpuDifference, GpuManifest
from weighbridge.policy.document.host import (
    AttesterCode,
    BootDifference,
    BootPcr,
    MeasuredFile,
    Platform,
    Proof,
    Runtime,
    Tee,
)
from weighbridge.policy.document.shape import Kind, Shape, shape_of
from weighbridge.policy.document.telemetry import (
    Telemetry,
    TelemetryDevice,
    TelemetryFinding,
    TelemetrySource,
    TelemetryVerdict,
    UnreportedWork,
)
from weighbridge.policy.document.weights import DeclaredModel, LoadedModel, SpotCheck, WeightDifference, Weights

__all__ = [
    "SCHEMA",
    "AttesterCode",
    "BootDifference",
    "BootPcr",
    "DeclaredModel",
    "Finding",
    "Gap",
    "Gpu",
    "GpuDifference",
    "GpuManifest",
    "Kind",
    "LoadedModel",
    "MeasuredFile",
    "Platform",
    "PolicyInput",
    "Proof",
    "Runtime",
    "Session",
    "Shape",
    "SpotCheck",
    "Tee",
    "Telemetry",
    "TelemetryDevice",
    "TelemetryFinding",
    "TelemetrySource",
    "TelemetryVerdict",
    "UnreportedWork",
    "WeightDifference",
    "Weights",
    "Window",
    "Work",
    "instant",
    "shape",
    "shape_of",
]
