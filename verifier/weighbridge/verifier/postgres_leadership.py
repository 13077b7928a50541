"""Turns of leading among replicas on many machines, by the database that they share. See :mod:`.leadership`.

A turn is a lock that a connection holds, and the store's transactions in the turn run on that connection: when the
server ends it, because the machine is gone, the process was paused, or the server itself went down, nothing more is
committed in that turn. What such a process may still do is to end an append to the ledger that it has begun; that is a
compare-and-swap of its own, against the head that was there when the turn began, and whoever leads next finishes what
the ledger tells of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from weighbridge.verifier.database.postgres import PostgresDatabase

__all__ = ["PostgresLeadership"]


@final
class PostgresLeadership:
    """See :class:`.Leadership`. ``database`` is that of the store whose transactions are fenced."""

    __slots__ = ("_database",)

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def turn(self) -> AbstractContextManager[None]:
        """See :meth:`.Leadership.turn`; other codes of :class:`.Store` where the database does not answer."""
        return self._database.leading()

    def require(self) -> None:
        """See :meth:`.Leadership.require`: asks the database."""
        self._database.require_leading()

    def close(self) -> None:
        """See :meth:`.Leadership.close`: the store's connections are closed with it."""
