"""The verifier's durable state: what it has to remember so that restarting it forgives nothing.

In a file of SQLite, or in PostgreSQL where many replicas share it (:mod:`.database`): a transaction that has been left
is on disk, and none of them runs at the same time as another one. Every change of a session is a compare-and-swap; a
second writer with another idea of where the chain stands gets :class:`Conflict` from the database, before anything is
answered::

    with store.transaction() as tx:
        tx.advance([Move(session=session, seq=7, …), …])

Challenges are kept with what they hash; the last one issued in a session is the outstanding one, also after a restart.
A spot challenge is spent in the transaction that makes outstanding the challenge with which it leaves.
Evidence and verdicts are not kept: they are in the ledger and the content store, at the indices that are kept here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self, TypeVar, final

import sqlalchemy as sa

from weighbridge.verifier import versions
from weighbridge.verifier.database import Address, Conflict, Database, SqliteAddress, database_at
from weighbridge.verifier.database.sqlite import SqliteDatabase
from weighbridge.verifier.database.wrong import foreign
from weighbridge.verifier.tables import SCHEMA_VERSION, about
from weighbridge.verifier.telemetry.history import FINGERPRINTS_KEPT
from weighbridge.verifier.transaction import Issued, SessionRow, Subject, SubjectKind, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

__all__ = ["Conflict", "Issued", "SessionRow", "Store", "Subject", "SubjectKind", "Transaction"]

_T = TypeVar("_T")


@final
class Store:
    """Made by :meth:`create` once, then by :meth:`open`; may be used from several threads and processes.

    Attributes:
        database: where it lies.
    """

    __slots__ = ("_fingerprints_kept", "database")

    def __init__(self, database: Database, *, fingerprints_kept: int) -> None:
        self.database = database
        self._fingerprints_kept = fingerprints_kept

    @classmethod
    def create(cls, address: Address) -> None:
        """Make the tables at ``address``: a file, whose directory exists, or a database that is there.

        Tables that no verifier has opened yet are taken as they are.

        Raises:
            EnvironmentFault: ``STATE_FOREIGN`` where there are others; as :meth:`open`.
        """
        database = database_at(address, make=True)
        try:
            versions.create(database)
        finally:
            database.close()

    @classmethod
    def open(cls, address: Address, *, fingerprints_kept: int = FINGERPRINTS_KEPT) -> Self:
        """The store at ``address``, which :meth:`create` has made.

        At most ``fingerprints_kept`` of GPUs' samples are remembered (:mod:`.traces`).

        Raises:
            EnvironmentFault: ``STATE_VERSION``, ``STATE_FOREIGN``, ``STATE_CORRUPT`` or ``STATE_LOCKED``; of a file
                ``FILE_UNREADABLE``, ``FILE_UNWRITABLE`` or ``DISK_FULL``; of PostgreSQL ``STATE_UNREACHABLE``,
                ``STATE_FORBIDDEN`` or ``STATE_UNFIT``.
        """
        database = database_at(address)
        try:
            versions.require(database)
        except BaseException:
            database.close()
            raise
        return cls(database, fingerprints_kept=fingerprints_kept)

    @classmethod
    def create_or_open(cls, path: Path, *, fingerprints_kept: int = FINGERPRINTS_KEPT) -> Self:
        """The store in the file ``path``, made with mode 0600 when there is none; as :meth:`open`.

        Raises:
            EnvironmentFault: as :meth:`open`.
        """
        database = database_at(SqliteAddress(path), make=True)
        try:
            versions.create(database, again=True)
        except BaseException:
            database.close()
            raise
        return cls(database, fingerprints_kept=fingerprints_kept)

    def claim(self, ledger: str) -> None:
        """Have the store belong to the verifier with ``ledger``, which is being made.

        Args:
            ledger: its name and key, as they are spelled.

        Raises:
            EnvironmentFault: ``STATE_FOREIGN``; as :meth:`transaction`.
        """
        self._belong(ledger, new=True)

    def require_owner(self, ledger: str) -> None:
        """Require that the store belongs to the verifier with ``ledger``.

        A file of a version that did not say to whom is taken for its: it lies in its directory.

        Raises:
            EnvironmentFault: ``STATE_FOREIGN``; as :meth:`transaction`.
        """
        self._belong(ledger, new=isinstance(self.database, SqliteDatabase))

    def _belong(self, ledger: str, *, new: bool) -> None:
        with self._connection() as connection:
            owner: str | None = connection.execute(sa.select(about.c.ledger)).scalar_one()
            if owner == ledger:
                return
            if owner is not None or not new:
                raise foreign(
                    self.database.where,
                    f"it is the state of the verifier with the ledger {owner}"
                    if owner
                    else "no verifier was made in it",
                    "name this verifier's own: nothing that another one has recorded, or forgotten, counts for it",
                )
            connection.execute(sa.update(about).values(ledger=ledger))

    @contextlib.contextmanager
    def transaction(self) -> Generator[Transaction]:
        """All of it or nothing: durable when the block is left, undone when it raises.

        Raises:
            Conflict: see there.
            EnvironmentFault: ``STATE_LOCKED`` when another process holds the write lock for long, or whatever else is
                wrong with the database, as :meth:`open`. Where that came while the block was left, it may be durable
                all the same: whoever goes on asks first.
        """
        with self._connection() as connection:
            yield self._on(connection)

    @contextlib.contextmanager
    def reading(self) -> Generator[Transaction]:
        """What was durable when the block began; to look at only, and waits for no other transaction.

        Raises:
            EnvironmentFault: as :meth:`transaction`.
        """
        with self.database.reading() as connection:
            yield self._on(connection)

    def look(self, act: Callable[[Transaction], _T]) -> _T:
        """What ``act`` finds, each statement of which sees what is durable when it runs: as :meth:`.Database.look`.

        Raises:
            EnvironmentFault: as :meth:`transaction`.
        """
        return self.database.look(lambda connection: act(self._on(connection)))

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    def _on(self, connection: sa.Connection) -> Transaction:
        return Transaction(connection, fingerprints_kept=self._fingerprints_kept)

    def _connection(self) -> contextlib.AbstractContextManager[sa.Connection]:
        return self.database.transaction(version=SCHEMA_VERSION)
