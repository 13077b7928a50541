"""Whom an attester believes: the keys with which a verifier signs terms.

Read from an anchors document (schema ``weighbridge/anchors/v1``, the entries of purpose ``verifier``; the others are
for verifiers and are checked for their shape only), or from one public key in PEM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from weighbridge.proto import cbor, cose, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.terms import TERMS_TYP, SignedTerms

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["TrustedVerifiers", "VerifierAnchor"]

_SCHEMA: Final = "weighbridge/anchors/v1"
_PURPOSE: Final = "verifier"
_ANCHORS_MAX: Final = 1024
_DOCUMENT_MAX: Final = 2 * 1024 * 1024
_PEM: Final = b"-----BEGIN PUBLIC KEY-----"


@dataclass(frozen=True, slots=True)
class VerifierAnchor:
    """One believed key, P-256, and when it is believed; both times are inclusive, ``None`` without a bound."""

    key: ec.EllipticCurvePublicKey
    name: str
    not_before: datetime | None
    not_after: datetime | None

    @property
    def thumbprint(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo."""
        return cose.thumbprint(self.key)


@dataclass(frozen=True, slots=True)
class TrustedVerifiers:
    """The believed keys, at least one, no key twice."""

    anchors: tuple[VerifierAnchor, ...]

    def __post_init__(self) -> None:
        """Refuse an empty set, which would believe nobody, and one that is ambiguous."""
        if not self.anchors:
            raise MalformedEvidence(
                Code.ANCHORS_INVALID,
                f"no anchor of purpose {_PURPOSE}",
                where="anchors",
                hint="the verifier's operator gives out its anchors document",
            )
        if len({anchor.thumbprint for anchor in self.anchors}) != len(self.anchors):
            raise MalformedEvidence(Code.ANCHORS_INVALID, "the same key is listed twice", where="anchors")

    @classmethod
    def load(cls, data: bytes) -> Self:
        """The keys in an anchors document, or the one in a PEM file.

        Raises:
            MalformedEvidence: ``ANCHORS_INVALID``, ``KEY_MALFORMED``, ``KEY_UNSUPPORTED`` or a decoding code.
        """
        if data.lstrip().startswith(_PEM):
            return cls((VerifierAnchor(_pem_key(data), "verifier", None, None),))
        fields = _reader(strict.json_decode(data, what="anchors", limit=_DOCUMENT_MAX), "anchors")
        schema = fields.text("schema")
        if schema != _SCHEMA:
            raise MalformedEvidence(
                Code.ANCHORS_INVALID, "wrong schema", where="anchors.schema", expected=_SCHEMA, got=schema
            )
        fields.text("note", limit=4096)
        listed = fields.array("anchors", limit=_ANCHORS_MAX)
        fields.end()
        found = [_anchor(item, f"anchors[{number}]") for number, item in enumerate(listed)]
        return cls(tuple(anchor for anchor in found if anchor is not None))

    def open_terms(self, raw: bytes, *, at: datetime) -> SignedTerms:
        """The terms in ``raw``, signed by a key that is believed at ``at``.

        The key is the one that the message names; others are not tried.

        Raises:
            MalformedEvidence: not well-formed.
            NotAuthentic: ``CHAIN_UNTRUSTED``, ``CHAIN_EXPIRED`` or ``COSE_SIGNATURE``.
        """
        message = cose.parse(raw, typ=TERMS_TYP, limit=limits.TERMS_MAX, what="terms")
        for anchor in self.anchors:
            if anchor.thumbprint == message.claimed_kid:
                break
        else:
            raise NotAuthentic(
                Code.CHAIN_UNTRUSTED,
                "the terms are signed by a verifier that is not believed",
                where="terms.protected",
                expected=" or ".join(anchor.thumbprint.hex() for anchor in self.anchors),
                got=message.claimed_kid,
                hint="is --verifier-key the anchors document of this verifier?",
            )
        if (anchor.not_before is not None and at < anchor.not_before) or (
            anchor.not_after is not None and at > anchor.not_after
        ):
            raise NotAuthentic(
                Code.CHAIN_EXPIRED,
                "the verifier's key is not valid now",
                where=f"anchor {anchor.name}",
                got=at.isoformat(),
            )
        return SignedTerms.open(raw, anchor.key)


def _pem_key(data: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(Code.KEY_MALFORMED, "not a public key in PEM", where="verifier key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedEvidence(Code.KEY_UNSUPPORTED, "not a P-256 key", where="verifier key")
    return key


def _anchor(value: cbor.CborValue, where: str) -> VerifierAnchor | None:
    fields = _reader(value, where)
    purpose = fields.text("purpose", limit=64)
    name = fields.text("name", limit=1024)
    fields.text("platform", limit=64)
    spki = strict.base64_decode(fields.text("spki", limit=limits.CERT_MAX), what=f"{where}.spki")
    claimed = strict.hex_decode(fields.text("sha256"), what=f"{where}.sha256", size=limits.DIGEST_SIZE)
    not_before = strict.time_decode(fields.text("not_before"), what=f"{where}.not_before")
    not_after = strict.time_decode(fields.text("not_after"), what=f"{where}.not_after")
    fields.text("source", limit=4096)
    if fields.has("key_id"):
        fields.text("key_id", limit=128)
    fields.end()
    if purpose != _PURPOSE:
        return None
    if sha256(spki) != claimed:
        raise MalformedEvidence(
            Code.ANCHORS_INVALID,
            "fingerprint is not that of the key",
            where=f"{where}.sha256",
            expected=sha256(spki),
            got=claimed,
        )
    return VerifierAnchor(cose.load_p256(spki, what=f"{where}.spki"), name, not_before, not_after)


def _reader(value: object, where: str) -> cbor.Reader:
    """Read a JSON object with the reader of CBOR maps: no field of this document is a float, so none is lost."""
    return cbor.read_map(cast("cbor.CborValue", value), where=where)
