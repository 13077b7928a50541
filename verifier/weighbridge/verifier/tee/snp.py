"""Verifies an AMD SEV-SNP report: that a chip of AMD's, with known firmware, signed for a confidential guest.

**Not proven**: what :mod:`weighbridge.verifier.tee.model` says of every such report; and who may start guests with this
measurement: identity and author keys of the launch, family, image and host data are not looked at.

The procedure of :func:`verify_snp` (AMD 56860 rev. 1.58 §7.3; AMD 57230 rev. 1.00):

1. The report is of a version that is read, and what must be zero is zero.
2. The chip's own key signed it (VCEK). A key that a cloud loads into its chips (VLEK) names no chip, so that nothing
   tells one machine of that cloud from another: refused, until something needs it.
3. That key chains to an anchor for ``amd-ark`` (:mod:`weighbridge.verifier.tee.amd_chain`), and nothing in between is
   on a list of revoked certificates. Without a list the result says ``absent``; whether that is enough is the policy's
   to say.
4. The signature, ECDSA P-384 with SHA-384, verifies over the report's first 672 bytes.
5. The report is of the certificate's chip: CHIP_ID is the certificate's hwID and not hidden; family and model, where
   the report states them, are the certificate's product.
6. The TCB for which the key was derived is the certificate's, byte for byte. It is no greater than the committed TCB,
   and that no greater than the current one: the host chooses what is reported, and what is not committed it can roll
   back. The TCB at launch is not compared: it may be of firmware that was never committed. Which versions are new
   enough is the policy's to say.
7. The guest's policy forbids debugging and migration agents: either gives the guest's memory to others. Where it
   forbids hyper-threads, the platform has none: firmware that started such a guest elsewhere cannot be believed.
8. The guest asked at VMPL 0. Who may ask there is the guest's first code, which the measurement covers.

Left to the caller: what the report data mean, which measurements are good, products and TCBs that are broken
(A39 in ``SPEC_COVERAGE.md``), hyper-threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.tee import snp
from weighbridge.proto.tee.snp import GuestPolicy, SigningKey, SnpReport, Tcb
from weighbridge.verifier.tee.amd_chain import verify_amd_chain
from weighbridge.verifier.tee.model import SEAL, VerifiedTee

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto.tee.chip_certificate import ChipCertificate
    from weighbridge.verifier.anchors import TrustAnchors

__all__ = ["CPUS", "verify_snp"]

_CLAUSE: Final = "AMD 56860 rev. 1.58 §7.3"
# Families and models as CPUID combines them (AMD 57230 rev. 1.00 §2), by the name that the keys of a product bear.
CPUS: Final[dict[str, tuple[int, tuple[range, ...]]]] = {
    "Milan": (0x19, (range(0x10),)),
    "Genoa": (0x19, (range(0x10, 0x20), range(0xA0, 0xB0))),
    "Turin": (0x1A, (range(0x12),)),
}


def verify_snp(
    report: bytes, certificates: Sequence[bytes], *, crls: Sequence[bytes], anchors: TrustAnchors, at: datetime
) -> VerifiedTee:
    """What the report in ``report`` proves, by the procedure in the module's docstring.

    Args:
        report: 1184 bytes, untrusted.
        certificates: VCEK, ASK, ARK in DER; untrusted.
        crls: revocation lists in DER, of any authority; untrusted.
        anchors: those for ``amd-ark`` are looked at.
        at: aware; validity is judged at this time.

    Raises:
        MalformedEvidence: ``SNP_REPORT``, or a code of :func:`~weighbridge.verifier.tee.amd_chain.verify_amd_chain`.
        NotAuthentic: ``SNP_SIG``, ``SNP_CHIP``, ``SNP_TCB``, ``SNP_POLICY``, ``SNP_VMPL``, or a code of that.
        ValueError: ``at`` is naive.
    """
    # 1.
    parsed = snp.parse(report)
    # 2.
    _check_signing_key(parsed)
    # 3.
    chip = verify_amd_chain(certificates, crls=crls, anchors=anchors, at=at)
    # 4.
    _check_signature(parsed, chip.certificate.key)
    # 5.
    _check_chip(parsed, chip.certificate)
    # 6.
    _check_tcb(parsed, chip.certificate.tcb)
    # 7.
    _check_policy(parsed)
    # 8.
    if parsed.vmpl != 0:
        raise NotAuthentic(
            Code.SNP_VMPL,
            "report was not asked for at the highest privilege level",
            where="snp.report.vmpl",
            expected=0,
            got=parsed.vmpl,
            clause=_CLAUSE,
            hint="Ask for the report at VMPL 0; on Azure the paravisor does.",
        )
    return VerifiedTee(
        kind="sev-snp",
        anchor=chip.anchor,
        not_after=chip.not_after,
        report_data=parsed.report_data,
        measurement=parsed.measurement,
        product=chip.certificate.product,
        tcb=str(chip.certificate.tcb),
        tcb_status="matches",
        advisories=(),
        revocation=chip.revocation,
        smt=parsed.smt,
        alias_check=parsed.alias_check,
        vmpl=parsed.vmpl,
        seal=SEAL,
    )


def _check_signing_key(report: SnpReport) -> None:
    if report.signing_key is SigningKey.VLEK:
        raise NotAuthentic(
            Code.SNP_CHIP,
            "signed by a key that a cloud loads into its chips, which names none of them",
            where="snp.report.signing_key",
            expected=SigningKey.VCEK.name,
            got=report.signing_key.name,
            clause=_CLAUSE,
            hint="Ask for a report that is signed by the VCEK.",
        )
    if report.signing_key is SigningKey.NONE or report.chip_key_masked:
        raise NotAuthentic(
            Code.SNP_SIG,
            "the host keeps the chip's key from signing",
            where="snp.report.signing_key",
            expected=SigningKey.VCEK.name,
            got=report.signing_key.name,
            clause=_CLAUSE,
            hint="MASK_CHIP_KEY must be off: ask who operates the host.",
        )


def _check_signature(report: SnpReport, key: ec.EllipticCurvePublicKey) -> None:
    signature = encode_dss_signature(report.r, report.s)
    try:
        key.verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise NotAuthentic(
            Code.SNP_SIG,
            "signature does not verify under the chip's key",
            where="snp.report[0x2a0..]",
            clause=_CLAUSE,
            hint="Is the certificate that of this chip and of the TCB that the report states?",
        ) from error


def _check_chip(report: SnpReport, chip: ChipCertificate) -> None:
    if not any(report.chip_id):
        raise NotAuthentic(
            Code.SNP_CHIP,
            "the host hides which chip it is",
            where="snp.report.chip_id",
            clause=_CLAUSE,
            hint="MASK_CHIP_ID must be off: ask who operates the host.",
        )
    if report.chip_id != chip.chip_id:
        raise NotAuthentic(
            Code.SNP_CHIP,
            "report is of another chip than the certificate",
            where="snp.report.chip_id",
            expected=chip.chip_id,
            got=report.chip_id,
            clause=_CLAUSE,
        )
    if report.cpu is None:
        return
    family, models = CPUS[chip.line]
    if report.cpu[0] != family or not any(report.cpu[1] in some for some in models):
        raise NotAuthentic(
            Code.SNP_CHIP,
            "report is of another product than the certificate",
            where="snp.report.cpuid",
            expected=chip.product,
            got=f"family {report.cpu[0]:#x}, model {report.cpu[1]:#x}",
            clause=_CLAUSE,
        )


def _check_tcb(report: SnpReport, certified: Tcb) -> None:
    if report.reported_tcb != certified.raw:
        raise NotAuthentic(
            Code.SNP_TCB,
            "report states another TCB than the certificate",
            where="snp.report.reported_tcb",
            expected=certified,
            got=Tcb(certified.layout, report.reported_tcb),
            clause="AMD 57230 rev. 1.00 §3.1",
            hint="Fetch the certificate for the TCB that the report states.",
        )
    committed = Tcb(certified.layout, report.committed_tcb)
    current = Tcb(certified.layout, report.current_tcb)
    for name, lower, upper in (("reported", certified, committed), ("committed", committed, current)):
        if not lower.at_most(upper):
            raise NotAuthentic(
                Code.SNP_TCB,
                f"{name} TCB is greater than it can be",
                where=f"snp.report.{name}_tcb",
                expected=f"<= {upper}",
                got=lower,
                clause="AMD 56860 rev. 1.58 §3.3",
            )


def _check_policy(report: SnpReport) -> None:
    policy = report.policy
    if report.smt and not policy & GuestPolicy.SMT:
        raise NotAuthentic(
            Code.SNP_POLICY,
            "hyper-threads are on, and the guest's policy forbids them",
            where="snp.report.platform_info",
            got=f"{policy.value:#x}",
            clause="AMD 56860 rev. 1.58 §4.3",
            hint="No firmware of AMD's starts such a guest: ask who operates the host.",
        )
    for flag, what in (
        (GuestPolicy.DEBUG, "the host may debug the guest"),
        (GuestPolicy.MIGRATE_MA, "a migration agent may move the guest"),
    ):
        if policy & flag:
            raise NotAuthentic(
                Code.SNP_POLICY,
                what,
                where="snp.report.policy",
                got=f"{policy.value:#x}",
                clause="AMD 56860 rev. 1.58 §4.3",
                hint="Start the virtual machine again with a policy that forbids it.",
            )
