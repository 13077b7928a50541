"""What others state about a model: in-toto Statements and CycloneDX ML-BOMs in DSSE envelopes. Parsed, not verified.

Of a statement four things are read: its type, its date, which digests it is about, and what was signed. Nothing else
in it is looked at or believed: what was evaluated, how, and with what result is for people, or for whoever knows the
predicate. A date is the issuer's word.

=====================  ================================  =================================================
payload type           type                              subject
=====================  ================================  =================================================
in-toto Statement v1   ``predicateType``                 ``subject[].digest``, members ``weighbridge-manifest``
                                                         and ``sha256``
CycloneDX JSON         ``cyclonedx``                     ``hashes`` (SHA-256) of components of type
                                                         ``machine-learning-model``
=====================  ================================  =================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

__all__ = ["CYCLONEDX", "IN_TOTO", "SUBJECT_KEY", "DsseSignature", "Statement", "pre_authentication"]

IN_TOTO: Final = "application/vnd.in-toto+json"
CYCLONEDX: Final = "application/vnd.cyclonedx+json"
SUBJECT_KEY: Final = "weighbridge-manifest"
"""The member of an in-toto digest set that names a manifest; ``sha256`` is taken too, since it is one."""

_STATEMENT_V1: Final = "https://in-toto.io/Statement/v1"
_SIGNATURES_MAX: Final = 16
_SIGNATURE_MAX: Final = 512
# Where predicates say when: this project's own and most others', a verification summary, a scan, a build's provenance.
_DATES: Final = (
    ("date",),
    ("timestamp",),
    ("timeVerified",),
    ("metadata", "scanFinishedOn"),
    ("metadata", "buildFinishedOn"),
    ("runDetails", "metadata", "finishedOn"),
)
# Other tools write nanoseconds, and an offset of zero.
_TIME: Final = re.compile(r"([0-9T:-]{19})(\.[0-9]{1,9})?(?:Z|\+00:00)")


@dataclass(frozen=True, slots=True)
class DsseSignature:
    """One signature of an envelope. ``claimed_keyid`` is an unauthenticated hint (DSSE v1.0.2 protocol.md)."""

    claimed_keyid: str
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A well-formed statement; says nothing of truth. ``digest`` is the SHA-256 of the whole envelope as received.

    ``signed`` are the bytes that each signature covers; ``subjects`` are lower-case hexadecimal digests.
    """

    raw: bytes
    digest: bytes
    signed: bytes
    signatures: tuple[DsseSignature, ...]
    type: str
    date: datetime | None
    subjects: frozenset[str]

    @classmethod
    def parse(cls, data: bytes, *, where: str = "statement") -> Self:
        """Parse a DSSE envelope in JSON and the statement in it. Members that nobody asked for are ignored.

        Raises:
            MalformedEvidence: ``VERSION_UNSUPPORTED`` for a payload that is neither kind of statement, or a decoding
                code.
        """
        envelope = _object(strict.json_decode(data, what=where, limit=limits.STATEMENT_MAX), where)
        kind = _text(envelope, "payloadType", where)
        payload = _base64(envelope, "payload", where)
        listed = _array(envelope, "signatures", where)
        if not 0 < len(listed) <= _SIGNATURES_MAX:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "wrong number of signatures", where=where, expected=f"1..{_SIGNATURES_MAX}"
            )
        content = _object(strict.json_decode(payload, what=f"{where}.payload", limit=limits.STATEMENT_MAX), where)
        match kind:
            case "application/vnd.in-toto+json":
                type_, date, subjects = _in_toto(content, f"{where}.payload")
            case "application/vnd.cyclonedx+json":
                type_, date, subjects = _cyclonedx(content, f"{where}.payload")
            case _:
                raise MalformedEvidence(
                    Code.VERSION_UNSUPPORTED,
                    "neither an in-toto statement nor a CycloneDX document",
                    where=f"{where}.payloadType",
                    expected=f"{IN_TOTO} or {CYCLONEDX}",
                    got=kind,
                )
        return cls(
            raw=data,
            digest=sha256(data),
            signed=pre_authentication(kind, payload),
            signatures=tuple(_signature(item, f"{where}.signatures[{n}]") for n, item in enumerate(listed)),
            type=type_,
            date=date,
            subjects=subjects,
        )


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature covers: PAE of DSSE v1.0.2, which delimits type and payload by their lengths."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _in_toto(content: strict.JsonObject, where: str) -> tuple[str, datetime | None, frozenset[str]]:
    version = _text(content, "_type", where)
    if version != _STATEMENT_V1:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED, "unknown statement", where=where, expected=_STATEMENT_V1, got=version
        )
    type_ = _text(content, "predicateType", where)
    subjects: set[str] = set()
    for number, item in enumerate(_array(content, "subject", where)):
        place = f"{where}.subject[{number}]"
        digests = _object(_object(item, place).get("digest"), f"{place}.digest")
        subjects |= {value for key in (SUBJECT_KEY, "sha256") if isinstance(value := digests.get(key), str)}
    predicate = content.get("predicate")
    date = None if predicate is None else _predicate_date(_object(predicate, f"{where}.predicate"), where)
    return type_, date, frozenset(subjects)


