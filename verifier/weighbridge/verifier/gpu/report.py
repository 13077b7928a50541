"""Proves what a GPU or switch signed, and for which nonce.

The procedure of :func:`verify_report`; it stops at the first step that fails:

1. the expected nonce has exactly 32 bytes: an empty or short one is never compared;
2. nothing follows the signature. Bytes there are signed by nobody, so that anybody can make another sending out of one
   report: evidence of a live window is bound and recorded by all its bytes and has exactly one form. In a recorded
   report (:func:`verify_recorded_report`) they do no harm, since no step reads them, and tools of other people leave
   one: there they are a finding;
3. ECDSA P-384 with SHA-384 over request and response (SPDM 1.1: DSP0274 1.1, MEASUREMENTS response, Signature) verifies
   under the chain's attestation key;
4. the nonce in the *signed* bytes [4:36] equals the expected one; no other copy of a nonce is looked at;
5. the firmware digest in the report equals the one in the certificate. A report or leaf without one is recorded as
   ``missing``, which is not ``matches``: policy decides;
6. the chip that the report names, where it names one, is the architecture that the certificates name;
7. the mode that a GPU's signed bytes name is one that is known here, and both fields that name it agree;
8. what a reader should know and what does not decide is collected as findings.

Left to the caller: the chain (:mod:`.chain`), measurements against reference values, revocation, whether the mode is
the one wanted, and where it is PPCIE the topology (:mod:`.topology`). No signed field says that
confidential mode is on.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeVar, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.proto.spdm.report import SIGNATURE_SIZE
from weighbridge.verifier.gpu.nonces import check_length
from weighbridge.verifier.side_by_side import at_once, finished

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.proto.spdm.report import Report
    from weighbridge.verifier.gpu.chain import Kind, VerifiedGpuChain
    from weighbridge.verifier.side_by_side import Steps

__all__ = [
    "Feature",
    "FwidStatus",
    "GpuFinding",
    "SignedMode",
    "VerifiedGpuReport",
    "verify_recorded_report",
    "verify_report",
]

FwidStatus = Literal["matches", "missing"]
Feature = Literal["spt", "mpt", "ppcie"]
# FEATURE_FLAG, u16: one GPU, several, or several behind switches whose links are not encrypted.
_FEATURES: Final[dict[bytes, Feature]] = {b"\0\0": "spt", b"\1\0": "mpt", b"\2\0": "ppcie"}
_PROTECTED_PCIE: Final = {b"\x55": False, b"\xaa": True}
_LOCKED: Final = b"\1\0"
_CLAUSE: Final = "DSP0274 1.1, MEASUREMENTS response"
_SEAL: Final = object()
_ALGORITHM: Final = ec.ECDSA(hashes.SHA384())
Known = TypeVar("Known")


@dataclass(frozen=True, slots=True)
class GpuFinding:
    """What a reader of a verified report should know; it refuses nothing by itself."""

    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class SignedMode:
    """The kind of confidential mode that a GPU's *signed* bytes name; that such a mode is on is in none of them.

    Attributes:
        protected_pcie: PROTECTED_PCIE_STATUS; ``None`` where the driver reports none.
        feature: FEATURE_FLAG; ``None`` where the driver reports none.
    """

    protected_pcie: bool | None
    feature: Feature | None

    @property
    def is_ppcie(self) -> bool:
        """Whether either field says that NVLink traffic is trusted to switches: then they must be attested too."""
        return bool(self.protected_pcie) or self.feature == "ppcie"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedGpuReport:
    """A report that this device signed over this nonce. Made by :func:`verify_report` only.

    Its measurements are authentic, not yet known to be the right ones. The seal guards against mistakes, not against
    hostile code in the same process.

    Attributes:
        report: what was signed, parsed.
        chain: whose key signed it.
        nonce: what it was signed over.
        fwid: whether report and certificate name the same firmware; ``missing`` is not ``matches``.
        mode: what the signed bytes say of the mode.
        findings: what decides nothing and should be known.
    """

    seal: object = field(repr=False)
    report: Report
    chain: VerifiedGpuChain
    nonce: bytes
    fwid: FwidStatus
    mode: SignedMode
    findings: tuple[GpuFinding, ...]

    def __post_init__(self) -> None:
        """Refuse to be built by anything but the verification."""
        if self.seal is not _SEAL:
            raise TypeError("a VerifiedGpuReport is made by verify_report")

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a verified object does not come back from bytes."""
        raise TypeError("a VerifiedGpuReport is made by verify_report")

    @property
    def identity(self) -> bytes:
        """The device: SHA-256 of its BROM certificate's SubjectPublicKeyInfo."""
        return self.chain.identity

    @property
    def kind(self) -> Kind:
        """``gpu`` or ``switch``, from the certificates."""
        return self.chain.kind

    @property
    def platform(self) -> str:
        """The anchor's platform."""
        return self.chain.platform

    @property
    def locked(self) -> bool | None:
        """Whether a switch says, in signed bytes, that its host cannot set it up anew; ``None`` of a GPU."""
        match self.kind:
            case "gpu":
                return None
            case "switch":
                return _is_locked(self.report)

    @property
    def measurements_digest(self) -> bytes:
        """SHA-256 over the measurement record."""
        return self.report.measurements_digest

    @property
    def binding_row(self) -> list[bytes]:
        """This device's row of ``G_k``: :func:`weighbridge.proto.spdm.evidence.binding_rows`."""
        return [self.identity, sha256(self.report.raw), self.chain.chain_digest]


