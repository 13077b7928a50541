"""Finishes the one judgement that a loss of power may have cut off between ledger and store.

One judgement is made at a time, and its leaf enters the ledger before the store learns of it: so at most the last leaf
is unknown to the store. What it tells of is carried out by the code that would have done so. Acts of the operator may
have been recorded since, before anything was judged again: they are looked past.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import Code, LedgerInconsistent
from weighbridge.proto.terms import TERMS_TYP, Terms
from weighbridge.verifier import acceptance
from weighbridge.verifier.clock import moment
from weighbridge.verifier.live import subjects_of
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.telemetry.appraisal import traces_of

if TYPE_CHECKING:
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.live import LiveSessions
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.store import Store

__all__ = ["settle_last"]

_ACTS: Final = frozenset({"clearing", "baseline"})


def settle_last(archive: Archive, store: Store, sessions: LiveSessions) -> None:
    """Let the store know of the last judgement. Does nothing when it does already.

    Everything is done as of the recorded receipt time: the present plays no part.

    Args:
        archive: of this verifier.
        store: of this verifier.
        sessions: nothing is under way yet.

    Raises:
        EnvironmentFault: the store cannot be read or written.
        LedgerInconsistent: the last record is not what the ledger commits to.
    """
    index = archive.ledger.size - 1
    while index >= 0 and archive.records.record(index).kind in _ACTS:
        index -= 1
    if index < 0:
        return
    record = archive.records.record(index)
    outcome, denials = _told(record)
    if record.kind == "enrolment" and outcome == "denied":
        _settle_enrolment(store, record, [code for code, _ in denials])
    if record.kind not in {"window", "closing"}:
        return
    with store.transaction() as tx:
        row = tx.session(record.session)
    if row is None or row.state.final:
        return
    if record.kind == "closing":
        sessions.end(sessions.restore(record.session), SessionState.CLOSED, at=moment(record.received_ns))
    elif outcome == "denied":
        sticking = acceptance.sticking(denials)
        code = _known(sticking) if sticking is not None else None if denials else Code.POLICY_DENIED
        live = sessions.restore(record.session)
        sessions.end(live, SessionState.FAILED, at=moment(record.received_ns), code=code)
    elif record.seq == row.next_seq:
        live = sessions.restore(record.session)
        verified, physical = sessions.replay(live, record, archive.records.evidence(record))
        opens = outcome == "affirmed" and not record.held
        profiles = {device: of.profile for device, of in physical.state.devices.items()}
        named = {device: profile.source for device, profile in profiles.items() if profile is not None}
        sessions.advance(
            live,
            verified,
            physical,
            traces=traces_of(verified, live.position.telemetry, enrolled=live.enrolled, named=named),
            index=index,
            opens=opens,
            obliged=record.obliges_spot_check,
            at=moment(record.received_ns),
        )


def _settle_enrolment(store: Store, record: Record, codes: list[str]) -> None:
    """Let the first new finding of a refused enrolment stick, as the enrolment does."""
    code = next((_known(code) for code in codes if code != Code.SUBJECT_FAILED), None)
    if code is None or record.terms is None:
        return
    message = cose.parse(record.terms, typ=TERMS_TYP, limit=limits.TERMS_MAX, what="terms")
    with store.transaction() as tx:
        tx.fail_subjects(subjects_of(Terms.parse(message.payload)), code=code, session=None, at_ns=record.received_ns)


def _told(record: Record) -> tuple[str | None, list[tuple[str, bool]]]:
    """The recorded outcome; of its denials, the code, and whether it sticks, which older records do not say."""
    document = strict.json_decode(record.verdict, what="record")
    if not isinstance(document, dict):
        raise LedgerInconsistent(Code.LEDGER_INCONSISTENT, "the last record has no verdict", where="record")
    outcome, denials = document.get("outcome"), document.get("denials")
    told = [
        (str(item.get("code")), item.get("sticks") is not False)
        for item in (denials if isinstance(denials, list) else [])
        if isinstance(item, dict)
    ]
    return outcome if isinstance(outcome, str) else None, told


def _known(code: str) -> Code:
    """The code, or the one that stands for those of an author's own."""
    return next((known for known in Code if known.value == code), Code.POLICY_DENIED)
