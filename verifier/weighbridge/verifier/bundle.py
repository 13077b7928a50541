"""The proof bundle: one file from which a session's verdicts can be re-made with no network, years later.

Deterministic CBOR (``docs/protocol.md`` §9). It holds the enrolment, every window with its evidence, the records, an
inclusion proof for each under one checkpoint, the policy, all reference values that the records name (they may change
while a session lasts), and the declared manifests.

The procedure of :func:`verify`:

1.  The bundle is well-formed and bounded.
2.  The checkpoint is signed by a ``ledger`` anchor.
3.  Each record is the one a leaf commits to, and each leaf is in the tree of the checkpoint.
4.  The records are those of one session, in order, without a gap: an enrolment, windows 0 to n, perhaps a closing
    that counts them, or a fork that failed it.
5.  The terms are signed by a ``verifier`` anchor; the enrolment is verified again (:mod:`.replay`).
6.  Each window is verified again at its recorded receipt time and appraised under the given policy, by the reference
    values that its record names or by the caller's.
7.  Under the policy and values under which it was judged, each verdict is the recorded one. What is taken out of the
    bundle to judge by is what the records name (:meth:`BundleVerdict.require_recorded`, the caller's step).

What still rests on the verifier's word: the receipt times, that its challenges were random, that it had chosen the
credential's secret, that the answers which it expected to spot checks, and the reference sets by which it judged, were
their owners', and that the session had no windows after the last one shown. The ledger's witnesses limit the first two;
nothing in the bundle shows the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weighbridge.proto import strict
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence, WeighbridgeError
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.appraisal import Appraiser, Verdict, not_proven, refuse
from weighbridge.verifier.bundle_format import Bundle, Entry
from weighbridge.verifier.bundle_proof import evidence_of, open_checkpoint, proven_record, verifier_key
from weighbridge.verifier.clock import moment
from weighbridge.verifier.gpu.chain import ChainCache
from weighbridge.verifier.procedure import authenticate, fork, unknown_challenge
from weighbridge.verifier.published import Published
from weighbridge.verifier.record import NO_DIGEST, Leaf, Record
from weighbridge.verifier.replay import replay_enrolment, replay_window
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.archive import Records
    from weighbridge.verifier.ledger.reader import LedgerReader
    from weighbridge.verifier.session import Enrolled
    from weighbridge.verifier.tpm.ak import VerifiedAk

__all__ = ["Bundle", "BundleVerdict", "Entry", "assemble", "ending", "verify"]


@dataclass(frozen=True, slots=True)
class BundleVerdict:
    """What a bundle shows: the verdict on each window, made again.

    Attributes:
        session: whose windows they are.
        model: digest of the declared manifest.
        adapters: digests of the manifests that were declared beside it, loaded or not.
        verdicts: made now, in the order of the windows.
        origin: the ledger's name.
        size: the ledger's number of entries under the bundle's checkpoint.
        same_policy: whether each verdict could be compared with the recorded one, and is it.
        recorded_policy: whether every decision was made under the policy of the record.
        recorded_reference: whether every decision was made by the reference values of the record.
        ak: the attestation key that everything rests on, and why it is believed.
    """

    session: bytes
    model: bytes
    adapters: tuple[bytes, ...]
    verdicts: tuple[Verdict, ...]
    origin: str
    size: int
    same_policy: bool
    recorded_policy: bool
    recorded_reference: bool
    ak: VerifiedAk

    @property
    def not_proven(self) -> tuple[str, ...]:
        """What none of the verdicts shows: of the measuring code, what not all of them show."""
        codes = [verdict.attester_code for verdict in self.verdicts]
        unproven = next((code for code in codes if code is None or code.status != "proven"), None)
        return not_proven(self.ak, codes[0] if codes and unproven is None else None)

    @property
    def admitted(self) -> bool:
        """Whether every fresh window was affirmed, and there was one."""
        fresh = [verdict for verdict in self.verdicts if not verdict.held]
        return bool(fresh) and all(verdict.outcome == "affirmed" for verdict in fresh) and not self.denied

    @property
    def denied(self) -> tuple[Verdict, ...]:
        """The verdicts that refuse."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome == "denied")

    def require_recorded(self, *, policy: bool, reference: bool) -> None:
        """Require that what was taken out of the bundle to judge by is what the records name.

        Nothing else speaks for a bundle's policy and reference values: whoever wrote the file wrote them.

        Args:
            policy: whether the policy was the bundle's.
            reference: whether the reference values were.

        Raises:
            LedgerInconsistent: ``BUNDLE_VERDICT``.
        """
        for taken, same, message in (
            (policy, self.recorded_policy, "the bundle's policy is not the one that the records name"),
            (reference, self.recorded_reference, "the bundle's reference values are not those that the records name"),
        ):
            if taken and not same:
                raise LedgerInconsistent(
                    Code.BUNDLE_VERDICT,
                    message,
                    where="bundle",
                    hint="name your own: --policy and --reference",
                )


