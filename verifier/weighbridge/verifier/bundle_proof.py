"""What is proven of a bundle before anything in it is judged: that a trusted ledger has its records, in their order.

Steps 2 to 5 of the procedure of :mod:`.bundle` (:func:`open_bundle`), and what of step 6 takes no policy; and
:func:`open_enrolment`, for those who want the enrolment only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.proto import cose, limits, note, strict, tlog
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.enrolment import EnrolmentProof
from weighbridge.proto.errors import (
    Code,
    Indeterminate,
    LedgerInconsistent,
    MalformedEvidence,
    NotAuthentic,
    WeighbridgeError,
)
from weighbridge.proto.merkle import leaf_hash, verify_inclusion
from weighbridge.proto.terms import TERMS_TYP
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.bundle_checks import Trail
from weighbridge.verifier.bundle_order import Place, check_manifests, check_order, in_order
from weighbridge.verifier.clock import moment
from weighbridge.verifier.gpu.chain import ChainCache
from weighbridge.verifier.procedure import authenticate, fork
from weighbridge.verifier.record import NO_DIGEST, Leaf, Record
from weighbridge.verifier.replay import (
    RecordedBaselines,
    ReplayedEnrolment,
    check_previous,
    replay_enrolment,
    replay_telemetry,
    replay_window,
)
from weighbridge.verifier.telemetry.appraisal import TelemetryAppraisal
from weighbridge.verifier.window_claims import unknown_challenge
from weighbridge.verifier.witnesses import cosignatures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.proto.cosignature import VerifiedCosignature
    from weighbridge.verifier.anchors import Anchor, TrustAnchors
    from weighbridge.verifier.bundle_format import Bundle, Entry, Withheld
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled, Position

__all__ = [
    "OpenedBundle",
    "Step",
    "check_ending",
    "evidence_of",
    "open_bundle",
    "open_checkpoint",
    "open_enrolment",
    "proven_leaf",
    "proven_record",
    "recorded_baselines",
    "trusted_verifier",
    "verifier_key",
    "walk",
]


@dataclass(frozen=True, slots=True)
class OpenedBundle:
    """A bundle whose records a trusted ledger has. Made by :func:`open_bundle`; no window is verified yet.

    Attributes:
        checkpoint: the ledger's.
        enrolment: the record of the enrolment.
        windows: number, record and entry of each, in order. The last may have the number of an earlier one: a fork, by
            which the session failed.
        replayed: the enrolment, verified again.
        closed: whether a closing counts the windows.
        beyond: those that are shown behind one that is withheld, likewise.
        withheld: the leaves of what is not shown, in order.
        cosigned: by which of the witnesses that were trusted then the checkpoint is cosigned.
    """

    checkpoint: tlog.VerifiedCheckpoint
    enrolment: Record
    windows: tuple[tuple[int, Record, Entry], ...]
    replayed: ReplayedEnrolment
    closed: bool
    beyond: tuple[tuple[int, Record, Entry], ...] = ()
    withheld: tuple[Leaf, ...] = ()
    cosigned: tuple[VerifiedCosignature, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One window on the way through a session.

    Attributes:
        seq: its number.
        record: what the ledger commits to.
        at: the recorded receipt time.
        position: where the chain stood before it.
        window: verified again, or what its verification refused it for.
        physical: what its samples say; nothing where it is not verified.
    """

    seq: int
    record: Record
    at: datetime
    position: Position
    window: VerifiedWindow | WeighbridgeError
    physical: TelemetryAppraisal


