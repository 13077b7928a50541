"""Failures that stick to attestation keys and GPUs, as an operator asks for them: by code, time, tenant and kind.

Of the same table as :mod:`.subjects`, which says whether a single one has failed. Whoever asks gets a bounded number of
them at a time, and how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.proto.errors import Code
from weighbridge.verifier.tables import sessions, subjects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.subjects import SubjectKind

__all__ = ["Failure", "FailureCount", "Failures", "Which"]

_FROM: Final = subjects.outerjoin(sessions, sessions.c.id == subjects.c.failed_session)
_COLUMNS: Final = ("kind", "identity", "failed_code", "failed_ns", "failed_session")
_FAILURE: Final = sa.select(*(subjects.c[name] for name in _COLUMNS), sessions.c.tenant).select_from(_FROM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which failures are meant: those of which all of this is true; ``None`` leaves one open.

    Attributes:
        code: of the first failure, which is the one that sticks.
        kind: of what failed.
        tenant: whose session it was that failed. Of what failed before there was one, nobody's.
        since_ns: when it failed, or later; nanoseconds since 1970.
        before_ns: when it had not failed yet.
    """

    code: Code | None = None
    kind: SubjectKind | None = None
    tenant: str | None = None
    since_ns: int | None = None
    before_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that sticks.

    Attributes:
        kind: of what it sticks to.
        identity: of that, 32 bytes, as :class:`.Subject`.
        code: why it failed first.
        failed_ns: when, in nanoseconds since 1970.
        session: in which session; ``None`` where none was enrolled.
        tenant: whose that is.
    """

    kind: SubjectKind
    identity: bytes
    code: Code
    failed_ns: int
    session: bytes | None
    tenant: str | None


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How many attestation keys and GPUs failed with ``code``, the first at ``first_ns``, the last at ``last_ns``."""

    code: Code
    aks: int
    gpus: int
    first_ns: int
    last_ns: int


@final
class Failures:
    """They within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def counts(self, which: Which) -> tuple[FailureCount, ...]:
        """How many there are of each code, in the order of the codes."""
        aks = sa.func.count(sa.case((subjects.c.kind == "ak", 1)))
        gpus = sa.func.count(sa.case((subjects.c.kind == "gpu", 1)))
        first, last = sa.func.min(subjects.c.failed_ns), sa.func.max(subjects.c.failed_ns)
        rows = self._connection.execute(
            sa.select(subjects.c.failed_code, aks, gpus, first, last)
            .select_from(_FROM)
            .where(*_named(which))
            .group_by(subjects.c.failed_code)
        )
        found = [FailureCount(Code(row[0]), row[1], row[2], row[3], row[4]) for row in rows]
        return tuple(sorted(found, key=lambda count: count.code.value))

    def latest(self, which: Which, *, most: int) -> tuple[Failure, ...]:
        """The ``most`` that failed last, the first of them first."""
        newest = [subjects.c.failed_ns.desc(), subjects.c.kind.desc(), subjects.c.identity.desc()]
        return self._read(_named(which), newest, most)[::-1]

    def following(self, after: Failure | None, which: Which, *, most: int) -> tuple[Failure, ...]:
        """The next ``most`` behind ``after``, by kind and identity: whoever asks on sees none twice."""
        asked = _named(which)
        if after is not None:
            last = sa.tuple_(sa.literal(after.kind), sa.literal(after.identity))
            asked.append(last < sa.tuple_(subjects.c.kind, subjects.c.identity))
        return self._read(asked, [subjects.c.kind, subjects.c.identity], most)

    def _read(
        self, asked: Sequence[sa.ColumnElement[bool]], order: Sequence[sa.ColumnElement[object]], most: int
    ) -> tuple[Failure, ...]:
        rows = self._connection.execute(_FAILURE.where(*asked).order_by(*order).limit(most))
        return tuple(
            Failure(row.kind, row.identity, Code(row.failed_code), row.failed_ns, row.failed_session, row.tenant)
            for row in rows
        )


def _named(which: Which) -> list[sa.ColumnElement[bool]]:
    asked: list[sa.ColumnElement[bool]] = [subjects.c.failed_code.is_not(None)]
    if which.code is not None:
        asked.append(subjects.c.failed_code == which.code.value)
    if which.kind is not None:
        asked.append(subjects.c.kind == which.kind)
    if which.tenant is not None:
        asked.append(sessions.c.tenant == which.tenant)
    if which.since_ns is not None:
        asked.append(subjects.c.failed_ns >= which.since_ns)
    if which.before_ns is not None:
        asked.append(subjects.c.failed_ns < which.before_ns)
    return asked
