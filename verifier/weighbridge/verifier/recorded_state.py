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
    from weighbridge.verifier.store import SessionRow, Store

__all__ = ["RecordedSession", "chain_of", "recorded_sessions", "session_windows"]


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

    One bit is held for each entry of the ledger. Entries that were made after ``reader`` was opened are left out, and
    so is a session that began before that, and whose windows have been taken out of the store since (:mod:`.endings`).

    Raises:
        LedgerInconsistent: storage was altered.
        EnvironmentFault: it cannot be read.
    """
    size = reader.checkpoint.size
    known = bytearray((size + 7) // 8)
    chains: dict[bytes, tuple[int, int, int]] = {}
    with store.reading() as tx:
        for row in tx.sessions():
            listed = tx.window_indices(row.id)
            indices = [index for index in (row.enrolment_index, *listed) if index < size]
            for index in indices:
                known[index >> 3] |= 1 << (index & 7)
            if len(listed) == row.next_seq and indices:
                chains[row.id] = row.enrolment_index, len(indices) - 1, indices[-1]
            elif (last := (row.enrolment_index, *listed)[-1]) < size:
                # All before the last one are somewhere between: none of them is taken for what ended the session. Where
                # that is missing too, whoever looks for the chain is told so.
                chains[row.id] = row.enrolment_index, row.next_seq, last
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


def chain_of(store: Store, reader: LedgerReader, session: bytes) -> tuple[int, ...]:
    """The ledger indices of the windows of a session's chain, in order, whether the store still lists them or not.

    Where only the last one is listed (:mod:`.endings`), the others are found in the ledger, from there back: each leaf
    names the window before it. All entries since the enrolment are read for that. Of a window that was recorded twice,
    because power failed in between, it is where it was recorded last. What is behind ``reader`` is left out.

    Raises:
        LedgerInconsistent: they do not lead back to the first one; or storage was altered.
        EnvironmentFault: it cannot be read.
    """
    with store.reading() as tx:
        row, listed = tx.session(session), tx.window_indices(session)
    if row is None or len(listed) == row.next_seq:
        return tuple(index for index in listed if index < reader.checkpoint.size)
    if not listed or listed[-1] >= reader.checkpoint.size:
        raise _broken(row, row.next_seq - 1)
    return _followed(reader, row, listed[-1])


def _followed(reader: LedgerReader, row: SessionRow, last: int) -> tuple[int, ...]:
    """The windows of the session from number 0 to that at ``last``."""
    leaf, found = Leaf.parse(reader.entry(last)), [last]
    wanted = leaf.seq, leaf.previous
    if (leaf.kind, leaf.session, leaf.seq) != ("window", row.id, row.next_seq - 1):
        raise _broken(row, row.next_seq - 1)
    for index in range(last - 1, row.enrolment_index, -1):
        entry = reader.entry(index)
        # Nearly all are others': looked at before they are parsed.
        if row.id not in entry or (leaf := Leaf.parse(entry)).kind != "window" or leaf.session != row.id:
            continue
        if leaf.seq is not None and (leaf.seq + 1, leaf.window) == wanted:
            found.append(index)
            wanted = leaf.seq, leaf.previous
    if len(found) != row.next_seq:
        raise _broken(row, row.next_seq - 1 - len(found))
    return tuple(reversed(found))


def _broken(row: SessionRow, seq: int) -> LedgerInconsistent:
    return LedgerInconsistent(
        Code.LEDGER_INCONSISTENT,
        "the ledger, as it was opened here, does not have a window that the store has taken up",
        where=f"session {row.id.hex()}",
        expected=f"window {seq}",
    )


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
