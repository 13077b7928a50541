"""Recorded windows out of a verifier's own state directory, session by session, also while the verifier serves.

What a bundle proves by what is in the file, the directory proves by its ledger: each entry is read under the published
checkpoint's root, and each record and its evidence are what the entry names. Nothing of a session is held but the
window that is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code, LedgerInconsistent
from weighbridge.verifier.bundle_proof import verifier_key, walk
from weighbridge.verifier.record import NO_DIGEST, Leaf
from weighbridge.verifier.recorded import JudgedBy, RecordedWindow, windows_of
from weighbridge.verifier.replay import RecordedBaselines, replay_enrolment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from weighbridge.proto.manifest import Manifest
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.archive import Records
    from weighbridge.verifier.ledger.reader import LedgerReader
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.store import Store

__all__ = ["RecordedSession", "recorded_sessions", "session_windows"]


@dataclass(frozen=True, slots=True)
class RecordedSession:
    """Where a session's records are.

    Attributes:
        session: 16 bytes.
        enrolment: ledger index of its enrolment.
        windows: how many there are, with the one that failed it.
        ending: ledger index of the window that failed it, if one did: it does not continue the chain.
        last_ns: when the last of them was received.
    """

    session: bytes
    enrolment: int
    windows: int
    ending: int | None
    last_ns: int


def recorded_sessions(store: Store, reader: LedgerReader) -> list[RecordedSession]:
    """All sessions of a state directory, in the order of their enrolments.

    One bit is held for each entry of the ledger. Entries that were made after ``reader`` was opened are left out.

    Raises:
        LedgerInconsistent: storage was altered.
        EnvironmentFault: it cannot be read.
    """
    size = reader.checkpoint.size
    known = bytearray((size + 7) // 8)
    chains: dict[bytes, tuple[int, int, int]] = {}
    with store.reading() as tx:
        for row in tx.sessions():
            indices = [index for index in (row.enrolment_index, *tx.window_indices(row.id)) if index < size]
            for index in indices:
                known[index >> 3] |= 1 << (index & 7)
            if indices:
                chains[row.id] = row.enrolment_index, len(indices) - 1, indices[-1]
    endings: dict[bytes, int] = {}
    for index in range(size):
        if known[index >> 3] & 1 << (index & 7):
            continue
        leaf = Leaf.parse(reader.entry(index))
        # What was recorded before the chain's last entry was recorded again when power failed in between.
        if leaf.kind == "window" and leaf.session in chains and index > chains[leaf.session][2]:
            endings[leaf.session] = index
    found: list[RecordedSession] = []
    for session, (enrolment, windows, last) in chains.items():
        ending = endings.get(session)
        received = Leaf.parse(reader.entry(last if ending is None else ending)).received_ns
        found.append(RecordedSession(session, enrolment, windows + (ending is not None), ending, received))
    return sorted(found, key=lambda item: item.enrolment)


def session_windows(
    records: Records,
    session: RecordedSession,
    indices: Sequence[int],
    *,
    anchors: TrustAnchors,
    reference: Reference | None = None,
    manifests: Mapping[bytes, Manifest],
) -> Iterator[RecordedWindow]:
    """The windows of one session, in order, as :func:`.recorded.windows`.

    Args:
        records: of the verifier that judged it.
        session: as :func:`recorded_sessions` found it.
        indices: ledger indices of the windows of its chain, in order.
        anchors: whose keys are believed: the verifier's own, and EK and GPU roots.
        reference: values to lay the windows out by, instead of those that the records name.
        manifests: the declared ones that the verifier was given.

    Raises:
        MalformedEvidence, NotAuthentic, LedgerInconsistent: as :func:`.recorded.windows`.
        Indeterminate: ``EVIDENCE_ABSENT``: something was removed from the content store.
    """
    enrolment = _expected(records.record(session.enrolment), session, kind="enrolment", seq=None)
    replayed = replay_enrolment(
        enrolment,
        records.evidence(enrolment),
        anchors=anchors,
        verifier_key=verifier_key(enrolment, anchors),
        collateral=records.collateral(enrolment.collateral),
    )

    def values(digest: bytes) -> Reference:
        return Reference({}, {}, {}) if digest == NO_DIGEST else Reference.recorded(records.reference(digest))

    by = JudgedBy(
        values=values if reference is None else lambda _: reference,
        collateral=records.collateral,
        manifests=manifests,
        anchors=anchors,
    )
    steps = walk(_in_order(records, session, indices), replayed, anchors, RecordedBaselines(records.baselines))
    return windows_of(steps, replayed, by)


def _in_order(
    records: Records, session: RecordedSession, indices: Sequence[int]
) -> Iterator[tuple[int, Record, bytes]]:
    for seq, index in enumerate(indices):
        record = _expected(records.record(index), session, kind="window", seq=seq)
        yield seq, record, records.evidence(record)
    if session.ending is not None:
        record = records.record(session.ending)
        # The next one, or one that has the number of an earlier one: a fork.
        seq = min(record.seq or 0, len(indices))
        yield seq, _expected(record, session, kind="window", seq=seq), records.evidence(record)


def _expected(record: Record, session: RecordedSession, *, kind: str, seq: int | None) -> Record:
    if (record.kind, record.session, record.seq) != (kind, session.session, seq):
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "the ledger has another record here than the sessions' table says",
            where=f"session {session.session.hex()}",
            expected=f"{kind} {'' if seq is None else seq}".strip(),
            got=f"{record.kind} {'' if record.seq is None else record.seq}".strip(),
        )
    return record
