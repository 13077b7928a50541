"""From verified evidence to a verdict: reference values, invariants, the author's policy, in this order.

The invariants (:mod:`.invariants`) are judged here, before any policy: no policy sees past a broken one, and none can
switch one off. What remains is laid out as one total document for the policy. A refusal is a verdict too; all that
could be found wrong is told at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.policy import engine
from weighbridge.policy.engine import Advice, Decision, Denial, Obligation, Prepared, Revision, Unchecked
from weighbridge.policy.policy_set import PolicyFiles
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.case import denial_of, make_case
from weighbridge.verifier.clock import SOURCE
from weighbridge.verifier.policy_input import Known
from weighbridge.verifier.published import Published
from weighbridge.verifier.telemetry.appraisal import appraise_telemetry, presented_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from weighbridge.policy.document import AttesterCode
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.manifest import Manifest
    from weighbridge.verifier.case import Case
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled, Position, SessionState
    from weighbridge.verifier.telemetry.appraisal import History, Presented, TelemetryAppraisal, Word
    from weighbridge.verifier.tpm.ak import VerifiedAk

__all__ = [
    "NOT_PROVEN",
    "Appraiser",
    "Decided",
    "Outcome",
    "Verdict",
    "decide",
    "decide_all",
    "not_proven",
    "outcome_of",
    "refuse",
]

SCHEMA: Final = "weighbridge/verdict/v1"
_Said = Denial | Advice | Unchecked | Obligation | Revision
_NAMES: Final = {
    kind: tuple(each.name for each in fields(kind)) for kind in (Denial, Advice, Unchecked, Obligation, Revision)
}
Decided = tuple[Decision | None, tuple[Denial, ...]]
"""What a policy has decided, if it was asked and could be; and all that denies."""
Outcome = Literal["affirmed", "held", "indeterminate", "denied"]
# What keeps a gate shut without speaking against the host: its session goes on.
_NOT_YET: Final = frozenset({Code.TELEMETRY_UNUSABLE.value, Code.WINDOW_HELD.value})

# Printed with every verdict (docs/trust-model.md): what no evidence shows. What this session's own does not show comes
# before it (:func:`not_proven`).
NOT_PROVEN: Final = (
    "binding is not co-location: a live relay to an enrolled GPU is not excluded on Hopper",
    "no signed byte says that confidential computing is on",
    "telemetry can contradict and corroborate; it can never vouch for weights",
    "a spot check proves possession of the model's files, not what runs",
    "physical interposers, broken platform generations and evasion-tuned workloads are out of reach",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on one window. ``decision`` is ``None`` when an invariant or the verification itself refused.

    ``outcome`` is ``held`` for a window against which nothing speaks but that it came too late, ``indeterminate`` for
    one against which nothing speaks but that its samples do not suffice. ``telemetry`` is the word for the physical
    record and ``physical`` all that it says, ``reference`` and ``collateral`` are the digests of the reference values
    and of the collateral by which it was appraised, and ``attester_code`` is what is shown of the measuring code; all
    ``None``, and the word ``no_baseline``, when its verification refused it before. ``ak`` is the attestation key that
    it rests on.
    """

    session: bytes
    tenant: str
    seq: int
    received: datetime
    held: bool
    outcome: Outcome
    denials: tuple[Denial, ...]
    decision: Decision | None
    telemetry: Word
    physical: TelemetryAppraisal | None
    reference: bytes | None
    collateral: bytes | None
    ak: VerifiedAk
    attester_code: AttesterCode | None
    _encoded: bytes | None = field(init=False, default=None, repr=False, compare=False)

    @property
    def opens(self) -> bool:
        """Whether this verdict opens a gate: affirmed, and fresh."""
        return self.outcome == "affirmed" and not self.held

    @property
    def obliges_spot_check(self) -> bool:
        """Whether a spot check is due in the next window, whatever the terms say."""
        return self.decision is not None and self.decision.obliges_spot_check

    def document(self) -> strict.JsonObject:
        """The verdict as JSON, schema ``weighbridge/verdict/v1``, every field present."""
        decision, code = self.decision, self.attester_code
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
            "obligations": [] if decision is None else [_plain(item) for item in decision.obligations],
            "telemetry": self.telemetry,
            "physical": None if self.physical is None else self.physical.document(),
            "attester_code": {
                "status": "unproven" if code is None else code.status,
                "missing": [] if code is None else list(code.missing),
            },
            "platform": {
                "provenance": self.ak.provenance,
                "name": self.ak.platform,
                "anchor": self.ak.anchor,
                "detail": self.ak.detail,
                "state_held_by": self.ak.state_held_by,
            },
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
                "bundle": None if decision.revision is None else _plain(decision.revision),
            },
            "not_proven": list(not_proven(self.ak, code)),
        }

    def encode(self) -> bytes:
        """The document's bytes, as recorded and answered: made once for both."""
        encoded = self._encoded
        if encoded is None:
            encoded = strict.json_encode(self.document())
            object.__setattr__(self, "_encoded", encoded)
        return encoded


