"""Where sessions stand, as the store knows: what a judgement on the next window of each is made by, whoever makes it.

Processes remember sessions, and any of them may move one on. So whoever remembers one compares this before he judges,
and once more in his turn before the judgement is recorded (:mod:`.settling`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

import sqlalchemy as sa

from weighbridge.verifier.database.prepared import Prepared, together
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.tables import challenges, progress, sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

__all__ = ["Stands", "Stood"]

_LAST: Final = (
    sa.select(challenges.c.digest)
    .where(challenges.c.session == sessions.c.id)
    .order_by(challenges.c.number.desc())
    .limit(1)
    .scalar_subquery()
)
_ALL: Final = sa.select(
    sessions.c.id,
    sessions.c.state,
    sessions.c.next_seq,
    sessions.c.prev,
    _LAST,
    sa.select(progress.c.settled).scalar_subquery(),
)
_STOOD: Final = Prepared(
    _ALL.where(sessions.c.id.in_(sa.bindparam("of_sessions", expanding=True))), lists=["of_sessions"]
)


@dataclass(frozen=True, slots=True)
class Stood:
    """Where one session stands.

    Attributes:
        state: its state.
        seq: the number of the window that it waits for.
        prev: what that has to carry.
        challenge: digest of the outstanding challenge.
        known: how much of the ledger the store knew of when it was asked.
    """

    state: SessionState
    seq: int
    prev: bytes
    challenge: bytes | None
    known: int = field(default=-1, compare=False)


@final
class Stands:
    """Reads within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, named: Sequence[bytes]) -> dict[bytes, Stood]:
        """Where each of the sessions ``named`` stands that there is."""
        pieces = together(self._connection, *_STOOD.pieces("of_sessions", named))
        return {row[0]: _stood(row) for rows in pieces for row in rows}

    def one(self, session: bytes) -> Stood | None:
        """Where ``session`` stands, if there is one."""
        return self.of([session]).get(session)


def _stood(row: Sequence[Any]) -> Stood:
    return Stood(SessionState(row[1]), row[2], row[3], row[4], row[5])
