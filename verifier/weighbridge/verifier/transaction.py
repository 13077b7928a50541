"""What the verifier remembers of sessions and their windows, and how that may change. See :mod:`.store`."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import final

import sqlalchemy as sa
from sqlalchemy import exc

from weighbridge.verifier import statements
from weighbridge.verifier.challenges import Challenges, Issued
from weighbridge.verifier.database import prepared
from weighbridge.verifier.database.conflict import Conflict
from weighbridge.verifier.database.prepared import Changes
from weighbridge.verifier.endings import Endings
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.failures import Failures
from weighbridge.verifier.listing import Listing
from weighbridge.verifier.owners import Owners
from weighbridge.verifier.positions import Positions
from weighbridge.verifier.progress import Progress
from weighbridge.verifier.results import Results
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.spots import Spots
from weighbridge.verifier.standing import ended
from weighbridge.verifier.stood import Stands
from weighbridge.verifier.subjects import Subject, SubjectKind, Subjects
from weighbridge.verifier.tables import session_gpus, sessions, windows
from weighbridge.verifier.traces import Traces

__all__ = ["Conflict", "Issued", "Move", "SessionRow", "Subject", "SubjectKind", "Transaction"]


@dataclass(frozen=True, slots=True)
class SessionRow:
    """What is remembered of a session; ``next_seq`` and ``prev`` are what its next window has to carry."""

    id: bytes
    tenant: str
    state: SessionState
    ak: bytes
    gpus: tuple[bytes, ...]
    opened_ns: int
    enrolment_index: int
    next_seq: int
    prev: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A window that goes into the chain of its session: strictly the one that continues it.

    Attributes:
        session: which one.
        ak: its AK, whose chain moves with it.
        before: the state in which it is.
        seq: the window's number, for which it waits.
        prev: the window's ``prev``, which must be the head of the session and of its AK.
        after: its state afterwards.
        head: the new head: ``D("link", H_k, qualifyingData_k)``.
        window: H_k, 32 bytes.
        index: ledger index of the leaf that commits to the window's record.
        held: whether it came too late to count as fresh.
        received_ns: nanoseconds since 1970.
        log: the measurement log, as it is ledgered by the window.
    """

    session: bytes
    ak: bytes
    before: SessionState
    seq: int
    prev: bytes
    after: SessionState
    head: bytes
    window: bytes
    index: int
    held: bool
    received_ns: int
    log: LedgeredLog


