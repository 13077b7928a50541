"""ATTESTATION_REPORT: what AMD's secure processor signs of an SEV-SNP guest.

Layout and names are those of AMD publication 56860, "SEV Secure Nested Paging Firmware ABI Specification", revision
1.58, §7.3, table "ATTESTATION_REPORT"; everything is little-endian. Versions 2, 3 and 5 are read; what a version
declares reserved must be zero, and any other version is refused by absence. Not read, since nothing rests on it:
family and image, host data, identity and author keys, report numbers, firmware build, mitigation vectors.

Parsing proves nothing: the signature over :attr:`SnpReport.signed` has to be checked first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["REPORT_SIZE", "GuestPolicy", "PlatformInfo", "SigningKey", "SnpReport", "Tcb", "TcbLayout", "parse"]

REPORT_SIZE: Final = 1184
_SIGNED: Final = 0x2A0
_CLAUSE: Final = "AMD 56860 rev. 1.58 §7.3"
_VERSIONS: Final = (2, 3, 5)
_ECDSA_P384_SHA384: Final = 1
_COMPONENT: Final = 72
# Version 3 names the processor; before, these three bytes were reserved.
_WITH_CPU: Final = 3
_WITH_MITIGATIONS: Final = 5
# Fields reserved in every version that is read: between flags and report data, between the two firmware versions and
# after them, and what follows the signature's two numbers.
_RESERVED: Final = ((0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, 0x2A0), (0x330, 0x4A0))
_KEY_FLAGS: Final = 0b11111
_MASK_CHIP_KEY: Final = 0b10


class GuestPolicy(IntFlag):
    """POLICY (§4.3): what the host may do to the guest. Bit 17 is always one; bits from 26 on must be zero.

    Bits 0 to 15 are the lowest version of the firmware's interface that the guest accepts.
    """

    SMT = 1 << 16
    RESERVED_ONE = 1 << 17
    MIGRATE_MA = 1 << 18
    DEBUG = 1 << 19
    SINGLE_SOCKET = 1 << 20
    CXL_ALLOW = 1 << 21
    MEM_AES_256_XTS = 1 << 22
    RAPL_DIS = 1 << 23
    CIPHERTEXT_HIDING_DRAM = 1 << 24
    PAGE_SWAP_DISABLE = 1 << 25


_POLICY_BITS: Final = sum(flag.value for flag in GuestPolicy) | 0xFFFF


class PlatformInfo(IntFlag):
    """PLATFORM_INFO: how the machine is set up. Bits not named here occur, and are left alone: they permit nothing."""

    SMT_EN = 1 << 0
    TSME_EN = 1 << 1
    ECC_EN = 1 << 2
    RAPL_DIS = 1 << 3
    CIPHERTEXT_HIDING_DRAM_EN = 1 << 4
    ALIAS_CHECK_COMPLETE = 1 << 5


class SigningKey(IntEnum):
    """SIGNING_KEY: whose key signed. The chip's own, one that a cloud loads into its chips, or none."""

    VCEK = 0
    VLEK = 1
    NONE = 7


class TcbLayout(IntEnum):
    """Which byte of a TCB_VERSION is what (§2.2), numbered as ``structVersion`` of AMD 57230 numbers it.

    ``MILAN`` holds for Milan and Genoa with its kin, ``TURIN`` for family 1Ah.
    """

    MILAN = 0
    TURIN = 1


