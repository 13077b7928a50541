"""What a verified reference set says, as values: part of the reference values in force, recorded with every verdict.

A set's signature, its owner and its statements were verified by whoever made these values
(``weighbridge.verifier.reference_set``); here is what they came to. Which set that was, ``digest`` says: the SHA-256 of
the signed file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["ModelValue", "OwnerSet", "RevokedValue", "StatementValue"]


@dataclass(frozen=True, slots=True)
class StatementValue:
    """A statement about a model that one of the trusted issuers signed.

    Nothing of its content is believed beyond this: not what was evaluated, nor with what result.

    Attributes:
        digest: SHA-256 of the signed envelope, hex.
        issuer: the name of the anchor that vouches for it.
        type: the predicate's type, or ``cyclonedx``.
        date: when, by the issuer's word, as an RFC 3339 time in UTC; ``None`` where it does not say.
    """

    digest: str
    issuer: str
    type: str
    date: str | None

    def document(self) -> strict.JsonObject:
        """As JSON, every member present; what policies see."""
        return {"issuer": self.issuer, "type": self.type, "date": self.date, "digest": self.digest}

    @classmethod
    def read(cls, value: strict.JsonValue, where: str) -> Self:
        """Read :meth:`document`."""
        fields = _fields(value, where)
        digest = _digest(fields, "digest")
        read = cls(digest, fields.text("issuer", limit=1024), fields.text("type"), _optional_time(fields, "date"))
        fields.end()
        return read


@dataclass(frozen=True, slots=True)
class ModelValue:
    """An accepted model: manifest digest as hex, the owner's name for it, the statements about it sorted by digest."""

    manifest: str
    name: str
    statements: tuple[StatementValue, ...] = ()


@dataclass(frozen=True, slots=True)
class RevokedValue:
    """A revoked model: manifest digest as hex, the owner's reason, and since when by the owner's word."""

    manifest: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerSet:
    """One set. ``not_before`` and ``not_after`` (inclusive) are when the owner, under a trusted key, vouches for it.

    A set without models but with revocations is what is left of one of which not everything could be verified.
    """

    owner: str
    number: int
    digest: str
    not_before: datetime
    not_after: datetime
    models: tuple[ModelValue, ...]
    revoked: tuple[RevokedValue, ...]

    def valid(self, at: datetime) -> bool:
        """Whether its acceptances hold at ``at``. Revocations always do."""
        return self.not_before <= at <= self.not_after

    def document(self) -> strict.JsonObject:
        """As JSON."""
        return {
            "owner": self.owner,
            "number": self.number,
            "digest": self.digest,
            "not_before": strict.time_encode(self.not_before),
            "not_after": strict.time_encode(self.not_after),
            "models": {
                model.manifest: {"name": model.name, "statements": [item.document() for item in model.statements]}
                for model in self.models
            },
            "revoked": {
                model.manifest: {"reason": model.reason, "at": strict.time_encode(model.at)} for model in self.revoked
            },
        }

    @classmethod
    def read(cls, value: strict.JsonValue, where: str) -> Self:
        """Read :meth:`document`.

        Raises:
            MalformedEvidence: it has another shape.
        """
        fields = _fields(value, where)
        owner, number = fields.text("owner", limit=1024), fields.uint("number", limit=2**53 - 1)
        digest = _digest(fields, "digest")
        not_before, not_after = _time(fields, "not_before"), _time(fields, "not_after")
        accepted, revoked = fields.table("models"), fields.table("revoked")
        fields.end()
        return cls(
            owner=owner,
            number=number,
            digest=digest,
            not_before=not_before,
            not_after=not_after,
            models=tuple(_model(accepted, key) for key in sorted(map(str, accepted.keys()))),
            revoked=tuple(_revoked(revoked, key) for key in sorted(map(str, revoked.keys()))),
        )


def _model(models: cbor.Reader, key: str) -> ModelValue:
    where = models.path(key[:64])
    _ = strict.hex_decode(key, what=where, size=limits.DIGEST_SIZE)
    fields = models.table(key)
    name = fields.text("name")
    listed = fields.array("statements", limit=limits.STATEMENTS_MAX)
    fields.end()
    read = tuple(StatementValue.read(cast("strict.JsonValue", item), f"{where}.statements") for item in listed)
    return ModelValue(key, name, read)


def _revoked(models: cbor.Reader, key: str) -> RevokedValue:
    _ = strict.hex_decode(key, what=models.path(key[:64]), size=limits.DIGEST_SIZE)
    fields = models.table(key)
    read = RevokedValue(key, fields.text("reason"), _time(fields, "at"))
    fields.end()
    return read


def _fields(value: strict.JsonValue, where: str) -> cbor.Reader:
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "expected an object", where=where)
    return cbor.read_map(cast("cbor.CborValue", value), where=where)


def _digest(fields: cbor.Reader, key: str) -> str:
    return strict.hex_decode(fields.text(key), what=fields.path(key), size=limits.DIGEST_SIZE).hex()


def _time(fields: cbor.Reader, key: str) -> datetime:
    return strict.time_decode(fields.text(key), what=fields.path(key))


def _optional_time(fields: cbor.Reader, key: str) -> str | None:
    text = fields.optional_text(key)
    return None if text is None else strict.time_encode(strict.time_decode(text, what=fields.path(key)))
