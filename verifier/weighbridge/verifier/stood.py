"""Where sessions stand, as the store knows: what a judgement on the next window of each is made by, whoever makes it.

Processes remember sessions, and any of them may move one on. So whoever remembers one compares this before he judges,
and once more in his turn before the judgement is recorded (:mod:`.settling`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.verifier.session import SessionState
from weighbridge.verifier.tables import challenges, sessions

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
# Put together once: building a statement takes longer than running it.
_STOOD: Final = sa.select(sessions.c.id, sessions.c.state, sessions.c.next_seq, sessions.c.prev, _LAST).where(
    sessions.c.id.in_(sa.bindparam("of_sessions", expanding=True))
)
# SQLite takes 32,766 parameters, PostgreSQL 65,535.
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Stood:
    """Where one session stands.

    Attributes:
        state: its state.
        seq: the number of the window that it waits for.
        prev: what that has to carry.
        challenge: digest of the outstanding challenge.
    """

    state: SessionState
    seq: int
    prev: bytes
    challenge: bytes | None


@final
class Stands:
    """Reads within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, named: Sequence[bytes]) -> dict[bytes, Stood]:
        """Where each of the sessions ``named`` stands that there is."""
        found: dict[bytes, Stood] = {}
        for start in range(0, len(named), _AT_ONCE):
            rows = self._connection.execute(_STOOD, {"of_sessions": list(named[start : start + _AT_ONCE])})
            found.update((row[0], Stood(SessionState(row[1]), row[2], row[3], row[4])) for row in rows)
        return found
