"""TPMT_PUBLIC: the public area of an asymmetric key (TPM 2.0 Part 2 §12.2.4), and the templates we create keys from.

Only RSA and ECC keys are evidence; keyed-hash and symmetric objects are refused by absence, and so is every
parameter outside :mod:`~weighbridge.proto.tpm.constants`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tpm.constants import (
    SIGNING_ALGORITHMS,
    TPM_ALG_AES,
    TPM_ALG_CFB,
    TPM_ALG_NULL,
    Curve,
    HashAlgorithm,
    KeyType,
    ObjectAttributes,
    Scheme,
    SigningAlgorithm,
    Symmetric,
    digest_size,
)
from weighbridge.proto.tpm.names import object_name
from weighbridge.proto.tpm.wire import WireReader

__all__ = ["EccPoint", "Public", "RsaModulus", "parse"]

_RSA_BITS: Final = (2048, 3072)
_RSA_EXPONENT: Final = 65537
_AES_BITS: Final = (128, 256)
# As a plain number: the complement of an IntFlag leaves out the bits that it does not name.
_KNOWN_ATTRIBUTES: Final = sum(attribute.value for attribute in ObjectAttributes)
# A Name by SHA-1 would let two keys share it.
_NAME_ALGORITHMS: Final = (HashAlgorithm.SHA256, HashAlgorithm.SHA384, HashAlgorithm.SHA512)


@dataclass(frozen=True, slots=True)
class RsaModulus:
    """An RSA public key: ``bits`` long, exponent 65537."""

    bits: int
    modulus: int


@dataclass(frozen=True, slots=True)
class EccPoint:
    """A point that lies on ``curve``."""

    curve: Curve
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Public:
    """A well-formed public area. Says nothing of truth: that a TPM holds such a key is for others to prove.

    ``raw`` are the exact bytes, which the Name covers. ``scheme`` is absent for keys that choose when signing and
    for storage keys; ``symmetric`` is present for storage keys only. ``key`` is the key of ``unique``, made once: a key
    checks many signatures.
    """

    raw: bytes
    name_algorithm: HashAlgorithm
    attributes: ObjectAttributes
    auth_policy: bytes
    symmetric: Symmetric | None
    scheme: tuple[Scheme, HashAlgorithm] | None
    unique: RsaModulus | EccPoint
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey = field(repr=False, compare=False)

    @property
    def name(self) -> bytes:
        """The object's Name, recomputed from :attr:`raw`."""
        return object_name(self.name_algorithm, self.raw)

    def public_key(self) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
        """The key itself."""
        return self.key

    def spki(self) -> bytes:
        """The key as SubjectPublicKeyInfo in DER."""
        return self.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def signing_algorithm(self) -> SigningAlgorithm:
        """The row of the table of accepted algorithms that this key is.

        Raises:
            MalformedEvidence: ``TPM_ALGORITHM`` if there is none, for instance for a key without a fixed scheme.
        """
        unique = self.unique
        size: int = unique.bits if isinstance(unique, RsaModulus) else unique.curve
        key_type = KeyType.RSA if isinstance(unique, RsaModulus) else KeyType.ECC
        for row in SIGNING_ALGORITHMS:
            if (row.key_type, row.size, (row.scheme, row.hash)) == (key_type, size, self.scheme):
                return row
        shown = "none" if self.scheme is None else f"{self.scheme[0].name} with {self.scheme[1].name}"
        raise MalformedEvidence(
            Code.TPM_ALGORITHM,
            "signing key's algorithm is not accepted",
            where="public",
            got=f"{key_type.name} {size}, scheme {shown}",
        )


def parse(data: bytes) -> Public:
    """Parse a marshalled TPMT_PUBLIC.

    Args:
        data: untrusted; without the length in front that TPM2B_PUBLIC has.

    Raises:
        MalformedEvidence: ``TPM_ALGORITHM`` for a type, hash, curve, size or scheme that is not accepted,
            ``KEY_MALFORMED`` for a number that is no key, otherwise ``TRUNCATED``, ``TRAILING_BYTES``, ``TOO_LARGE``
            or ``TPM_STRUCTURE``.
    """
    reader = WireReader(data, "public")
    key_type = _one_of(reader.u16(), tuple(KeyType), "key type")
    name_algorithm = HashAlgorithm(_one_of(reader.u16(), _NAME_ALGORITHMS, "nameAlg"))
    attributes = _attributes(reader)
    auth_policy = _auth_policy(reader, name_algorithm)
    symmetric = _symmetric(reader)
    unique: RsaModulus | EccPoint
    if key_type == KeyType.RSA:
        scheme = _scheme(reader, (Scheme.RSASSA, Scheme.RSAPSS))
        unique = _rsa(reader)
    else:
        scheme = _scheme(reader, (Scheme.ECDSA,))
        unique = _ecc(reader)
    reader.end()
    return Public(
        raw=data,
        name_algorithm=name_algorithm,
        attributes=attributes,
        auth_policy=auth_policy,
        symmetric=symmetric,
        scheme=scheme,
        unique=unique,
        key=_public_key(unique),
    )


