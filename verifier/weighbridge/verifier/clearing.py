"""Forgiving failures that stick to AKs and GPUs: an operator's act, for a reason, each in the ledger for itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, Indeterminate
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.pruning import Batch
from weighbridge.verifier.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.failures import Failure, Which
    from weighbridge.verifier.store import Store, SubjectKind, Transaction

__all__ = ["Cleared", "clear", "clear_all", "nothing_named"]

_NO_SESSION = bytes(16)


@dataclass(frozen=True, slots=True)
class Cleared:
    """A failure that was forgiven, and the ledger index of the record that says so."""

    failure: Failure
    index: int


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
    _require(reason)
    # The turn first: nobody who has the store waits for a turn.
    with archive.turn(), store.transaction() as tx:
        subject = tx.subjects.of(kind, identity)
        if subject is None or subject.failed_code is None:
            raise Indeterminate(Code.SESSION_UNKNOWN, f"no failure sticks to this {kind}", where=identity.hex())
        (index,) = _clear(archive, tx, [(kind, identity, subject.failed_code)], reason=reason, at=at)
        return subject.failed_code, index


def clear_all(
    archive: Archive, store: Store, which: Which, *, reason: str, at: datetime
) -> Iterator[tuple[Cleared, ...]]:
    """Forgive every failure that ``which`` names and that sticks now, each as :func:`clear` does; some at a time.

    Some are a turn, with a pause of the same length behind it for whoever serves meanwhile. What is interrupted has
    forgiven what was told until then; whoever goes on names the same. What fails anew meanwhile is not forgiven.

    Raises:
        EnvironmentFault: as :func:`clear`; what was told until then is done.
        Indeterminate: ``SESSION_UNKNOWN`` when nothing sticks that it names.
        ValueError: for an empty reason, or where ``which`` names no code.
    """
    _require(reason)
    if which.code is None:
        raise ValueError("failures are cleared by their code")
    with store.reading() as tx:
        counts = tx.failures.counts(which)
    if not counts:
        raise nothing_named()
    # As of now, by the clocks of those who recorded them.
    which = replace(which, before_ns=max(count.last_ns for count in counts) + 1)
    batch, last = Batch(), None
    while True:
        began = time.perf_counter()
        with archive.turn(), store.transaction() as tx:
            some = tx.failures.following(last, which, most=batch.most)
            indices = _clear(archive, tx, [(one.kind, one.identity, one.code) for one in some], reason=reason, at=at)
        if not some:
            return
        took = time.perf_counter() - began
        batch.took(len(some), took)
        yield tuple(map(Cleared, some, indices))
        last = some[-1]
        time.sleep(took)


def nothing_named() -> Indeterminate:
    """``SESSION_UNKNOWN``, for whoever names what is not there."""
    return Indeterminate(Code.SESSION_UNKNOWN, "no failure sticks that is of this code and of all else that was named")


def _require(reason: str) -> None:
    if not reason.strip():
        raise ValueError("a failure is cleared for a reason")


def _clear(
    archive: Archive,
    tx: Transaction,
    failed: Sequence[tuple[SubjectKind, bytes, Code]],
    *,
    reason: str,
    at: datetime,
) -> list[int]:
    """Record and forgive ``failed``, within a turn; the ledger indices of the records."""
    # Verifiers that serve may have recorded meanwhile: no entry is of an earlier time than the one before it.
    latest = archive.latest()
    at_ns = nanoseconds(at if latest is None else max(at, latest))
    records = [_record(tx, *one, reason=reason, at_ns=at_ns) for one in failed]
    committed = archive.commit_all([(record, None) for record in records])
    for kind, identity, _ in failed:
        tx.subjects.clear(kind, identity, reason=reason, at_ns=at_ns)
        if kind == "gpu":
            tx.traces.forget(identity)
    return [place.index for place in committed]


def _record(tx: Transaction, kind: SubjectKind, identity: bytes, code: Code, *, reason: str, at_ns: int) -> Record:
    pasts = tx.traces.pasts(identity) if kind == "gpu" else ()
    document: strict.JsonObject = {
        "schema": "weighbridge/clearing/v1",
        "kind": kind,
        "identity": identity.hex(),
        "code": code.value,
        "reason": reason,
        "forgotten": [past.document() for past in pasts],
    }
    verdict = strict.json_encode(document)
    return Record.note("clearing", session=_NO_SESSION, seq=None, received_ns=at_ns, verdict=verdict)
