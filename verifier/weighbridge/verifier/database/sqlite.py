"""A file of SQLite: for one machine, whose processes all have it open.

In write-ahead mode with ``synchronous=FULL``: a transaction that has been left is on disk. Each takes the write lock at
its start, so what it has read cannot change before it writes; readers see what was durable when they began.

Transactions are begun and ended by the driver, on connections that stay open: SQLAlchemy's own would take several times
as long as those of SQLite, for each window that comes alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final, Self, TypeVar, final

import sqlalchemy as sa
from sqlalchemy import event, exc

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.database.conflict import Conflict
from weighbridge.verifier.database.wrong import wrong_version
from weighbridge.verifier.files import PosixFiles, fault

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

__all__ = ["SqliteDatabase"]

_T = TypeVar("_T")

_BUSY_SECONDS: Final = 5.0
_FILE_MODE: Final = 0o600
# Connections that are kept open, each with its own memory of the file.
_IDLE_MOST: Final = 5
# With the write lock from the start: what a transaction has read cannot change before it writes.
_WRITE: Final = "BEGIN IMMEDIATE"
_READ: Final = "BEGIN"


@final
class SqliteDatabase:
    """See :class:`.Database`. Made by :meth:`open`."""

    __slots__ = ("_engine", "_idle", "_path")

    def __init__(self, engine: sa.Engine, path: Path) -> None:
        self._engine = engine
        # Open connections that nobody uses, the last one used last.
        self._idle: list[sa.Connection] = []
        self._path = path

    @classmethod
    def open(cls, path: Path, *, make: bool) -> Self:
        """The file ``path``; ``make``: with mode 0600 when there is none; its directory exists.

        Raises:
            EnvironmentFault: ``DISK_FULL``, ``FILE_UNREADABLE`` or ``FILE_UNWRITABLE``.
        """
        try:
            os.close(os.open(path, os.O_RDWR | (os.O_CREAT if make else 0) | os.O_CLOEXEC, _FILE_MODE))
            if make:
                PosixFiles().sync_directory(path.parent)
        except FileNotFoundError as error:
            if make:
                raise fault(error, path, "opening the state") from error
            raise EnvironmentFault(Code.FILE_UNREADABLE, "there is no such file", where=str(path)) from error
        except OSError as error:
            raise fault(error, path, "opening the state") from error
        url = sa.URL.create("sqlite", database=str(path))
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, poolclass=sa.NullPool)
        event.listen(engine, "connect", _configure)
        return cls(engine, path)

    @property
    def where(self) -> str:
        """The file's name."""
        return str(self._path)

    @contextlib.contextmanager
    def transaction(self, *, version: int) -> Generator[sa.Connection]:
        """See :meth:`.Database.transaction`."""
        with self._connected() as connection, _within(_WRITE, raw := _raw(connection)):
            (found,) = raw.execute("PRAGMA user_version").fetchone()
            if found != version:
                raise wrong_version(self.where, found, version)
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Generator[sa.Connection]:
        """See :meth:`.Database.reading`."""
        with self._connected() as connection, _within(_READ, _raw(connection)):
            yield connection

    def look(self, act: Callable[[sa.Connection], _T]) -> _T:
        """See :meth:`.Database.look`."""
        with self._connected() as connection:
            return act(connection)

    @contextlib.contextmanager
    def migrating(self) -> Generator[sa.Connection]:
        """See :meth:`.Database.migrating`. What refers to what is checked at the end: tables may be made anew."""
        with self._connected() as connection:
            raw = _raw(connection)
            # Outside of a transaction: within one it has no effect.
            raw.execute("PRAGMA foreign_keys = OFF")
            try:
                with _within(_WRITE, raw):
                    yield connection
                    if raw.execute("PRAGMA foreign_key_check").fetchone() is not None:
                        message = "rows refer to rows that are not there"
                        raise EnvironmentFault(Code.STATE_CORRUPT, message, where=self.where)
            finally:
                raw.execute("PRAGMA foreign_keys = ON")

    def describe(self) -> dict[str, str]:
        """The library's version, how it writes, and how large the file is, with what is free in it."""
        names = ("journal_mode", "page_size", "page_count", "freelist_count")
        with self.reading() as connection:
            mode, page, pages, free = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names)
        sizes = {"size_bytes": str(page * pages), "free_bytes": str(page * free)}
        return {"database": f"SQLite {sqlite3.sqlite_version}", "journal_mode": str(mode), **sizes}

    def close(self) -> None:
        """See :meth:`.Database.close`."""
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def _connected(self) -> Generator[sa.Connection]:
        """A connection that nobody else uses while the block lasts."""
        with self._translating():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._engine.connect()
            try:
                yield connection
            finally:
                # SQLAlchemy's own idea of a transaction, where its statements were used: SQLite has none by now.
                connection.rollback()
                if _raw(connection).in_transaction or len(self._idle) >= _IDLE_MOST:
                    # What could not be undone goes with the connection.
                    connection.close()
                else:
                    self._idle.append(connection)

    @contextlib.contextmanager
    def _translating(self) -> Generator[None]:
        try:
            yield
        except exc.IntegrityError as error:
            raise Conflict(str(error.orig)) from error
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from error
        except exc.DBAPIError as error:
            raise (self._fault(error.orig) or error) from error
        except sqlite3.Error as error:
            raise (self._fault(error) or error) from error

    def _fault(self, error: BaseException | None) -> EnvironmentFault | None:
        """What SQLite's primary result code (sqlite3.h) means to a caller; misuse stays what it is: nothing."""
        # Extended codes carry the primary one in their low byte. Errors of the Python module itself have none.
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                code, message = Code.STATE_LOCKED, "another process holds the state"
            case sqlite3.SQLITE_FULL:
                code, message = Code.DISK_FULL, "no space left while writing the state"
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                code, message = Code.STATE_CORRUPT, "the state is damaged"
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_READONLY:
                code, message = Code.FILE_UNWRITABLE, "the state cannot be written"
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                code, message = Code.FILE_UNREADABLE, "the state cannot be opened"
            case _:
                return None
        return EnvironmentFault(code, f"{message}: {error}", where=self.where)


def _configure(connection: sqlite3.Connection, _: object) -> None:
    """On each new connection."""
    # We say when a transaction begins.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    # Without FULL a power failure takes away the last transactions, though an answer has left.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


@contextlib.contextmanager
def _within(begin: str, raw: sqlite3.Connection) -> Generator[None]:
    """A transaction: committed when the block is left, undone where that or the block raises."""
    raw.execute(begin)
    try:
        yield
        raw.execute("COMMIT")
    except BaseException:
        # What raised is what there is to tell. SQLite may have undone the transaction itself: then nothing happens.
        with contextlib.suppress(sqlite3.Error):
            raw.rollback()
        raise


def _raw(connection: sa.Connection) -> sqlite3.Connection:
    """The driver's connection."""
    raw: object = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError("not SQLite's own driver")
    return raw
