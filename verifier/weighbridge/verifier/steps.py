"""Steps of sessions that are in the ledger, and how the store is told of them: within one transaction each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.verifier.challenge import hand_out, issue
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.session import SessionState, ledgered_log
from weighbridge.verifier.standing import Shut
from weighbridge.verifier.telemetry.appraisal import pasts_of

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

__all__ = ["Advance", "End", "Ending", "shut_of", "subjects_of", "write_advance", "write_end"]


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


def write_end(tx: Transaction, step: Ending) -> None:
    """End a session.

    Raises:
        Conflict: another process has ended it.
    """
    terms, end = step.live.terms, step.end
    if end.code is not None:
        tx.fail_subjects(subjects_of(terms), code=end.code, session=terms.session, at_ns=nanoseconds(end.at))
    tx.set_state(terms.session, end.state)
    tx.results.keep(terms.session, end.why)


def write_advance(tx: Transaction, step: Advance, *, root: bytes) -> tuple[Position, SessionState, Issued]:
    """Move a session's chain past a recorded window: where it stands then, which is true once ``tx`` is durable.

    Args:
        tx: the transaction.
        step: the window.
        root: of the ledger, which dates the challenge that leaves.

    Raises:
        Conflict: the store knows of another step: a fork, by another process.
    """
    live, verified, terms = step.live, step.verified, step.live.terms
    following = live.position.after(verified, obliged=step.obliged, telemetry=step.physical.state)
    running = step.opens or live.state is SessionState.RUNNING
    state = SessionState.RUNNING if running else SessionState.MEASURED
    issued = issue(root, terms.session, following.seq, random=step.random, at=step.at)
    tx.advance(
        terms.session,
        expected_seq=live.position.seq,
        expected_prev=live.position.prev,
        prev=following.prev,
        state=state,
        window=verified.digest,
        index=step.index,
        held=verified.held,
        received_ns=nanoseconds(step.at),
    )
    tx.advance_ak(terms.ak, head=following.prev, log=ledgered_log(verified))
    if step.result is not None:
        tx.results.keep(terms.session, step.result)
    seq = live.position.seq
    past = pasts_of(step.physical.state, session=terms.session, seq=seq)
    tx.traces.remember(terms.session, seq, step.traces, past, at_ns=nanoseconds(step.at))
    issued = hand_out(tx, issued, terms=terms, position=following, unanswered=_unanswered(live, verified))
    return following, state, issued


def shut_of(step: Advance | Ending) -> Shut | None:
    """Why the gate of a step's session is shut from now on, if it is."""
    if isinstance(step, Ending):
        return step.end.why
    return step.result if isinstance(step.result, Shut) else None


def subjects_of(terms: Terms) -> list[tuple[SubjectKind, bytes]]:
    """To whom a failure of the session sticks."""
    return [("ak", terms.ak), *(("gpu", gpu) for gpu in terms.gpus)]


def _unanswered(live: Live, verified: VerifiedWindow) -> Issued | None:
    """The outstanding challenge of ``live``, if ``verified`` has its number and does not answer its spot challenge."""
    issued = live.issued
    if issued.spot is None or verified.spot == issued.spot.challenge.id or issued.seq != verified.header.seq:
        return None
    return issued
