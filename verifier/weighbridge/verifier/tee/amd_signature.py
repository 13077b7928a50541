"""RSASSA-PSS as AMD's root and intermediate keys sign certificates and revocation lists: the one accepted form.

SHA-384, MGF1 with SHA-384, salt of 48 bytes (AMD 57230 rev. 1.00 §3, §4; RFC 8017 §8.1). The parameters are fixed
here and not taken from what is verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import SignatureAlgorithmOID

from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.x509 import ObjectIdentifier

__all__ = ["is_amd_algorithm", "rsa_key", "verify"]

_SALT: Final = 48
_BITS: Final = range(2048, 4097)


def is_amd_algorithm(oid: ObjectIdentifier) -> bool:
    """Whether a certificate or list says that it is signed so."""
    return oid == SignatureAlgorithmOID.RSASSA_PSS


def rsa_key(key: PublicKeyTypes, where: str) -> rsa.RSAPublicKey:
    """``key``, if it may have signed so: RSA of 2048 to 4096 bits. AMD's are of 4096.

    Raises:
        NotAuthentic: ``CHAIN_BROKEN``.
    """
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in _BITS:
        raise NotAuthentic(Code.CHAIN_BROKEN, "not an RSA key of 2048 to 4096 bits", where=where)
    return key


def verify(key: rsa.RSAPublicKey, signature: bytes, signed: bytes) -> None:
    """Require that ``signature`` over ``signed`` is by ``key``.

    Raises:
        cryptography.exceptions.InvalidSignature: it is not; the caller says of what.
    """
    algorithm = hashes.SHA384()
    key.verify(signature, signed, padding.PSS(mgf=padding.MGF1(algorithm), salt_length=_SALT), algorithm)
