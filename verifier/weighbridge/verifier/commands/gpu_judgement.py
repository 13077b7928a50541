"""What recorded evidence of GPUs and switches comes to: each device by itself, then all of them together. Pure.

The procedure of :func:`judge`:

1. each device's report parses; its chain and its report verify for the nonce that was asked for. A device that fails
   here is *not authentic*, or *malformed*, and keeps nobody from being told of the others;
2. its measurements are compared with its maker's manifests, and what is known of its certificates, and of those of the
   manifests' signers, is looked up: what speaks against it is *denied*;
3. what is not known, of all that could be, leaves it *indeterminate*: a manifest that is missing, a measurement in
   none, a revocation that nobody has spoken about, firmware without a digest, a switch that is not locked, a platform
   that anybody can make;
4. all of them: no device is there twice, one at least is a GPU, and where GPUs are in protected-PCIe mode their
   switches are the ones that they name (:mod:`weighbridge.verifier.gpu.topology`). A nonce that proves no age leaves
   all of them indeterminate.

The worst of it decides: :data:`.gpu_verdict.WORST_LAST`. Nothing here asks what is enrolled, which versions are recent
enough, or what the host says of its mode: that is for sessions and their policies.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence, NotAuthentic
from weighbridge.proto.spdm import report as spdm
from weighbridge.verifier.anchors import EMULATED_PLATFORM
from weighbridge.verifier.commands.gpu_verdict import (
    Device,
    Facts,
    Judgement,
    Manifest,
    Missing,
    Reason,
    Standing,
)
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.gpu import (
    GPUS_AND_SWITCHES,
    ChainCache,
    check_architecture,
    check_nonce,
    check_topology,
    verify_recorded_report,
)
from weighbridge.verifier.gpu.rim.ids import wanted
from weighbridge.verifier.gpu.rim.load import load_rims
from weighbridge.verifier.published import Published

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.collateral import Collateral
    from weighbridge.verifier.commands.gpu_verdict import Question, Topology
    from weighbridge.verifier.gpu import VerifiedGpuReport
    from weighbridge.verifier.gpu.recorded import RecordedDevice
    from weighbridge.verifier.gpu.revocation import RevocationStatus
    from weighbridge.verifier.gpu.rim.compare import Owner
    from weighbridge.verifier.gpu.rim.issues import RimSet
    from weighbridge.verifier.gpu.rim.verify import VerifiedRim

__all__ = ["judge"]

# What speaks against a certificate, and what leaves open whether anything does, the worst last.
_WITHDRAWN: Final[dict[RevocationStatus, str]] = {"revoked": "revoked", "hold": "on hold"}
_UNKNOWN: Final[dict[RevocationStatus, str]] = {
    "stale": "it is out of date whether",
    "absent": "nobody has said whether",
    "unknown": "their issuer's responder does not know whether",
}
_INDICES_MAX: Final = 8
# As NVIDIA's tools call what certificates call otherwise.
_CLAIMED: Final = {"HOPPER": "GH100", "BLACKWELL": "GB100", "LS10": "LS_10"}


def judge(recorded: Sequence[RecordedDevice], question: Question, collateral: Collateral) -> Judgement:
    """What ``recorded`` comes to, by the procedure in the module's docstring.

    Args:
        recorded: at least one device; untrusted.
        question: the caller's.
        collateral: what makers publish, as far as it is at hand; untrusted.

    Raises:
        ValueError: there is no device, or the question's time is naive.
    """
    if not recorded:
        raise ValueError("no device")
    judge_one = _Judge(question, collateral)
    devices = tuple(judge_one.device(number, item) for number, item in enumerate(recorded, 1))
    topology, together = _together(devices, question)
    return Judgement(devices=devices, topology=topology, together=together, disbelieved=judge_one.published.disbelieved)


@final
class _Judge:
    """Steps 1 to 3, with what is verified once for all devices."""

    def __init__(self, question: Question, collateral: Collateral) -> None:
        self._question = question
        self._collateral = collateral
        self._chains = ChainCache()
        self.published = Published(collateral, question.anchors)

    @cached_property
    def _all_rims(self) -> RimSet:
        """Those that do not count now, too: to say why one is missing."""
        return load_rims(self._collateral.of_kind("rim"), self._question.anchors)[0]

    def device(self, number: int, recorded: RecordedDevice) -> Device:
        found: Facts | MalformedEvidence | NotAuthentic
        reasons: tuple[Reason, ...]
        try:
            verified = self._verify(recorded)
        except (MalformedEvidence, NotAuthentic) as error:
            found, reasons = error, (Reason(error.exit_code, error.code, error.message),)
        else:
            found = self._facts(verified, recorded)
            reasons = (*_against(found), *_open(found))
        return Device(number=number, claimed_arch=recorded.claimed_arch, found=found, reasons=reasons)

    def _verify(self, recorded: RecordedDevice) -> VerifiedGpuReport:
        question = self._question
        nonce = recorded.claimed_nonce if question.nonce is None else question.nonce
        if nonce is None:
            raise MalformedEvidence(
                Code.FIELD_MISSING,
                "the file claims no nonce for this device",
                where="evidence.nonce",
                hint="say what the devices were asked to sign: --nonce HEX",
            )
        report = spdm.parse(recorded.report)
        chain = self._chains.verify_chain(recorded.chain, question.anchors, at=question.at, accept=GPUS_AND_SWITCHES)
        if question.architectures and chain.architecture not in question.architectures:
            check_architecture(chain, " or ".join(question.architectures))
        return verify_recorded_report(report, chain, nonce=nonce)

    def _facts(self, verified: VerifiedGpuReport, recorded: RecordedDevice) -> Facts:
        at = self._question.at
        measured = self.published.measured(verified, at=at)
        used: list[tuple[Owner, VerifiedRim | None]] = [("driver", measured.driver), ("vbios", measured.vbios)]
        return Facts(
            verified=verified,
            measured=measured,
            manifests=tuple(
                Manifest(owner, rim, Standing.of(self.published.signer(rim, at=at), rim.chain))
                for owner, rim in used
                if rim is not None
            ),
            missing=tuple(
                Missing(item.service_id, self._why(item.id, verified.platform))
                for item in wanted(verified.report, verified.chain)
                if item.service_id in measured.missing
            ),
            # The leaf is the chip's own work.
            revocation=Standing.of(self.published.revocation(verified, at=at), verified.chain.certificates[1:]),
            findings=(
                *((finding.code, finding.message) for finding in verified.findings),
                *_of_claims(verified, recorded),
            ),
        )

    def _why(self, rim_id: str, platform: str) -> str:
        """Why no manifest ``rim_id`` counts."""
        at, newest = self._question.at, self._all_rims.newest(rim_id, platform=platform)
        if newest is None:
            return "not at hand"
        if not newest.is_valid(at):
            verb, when = ("ended", newest.not_after) if newest.not_after < at else ("begins", newest.not_before)
            return f"the newest issue at hand {verb} on {when:%Y-%m-%d}"
        status = self.published.signer(newest, at=at).status
        return f"its signer is {_WITHDRAWN[status]}" if status in _WITHDRAWN else "not at hand"


def _against(facts: Facts) -> list[Reason]:
    """Step 2."""
    measured, found = facts.measured, list[Reason]()
    if measured.mismatches:
        wrong = _listed([item.index for item in measured.mismatches])
        those = counted(measured.compared, "measurement is", "measurements are")
        message = f"{len(measured.mismatches)} of {those} not the maker's: {wrong}"
        found.append(Reason(ExitCode.DENIED, Code.GPU_MEASUREMENT_MISMATCH, message))
    if measured.conflicts:
        claimed = _listed(measured.conflicts)
        message = f"the driver's and the VBIOS's manifest both claim {claimed}: get the newest issue of both"
        found.append(Reason(ExitCode.DENIED, Code.RIM_CONFLICT, message))
    if facts.revocation.status in _WITHDRAWN:
        message = f"a certificate of the device is {_WITHDRAWN[facts.revocation.status]}"
        found.append(Reason(ExitCode.DENIED, Code.GPU_REVOKED, message))
    return found


def _open(facts: Facts) -> list[Reason]:
    """Step 3."""
    found: list[tuple[Code, str]] = []
    measured, verified, revocation = facts.measured, facts.verified, facts.revocation
    if measured.status == "absent" or facts.missing:
        short = counted(len(facts.missing), "manifest") if facts.missing else "a version or board to find manifests by"
        found.append((Code.GPU_REFERENCE_ABSENT, f"authentic, not known to be good for want of {short}"))
    if measured.uncovered:
        indices = _listed(measured.uncovered)
        found.append((Code.GPU_UNCOVERED, f"not zero, and no manifest says what it should be: measurement {indices}"))
    if revocation.status in _UNKNOWN:
        found.append((Code.GPU_REVOCATION_UNKNOWN, f"{_UNKNOWN[revocation.status]} its certificates are revoked"))
    signers = {item.signer.status for item in facts.manifests}
    doubts = [word for status, word in _UNKNOWN.items() if status in signers]
    if doubts:
        found.append((Code.GPU_REVOCATION_UNKNOWN, f"{doubts[-1]} its manifests' signers are revoked"))
    # An LS_10 never names its firmware; one that is not locked can be changed at any time.
    doubtful = Code.GPU_FWID if verified.kind == "gpu" else Code.GPU_MODE
    found += [finding for finding in facts.findings if finding[0] is doubtful]
    if verified.platform == EMULATED_PLATFORM:
        found.append((Code.PLATFORM_EMULATED, "the device is emulated: anybody can make one"))
    return [Reason(ExitCode.INDETERMINATE, code, message) for code, message in found]


def _listed(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:_INDICES_MAX])) + (", …" if len(indices) > _INDICES_MAX else "")


def _of_claims(verified: VerifiedGpuReport, recorded: RecordedDevice) -> list[tuple[Code, str]]:
    """Where the file's own words are not what was verified. They decide nothing."""
    found: list[tuple[Code, str]] = []
    arch, nonce = recorded.claimed_arch, recorded.claimed_nonce
    if arch is not None and _CLAIMED.get(arch, arch) != verified.chain.architecture:
        found.append((Code.GPU_ARCH, "the file names another architecture than the certificates"))
    if nonce is not None and nonce != verified.nonce:
        found.append((Code.GPU_NONCE, "the file names another nonce than the device signed"))
    return found


