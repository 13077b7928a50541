"""What is proven of a bundle's single entries: that a trusted ledger has them, and whose terms they are under.

Steps 2 and 3 and the first half of step 5 of the procedure of :mod:`.bundle`; and :func:`open_enrolment`, for those who
want the enrolment only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.proto import cose, limits, note, tlog
from weighbridge.proto.digest import sha256
from weighbridge.proto.enrolment import EnrolmentProof
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence, NotAuthentic
from weighbridge.proto.merkle import leaf_hash, verify_inclusion
from weighbridge.proto.terms import TERMS_TYP
from weighbridge.verifier.clock import moment
from weighbridge.verifier.record import Leaf, Record
from weighbridge.verifier.replay import ReplayedEnrolment, replay_enrolment

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.anchors import Anchor, TrustAnchors
    from weighbridge.verifier.bundle_format import Bundle, Entry

__all__ = ["evidence_of", "open_checkpoint", "open_enrolment", "proven_record", "verifier_key"]


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
    for anchor in anchors.select("verifier"):
        if sha256(anchor.spki) == claimed:
            anchor.check_validity(moment(record.received_ns))
            return cose.load_p256(anchor.spki, what=f"anchor {anchor.name}")
    raise NotAuthentic(
        Code.CHAIN_UNTRUSTED,
        "the verifier that signed the terms is not trusted",
        where="terms",
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


def evidence_of(entry: Entry) -> bytes:
    """The evidence of ``entry``.

    Raises:
        MalformedEvidence: ``BUNDLE_MALFORMED`` where it has none.
    """
    if entry.evidence is None:
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "evidence is missing", where=f"entry {entry.index}")
    return entry.evidence
