"""How a session is enrolled: what is proven once, so that every window after it can be judged by its signatures alone.

The procedure:

1.  The opening is well-formed; it names the tenant and audience that this verifier serves, and its own channel's key.
2.  The AK is a restricted signing key that cannot leave its TPM, and it is believed for one of four reasons
    (:mod:`weighbridge.verifier.tpm.ak`): it is pinned; a cloud certified it; hardware vouches for the firmware of a
    confidential machine that names it; or a credential made for its Name and a certified endorsement key must be
    opened (TPM 2.0 Part 1 §24), which only a TPM that holds both can.
3.  The credential's secret came back, where one was made.
4.  A quote by the AK over ``D("enrolment", challenge, cnf, peer)`` selects exactly the demanded PCRs: it binds the
    serving key and the channel key to this AK and this challenge.
5.  The telemetry key is a primary of the NULL hierarchy, certified by the AK over the same value, and usable only
    while the boot PCRs hold the quoted values.
6.  Each GPU signed a report over ``D("gpu", D("enrolment", …))``; the devices are distinct and of the demanded number.
7.  Where they are demanded, the logs of the boot lead to the quoted registers, and the kernel's list of measured
    files leads to PCR 10.
8.  The measurement log spans the boot: it replays to the quoted register from what a reset leaves, or from what the
    logs of the boot lead to, and continues what was ledgered before for this AK in this boot. The manifests are those
    of the models that it says are loaded.

Steps 1 to 7 raise, and 8 for manifests. From then on the AK is known to speak, and what is wrong is a *finding* of the
session: step 8, an undeclared model that is loaded already, an AK or a GPU to which an earlier failure sticks. All of
them are told.

Not proven by 2: that the TPM is beside the GPU (docs/trust-model.md). Credential activation convinces only its
challenger. What booted is compared with reference values later, in every window.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from weighbridge.policy.engine import Denial
from weighbridge.proto import binding, measurement_log
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, NotAuthentic, WeighbridgeError
from weighbridge.proto.eventlog.baseline import baseline
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.verifier import weights
from weighbridge.verifier.boot.facts import boot_facts
from weighbridge.verifier.boot.runtime import RuntimeLog
from weighbridge.verifier.gpu.chain import GPUS, GPUS_AND_SWITCHES
from weighbridge.verifier.gpu.set import verify_gpus
from weighbridge.verifier.requirements import RUNTIME_PCR
from weighbridge.verifier.tpm.ak import AttestationKey, VerifiedAk
from weighbridge.verifier.tpm.certify import boot_policy_of, verify_telemetry_key
from weighbridge.verifier.tpm.provenance import Activation, verify_endorsement
from weighbridge.verifier.tpm.quote import verify_quote
from weighbridge.verifier.weights import LogState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from weighbridge.proto.collateral import Collateral
    from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof, Opening
    from weighbridge.proto.manifest import Manifest
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.boot.facts import BootFacts
    from weighbridge.verifier.gpu.chain import ChainCache, Kind
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.requirements import Requirements
    from weighbridge.verifier.tpm.certify import VerifiedTelemetryKey
    from weighbridge.verifier.tpm.quote import VerifiedQuote

__all__ = [
    "Candidate",
    "LedgeredLog",
    "VerifiedEnrolment",
    "ak_thumbprint",
    "check_ledgered",
    "unexplained",
    "verify_opening",
    "verify_proof",
]

_SEAL: Final = object()
_ARGUMENT: Final = "start the attester with the --{} that the verifier's requirements name"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An AK that asks to be enrolled: believed, or still to be shown to be in the TPM of a certified EK."""

    opening: Opening
    ak: VerifiedAk | Activation


@dataclass(frozen=True, slots=True)
class LedgeredLog:
    """The measurement log as last ledgered for an AK: its length and head, and the boot (reset count) it belongs to."""

    reset_count: int
    length: int
    head: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEnrolment:
    """What steps 1 to 7 proved, and what step 8 found. ``boot`` and ``runtime`` are ``None`` where not demanded.

    ``log_from_reset`` says whether the measurement log began on a register that nobody had extended since a reset.
    """

    opening: Opening
    ak: VerifiedAk
    telemetry_key: VerifiedTelemetryKey
    quote: VerifiedQuote
    gpus: tuple[VerifiedGpuReport, ...]
    boot: BootFacts | None
    runtime: RuntimeLog | None
    log: LogState
    log_from_reset: bool
    manifests: Mapping[bytes, Manifest]
    findings: tuple[Denial, ...]
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedEnrolment is made by verify_proof only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedEnrolment cannot be pickled")


