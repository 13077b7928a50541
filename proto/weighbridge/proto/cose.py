"""COSE_Sign1 with ES256, and nothing else of COSE.

Accepted: tag 18; protected header exactly ``{1: -7, 4: kid, 16: typ}``; empty unprotected header; payload present;
signature of 64 bytes, r then s, big-endian (RFC 9052 §4.2, RFC 9053 §2.1, RFC 9596 for ``typ``). Everything else
is rejected by absence. ``kid`` is the SHA-256 of the signer's SubjectPublicKeyInfo (DER).

The signature covers the bytes as received; nothing is re-encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from weighbridge.proto import cbor
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CoseSign1", "claimed_typ", "load_p256", "parse", "sign", "spki", "thumbprint", "to_be_signed", "verify"]

_TAG_18: Final = b"\xd2"
_ALG, _KID, _TYP = 1, 4, 16
_ES256: Final = -7
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_SIGNATURE_SIZE: Final = 64
_HEADER_MAX: Final = 256
# Signers whose protected headers are remembered: the sessions of a fleet.
_SIGNERS_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class CoseSign1:
    """A well-formed COSE_Sign1. Says nothing of truth: the signature is not checked.

    ``protected`` and ``payload`` are the exact signed bytes; ``signature`` is r || s, 64 bytes.
    """

    raw: bytes
    protected: bytes
    claimed_kid: bytes
    typ: str
    payload: bytes
    signature: bytes


def parse(data: bytes, *, typ: str, limit: int, what: str) -> CoseSign1:
    """Parse a tagged COSE_Sign1 whose ``typ`` header is ``typ``.

    Raises:
        MalformedEvidence: ``COSE_HEADER`` for a header outside the accepted set, or a decoding code.
    """
    message = _parse(data, limit=limit, what=what)
    if message.typ != typ:
        raise MalformedEvidence(
            Code.COSE_HEADER,
            "wrong typ",
            where=f"{what}.protected",
            expected=typ,
            got=message.typ,
            clause="RFC 9596 §2",
        )
    return message


def claimed_typ(data: bytes, *, limit: int, what: str) -> str:
    """The ``typ`` header of a tagged COSE_Sign1, to choose by what to parse and verify it.

    Raises:
        MalformedEvidence: as :func:`parse`.
    """
    return _parse(data, limit=limit, what=what).typ


def _parse(data: bytes, *, limit: int, what: str) -> CoseSign1:
    if data[:1] != _TAG_18:
        raise MalformedEvidence(Code.NOT_CBOR, f"{what} is not a tagged COSE_Sign1", where=what, clause="RFC 9052 §4.2")
    values = cbor.read_array(cbor.decode(data[1:], limit=limit, what=what), where=what, limit=4, size=4)
    parts = cbor.Reader(dict(enumerate(values)), what)
    protected, payload, signature = parts.octets(0), parts.octets(2, limit=limit), parts.octets(3)
    if parts.take(1) != {}:
        raise MalformedEvidence(Code.COSE_HEADER, "unprotected header is not an empty map", where=f"{what}.unprotected")
    kid, typ = _header(protected, f"{what}.protected")
    if len(signature) != _SIGNATURE_SIZE:
        raise MalformedEvidence(
            Code.COSE_SIGNATURE,
            "wrong signature length",
            where=f"{what}.signature",
            expected=_SIGNATURE_SIZE,
            got=len(signature),
        )
    return CoseSign1(raw=data, protected=protected, claimed_kid=kid, typ=typ, payload=payload, signature=signature)


@lru_cache(maxsize=_SIGNERS_MAX)
def _header(protected: bytes, where: str) -> tuple[bytes, str]:
    """``kid`` and ``typ``: the same bytes in all that one signer signs of one kind."""
    header = cbor.read_map(cbor.decode(protected, limit=_HEADER_MAX, what=where), where=where)
    if header.take(_ALG) != _ES256:
        raise MalformedEvidence(Code.COSE_HEADER, "algorithm is not ES256", where=where, clause="RFC 9053 §2.1")
    kid = header.digest(_KID)
    typ = header.text(_TYP)
    header.end()
    return kid, typ


def sign(payload: bytes, *, kid: bytes, typ: str, signer: Callable[[bytes], bytes]) -> bytes:
    """A tagged COSE_Sign1 over ``payload``.

    Args:
        payload: the bytes to be carried and signed.
        kid: SHA-256 of the signer's SubjectPublicKeyInfo, 32 bytes.
        typ: the media type of the whole.
        signer: given the Sig_structure's bytes, returns the ES256 signature r || s, 64 bytes. The key stays with
            the caller; it may be in a TPM.
    """
    protected = cbor.encode({_ALG: _ES256, _KID: kid, _TYP: typ})
    signature = signer(to_be_signed(protected, payload))
    if len(signature) != _SIGNATURE_SIZE:
        raise ValueError("signer must return r || s of 64 bytes")
    unprotected: cbor.CborMap = {}
    return _TAG_18 + cbor.encode([protected, unprotected, payload, signature])


def to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure of RFC 9052 §4.4 with empty external_aad."""
    return cbor.encode(["Signature1", protected, b"", payload])


def verify(message: CoseSign1, key: ec.EllipticCurvePublicKey) -> bytes:
    """The payload, now known to be signed by ``key``. Does not say whose key that is, nor when it signed.

    Raises:
        NotAuthentic: ``COSE_SIGNATURE``.
    """
    half = _SIGNATURE_SIZE // 2
    der = encode_dss_signature(int.from_bytes(message.signature[:half]), int.from_bytes(message.signature[half:]))
    try:
        key.verify(der, to_be_signed(message.protected, message.payload), _ALGORITHM)
    except InvalidSignature as error:
        raise NotAuthentic(
            Code.COSE_SIGNATURE, "signature does not verify", where=message.typ, clause="RFC 9052 §4.4"
        ) from error
    return message.payload


def load_p256(spki_der: bytes, *, what: str) -> ec.EllipticCurvePublicKey:
    """A P-256 public key from its SubjectPublicKeyInfo in DER, canonical.

    Raises:
        MalformedEvidence: ``KEY_MALFORMED`` or ``KEY_UNSUPPORTED``.
    """
    try:
        key = load_der_public_key(spki_der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(Code.KEY_MALFORMED, f"{what} is not a public key: {error}", where=what) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedEvidence(Code.KEY_UNSUPPORTED, f"{what} is not a P-256 key", where=what)
    if spki(key) != spki_der:
        raise MalformedEvidence(Code.KEY_MALFORMED, f"{what} is not canonically encoded", where=what)
    return key


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """The SubjectPublicKeyInfo of ``key`` in DER, with the point uncompressed."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def thumbprint(key: ec.EllipticCurvePublicKey) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo: how every key is named in headers, terms and tokens."""
    return sha256(spki(key))
