"""What the verifier remembers of sessions, attestation keys and GPUs, and how that may change. See :mod:`.store`."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import sqlalchemy as sa
from sqlalchemy import exc

from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.proto.spot import SpotChallenge, SpotExpectation
from weighbridge.verifier import statements
from weighbridge.verifier.database.conflict import Conflict
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.owners import Owners
from weighbridge.verifier.positions import Positions
from weighbridge.verifier.progress import Progress
from weighbridge.verifier.results import Results
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.spots import Spots
from weighbridge.verifier.standing import ended
from weighbridge.verifier.stood import Stands
from weighbridge.verifier.tables import challenges, clearances, session_gpus, sessions, subjects, windows
from weighbridge.verifier.traces import Traces

__all__ = ["Conflict", "Issued", "SessionRow", "Subject", "SubjectKind", "Transaction"]

SubjectKind = Literal["ak", "gpu"]

_KNOW: Final = Upsert(subjects)
# What has failed keeps its first failure.
_FAIL: Final = Upsert(
    subjects, replaced=["failed_code", "failed_ns", "failed_session"], unless=subjects.c.failed_code.is_not(None)
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is remembered of an attestation key or a GPU.

    Attributes:
        kind: which of the two.
        identity: SHA-256 of the AK's or the BROM certificate's SubjectPublicKeyInfo, 32 bytes.
        failed_code: why it failed first, ``None`` if it has not or was cleared.
        failed_ns: when, in nanoseconds since 1970.
        failed_session: in which session, if in one.
        head: for an AK, the head of its chain of windows; ``None`` before its first session.
        log: for an AK, the measurement log as last ledgered; ``None`` before its first window.
    """

    kind: SubjectKind
    identity: bytes
    failed_code: Code | None
    failed_ns: int | None
    failed_session: bytes | None
    head: bytes | None
    log: LedgeredLog | None


@dataclass(frozen=True, slots=True)
class Issued:
    """A challenge as given out: for which window (``None``: an enrolment), what it hashes, and when.

    ``digest``, ``ledger_root`` and ``random`` are 32 bytes; ``issued_ns`` counts from 1970. ``spot`` is the spot
    challenge that was spent with it, if one was, and ``asked_ns`` when that left first: ``None`` if it is not known
    any more, since a restart.
    """

    seq: int | None
    digest: bytes
    ledger_root: bytes
    random: bytes
    issued_ns: int
    spot: SpotExpectation | None = None
    asked_ns: int | None = None

    def spot_for(self, seq: int) -> SpotExpectation | None:
        """What window ``seq``, sealed under this challenge, has to answer: nothing, if it is not the challenge's own.

        A window that is sealed under the challenge of an earlier one is held, and answers nothing a second time.
        """
        return self.spot if self.seq == seq else None


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


