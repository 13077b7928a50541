"""Keys and certificates of model signatures, from PEM: whom to believe, and what to sign with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, load_pem_public_key

from weighbridge.attester.model_signing.algorithms import NAMES, supported
from weighbridge.attester.model_signing.certificates import check_purpose
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import load_certificate, public_key

__all__ = [
    "SigningKey",
    "TrustedKey",
    "TrustedRoots",
    "load_public_key",
    "load_roots",
    "load_signing_key",
]

_ROOTS_MAX: Final = 1000
_HINT: Final = "make one by `openssl ecparam -name prime256v1 -genkey -noout`"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """The one public key by which a signature is believed."""

    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class TrustedRoots:
    """The certificates at which a signer's chain may end; never empty."""

    certificates: tuple[x509.Certificate, ...]

    def __post_init__(self) -> None:
        """Refuse to trust nobody: it would not be a decision."""
        if not self.certificates:
            raise ValueError("no root certificate")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What a model is signed with. ``certificates``, the key's own first, are empty in mode *key*."""

    key: ec.EllipticCurvePrivateKey
    certificates: tuple[x509.Certificate, ...]


def load_public_key(pem: bytes) -> TrustedKey:
    """The public key in ``pem``.

    Raises:
        MalformedEvidence: ``KEY_MALFORMED`` or ``KEY_UNSUPPORTED``.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(Code.KEY_MALFORMED, "not a public key in PEM", where="public key") from error
    if not supported(key):
        raise _unsupported("public key")
    return TrustedKey(key)


def load_roots(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in ``pem``. None of them is judged before a chain ends there.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED`` or ``TOO_LARGE``.
    """
    return _certificates(pem, "root", limit=_ROOTS_MAX)


def load_signing_key(pem: bytes, *, certificate: bytes | None = None, chain: bytes = b"") -> SigningKey:
    """The private key in ``pem``, and its certificates where it has some.

    Args:
        pem: an unencrypted private key.
        certificate: PEM of the key's own certificate; ``None`` for mode *key*.
        chain: PEM of what leads from there to a root; empty where the root is the issuer.

    Raises:
        MalformedEvidence: ``KEY_MALFORMED``, ``KEY_UNSUPPORTED``, ``CERT_MALFORMED`` or ``TOO_LARGE``.
        NotAuthentic: ``MODEL_SIGNER`` when the certificate is for another key, ``CERT_PURPOSE`` when not for signing.
        ValueError: a chain without a certificate.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise MalformedEvidence(
            Code.KEY_UNSUPPORTED,
            "the private key is encrypted",
            where="private key",
            hint="decrypt it for the time of signing: `openssl pkey -in KEY -out PLAIN`",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(
            Code.KEY_MALFORMED, "not a private key in PEM", where="private key", hint=_HINT
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not supported(key.public_key()):
        raise _unsupported("private key")
    if certificate is None:
        if chain:
            raise ValueError("a chain without a certificate")
        return SigningKey(key, ())
    own = _certificates(certificate, "certificate", limit=1)[0]
    others = _certificates(chain, "chain", limit=limits.MODEL_SIGNATURE_CERTS_MAX - 1) if chain else ()
    if public_key(own, "certificate") != key.public_key():
        raise NotAuthentic(Code.MODEL_SIGNER, "the certificate is for another key", where="certificate")
    check_purpose(own, "certificate")
    return SigningKey(key, (own, *others))


def _certificates(pem: bytes, what: str, *, limit: int) -> tuple[x509.Certificate, ...]:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise MalformedEvidence(Code.CERT_MALFORMED, "no certificate in PEM", where=what) from error
    if len(found) > limit:
        raise MalformedEvidence(
            Code.TOO_LARGE, "too many certificates", where=what, expected=f"<= {limit}", got=len(found)
        )
    return tuple(
        load_certificate(certificate.public_bytes(Encoding.DER), f"{what}[{index}]")
        for index, certificate in enumerate(found)
    )


def _unsupported(where: str) -> MalformedEvidence:
    return MalformedEvidence(Code.KEY_UNSUPPORTED, f"not a key on {NAMES}", where=where, hint=_HINT)
