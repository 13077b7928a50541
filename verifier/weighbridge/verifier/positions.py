"""Positions that are kept (:mod:`.kept_position`), in the verifier's durable state: of each session the last one.

A row can be lost, or be of another version, without any harm: the session is then replayed whole. So it carries the
SHA-256 of its content, by which damage is found out; whoever can write into the store can write that as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.proto.digest import sha256
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.tables import positions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.engine import Connection

__all__ = ["Positions"]

# Put together once: building a statement takes longer than running it.
_KEEP: Final = Upsert(positions, replaced=["digest", "content"])
_KEPT: Final = sa.select(positions.c.digest, positions.c.content).where(
    positions.c.session == sa.bindparam("of_session")
)
_FORGET: Final = sa.delete(positions).where(positions.c.session.in_(sa.bindparam("of_sessions", expanding=True)))


@final
class Positions:
    """The rows within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def keep(self, contents: Mapping[bytes, bytes]) -> None:
        """Keep these, by their sessions, in place of what was kept of them before."""
        if contents:
            rows = [
                {"session": session, "digest": sha256(content), "content": content}
                for session, content in contents.items()
            ]
            self._connection.execute(_KEEP.on(self._connection), rows)

    def kept(self, session: bytes) -> bytes | None:
        """What is kept of ``session``, if something is; empty where it was damaged."""
        row = self._connection.execute(_KEPT, {"of_session": session}).one_or_none()
        if row is None:
            return None
        content: bytes = row.content
        return content if sha256(content) == row.digest else b""

    def forget(self, sessions: Collection[bytes]) -> None:
        """Let go of what is kept of ``sessions``, which have ended: nobody restores them."""
        if sessions:
            self._connection.execute(_FORGET, {"of_sessions": list(sessions)})
