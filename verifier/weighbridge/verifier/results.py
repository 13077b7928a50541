"""What is kept of sessions for whoever relies on them, one table of the verifier's durable state. See :mod:`.standing`.

It changes in the transaction that moves the session itself, so it never says more than the session's row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.affirmed import Affirmed
from weighbridge.verifier.database.prepared import Changes, Prepared
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.standing import Shut, Standing
from weighbridge.verifier.tables import results, sessions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection, Row

__all__ = ["Begun", "Results", "Version"]

Version = tuple[str, int | None, int | None, str | None]
"""What differs between any two standings of one session that were ever true, but for the time."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that has not ended. ``index`` is the ledger's entry of its enrolment.

    ``model`` is that of its last affirmed window; ``None`` where none stands.
    """

    session: bytes
    tenant: str
    index: int
    model: bytes | None


# A code is one of ours or matches what the policy engine lets through; a reason is cut to this many characters.
_REASON_MAX: Final = 200
# PostgreSQL's text has none, and a policy's words may.
_NO_NUL: Final = "\N{REPLACEMENT CHARACTER}"

_COLUMNS: Final = [column.name for column in results.c]
_KEEP: Final = Prepared(Upsert(results, replaced=[name for name in _COLUMNS if name != "session"]), sets=_COLUMNS)
_STANDING: Final = (
    sa.select(sessions.c.id, sessions.c.tenant, sessions.c.state, *(c for c in results.c if c.name != "session"))
    .select_from(sessions)
    .outerjoin(results, results.c.session == sessions.c.id)
    .where(sessions.c.id == sa.bindparam("of_session"))
)
_VERSIONS: Final = (
    sa.select(sessions.c.id, sessions.c.state, results.c.affirmed_seq, results.c.shut_seq, results.c.shut_code)
    .select_from(sessions)
    .outerjoin(results, results.c.session == sessions.c.id)
    .where(sessions.c.id.in_(sa.bindparam("of_sessions", expanding=True)))
)
_BEGUN: Final = (
    sa.select(sessions.c.id, sessions.c.tenant, sessions.c.enrolment_index, results.c.affirmed_seq, results.c.affirmed)
    .select_from(sessions)
    .outerjoin(results, results.c.session == sessions.c.id)
    .where(sessions.c.enrolment_index > sa.bindparam("after"))
    .where(sessions.c.state.in_([state.value for state in SessionState if not state.final]))
    .order_by(sessions.c.enrolment_index)
    .limit(sa.bindparam("at_most"))
)
# SQLite takes 32,766 parameters, PostgreSQL 65,535.
_AT_ONCE: Final = 1000


@final
class Results:
    """The table within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def keep(self, kept: Mapping[bytes, Affirmed | Shut]) -> None:
        """Remember what the last fresh window of each session, or its end, came to: in place of what was before.

        Raises:
            Conflict: when there is no such session.
        """
        changes = Changes()
        changes.add(_KEEP, [_columns(session, result) for session, result in kept.items()])
        changes.write(self._connection)

    def standing(self, session: bytes) -> Standing | None:
        """How the session stands; ``None`` when there is no such session.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT``.
        """
        row = self._connection.execute(_STANDING, {"of_session": session}).one_or_none()
        return None if row is None else _standing(row)

    def versions(self, of: Sequence[bytes]) -> dict[bytes, Version]:
        """For each session of ``of`` that there is, what changes when its standing does."""
        found: dict[bytes, Version] = {}
        for start in range(0, len(of), _AT_ONCE):
            rows = self._connection.execute(_VERSIONS, {"of_sessions": list(of[start : start + _AT_ONCE])})
            found.update((row.id, (row.state, row.affirmed_seq, row.shut_seq, row.shut_code)) for row in rows)
        return found

    def begun(self, *, after: int, at_most: int) -> list[Begun]:
        """Sessions that were enrolled after the ledger's entry ``after`` and have not ended, the oldest first.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT``.
        """
        rows = self._connection.execute(_BEGUN, {"after": after, "at_most": at_most})
        found: list[Begun] = []
        for row in rows:
            affirmed = _affirmed(row.id, row.affirmed_seq, row.affirmed)
            model = None if affirmed is None else affirmed.claims.model
            found.append(Begun(row.id, row.tenant, row.enrolment_index, model))
        return found


def _columns(session: bytes, result: Affirmed | Shut) -> dict[str, object]:
    affirmed, shut = (result, None) if isinstance(result, Affirmed) else (None, result)
    return {
        "session": session,
        "affirmed_seq": None if affirmed is None else affirmed.claims.seq,
        "affirmed": None if affirmed is None else affirmed.encode(),
        "shut_code": None if shut is None else str(shut.code),
        "shut_reason": None if shut is None else shut.message[:_REASON_MAX].replace("\0", _NO_NUL),
        "shut_seq": None if shut is None else shut.seq,
    }


def _affirmed(session: bytes, seq: int | None, data: bytes | None) -> Affirmed | None:
    try:
        affirmed = None if data is None else Affirmed.parse(data)
    except MalformedEvidence as error:
        raise _corrupt(session, str(error)) from error
    if affirmed is not None and (affirmed.claims.session, affirmed.claims.seq) != (session, seq):
        raise _corrupt(session, "it is of another session or window")
    return affirmed


def _standing(row: Row[tuple[object, ...]]) -> Standing:
    affirmed = _affirmed(row.id, row.affirmed_seq, row.affirmed)
    return Standing(
        session=row.id,
        tenant=row.tenant,
        state=SessionState(row.state),
        affirmed=affirmed,
        shut=None if row.shut_code is None else Shut(row.shut_code, row.shut_reason, row.shut_seq),
    )


def _corrupt(session: bytes, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.STATE_CORRUPT, f"what is kept of the last affirmed window is damaged: {reason}", where=session.hex()
    )
