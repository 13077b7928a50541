"""Which signed baseline sets are in force, as values: part of the reference values, recorded with every verdict.

What a set says of a GPU's physical signature is in the signed file, kept under its digest and not written twice. Its
signature was verified by whoever made these values (``weighbridge.verifier.baseline_set``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["NamedBaseline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedBaseline:
    """One set. ``not_before`` and ``not_after`` (inclusive) are when the owner, under a trusted key, vouches for it.

    Attributes:
        owner: whose word it is.
        name: of which baselines.
        number: grows with each set of this owner and name.
        digest: SHA-256 of the signed file, hex.
        not_before: from when on.
        not_after: until when.
    """

    owner: str
    name: str
    number: int
    digest: str
    not_before: datetime
    not_after: datetime

    def valid(self, at: datetime) -> bool:
        """Whether its owner vouches for it at ``at``."""
        return self.not_before <= at <= self.not_after

    def document(self) -> strict.JsonObject:
        """As JSON: what is recorded, and what policies see."""
        return {
            "owner": self.owner,
            "name": self.name,
            "number": self.number,
            "digest": self.digest,
            "not_before": strict.time_encode(self.not_before),
            "not_after": strict.time_encode(self.not_after),
        }

    @classmethod
    def read(cls, value: strict.JsonValue, where: str) -> Self:
        """Read :meth:`document`.

        Raises:
            MalformedEvidence: it has another shape.
        """
        if not isinstance(value, dict):
            raise MalformedEvidence(Code.FIELD_TYPE, "expected an object", where=where)
        fields = cbor.read_map(cast("cbor.CborValue", value), where=where)
        found = cls(
            owner=fields.text("owner"),
            name=fields.text("name"),
            number=fields.uint("number", limit=2**53 - 1),
            digest=strict.hex_decode(fields.text("digest"), what=fields.path("digest"), size=limits.DIGEST_SIZE).hex(),
            not_before=strict.time_decode(fields.text("not_before"), what=fields.path("not_before")),
            not_after=strict.time_decode(fields.text("not_after"), what=fields.path("not_after")),
        )
        fields.end()
        return found