def assemble(
    records: Records,
    reader: LedgerReader,
    indices: Sequence[int],
    *,
    modules: Sequence[tuple[str, bytes]],
    references: Sequence[bytes] = (),
    manifests: Sequence[Manifest],
) -> Bundle:
    """The bundle of one session.

    Args:
        records: of the verifier that judged it.
        reader: a snapshot of its ledger, which proves every entry.
        indices: ledger indices of the enrolment, the windows of the chain and what ended it (:func:`ending`), in order.
        modules: the policy's modules, name and exact text.
        references: reference values, canonical JSON, that the verifier may not have kept; those that no record names
            are left out.
        manifests: the declared manifests.

    Raises:
        WeighbridgeError: as :class:`.Records`.
    """
    entries: list[Entry] = []
    given = {D("reference", data): data for data in references}
    used: dict[bytes, bytes] = {}
    published: dict[bytes, bytes] = {}
    for index in indices:
        record = records.record(index)
        if (named := record.reference) != NO_DIGEST and named not in used:
            used[named] = given.get(named) or records.reference(named)
        if record.collateral != NO_DIGEST and record.collateral not in published:
            published[record.collateral] = records.collateral(record.collateral).encode()
        evidence = None if record.evidence is None else records.evidence(record)
        entries.append(Entry(index, reader.inclusion_proof(index), record.encode(), evidence))
    return Bundle(
        checkpoint=reader.checkpoint.note,
        entries=tuple(entries),
        modules=tuple(modules),
        references=tuple(used.values()),
        manifests=tuple(manifest.pack() for manifest in manifests),
        collaterals=tuple(published.values()),
    )


def verify(bundle: Bundle, *, anchors: TrustAnchors, appraiser: Callable[[Bundle, bytes], Appraiser]) -> BundleVerdict:
    """Re-make every verdict of ``bundle``: the module's procedure from step 2.

    Args:
        bundle: parsed, untrusted.
        anchors: whose keys are believed: ledger, verifier, EK and GPU roots.
        appraiser: makes the appraiser that judges; given the bundle, so that it may take policy, reference values or
            manifests from it, and the digest of the reference values that the record names. Called once for each.

    Raises:
        MalformedEvidence: a part is not well-formed.
        NotAuthentic: a signature or binding does not hold.
        LedgerInconsistent: ``LEDGER_PROOF``, ``LEDGER_INCONSISTENT``; ``BUNDLE_VERDICT`` when the recorded verdict is
            not the one that evidence and policy give.
    """
    # 2.
    checkpoint, ledger = open_checkpoint(bundle.checkpoint, anchors)
    # 3.
    records = [proven_record(entry, checkpoint) for entry in bundle.entries]
    for record in records:
        # A key that was given up must not speak for what came later; when that was, only the records say.
        ledger.check_validity(moment(record.received_ns))
    # 4.
    windows = _check_order(bundle, records)
    # 5.
    replayed = replay_enrolment(
        records[0],
        evidence_of(bundle.entries[0]),
        anchors=anchors,
        verifier_key=verifier_key(records[0], anchors),
        collateral=bundle.collateral_named(records[0].collateral),
    )
    # 6. and 7.
    judges: dict[tuple[bytes, bytes], Appraiser] = {}
    enrolled, position, state = replayed.enrolled, replayed.position, SessionState.ENROLLED
    chains = ChainCache()
    verdicts: list[Verdict] = []
    same_policy = recorded_policy = recorded_reference = True
    digests: list[bytes] = []
    for seq, record, entry in windows:
        at, evidence = moment(record.received_ns), evidence_of(entry)
        try:
            _check_ending(record, evidence, enrolled, digests)
            verified = replay_window(
                record, evidence, enrolled=enrolled, position=position, anchors=anchors, chains=chains
            )
        except LedgerInconsistent:
            # Not a window that was refused, but a record that cannot be: nothing of the bundle is believed.
            raise
        except WeighbridgeError as error:
            verdict = refuse(error, enrolled=enrolled, seq=seq, received=at, held=record.held)
        else:
            key = record.reference, record.collateral
            if key not in judges:
                published = Published(bundle.collateral_named(record.collateral), anchors)
                judges[key] = replace(appraiser(bundle, record.reference), published=published)
            judge = judges[key]
            verdict = judge.appraise(verified, enrolled=enrolled, position=position, state=state, at=at)
            position = position.after(verified)
            digests.append(verified.digest)
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
        if same and verdict.encode() != record.verdict:
            raise LedgerInconsistent(
                Code.BUNDLE_VERDICT,
                "evidence and policy do not give the recorded verdict",
                where=f"window {seq}",
                expected=sha256(record.verdict),
                got=sha256(verdict.encode()),
            )
        verdicts.append(verdict)
    return BundleVerdict(
        session=enrolled.terms.session,
        model=enrolled.terms.model,
        adapters=enrolled.terms.adapters,
        verdicts=tuple(verdicts),
        origin=checkpoint.origin,
        size=checkpoint.size,
        same_policy=same_policy,
        recorded_policy=recorded_policy,
        recorded_reference=recorded_reference,
        ak=enrolled.ak,
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


def _check_ending(record: Record, evidence: bytes, enrolled: Enrolled, digests: Sequence[bytes]) -> None:
    """Raise what failed a session, where replaying its last window alone would not show it.

    A fork shows beside the window that was there first. That a challenge was not issued is the verifier's word, as it
    is that the others were.
    """
    seq = record.seq or 0
    if seq >= len(digests) and not _refused_for(record, Code.CHALLENGE_UNKNOWN):
        return
    window = authenticate(evidence, enrolled=enrolled, peer=enrolled.terms.peer)
    if seq >= len(digests):
        raise unknown_challenge(window.header)
    if window.header.seq != seq or window.digest == digests[seq]:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT, "recorded twice, and not a fork", where=f"window {seq}", got=window.digest
        )
    raise fork(window, digests[seq])


