"""Other names of a session's serving key, for relying parties that bind tokens by them: RFC 8705 and RFC 9449.

A session's terms and headers carry the SHA-256 of the serving key's SubjectPublicKeyInfo and nothing else of it. What
else is a function of that key can only be said by whoever has the key: the relying party shows the certificate that
the server presents to it. It is found to be of the attested key, or there is no other name.

A certificate's hash says which certificate was shown, not that the attester ever had another one or none: it makes a
binding narrower, never wider. What is not checked: who issued the certificate, and for which names and times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import load_certificate, spki_der
from weighbridge.verifier.result.claims import Confirmation

if TYPE_CHECKING:
    from typing import TypeAlias

    _Key: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

__all__ = ["confirm", "jwk_thumbprint"]

_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def confirm(certificate: bytes, *, cnf: bytes) -> Confirmation:
    """The names of the key in ``certificate``, which is the one that ``cnf`` names.

    Args:
        certificate: untrusted; DER.
        cnf: SHA-256 of the serving key's SubjectPublicKeyInfo, of an affirmed window.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``CERT_MALFORMED``, ``KEY_MALFORMED`` or ``KEY_UNSUPPORTED``.
        NotAuthentic: ``UPSTREAM_KEY``: it is of another key.
    """
    spki = spki_der(load_certificate(certificate, "certificate"))
    if sha256(spki) != cnf:
        raise NotAuthentic(
            Code.UPSTREAM_KEY,
            "the certificate is not of the key named by the attested session",
            where="certificate.subjectPublicKeyInfo",
            expected=cnf,
            got=sha256(spki),
        )
    return Confirmation(jkt=jwk_thumbprint(spki), x5t_s256=sha256(certificate))


def jwk_thumbprint(spki: bytes) -> bytes:
    """The SHA-256 thumbprint (RFC 7638 §3) of a key, given as SubjectPublicKeyInfo in DER.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``KEY_MALFORMED``; ``KEY_UNSUPPORTED`` for all but NIST curves, RSA, Ed25519.
    """
    if len(spki) > limits.CERT_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "the key is too large", where="key", expected=f"<= {limits.CERT_MAX}", got=len(spki)
        )
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(Code.KEY_MALFORMED, f"not a public key: {error}", where="key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise MalformedEvidence(Code.KEY_UNSUPPORTED, "a JWK thumbprint of such a key is not made here", where="key")
    # The members that RFC 7638 §3.2 requires and no other, ordered, without white space.
    return sha256(strict.json_encode(_required(key)))


def _required(key: _Key) -> strict.JsonObject:
    if isinstance(key, ec.EllipticCurvePublicKey):
        curve, size = _CURVES.get(key.curve.name), (key.key_size + 7) // 8
        if curve is None:
            raise MalformedEvidence(Code.KEY_UNSUPPORTED, "not one of NIST's curves", where="key", got=key.curve.name)
        numbers = key.public_numbers()
        return {"kty": "EC", "crv": curve, "x": _number(numbers.x, size), "y": _number(numbers.y, size)}
    if isinstance(key, rsa.RSAPublicKey):
        public = key.public_numbers()
        return {"kty": "RSA", "e": _number(public.e), "n": _number(public.n)}
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": strict.base64url_encode(raw)}


def _number(value: int, size: int = 0) -> str:
    return strict.base64url_encode(value.to_bytes(size or (value.bit_length() + 7) // 8))
