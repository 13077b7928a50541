"""Sessions as an operator lists them: how each stands, since when, and why it failed. A bounded number at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.verifier.session import SessionState
from weighbridge.verifier.tables import endings, results, sessions, windows

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Listed", "Listing", "Wanted"]

_FROM: Final = sessions.outerjoin(results, results.c.session == sessions.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which sessions are listed: those of which all of this is true; what is empty or ``None`` leaves one open.

    Attributes:
        states: one of them.
        tenant: whose.
        code: why they failed; of a session that has not, nothing.
    """

    states: Collection[SessionState] = ()
    tenant: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A session. Times are nanoseconds since 1970.

    Attributes:
        id: 16 bytes.
        tenant: whose it is.
        state: where it stands.
        ak: identity of its attestation key, 32 bytes.
        windows: how many were recorded, as its bundle counts them: those of its chain, and the one that failed it,
            which is in the ledger and does not continue the chain.
        opened_ns: when it was enrolled.
        last_ns: when the last of these windows was received; ``None`` before the first. Of a session that failed long
            ago (:mod:`.endings`), of the last one in its chain.
        ended_ns: when it ended; ``None`` where it has not, or long ago.
        code: why it failed, where it has: one of ours, or of a policy's author.
    """

    id: bytes
    tenant: str
    state: SessionState
    ak: bytes
    windows: int
    opened_ns: int
    last_ns: int | None
    ended_ns: int | None
    code: str | None


@final
class Listing:
    """Sessions within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def counts(self, wanted: Wanted) -> dict[SessionState, int]:
        """How many there are in each state."""
        rows = self._connection.execute(
            sa.select(sessions.c.state, sa.func.count())
            .select_from(_FROM)
            .where(*_named(wanted))
            .group_by(sessions.c.state)
        )
        found: dict[str, int] = {row[0]: row[1] for row in rows}
        return {state: found[state.value] for state in SessionState if state.value in found}

    def latest(self, wanted: Wanted, *, most: int) -> tuple[Listed, ...]:
        """The ``most`` that were opened last, the oldest of them first."""
        # The few first: what is beside them is looked for one by one.
        few = (
            sa.select(sessions, results.c.shut_code, results.c.shut_seq)
            .select_from(_FROM)
            .where(*_named(wanted))
            .order_by(sessions.c.opened_ns.desc(), sessions.c.id.desc())
            .limit(most)
            .subquery()
        )
        last = sa.and_(windows.c.session == few.c.id, windows.c.seq == few.c.next_seq - 1)
        rows = self._connection.execute(
            sa.select(few, windows.c.received_ns, endings.c.ended_ns)
            .select_from(few.outerjoin(windows, last).outerjoin(endings, endings.c.session == few.c.id))
            .order_by(few.c.opened_ns, few.c.id)
        )
        return tuple(map(_listed, rows))


def _listed(row: sa.Row[tuple[object, ...]]) -> Listed:
    state = SessionState(row.state)
    failed = state is SessionState.FAILED
    # A session fails by a window, which is recorded, and never goes into the chain.
    by_window = failed and row.shut_seq is not None
    return Listed(
        id=row.id,
        tenant=row.tenant,
        state=state,
        ak=row.ak,
        windows=row.next_seq + by_window,
        opened_ns=row.opened_ns,
        last_ns=row.ended_ns if by_window and row.ended_ns is not None else row.received_ns,
        ended_ns=row.ended_ns,
        code=row.shut_code if failed else None,
    )


def _named(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    asked: list[sa.ColumnElement[bool]] = []
    if wanted.states:
        asked.append(sessions.c.state.in_([state.value for state in wanted.states]))
    if wanted.tenant is not None:
        asked.append(sessions.c.tenant == wanted.tenant)
    if wanted.code is not None:
        asked += [sessions.c.state == SessionState.FAILED.value, results.c.shut_code == wanted.code]
    return asked
