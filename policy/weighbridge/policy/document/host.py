"""What the document says of the host: its TPM, the confidential machine around it, what booted and what ran."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

__all__ = ["AttesterCode", "BootDifference", "BootPcr", "MeasuredFile", "Platform", "Proof", "Runtime", "Tee"]

Proof = Literal["unproven", "proven"]


@dataclass(frozen=True, slots=True)
class BootPcr:
    """One boot register of the TPM, as quoted."""

    index: Annotated[int, "the register's number, 0 to 23"]
    sha256: Annotated[str, "its value in the SHA-256 bank, 64 hexadecimal digits"]


@dataclass(frozen=True, slots=True)
class BootDifference:
    """One boot register that is not as the nearest host set accepts it."""

    index: Annotated[int, "the register's number"]
    expected: Annotated[tuple[str, ...], "the values that the host set accepts, hexadecimal"]
    got: Annotated[str | None, "the value as quoted, hexadecimal; null where it is not quoted"]


@dataclass(frozen=True, slots=True)
class Tee:
    """What a verified hardware report says of the confidential machine in which the TPM stands.

    The members are those of :class:`weighbridge.verifier.tee.model.VerifiedTee`.
    """

    kind: Annotated[Literal["none", "sev-snp", "tdx"], "whose report it is; none where there is no report"] = "none"
    product: Annotated[str, "the processor generation, such as Genoa; empty for tdx and without a report"] = ""
    tcb: Annotated[str, "security version numbers of the firmware, as the certificates confirm them"] = ""
    tcb_status: Annotated[
        str, "what the vendor says of these versions: Intel's word for tdx, such as UpToDate; matches for sev-snp"
    ] = ""
    advisories: Annotated[tuple[str, ...], "the vendor's advisories that apply; none for sev-snp"] = ()
    revocation: Annotated[
        Literal["good", "absent", "stale"],
        "of the report's certificates: good by a current list; absent or stale where there is no such list",
    ] = "absent"
    smt: Annotated[bool | None, "whether hyper-threads are on; null where the report does not say"] = None
    alias_check: Annotated[
        Literal["complete", "incomplete", "unknown"],
        "whether firmware found memory free of aliases since the last reset (BadRAM); unknown where it does not say",
    ] = "unknown"
    vmpl: Annotated[int | None, "the privilege level that asked, 0 the highest; null where there are none"] = None
    measurement: Annotated[
        str, "of the machine's first code, 96 hexadecimal digits: SEV-SNP's launch digest, TDX's MRTD; empty without"
    ] = ""


@dataclass(frozen=True, slots=True)
class Platform:
    """The TPM and the machine that it stands in.

    An EK certificate, a cloud's word or a pin is proof of a TPM, not of the guest beside the GPU: ``host_binding`` is
    proven only where hardware says that the AK is the guest's own.
    """

    kind: Annotated[
        Literal["tpm-ek-credential", "tpm-ak-certificate", "tpm-vtpm-report", "tpm-pinned-ak"],
        "why the attestation key is believed: its maker's certificate of the TPM, a cloud's certificate of the key, a "
        "hardware report of the confidential machine, or a pin",
    ]
    name: Annotated[
        str, "what vouches for it, such as tpm, google-vtpm, amd-sev-snp, intel-tdx; insecure-emulated is software"
    ]
    ak: Annotated[str, "the attestation key: SHA-256 of its SubjectPublicKeyInfo, 64 hexadecimal digits"]
    anchor: Annotated[str, "the name of the trust anchor under which it is believed"]
    boot_pcrs: Annotated[tuple[BootPcr, ...], "the boot registers that the terms demand, as quoted"]
    firmware: Annotated[str | None, "the TPM's firmware version as quoted, 0x and 16 hexadecimal digits"]
    secure_boot: Annotated[Proof, "whether it is shown that firmware started signed images only"] = "unproven"
    kernel_lockdown: Annotated[Proof, "whether it is shown that root cannot change the running kernel"] = "unproven"
    host_binding: Annotated[
        Proof,
        "whether hardware says that the attestation key is the guest's own, by certificates known not to be revoked, "
        "and the code that keeps the key is a reference value",
    ] = "unproven"
    detail: Annotated[str, "what the endorsement says beyond the key, for people; empty if nothing"] = ""
    state_held_by: Annotated[
        Literal["tpm", "guest", "host", "unknown"], "who could copy back an older state of the TPM"
    ] = "unknown"
    clock_safe: Annotated[bool, "whether the TPM's clock cannot have shown greater values before this boot"] = True
    boot_reference: Annotated[
        Literal["match", "mismatch", "absent"], "the boot registers compared with signed host sets; absent without one"
    ] = "absent"
    host: Annotated[str | None, "the host set that matches or comes nearest; null without one"] = None
    differences: Annotated[tuple[BootDifference, ...], "registers that differ from that host set"] = ()
    tee: Annotated[Tee, "the confidential machine in which the TPM stands"] = dataclasses.field(default_factory=Tee)


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """A file that the kernel measured when it was used."""

    digest: Annotated[str, "algorithm:hexadecimal, such as sha256:…"]
    path: Annotated[str, "where it was; only a hint, at most 256 characters"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """The kernel's list of measured files, as far as the session demands it."""

    present: Annotated[bool, "whether the session demands the list; all else here is empty if not"] = False
    entries: Annotated[int, "how many entries the list has"] = 0
    violations: Annotated[int, "how many entries of which the kernel could not say what they measured"] = 0
    unknown: Annotated[int, "how many files no host set names"] = 0
    examples: Annotated[tuple[MeasuredFile, ...], "the first 16 of the unknown files"] = ()


@dataclass(frozen=True, slots=True)
class AttesterCode:
    """Whether it is shown which code measured and sampled. If not, loads, counts and telemetry are the host's word."""

    status: Annotated[Proof, "proven when all of docs/attester-code.md is shown"] = "unproven"
    missing: Annotated[tuple[str, ...], "what would have to be shown, by the keys of docs/attester-code.md"] = ()
