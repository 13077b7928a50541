"""The table of accepted algorithms: ECDSA on P-256 with SHA-256, on P-384 with SHA-384, on P-521 with SHA-512.

The hash follows from the key's curve, never from the message. Every other kind of key is refused by its absence.
"""

from __future__ import annotations

from typing import Final, TypeGuard

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto.digest import sha256

__all__ = ["NAMES", "hint_of", "scheme", "supported"]

NAMES: Final = "P-256, P-384 or P-521"

_HASHES: Final[dict[type[ec.EllipticCurve], hashes.HashAlgorithm]] = {
    ec.SECP256R1: hashes.SHA256(),
    ec.SECP384R1: hashes.SHA384(),
    ec.SECP521R1: hashes.SHA512(),
}


def supported(key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    """Whether ``key`` is a public key on a curve of the table."""
    return isinstance(key, ec.EllipticCurvePublicKey) and type(key.curve) in _HASHES


def scheme(key: ec.EllipticCurvePublicKey) -> ec.ECDSA:
    """ECDSA with the hash that the key's curve demands."""
    return ec.ECDSA(_HASHES[type(key.curve)])


def hint_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """The SHA-256 of the key's PEM: how a bundle names it."""
    return sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
