"""A file of SQLite: for one machine, whose processes all have it open.

In write-ahead mode with ``synchronous=FULL``: a transaction that has been left is on disk. Each takes the write lock at
its start, so what it has read cannot change before it writes; readers see what was durable when they began.
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
# A connection's option: its transaction only reads.
_READING: Final = "weighbridge_reading"


@final
class SqliteDatabase:
    """See :class:`.Database`. Made by :meth:`open`."""

    __slots__ = ("_engine", "_path", "_reading")

    def __init__(self, engine: sa.Engine, path: Path) -> None:
        self._engine = engine
        # The same connections.
        self._reading = engine.execution_options(**{_READING: True})
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
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        return cls(engine, path)

    @property
    def where(self) -> str:
        """The file's name."""
        return str(self._path)

    @contextlib.contextmanager
    def transaction(self, *, version: int) -> Generator[sa.Connection]:
        """See :meth:`.Database.transaction`."""
        with self._translating(), self._engine.begin() as connection:
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if found != version:
                raise wrong_version(self.where, found, version)
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Generator[sa.Connection]:
        """See :meth:`.Database.reading`."""
        with self._translating(), self._reading.begin() as connection:
            yield connection

    def look(self, act: Callable[[sa.Connection], _T]) -> _T:
        """See :meth:`.Database.look`."""
        with self._translating(), self._reading.connect() as connection:
            return act(connection)

    @contextlib.contextmanager
    def migrating(self) -> Generator[sa.Connection]:
        """See :meth:`.Database.migrating`. What refers to what is checked at the end: tables may be made anew."""
        with self._translating(), self._engine.connect() as connection:
            # Outside of a transaction: within one it has no effect.
            raw = connection.connection.driver_connection
            if not isinstance(raw, sqlite3.Connection):
                raise TypeError("not SQLite's own driver")
            raw.execute("PRAGMA foreign_keys = OFF")
            try:
                with connection.begin():
                    yield connection
                    if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                        message = "rows refer to rows that are not there"
                        raise EnvironmentFault(Code.STATE_CORRUPT, message, where=self.where)
            finally:
                raw.execute("PRAGMA foreign_keys = ON")

    def describe(self) -> dict[str, str]:
        """The library's version, and how it writes."""
        with self.reading() as connection:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return {"database": f"SQLite {sqlite3.sqlite_version}", "journal_mode": str(mode)}

    def close(self) -> None:
        """See :meth:`.Database.close`."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _translating(self) -> Generator[None]:
        try:
            yield
        except exc.IntegrityError as error:
            raise Conflict(str(error.orig)) from error
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
    # We say when a transaction begins: see _begin.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    # Without FULL a power failure takes away the last transactions, though an answer has left.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    """With the write lock from the start: what a transaction has read cannot change before it writes."""
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