def open_bundle(
    bundle: Bundle, anchors: TrustAnchors, *, partial: bool = False, trail: Trail | None = None
) -> OpenedBundle:
    """Steps 2 to 5 of the procedure of :mod:`.bundle`.

    Args:
        bundle: parsed, untrusted.
        anchors: whose keys are believed.
        partial: whether a bundle will do in which windows are withheld.
        trail: is told how far this came.

    Raises:
        MalformedEvidence: a part is not well-formed.
        NotAuthentic: a signature or binding does not hold.
        LedgerInconsistent: ``LEDGER_PROOF``, ``LEDGER_INCONSISTENT``; ``BUNDLE_VERDICT`` where the collateral that the
            enrolment names is not there.
        Indeterminate: ``BUNDLE_WITHHELD``.
    """
    trail = trail or Trail()
    # 2.
    trail.stage = "ledger"
    checkpoint, ledger = open_checkpoint(bundle.checkpoint, anchors)
    cosigned = cosignatures(checkpoint, anchors)
    # 3.
    records = [proven_record(entry, checkpoint) for entry in bundle.entries]
    leaves = [proven_leaf(item, checkpoint) for item in bundle.withheld]
    for received_ns in [record.received_ns for record in records] + [leaf.received_ns for leaf in leaves]:
        # A key that was given up must not speak for what came later; when that was, only the records say.
        ledger.check_validity(moment(received_ns))
    # 4.
    places = in_order(bundle, records, leaves)
    check_order(places)
    trail.stage = "enrolment"
    if bundle.redaction is not None or places[0].shown is None:
        raise _withheld("the bundle is redacted: its evidence is withheld", "enrolment")
    if bundle.withheld and not partial:
        raise _withheld("windows of the session are withheld", f"entry {bundle.withheld[0].index}")
    # 5.
    replayed = replay_enrolment(
        records[0],
        evidence_of(bundle.entries[0]),
        anchors=anchors,
        verifier_key=verifier_key(records[0], anchors),
        collateral=bundle.collateral_named(records[0].collateral),
    )
    check_manifests(bundle, replayed.enrolled.terms)
    until = next((number for number, place in enumerate(places) if place.shown is None), len(places))
    return OpenedBundle(
        checkpoint=checkpoint,
        enrolment=records[0],
        windows=_shown(places[:until]),
        replayed=replayed,
        closed=places[-1].kind == "closing",
        beyond=_shown(places[until:]),
        withheld=tuple(leaves),
        cosigned=cosigned,
    )


def open_enrolment(bundle: Bundle, anchors: TrustAnchors) -> tuple[ReplayedEnrolment, EnrolmentProof, Record]:
    """The enrolment with which ``bundle`` begins, verified again; nothing that comes after it is looked at.

    Raises:
        MalformedEvidence: a part is not well-formed; ``BUNDLE_MALFORMED`` where there is no enrolment.
        NotAuthentic: a signature or binding does not hold.
        LedgerInconsistent: ``LEDGER_PROOF``, ``LEDGER_INCONSISTENT``.
    """
    checkpoint, ledger = open_checkpoint(bundle.checkpoint, anchors)
    if not bundle.entries:
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "the bundle is empty", where="bundle.entries")
    record, proof = proven_record(bundle.entries[0], checkpoint), evidence_of(bundle.entries[0])
    ledger.check_validity(moment(record.received_ns))
    replayed = replay_enrolment(
        record,
        proof,
        anchors=anchors,
        verifier_key=verifier_key(record, anchors),
        collateral=bundle.collateral_named(record.collateral),
    )
    return replayed, EnrolmentProof.parse(proof), record


def open_checkpoint(data: bytes, anchors: TrustAnchors) -> tuple[tlog.VerifiedCheckpoint, Anchor]:
    """The checkpoint, and the ``ledger`` anchor whose key has signed it.

    Raises:
        MalformedEvidence: ``data`` is no signed note.
        NotAuthentic: ``CHAIN_UNTRUSTED``, or as :func:`.tlog.open_checkpoint`.
    """
    candidates = anchors.select("ledger")
    names = {signature.claimed_name for signature in note.parse(data).signatures}
    for anchor in candidates:
        if anchor.name in names:
            key = note.NoteKey.from_spki(anchor.name, anchor.spki)
            return tlog.open_checkpoint(data, key, origin=anchor.name), anchor
    raise NotAuthentic(
        Code.CHAIN_UNTRUSTED,
        "the ledger is not trusted",
        where="checkpoint",
        expected=", ".join(anchor.name for anchor in candidates) or "a ledger anchor",
        got=", ".join(sorted(names)),
        hint="name the anchors of the verifier that kept it: --anchors",
    )


def verifier_key(record: Record, anchors: TrustAnchors) -> ec.EllipticCurvePublicKey:
    """The trusted key that the terms of ``record`` name; whether it signed them is checked with the terms.

    Raises:
        MalformedEvidence: the terms are no signed message.
        NotAuthentic: ``CHAIN_UNTRUSTED``, ``CHAIN_EXPIRED``.
    """
    claimed = cose.parse(record.terms or b"", typ=TERMS_TYP, limit=limits.TERMS_MAX, what="terms").claimed_kid
    return trusted_verifier(claimed, anchors, at=moment(record.received_ns), where="terms")


def trusted_verifier(claimed: bytes, anchors: TrustAnchors, *, at: datetime, where: str) -> ec.EllipticCurvePublicKey:
    """The ``verifier`` anchor's key of thumbprint ``claimed``, which is believed at ``at``.

    Raises:
        NotAuthentic: ``CHAIN_UNTRUSTED``, ``CHAIN_EXPIRED``.
    """
    for anchor in anchors.select("verifier"):
        if sha256(anchor.spki) == claimed:
            anchor.check_validity(at)
            return cose.load_p256(anchor.spki, what=f"anchor {anchor.name}")
    raise NotAuthentic(
        Code.CHAIN_UNTRUSTED,
        f"the verifier that signed the {where} is not trusted",
        where=where,
        got=claimed,
        hint="name the anchors of the verifier that kept it: --anchors",
    )