@dataclass(frozen=True, slots=True)
class Appraiser:
    """Judges verified windows under one policy, its reference values, the declared manifests and what was published.

    ``files`` are those of the policy, or of each that may decide, by the digest that a decision names: for whoever
    keeps what records name.
    """

    policy: Prepared
    reference: Reference
    manifests: Mapping[bytes, Manifest]
    published: Published = field(default_factory=Published.nothing)
    files: Mapping[bytes, PolicyFiles] = field(default_factory=dict[bytes, PolicyFiles])
    baselines: Baselines = field(default_factory=Baselines)
    reference_digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Name the reference values once: they are as long as they are many."""
        object.__setattr__(self, "reference_digest", self.reference.digest)

    def presented(self, window: VerifiedWindow, *, enrolled: Enrolled, at: datetime) -> tuple[Presented, ...]:
        """What ``window`` has of each GPU, with the profile that it is judged by, of the baselines in force."""
        return presented_by(window, enrolled=enrolled, baselines=self.baselines, at=at)

    def physical(
        self,
        window: VerifiedWindow,
        *,
        enrolled: Enrolled,
        position: Position,
        history: History,
        at: datetime,
        presented: Sequence[Presented] | None = None,
    ) -> TelemetryAppraisal:
        """What the samples of ``window`` say by the baselines in force. Arguments as in :meth:`appraise`.

        ``history`` is what was remembered of the GPUs when the window came; ``presented`` is what :meth:`presented`
        finds, if somebody has asked for it already.
        """
        return appraise_telemetry(
            window,
            position.telemetry,
            enrolled=enrolled,
            baselines=self.baselines,
            history=history,
            at=at,
            presented=presented,
        )

    def appraise(
        self,
        window: VerifiedWindow,
        *,
        enrolled: Enrolled,
        position: Position,
        state: SessionState,
        physical: TelemetryAppraisal,
        at: datetime,
    ) -> Verdict:
        """The verdict on ``window``. Never raises for what the evidence contains.

        Args:
            window: verified.
            enrolled: what was proven at enrolment.
            position: where the chain stood before this window.
            state: the session's state before this window.
            physical: what its samples say.
            at: the verifier's receipt time.

        Raises:
            EnvironmentFault: ``POLICY_TIMEOUT``, ``POLICY_CRASHED``, or no worker can be started: nothing was judged.
        """
        case = self.lay_out(window, enrolled=enrolled, position=position, state=state, physical=physical, at=at)
        decided = decide(self.policy, case)
        return self.verdict(window, case, decided, enrolled=enrolled, physical=physical, at=at)

    def lay_out(
        self,
        window: VerifiedWindow,
        *,
        enrolled: Enrolled,
        position: Position,
        state: SessionState,
        physical: TelemetryAppraisal,
        at: datetime,
    ) -> Case:
        """What is asked about ``window``, before any policy is. Arguments as in :meth:`appraise`, and never raises."""
        known = Known(enrolled, position, state, self.reference, self.manifests, physical)
        return make_case(window, known, published=self.published, at=at)

    def verdict(
        self,
        window: VerifiedWindow,
        case: Case,
        decided: Decided,
        *,
        enrolled: Enrolled,
        physical: TelemetryAppraisal,
        at: datetime,
    ) -> Verdict:
        """The verdict on ``window``, whose ``case`` was ``decided`` so. Other arguments as in :meth:`appraise`."""
        terms, (decision, denials) = enrolled.terms, decided
        return Verdict(
            session=terms.session,
            tenant=terms.tenant,
            seq=window.header.seq,
            received=at,
            held=window.held,
            outcome=outcome_of(denials, decision, held=window.held),
            denials=denials,
            decision=decision,
            telemetry=physical.verdict,
            physical=physical,
            reference=self.reference_digest,
            collateral=self.published.digest,
            ak=enrolled.ak,
            attester_code=case.attester_code,
        )


def decide(policy: Prepared, case: Case) -> Decided:
    """What ``policy`` says of ``case``, and what denies it; no decision where no policy was asked, or could be.

    Raises:
        EnvironmentFault: as :meth:`Appraiser.appraise`.
    """
    (decided,) = decide_all(policy, [case])
    if isinstance(decided, EnvironmentFault):
        raise decided
    return decided


def decide_all(policy: Prepared, cases: Sequence[Case]) -> list[Decided | EnvironmentFault]:
    """Of each case what :func:`decide` returns or raises: the policy is asked about all at once, if it knows how."""
    asked = [case.document for case in cases if case.document is not None]
    answers = iter(engine.decide_all(policy, asked))
    return [
        (None, case.denials) if case.document is None else _decided(next(answers), case.document.window.seq)
        for case in cases
    ]


def _decided(answer: Decision | WeighbridgeError, seq: int) -> Decided | EnvironmentFault:
    """A policy that ran out of time, or whose engine died, has not judged: nothing is admitted, and nothing latches.

    A busy machine must not fail an innocent host for good; the window comes again.
    """
    if isinstance(answer, EnvironmentFault):
        return answer
    if isinstance(answer, WeighbridgeError):
        return None, (denial_of(answer, seq),)
    if answer.outcome in {"timeout", "crashed"}:
        return EnvironmentFault(
            Code.POLICY_TIMEOUT if answer.outcome == "timeout" else Code.POLICY_CRASHED,
            f"the policy engine gave no decision: {answer.detail or answer.outcome}",
            where=answer.engine,
            hint="the window may be sent again; if this happens again, the policy or this machine is at fault",
        )
    return answer, answer.denials


def not_proven(ak: VerifiedAk, code: AttesterCode | None) -> tuple[str, ...]:
    """What a verdict that rests on ``ak`` does not show, in words, this session's own limits first."""
    own = [ak.unproven]
    if code is None or code.status != "proven":
        own.append("attester code is unproven: telemetry, counts and load events are the host's word")
    return (*own, *NOT_PROVEN)


