"""RSASSA-PSS as AMD's root and intermediate keys sign certificates and revocation lists: the one accepted form.

SHA-384, MGF1 with SHA-384, salt of 48 bytes (AMD 57230 rev. 1.00 §3, §4; RFC 8017 §8.1). The parameters are fixed
here and not taken from what is verified, and what is verified must state just these: the signature covers neither the
algorithm's second mention nor the framing around itself, so both are compared byte for byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = ["is_framed", "rsa_key", "verify"]

_SALT: Final = 48
_BITS: Final = range(2048, 4097)
# RSASSA-PSS-params (RFC 4055 §3.1): SHA-384, MGF1 with SHA-384, salt 48. AMD writes the last field, the number 1, in
# some certificates, and leaves it out, as DER demands of a default, in others.
_SHA384: Final = bytes.fromhex("300d06096086480165030402020500")
_PARAMETERS: Final = b"\xa0\x0f" + _SHA384 + bytes.fromhex("a11c301a06092a864886f70d010108") + _SHA384
_PSS: Final = bytes.fromhex("06092a864886f70d01010a")
_SALT_FIELD: Final = bytes.fromhex("a203020130")
_TRAILER_FIELD: Final = bytes.fromhex("a303020101")
_ALGORITHMS: Final = (
    b"\x30\x41" + _PSS + b"\x30\x34" + _PARAMETERS + _SALT_FIELD,
    b"\x30\x46" + _PSS + b"\x30\x39" + _PARAMETERS + _SALT_FIELD + _TRAILER_FIELD,
)


def is_framed(der: bytes, signed: bytes, signature: bytes) -> bool:
    """Whether ``der``, a certificate or a list, ends as one that is signed so: algorithm, then BIT STRING."""
    ending = b"\x03\x82" + (len(signature) + 1).to_bytes(2) + b"\x00" + signature
    return any(der.endswith(signed + algorithm + ending) for algorithm in _ALGORITHMS)


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
