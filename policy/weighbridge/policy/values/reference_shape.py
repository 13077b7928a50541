"""What stands in ``data.reference``: types of what :meth:`weighbridge.policy.values.reference.Reference.data` gives.

Declarations only: with fifty thousand reference values nothing is built from them. What reads them are the checker,
editors and people; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from weighbridge.policy.document import Shape, shape_of
from weighbridge.policy.values.reference import Check

__all__ = ["BaselineInForce", "HostInForce", "KnownModel", "KnownStatement", "ReferenceData", "reference_shape"]


@dataclass(frozen=True, slots=True)
class KnownStatement:
    """A statement about a model that a trusted issuer signed. Nothing of what it says is known here."""

    issuer: Annotated[str, "the name of the trust anchor that vouches for it"]
    type: Annotated[str, "the predicate's type, or cyclonedx"]
    date: Annotated[str | None, "when, by the issuer's word, an RFC 3339 time in UTC; null where it does not say"]
    digest: Annotated[str, "SHA-256 of the signed envelope, 64 hexadecimal digits"]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that the relying party or its owner accepts."""

    name: Annotated[str, "the name under which it is known"]
    owner: Annotated[str | None, "whose set accepts it, the longest; null where only the relying party's own values do"]
    set: Annotated[str | None, "SHA-256 of that signed set, 64 hexadecimal digits"]
    not_before: Annotated[str | None, "from when on its owner vouches for it, an RFC 3339 time in UTC"]
    not_after: Annotated[str | None, "until when, inclusive"]
    statements: Annotated[tuple[KnownStatement, ...], "the statements about it, of all sets"]


@dataclass(frozen=True, slots=True)
class HostInForce:
    """A signed host set in force. What the verifier found by it is in ``input.platform``."""

    owner: Annotated[str, "whose word it is"]
    name: Annotated[str, "of which class of hosts"]
    number: Annotated[int, "grows with each set of this owner for this class"]
    digest: Annotated[str, "SHA-256 of the signed file, 64 hexadecimal digits"]
    not_before: Annotated[str, "from when on its owner vouches for it, an RFC 3339 time in UTC"]
    not_after: Annotated[str, "until when, inclusive"]


@dataclass(frozen=True, slots=True)
class BaselineInForce:
    """A signed set of baselines in force. What the verifier found by it is in ``input.telemetry``."""

    owner: Annotated[str, "whose word it is"]
    name: Annotated[str, "of which baselines"]
    number: Annotated[int, "grows with each set of this owner and name"]
    digest: Annotated[str, "SHA-256 of the signed file, 64 hexadecimal digits"]
    not_before: Annotated[str, "from when on its owner vouches for it, an RFC 3339 time in UTC"]
    not_after: Annotated[str, "until when, inclusive"]


@dataclass(frozen=True, slots=True)
class ReferenceData:
    """What the relying party expects, and what owners' signed sets say."""

    schema: Annotated[Literal["weighbridge/reference/v1"], "which document this is"]
    models: Annotated[
        Mapping[str, KnownModel],
        "by digest of its manifest, the models that are accepted; no model that any owner revoked",
    ]
    gpu_measurements: Annotated[
        Mapping[str, tuple[str, ...]], "by architecture/driver/vbios, the digests of measurements that are accepted"
    ]
    unchecked: Annotated[
        Mapping[Check, str], "by check, the relying party's written reason for leaving it out; only what it wrote"
    ]
    hosts: Annotated[tuple[HostInForce, ...], "the signed host sets in force"]
    baselines: Annotated[tuple[BaselineInForce, ...], "the signed sets of baselines in force"]


def reference_shape() -> Shape:
    """The shape of ``data.reference``."""
    return shape_of(ReferenceData)
