"""Finishes the judgements that were cut off between ledger and store: power or a disk failed, or a process died.

Whoever has the next turn does this first (:mod:`.leading`), of whichever process they are: what is in the ledger
counts, whatever was said of it.

The leaves of judgements that are made together enter the ledger before the store learns of any. The store remembers up
to which entry it knows of everything: what the leaves behind that tell of is carried out by the code that would have
done so. Doing it again changes nothing. Acts of the operator among them have had their effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import Code, LedgerInconsistent
from weighbridge.proto.terms import TERMS_TYP, Terms
from weighbridge.verifier import acceptance
from weighbridge.verifier.challenge import draw
from weighbridge.verifier.clock import moment
from weighbridge.verifier.record import Leaf
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.standing import Shut, ended, shut_by
from weighbridge.verifier.steps import Advance, End, Ending, subjects_of
from weighbridge.verifier.telemetry.appraisal import presented_to, traces_of

if TYPE_CHECKING:
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.live import LiveSessions
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.store import Store

__all__ = ["require_history", "settle"]

_SESSIONS: Final = frozenset({"closing", "enrolment", "window"})


def settle(archive: Archive, store: Store, sessions: LiveSessions) -> None:
    """Let the store know of every judgement in the ledger, in a turn. Does nothing when it does already.

    Everything is done as of the recorded receipt times: the present plays no part.

    Args:
        archive: of this verifier.
        store: of this verifier.
        sessions: of this process.

    Raises:
        EnvironmentFault: ledger or store cannot be read or written.
        LedgerInconsistent: a record is not what the ledger commits to; or ``LEDGER_ROLLBACK`` or ``LEDGER_FORK``: it
            is not the ledger that the store knows.
    """
    require_history(archive, store)
    size = archive.ledger.size
    with store.reading() as tx:
        first = tx.progress.settled()
    reader = archive.ledger.reader()
    for index in range(first, size):
        leaf = Leaf.parse(reader.entry(index))
        if leaf.kind in _SESSIONS and _concerns(leaf, store):
            _settle(archive, store, sessions, index)
    if first < size:
        with store.transaction() as tx:
            sessions.settle(tx)


def require_history(archive: Archive, store: Store) -> None:
    """Require that the ledger goes on from the state in which the store has seen it.

    A ledger and a store that were put back together are not found out: that takes a witness, or whoever has kept a
    checkpoint.

    Raises:
        EnvironmentFault: ledger or store cannot be read.
        LedgerInconsistent: ``LEDGER_ROLLBACK`` or ``LEDGER_FORK``; as :meth:`.Archive.require_history`.
    """
    with store.reading() as tx:
        size, root = tx.progress.seen()
    archive.require_history(size, root)


def _concerns(leaf: Leaf, store: Store) -> bool:
    """Whether ``leaf`` may tell of something that the store does not know: without reading its record."""
    if leaf.kind == "enrolment":
        return True
    with store.reading() as tx:
        row = tx.session(leaf.session)
        recorded = None if leaf.seq is None else tx.window_digest(leaf.session, leaf.seq)
    # What is in the chain is known of; another window of its number, a fork, ends the session.
    in_chain = leaf.kind == "window" and recorded is not None and recorded == leaf.window
    return row is not None and not row.state.final and not in_chain


def _settle(archive: Archive, store: Store, sessions: LiveSessions, index: int) -> None:
    record = archive.records.record(index)
    outcome, denials = _told(record)
    if record.kind == "enrolment":
        if outcome == "denied":
            _settle_enrolment(store, sessions, record, [code for code, _, _ in denials], known=index + 1)
        return
    at = moment(record.received_ns)
    live = sessions.restore(record.session)
    if record.kind == "closing":
        end = End(SessionState.CLOSED, at, None, ended(SessionState.CLOSED))
        sessions.carry_out(Ending(live, end), known=index + 1)
    elif outcome == "denied":
        sticking = acceptance.sticking((code, sticks) for code, sticks, _ in denials)
        code = _known(sticking) if sticking is not None else None if denials else Code.POLICY_DENIED
        end = End(SessionState.FAILED, at, code, _why(denials, record.seq))
        sessions.carry_out(Ending(live, end), known=index + 1)
    elif record.seq == live.position.seq:
        verified, physical = sessions.replay(live, record, archive.records.evidence(record))
        profiles = {device: of.profile for device, of in physical.state.devices.items()}
        named = {device: profile for device, profile in profiles.items() if profile is not None}
        presented = presented_to(verified, enrolled=live.enrolled, profiles=named)
        step = Advance(
            live=live,
            verified=verified,
            physical=physical,
            traces=traces_of(verified, live.position.telemetry, enrolled=live.enrolled, presented=presented),
            random=draw(),
            index=index,
            opens=outcome == "affirmed" and not record.held,
            obliged=record.obliges_spot_check,
            at=at,
            # No token was made of it, and none is: the gate stays as it was, until that expires or the next window.
            result=None if record.held or outcome == "affirmed" else _why(denials, record.seq),
        )
        sessions.carry_out(step, known=index + 1)


def _settle_enrolment(store: Store, sessions: LiveSessions, record: Record, codes: list[str], *, known: int) -> None:
    """Let the first new finding of a refused enrolment stick, as the enrolment does; once: it may be forgiven then."""
    code = next((_known(code) for code in codes if code != Code.SUBJECT_FAILED), None)
    if code is None or record.terms is None:
        return
    message = cose.parse(record.terms, typ=TERMS_TYP, limit=limits.TERMS_MAX, what="terms")
    with store.transaction() as tx:
        tx.subjects.fail(subjects_of(Terms.parse(message.payload)), code=code, session=None, at_ns=record.received_ns)
        sessions.settle(tx, known)


def _why(denials: list[tuple[str, bool, str]], seq: int | None) -> Shut:
    return shut_by(((code, message) for code, _, message in denials), seq=seq)


def _told(record: Record) -> tuple[str | None, list[tuple[str, bool, str]]]:
    """The recorded outcome; of its denials, the code, whether it sticks, which older records do not say, and words."""
    document = strict.json_decode(record.verdict, what="record")
    if not isinstance(document, dict):
        raise LedgerInconsistent(Code.LEDGER_INCONSISTENT, "a record has no verdict", where="record")
    outcome, denials = document.get("outcome"), document.get("denials")
    told = [
        (str(item.get("code")), item.get("sticks") is not False, str(item.get("message")))
        for item in (denials if isinstance(denials, list) else [])
        if isinstance(item, dict)
    ]
    return outcome if isinstance(outcome, str) else None, told


def _known(code: str) -> Code:
    """The code, or the one that stands for those of an author's own."""
    return next((known for known in Code if known.value == code), Code.POLICY_DENIED)
