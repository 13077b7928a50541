"""From verified evidence to a verdict: reference values, invariants, the author's policy, in this order.

The invariants (:data:`INVARIANTS`) are judged here, before any policy: no policy sees past a broken one, and none can
switch one off. What remains is laid out as one total document for the policy. A refusal is a verdict too; all that
could be found wrong is told at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.policy import document
from weighbridge.policy.engine import Advice, Decision, Denial, Prepared, Unchecked
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.verifier import acceptance, weights
from weighbridge.verifier.anchors import EMULATED_PLATFORM
from weighbridge.verifier.clock import SOURCE, moment, nanoseconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from weighbridge.policy.reference import Reference
    from weighbridge.proto import telemetry
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled, Position, SessionState

__all__ = ["INVARIANTS", "NOT_PROVEN", "Appraiser", "Outcome", "Verdict", "refuse"]

SCHEMA: Final = "weighbridge/verdict/v1"
# What the emulated devices' sampler calls itself (weighbridge.attester.telemetry.emulated).
# How far the host's wall clock may lag before it is told.
_LATE_NS: Final = 5_000_000_000
_EMULATED_SOURCE: Final = "emulated"
Outcome = Literal["affirmed", "held", "denied"]

INVARIANTS: Final[Mapping[Code, str]] = {
    Code.MODEL_UNDECLARED: "every model that is loaded, or was since the last window, is declared",
    Code.MODEL_NOT_LOADED: "the declared model is loaded",
    Code.WEIGHTS_MISMATCH: "what was loaded is, file by file and tensor by tensor, what was declared",
    Code.LOAD_MISMATCH: "no guard in the serving process found other bytes than were measured",
    Code.BASELINE_UNEXPLAINED: "the measurement log accounts for everything since boot",
    Code.MODEL_REVOKED: "no owner in the reference values in force has revoked a model that is declared or loaded",
    Code.MODEL_EXPIRED: "a model that only signed reference sets accept is in one that is valid at the time of receipt",
    Code.SUBJECT_FAILED: "neither the attestation key nor a GPU has failed before",
}

# Printed with every verdict (DESIGN §4): what no field of it says.
NOT_PROVEN: Final = (
    "binding is not co-location: a live relay to an enrolled GPU is not excluded on Hopper",
    "an endorsement key certificate or a pin proves a TPM, not the guest beside the GPU: the host is trusted for that",
    "no signed byte says that confidential computing is on",
    "attester code is unproven: telemetry, counts and load events are the host's word",
    "telemetry can contradict and corroborate; it can never vouch for weights",
    "a spot check proves possession of the model's files, not what runs",
    "physical interposers, broken platform generations and evasion-tuned workloads are out of reach",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on one window. ``decision`` is ``None`` when an invariant or the verification itself refused.

    ``outcome`` is ``held`` for a window against which nothing speaks but that it came too late. ``reference`` is the
    digest of the reference values by which it was appraised, ``None`` when its verification refused it before.
    """

    session: bytes
    tenant: str
    seq: int
    received: datetime
    held: bool
    outcome: Outcome
    denials: tuple[Denial, ...]
    decision: Decision | None
    telemetry: str
    reference: bytes | None

    @property
    def opens(self) -> bool:
        """Whether this verdict opens a gate: affirmed, and fresh."""
        return self.outcome == "affirmed" and not self.held

    def document(self) -> strict.JsonObject:
        """The verdict as JSON, schema ``weighbridge/verdict/v1``, every field present."""
        decision = self.decision
        return {
            "schema": SCHEMA,
            "session": self.session.hex(),
            "tenant": self.tenant,
            "seq": self.seq,
            "received_at": strict.time_encode(self.received),
            "time_source": SOURCE,
            "freshness": "held" if self.held else "fresh",
            "outcome": self.outcome,
            "denials": [_plain(denial) for denial in self.denials],
            "warnings": [] if decision is None else [_plain(item) for item in decision.warnings],
            "unchecked": [] if decision is None else [_plain(item) for item in decision.unchecked],
            "telemetry": self.telemetry,
            "attester_code": "unproven",
            "trust_claims": {}
            if decision is None
            else {name: dict(vector) for name, vector in sorted(decision.trust_claims.items())},
            "policy": None
            if decision is None
            else {
                "digest": decision.policy_digest.hex(),
                "reference": decision.reference_digest.hex(),
                "input": decision.input_digest.hex(),
                "engine": f"{decision.engine} {decision.engine_version}",
                "outcome": decision.outcome,
                "detail": decision.detail,
            },
            "not_proven": list(NOT_PROVEN),
        }

    def encode(self) -> bytes:
        """The document's bytes, as recorded and answered."""
        return strict.json_encode(self.document())


