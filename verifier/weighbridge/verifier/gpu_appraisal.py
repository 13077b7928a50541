"""Compares an enrolled device with what its maker and the relying party say of it. Decides nothing: policy does.

Of measurements two know what is right: the maker, by its manifests (:mod:`.gpu.rim`), and the relying party, by digests
among its reference values. Where both speak they must agree. Where a manifest is missing the relying party's word
counts alone; without either it is not known (``absent``), and no default takes that for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.policy import document
from weighbridge.policy.values.gpu_versions import at_least
from weighbridge.proto import strict
from weighbridge.proto.cc_state import ENVIRONMENT_PRODUCTION
from weighbridge.proto.errors import Code

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.cc_state import CcState
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.gpu.rim.compare import Measured, Mismatch
    from weighbridge.verifier.gpu.rim.verify import VerifiedRim
    from weighbridge.verifier.published import Published

__all__ = ["GpuAppraisal", "appraise_gpu", "appraise_gpus"]

# A wrong driver differs in some thirty: as many as help, and no more.
_DIFFERENCES_MAX: Final = 8
_Compared = Literal["match", "mismatch", "absent"]


@dataclass(frozen=True, slots=True)
class GpuAppraisal:
    """One device as policies see it, and what was noticed beside it."""

    gpu: document.Gpu
    findings: tuple[document.Finding, ...]


def appraise_gpus(
    devices: Sequence[VerifiedGpuReport],
    *,
    published: Published,
    reference: Reference,
    cc_state: CcState | None,
    reported: bool,
    at: datetime,
) -> tuple[GpuAppraisal, ...]:
    """Each of ``devices``, in their order.

    Args:
        devices: the latest report of each, verified.
        published: what makers publish, as far as it is at hand.
        reference: the relying party's values.
        cc_state: what the host's driver says, in the window's signed header.
        reported: whether the reports are of this window.
        at: the verifier's receipt time.
    """
    return tuple(
        appraise_gpu(device, published=published, reference=reference, cc_state=cc_state, reported=reported, at=at)
        for device in devices
    )


def appraise_gpu(
    device: VerifiedGpuReport,
    *,
    published: Published,
    reference: Reference,
    cc_state: CcState | None,
    reported: bool,
    at: datetime,
) -> GpuAppraisal:
    """As :func:`appraise_gpus`, of one."""
    report, architecture = device.report, device.chain.architecture
    measured, revocation = published.measured(device, at=at), published.revocation(device, at=at)
    digest = report.measurements_digest.hex()
    accepted = reference.gpu_measurements.get(f"{architecture}/{report.driver_version}/{report.vbios_version}")
    own: _Compared = "absent" if accepted is None else "match" if digest in accepted else "mismatch"
    gpu = document.Gpu(
        identity=device.identity.hex(),
        platform=device.platform,
        architecture=architecture,
        driver=report.driver_version,
        vbios=report.vbios_version,
        measurements_digest=digest,
        fwid=device.fwid,
        reference=_together(measured.status, own),
        revocation=revocation.status,
        cc_mode_host_claim=_claim(cc_state),
        reported_in_window=reported,
        kind=device.kind,
        model=device.chain.model,
        reference_by=_by(measured.status, own),
        manifests=_manifests(measured, published, at),
        missing=measured.missing,
        mismatches=len(measured.mismatches),
        differences=tuple(_difference(item) for item in measured.mismatches[:_DIFFERENCES_MAX]),
        conflicts=measured.conflicts,
        uncovered=measured.uncovered,
        revocation_detail=revocation.detail,
        minimum=_minimum(device, reference),
        signed_protected_pcie=device.mode.protected_pcie,
        signed_feature=device.mode.feature,
        signed_locked=device.locked,
    )
    return GpuAppraisal(gpu, tuple(_findings(device, measured, cc_state)))


def _together(*words: _Compared) -> _Compared:
    """A mismatch by anyone's word is one; a match is one by somebody's word that nobody contradicts."""
    if "mismatch" in words:
        return "mismatch"
    return "match" if "match" in words else "absent"


def _by(makers: _Compared, own: _Compared) -> Literal["none", "manifests", "relying-party", "both"]:
    match makers, own:
        case "absent", "absent":
            return "none"
        case "absent", _:
            return "relying-party"
        case _, "absent":
            return "manifests"
        case _:
            return "both"


def _claim(cc_state: CcState | None) -> Literal["on", "off", "devtools"] | None:
    if cc_state is None:
        return None
    if cc_state.dev_tools:
        return "devtools"
    return cc_state.feature


def _minimum(device: VerifiedGpuReport, reference: Reference) -> Literal["none", "met", "below", "unknown"]:
    """The worst of what is demanded of this architecture; a switch has no driver."""
    demanded = reference.gpu_minimum.get(device.chain.architecture)
    if demanded is None:
        return "none"
    found: set[str] = {at_least(device.report.vbios_version, demanded.vbios, "vbios")} if demanded.vbios else set()
    if demanded.driver:
        found.add(at_least(device.report.driver_version, demanded.driver, "driver"))
    if "below" in found:
        return "below"
    return "unknown" if "unknown" in found else "met"


def _manifests(measured: Measured, published: Published, at: datetime) -> tuple[document.GpuManifest, ...]:
    used: list[tuple[Literal["driver", "vbios"], VerifiedRim | None]] = [
        ("driver", measured.driver),
        ("vbios", measured.vbios),
    ]
    return tuple(
        document.GpuManifest(
            owner=owner,
            id=rim.id,
            issued=strict.time_encode(rim.issued),
            digest=rim.digest.hex(),
            revocation=published.signer(rim, at=at).status,
        )
        for owner, rim in used
        if rim is not None
    )


def _difference(item: Mismatch) -> document.GpuDifference:
    return document.GpuDifference(
        index=item.index,
        owner=item.owner,
        name=item.name,
        expected=tuple(value.hex() for value in item.expected),
        got=item.got.hex() or None,
        causes="; or ".join(item.causes),
    )


def _findings(device: VerifiedGpuReport, measured: Measured, cc_state: CcState | None) -> list[document.Finding]:
    identity = device.identity.hex()
    found = [document.Finding(finding.code.value, identity, finding.message) for finding in device.findings]
    for index in measured.uncovered:
        message = f"measurement {index} is not zero, and no manifest says what it should be"
        found.append(document.Finding(Code.GPU_UNCOVERED.value, identity, message))
    for index in measured.conflicts:
        message = f"measurement {index} is claimed by the driver's manifest and by the VBIOS's"
        found.append(document.Finding(Code.RIM_CONFLICT.value, identity, message))
    match device.kind:
        case "gpu":
            found += _of_claim(device, cc_state)
        case "switch":
            # Of switches a host's driver says nothing.
            pass
    return found


def _of_claim(device: VerifiedGpuReport, cc_state: CcState | None) -> list[document.Finding]:
    """What the host's word lacks, or is at odds with. Silence is no better than "on", and must not look like it."""
    identity = device.identity.hex()
    if cc_state is None:
        message = "the host does not say whether confidential computing is on"
        return [document.Finding(Code.GPU_CC_MODE.value, identity, message)]
    found: list[document.Finding] = []
    if device.platform == "nvidia" and cc_state.environment != ENVIRONMENT_PRODUCTION:
        message = f"the host says that confidential computing is of environment {cc_state.environment}, not production"
        found.append(document.Finding(Code.GPU_CC_MODE.value, identity, message))
    if _contradicts(device, cc_state):
        message = f"the host says {cc_state.multi_gpu} of this GPU's multi-GPU mode, and its signed bytes another"
        found.append(document.Finding(Code.GPU_MODE.value, identity, message))
    return found


def _contradicts(device: VerifiedGpuReport, cc_state: CcState) -> bool:
    """Whether host and GPU differ over protected PCIe, where the GPU says anything of it."""
    silent = device.mode.protected_pcie is None and device.mode.feature is None
    return not silent and device.mode.is_ppcie != (cc_state.multi_gpu == "protected_pcie")