def _one_of(value: int, accepted: tuple[int, ...], what: str) -> int:
    if value not in accepted:
        raise MalformedEvidence(
            Code.TPM_ALGORITHM,
            f"{what} is not accepted",
            where="public",
            expected=", ".join(f"{a:#06x}" for a in accepted),
            got=f"{value:#06x}",
        )
    return value


def _attributes(reader: WireReader) -> ObjectAttributes:
    where = reader.place
    value = reader.u32()
    if value & ~_KNOWN_ATTRIBUTES:
        raise MalformedEvidence(
            Code.TPM_STRUCTURE,
            "reserved attribute is set",
            where=where,
            got=f"{value:#010x}",
            clause="TPM 2.0 Part 2 §8.3",
        )
    return ObjectAttributes(value)


def _auth_policy(reader: WireReader, name_algorithm: HashAlgorithm) -> bytes:
    where = reader.place
    size = digest_size(name_algorithm)
    policy = reader.sized(size)
    if len(policy) not in (0, size):
        raise MalformedEvidence(
            Code.TPM_STRUCTURE,
            "authPolicy is not a digest of nameAlg",
            where=where,
            expected=f"0 or {size} bytes",
            got=f"{len(policy)} bytes",
        )
    return policy


def _symmetric(reader: WireReader) -> Symmetric | None:
    """TPMT_SYM_DEF_OBJECT (Part 2 §11.1.7)."""
    if _one_of(reader.u16(), (TPM_ALG_NULL, TPM_ALG_AES), "symmetric algorithm") == TPM_ALG_NULL:
        return None
    bits = _one_of(reader.u16(), _AES_BITS, "AES key size")
    _one_of(reader.u16(), (TPM_ALG_CFB,), "symmetric mode")
    return Symmetric(bits)


def _scheme(reader: WireReader, accepted: tuple[Scheme, ...]) -> tuple[Scheme, HashAlgorithm] | None:
    """TPMT_RSA_SCHEME or TPMT_ECC_SCHEME (Part 2 §11.2.4.2, §11.2.5.6)."""
    value = _one_of(reader.u16(), (TPM_ALG_NULL, *accepted), "scheme")
    if value == TPM_ALG_NULL:
        return None
    return Scheme(value), HashAlgorithm(_one_of(reader.u16(), _NAME_ALGORITHMS, "scheme hash"))


def _rsa(reader: WireReader) -> RsaModulus:
    """The rest of TPMS_RSA_PARMS, and TPM2B_PUBLIC_KEY_RSA (Part 2 §12.2.3.5, §11.2.4.5)."""
    bits = _one_of(reader.u16(), _RSA_BITS, "RSA key size")
    exponent = reader.u32()
    if exponent not in (0, _RSA_EXPONENT):  # zero is the TPM's way of writing 65537
        raise MalformedEvidence(Code.TPM_ALGORITHM, "RSA exponent is not 65537", where="public", got=exponent)
    where = reader.place
    modulus = int.from_bytes(reader.sized(bits // 8))
    if modulus.bit_length() != bits or modulus % 2 == 0:
        raise MalformedEvidence(
            Code.KEY_MALFORMED,
            "not an RSA modulus of the stated size",
            where=where,
            expected=f"odd, {bits} bits",
            got=f"{modulus.bit_length()} bits",
        )
    return RsaModulus(bits=bits, modulus=modulus)


def _ecc(reader: WireReader) -> EccPoint:
    """The rest of TPMS_ECC_PARMS, and TPMS_ECC_POINT (Part 2 §12.2.3.6, §11.2.5.2)."""
    curve = Curve(_one_of(reader.u16(), tuple(Curve), "curve"))
    _one_of(reader.u16(), (TPM_ALG_NULL,), "key derivation function")
    # Older TPMs drop leading zeros of a coordinate; the Name covers the bytes as they are.
    return EccPoint(curve=curve, x=int.from_bytes(reader.sized(curve.size)), y=int.from_bytes(reader.sized(curve.size)))


def _public_key(unique: RsaModulus | EccPoint) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    try:
        if isinstance(unique, RsaModulus):
            return rsa.RSAPublicNumbers(_RSA_EXPONENT, unique.modulus).public_key()
        curve = ec.SECP256R1() if unique.curve is Curve.NIST_P256 else ec.SECP384R1()
        return ec.EllipticCurvePublicNumbers(unique.x, unique.y, curve).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(Code.KEY_MALFORMED, f"not a public key: {error}", where="public.unique") from error
