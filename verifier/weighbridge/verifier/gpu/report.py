"""Proves what a GPU signed, and for which nonce.

The procedure of :func:`verify_report`; it stops at the first step that fails:

1. the expected nonce has exactly 32 bytes: an empty or short one is never compared;
2. nothing follows the signature;
3. ECDSA P-384 with SHA-384 over request and response (SPDM 1.1: DSP0274 1.1, MEASUREMENTS response, Signature) verifies
   under the chain's attestation key;
4. the nonce in the *signed* bytes [4:36] equals the expected one; no other copy of a nonce is looked at;
5. the firmware digest in the report equals the one in the certificate. A report or leaf without one is recorded as
   ``missing``, which is not ``matches``: policy decides;
6. the chip that the report names, where it names one, is the architecture that the certificates name.

Left to the caller: the chain (:mod:`.chain`), measurements against reference values, revocation, the mode of the
device. No signed field says that confidential mode is on.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NoReturn, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.spdm.report import SIGNATURE_SIZE
from weighbridge.verifier.gpu.nonces import check_length

if TYPE_CHECKING:
    from weighbridge.proto.spdm.report import Report
    from weighbridge.verifier.gpu.chain import VerifiedGpuChain

__all__ = ["FwidStatus", "VerifiedGpuReport", "verify_report"]

FwidStatus = Literal["matches", "missing"]
_CLAUSE: Final = "DSP0274 1.1, MEASUREMENTS response"
_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedGpuReport:
    """A report that this device signed over this nonce. Made by :func:`verify_report` only.

    Its measurements are authentic, not yet known to be the right ones. The seal guards against mistakes, not against
    hostile code in the same process.
    """

    seal: object
    report: Report
    chain: VerifiedGpuChain
    nonce: bytes
    fwid: FwidStatus

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
    def platform(self) -> str:
        """The anchor's platform."""
        return self.chain.platform

    @property
    def measurements_digest(self) -> bytes:
        """SHA-256 over the measurement record."""
        return self.report.measurements_digest

    @property
    def binding_row(self) -> list[bytes]:
        """This device's row of ``G_k``: :func:`weighbridge.proto.spdm.evidence.binding_rows`."""
        return [self.identity, sha256(self.report.raw), self.chain.chain_digest]


def verify_report(report: Report, chain: VerifiedGpuChain, *, nonce: bytes) -> VerifiedGpuReport:
    """``report``, now known to be signed by ``chain``'s device over ``nonce``: the module's procedure.

    Args:
        report: parsed, untrusted.
        chain: the verified chain that came with it.
        nonce: what the device was to sign, 32 bytes; the caller's, never the envelope's.

    Raises:
        MalformedEvidence: ``TRAILING_BYTES``.
        NotAuthentic: ``NONCE_LENGTH``, ``GPU_SIG``, ``GPU_NONCE``, ``GPU_FWID`` or ``GPU_ARCH``.
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
    # 3.
    _check_signature(report, chain)
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
    return VerifiedGpuReport(seal=_SEAL, report=report, chain=chain, nonce=nonce, fwid=status)


def _check_signature(report: Report, chain: VerifiedGpuChain) -> None:
    half = SIGNATURE_SIZE // 2
    r, s = int.from_bytes(report.signature[:half]), int.from_bytes(report.signature[half:])
    try:
        chain.key.verify(encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))
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