def proven_record(entry: Entry, checkpoint: tlog.VerifiedCheckpoint) -> Record:
    """The record of ``entry``, which a leaf of the checkpoint's tree commits to, with the evidence beside it.

    Raises:
        MalformedEvidence: it is no record.
        LedgerInconsistent: ``LEDGER_PROOF``, ``LEDGER_INCONSISTENT``.
    """
    record = Record.parse(entry.record)
    leaf = leaf_hash(Leaf.of(record).encode())
    verify_inclusion(leaf, entry.proof, index=entry.index, size=checkpoint.size, root=checkpoint.root)
    digest = None if entry.evidence is None else sha256(entry.evidence)
    if digest != record.evidence:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "the evidence is not that of the record",
            where=f"entry {entry.index}",
            expected=record.evidence,
            got=digest,
        )
    return record


def proven_leaf(item: Withheld, checkpoint: tlog.VerifiedCheckpoint) -> Leaf:
    """The leaf of ``item``, which is in the checkpoint's tree; nothing is known of the record that it commits to.

    Raises:
        MalformedEvidence: it is no leaf.
        LedgerInconsistent: ``LEDGER_PROOF``.
    """
    leaf = Leaf.parse(item.leaf)
    verify_inclusion(leaf_hash(item.leaf), item.proof, index=item.index, size=checkpoint.size, root=checkpoint.root)
    return leaf


def evidence_of(entry: Entry) -> bytes:
    """The evidence of ``entry``.

    Raises:
        MalformedEvidence: ``BUNDLE_MALFORMED`` where it has none.
    """
    if entry.evidence is None:
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "evidence is missing", where=f"entry {entry.index}")
    return entry.evidence


def recorded_baselines(bundle: Bundle) -> RecordedBaselines:
    """The baselines that the reference values name by which the windows of ``bundle`` were judged.

    Whoever judges by values of his own needs none of the bundle's; where it has not those of a record, there is none.
    """
    there = {D("reference", data) for data in bundle.references}
    return RecordedBaselines(lambda named: bundle.baselines_named(named) if named in there else Baselines())


def check_ending(record: Record, evidence: bytes, enrolled: Enrolled, digests: Sequence[bytes]) -> None:
    """Raise what failed a session, where replaying its last window alone would not show it.

    A fork shows beside the window that was there first. That a challenge was not issued is the verifier's word, as it
    is that the others were.
    """
    check_previous(record, digests[-1] if digests else None)
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


def walk(
    windows: Iterable[tuple[int, Record, bytes]],
    replayed: ReplayedEnrolment,
    anchors: TrustAnchors,
    baselines: RecordedBaselines,
) -> Iterator[Step]:
    """Each window of a session verified again at its recorded receipt time, where the chain then stood.

    Args:
        windows: number, record and evidence of each, in order, committed to by a trusted ledger.
        replayed: the enrolment, verified again.
        anchors: whose keys are believed.
        baselines: those by which the window of a record was judged.

    Raises:
        MalformedEvidence: a recorded verdict is not strict JSON.
        LedgerInconsistent: a record cannot be: nothing of the session is believed.
    """
    enrolled, position = replayed.enrolled, replayed.position
    chains = ChainCache()
    digests: list[bytes] = []
    for seq, record, evidence in windows:
        before = position
        window: VerifiedWindow | WeighbridgeError
        physical = TelemetryAppraisal("no_baseline", (), position.telemetry)
        try:
            check_ending(record, evidence, enrolled, digests)
            window = replay_window(
                record, evidence, enrolled=enrolled, position=position, anchors=anchors, chains=chains
            )
        except LedgerInconsistent:
            raise
        except WeighbridgeError as error:
            window = error
        else:
            physical = replay_telemetry(
                record, window, enrolled=enrolled, position=position, baselines=baselines.of(record)
            )
            position = position.after(window, obliged=record.obliges_spot_check, telemetry=physical.state)
            digests.append(window.digest)
        yield Step(seq, record, moment(record.received_ns), before, window, physical)


def _shown(places: Sequence[Place]) -> tuple[tuple[int, Record, Entry], ...]:
    """Number, record and entry of each window that is shown."""
    return tuple((place.seq or 0, *place.shown) for place in places if place.kind == "window" and place.shown)


def _withheld(message: str, where: str) -> Indeterminate:
    return Indeterminate(
        Code.BUNDLE_WITHHELD,
        message,
        where=where,
        hint="verify bundle --records-only says what was recorded; the whole bundle, what it rests on",
    )


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