def _together(devices: Sequence[Device], question: Question) -> tuple[Topology, tuple[Reason, ...]]:
    """Step 4."""
    places: dict[bytes, list[int]] = {}
    distinct: dict[bytes, VerifiedGpuReport] = {}
    for device in devices:
        if device.facts is not None:
            identity = device.facts.verified.identity
            places.setdefault(identity, []).append(device.number)
            distinct.setdefault(identity, device.facts.verified)
    reasons = [
        Reason(ExitCode.NOT_AUTHENTIC, Code.GPU_DUPLICATE, f"{' and '.join(map(str, numbers))} are one device")
        for numbers in places.values()
        if len(numbers) > 1
    ]
    verified = tuple(distinct.values())
    kinds = Counter(report.kind for report in verified)
    if question.whole and verified and not kinds["gpu"]:
        message = "no authentic GPU: switches alone compute nothing"
        reasons.append(Reason(ExitCode.INDETERMINATE, Code.GPU_MISSING, message))
    topology, reason = _topology(verified, question)
    if reason is not None:
        reasons.append(reason)
    return topology, (*reasons, *_of_nonces(verified, question))


def _topology(verified: tuple[VerifiedGpuReport, ...], question: Question) -> tuple[Topology, Reason | None]:
    if not any(report.kind == "gpu" and report.mode.is_ppcie for report in verified):
        return ("not claimed" if verified else "not judged"), None
    if not question.whole:
        message = "the GPU is in protected-PCIe mode: whether its switches are genuine takes the whole host's evidence"
        return "not judged", Reason(ExitCode.INDETERMINATE, Code.GPU_TOPOLOGY, message)
    if len({report.nonce for report in verified}) > 1:
        message = "GPUs are in protected-PCIe mode, and the devices signed different nonces: not of one moment"
        return "not judged", Reason(ExitCode.INDETERMINATE, Code.GPU_TOPOLOGY, message)
    try:
        check_topology(verified)
    except NotAuthentic as error:
        return "wrong", Reason(ExitCode.NOT_AUTHENTIC, error.code, f"{error.where}: {error.message}", error.hint)
    return "complete", None


def _of_nonces(verified: tuple[VerifiedGpuReport, ...], question: Question) -> list[Reason]:
    found: list[tuple[Code, str]] = []
    if question.nonce is None and verified:
        found.append((Code.UNPROVEN, "the nonce is the file's own word: nothing says that anything is fresh"))
    for nonce in dict.fromkeys(report.nonce for report in verified):
        try:
            check_nonce(nonce)
        except NotAuthentic as error:
            found.append((error.code, f"{error.message}; a live session refuses it"))
    return [Reason(ExitCode.INDETERMINATE, code, message) for code, message in dict.fromkeys(found)]