@final
class Transaction:
    """What can be read and changed within one transaction. Given by :meth:`.Store.transaction`.

    Attributes:
        challenges: what was issued in sessions.
        endings: which sessions have ended, and have their windows and challenges still.
        failures: which of the subjects have failed.
        listing: sessions as an operator lists them.
        subjects: attestation keys and GPUs.
        spots: the spot challenges.
        stood: where sessions stand.
        owners: the reference sets that were seen.
        positions: where sessions stood lately, for those who restore them.
        progress: how much of the ledger all this knows of.
        results: what relying parties may know of sessions.
        traces: what GPUs' samples were like.
    """

    __slots__ = (
        "_connection",
        "challenges",
        "endings",
        "failures",
        "listing",
        "owners",
        "positions",
        "progress",
        "results",
        "spots",
        "stood",
        "subjects",
        "traces",
    )

    def __init__(self, connection: sa.Connection, *, fingerprints_kept: int) -> None:
        self._connection = connection
        self.challenges = Challenges(connection)
        self.endings = Endings(connection)
        self.failures = Failures(connection)
        self.listing = Listing(connection)
        self.subjects = Subjects(connection)
        self.spots = Spots(connection)
        self.stood = Stands(connection)
        self.owners = Owners(connection)
        self.positions = Positions(connection)
        self.progress = Progress(connection)
        self.results = Results(connection)
        self.traces = Traces(connection, kept=fingerprints_kept)

    @contextlib.contextmanager
    def part(self) -> Generator[None]:
        """All of the block or nothing: what raises :class:`Conflict` undoes itself, and nothing before it.

        Raises:
            Conflict: as :class:`.Store`.
        """
        try:
            with prepared.part(self._connection):
                yield
        except exc.IntegrityError as error:
            raise Conflict(str(error.orig)) from error

    # -- sessions -----------------------------------------------------------------------------------------------------

    def open_session(
        self,
        *,
        session: bytes,
        tenant: str,
        ak: bytes,
        gpus: Sequence[bytes],
        prev: bytes,
        enrolment_index: int,
        state: SessionState,
        opened_ns: int,
    ) -> tuple[bytes, ...]:
        """Remember a session, in which its AK's chain goes on. Other live ones of its AK or GPUs end ``interrupted``.

        An AK has one chain, and a GPU is in one host at a time.

        Args:
            session: 16 bytes, never used before.
            tenant: whose it is.
            ak: identity of the AK, 32 bytes.
            gpus: identities of the GPUs, 32 bytes each.
            prev: what its first window has to carry: the head of the AK, or the genesis of an AK without one.
            enrolment_index: ledger index of the record of its enrolment.
            state: where it stands.
            opened_ns: nanoseconds since 1970.

        Returns:
            The sessions of this AK, or of one of these GPUs, that ended by this one.

        Raises:
            Conflict: when there is such a session, or the chain of this AK stands elsewhere.
            PolicyDenied: ``SUBJECT_FAILED``: the AK or a GPU has failed, and nobody has cleared it.
        """
        self.subjects.know("ak", ak)
        for gpu in gpus:
            self.subjects.know("gpu", gpu)
        self.subjects.begin(ak, head=prev)
        holding = sa.select(session_gpus.c.session).where(
            session_gpus.c.kind == "gpu", session_gpus.c.identity.in_(gpus)
        )
        interrupted = self._connection.scalars(
            sa.update(sessions)
            .where(
                sa.or_(sessions.c.ak == ak, sessions.c.id.in_(holding)),
                sessions.c.state.not_in(statements.FINAL_STATES),
            )
            .values(state=SessionState.INTERRUPTED.value)
            .returning(sessions.c.id)
        ).all()
        self.results.keep(dict.fromkeys(interrupted, ended(SessionState.INTERRUPTED)))
        self.endings.add(interrupted, ended_ns=opened_ns)
        self._connection.execute(
            sa.insert(sessions).values(
                id=session,
                tenant=tenant,
                state=state.value,
                ak_kind="ak",
                ak=ak,
                opened_ns=opened_ns,
                enrolment_index=enrolment_index,
                next_seq=0,
                prev=prev,
            )
        )
        for gpu in gpus:
            self._connection.execute(sa.insert(session_gpus).values(session=session, kind="gpu", identity=gpu))
        return tuple(interrupted)

    def session(self, session: bytes) -> SessionRow | None:
        """The session, if there is one."""
        row = self._connection.execute(sa.select(sessions).where(sessions.c.id == session)).one_or_none()
        if row is None:
            return None
        gpus = self._connection.scalars(
            sa.select(session_gpus.c.identity)
            .where(session_gpus.c.session == session)
            .order_by(session_gpus.c.identity)
        )
        return SessionRow(
            id=row.id,
            tenant=row.tenant,
            state=SessionState(row.state),
            ak=row.ak,
            gpus=tuple(gpus),
            opened_ns=row.opened_ns,
            enrolment_index=row.enrolment_index,
            next_seq=row.next_seq,
            prev=row.prev,
        )

    def sessions(self) -> tuple[SessionRow, ...]:
        """Every session, oldest first."""
        ids = self._connection.scalars(sa.select(sessions.c.id).order_by(sessions.c.opened_ns, sessions.c.id)).all()
        return tuple(self._require(session) for session in ids)

    def sessions_by_state(self) -> dict[SessionState, int]:
        """How many sessions there are in each state."""
        rows = self._connection.execute(sa.select(sessions.c.state, sa.func.count()).group_by(sessions.c.state))
        return {SessionState(state): count for state, count in rows}

    def others_of(self, gpus: Sequence[bytes], *, tenant: str) -> tuple[tuple[bytes, int, int], ...]:
        """The sessions of other tenants than ``tenant`` that had one of ``gpus``, oldest first.

        Returns:
            Of each its identifier, when it was opened, and when its last window was received; nanoseconds since 1970.
        """
        last = sa.func.coalesce(sa.func.max(windows.c.received_ns), sessions.c.opened_ns)
        rows = self._connection.execute(
            sa.select(sessions.c.id, sessions.c.opened_ns, last)
            .join(windows, windows.c.session == sessions.c.id, isouter=True)
            .where(
                sessions.c.tenant != tenant,
                sessions.c.id.in_(sa.select(session_gpus.c.session).where(session_gpus.c.identity.in_(gpus))),
            )
            .group_by(sessions.c.id, sessions.c.opened_ns)
            .order_by(sessions.c.opened_ns, sessions.c.id)
        )
        return tuple((row[0], row[1], row[2]) for row in rows)

    def live_sessions(self) -> tuple[bytes, ...]:
        """The sessions that have not ended, oldest first."""
        return tuple(
            self._connection.scalars(
                sa.select(sessions.c.id)
                .where(sessions.c.state.not_in(statements.FINAL_STATES))
                .order_by(sessions.c.opened_ns, sessions.c.id)
            )
        )

    def advance(self, moves: Sequence[Move]) -> None:
        """Take windows into their chains, each of another session: all of them, or the transaction has to be undone.

        Each is compared and swapped: whoever else has moved a session on, whether it was read here before or not, is
        found out by the very statement that would have moved it.

        Raises:
            Conflict: when a session has ended, or it or its AK stands elsewhere: a fork.
            RuntimeError: for an illegal step of states.
        """
        changes = Changes()
        changes.add(
            statements.ADVANCE_SESSION,
            [
                {
                    "of_session": move.session,
                    "of_ak": move.ak,
                    "expected_state": move.before.value,
                    "expected_seq": move.seq,
                    "expected_prev": move.prev,
                    "state": move.before.to(move.after).value,
                    "next_seq": move.seq + 1,
                    "prev": move.head,
                }
                for move in moves
            ],
            otherwise=f"{_named(moves)} waits for another window",
        )
        changes.add(
            statements.RECORD_WINDOW,
            [
                {
                    "session": move.session,
                    "seq": move.seq,
                    "digest": move.window,
                    "ledger_index": move.index,
                    "held": move.held,
                    "received_ns": move.received_ns,
                }
                for move in moves
            ],
        )
        logs = [statements.ak_values(move.ak, move.head, move.log) for move in moves]
        changes.add(statements.ADVANCE_AK, logs, otherwise="unknown AK")
        changes.write(self._connection)

    def set_state(self, session: bytes, state: SessionState, *, at_ns: int) -> None:
        """Let a session take the step to ``state``, at ``at_ns`` since 1970. A final one is never left.

        Raises:
            Conflict: when there is no such session, or another writer has ended it.
            RuntimeError: for an illegal step of states.
        """
        found = statements.STANDING.rows(self._connection, of_session=session)
        if not found:
            raise Conflict(f"no session {session.hex()}")
        standing = SessionState(found[0][0])
        if standing.final:
            raise Conflict(f"session {session.hex()} is {standing.value}")
        step = {"of_session": session, "expected_state": standing.value, "state": standing.to(state).value}
        changes = Changes()
        changes.add(statements.END, [step], otherwise=f"session {session.hex()} is not {standing.value} any more")
        changes.write(self._connection)
        if state.final:
            self.endings.add([session], ended_ns=at_ns)

    def window_digest(self, session: bytes, seq: int) -> bytes | None:
        """H of a recorded window, ``None`` when none of this number is recorded, or kept (:mod:`.endings`)."""
        return self._connection.scalars(
            sa.select(windows.c.digest).where(windows.c.session == session, windows.c.seq == seq)
        ).one_or_none()

    def window_index(self, session: bytes, seq: int) -> int | None:
        """The ledger index of a recorded window, ``None`` as in :meth:`window_digest`."""
        return self._connection.scalars(
            sa.select(windows.c.ledger_index).where(windows.c.session == session, windows.c.seq == seq)
        ).one_or_none()

    def window_indices(self, session: bytes, *, first: int = 0) -> tuple[int, ...]:
        """The ledger indices of the recorded windows of a session from number ``first`` on, in the chain's order.

        Of a session that ended long ago, of the last one alone: :func:`.recorded_state.chain_of` finds the others.
        """
        return tuple(
            self._connection.scalars(
                sa.select(windows.c.ledger_index)
                .where(windows.c.session == session, windows.c.seq >= first)
                .order_by(windows.c.seq)
            )
        )

    # -- small things -------------------------------------------------------------------------------------------------

    def _require(self, session: bytes) -> SessionRow:
        row = self.session(session)
        if row is None:
            raise Conflict(f"no session {session.hex()}")
        return row


def _named(moves: Sequence[Move]) -> str:
    return f"session {moves[0].session.hex()}" if len(moves) == 1 else f"one of {len(moves)} sessions"
