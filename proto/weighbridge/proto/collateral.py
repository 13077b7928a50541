"""Collateral: what makers of hardware publish about it, without which some evidence cannot be judged.

It is authenticated by its makers' signatures, so whoever has it may deliver it: the attester sends it in its opening,
the verifier adds its own, and what was used is archived with the enrolment. Wire layout: ``docs/protocol.md`` §4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self, cast, get_args

from weighbridge.proto import cbor, limits
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["Collateral", "CollateralItem", "CollateralKind"]

CollateralKind = Literal["crl", "dcap", "jwks", "ocsp", "rim", "vcek"]
_VERSION: Final = "weighbridge/v1/collateral"
_KINDS: Final = frozenset(get_args(CollateralKind))


@dataclass(frozen=True, slots=True, order=True)
class CollateralItem:
    """One piece.

    ``crl`` is a revocation list in DER (RFC 5280 §5), ``dcap`` the JSON that :mod:`dcap_qvl` reads, ``jwks`` NVIDIA's
    attestation service's keys in JSON, ``ocsp`` an OCSPResponse in DER (RFC 6960 §4.2), ``rim`` a reference integrity
    manifest in XML, ``vcek`` a certificate of an AMD chip in DER. Neither its signature nor its age is checked here.
    """

    kind: CollateralKind
    data: bytes


@dataclass(frozen=True, slots=True)
class Collateral:
    """Pieces in ascending order, none of them twice. Made by :meth:`of`, or read."""

    items: tuple[CollateralItem, ...] = ()

    @classmethod
    def of(cls, *items: CollateralItem) -> Self:
        """These pieces, in the order of the wire."""
        return cls(tuple(sorted(set(items))))

    def with_items(self, items: tuple[CollateralItem, ...]) -> Collateral:
        """These pieces and ``items``."""
        return Collateral.of(*self.items, *items)

    def of_kind(self, kind: CollateralKind) -> tuple[bytes, ...]:
        """The pieces of one kind."""
        return tuple(item.data for item in self.items if item.kind == kind)

    def to_cbor(self) -> list[cbor.CborValue]:
        """As it stands in a message."""
        return [[item.kind, item.data] for item in self.items]

    def encode(self) -> bytes:
        """The bytes by which a record names these pieces, and under which they are kept."""
        return cbor.encode([_VERSION, self.to_cbor()])

    @property
    def digest(self) -> bytes:
        """``D("collateral", encoding)``."""
        return D("collateral", self.encode())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read :meth:`encode`.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written.
        """
        value = cbor.decode(data, limit=limits.CONTENT_MAX, what="collateral")
        version, items = cbor.read_array(value, where="collateral", limit=2, size=2)
        if version != _VERSION:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "unknown version", where="collateral", expected=_VERSION, got=version
            )
        listed = cbor.read_array(items, where="collateral", limit=limits.COLLATERAL_SNAPSHOT_MAX)
        return cls.from_cbor(listed, where="collateral", limit=limits.COLLATERAL_SNAPSHOT_MAX)

    @classmethod
    def from_cbor(cls, values: list[cbor.CborValue], *, where: str, limit: int = limits.COLLATERAL_ITEMS_MAX) -> Self:
        """Read :meth:`to_cbor`.

        Raises:
            MalformedEvidence: for anything that :meth:`to_cbor` would not have written.
        """
        if len(values) > limit:
            raise MalformedEvidence(Code.TOO_LARGE, "too many pieces of collateral", where=where, got=len(values))
        items = tuple(_item(value, f"{where}[{number}]") for number, value in enumerate(values))
        if list(items) != sorted(set(items)):
            raise MalformedEvidence(Code.FIELD_RANGE, "not distinct pieces in ascending order", where=where)
        return cls(items)


def _item(value: cbor.CborValue, where: str) -> CollateralItem:
    parts = cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=2, size=2))), where)
    kind = parts.text(0, limit=16)
    if kind not in _KINDS:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "unknown kind of collateral", where=where, expected=", ".join(sorted(_KINDS)), got=kind
        )
    return CollateralItem(cast("CollateralKind", kind), parts.octets(1, limit=limits.COLLATERAL_ITEM_MAX))