def verify_opening(
    opening: Opening,
    *,
    requirements: Requirements,
    anchors: TrustAnchors,
    collateral: Collateral,
    peer: bytes,
    at: datetime,
) -> Candidate:
    """Steps 1 and 2, as far as they need no answer.

    Args:
        opening: untrusted.
        requirements: what is demanded.
        anchors: whose keys are believed.
        collateral: the verifier's own; what the opening brought is looked at beside it.
        peer: SHA-256 of the SubjectPublicKeyInfo of the channel's TLS certificate.
        at: the verifier's receipt time.

    Raises:
        MalformedEvidence: a structure is not well-formed.
        NotAuthentic: ``WINDOW_TENANT``, ``WINDOW_AUDIENCE``, ``WINDOW_PEER``, or as
            :func:`~weighbridge.verifier.tpm.provenance.verify_endorsement`.
        Indeterminate: as there.
    """
    # 1.
    for code, name, wanted, got, hint in (
        (Code.WINDOW_TENANT, "tenant", requirements.tenant, opening.tenant, _ARGUMENT.format("tenant")),
        (Code.WINDOW_AUDIENCE, "audience", requirements.audience, opening.audience, _ARGUMENT.format("audience")),
        (Code.WINDOW_PEER, "peer", peer, opening.peer, ""),
    ):
        if wanted != got:
            raise NotAuthentic(
                code,
                f"{name} is not what this verifier serves",
                where=f"opening.{name}",
                expected=wanted,
                got=got,
                hint=hint,
            )
    # 2.
    parent = None if opening.parent is None else tpm_public.parse(opening.parent)
    ak = AttestationKey(tpm_public.parse(opening.ak), parent)
    return Candidate(
        opening,
        verify_endorsement(
            opening.endorsement, ak, collateral=collateral.with_items(opening.collateral.items), anchors=anchors, at=at
        ),
    )


def verify_proof(
    proof: EnrolmentProof,
    *,
    candidate: Candidate,
    secret: bytes,
    challenge: EnrolmentChallenge,
    requirements: Requirements,
    anchors: TrustAnchors,
    at: datetime,
    chains: ChainCache | None = None,
) -> VerifiedEnrolment:
    """Steps 3 to 8.

    Args:
        proof: untrusted.
        candidate: what :func:`verify_opening` returned for the same opening.
        secret: what the credential held; empty where none was made.
        challenge: what was sent.
        requirements: what is demanded.
        anchors: whose keys are believed.
        at: the verifier's receipt time.
        chains: saves repeated work on unchanged certificate chains; changes no answer.

    Raises:
        MalformedEvidence: a structure is not well-formed.
        NotAuthentic: the code names the step.
    """
    opening = candidate.opening
    if not hmac.compare_digest(proof.session, challenge.session):
        raise NotAuthentic(Code.WINDOW_SESSION, "the proof is for another session", where="proof.session")
    # 3.
    ak = candidate.ak
    if isinstance(ak, Activation):
        ak = ak.answered(secret=secret, answer=proof.secret)
    # 4.
    qualifying_data = binding.enrolment_qualifying_data(challenge.challenge, opening.cnf, opening.peer)
    quote = verify_quote(
        QuoteEvidence.parse(proof.quote),
        ak,
        qualifying_data=qualifying_data,
        selection=PcrSelection.of(requirements.bank, requirements.pcrs),
    )
    # 5.
    boot = PcrSelection.of(requirements.bank, requirements.boot_pcrs)
    boot_policy = boot_policy_of(quote, boot)
    telemetry_key = verify_telemetry_key(
        attest=proof.certify_attest,
        signature=proof.certify_signature,
        public=tpm_public.parse(proof.telemetry_key),
        ak=ak,
        qualifying_data=qualifying_data,
        boot_policy=boot_policy,
    )
    # 6.
    reports = gpu_evidence.parse(proof.gpus)
    gpus = verify_gpus(
        reports,
        nonce=binding.gpu_nonce(qualifying_data),
        anchors=anchors,
        at=at,
        expected=None,
        cache=chains,
        accept=GPUS_AND_SWITCHES if requirements.switches else GPUS,
    )
    _check_count(gpus, "gpu", requirements.gpus)
    _check_count(gpus, "switch", requirements.switches)
    # 7.
    logs = _boot_logs(proof.boot, requirements)
    facts = None if logs is None else boot_facts(logs, quote.pcrs, quote.bank, log_pcr=requirements.log_pcr)
    runtime = None
    if logs is not None and "runtime" in requirements.evidence:
        runtime = _runtime(logs, quote)
    # 8.
    manifests = weights.open_manifests(proof.manifests)
    start = None if logs is None else baseline(logs, requirements.log_pcr, quote.bank)
    log, findings = _spans_boot(measurement_log.parse_records(proof.log), start, quote, requirements)
    if not findings:
        # A log that does not lead to the quoted register names nothing, and is denied.
        weights.check_manifests(manifests, named={model.manifest for model in log.models})
    return VerifiedEnrolment(
        seal=_SEAL,
        opening=opening,
        ak=ak,
        telemetry_key=telemetry_key,
        quote=quote,
        gpus=gpus,
        boot=facts,
        runtime=runtime,
        log=log,
        log_from_reset=start is None or not any(start),
        manifests=manifests,
        findings=findings,
    )


