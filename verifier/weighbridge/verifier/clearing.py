"""Forgiving a failure that sticks to an AK or a GPU: an operator's act, for a reason, in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, Indeterminate
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.record import Record

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.store import Store, SubjectKind, Transaction

__all__ = ["clear"]

_NO_SESSION = bytes(16)


def clear(
    archive: Archive, store: Store, kind: SubjectKind, identity: bytes, *, reason: str, at: datetime
) -> tuple[Code, int]:
    """Record the act, then forgive; returns what was forgiven and the ledger index of the record.

    A GPU's record begins anew as well, by every profile: else what was forgiven would be held against it once more. The
    ledger keeps what it had come to.

    If power fails between the two, the ledger tells of an act that had no effect: the failure still stands. Takes a
    turn, so it may be done while verifiers serve.

    Raises:
        EnvironmentFault: as :meth:`.Archive.turn` and :meth:`.Archive.commit`.
        Indeterminate: ``SESSION_UNKNOWN`` when nothing sticks to it.
        ValueError: for an empty reason.
    """
    if not reason.strip():
        raise ValueError("a failure is cleared for a reason")
    # The turn first: nobody who has the store waits for a turn.
    with archive.turn(), store.transaction() as tx:
        # Verifiers that serve may have recorded meanwhile: no entry is of an earlier time than the one before it.
        latest = archive.latest()
        at = at if latest is None else max(at, latest)
        return _clear(archive, tx, kind, identity, reason=reason, at=at)


def _clear(
    archive: Archive, tx: Transaction, kind: SubjectKind, identity: bytes, *, reason: str, at: datetime
) -> tuple[Code, int]:
    subject = tx.subjects.of(kind, identity)
    pasts = tx.traces.pasts(identity) if kind == "gpu" else ()
    if subject is None or subject.failed_code is None:
        raise Indeterminate(Code.SESSION_UNKNOWN, f"no failure sticks to this {kind}", where=identity.hex())
    document: strict.JsonObject = {
        "schema": "weighbridge/clearing/v1",
        "kind": kind,
        "identity": identity.hex(),
        "code": subject.failed_code.value,
        "reason": reason,
        "forgotten": [past.document() for past in pasts],
    }
    record = Record.note(
        "clearing",
        session=_NO_SESSION,
        seq=None,
        received_ns=nanoseconds(at),
        verdict=strict.json_encode(document),
    )
    committed = archive.commit(record, None)
    tx.subjects.clear(kind, identity, reason=reason, at_ns=nanoseconds(at))
    if kind == "gpu":
        tx.traces.forget(identity)
    return subject.failed_code, committed.index