_COMPONENTS: Final[dict[TcbLayout, dict[str, int]]] = {
    TcbLayout.MILAN: {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    TcbLayout.TURIN: {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7},
}


@dataclass(frozen=True, slots=True)
class Tcb:
    """A TCB_VERSION: eight bytes, security version numbers of the parts of the firmware."""

    layout: TcbLayout
    raw: bytes

    def components(self) -> dict[str, int]:
        """The numbers by name, in the order of the bytes."""
        return {name: self.raw[place] for name, place in _COMPONENTS[self.layout].items()}

    def at_most(self, other: Tcb) -> bool:
        """Whether no number is greater than that of ``other``, which has the same layout."""
        above = other.components()
        return all(number <= above[name] for name, number in self.components().items())

    def __str__(self) -> str:
        return " ".join(f"{name}={number}" for name, number in self.components().items())


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpReport:
    """A well-formed report. Says nothing of truth: neither the signature nor any value is checked.

    Attributes:
        signed: what the signature covers, 672 bytes.
        version: 2, 3 or 5.
        policy: see :class:`GuestPolicy`.
        vmpl: the privilege level that asked; 0 is the highest. The host asks with all bits set.
        signing_key: whose key signed.
        chip_key_masked: whether the host forbade signing with the chip's own key.
        platform: see :class:`PlatformInfo`.
        report_data: 64 bytes that the guest chose.
        measurement: the launch digest, 48 bytes.
        current_tcb: of the firmware that runs. What its bytes mean depends on the processor.
        committed_tcb: below which the firmware cannot be rolled back.
        reported_tcb: for which the signing key was derived; the host chooses it.
        cpu: family and model as CPUID combines them; ``None`` in version 2, which does not say.
        chip_id: 64 bytes; all zero where the host hides it.
        r: first number of the ECDSA signature.
        s: second number of it.
    """

    signed: bytes
    version: int
    policy: GuestPolicy
    vmpl: int
    signing_key: SigningKey
    chip_key_masked: bool
    platform: PlatformInfo
    report_data: bytes
    measurement: bytes
    current_tcb: bytes
    committed_tcb: bytes
    reported_tcb: bytes
    cpu: tuple[int, int] | None
    chip_id: bytes
    r: int
    s: int

    @property
    def smt(self) -> bool:
        """Whether hyper-threads are on."""
        return bool(self.platform & PlatformInfo.SMT_EN)

    @property
    def alias_check(self) -> bool | None:
        """Whether memory was checked for aliases since the last reset; version 2 has no word for it."""
        return None if self.version < _WITH_CPU else bool(self.platform & PlatformInfo.ALIAS_CHECK_COMPLETE)


def parse(data: bytes) -> SnpReport:
    """Parse an attestation report.

    Args:
        data: untrusted; exactly 1184 bytes.

    Raises:
        MalformedEvidence: ``SNP_REPORT`` for another size, version or algorithm, or for a reserved field that is not
            as it must be.
    """
    if len(data) != REPORT_SIZE:
        raise _malformed("wrong size", "", expected=f"{REPORT_SIZE} bytes", got=f"{len(data)} bytes")
    version = _number(data, 0x00, 4)
    if version not in _VERSIONS:
        raise _malformed(
            "version is not read", "[0]", expected=", ".join(str(known) for known in _VERSIONS), got=str(version)
        )
    _check_reserved(data, version)
    algorithm = _number(data, 0x34, 4)
    if algorithm != _ECDSA_P384_SHA384:
        raise _malformed("signature is not ECDSA P-384 with SHA-384", "[0x34]", got=str(algorithm))
    key_flags = _number(data, 0x48, 4)
    if key_flags & ~_KEY_FLAGS:
        raise _malformed("reserved bits are set", "[0x48]", got=f"{key_flags:#x}")
    return SnpReport(
        signed=data[:_SIGNED],
        version=version,
        policy=_policy(_number(data, 0x08, 8)),
        vmpl=_number(data, 0x30, 4),
        signing_key=_signing_key(key_flags >> 2),
        chip_key_masked=bool(key_flags & _MASK_CHIP_KEY),
        platform=PlatformInfo(_number(data, 0x40, 8)),
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        current_tcb=data[0x38:0x40],
        committed_tcb=data[0x1E0:0x1E8],
        reported_tcb=data[0x180:0x188],
        cpu=(data[0x188], data[0x189]) if version >= _WITH_CPU else None,
        chip_id=data[0x1A0:0x1E0],
        r=_number(data, _SIGNED, _COMPONENT),
        s=_number(data, _SIGNED + _COMPONENT, _COMPONENT),
    )


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


def _check_reserved(data: bytes, version: int) -> None:
    older = () if version >= _WITH_CPU else ((0x188, 0x18B),)
    unmitigated = () if version >= _WITH_MITIGATIONS else ((0x1F8, 0x208),)
    for start, end in (*_RESERVED, *older, *unmitigated):
        if any(data[start:end]):
            raise _malformed("reserved field is not zero", f"[{start:#x}..{end:#x}]", got=data[start:end].hex())


def _policy(value: int) -> GuestPolicy:
    if value & ~_POLICY_BITS or not value & GuestPolicy.RESERVED_ONE:
        raise _malformed("policy has reserved bits that are not as they must be", "[0x8]", got=f"{value:#x}")
    return GuestPolicy(value)


def _signing_key(value: int) -> SigningKey:
    if value not in frozenset(SigningKey):
        raise _malformed("signing key is none of those that there are", "[0x48]", got=str(value))
    return SigningKey(value)


def _malformed(message: str, place: str, *, expected: str | None = None, got: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.SNP_REPORT,
        message,
        where=f"snp.report{place}",
        expected=expected,
        got=got,
        clause=_CLAUSE,
        hint="Is it the whole report, as the hardware gave it? A newer version of the format needs a newer verifier.",
    )