@final
class Transaction:
    """What can be read and changed within one transaction. Given by :meth:`.Store.transaction`.

    Attributes:
        spots: the spot challenges.
        stood: where sessions stand.
        owners: the reference sets that were seen.
        positions: where sessions stood lately, for those who restore them.
        progress: how much of the ledger all this knows of.
        results: what relying parties may know of sessions.
        traces: what GPUs' samples were like.
    """

    __slots__ = ("_connection", "owners", "positions", "progress", "results", "spots", "stood", "traces")

    def __init__(self, connection: sa.Connection, *, fingerprints_kept: int) -> None:
        self._connection = connection
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
            with self._connection.begin_nested():
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
        for kind, identity in _subjects_of(ak, gpus):
            self._remember(kind, identity)
        self._swap(
            sa.update(subjects)
            .where(*_is("ak", ak), sa.or_(subjects.c.head.is_(None), subjects.c.head == prev))
            .values(head=prev),
            "the chain of this AK stands elsewhere",
        )
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
        for old in interrupted:
            self.results.keep(old, ended(SessionState.INTERRUPTED))
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

    def advance(  # noqa: PLR0913 - the row
        self,
        session: bytes,
        *,
        expected_seq: int,
        expected_prev: bytes,
        prev: bytes,
        state: SessionState,
        window: bytes,
        index: int,
        held: bool,
        received_ns: int,
    ) -> None:
        """Take one window into the chain: strictly the one that continues it. Belongs with :meth:`advance_ak`.

        Args:
            session: which one.
            expected_seq: the window's number, which the session must be waiting for.
            expected_prev: the window's ``prev``, which must be the head of the session and of its AK.
            prev: the new head: ``D("link", H_k, qualifyingData_k)``.
            state: the session's state afterwards.
            window: H_k, 32 bytes.
            index: ledger index of the leaf that commits to the window's record.
            held: whether it came too late to count as fresh.
            received_ns: nanoseconds since 1970.

        Raises:
            Conflict: when the session has ended, or it or its AK stands elsewhere: a fork.
            RuntimeError: for an illegal step of states.
        """
        standing, ak = self._standing(session)
        following = standing if standing.final else standing.to(state)
        self._swap(
            statements.ADVANCE_SESSION,
            f"session {session.hex()} does not wait for window {expected_seq}",
            of_session=session,
            of_ak=ak,
            expected_seq=expected_seq,
            expected_prev=expected_prev,
            next_seq=expected_seq + 1,
            prev=prev,
            state=following.value,
        )
        self._connection.execute(
            statements.RECORD_WINDOW,
            {
                "session": session,
                "seq": expected_seq,
                "digest": window,
                "ledger_index": index,
                "held": held,
                "received_ns": received_ns,
            },
        )

    def set_state(self, session: bytes, state: SessionState) -> None:
        """Let a session take the step to ``state``. A final one is never left.

        Raises:
            Conflict: when there is no such session, or another writer has ended it.
            RuntimeError: for an illegal step of states.
        """
        standing, _ = self._standing(session)
        if standing.final:
            raise Conflict(f"session {session.hex()} is {standing.value}")
        self._connection.execute(
            sa.update(sessions).where(sessions.c.id == session).values(state=standing.to(state).value)
        )

    def window_digest(self, session: bytes, seq: int) -> bytes | None:
        """H of a recorded window, ``None`` when none of this number is recorded."""
        return self._connection.scalars(
            sa.select(windows.c.digest).where(windows.c.session == session, windows.c.seq == seq)
        ).one_or_none()

    def window_index(self, session: bytes, seq: int) -> int | None:
        """The ledger index of a recorded window, ``None`` when none of this number is recorded."""
        return self._connection.scalars(
            sa.select(windows.c.ledger_index).where(windows.c.session == session, windows.c.seq == seq)
        ).one_or_none()

    def window_indices(self, session: bytes, *, first: int = 0) -> tuple[int, ...]:
        """The ledger indices of the recorded windows of a session from number ``first`` on, in the chain's order."""
        return tuple(
            self._connection.scalars(
                sa.select(windows.c.ledger_index)
                .where(windows.c.session == session, windows.c.seq >= first)
                .order_by(windows.c.seq)
            )
        )

    # -- challenges ---------------------------------------------------------------------------------------------------

    def issue_challenge(self, session: bytes, issued: Issued) -> None:
        """Remember a challenge; from now on it is the outstanding one of its session.

        Raises:
            Conflict: when there is no such session, or it was issued before.
        """
        self._connection.execute(
            statements.ISSUE_CHALLENGE,
            {
                "of_session": session,
                "digest": issued.digest,
                "session": session,
                "seq": issued.seq,
                "ledger_root": issued.ledger_root,
                "random": issued.random,
                "issued_ns": issued.issued_ns,
            },
        )

    def challenge(self, session: bytes, digest: bytes) -> Issued | None:
        """The challenge, if it was ever issued in this session."""
        return self._issued(challenges.c.session == session, challenges.c.digest == digest)

    def last_challenge(self, session: bytes) -> Issued | None:
        """The outstanding challenge of a session."""
        return self._issued(challenges.c.session == session)

    def _issued(self, *where: sa.ColumnElement[bool]) -> Issued | None:
        row = self._connection.execute(
            statements.ISSUED.where(*where).order_by(challenges.c.number.desc()).limit(1)
        ).one_or_none()
        if row is None:
            return None
        spot = None if row.spot is None else SpotExpectation(SpotChallenge.parse(row.spot), row.mac)
        return Issued(row.seq, row.digest, row.ledger_root, row.random, row.issued_ns, spot)

    # -- subjects -----------------------------------------------------------------------------------------------------

    def subject(self, kind: SubjectKind, identity: bytes) -> Subject | None:
        """What is remembered of an AK or a GPU, if anything."""
        row = self._connection.execute(sa.select(subjects).where(*_is(kind, identity))).one_or_none()
        if row is None:
            return None
        return Subject(
            kind=kind,
            identity=identity,
            failed_code=None if row.failed_code is None else Code(row.failed_code),
            failed_ns=row.failed_ns,
            failed_session=row.failed_session,
            head=row.head,
            log=None if row.log_length is None else LedgeredLog(row.reset_count, row.log_length, row.log_head),
        )

    def advance_ak(self, ak: bytes, *, head: bytes, log: LedgeredLog) -> None:
        """Remember where an AK's chain of windows and its measurement log stand. Belongs with :meth:`advance`.

        Raises:
            Conflict: when nothing is known of this AK.
        """
        self._swap(
            statements.ADVANCE_AK,
            "unknown AK",
            of_ak=ak,
            head=head,
            reset_count=log.reset_count,
            log_length=log.length,
            log_head=log.head,
        )

    def fail_subjects(
        self, failed: Iterable[tuple[SubjectKind, bytes]], *, code: Code, session: bytes | None, at_ns: int
    ) -> None:
        """Make a failure stick. A subject that has failed already keeps its first failure."""
        values = {"failed_code": code.value, "failed_ns": at_ns, "failed_session": session}
        for kind, identity in failed:
            self._connection.execute(_FAIL.on(self._connection), {"kind": kind, "identity": identity, **values})

    def clear_failure(self, kind: SubjectKind, identity: bytes, *, reason: str, at_ns: int) -> Subject:
        """Forgive a failure on somebody's word: the failure and the reason stay on record.

        Returns:
            The subject as it was, with its failure.

        Raises:
            Conflict: when it has not failed.
            ValueError: for no reason.
        """
        if not reason.strip():
            raise ValueError("a failure is cleared for a reason")
        subject = self.subject(kind, identity)
        if subject is None or subject.failed_code is None:
            raise Conflict(f"this {kind} has not failed")
        self._connection.execute(
            sa.insert(clearances).values(
                kind=kind,
                identity=identity,
                failed_code=subject.failed_code.value,
                failed_ns=subject.failed_ns,
                cleared_ns=at_ns,
                reason=reason,
            )
        )
        self._connection.execute(
            sa.update(subjects)
            .where(*_is(kind, identity))
            .values(failed_code=None, failed_ns=None, failed_session=None)
        )
        return subject

    # -- small things -------------------------------------------------------------------------------------------------

    def _remember(self, kind: SubjectKind, identity: bytes) -> None:
        """Make sure that there is a row, and that it has not failed."""
        self._connection.execute(_KNOW.on(self._connection), {"kind": kind, "identity": identity})
        subject = self.subject(kind, identity)
        if subject is not None and subject.failed_code is not None:
            raise PolicyDenied(
                Code.SUBJECT_FAILED,
                f"this {kind} failed before, with {subject.failed_code.value}, and was not cleared",
                where=kind,
                got=identity,
            )

    def _require(self, session: bytes) -> SessionRow:
        row = self.session(session)
        if row is None:
            raise Conflict(f"no session {session.hex()}")
        return row

    def _standing(self, session: bytes) -> tuple[SessionState, bytes]:
        """The state and the AK of a session."""
        row = self._connection.execute(statements.STANDING, {"of_session": session}).one_or_none()
        if row is None:
            raise Conflict(f"no session {session.hex()}")
        return SessionState(row.state), row.ak

    def _swap(self, statement: sa.Update, otherwise: str, **parameters: object) -> None:
        """Compare and swap: exactly one row is as assumed, or nothing happens."""
        if self._connection.execute(statement, parameters).rowcount != 1:
            raise Conflict(otherwise)


def _subjects_of(ak: bytes, gpus: Sequence[bytes]) -> list[tuple[SubjectKind, bytes]]:
    return [("ak", ak), *(("gpu", gpu) for gpu in gpus)]


def _is(kind: SubjectKind, identity: bytes) -> tuple[sa.ColumnElement[bool], ...]:
    return (subjects.c.kind == kind, subjects.c.identity == identity)