def verifying_report(report: Report, chain: VerifiedGpuChain, *, nonce: bytes) -> Steps[VerifiedGpuReport]:
    """``report``, now known to be signed by ``chain``'s device over ``nonce``: the module's procedure.

    Args:
        report: parsed, untrusted.
        chain: the verified chain that came with it.
        nonce: what the device was to sign, 32 bytes; the caller's, never the envelope's.

    Raises:
        MalformedEvidence: ``TRAILING_BYTES``.
        NotAuthentic: ``NONCE_LENGTH``, ``GPU_SIG``, ``GPU_NONCE``, ``GPU_FWID``, ``GPU_ARCH`` or ``GPU_MODE``.
    """
    # 1.
    check_length(nonce)
    # 2.
    if report.trailing:
        raise MalformedEvidence(
            Code.TRAILING_BYTES,
            "unsigned bytes follow the signature",
            where=f"report[{len(report.signed) + SIGNATURE_SIZE}]",
            expected="nothing",
            got=report.trailing,
        )
    # 3. to 8.
    return (yield from _verifying(report, chain, nonce))


verify_report: Final = at_once(verifying_report)
"""The same at once."""


def verify_recorded_report(report: Report, chain: VerifiedGpuChain, *, nonce: bytes) -> VerifiedGpuReport:
    """As :func:`verify_report`, of a report from a file: bytes after the signature are dropped and a finding.

    Never for a live window: see step 2.

    Raises:
        NotAuthentic: as :func:`verify_report`.
    """
    check_length(nonce)
    if not report.trailing:
        return finished(_verifying(report, chain, nonce))
    size = len(report.trailing)
    message = f"{size} unsigned byte{'s' * (size > 1)} after the signature, which nothing here reads"
    verified = finished(_verifying(replace(report, trailing=b""), chain, nonce))
    return replace(verified, findings=(GpuFinding(Code.TRAILING_BYTES, message), *verified.findings))


def _verifying(report: Report, chain: VerifiedGpuChain, nonce: bytes) -> Steps[VerifiedGpuReport]:
    # 3.
    yield
    _check_signature(report, chain)
    yield
    # 4.
    if not hmac.compare_digest(report.nonce, nonce):
        raise NotAuthentic(
            Code.GPU_NONCE,
            "report was signed for another nonce",
            where="report[4..36]",
            expected=nonce,
            got=report.nonce,
        )
    # 5.
    status = _fwid_status(report.fwid, chain.fwid)
    # 6.
    if report.chip is not None and report.chip != chain.architecture:
        raise NotAuthentic(
            Code.GPU_ARCH,
            "report and certificates name different chips",
            where="report.opaque",
            expected=chain.architecture,
            got=report.chip,
        )
    # 7.
    mode = _mode(report, chain.kind)
    return VerifiedGpuReport(
        seal=_SEAL,
        report=report,
        chain=chain,
        nonce=nonce,
        fwid=status,
        mode=mode,
        # 8.
        findings=_findings(report, chain, status),
    )


