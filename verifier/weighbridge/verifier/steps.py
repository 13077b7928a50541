"""Steps of sessions that are in the ledger, and how the store is told of them: those of a turn together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from weighbridge.verifier.challenge import beside, issue
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.session import SessionState, ledgered_log
from weighbridge.verifier.standing import Shut
from weighbridge.verifier.telemetry.appraisal import pasts_of
from weighbridge.verifier.traces import Brought
from weighbridge.verifier.transaction import Move

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto.errors import Code
    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.affirmed import Affirmed
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.restoring import Live
    from weighbridge.verifier.session import Position
    from weighbridge.verifier.store import Issued, SubjectKind, Transaction
    from weighbridge.verifier.telemetry.appraisal import TelemetryAppraisal
    from weighbridge.verifier.telemetry.history import Trace

__all__ = ["Advance", "Behind", "End", "Ending", "shut_of", "subjects_of", "write_advances", "write_end"]


@dataclass(frozen=True, slots=True)
class End:
    """How a session ended: closed, interrupted, or failed.

    ``code`` is what sticks to its AK and GPUs, if something does; ``why`` is what relying parties are told.
    """

    state: SessionState
    at: datetime
    code: Code | None
    why: Shut


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """A recorded window that continues its session's chain.

    Attributes:
        live: the session, which stands before the window.
        verified: the window.
        physical: what its samples came to.
        traces: what :meth:`.LiveSessions.recall` was asked about.
        random: drawn for the challenge that asks for the next window.
        index: of its leaf in the ledger.
        opens: whether it opens a gate.
        obliged: whether its verdict demands a spot check.
        at: its receipt time.
        result: what relying parties know of the session from now on; ``None`` leaves that as it was: after a held
            window, and after one of which no token was made before power failed.
    """

    live: Live
    verified: VerifiedWindow
    physical: TelemetryAppraisal
    traces: Sequence[Trace]
    random: bytes
    index: int
    opens: bool
    obliged: bool
    at: datetime
    result: Affirmed | Shut | None


@dataclass(frozen=True, slots=True)
class Ending:
    """A recorded judgement that ends its session."""

    live: Live
    end: End


class Behind(NamedTuple):
    """Where a session stands behind a step, and the challenge for its next window."""

    position: Position
    state: SessionState
    issued: Issued


def write_end(tx: Transaction, step: Ending) -> None:
    """End a session.

    Raises:
        Conflict: another process has ended it.
    """
    terms, end = step.live.terms, step.end
    if end.code is not None:
        tx.subjects.fail(subjects_of(terms), code=end.code, session=terms.session, at_ns=nanoseconds(end.at))
    tx.set_state(terms.session, end.state, at_ns=nanoseconds(end.at))
    tx.results.keep({terms.session: end.why})


def write_advances(tx: Transaction, steps: Sequence[Advance], *, root: bytes) -> list[Behind]:
    """Move chains past recorded windows, each of another session: where they stand then, true once ``tx`` is durable.

    Args:
        tx: the transaction.
        steps: the windows.
        root: of the ledger, which dates the challenges that leave.

    Raises:
        Conflict: the store knows of another step of one: a fork, by another process. What was written has to be undone.
    """
    stands = [_behind(step, root) for step in steps]
    both = list(zip(steps, stands, strict=True))
    tx.advance([_move(step, stand) for step, stand in both])
    tx.results.keep({step.live.terms.session: step.result for step in steps if step.result is not None})
    tx.traces.remember([_brought(step) for step in steps])
    tx.challenges.issue([(step.live.terms.session, stand.issued) for step, stand in both])
    return [stand._replace(issued=_with_spot(tx, step, stand)) for step, stand in both]


def shut_of(step: Advance | Ending) -> Shut | None:
    """Why the gate of a step's session is shut from now on, if it is."""
    if isinstance(step, Ending):
        return step.end.why
    return step.result if isinstance(step.result, Shut) else None


def subjects_of(terms: Terms) -> list[tuple[SubjectKind, bytes]]:
    """To whom a failure of the session sticks."""
    return [("ak", terms.ak), *(("gpu", gpu) for gpu in terms.gpus)]


def _behind(step: Advance, root: bytes) -> Behind:
    """Where the session of ``step`` stands behind it, with a new challenge."""
    live, session = step.live, step.live.terms.session
    following = live.position.after(step.verified, obliged=step.obliged, telemetry=step.physical.state)
    running = step.opens or live.state is SessionState.RUNNING
    issued = issue(root, session, following.seq, random=step.random, at=step.at)
    return Behind(following, SessionState.RUNNING if running else SessionState.MEASURED, issued)


def _move(step: Advance, stand: Behind) -> Move:
    live, verified = step.live, step.verified
    return Move(
        session=live.terms.session,
        ak=live.terms.ak,
        before=live.state,
        seq=live.position.seq,
        prev=live.position.prev,
        after=stand.state,
        head=stand.position.prev,
        window=verified.digest,
        index=step.index,
        held=verified.held,
        received_ns=nanoseconds(step.at),
        log=ledgered_log(verified),
    )


def _brought(step: Advance) -> Brought:
    session, seq = step.live.terms.session, step.live.position.seq
    past = pasts_of(step.physical.state, session=session, seq=seq)
    return Brought(session, seq, step.traces, past, nanoseconds(step.at))


def _with_spot(tx: Transaction, step: Advance, stand: Behind) -> Issued:
    unanswered = _unanswered(step.live, step.verified)
    return beside(tx, stand.issued, terms=step.live.terms, position=stand.position, unanswered=unanswered)


def _unanswered(live: Live, verified: VerifiedWindow) -> Issued | None:
    """The outstanding challenge of ``live``, if ``verified`` has its number and does not answer its spot challenge."""
    issued = live.issued
    if issued.spot is None or verified.spot == issued.spot.challenge.id or issued.seq != verified.header.seq:
        return None
    return issued
