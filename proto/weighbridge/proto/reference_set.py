"""A reference set: which models their owner accepts, which it has revoked, from when until when. Parsed, not verified.

A COSE_Sign1 (:mod:`.cose`) of type :data:`SET_TYP` over deterministic CBOR. A set replaces every earlier one of its
owner: ``number`` grows with each, so that an old one cannot be brought back. Statements about a model are DSSE
envelopes (:mod:`.statement`), carried as their issuers signed them. Byte layout: ``docs/protocol.md`` §9.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, cose, limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.manifest import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SET_TYP", "AcceptedModel", "ReferenceSet", "RevokedModel", "SignedSet"]

SET_TYP: Final = "application/vnd.weighbridge.reference-set+cose"
_TYPE: Final = "weighbridge/v1/reference-set"
_ROW: Final = 3


@dataclass(frozen=True, slots=True)
class AcceptedModel:
    """A model that its owner accepts: manifest digest, 32 bytes; the name that the owner gives it; DSSE envelopes."""

    manifest: bytes
    name: str
    statements: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class RevokedModel:
    """A model that its owner has revoked, why, and since when by the owner's word, in nanoseconds since 1970."""

    manifest: bytes
    reason: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSet:
    """A well-formed reference set. Says nothing of truth.

    Times are nanoseconds since 1970; ``not_after_ns`` is inclusive. ``models`` and ``revoked`` ascend by digest, and no
    model is in both.
    """

    owner: str
    number: int
    issued_ns: int
    not_before_ns: int
    not_after_ns: int
    models: tuple[AcceptedModel, ...]
    revoked: tuple[RevokedModel, ...]

    def encode(self) -> bytes:
        """The payload's bytes."""
        return cbor.encode(
            {
                0: _TYPE,
                1: self.owner,
                2: self.number,
                3: self.issued_ns,
                4: self.not_before_ns,
                5: self.not_after_ns,
                6: [[model.manifest, model.name, list(model.statements)] for model in self.models],
                7: [[model.manifest, model.reason, model.at_ns] for model in self.revoked],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a payload.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` of a consistent set would not have written.
        """
        fields = cbor.read_versioned(data, version=_TYPE, limit=limits.REFERENCE_SET_MAX, what="reference set")
        owner = fields.text(1)
        check_name(owner, where="reference set.owner")
        number = fields.integer(2, low=1, high=2**53 - 1)
        issued_ns, not_before_ns, not_after_ns = fields.uint(3), fields.uint(4), fields.uint(5)
        if not_before_ns > not_after_ns:
            raise MalformedEvidence(Code.FIELD_RANGE, "ends before it begins", where="reference set[5]")
        accepted = fields.array(6, limit=limits.REFERENCE_SET_MODELS_MAX)
        withdrawn = fields.array(7, limit=limits.REFERENCE_SET_REVOKED_MAX)
        fields.end()
        models = tuple(_accepted(item, f"reference set.models[{n}]") for n, item in enumerate(accepted))
        revoked = tuple(_revoked(item, f"reference set.revoked[{n}]") for n, item in enumerate(withdrawn))
        _check_ascending([model.manifest for model in models], "reference set.models")
        _check_ascending([model.manifest for model in revoked], "reference set.revoked")
        if both := {model.manifest for model in models} & {model.manifest for model in revoked}:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "a model is accepted and revoked", where="reference set.revoked", got=min(both)
            )
        return cls(
            owner=owner,
            number=number,
            issued_ns=issued_ns,
            not_before_ns=not_before_ns,
            not_after_ns=not_after_ns,
            models=models,
            revoked=revoked,
        )

    def sign(self, *, kid: bytes, signer: Callable[[bytes], bytes]) -> bytes:
        """The signed set: the file that is handed out.

        Args:
            kid: SHA-256 of the signer's SubjectPublicKeyInfo, 32 bytes.
            signer: as for :func:`.cose.sign`; the key stays with the caller.

        Raises:
            MalformedEvidence: the set contradicts itself, or is too large to be read back.
        """
        payload = self.encode()
        type(self).parse(payload)
        signed = cose.sign(payload, kid=kid, typ=SET_TYP, signer=signer)
        SignedSet.parse(signed)
        return signed


@dataclass(frozen=True, slots=True)
class SignedSet:
    """A reference set with its signature, which is not checked. ``digest`` is the SHA-256 of the file."""

    message: cose.CoseSign1
    claimed: ReferenceSet
    digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the file.

        Raises:
            MalformedEvidence: ``COSE_HEADER``, or as :meth:`ReferenceSet.parse`.
        """
        message = cose.parse(data, typ=SET_TYP, limit=limits.REFERENCE_SET_MAX, what="reference set")
        return cls(message, ReferenceSet.parse(message.payload), sha256(data))


def _row(value: cbor.CborValue, where: str) -> cbor.Reader:
    return cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=_ROW, size=_ROW))), where)


def _accepted(value: cbor.CborValue, where: str) -> AcceptedModel:
    row = _row(value, where)
    manifest, name = row.digest(0), row.text(1)
    check_name(name, where=f"{where}.name")
    statements = row.octet_strings(2, count=limits.STATEMENTS_MAX, limit=limits.STATEMENT_MAX)
    return AcceptedModel(manifest, name, statements)


def _revoked(value: cbor.CborValue, where: str) -> RevokedModel:
    row = _row(value, where)
    manifest, reason = row.digest(0), row.text(1)
    check_name(reason, where=f"{where}.reason")
    return RevokedModel(manifest, reason, row.uint(2))


def _check_ascending(digests: Sequence[bytes], where: str) -> None:
    for before, after in pairwise(digests):
        if before == after:
            raise MalformedEvidence(Code.DUPLICATE_KEY, "a model stands twice", where=where, got=after)
        if before > after:
            raise MalformedEvidence(Code.NOT_DETERMINISTIC, "models are not in order", where=where, got=after)
