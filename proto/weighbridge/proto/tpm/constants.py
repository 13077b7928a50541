"""TPM 2.0 identifiers, and the one table of algorithms that are accepted.

Numbers are those of "TPM 2.0 Library, Part 2: Structures", revision 1.59; the clause is beside each group. What is
not listed here is refused by absence: there is no negotiation and no second table.

SHA-1 is listed because a TPM may have a SHA-1 bank that must be extended with the others (a bank left out could be
extended by anybody afterwards), and because a quote that names such a bank must be readable to be refused. It is
never accepted for a quote, a Name or a signature.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "EK_POLICY_A_SHA256",
    "EK_POLICY_B_SHA384",
    "SIGNING_ALGORITHMS",
    "TPM_ALG_AES",
    "TPM_ALG_CFB",
    "TPM_ALG_NULL",
    "TPM_GENERATED",
    "AttestType",
    "CommandCode",
    "Curve",
    "HashAlgorithm",
    "Hierarchy",
    "KeyType",
    "ObjectAttributes",
    "Scheme",
    "SigningAlgorithm",
    "Symmetric",
    "digest",
    "digest_size",
]

# Part 2 §6.2: the first field of everything a TPM signs of its own knowledge; the bytes FF "TCG".
TPM_GENERATED: Final = 0xFF544347
# Part 2 §6.3: "no algorithm" in schemes, symmetric definitions and KDFs.
TPM_ALG_NULL: Final = 0x0010
# Part 2 §6.3: the one block cipher and the one mode of storage keys.
TPM_ALG_AES: Final = 0x0006
TPM_ALG_CFB: Final = 0x0043


class HashAlgorithm(IntEnum):
    """Hash algorithms, TPM_ALG_ID (Part 2 §6.3)."""

    SHA1 = 0x0004
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D


class KeyType(IntEnum):
    """Asymmetric key types, TPMI_ALG_PUBLIC (Part 2 §12.2.2). Keyed-hash and symmetric objects are never evidence."""

    RSA = 0x0001
    ECC = 0x0023


class Scheme(IntEnum):
    """Signature schemes, TPMI_ALG_SIG_SCHEME (Part 2 §11.2.1.4)."""

    RSASSA = 0x0014
    RSAPSS = 0x0016
    ECDSA = 0x0018


class Curve(IntEnum):
    """Curves, TPM_ECC_CURVE (Part 2 §6.4). P-384 for endorsement keys only."""

    NIST_P256 = 0x0003
    NIST_P384 = 0x0004

    @property
    def size(self) -> int:
        """Bytes of a coordinate."""
        return 32 if self is Curve.NIST_P256 else 48


class AttestType(IntEnum):
    """Structure tags of attestations, TPMI_ST_ATTEST (Part 2 §10.12.10). The others are refused by absence."""

    CERTIFY = 0x8017
    QUOTE = 0x8018


class Hierarchy(IntEnum):
    """Permanent handles of the hierarchies, TPMI_RH_HIERARCHY (Part 2 §7.4)."""

    OWNER = 0x40000001
    NULL = 0x40000007
    ENDORSEMENT = 0x4000000B
    PLATFORM = 0x4000000C


class CommandCode(IntEnum):
    """Command codes that enter a policy digest or a probe, TPM_CC (Part 2 §6.5.2)."""

    STARTUP = 0x00000144
    SHUTDOWN = 0x00000145
    POLICY_SECRET = 0x00000151
    GET_RANDOM = 0x0000017B
    POLICY_PCR = 0x0000017F


class ObjectAttributes(IntFlag):
    """Attributes of an object, TPMA_OBJECT (Part 2 §8.3). Bits not listed are reserved and must be clear."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


@dataclass(frozen=True, slots=True)
class Symmetric:
    """The symmetric algorithm of a storage key (Part 2 §11.1.7): AES in CFB mode and nothing else.

    ``bits`` is the key size, 128 or 256.
    """

    bits: int


@dataclass(frozen=True, slots=True)
class SigningAlgorithm:
    """A row of the table: what a signing key is and what it signs with.

    ``size`` is the modulus in bits, or the curve's identifier. An attestation key may be of any row: clouds fix what
    theirs are. ``telemetry`` says whether a session's telemetry key may be of this kind: it signs COSE as ES256.
    """

    name: str
    key_type: KeyType
    size: int
    scheme: Scheme
    hash: HashAlgorithm
    telemetry: bool


# The table. A new row needs vectors and an ADR.
SIGNING_ALGORITHMS: Final = (
    SigningAlgorithm(
        "ecdsa-p256-sha256", KeyType.ECC, Curve.NIST_P256, Scheme.ECDSA, HashAlgorithm.SHA256, telemetry=True
    ),
    SigningAlgorithm(
        "ecdsa-p384-sha384", KeyType.ECC, Curve.NIST_P384, Scheme.ECDSA, HashAlgorithm.SHA384, telemetry=False
    ),
    SigningAlgorithm("rsassa-2048-sha256", KeyType.RSA, 2048, Scheme.RSASSA, HashAlgorithm.SHA256, telemetry=False),
    SigningAlgorithm("rsapss-2048-sha256", KeyType.RSA, 2048, Scheme.RSAPSS, HashAlgorithm.SHA256, telemetry=False),
)

# TCG EK Credential Profile v2.5 revision 2, annex B.3: PolicyA is PolicySecret(TPM_RH_ENDORSEMENT); PolicyB is
# PolicyOR of PolicyA and of a policy in an NV index of the owner's.
EK_POLICY_A_SHA256: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
EK_POLICY_B_SHA384: Final = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)

_HASHES: Final[dict[HashAlgorithm, Callable[[bytes], bytes]]] = {
    # SHA-1 banks are extended, never relied upon.
    HashAlgorithm.SHA1: lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    HashAlgorithm.SHA256: lambda data: hashlib.sha256(data).digest(),
    HashAlgorithm.SHA384: lambda data: hashlib.sha384(data).digest(),
    HashAlgorithm.SHA512: lambda data: hashlib.sha512(data).digest(),
}
_SIZES: Final = {
    HashAlgorithm.SHA1: 20,
    HashAlgorithm.SHA256: 32,
    HashAlgorithm.SHA384: 48,
    HashAlgorithm.SHA512: 64,
}


def digest_size(algorithm: HashAlgorithm) -> int:
    """Bytes of a digest of ``algorithm``."""
    return _SIZES[algorithm]


def digest(algorithm: HashAlgorithm, *parts: bytes) -> bytes:
    """The digest of the concatenated ``parts``.

    Concatenation is the TPM's way (PCR extension, policy digests, Names); our own bindings use
    :func:`weighbridge.proto.digest.D`.
    """
    return _HASHES[algorithm](b"".join(parts))
