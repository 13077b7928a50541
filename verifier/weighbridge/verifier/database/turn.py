"""A turn of leading on PostgreSQL: the connection that has the lock, and what keeps it alive as long as its process is.

The server ends a connection that says nothing while it leads, since that of a process that is paused would keep
everybody waiting. One that only has much to do, such as to make a long session anew from its records, says something
from a thread of its own (:class:`Heart`): that is paused with its process.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import psycopg
from sqlalchemy import exc

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Heart", "Raw", "Turn"]

Raw: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

_BEAT_SECONDS: Final = 2.0


@final
class Turn:
    """One turn.

    Attributes:
        connection: the one that has the lock.
        thread: whose transactions run on it.
        talking: held by whoever uses the connection.
    """

    __slots__ = ("_over", "_raw", "_where", "connection", "talking", "thread")

    def __init__(self, connection: sa.Connection, raw: Raw, *, where: str) -> None:
        self.connection: Final = connection
        self.thread: Final = threading.get_ident()
        self.talking: Final = threading.RLock()
        self._raw = raw
        self._where = where
        self._over = False

    def require_open(self) -> None:
        """Return if the connection is, as far as is known here, the one that has the lock.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED``.
        """
        # SQLAlchemy would take another one, which leads nothing.
        if self.connection.invalidated or self._raw.closed:
            raise self._lost("it was closed")

    def require(self) -> None:
        """Return if the server still has the connection.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED``.
        """
        with self.talking:
            self.require_open()
            try:
                self._ask()
            except psycopg.Error as error:
                raise self._lost(str(error)) from error

    def beat(self) -> None:
        """Say something, unless somebody does; that the connection is lost is found out by whoever leads."""
        if not self.talking.acquire(blocking=False):
            return
        try:
            # Whoever read that this turn is on may come after its end: the connection is somebody else's then.
            if not (self._over or self.connection.invalidated or self._raw.closed):
                with contextlib.suppress(psycopg.Error):
                    self._ask()
        finally:
            self.talking.release()

    def end(self, key: int) -> None:
        """Give the lock back; with the connection itself, where that does not answer."""
        with self.talking, contextlib.suppress(exc.DBAPIError), self.connection:
            self._over = True
            if self.connection.invalidated:
                return
            try:
                self._raw.rollback()
                self._raw.autocommit = True
                self._raw.execute(
                    "SELECT pg_advisory_unlock(%s), set_config('idle_session_timeout', '0', false)", (key,)
                )
                self._raw.autocommit = False
            except psycopg.Error:
                self.connection.invalidate()

    def _ask(self) -> None:
        self._raw.execute("SELECT 1")
        if not self.connection.in_transaction():
            self._raw.rollback()

    def _lost(self, reason: str) -> EnvironmentFault:
        return EnvironmentFault(
            Code.LEDGER_LOCKED,
            f"the turn was lost with its connection: {reason}",
            where=self._where,
            hint="nothing is to be done: another process leads, and the windows come again",
        )


@final
class Heart:
    """Beats for the turn that is on, in a thread that the first turn starts."""

    __slots__ = ("_over", "_thread", "turn")

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Beat from now on; once is enough."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="turn", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_BEAT_SECONDS):
            turn = self.turn
            if turn is not None:
                turn.beat()
