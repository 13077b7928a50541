"""The policy's input: a total document, versioned, built only from verified evidence.

Every field is present in every document (``null`` where the fact is unknown), lists have elements of one shape, and
integers stay below 2**53, larger numbers and serials being strings: a policy can then not be fooled by an absent
field (``x != "bad"`` is undefined, so not true, when ``x`` is missing) nor by an engine that reads large integers as
floating point. What the verifier's invariants already hold (chain, nonces, sequence) is not repeated here.

The same declarations (:mod:`.facts`, :mod:`.host`, :mod:`.gpu`, :mod:`.weights`) are what is enforced both ways
(:mod:`.encoding`), what the checker resolves ``input.…`` against (:func:`shape`), and what authors read.
"""

from __future__ import annotations

from weighbridge.policy.document.facts import (
    SCHEMA,
    Finding,
    Gap,
    PolicyInput,
    Session,
    Telemetry,
    TelemetrySource,
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
    "Schema",
    "Session",
    "Shape",
    "SpotCheck",
    "Tee",
    "Telemetry",
    "TelemetrySource",
    "WeightDifference",
    "Weights",
    "Window",
    "Work",
    "instant",
    "schema",
    "shape",
    "shape_of",
]

Schema = None | tuple["Schema"] | dict[str, "Schema"]
"""``None`` for a scalar, a 1-tuple for a list of one shape, a dict for an object."""


def schema() -> Schema:
    """The shape of the document, for the checker: which static paths under ``input`` exist."""
    return _schema(shape())


def _schema(found: Shape) -> Schema:
    if found.element is not None:
        return (_schema(found.element),)
    if found.members:
        return {name: _schema(inner) for name, inner in found.members.items()}
    return None
