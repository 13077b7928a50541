"""The sessions that are under way, in memory; all of each can be re-made from the ledger (:mod:`.replay`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied
from weighbridge.verifier.challenge import hand_out, issue
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.replay import RecordedBaselines, replay_enrolment, replay_telemetry, replay_window
from weighbridge.verifier.session import Enrolled, Position, SessionState, ledgered_log
from weighbridge.verifier.telemetry.appraisal import pasts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.gpu.chain import ChainCache
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.store import Issued, SessionRow, Store, SubjectKind
    from weighbridge.verifier.telemetry.appraisal import TelemetryAppraisal
    from weighbridge.verifier.telemetry.history import History, Trace

__all__ = ["End", "Live", "LiveSessions", "subjects_of"]


@dataclass(frozen=True, slots=True)
class End:
    """How a session ended: closed, interrupted, or failed for the reason in ``code``."""

    state: SessionState
    at: datetime
    code: Code | None


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


@final
class LiveSessions:
    """Finds sessions that have not ended, and ends them."""

    def __init__(
        self,
        *,
        archive: Archive,
        store: Store,
        anchors: TrustAnchors,
        keys: VerifierKeys,
        chains: ChainCache,
    ) -> None:
        self._archive = archive
        self._store = store
        self._anchors = anchors
        self._keys = keys
        self._chains = chains
        self._baselines = RecordedBaselines(archive.records.baselines)
        self._live: dict[bytes, Live] = {}

    def find(self, session: bytes, *, peer: bytes) -> Live:
        """The session, which has not ended, for the peer that it belongs to.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``; ``WINDOW_PEER`` for another peer's.
            PolicyDenied: ``SESSION_FAILED`` or ``SESSION_STATE``: it has ended, which is final.
            WeighbridgeError: its records do not make the session that its row tells of.
        """
        live = self._live.get(session)
        if live is None:
            live = self._live[session] = self._restore(session, peer)
        _require_peer(live.enrolled, peer)
        if live.ended is not None:
            # The store could not be written when it ended.
            self._write_end(live, live.ended)
            raise _ended(live.ended.state, session)
        return live

    def add(self, live: Live, *, interrupted: Iterable[bytes]) -> None:
        """Take up a session that has just been enrolled, in place of those that it interrupted."""
        for old in interrupted:
            self._live.pop(old, None)
        self._live[live.terms.session] = live

    def end(self, live: Live, state: SessionState, *, at: datetime, code: Code | None = None) -> None:
        """End a session durably; a failure, named by ``code``, sticks to its AK and GPUs.

        Raises:
            EnvironmentFault: the store cannot be written. The session has ended all the same, in memory for now.
        """
        # First: whatever happens to the disk, no window of it is admitted any more.
        live.ended = End(state, at, code)
        self._write_end(live, live.ended)

    def _write_end(self, live: Live, end: End) -> None:
        terms = live.terms
        with self._store.transaction() as tx:
            if end.code is not None:
                tx.fail_subjects(subjects_of(terms), code=end.code, session=terms.session, at_ns=nanoseconds(end.at))
            tx.set_state(terms.session, end.state)
        self._live.pop(terms.session, None)

    def advance(
        self,
        live: Live,
        verified: VerifiedWindow,
        physical: TelemetryAppraisal,
        *,
        traces: Sequence[Trace],
        index: int,
        opens: bool,
        obliged: bool,
        at: datetime,
    ) -> Issued:
        """Move a session's chain past a recorded window, durably; the challenge for the next one.

        ``traces`` are what :meth:`recall` was asked about.

        Raises:
            Conflict: the store knows of another step: a fork, by another replica.
            EnvironmentFault: the store cannot be written; the session stands where it stood.
        """
        terms = live.terms
        following = live.position.after(verified, obliged=obliged, telemetry=physical.state)
        running = opens or live.state is SessionState.RUNNING
        state = SessionState.RUNNING if running else SessionState.MEASURED
        issued = issue(self._archive.ledger.root, terms.session, following.seq, at=at)
        with self._store.transaction() as tx:
            tx.advance(
                terms.session,
                expected_seq=live.position.seq,
                expected_prev=live.position.prev,
                prev=following.prev,
                state=state,
                window=verified.digest,
                index=index,
                held=verified.held,
                received_ns=nanoseconds(at),
            )
            tx.advance_ak(terms.ak, head=following.prev, log=ledgered_log(verified))
            seq = live.position.seq
            past = pasts_of(physical.state, session=terms.session, seq=seq)
            tx.traces.remember(terms.session, seq, traces, past)
            issued = hand_out(tx, issued, terms=terms, position=following, unanswered=_unanswered(live, verified))
        live.position, live.state, live.issued = following, state, issued
        return issued

    def recall(self, live: Live, traces: Sequence[Trace], wanted: Sequence[tuple[bytes, bytes]]) -> History:
        """What is remembered of GPUs that concerns the next window of ``live``.

        ``traces`` are what it brings, ``wanted`` the GPUs that it is the first to judge by a profile, with its digest.
        """
        with self._store.transaction() as tx:
            return tx.traces.recall(live.terms.session, live.position.seq, traces, wanted)

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
        return self._restore(session, None)

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