def refuse(error: WeighbridgeError, *, enrolled: Enrolled, seq: int, received: datetime, held: bool) -> Verdict:
    """The verdict on an authentic window whose verification failed."""
    return Verdict(
        session=enrolled.terms.session,
        tenant=enrolled.terms.tenant,
        seq=seq,
        received=received,
        held=held,
        outcome="denied",
        denials=(denial_of(error, seq),),
        decision=None,
        telemetry="no_baseline",
        physical=None,
        reference=None,
        collateral=None,
        ak=enrolled.ak,
        attester_code=None,
    )


def outcome_of(denials: tuple[Denial, ...], decision: Decision | None, *, held: bool) -> Outcome:
    """The verdict's one word; only a fresh window is affirmed."""
    if decision is not None and decision.allowed and not denials and not held:
        return "affirmed"
    if decision is None or decision.outcome != "deny":
        return "denied"
    codes = {denial.code for denial in denials}
    # A policy denies every held window; if that is all it has to say, nothing else speaks against it.
    if held and codes == {Code.WINDOW_HELD}:
        return "held"
    # Sensors fail, and a unit of samples takes its time: that is no reason to end a session.
    return "indeterminate" if Code.TELEMETRY_UNUSABLE in codes and codes <= _NOT_YET else "denied"


def _plain(item: _Said) -> strict.JsonObject:
    """As :func:`dataclasses.asdict`, without its copying: what these hold is plain already."""
    return {name: getattr(item, name) for name in _NAMES[type(item)]}