def _check_count(devices: Sequence[VerifiedGpuReport], kind: Kind, wanted: int) -> None:
    count = sum(device.kind == kind for device in devices)
    if count != wanted:
        raise NotAuthentic(
            Code.GPU_MISSING if count < wanted else Code.GPU_UNEXPECTED,
            f"wrong number of devices of kind {kind}",
            where="proof.gpus",
            expected=wanted,
            got=count,
        )


def _boot_logs(data: bytes | None, requirements: Requirements) -> BootLogs | None:
    """The logs of the boot, there exactly if they are demanded."""
    demanded = "boot" in requirements.evidence
    if (data is not None) != demanded:
        code = Code.EVIDENCE_ABSENT if demanded else Code.EVIDENCE_UNEXPECTED
        raise NotAuthentic(code, "the logs of the boot are not where they are demanded", where="proof.boot")
    return None if data is None else BootLogs.parse(data)


def _runtime(logs: BootLogs, quote: VerifiedQuote) -> RuntimeLog:
    if logs.runtime is None:
        raise NotAuthentic(
            Code.EVIDENCE_ABSENT,
            "the kernel's list of measured files is demanded and not there",
            where="proof.boot.runtime",
            hint="boot the host with an IMA policy: ima_policy=tcb on the kernel's command line",
        )
    return RuntimeLog.empty().extended(logs.runtime, quoted=quote.pcrs[RUNTIME_PCR], bank=quote.bank)


def _spans_boot(
    records: Sequence[measurement_log.Record],
    start: bytes | None,
    quote: VerifiedQuote,
    requirements: Requirements,
) -> tuple[LogState, tuple[Denial, ...]]:
    """The log from boot on, and a finding unless it explains the quoted register; ``start`` is what came before it."""
    register = quote.pcrs[requirements.log_pcr]
    empty = LogState.empty() if start is None else LogState.empty(start)
    try:
        log = empty.extended(records, bank=requirements.bank, pcr=requirements.log_pcr)
        explained = log.register == register
    except WeighbridgeError:
        log, explained = empty, False
    if explained:
        return log, ()
    return log, (
        unexplained(expected=register.hex(), got=log.register.hex(), what=f"PCR {requirements.log_pcr} as quoted"),
    )


def ak_thumbprint(ak: VerifiedAk) -> bytes:
    """How terms name an AK: SHA-256 of its SubjectPublicKeyInfo."""
    return sha256(ak.public.spki())


def unexplained(*, expected: str, got: str, what: str) -> Denial:
    """The finding that the log does not account for everything since boot."""
    return Denial(
        code=Code.BASELINE_UNEXPLAINED,
        message=f"the measurement log does not span the boot: it does not lead to {what}",
        window=None,
        device=None,
        expected=expected,
        got=got,
        hint="send every record since boot; if records were lost, reboot the host",
    )


def check_ledgered(log: LogState, quote: VerifiedQuote, ledgered: LedgeredLog | None) -> tuple[Denial, ...]:
    """A finding unless ``log`` continues what was ledgered before for this AK in this boot."""
    if ledgered is None or ledgered.reset_count != quote.reset_count:
        return ()
    continues = ledgered.length <= len(log.records)
    if continues and measurement_log.head(log.records[: ledgered.length]) == ledgered.head:
        return ()
    return (
        unexplained(expected=ledgered.head.hex(), got=log.head.hex(), what="the head ledgered before in this boot"),
    )
