"""The sessions that are under way, in memory; all of each can be re-made from the ledger (:mod:`.replay`)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied
from weighbridge.verifier.challenge import hand_out, issue
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.replay import RecordedBaselines, replay_enrolment, replay_telemetry, replay_window
from weighbridge.verifier.session import Enrolled, Position, SessionState, ledgered_log
from weighbridge.verifier.standing import Shut
from weighbridge.verifier.telemetry.appraisal import pasts_of
from weighbridge.verifier.transaction import Conflict

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from datetime import datetime

    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.affirmed import Affirmed
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.gpu.chain import ChainCache
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.standings import Standings
    from weighbridge.verifier.store import Issued, SessionRow, Store, SubjectKind, Transaction
    from weighbridge.verifier.telemetry.appraisal import TelemetryAppraisal
    from weighbridge.verifier.telemetry.history import History, Trace
    from weighbridge.verifier.traces import Beside

__all__ = ["Advance", "End", "Ending", "Live", "LiveSessions", "subjects_of"]


@dataclass(frozen=True, slots=True)
class End:
    """How a session ended: closed, interrupted, or failed.

    ``code`` is what sticks to its AK and GPUs, if something does; ``why`` is what relying parties are told.
    """

    state: SessionState
    at: datetime
    code: Code | None
    why: Shut


@dataclass(slots=True)
class Live:
    """One session: what was proven, where its chain stands, and the challenge that is outstanding.

    ``ended`` is set before the end is written, so that no fault of the disk lets a failed session go on.
    """

    enrolled: Enrolled
    position: Position
    state: SessionState
    issued: Issued
    ended: End | None = None

    @property
    def terms(self) -> Terms:
        """The session's terms."""
        return self.enrolled.terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """A recorded window that continues its session's chain.

    Attributes:
        live: the session, which stands before the window.
        verified: the window.
        physical: what its samples came to.
        traces: what :meth:`LiveSessions.recall` was asked about.
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
    """A recorded judgement that ends its session; ``index`` is its leaf's, ``None`` where it was said before."""

    live: Live
    end: End
    index: int | None


