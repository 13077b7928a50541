"""Sessions that have ended, and what of them is taken away when that was long ago. See :mod:`.store`.

A window of a session that has ended is refused by the session's own row, whatever its number and whatever is known of
it (:meth:`.LiveSessions.find`), so the rows of its windows and challenges change no answer any more. Of these go all
but

1. its last window: when that came, and up to where the ledger has its windows (:func:`.recorded_state.chain_of`);
2. its last challenge, which is the outstanding one;
3. challenges with which a spot challenge left: that one stays spent.

What else is kept of it stays: how it ended, whose it was and on which GPUs, what relying parties are told, failures
that stick, what its GPUs' samples were like. Of a session that has not ended nothing is ever taken.

A row of this table goes in the transaction that takes away the last of its session's rows: whatever cuts a removal off,
the next one goes on there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.statements import FINAL_STATES
from weighbridge.verifier.tables import challenges, endings, sessions, spots, upkeep, windows

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Endings", "Held", "Removed"]

_BEFORE: Final = endings.c.ended_ns < sa.bindparam("before_ns")
# Whatever this table says, the session's own row has to say that it has ended.
_ENDED: Final = endings.join(sessions, sa.and_(sessions.c.id == endings.c.session, sessions.c.state.in_(FINAL_STATES)))
_OLDEST: Final = (
    sa.select(endings.c.session, sessions.c.next_seq)
    .select_from(_ENDED)
    .where(_BEFORE)
    .order_by(endings.c.ended_ns, endings.c.session)
    .limit(sa.bindparam("at_most"))
)
_SPENT: Final = sa.exists().where(spots.c.issued == challenges.c.digest)
_OUTSTANDING: Final = (
    sa.select(sa.func.max(challenges.c.number))
    .where(challenges.c.session == sa.bindparam("of_session"))
    .scalar_subquery()
)
_OLD_WINDOWS: Final = (
    sa.select(windows.c.seq)
    .where(windows.c.session == sa.bindparam("of_session"), windows.c.seq < sa.bindparam("last"))
    .order_by(windows.c.seq)
    .limit(sa.bindparam("most"))
)
_OLD_CHALLENGES: Final = (
    sa.select(challenges.c.number)
    .where(challenges.c.session == sa.bindparam("of_session"), challenges.c.number < _OUTSTANDING, ~_SPENT)
    .order_by(challenges.c.number)
    .limit(sa.bindparam("most"))
)
_REMOVE_WINDOWS: Final = sa.delete(windows).where(
    windows.c.session == sa.bindparam("of_session"), windows.c.seq.in_(_OLD_WINDOWS.scalar_subquery())
)
_REMOVE_CHALLENGES: Final = sa.delete(challenges).where(
    challenges.c.session == sa.bindparam("of_session"), challenges.c.number.in_(_OLD_CHALLENGES.scalar_subquery())
)
_DONE: Final = sa.delete(endings).where(endings.c.session.in_(sa.bindparam("of_sessions", expanding=True)))
_ADD: Final = Upsert(endings)
_AGAIN: Final = Upsert(upkeep, replaced=["again_ns"])
# Sessions are looked for by so many: what is gone is passed over each time until the database has cleared it away.
_AT_ONCE: Final = 256
# A verifier whose clock was ahead must not stop the others for as long.
_AHEAD_NS: Final = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Removed:
    """How many rows were taken away, and of how many sessions the last of them."""

    windows: int = 0
    challenges: int = 0
    sessions: int = 0

    def __add__(self, other: Removed) -> Removed:
        """Both."""
        return Removed(self.windows + other.windows, self.challenges + other.challenges, self.sessions + other.sessions)

    @property
    def rows(self) -> int:
        """All of them, and the rows of this table."""
        return self.windows + self.challenges + self.sessions


@dataclass(frozen=True, slots=True)
class Held:
    """How many sessions have rows of all their windows here, how many windows they had, and since when.

    ``since_ns`` is when the first of them ended, or was opened, in nanoseconds since 1970; ``None`` without one.
    """

    sessions: int
    windows: int
    since_ns: int | None


@final
class Endings:
    """The table within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, ended: Iterable[bytes], *, ended_ns: int) -> None:
        """Remember when sessions have ended, in the transaction that ends them."""
        if rows := [{"session": session, "ended_ns": ended_ns} for session in ended]:
            self._connection.execute(_ADD.on(self._connection), rows)

    def due(self, *, before_ns: int, now_ns: int) -> bool:
        """Whether a session that ended before ``before_ns`` has rows to be taken away, and nobody did so just now."""
        again = self._connection.scalars(sa.select(upkeep.c.again_ns)).one_or_none()
        if again is not None and now_ns < again <= now_ns + _AHEAD_NS:
            return False
        return self._connection.execute(_OLDEST, {"before_ns": before_ns, "at_most": 1}).first() is not None

    def count(self, *, before_ns: int) -> int:
        """How many sessions that ended before ``before_ns`` have rows to be taken away."""
        counting = sa.select(sa.func.count()).select_from(_ENDED).where(_BEFORE)
        return self._connection.execute(counting, {"before_ns": before_ns}).scalar_one()

    def rows(self, *, before_ns: int) -> Removed:
        """What :meth:`remove` would take away of all of them. Counts rows: where there are many, it takes its time."""
        counting = sa.select(sa.func.count())
        given = {"before_ns": before_ns}
        old_windows = (
            counting.select_from(_ENDED.join(windows, windows.c.session == sessions.c.id))
            .where(_BEFORE)
            .where(windows.c.seq < sessions.c.next_seq - 1)
        )
        later = challenges.alias("later")
        outstanding = sa.select(sa.func.max(later.c.number)).where(later.c.session == sessions.c.id).scalar_subquery()
        old_challenges = (
            counting.select_from(_ENDED.join(challenges, challenges.c.session == sessions.c.id))
            .where(_BEFORE)
            .where(challenges.c.number < outstanding, ~_SPENT)
        )
        return Removed(
            windows=self._connection.execute(old_windows, given).scalar_one(),
            challenges=self._connection.execute(old_challenges, given).scalar_one(),
            sessions=self.count(before_ns=before_ns),
        )

    def remove(self, *, before_ns: int, most: int) -> Removed:
        """Take away at most ``most`` rows of sessions that ended before ``before_ns``, of whichever ended first."""
        asked = {"before_ns": before_ns, "at_most": min(most, _AT_ONCE)}
        removed, done = Removed(), list[bytes]()
        for session, next_seq in self._connection.execute(_OLDEST, asked).all():
            if (left := most - removed.rows) <= 0:
                break
            some = self._remove(session, last=next_seq - 1, most=left)
            removed += some
            done += [session] * some.sessions
        if done:
            self._connection.execute(_DONE, {"of_sessions": done})
        return removed

    def next_at(self, again_ns: int) -> None:
        """Let nobody take away more before ``again_ns``: whoever shares this store takes turns with others' windows."""
        self._connection.execute(_AGAIN.on(self._connection), {"id": 0, "again_ns": again_ns})

    def held(self) -> tuple[Held, Held]:
        """Sessions that have not ended, and those that have and are whole here."""
        # PostgreSQL sums to a number of any size.
        total = sa.cast(sa.func.coalesce(sa.func.sum(sessions.c.next_seq), 0), sa.BigInteger)
        live = sa.select(sa.func.count(), total, sa.func.min(sessions.c.opened_ns)).where(
            sessions.c.state.not_in(FINAL_STATES)
        )
        ended = sa.select(sa.func.count(), total, sa.func.min(endings.c.ended_ns)).select_from(_ENDED)
        first, second = (Held(*self._connection.execute(statement).one()) for statement in (live, ended))
        return first, second

    def _remove(self, session: bytes, *, last: int, most: int) -> Removed:
        """Take away at most ``most`` rows of ``session``, whose last window is number ``last``; say if that is all."""
        old = {"of_session": session, "last": last}
        some = self._connection.execute(_REMOVE_WINDOWS, {**old, "most": most}).rowcount
        left, others = most - some, 0
        if left:
            others = self._connection.execute(_REMOVE_CHALLENGES, {"of_session": session, "most": left}).rowcount
        # As many as might be: there may be more.
        return Removed(some, others, 0 if left == others else 1)
