"""Attestation keys and GPUs, as the verifier remembers them beyond their sessions: a table of its durable state.

A failure sticks to them until somebody clears it. Of an attestation key it is also kept where its chain of windows
stands, and how far its measurement log was ledgered. See :mod:`.store`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, final

import sqlalchemy as sa

from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.verifier import statements
from weighbridge.verifier.database.conflict import Conflict
from weighbridge.verifier.database.prepared import Changes
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.tables import clearances, subjects

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Subject", "SubjectKind", "Subjects"]

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


@final
class Subjects:
    """The table within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def of(self, kind: SubjectKind, identity: bytes) -> Subject | None:
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

    def know(self, kind: SubjectKind, identity: bytes) -> None:
        """Make sure that there is a row of it, and that it has not failed.

        Raises:
            PolicyDenied: ``SUBJECT_FAILED``: it has, and nobody has cleared it.
        """
        self._connection.execute(_KNOW.on(self._connection), {"kind": kind, "identity": identity})
        subject = self.of(kind, identity)
        if subject is not None and subject.failed_code is not None:
            raise PolicyDenied(
                Code.SUBJECT_FAILED,
                f"this {kind} failed before, with {subject.failed_code.value}, and was not cleared",
                where=kind,
                got=identity,
            )

    def begin(self, ak: bytes, *, head: bytes) -> None:
        """Let the chain of an AK begin at ``head``, or go on from there.

        Raises:
            Conflict: it stands elsewhere.
        """
        there = sa.or_(subjects.c.head.is_(None), subjects.c.head == head)
        if self._connection.execute(sa.update(subjects).where(*_is("ak", ak), there).values(head=head)).rowcount != 1:
            raise Conflict("the chain of this AK stands elsewhere")

    def advance(self, ak: bytes, *, head: bytes, log: LedgeredLog) -> None:
        """Remember where an AK's chain of windows and its measurement log stand.

        Raises:
            Conflict: when nothing is known of this AK.
        """
        changes = Changes()
        changes.add(statements.ADVANCE_AK, [statements.ak_values(ak, head, log)], otherwise="unknown AK")
        changes.write(self._connection)

    def fail(
        self, failed: Iterable[tuple[SubjectKind, bytes]], *, code: Code, session: bytes | None, at_ns: int
    ) -> None:
        """Make a failure stick. A subject that has failed already keeps its first failure."""
        values = {"failed_code": code.value, "failed_ns": at_ns, "failed_session": session}
        for kind, identity in failed:
            self._connection.execute(_FAIL.on(self._connection), {"kind": kind, "identity": identity, **values})

    def clear(self, kind: SubjectKind, identity: bytes, *, reason: str, at_ns: int) -> Subject:
        """Forgive a failure on somebody's word: the failure and the reason stay on record.

        Returns:
            The subject as it was, with its failure.

        Raises:
            Conflict: when it has not failed.
            ValueError: for no reason.
        """
        if not reason.strip():
            raise ValueError("a failure is cleared for a reason")
        subject = self.of(kind, identity)
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


def _is(kind: SubjectKind, identity: bytes) -> tuple[sa.ColumnElement[bool], ...]:
    return (subjects.c.kind == kind, subjects.c.identity == identity)