@final
class LiveSessions:
    """Finds sessions that have not ended, moves them on, and ends them."""

    def __init__(
        self,
        *,
        archive: Archive,
        store: Store,
        anchors: TrustAnchors,
        keys: VerifierKeys,
        chains: ChainCache,
        standings: Standings,
    ) -> None:
        self._archive = archive
        self._store = store
        self._standings = standings
        self._anchors = anchors
        self._keys = keys
        self._chains = chains
        self._baselines = RecordedBaselines(archive.records.baselines)
        self._live: dict[bytes, Live] = {}
        # Of sessions whose last judgement is in the ledger and not in the store: the index of its leaf.
        self._owed: dict[bytes, int] = {}
        # Sessions whose last transaction was reported as failed: it may be on disk all the same.
        self._doubtful: set[bytes] = set()

    def find(self, session: bytes, *, peer: bytes) -> Live:
        """The session, which has not ended, for the peer that it belongs to.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``; ``WINDOW_PEER`` for another peer's.
            PolicyDenied: ``SESSION_FAILED`` or ``SESSION_STATE``: it has ended, which is final.
            WeighbridgeError: its records do not make the session that its row tells of.
        """
        if session in self._doubtful:
            self._ask_the_disk(session)
        live = self._live.get(session)
        if live is None:
            live = self._live[session] = self._restore(session, peer)
        _require_peer(live.enrolled, peer)
        if live.ended is not None:
            # The store could not be written when it ended.
            self.carry_out([Ending(live, live.ended, None)])
            raise _ended(live.ended.state, session)
        return live

    def add(self, live: Live, *, interrupted: Sequence[bytes]) -> None:
        """Take up a session that has just been enrolled, in place of those that it interrupted."""
        for old in interrupted:
            self._live.pop(old, None)
            self._owed.pop(old, None)
        self._live[live.terms.session] = live
        self._standings.changed([live.terms.session, *interrupted])

    def carry_out(
        self, steps: Sequence[Advance | Ending], *, known: int | None = None
    ) -> tuple[Issued | Conflict | None, ...]:
        """Let the store know of recorded judgements, each of another session, in one transaction.

        Args:
            steps: what they come to.
            known: up to which entry of the ledger the store then knows of everything; for whoever finishes what was
                begun. Otherwise that is all of it, but for sessions whose judgements it could not be told.

        Returns:
            For each step the challenge for the session's next window, or nothing where it has ended; or what the store
            has against it, which concerns that session alone: it stands where it stood.

        Raises:
            EnvironmentFault: the store cannot be written. All sessions stand where they stood, but those that have
                ended have done so in memory.
        """
        for step in steps:
            if isinstance(step, Ending):
                # First: whatever happens to the disk, no window of it is admitted any more.
                step.live.ended = step.end
            if step.index is not None:
                self._owed.setdefault(step.live.terms.session, step.index)
        sessions = frozenset(step.live.terms.session for step in steps)
        self._doubtful |= sessions
        # The disk may fail: whoever asks meanwhile is not told that these gates are open.
        shut = {step.live.terms.session: why for step in steps if (why := _shut(step)) is not None}
        done: list[tuple[Position, SessionState, Issued] | Conflict | None] = []
        with self._standings.withholding(shut), self._store.transaction() as tx:
            for step in steps:
                try:
                    with tx.part():
                        done.append(self._write_end(tx, step) if isinstance(step, Ending) else self.advance(tx, step))
                except Conflict as conflict:
                    done.append(conflict)
            # If power fails before this is durable, whoever starts next begins where it was: see :mod:`.recovery`.
            self._settle(tx, sessions, known)
        self._doubtful -= sessions
        self._standings.changed(sessions)
        results: list[Issued | Conflict | None] = []
        for step, result in zip(steps, done, strict=True):
            self._owed.pop(step.live.terms.session, None)
            if isinstance(step, Ending) or isinstance(result, Conflict):
                # Where the store knows better, the session is made anew from what it knows.
                self._live.pop(step.live.terms.session, None)
            if isinstance(result, tuple):
                step.live.position, step.live.state, step.live.issued = result
                results.append(result[2])
            else:
                results.append(result)
        return tuple(results)

    def _ask_the_disk(self, session: bytes) -> None:
        """Forget what is remembered of a session if the disk has more of it.

        Raises:
            EnvironmentFault: the store cannot be read: it is asked again the next time.
        """
        with self._store.transaction() as tx:
            row = tx.session(session)
        live = self._live.get(session)
        if live is not None and live.ended is None and row is not None and row.next_seq != live.position.seq:
            del self._live[session]
        self._doubtful.discard(session)

    @contextlib.contextmanager
    def owing(self, session: bytes, index: int) -> Generator[Transaction]:
        """A transaction that lets the store know of the enrolment recorded at ``index``; as :meth:`.Store.transaction`.

        Until it succeeds, whoever starts anew looks at that record again.
        """
        self._owed[session] = index
        try:
            with self._store.transaction() as tx:
                yield tx
                self._settle(tx, frozenset([session]), None)
        except (Conflict, PolicyDenied):
            # Refused by what the store knows: there is nothing to make up for.
            del self._owed[session]
            raise
        del self._owed[session]

    @property
    def behind(self) -> bool:
        """Whether the store could not be told of a judgement that is in the ledger."""
        return bool(self._owed)

    def settled(self) -> None:
        """The store knows of everything in the ledger, durably."""
        self._owed.clear()

    def _settle(self, tx: Transaction, paid: frozenset[bytes], known: int | None) -> None:
        """Up to where the store knows of everything in the ledger, once it knows of the last judgements on ``paid``."""
        tree, unsure = self._archive.ledger.reader().checkpoint, self._archive.unsure
        least = [index for session, index in self._owed.items() if session not in paid]
        if known is not None:
            least.append(known)
        elif unsure is not None:
            # What is there may have been recorded by somebody who does not know: nobody has carried it out.
            least.append(unsure)
        tx.progress.settle(min([tree.size, *least]), tree)

    @staticmethod
    def _write_end(tx: Transaction, step: Ending) -> None:
        terms, end = step.live.terms, step.end
        if end.code is not None:
            tx.fail_subjects(subjects_of(terms), code=end.code, session=terms.session, at_ns=nanoseconds(end.at))
        tx.set_state(terms.session, end.state)
        tx.results.keep(terms.session, end.why)

    def advance(self, tx: Transaction, step: Advance) -> tuple[Position, SessionState, Issued]:
        """Move a session's chain past a recorded window: where it stands then, which is true once ``tx`` is durable.

        Raises:
            Conflict: the store knows of another step: a fork, by another replica.
        """
        live, verified, terms = step.live, step.verified, step.live.terms
        following = live.position.after(verified, obliged=step.obliged, telemetry=step.physical.state)
        running = step.opens or live.state is SessionState.RUNNING
        state = SessionState.RUNNING if running else SessionState.MEASURED
        issued = issue(self._archive.ledger.root, terms.session, following.seq, random=step.random, at=step.at)
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

    def recall(
        self, live: Live, traces: Sequence[Trace], wanted: Sequence[tuple[bytes, bytes]], beside: Sequence[Beside]
    ) -> History:
        """What is remembered of GPUs that concerns the next window of ``live``.

        ``traces`` are what it brings, ``wanted`` the GPUs that it is the first to judge by a profile, with its digest,
        ``beside`` what windows bring that will have been carried out before it.
        """
        with self._store.transaction() as tx:
            return tx.traces.recall(live.terms.session, live.position.seq, traces, wanted, beside=beside)

    def replay(self, live: Live, record: Record, evidence: bytes) -> tuple[VerifiedWindow, TelemetryAppraisal]:
        """The next window of ``live`` from its record, verified and its samples appraised as when it arrived."""
        window = replay_window(
            record,
            evidence,
            enrolled=live.enrolled,
            position=live.position,
            anchors=self._anchors,
            chains=self._chains,
        )
        physical = replay_telemetry(
            record, window, enrolled=live.enrolled, position=live.position, baselines=self._baselines.of(record)
        )
        return window, physical

    def restore(self, session: bytes) -> Live:
        """The session as its records make it, for whoever finishes what was begun.

        Raises:
            WeighbridgeError: as :meth:`find`.
        """
        if session in self._doubtful:
            self._ask_the_disk(session)
        if session not in self._live:
            self._live[session] = self._restore(session, None)
        return self._live[session]

    def _restore(self, session: bytes, peer: bytes | None) -> Live:
        """Re-make a session from its records: the same procedures as when its evidence arrived."""
        with self._store.transaction() as tx:
            row = tx.session(session)
            indices = tx.window_indices(session)
            issued = tx.last_challenge(session)
        if row is None or issued is None:
            raise NotAuthentic(Code.SESSION_UNKNOWN, "no such session", where="session", got=session)
        # Before anything is replayed: what has ended costs nobody anything.
        _require_running(row)
        record = self._archive.records.record(row.enrolment_index)
        replayed = replay_enrolment(
            record,
            self._archive.records.evidence(record),
            anchors=self._anchors,
            verifier_key=self._keys.signing.public_key(),
            collateral=self._archive.records.collateral(record.collateral),
        )
        # A stranger must not make us replay a long session by naming it.
        if peer is not None:
            _require_peer(replayed.enrolled, peer)
        live = Live(replayed.enrolled, replayed.position, row.state, issued)
        for index in indices:
            record = self._archive.records.record(index)
            verified, physical = self.replay(live, record, self._archive.records.evidence(record))
            live.position = live.position.after(verified, obliged=record.obliges_spot_check, telemetry=physical.state)
        if (live.position.seq, live.position.prev) != (row.next_seq, row.prev):
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                "the session's row and its records disagree",
                where=session.hex(),
                expected=row.next_seq,
            )
        return live


