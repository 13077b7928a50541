"""Collateral: what makers of hardware publish about it, without which some evidence cannot be judged.

It is authenticated by its makers' signatures, so whoever has it may deliver it: the attester sends it in its opening,
the verifier adds its own, and what was used is archived with the enrolment. Wire layout: ``docs/protocol.md`` §4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self, cast, get_args

from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["Collateral", "CollateralItem", "CollateralKind"]

CollateralKind = Literal["crl", "dcap"]
_KINDS: Final = frozenset(get_args(CollateralKind))


@dataclass(frozen=True, slots=True, order=True)
class CollateralItem:
    """One piece. ``crl`` is a revocation list in DER (RFC 5280 §5), ``dcap`` the JSON that :mod:`dcap_qvl` reads.

    Neither its signature nor its age is checked here.
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

    @classmethod
    def from_cbor(cls, values: list[cbor.CborValue], *, where: str) -> Self:
        """Read :meth:`to_cbor`.

        Raises:
            MalformedEvidence: for anything that :meth:`to_cbor` would not have written.
        """
        if len(values) > limits.COLLATERAL_ITEMS_MAX:
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