@dataclass(frozen=True, slots=True)
class Appraiser:
    """Judges verified windows under one policy, its reference values and the declared manifests."""

    policy: Prepared
    reference: Reference
    manifests: Mapping[bytes, Manifest]
    reference_digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Name the reference values once: they are as long as they are many."""
        object.__setattr__(self, "reference_digest", self.reference.digest)

    def appraise(
        self, window: VerifiedWindow, *, enrolled: Enrolled, position: Position, state: SessionState, at: datetime
    ) -> Verdict:
        """The verdict on ``window``. Never raises for what the evidence contains.

        Args:
            window: verified.
            enrolled: what was proven at enrolment.
            position: where the chain stood before this window.
            state: the session's state before this window.
            at: the verifier's receipt time.

        Raises:
            EnvironmentFault: ``POLICY_TIMEOUT``, ``POLICY_CRASHED``, or no worker can be started: nothing was judged.
        """
        terms = enrolled.terms
        measured = {**position.manifests, **window.manifests}
        weighed = weights.appraise(
            window.log, declared=terms.declared, measured=measured, references=self.manifests, window=window.header.seq
        )
        decision = None
        models = {*terms.declared, *(item.manifest for item in weighed.loaded)}
        revoked = acceptance.denials(self.reference, models, at=at, window=window.header.seq)
        denials = (*weighed.denials, *revoked)
        if not denials:
            try:
                facts = self._input(window, enrolled, position, state=state, weighed=weighed, at=at)
                decision = self.policy.decide(facts)
                _require_decided(decision)
                denials = decision.denials
            except EnvironmentFault:
                raise
            except WeighbridgeError as error:
                denials = (_of_error(error, window.header.seq),)
        return Verdict(
            session=terms.session,
            tenant=terms.tenant,
            seq=window.header.seq,
            received=at,
            held=window.held,
            outcome=_outcome(denials, decision, held=window.held),
            denials=denials,
            decision=decision,
            telemetry="no_baseline",
            reference=self.reference_digest,
        )

    def _input(
        self,
        window: VerifiedWindow,
        enrolled: Enrolled,
        position: Position,
        *,
        state: SessionState,
        weighed: weights.WeightsAppraisal,
        at: datetime,
    ) -> document.PolicyInput:
        terms, header, ak = enrolled.terms, window.header, enrolled.ak
        received_at, received_ns = document.instant(at)
        span = header.interval
        work = header.work
        platforms = {report.identity: report.platform for report in enrolled.gpus}
        return document.PolicyInput(
            received_at=received_at,
            received_ns=received_ns,
            session=document.Session(
                id=terms.session.hex(),
                tenant=terms.tenant,
                audience=terms.audience,
                state=state.value,
                window_period_ns=terms.period_ns,
            ),
            window=document.Window(
                seq=header.seq,
                freshness="held" if window.held else "fresh",
                interval_ns=span.wall_end_ns - span.wall_start_ns,
            ),
            platform=document.Platform(
                kind="tpm-ek-credential" if ak.provenance == "ek-credential" else "tpm-pinned-ak",
                name=ak.platform,
                ak=terms.ak.hex(),
                ek_anchor=enrolled.ek_anchor,
                boot_pcrs=tuple(document.BootPcr(index, window.quote.pcrs[index].hex()) for index in terms.boot_pcrs),
                firmware=f"{window.quote.firmware:#018x}",
            ),
            attester_code=document.AttesterCode(),
            gpus=tuple(self._gpu(report, reported=window.gpus is not None) for report in window.gpus or position.gpus),
            weights=document.Weights(
                declared=tuple(self._declared(digest, terms) for digest in terms.declared),
                loaded=tuple(
                    document.LoadedModel(
                        item.manifest.hex(),
                        item.name,
                        item.declared,
                        item.recnum,
                        item.binding,
                        None if item.root is None else item.root.hex(),
                    )
                    for item in weighed.loaded
                ),
                log_length=len(window.log.records),
                baseline="zero",
                differences=(),
                spot_check=_spot_check(window, position, terms),
            ),
            telemetry=document.Telemetry(
                verdict="no_baseline",
                sources=tuple(
                    document.TelemetrySource(
                        device=None if source.device is None else source.device.hex(),
                        source=source.name,
                        platform=_telemetry_platform(source, platforms),
                        channels=tuple(sorted(source.channels)),
                    )
                    for source in window.telemetry.sources
                ),
            ),
            work=document.Work(work.requests, work.tokens_in, work.tokens_out, work.batch_max),
            findings=_findings(window, position, terms.period_ns, at),
            gap=document.Gap(
                held_windows=position.held,
                since=None if position.held_since_ns is None else strict.time_encode(moment(position.held_since_ns)),
            ),
        )

    def _declared(self, digest: bytes, terms: Terms) -> document.DeclaredModel:
        manifest = self.manifests.get(digest)
        name = None if manifest is None else manifest.name
        return document.DeclaredModel(digest.hex(), name, "model" if digest == terms.model else "adapter")

    def _gpu(self, verified: VerifiedGpuReport, *, reported: bool) -> document.Gpu:
        report = verified.report
        digest = report.measurements_digest.hex()
        driver, vbios = report.driver_version, report.vbios_version
        accepted = self.reference.gpu_measurements.get(f"{verified.chain.architecture}/{driver}/{vbios}")
        return document.Gpu(
            identity=verified.identity.hex(),
            platform=verified.platform,
            architecture=verified.chain.architecture,
            driver=driver,
            vbios=vbios,
            measurements_digest=digest,
            fwid=verified.fwid,
            reference="absent" if accepted is None else "match" if digest in accepted else "mismatch",
            revocation="absent",
            cc_mode_host_claim=None,
            reported_in_window=reported,
        )


def _spot_check(window: VerifiedWindow, position: Position, terms: Terms) -> document.SpotCheck:
    if not position.spot_due(terms):
        return document.SpotCheck("not_due", position.spot_seq)
    if window.spot is None or window.held:
        return document.SpotCheck("not_issued", position.spot_seq)
    return document.SpotCheck("passed", window.header.seq)


def _findings(window: VerifiedWindow, position: Position, period_ns: int, at: datetime) -> tuple[document.Finding, ...]:
    """What verification noticed and does not refuse: time that no window covers, or one that covers too much."""
    span = window.header.interval
    found: list[document.Finding] = []
    if span.wall_end_ns - span.wall_start_ns > 2 * period_ns:
        found.append(
            document.Finding(Code.WINDOW_INTERVAL.value, None, "the window is more than twice as long as demanded")
        )
    received_ns = nanoseconds(at)
    if not window.held and received_ns - span.wall_end_ns > 2 * period_ns + _LATE_NS:
        found.append(
            document.Finding(Code.WINDOW_INTERVAL.value, None, "the interval ended long before it was received")
        )
    for source in window.telemetry.sources:
        if not source.offsets:
            device = None if source.device is None else source.device.hex()
            found.append(document.Finding(Code.TELEMETRY_TIME.value, device, "there is no sample in the window"))
    if position.wall_end_ns and span.wall_start_ns - position.wall_end_ns > period_ns:
        found.append(
            document.Finding(Code.WINDOW_INTERVAL.value, None, "more than a window's time before it is uncovered")
        )
    return tuple(found)


def _telemetry_platform(source: telemetry.Source, platforms: Mapping[bytes, str]) -> str:
    """Whose samples these are: an emulated source is that whatever device it names, and the other way round."""
    if source.name == _EMULATED_SOURCE:
        return EMULATED_PLATFORM
    return "host" if source.device is None else platforms[source.device]


def _require_decided(decision: Decision) -> None:
    """A policy that ran out of time, or whose engine died, has not judged: nothing is admitted, and nothing latches.

    A busy machine must not fail an innocent host for good; the window comes again.
    """
    if decision.outcome in {"timeout", "crashed"}:
        raise EnvironmentFault(
            Code.POLICY_TIMEOUT if decision.outcome == "timeout" else Code.POLICY_CRASHED,
            f"the policy engine gave no decision: {decision.detail or decision.outcome}",
            where=decision.engine,
            hint="the window may be sent again; if this happens again, the policy or this machine is at fault",
        )


def refuse(
    error: WeighbridgeError, *, session: bytes, tenant: str, seq: int, received: datetime, held: bool
) -> Verdict:
    """The verdict on an authentic window whose verification failed."""
    return Verdict(
        session=session,
        tenant=tenant,
        seq=seq,
        received=received,
        held=held,
        outcome="denied",
        denials=(_of_error(error, seq),),
        decision=None,
        telemetry="no_baseline",
        reference=None,
    )


def _outcome(denials: tuple[Denial, ...], decision: Decision | None, *, held: bool) -> Outcome:
    if decision is not None and decision.allowed and not denials and not held:
        return "affirmed"
    # A policy denies every held window; if that is all it has to say, nothing else speaks against it.
    if held and decision is not None and decision.outcome == "deny" and {d.code for d in denials} == {Code.WINDOW_HELD}:
        return "held"
    return "denied"


def _of_error(error: WeighbridgeError, seq: int | None) -> Denial:
    return Denial(
        code=error.code,
        message=f"{error.message} ({error.where})" if error.where else error.message,
        window=seq,
        device=None,
        expected=error.expected,
        got=error.got,
        hint=error.hint or None,
    )


def _plain(item: Denial | Advice | Unchecked) -> strict.JsonObject:
    return asdict(item)
