"""The bundle around a model's statement: Sigstore bundle v0.3 as JSON, a DSSE envelope in it, one signature.

Three modes. *key* names the signer's public key by the SHA-256 of its PEM, *certificate* carries the signer's chain;
neither needs a service. *keyless* is Sigstore's own: a certificate of ten minutes and an entry of a transparency log.
What it carries is left to the ``sigstore`` library, whose parser and rules are the ones that count there.

The signature is ECDSA over the pre-authentication encoding of the payload's exact bytes (DSSE v1.0 §"Signature
definition"); nothing is re-encoded. Nothing here says that it verifies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_signing.statement import Statement, json_fields
from weighbridge.proto.x509 import load_certificate

if TYPE_CHECKING:
    from cryptography import x509

__all__ = [
    "MEDIA_TYPE",
    "PAYLOAD_TYPE",
    "Bundle",
    "CertificateChain",
    "Keyless",
    "KeyHint",
    "Material",
    "encode_bundle",
    "pae",
]

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"

_WHAT: Final = "bundle"
# A DER ECDSA signature of P-521 has at most 139 bytes.
_SIGNATURE_MAX: Final = 139
# What releases 1.0 wrote beside the key itself; the algorithm follows from the curve, so this decides nothing.
_KEY_DETAILS: Final = frozenset({"PKIX_ECDSA_P256_SHA_256", "PKIX_ECDSA_P384_SHA_384", "PKIX_ECDSA_P521_SHA_512"})
_PEM_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class KeyHint:
    """Mode *key*: ``claimed_key`` is the SHA-256 of the public key's PEM, as its signer states it."""

    claimed_key: bytes


@dataclass(frozen=True, slots=True)
class CertificateChain:
    """Mode *certificate*: the signer's certificate first, then what leads to a root. None of them is verified."""

    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Keyless:
    """Mode *keyless*: certificate, log entries and timestamps are there, and none of them has been read."""


Material = KeyHint | CertificateChain | Keyless


@final
@dataclass(frozen=True, slots=True)
class Bundle:
    """A well-formed bundle. Says nothing of truth. ``signature`` is DER, over :func:`pae` of ``statement.raw``."""

    material: Material
    statement: Statement
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a bundle and the statement in it.

        Raises:
            MalformedEvidence: for anything else; ``MODEL_SIGNATURE_MODE`` for one of no such mode,
                ``VERSION_UNSUPPORTED`` for another media, payload, statement or predicate type.
        """
        document = strict.json_decode(data, what=_WHAT, limit=limits.MODEL_SIGNATURE_MAX)
        fields = json_fields(document, where=_WHAT)
        _check_equal(fields, "mediaType", MEDIA_TYPE)
        material = _material(fields.table("verificationMaterial"))
        if fields.has("messageSignature"):
            raise MalformedEvidence(
                Code.MODEL_SIGNATURE_MODE,
                "a signature over bytes, not over a model",
                where=_WHAT,
                got="messageSignature",
            )
        envelope = fields.table("dsseEnvelope")
        fields.end()
        _check_equal(envelope, "payloadType", PAYLOAD_TYPE)
        payload = _octets(envelope, "payload", limit=limits.MODEL_SIGNATURE_MAX)
        signature = _signature(envelope)
        envelope.end()
        return cls(material, Statement.parse(payload), signature)

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over."""
        return pae(self.statement.raw)


def pae(payload: bytes) -> bytes:
    """The pre-authentication encoding of an in-toto payload (DSSE v1.0)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def encode_bundle(material: KeyHint | CertificateChain, statement: Statement, signature: bytes) -> bytes:
    """The bundle's JSON. The caller has made ``signature``, DER, over :func:`pae` of ``statement.raw``.

    Raises:
        MalformedEvidence: it would be larger than what is read.
    """
    described: strict.JsonObject
    match material:
        case KeyHint():
            described = {"publicKey": {"hint": material.claimed_key.hex()}}
        case CertificateChain():
            chain: list[strict.JsonValue] = [{"rawBytes": strict.base64_encode(_der(c))} for c in material.certificates]
            described = {"x509CertificateChain": {"certificates": chain}}
    document: strict.JsonObject = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {**described, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": strict.base64_encode(statement.raw),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": strict.base64_encode(signature), "keyid": ""}],
        },
    }
    data = strict.json_encode(document)
    Bundle.parse(data)
    return data


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _material(fields: cbor.Reader) -> Material:
    if fields.has("certificate"):
        return _keyless(fields)
    if (fields.has("tlogEntries") and fields.array("tlogEntries", limit=16)) or fields.has("timestampVerificationData"):
        raise MalformedEvidence(
            Code.MODEL_SIGNATURE_MODE,
            "entries of a log or timestamps without the certificate of Sigstore's keyless mode",
            where=f"{_WHAT}.verificationMaterial",
        )
    if fields.has("publicKey"):
        material: KeyHint | CertificateChain = _key(fields.table("publicKey"))
    else:
        material = _chain(fields.table("x509CertificateChain"))
    fields.end()
    return material


def _keyless(fields: cbor.Reader) -> Keyless:
    fields.table("certificate")
    fields.array("tlogEntries", limit=16)
    if fields.has("timestampVerificationData"):
        fields.optional_table("timestampVerificationData")
    fields.end()
    return Keyless()


def _key(fields: cbor.Reader) -> KeyHint:
    if fields.has("rawBytes"):
        # Releases 1.0 carried the key's PEM; later ones name it by the SHA-256 of that.
        claimed = sha256(_octets(fields, "rawBytes", limit=_PEM_MAX))
        details = fields.text("keyDetails")
        if details not in _KEY_DETAILS:
            raise MalformedEvidence(
                Code.KEY_UNSUPPORTED, "not an accepted kind of key", where=fields.path("keyDetails"), got=details
            )
    else:
        claimed = strict.hex_decode(fields.text("hint"), what=fields.path("hint"), size=limits.DIGEST_SIZE)
    fields.end()
    return KeyHint(claimed)


def _chain(fields: cbor.Reader) -> CertificateChain:
    values = fields.array("certificates", limit=limits.MODEL_SIGNATURE_CERTS_MAX)
    fields.end()
    if not values:
        raise MalformedEvidence(Code.CHAIN_LENGTH, "no certificate", where=fields.path("certificates"))
    certificates: list[x509.Certificate] = []
    for index, value in enumerate(values):
        where = f"{fields.path('certificates')}[{index}]"
        entry = cbor.read_map(value, where=where)
        certificates.append(load_certificate(_octets(entry, "rawBytes", limit=limits.CERT_MAX), where))
        entry.end()
    return CertificateChain(tuple(certificates))


def _signature(envelope: cbor.Reader) -> bytes:
    where = envelope.path("signatures")
    values = cbor.read_array(envelope.take("signatures"), where=where, limit=1, size=1)
    fields = cbor.read_map(values[0], where=f"{where}[0]")
    signature = _octets(fields, "sig", limit=_SIGNATURE_MAX)
    # The key's name within an envelope: not signed, and never written by the reference implementation.
    if fields.has("keyid") and fields.optional_text("keyid"):
        raise MalformedEvidence(Code.FIELD_RANGE, "must be empty", where=fields.path("keyid"))
    fields.end()
    return signature


def _octets(fields: cbor.Reader, key: str, *, limit: int) -> bytes:
    return strict.base64_decode(fields.text(key, limit=limit * 2), what=fields.path(key))


def _check_equal(fields: cbor.Reader, key: str, expected: str) -> None:
    got = fields.text(key)
    if got != expected:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED, "unknown type", where=fields.path(key), expected=expected, got=got
        )