def _refused_for(record: Record, code: Code) -> bool:
    """Whether the recorded verdict is a refusal of a held window for ``code`` and nothing else."""
    if not record.held or record.policy != NO_DIGEST:
        return False
    document = strict.json_decode(record.verdict, what="verdict")
    denials = document.get("denials") if isinstance(document, dict) else None
    return (
        isinstance(denials, list)
        and len(denials) == 1
        and isinstance(denials[0], dict)
        and denials[0].get("code") == code.value
    )


def _same_policy(record: Record, verdict: Verdict) -> bool:
    policy = NO_DIGEST if verdict.decision is None else verdict.decision.policy_digest
    return (record.policy, record.reference) == (policy, verdict.reference or NO_DIGEST)


def _check_order(bundle: Bundle, records: Sequence[Record]) -> list[tuple[int, Record, Entry]]:
    """The windows and their numbers, once the records are those of one session from its enrolment on, without a gap.

    The last may have the number of an earlier one: a fork, by which the session failed.
    """
    if not records or records[0].kind != "enrolment":
        raise MalformedEvidence(
            Code.BUNDLE_MALFORMED, "the bundle does not begin with an enrolment", where="bundle.entries"
        )
    last = len(records) - 1 if records[-1].kind == "closing" else len(records)
    windows: list[tuple[int, Record, Entry]] = []
    for seq, (record, entry) in enumerate(zip(records[1:last], bundle.entries[1:last], strict=True)):
        forked = seq + 2 == len(records) and record.seq is not None and record.seq < seq
        if record.kind != "window" or (record.seq != seq and not forked):
            raise MalformedEvidence(
                Code.BUNDLE_MALFORMED,
                "windows are missing or out of order",
                where=f"entry {entry.index}",
                expected=seq,
                got=record.seq,
            )
        windows.append((record.seq or 0, record, entry))
    if last < len(records) and records[last].seq != len(windows):
        raise MalformedEvidence(
            Code.BUNDLE_MALFORMED,
            "windows before the closing are missing",
            where="bundle.entries",
            expected=records[last].seq,
            got=len(windows),
        )
    if {record.session for record in records} != {records[0].session}:
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "the records are of several sessions", where="bundle.entries")
    indices = [entry.index for entry in bundle.entries]
    if indices != sorted(set(indices)):
        raise MalformedEvidence(
            Code.BUNDLE_MALFORMED, "the entries are not in the ledger's order", where="bundle.entries"
        )
    return windows