def _predicate_date(predicate: strict.JsonObject, where: str) -> datetime | None:
    """The first place of the table that has something; it is then a time, or the statement is refused."""
    for path in _DATES:
        value: strict.JsonValue = predicate
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            return _time(value, f"{where}.predicate.{'.'.join(path)}")
    return None


def _cyclonedx(content: strict.JsonObject, where: str) -> tuple[str, datetime | None, frozenset[str]]:
    if content.get("bomFormat") != "CycloneDX":
        raise MalformedEvidence(Code.VERSION_UNSUPPORTED, "not a CycloneDX document", where=f"{where}.bomFormat")
    metadata = content.get("metadata")
    described = {} if metadata is None else _object(metadata, f"{where}.metadata")
    stamp = described.get("timestamp")
    date = None if stamp is None else _time(stamp, f"{where}.metadata.timestamp")
    described_component = described.get("component")
    listed = [] if content.get("components") is None else _array(content, "components", where)
    # What a document is about is its own component; a model among those that this one is made of is another matter.
    about = [described_component] if described_component is not None else listed
    models = [
        component
        for number, item in enumerate(about)
        if (component := _object(item, f"{where}.components[{number}]")).get("type") == "machine-learning-model"
    ]
    subjects: set[str] = set()
    if len(models) == 1 and models[0].get("hashes") is not None:
        subjects = set(_sha256_of(_array(models[0], "hashes", f"{where}.components")))
    return "cyclonedx", date, frozenset(subjects)


def _sha256_of(hashes: list[strict.JsonValue]) -> Iterator[str]:
    for item in hashes:
        if isinstance(item, dict) and item.get("alg") == "SHA-256" and isinstance(content := item.get("content"), str):
            yield content


def _signature(value: strict.JsonValue, where: str) -> DsseSignature:
    fields = _object(value, where)
    keyid = fields.get("keyid")
    signature = _base64(fields, "sig", where)
    if len(signature) > _SIGNATURE_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "too long", where=where, expected=f"<= {_SIGNATURE_MAX} bytes")
    return DsseSignature(keyid if isinstance(keyid, str) else "", signature)


def _time(value: strict.JsonValue, where: str) -> datetime:
    """A time in UTC, cut to microseconds."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise MalformedEvidence(
            Code.NOT_A_TIME, "not a UTC time such as 2026-01-31T12:00:00Z", where=where, got=str(value)[:40]
        )
    return strict.time_decode(f"{found[1]}{(found[2] or '')[:7]}Z", what=where)


def _object(value: strict.JsonValue, where: str) -> strict.JsonObject:
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="object")
    return value


def _array(fields: strict.JsonObject, name: str, where: str) -> list[strict.JsonValue]:
    value = fields.get(name)
    if not isinstance(value, list):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"{where}.{name}", expected="array")
    return value


def _text(fields: strict.JsonObject, name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"{where}.{name}", expected="text")
    if not 0 < len(value) <= limits.NAME_MAX or not value.isprintable():
        raise MalformedEvidence(Code.FIELD_RANGE, "empty, too long or not printable", where=f"{where}.{name}")
    return value


def _base64(fields: strict.JsonObject, name: str, where: str) -> bytes:
    """Standard or URL-safe base64, both of which DSSE allows, with padding."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"{where}.{name}", expected="text")
    return strict.base64_decode(value.replace("-", "+").replace("_", "/"), what=f"{where}.{name}")
