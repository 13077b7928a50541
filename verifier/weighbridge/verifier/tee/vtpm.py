"""Verifies that hardware vouches for a virtual TPM's attestation key: Azure's confidential virtual machines.

The paravisor, first code of the guest and measured by the hardware, runs the TPM in memory that the host cannot read.
It puts the public keys of that TPM into claims, and the claims' hash into the hardware's report.

**Not proven**: that this paravisor keeps the key and does not share it. That follows from its code, which the report's
measurement names, and nobody but its maker publishes which measurements are good. Nor does the report state the key's
attributes: that it is restricted is shown by the TPM's own quotes, as far as the paravisor is believed.

The procedure of :func:`verify_vtpm`:

1. The report is one of the paravisor's (:mod:`weighbridge.proto.tee.hcl`), and comes with what its kind needs: three
   certificates for SEV-SNP, a TD quote for TDX.
2. The hardware report verifies: :mod:`weighbridge.verifier.tee.snp` or :mod:`weighbridge.verifier.tee.tdx`.
3. Its report data are SHA-256 of the claims and 32 zero bytes.

Left to the caller: that a quote verifies under this very key, and that it is fresh. The hardware report itself is of
the time when the machine started; it is the key that answers challenges.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tee import hcl
from weighbridge.verifier.tee.snp import verify_snp
from weighbridge.verifier.tee.tdx import verify_td_quote

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.collateral import Collateral
    from weighbridge.proto.endorsement import VtpmReportEndorsement
    from weighbridge.proto.tee.hcl import HclReport, VmConfiguration
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.tee.model import VerifiedTee

__all__ = ["VerifiedVtpm", "verify_vtpm"]

_SEAL: Final = object()
_UNPROVEN: Final = (
    "the CPU proves a confidential virtual machine whose first code says that the AK is in its TPM; that this code, "
    "known by its measurement, keeps the key rests on its maker's word"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedVtpm:
    """A virtual TPM's attestation key for which hardware vouches. Made by :func:`verify_vtpm` alone.

    ``ak_spki`` is SubjectPublicKeyInfo in DER, ``configuration`` what the paravisor says of its guest, ``unproven``
    what does not follow, in words to be printed with every verdict. The seal is a guard against mistakes, not against
    hostile code.
    """

    ak_spki: bytes
    tee: VerifiedTee
    configuration: VmConfiguration
    unproven: str
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedVtpm is made by verify_vtpm only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedVtpm cannot be pickled")


def verify_vtpm(
    endorsement: VtpmReportEndorsement, *, collateral: Collateral, anchors: TrustAnchors, at: datetime
) -> VerifiedVtpm:
    """The attestation key that ``endorsement`` names, by the procedure in the module's docstring.

    Args:
        endorsement: untrusted.
        collateral: untrusted; its revocation lists serve SEV-SNP, its ``dcap`` pieces TDX.
        anchors: those for ``amd-ark`` or ``intel-sgx-root`` are looked at.
        at: aware; validity is judged at this time.

    Raises:
        MalformedEvidence: ``HCL_REPORT``, ``EVIDENCE_ABSENT``, ``EVIDENCE_UNEXPECTED``, or a code of the hardware's.
        NotAuthentic: ``HCL_BINDING``, or a code of :func:`~weighbridge.verifier.tee.snp.verify_snp` or
            :func:`~weighbridge.verifier.tee.tdx.verify_td_quote`.
        Indeterminate: what that raises for collateral that is absent or out of date.
        EnvironmentFault: ``TOOL_MISSING``, for a TD quote where the library that judges it is not installed.
        ValueError: ``at`` is naive.
    """
    # 1.
    report = hcl.parse(endorsement.report)
    # 2.
    tee = _verify_hardware(report, endorsement, collateral=collateral, anchors=anchors, at=at)
    # 3.
    expected = sha256(report.claims) + bytes(32)
    if not hmac.compare_digest(tee.report_data, expected):
        raise NotAuthentic(
            Code.HCL_BINDING,
            "the paravisor's claims are not those that the hardware signed",
            where="hcl.claims",
            expected=tee.report_data,
            got=expected,
            clause="Azure HCL report",
            hint="Read report and quote again, both of this virtual machine.",
        )
    return VerifiedVtpm(
        ak_spki=report.ak_spki, tee=tee, configuration=report.configuration, unproven=_UNPROVEN, seal=_SEAL
    )


def _verify_hardware(
    report: HclReport,
    endorsement: VtpmReportEndorsement,
    *,
    collateral: Collateral,
    anchors: TrustAnchors,
    at: datetime,
) -> VerifiedTee:
    if report.kind == "sev-snp":
        if endorsement.quote is not None:
            raise MalformedEvidence(
                Code.EVIDENCE_UNEXPECTED,
                "a TD quote beside a SEV-SNP report",
                where="endorsement.quote",
                hint="Send the processor's certificates instead (run --platform-certificates), and no TD quote.",
            )
        return verify_snp(
            report.hardware_report,
            endorsement.certificates,
            crls=collateral.of_kind("crl"),
            anchors=anchors,
            at=at,
        )
    if endorsement.quote is None:
        raise MalformedEvidence(
            Code.EVIDENCE_ABSENT,
            "a TD report without the quote that others can verify",
            where="endorsement.quote",
            hint="Have the platform turn the TD report into a quote (run --td-quote), and send both.",
        )
    if endorsement.certificates:
        raise MalformedEvidence(
            Code.EVIDENCE_UNEXPECTED,
            "certificates beside a TD quote, which has its own",
            where="endorsement.certificates",
        )
    return verify_td_quote(endorsement.quote, collateral=collateral.of_kind("dcap"), anchors=anchors, at=at)