def _check_signature(report: Report, chain: VerifiedGpuChain) -> None:
    half = SIGNATURE_SIZE // 2
    r, s = int.from_bytes(report.signature[:half]), int.from_bytes(report.signature[half:])
    try:
        chain.key.verify(encode_dss_signature(r, s), report.signed, _ALGORITHM)
    except InvalidSignature as error:
        start = len(report.signed)
        raise NotAuthentic(
            Code.GPU_SIG,
            "signature does not verify under the device's attestation key",
            where=f"report.signature[{start}..{start + SIGNATURE_SIZE}]",
            clause=_CLAUSE,
        ) from error


def _fwid_status(reported: bytes | None, certified: bytes | None) -> FwidStatus:
    if reported is None or certified is None:
        return "missing"
    if reported != certified:
        raise NotAuthentic(
            Code.GPU_FWID,
            "report and certificate name different firmware",
            where="report.opaque[FWID]",
            expected=certified,
            got=reported,
            clause="TCG DICE Attestation Architecture 1.1 §6.1",
        )
    return "matches"


def _mode(report: Report, kind: Kind) -> SignedMode:
    """What a GPU signed of its mode; a switch has none, whatever fields it fills in."""
    match kind:
        case "gpu":
            return _signed_mode(report)
        case "switch":
            return SignedMode(None, None)


def _signed_mode(report: Report) -> SignedMode:
    status, flag = report.opaque.get(OpaqueType.PROTECTED_PCIE_STATUS), report.opaque.get(OpaqueType.FEATURE_FLAG)
    protected = None if status is None else _known(_PROTECTED_PCIE, status, OpaqueType.PROTECTED_PCIE_STATUS)
    feature = None if flag is None else _known(_FEATURES, flag, OpaqueType.FEATURE_FLAG)
    if protected is not None and feature is not None and protected != (feature == "ppcie"):
        raise NotAuthentic(
            Code.GPU_MODE,
            "the report's two statements of its mode contradict each other",
            where="report.opaque",
            got=f"PROTECTED_PCIE_STATUS {'on' if protected else 'off'}, FEATURE_FLAG {feature}",
        )
    return SignedMode(protected, feature)


def _is_locked(report: Report) -> bool:
    return report.opaque.get(OpaqueType.LOCK_SWITCH_STATUS) == _LOCKED


def _known(table: Mapping[bytes, Known], value: bytes, field: OpaqueType) -> Known:
    """A mode that nobody here knows is not taken for one that asks less."""
    if value not in table:
        raise NotAuthentic(
            Code.GPU_MODE,
            "mode is not known here",
            where=f"report.opaque[{field.name}]",
            expected=" or ".join(known.hex() for known in table),
            got=value,
        )
    return table[value]


def _findings(report: Report, chain: VerifiedGpuChain, fwid: FwidStatus) -> tuple[GpuFinding, ...]:
    findings: list[GpuFinding] = []
    match fwid:
        case "matches":
            pass
        case "missing":
            # An LS_10 never reports one; a GPU's driver of 2023 did not.
            silent = "report" if report.fwid is None else "certificate"
            findings.append(GpuFinding(Code.GPU_FWID, f"the {silent} names no firmware digest to compare"))
    match chain.kind:
        case "gpu":
            if report.chip is None:
                findings.append(GpuFinding(Code.GPU_ARCH, "the report names no chip; its certificates do"))
        case "switch":
            if not _is_locked(report):
                findings.append(GpuFinding(Code.GPU_MODE, "the switch does not say that it is locked"))
    unknown = [field.name for field in report.opaque.fields if not field.is_named]
    if unknown:
        findings.append(GpuFinding(Code.FIELD_UNKNOWN, f"opaque entries without a name here: {', '.join(unknown)}"))
    return tuple(findings)
