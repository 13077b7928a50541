"""The proof bundle: one file from which a session's verdicts can be re-made with no network, years later.

Deterministic CBOR (``docs/protocol.md`` §9). It holds the enrolment, every window with its evidence, the records, an
inclusion proof for each under one checkpoint, all policies and reference values that the records name (they may change
while a session lasts), and the declared manifests.

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

What still rests on the verifier's word: the receipt times, that its challenges were random, that it had chosen the
credential's secret, that the answers which it expected to spot checks, the reference sets and baselines by which it
judged and the policy bundles that its verdicts name were their owners', that no newer collateral was at hand, and that
the session had no windows after the last one shown. The ledger's witnesses limit the first two; nothing in the bundle
shows the rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, LedgerInconsistent, WeighbridgeError
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.window import Evidence
from weighbridge.verifier import bundle_checks
from weighbridge.verifier.appraisal import Appraiser, Verdict, refuse
from weighbridge.verifier.bundle_format import Bundle, Entry
from weighbridge.verifier.bundle_proof import evidence_of, open_bundle, recorded_baselines, walk
from weighbridge.verifier.bundle_verdict import BundleVerdict, BundleWindow
from weighbridge.verifier.check_tree import Check
from weighbridge.verifier.published import Published
from weighbridge.verifier.record import NO_DIGEST, Leaf, Record
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.policy.policy_set import PolicyFiles
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.archive import Records
    from weighbridge.verifier.bundle_checks import Trail
    from weighbridge.verifier.bundle_proof import Step
    from weighbridge.verifier.ledger.reader import LedgerReader

__all__ = ["Bundle", "BundleVerdict", "BundleWindow", "Entry", "assemble", "ending", "verify"]


def assemble(
    records: Records,
    reader: LedgerReader,
    indices: Sequence[int],
    *,
    policies: Sequence[PolicyFiles] = (),
    references: Sequence[bytes] = (),
    manifests: Sequence[Manifest],
) -> Bundle:
    """The bundle of one session.

    Args:
        records: of the verifier that judged it.
        reader: a snapshot of its ledger, which proves every entry.
        indices: ledger indices of the enrolment, the windows of the chain and what ended it (:func:`ending`), in order.
        policies: files of policies that the verifier may not have kept; those that no record names are left out.
        references: reference values, canonical JSON, likewise.
        manifests: the declared manifests.

    Raises:
        WeighbridgeError: as :class:`.Records`.
    """
    entries: list[Entry] = []
    given = {D("reference", data): data for data in references}
    given_files = {D("policy", [[name, content] for name, content in files]): files for files in map(_sorted, policies)}
    judged: dict[bytes, PolicyFiles] = {}
    used: dict[bytes, bytes] = {}
    published: dict[bytes, bytes] = {}
    baselines: dict[bytes, bytes] = {}
    for index in indices:
        record = records.record(index)
        if record.policy != NO_DIGEST and record.policy not in judged:
            judged[record.policy] = given_files.get(record.policy) or records.policy(record.policy)
        if (named := record.reference) != NO_DIGEST and named not in used:
            used[named] = given.get(named) or records.reference(named)
            for baseline in Reference.recorded(used[named]).baselines:
                digest = strict.hex_decode(baseline.digest, what="baseline.digest")
                if digest not in baselines:
                    baselines[digest] = records.baseline(digest)
        if record.collateral != NO_DIGEST and record.collateral not in published:
            published[record.collateral] = records.collateral(record.collateral).encode()
        evidence = None if record.evidence is None else records.evidence(record)
        entries.append(Entry(index, reader.inclusion_proof(index), record.encode(), evidence))
    return Bundle(
        checkpoint=reader.checkpoint.note,
        entries=tuple(entries),
        policies=tuple(judged.values()),
        references=tuple(used.values()),
        manifests=tuple(manifest.pack() for manifest in manifests),
        collaterals=tuple(published.values()),
        baselines=tuple(baselines.values()),
    )


def verify(
    bundle: Bundle,
    *,
    anchors: TrustAnchors,
    appraiser: Callable[[Bundle, bytes, bytes], Appraiser],
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
        trail: is told how far this came, for the checks of a bundle that is refused.

    Raises:
        MalformedEvidence: a part is not well-formed.
        NotAuthentic: a signature or binding does not hold.
        LedgerInconsistent: ``LEDGER_PROOF``, ``LEDGER_INCONSISTENT``; ``BUNDLE_VERDICT`` when the recorded verdict is
            not the one that evidence and policy give.
    """
    trail = trail or bundle_checks.Trail()
    # 2. to 5.
    opened = open_bundle(bundle, anchors, trail=trail)
    trail.stage = "windows"
    # 6. and 7.
    judges: dict[tuple[bytes, bytes, bytes], Appraiser] = {}
    policy = next((record.policy for _, record, _ in opened.windows if record.policy != NO_DIGEST), NO_DIGEST)
    enrolled, state = opened.replayed.enrolled, SessionState.ENROLLED
    tally, windows = bundle_checks.Tally(), list[BundleWindow]()
    same_policy = recorded_policy = recorded_reference = True
    given = ((seq, record, evidence_of(entry)) for seq, record, entry in opened.windows)
    steps = walk(given, opened.replayed, anchors, recorded_baselines(bundle))
    for step, (_, _, entry) in zip(steps, opened.windows, strict=True):
        seq, record, verified = step.seq, step.record, step.window
        if isinstance(verified, WeighbridgeError):
            verdict = refuse(verified, enrolled=enrolled, seq=seq, received=step.at, held=record.held)
        else:
            tally.add(verified)
            policy = record.policy if record.policy != NO_DIGEST else policy
            key = policy, record.reference, record.collateral
            if key not in judges:
                made = appraiser(bundle, record.reference, policy)
                if made.published.digest == NO_DIGEST:
                    made = replace(made, published=Published(bundle.collateral_named(record.collateral), anchors))
                judges[key] = made
            judge = judges[key]
            verdict = judge.appraise(
                verified,
                enrolled=enrolled,
                position=step.position,
                state=state,
                physical=step.physical,
                at=step.at,
            )
            verdict = _in_its_revision(verdict, record)
            state = (
                SessionState.RUNNING
                if verdict.opens
                else SessionState.MEASURED
                if state is SessionState.ENROLLED
                else state
            )
        same = _same_policy(record, verdict)
        same_policy = same_policy and same
        if (decision := verdict.decision) is not None:
            recorded_policy = recorded_policy and decision.policy_digest == record.policy
        recorded_reference = recorded_reference and verdict.reference in {None, record.reference}
        if same and verdict.encode() != record.verdict and not _by_another_engine(record, verdict):
            raise LedgerInconsistent(
                Code.BUNDLE_VERDICT,
                "evidence and policy do not give the recorded verdict",
                where=f"window {seq}",
                expected=sha256(record.verdict),
                got=sha256(verdict.encode()),
            )
        windows.append(_window(step, entry, verdict, same=same))
    return BundleVerdict(
        terms=enrolled.terms,
        gpus=enrolled.gpus,
        windows=tuple(windows),
        origin=opened.checkpoint.origin,
        size=opened.checkpoint.size,
        same_policy=same_policy,
        recorded_policy=recorded_policy,
        recorded_reference=recorded_reference,
        ak=enrolled.ak,
        checks=(
            Check("bundle", "passed", f"{len(bundle.entries)} entries, well-formed"),
            bundle_checks.ledger(opened, len(bundle.entries)),
            bundle_checks.enrolment(enrolled),
            bundle_checks.windows(windows, tally),
        ),
    )


def ending(reader: LedgerReader, session: bytes, *, after: int, seq: int) -> tuple[int, ...]:
    """Where the ledger says how a session ended: the window that failed it, or its closing.

    Neither continues its chain, so nobody else remembers them. A window that was recorded twice, because power failed
    before the session knew of it, is named where it was recorded last.

    Args:
        reader: of the ledger.
        session: 16 bytes.
        after: ledger index of its last window in the chain, or of its enrolment.
        seq: the number of windows in the chain.
    """
    last: dict[int, int] = {}
    others: list[int] = []
    for index in range(after + 1, reader.checkpoint.size):
        leaf = Leaf.parse(reader.entry(index))
        if leaf.session != session:
            continue
        if leaf.kind == "window" and leaf.seq is not None and leaf.seq >= seq:
            last[leaf.seq] = index
        else:
            others.append(index)
    return tuple(sorted([*last.values(), *others]))


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
        same=same or None,
    )


def _sorted(files: PolicyFiles) -> PolicyFiles:
    return tuple(sorted(files))


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
