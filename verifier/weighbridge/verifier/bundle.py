"""The proof bundle: one file from which a session's verdicts can be re-made with no network, years later.

Deterministic CBOR (``docs/protocol.md`` §9). It holds the enrolment, every window with its evidence, the records, an
inclusion proof for each under one checkpoint, all policies and reference values that the records name (they may change
while a session lasts), and the declared manifests. Of windows that are withheld it has the leaves.

The procedure of :func:`verify`:

1.  The bundle is well-formed and bounded.
2.  The checkpoint is signed by a ``ledger`` anchor.
3.  Each record is the one a leaf commits to, and each leaf is in the tree of the checkpoint.
4.  The records are those of one session, in order, without a gap: an enrolment, windows 0 to n, perhaps a closing
    that counts them, or a fork that failed it.
5.  The terms are signed by a ``verifier`` anchor; the enrolment is verified again (:mod:`.replay`).
6.  Each window is verified again at its recorded receipt time and appraised under the policy, by the reference values
    and the collateral that its record names or by the caller's, and by the baselines that the recorded values name.
7.  Under the policy and values under which it was judged, each verdict is the recorded one. What is taken out of the
    bundle to judge by is what the records name (:meth:`BundleVerdict.require_recorded`, the caller's step).
8.  Where windows are withheld, steps 6 and 7 go as far as the first of them. Those behind it that are shown are
    verified as far as they can be alone (:mod:`.disclosed`); their verdicts are the recorded ones, not made again.
9.  Requests that are shown are among those that their windows' headers count. Nothing in the bundle is there twice, or
    for nothing.

What still rests on the verifier's word: the receipt times, that its challenges were random, that it had chosen the
credential's secret, that the answers which it expected to spot checks, the reference sets and baselines by which it
judged and the policy bundles that its verdicts name were their owners', and that no newer collateral was at hand. The
ledger's witnesses limit the first two; nothing in the bundle shows the rest. That the session had no windows after the
last one, its closing says; without one it is the word of whoever gave the file, who can cut off its end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, final

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import (
    Code,
    Indeterminate,
    LedgerInconsistent,
    MalformedEvidence,
    NotAuthentic,
    WeighbridgeError,
)
from weighbridge.proto.window import Evidence
from weighbridge.verifier import bundle_checks
from weighbridge.verifier.appraisal import Appraiser, Verdict, refuse
from weighbridge.verifier.bundle_assembly import assemble, ending
from weighbridge.verifier.bundle_format import Bundle, Entry
from weighbridge.verifier.bundle_order import check_members
from weighbridge.verifier.bundle_proof import evidence_of, open_bundle, recorded_baselines, walk
from weighbridge.verifier.bundle_verdict import BundleVerdict, BundleWindow
from weighbridge.verifier.check_tree import Check
from weighbridge.verifier.clock import moment
from weighbridge.verifier.disclosed import check_requests, verify_alone
from weighbridge.verifier.gpu.chain import ChainCache
from weighbridge.verifier.published import Published
from weighbridge.verifier.record import NO_DIGEST, Record
from weighbridge.verifier.recorded import read_verdict
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.witnesses import verified_lines
from weighbridge.verifier.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.bundle_checks import Trail
    from weighbridge.verifier.bundle_proof import OpenedBundle, Step

__all__ = ["Bundle", "BundleVerdict", "BundleWindow", "Entry", "assemble", "ending", "verify"]


def verify(
    bundle: Bundle,
    *,
    anchors: TrustAnchors,
    appraiser: Callable[[Bundle, bytes, bytes], Appraiser],
    at: datetime | None = None,
    trail: Trail | None = None,
) -> BundleVerdict:
    """Re-make every verdict of ``bundle``: the module's procedure from step 2.

    Args:
        bundle: parsed, untrusted.
        anchors: whose keys are believed: ledger, verifier, EK and GPU roots.
        appraiser: makes the appraiser that judges; given the bundle, so that it may take policy, reference values or
            manifests from it, and the digests of the reference values and of the policy that the record names.
            Called once for each. One that brings no collateral judges by what the record names. Where an invariant
            refused before any policy, the policy is the one that judged before, zeros where none ever did.
        at: the time from which one looks; ``None`` for whatever time the records say.
        trail: is told how far this came, for the checks of a bundle that is refused.

    Raises:
        MalformedEvidence: a part is not well-formed.
        NotAuthentic: a signature or binding does not hold; ``BUNDLE_REQUEST``.
        LedgerInconsistent: ``LEDGER_PROOF``, ``LEDGER_INCONSISTENT``; ``BUNDLE_VERDICT`` when the recorded verdict is
            not the one that evidence and policy give.
        Indeterminate: ``BUNDLE_FUTURE``; ``BUNDLE_WITHHELD`` for a redacted bundle.
    """
    trail = trail or bundle_checks.Trail()
    # 2. to 5.
    opened = open_bundle(bundle, anchors, partial=True, trail=trail)
    if at is not None:
        _require_before(opened, at)
    trail.stage = "windows"
    # 6. and 7.
    enrolled, tally = opened.replayed.enrolled, bundle_checks.Tally()
    judging = _Judging(bundle, opened, anchors, appraiser)
    windows: list[BundleWindow] = []
    given = ((seq, record, evidence_of(entry)) for seq, record, entry in opened.windows)
    steps = walk(given, opened.replayed, anchors, recorded_baselines(bundle))
    for step, (_, _, entry) in zip(steps, opened.windows, strict=True):
        if not isinstance(step.window, WeighbridgeError):
            tally.add(step.window)
        windows.append(judging.judge(step, entry))
    # 8.
    windows += _alone(opened, anchors, tally)
    # 9.
    check_requests(bundle.requests, {item.seq: item.header for item in windows if item.header is not None})
    records = (opened.enrolment, *(record for _, record, _ in (*opened.windows, *opened.beyond)))
    check_members(bundle, records)
    return BundleVerdict(
        terms=enrolled.terms,
        gpus=enrolled.gpus,
        windows=tuple(windows),
        origin=opened.checkpoint.origin,
        size=opened.checkpoint.size,
        same_policy=judging.same_policy,
        recorded_policy=judging.recorded_policy,
        recorded_reference=judging.recorded_reference,
        ak=enrolled.ak,
        withheld=len(opened.withheld),
        closed=opened.closed,
        requests=bundle.requests,
        cosigned=tuple(item.key.name for item in opened.cosigned),
        checkpoint=verified_lines(opened.checkpoint, opened.cosigned),
        checks=(
            Check(
                "bundle",
                "passed",
                f"{counted(len(bundle.entries), 'judgement')} shown, {len(bundle.withheld)} withheld",
            ),
            bundle_checks.ledger(opened, len(bundle.entries)),
            bundle_checks.enrolment(enrolled),
            bundle_checks.windows(windows, tally, withheld=len(opened.withheld)),
            *bundle_checks.requests(bundle.requests),
        ),
    )


@final
class _Judging:
    """Steps 6 and 7, window by window; what of the recorded was met again."""

    def __init__(
        self,
        bundle: Bundle,
        opened: OpenedBundle,
        anchors: TrustAnchors,
        appraiser: Callable[[Bundle, bytes, bytes], Appraiser],
    ) -> None:
        self._bundle = bundle
        self._anchors = anchors
        self._appraiser = appraiser
        self._enrolled = opened.replayed.enrolled
        self._state = SessionState.ENROLLED
        self._lacking: dict[bytes, bool] = {}
        self._judges: dict[tuple[bytes, bytes, bytes], Appraiser] = {}
        judged = (record.policy for _, record, _ in opened.windows if record.policy != NO_DIGEST)
        self._policy = next(judged, NO_DIGEST)
        self.same_policy = self.recorded_policy = self.recorded_reference = True

    def judge(self, step: Step, entry: Entry) -> BundleWindow:
        """The verdict on the window of ``step``, compared with the recorded one.

        Raises:
            LedgerInconsistent: ``BUNDLE_VERDICT``.
        """
        record, verdict = step.record, self._verdict(step)
        self._check_baselines(step, verdict)
        same = _same_policy(record, verdict)
        self.same_policy = self.same_policy and same
        if (decision := verdict.decision) is not None:
            self.recorded_policy = self.recorded_policy and decision.policy_digest == record.policy
        self.recorded_reference = self.recorded_reference and verdict.reference in {None, record.reference}
        if same and verdict.encode() != record.verdict and not _by_another_engine(record, verdict):
            raise LedgerInconsistent(
                Code.BUNDLE_VERDICT,
                "evidence and policy do not give the recorded verdict",
                where=f"window {step.seq}",
                expected=sha256(record.verdict),
                got=sha256(verdict.encode()),
            )
        return _window(step, entry, verdict, same=same)

    def _check_baselines(self, step: Step, verdict: Verdict) -> None:
        """Require of a bundle that leaves out baseline sets that they say nothing of its GPUs, whoever's policy judges.

        Raises:
            LedgerInconsistent: ``BUNDLE_VERDICT``.
        """
        named = step.record.reference
        if named not in self._lacking:
            self._lacking[named] = self._bundle.lacks_baselines(named)
        if not self._lacking[named] or verdict.physical is None:
            return
        recorded = read_verdict(step.record.verdict)["physical"]
        if recorded is not None and recorded != verdict.physical.document():
            raise LedgerInconsistent(
                Code.BUNDLE_VERDICT,
                "a baseline set is left out that says something of the session's GPUs",
                where=f"window {step.seq}",
            )

    def _verdict(self, step: Step) -> Verdict:
        record, verified = step.record, step.window
        if isinstance(verified, WeighbridgeError):
            return refuse(verified, enrolled=self._enrolled, seq=step.seq, received=step.at, held=record.held)
        verdict = self._judge_of(record).appraise(
            verified,
            enrolled=self._enrolled,
            position=step.position,
            state=self._state,
            physical=step.physical,
            at=step.at,
        )
        if verdict.opens:
            self._state = SessionState.RUNNING
        elif self._state is SessionState.ENROLLED:
            self._state = SessionState.MEASURED
        return _in_its_revision(verdict, record)

    def _judge_of(self, record: Record) -> Appraiser:
        self._policy = record.policy if record.policy != NO_DIGEST else self._policy
        key = self._policy, record.reference, record.collateral
        if key not in self._judges:
            made = self._appraiser(self._bundle, record.reference, self._policy)
            if made.published.digest == NO_DIGEST:
                published = Published(self._bundle.collateral_named(record.collateral), self._anchors)
                made = replace(made, published=published)
            self._judges[key] = made
        return self._judges[key]


def _alone(opened: OpenedBundle, anchors: TrustAnchors, tally: bundle_checks.Tally) -> Iterator[BundleWindow]:
    """Step 8."""
    chains, before = ChainCache(), None
    for seq, record, entry in opened.beyond:
        recorded = read_verdict(record.verdict)
        try:
            before = verify_alone(
                evidence_of(entry),
                record,
                enrolled=opened.replayed.enrolled,
                anchors=anchors,
                before=before,
                chains=chains,
            )
        except (MalformedEvidence, NotAuthentic) as error:
            if recorded["outcome"] != "denied":
                raise
            before, shown = None, None
            tally.refused(seq, error)
        else:
            shown = before
            tally.add_alone(before)
        yield BundleWindow(
            seq=seq,
            index=entry.index,
            received=moment(record.received_ns),
            header=None if shown is None else shown.header,
            samples=None if shown is None else shown.samples,
            verdict=None,
            recorded=recorded,
            same=None,
        )


def _require_before(opened: OpenedBundle, at: datetime) -> None:
    """Require that nothing was recorded after ``at``."""
    records = (record for _, record, _ in (*opened.windows, *opened.beyond))
    latest = max(
        opened.enrolment.received_ns,
        *(record.received_ns for record in records),
        *(leaf.received_ns for leaf in opened.withheld),
        0,
    )
    if moment(latest) > at:
        raise Indeterminate(
            Code.BUNDLE_FUTURE,
            "recorded after the time from which you look",
            where="bundle.entries",
            expected=f"<= {strict.time_encode(at)}",
            got=strict.time_encode(moment(latest)),
            hint="name a later time: --at; or the verifier's clock, or yours, is wrong",
        )


def _window(step: Step, entry: Entry, verdict: Verdict, *, same: bool) -> BundleWindow:
    """What is shown of a window that was judged again."""
    verified = None if isinstance(step.window, WeighbridgeError) else step.window
    return BundleWindow(
        seq=step.seq,
        index=entry.index,
        received=step.at,
        header=None if verified is None else verified.header,
        samples=None if verified is None else Evidence.parse(evidence_of(entry)).telemetry,
        verdict=verdict,
        recorded=read_verdict(step.record.verdict),
        same=same or None,
    )


def _in_its_revision(verdict: Verdict, record: Record) -> Verdict:
    """``verdict`` with the bundle in which the policy came, by the recorded one's word, if that policy has decided."""
    decision = verdict.decision
    if decision is None or decision.policy_digest != record.policy:
        return verdict
    return replace(verdict, decision=replace(decision, revision=record.revision))


def _same_policy(record: Record, verdict: Verdict) -> bool:
    policy = NO_DIGEST if verdict.decision is None else verdict.decision.policy_digest
    recorded = record.policy, record.reference, record.collateral
    return recorded == (policy, verdict.reference or NO_DIGEST, verdict.collateral or NO_DIGEST)


def _by_another_engine(record: Record, verdict: Verdict) -> bool:
    """Whether the recorded verdict is another engine's, or another build's, and differs in its name and words alone."""
    decision = verdict.decision
    match strict.json_decode(record.verdict, what="verdict"):
        case {"policy": {"engine": str(engine), "detail": str(detail)}} if decision is not None:
            if engine == f"{decision.engine} {decision.engine_version}":
                return False
            name, _, version = engine.partition(" ")
            named = replace(decision, engine=name, engine_version=version, detail=detail)
            return replace(verdict, decision=named).encode() == record.verdict
        case _:
            return False
