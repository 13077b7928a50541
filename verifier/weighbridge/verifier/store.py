"""The verifier's durable state: what it has to remember so that restarting it forgives nothing.

SQLite through SQLAlchemy, in write-ahead mode with ``synchronous=FULL``: a transaction that has been left is on disk.
Every change of a session is a compare-and-swap; a second writer with another idea of where the chain stands gets
:class:`Conflict` from the database, before anything is answered. Transactions are explicit, and each takes the write
lock at its start::

    with store.transaction() as tx:
        tx.advance(session, expected_seq=7, …)
        tx.advance_ak(ak, head=head, log=log)

Challenges are kept with what they hash; the last one issued in a session is the outstanding one, also after a restart.
A spot challenge is spent in the transaction that makes outstanding the challenge with which it leaves.
Evidence and verdicts are not kept: they are in the ledger and the content store, at the indices that are kept here.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator
from typing import TYPE_CHECKING, Final, Self, final

import sqlalchemy as sa
from sqlalchemy import event, exc

from weighbridge.proto import merkle
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.files import PosixFiles, fault
from weighbridge.verifier.tables import SCHEMA_VERSION, metadata, progress
from weighbridge.verifier.telemetry.history import FINGERPRINTS_KEPT
from weighbridge.verifier.transaction import Conflict, Issued, SessionRow, Subject, SubjectKind, Transaction

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Conflict", "Issued", "SessionRow", "Store", "Subject", "SubjectKind", "Transaction"]

_BUSY_SECONDS: Final = 5.0
_FILE_MODE: Final = 0o600
# A connection's option: its transaction only reads.
_READING: Final = "weighbridge_reading"


@final
class Store:
    """The database file. Made by :meth:`create_or_open`; may be used from several threads and processes."""

    __slots__ = ("_engine", "_fingerprints_kept", "_path")

    def __init__(self, engine: sa.Engine, path: Path, *, fingerprints_kept: int) -> None:
        self._engine = engine
        self._fingerprints_kept = fingerprints_kept
        self._path = path

    @classmethod
    def create_or_open(cls, path: Path, *, fingerprints_kept: int = FINGERPRINTS_KEPT) -> Self:
        """The store in the file ``path``, made with mode 0600 when there is none; its directory exists.

        At most ``fingerprints_kept`` of GPUs' samples are remembered (:mod:`.traces`).

        Raises:
            EnvironmentFault: ``STATE_CORRUPT`` when it is not such a file, ``STATE_LOCKED``, ``DISK_FULL``,
                ``FILE_UNREADABLE`` or ``FILE_UNWRITABLE``.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE))
            PosixFiles().sync_directory(path.parent)
        except OSError as error:
            raise fault(error, path, "opening the state") from error
        url = sa.URL.create("sqlite", database=str(path))
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        store = cls(engine, path, fingerprints_kept=fingerprints_kept)
        try:
            with store._translating(), engine.begin() as connection:
                store._prepare(connection)
        except BaseException:
            engine.dispose()
            raise
        return store

    @contextlib.contextmanager
    def transaction(self) -> Generator[Transaction]:
        """All of it or nothing: durable when the block is left, undone when it raises.

        Raises:
            Conflict: see there.
            EnvironmentFault: ``STATE_LOCKED`` when another process holds the write lock for long, ``STATE_CORRUPT``,
                ``DISK_FULL``, ``FILE_UNREADABLE`` or ``FILE_UNWRITABLE``.
        """
        with self._translating(), self._engine.begin() as connection:
            yield Transaction(connection, fingerprints_kept=self._fingerprints_kept)

    @contextlib.contextmanager
    def reading(self) -> Generator[Transaction]:
        """What was durable when the block began; to look at only, and waits for no other transaction.

        Raises:
            EnvironmentFault: as :meth:`transaction`.
        """
        with self._translating(), self._engine.connect() as connection:
            connection = connection.execution_options(**{_READING: True})  # noqa: PLW2901 - it is the same one
            with connection.begin():
                yield Transaction(connection, fingerprints_kept=self._fingerprints_kept)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _prepare(self, connection: sa.Connection) -> None:
        """Create the tables in an empty file; refuse a file with others."""
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version == 0 and not sa.inspect(connection).get_table_names():
            metadata.create_all(connection)
            connection.execute(sa.insert(progress).values(id=0, settled=0, size=0, root=merkle.EMPTY_ROOT))
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                "not a state that this version of Weighbridge can read",
                where=str(self._path),
                expected=f"version {SCHEMA_VERSION}",
                got="no state of Weighbridge" if version == 0 else f"version {version}",
                hint="name the directory that `weighbridge init` made"
                if version == 0
                else "another version of Weighbridge made it: use that one, or begin anew: weighbridge init",
            )

    @contextlib.contextmanager
    def _translating(self) -> Generator[None]:
        try:
            yield
        except exc.IntegrityError as error:
            raise Conflict(str(error.orig)) from error
        except exc.DBAPIError as error:
            raise self._fault(error) from error

    def _fault(self, error: exc.DBAPIError) -> Exception:
        """What SQLite's primary result code (sqlite3.h) means to a caller; misuse stays what it is."""
        # Extended codes carry the primary one in their low byte. Errors of the Python module itself have none.
        match getattr(error.orig, "sqlite_errorcode", 0) & 0xFF:
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
                return error
        return EnvironmentFault(code, f"{message}: {error.orig}", where=str(self._path))


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
