"""PostgreSQL, for replicas of a verifier on many machines.

1. *One writer at a time.* A transaction that writes takes an advisory lock before its first statement and has it until
   it has ended, in isolation level READ COMMITTED: each of its statements sees all that was committed before, and
   nobody commits meanwhile. So transactions have the effect of some order one after another, as those of SQLite with
   ``BEGIN IMMEDIATE``, and none of them has to be tried again. (In SERIALIZABLE the snapshot would be older than the
   wait for the lock.) Whoever writes without the lock still meets the compare-and-swap of each statement.
2. *Durable when it is answered.* ``fsync``, ``full_page_writes`` and ``synchronous_commit`` are looked at on each new
   connection: after a failover it is another server that answers.
3. *No pooler between.* Locks of a session and its settings are the server process's: a connection that is handed round
   has neither. The server's own number of its process tells.
4. *A turn of leading* (:meth:`PostgresDatabase.leading`) is a lock of a session, and transactions in the turn run on
   the very connection that has it: when that is lost, so is the turn, and nothing that is not committed can be.
5. *Nobody waits for the dead.* The server ends what it hears nothing of: a machine that is gone, a process that is
   paused in a transaction or in a turn. All waiting has an end.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast, final

import psycopg
import sqlalchemy as sa
from sqlalchemy import exc

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.database.conflict import Conflict
from weighbridge.verifier.database.faults import hint, is_gone, meaning
from weighbridge.verifier.database.server import connect
from weighbridge.verifier.database.turn import Heart, Raw, Turn
from weighbridge.verifier.database.wrong import foreign, wrong_version
from weighbridge.verifier.file_lock import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from weighbridge.verifier.database.address import PostgresAddress

__all__ = ["PostgresDatabase"]

_T = TypeVar("_T")

_MAKE_HINT: Final = "name the database that `weighbridge init STATE --store URL` made tables in, or make them so"

_POOL: Final = 4
_OVERFLOW: Final = 8
# A step to other tables may take long; whoever waits for it, too.
_MIGRATING_SECONDS: Final = 120
# How long a process may lead without a word: as long as nobody else is kept waiting in vain.
_SILENT_SECONDS: Final = int(PATIENCE) - 2  # lenient: a number of ours


@final
class PostgresDatabase:
    """See :class:`.Database`. Made by :meth:`open`."""

    __slots__ = ("_engine", "_heart", "_turns_key", "_where", "_writing_key")

    def __init__(self, engine: sa.Engine, *, where: str, schema: str) -> None:
        self._engine = engine
        self._where = where
        # Advisory locks are a database's: each schema of it may have a verifier of its own.
        self._writing_key = _key("writing", schema)
        self._turns_key = _key("leading", schema)
        self._heart = Heart()

    @classmethod
    def open(cls, address: PostgresAddress) -> Self:
        """The database at ``address``, which answers.

        Raises:
            EnvironmentFault: ``STATE_UNREACHABLE``, ``STATE_FORBIDDEN`` or ``STATE_UNFIT``.
        """
        engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(address),
            isolation_level="READ COMMITTED",
            pool_size=_POOL,
            max_overflow=_OVERFLOW,
            pool_timeout=PATIENCE,
            pool_use_lifo=True,
            # Not asked for at each new connection.
            use_native_hstore=False,
        )
        try:
            schema = _schema(engine, str(address))
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, where=str(address), schema=schema)

    @property
    def where(self) -> str:
        """The address, in which nothing is secret."""
        return self._where

    @contextlib.contextmanager
    def transaction(self, *, version: int) -> Generator[sa.Connection]:
        """See :meth:`.Database.transaction`. In a turn of this thread, on the connection that has the turn."""

        def enter(connection: sa.Connection) -> sa.RootTransaction:
            transaction = connection.begin()
            self._begin(_raw(connection), version)
            return transaction

        turn = self._heart.turn
        with _translating(self._where):
            if turn is None or turn.thread != threading.get_ident():
                with self._in(enter) as connection:
                    yield connection
            else:
                # No other connection would do: see 4.
                with turn.talking:
                    turn.require_open()
                    with enter(turn.connection):
                        yield turn.connection

    @contextlib.contextmanager
    def reading(self) -> Generator[sa.Connection]:
        """See :meth:`.Database.reading`."""

        def enter(connection: sa.Connection) -> sa.RootTransaction:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            transaction = connection.begin()
            # The first statement takes the snapshot.
            connection.exec_driver_sql("SELECT 1")
            return transaction

        with _translating(self._where), self._in(enter) as connection:
            yield connection

    def look(self, act: Callable[[sa.Connection], _T]) -> _T:
        """See :meth:`.Database.look`. Again on another connection, where this one was cut."""

        def enter(connection: sa.Connection) -> _T:
            raw = _raw(connection)
            raw.autocommit = True
            try:
                return act(connection)
            finally:
                if not raw.closed:
                    raw.autocommit = False

        with _translating(self._where):
            connection, found = self._entered(enter)
            connection.close()
            return found

    @contextlib.contextmanager
    def migrating(self) -> Generator[sa.Connection]:
        """See :meth:`.Database.migrating`."""

        def enter(connection: sa.Connection) -> sa.RootTransaction:
            transaction = connection.begin()
            for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {name} = '{_MIGRATING_SECONDS}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._writing_key})")
            return transaction

        with _translating(self._where), self._in(enter) as connection:
            yield connection

    @contextlib.contextmanager
    def leading(self) -> Generator[None]:
        """Lead while the block lasts: one thread of one process of all that have this database open.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED`` when others lead for :data:`.PATIENCE`; or the database is at fault.
            RuntimeError: in a turn.
        """
        if self._heart.turn is not None:
            raise RuntimeError("turns do not nest")

        def enter(connection: sa.Connection) -> None:
            raw = _raw(connection)
            raw.autocommit = True
            # From here on the server ends it if it says nothing: a process that is paused leads no more.
            raw.execute(
                "SELECT set_config('idle_session_timeout', %s, false), pg_advisory_lock(%s)",
                (f"{_SILENT_SECONDS}s", self._turns_key),
            )
            raw.autocommit = False

        with _translating(self._where, waiting=Code.LEDGER_LOCKED):
            connection, _ = self._entered(enter)
        turn = self._heart.turn = Turn(connection, _raw(connection), where=self._where)
        self._heart.start()
        try:
            yield
        finally:
            self._heart.turn = None
            turn.end(self._turns_key)

    def require_leading(self) -> None:
        """Return if this thread leads: the server still has its connection.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED``: the turn was lost.
            RuntimeError: outside a turn.
        """
        if self._heart.turn is None:
            raise RuntimeError("not in a turn")
        self._heart.turn.require()

    def describe(self) -> dict[str, str]:
        """What the server says of itself and of the connection."""
        with self.reading() as connection:
            row = connection.exec_driver_sql(
                "SELECT current_setting('server_version'), current_database(), current_schema(), current_user,"
                " current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),"
                " (SELECT coalesce(version, 'none') FROM pg_stat_ssl WHERE pid = pg_backend_pid()),"
                " (SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class"
                " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r')"
            ).one()
        names = (
            "server",
            "name",
            "schema",
            "role",
            "synchronous_commit",
            "synchronous_standby_names",
            "tls",
            "size_bytes",
        )
        told = dict(zip(names, map(str, row), strict=True))
        return {"database": f"PostgreSQL {told.pop('server')}", **told}

    def close(self) -> None:
        """See :meth:`.Database.close`."""
        self._heart.stop()
        self._engine.dispose()

    # -- small things -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _in(self, enter: Callable[[sa.Connection], sa.RootTransaction]) -> Generator[sa.Connection]:
        connection, transaction = self._entered(enter)
        with connection, transaction:
            yield connection

    def _entered(self, enter: Callable[[sa.Connection], _T]) -> tuple[sa.Connection, _T]:
        """A connection on which ``enter`` has been done; with another one where this one was cut while nobody used it.

        Nothing of the caller's has been done by then, so that doing it once more does nothing twice.
        """
        for again in (True, False):
            connection = self._engine.connect()
            try:
                return connection, enter(connection)
            except BaseException as error:
                gone = is_gone(error)
                if gone or not isinstance(error, exc.DBAPIError):
                    connection.invalidate()
                connection.close()
                if not (gone and again):
                    raise
                # All of them are as old as this one.
                self._engine.dispose()
        raise RuntimeError("unreachable")

    def _begin(self, raw: Raw, version: int) -> None:
        """Wait for the others, then look at the version: in one message, as two statements that see different times."""
        try:
            with raw.pipeline():
                raw.execute("SELECT pg_advisory_xact_lock(%s)", (self._writing_key,))
                found = raw.execute("SELECT version FROM about").fetchone()
        except psycopg.errors.UndefinedTable as error:
            raise foreign(self._where, "it has no state of Weighbridge", _MAKE_HINT) from error
        if found is None or found[0] != version:
            at = 0 if found is None else int(found[0])  # lenient: a column of integers
            raise wrong_version(self._where, at, version)


def _schema(engine: sa.Engine, where: str) -> str:
    """Where tables are made and looked for."""
    with _translating(where), engine.connect() as connection:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
    if schema is None:
        raise EnvironmentFault(Code.STATE_FORBIDDEN, "there is no schema to make tables in", where=where)
    return str(schema)


def _key(purpose: str, schema: str) -> int:
    """The number of an advisory lock; signed, of 64 bits."""
    return int.from_bytes(sha256(f"weighbridge/v1/store/{purpose}/{schema}".encode())[:8], "big", signed=True)


def _raw(connection: sa.Connection) -> Raw:
    raw: object = connection.connection.driver_connection
    if not isinstance(raw, psycopg.Connection):
        raise TypeError("not psycopg's connection")
    return cast("Raw", raw)


@contextlib.contextmanager
def _translating(where: str, *, waiting: Code = Code.STATE_LOCKED) -> Generator[None]:
    """Every error of the database as one of ours; ``waiting``: what waiting in vain is called."""
    try:
        yield
    except exc.IntegrityError as error:
        raise Conflict(str(error.orig)) from error
    except exc.DBAPIError as error:
        raise (_fault(error.orig, where, waiting) or error) from error
    except psycopg.Error as error:
        raise (_fault(error, where, waiting) or error) from error
    except exc.TimeoutError as error:
        raise EnvironmentFault(Code.STATE_LOCKED, "all connections are in use", where=where) from error


def _fault(error: BaseException | None, where: str, waiting: Code) -> EnvironmentFault | None:
    """What is wrong with the database; ``None`` where it is not the database."""
    if not isinstance(error, psycopg.Error) or (meant := meaning(error)) is None:
        return None
    code, message = meant
    code = waiting if code is Code.STATE_LOCKED else code
    return EnvironmentFault(code, message, where=where, hint=hint(error))