def _unanswered(live: Live, verified: VerifiedWindow) -> Issued | None:
    """The outstanding challenge of ``live``, if ``verified`` has its number and does not answer its spot challenge."""
    issued = live.issued
    if issued.spot is None or verified.spot == issued.spot.challenge.id or issued.seq != verified.header.seq:
        return None
    return issued


def _shut(step: Advance | Ending) -> Shut | None:
    """Why the gate of a step's session is shut from now on, if it is."""
    if isinstance(step, Ending):
        return step.end.why
    return step.result if isinstance(step.result, Shut) else None


def subjects_of(terms: Terms) -> list[tuple[SubjectKind, bytes]]:
    """To whom a failure of the session sticks."""
    return [("ak", terms.ak), *(("gpu", gpu) for gpu in terms.gpus)]


def _require_peer(enrolled: Enrolled, peer: bytes) -> None:
    if enrolled.terms.peer != peer:
        raise NotAuthentic(
            Code.WINDOW_PEER, "another peer's session", where="channel", expected=enrolled.terms.peer, got=peer
        )


def _require_running(row: SessionRow) -> None:
    if row.state.final:
        raise _ended(row.state, row.id)


def _ended(state: SessionState, session: bytes) -> PolicyDenied:
    if state is SessionState.FAILED:
        return PolicyDenied(Code.SESSION_FAILED, "the session has failed, which is final", where=session.hex())
    return PolicyDenied(Code.SESSION_STATE, f"the session is {state.value}", where=session.hex())
