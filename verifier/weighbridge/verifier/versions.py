"""The versions of the verifier's tables, and the steps from one to the next: on SQLite and PostgreSQL alike.

A new database gets the newest tables at once. An older one goes forward by :func:`migrate`, in one transaction, in
which nobody else writes or migrates: it has all of the new tables or all of the old ones, whatever happens, and whoever
comes second finds nothing left to do. A program of another version than the tables writes nothing (:class:`.Database`).

Whoever changes :mod:`.tables` raises ``SCHEMA_VERSION`` and adds a step here, of operations that both databases know
(`alembic`'s). On SQLite some alterations make a table anew, by ``batch_alter_table``: it needs to be given the table's
checks (``table_args``), which have no names. A step is never changed once it has left the house.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa

from weighbridge.proto import merkle
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.database.wrong import foreign, wrong_version
from weighbridge.verifier.tables import SCHEMA_VERSION, about, metadata, progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.operations import Operations

    from weighbridge.verifier.database.interface import Database

__all__ = ["STEPS", "Step", "create", "differences", "migrate", "require", "version_of"]

_OLDEST: Final = 9
# Of operations that are lacking, so many are named.
_TOLD: Final = 5
_HINT: Final = "name what `weighbridge init` made: its directory, or the database that it was told of with --store"


@dataclass(frozen=True, slots=True)
class Step:
    """From the version before to ``version``; ``what`` says for people what it changes."""

    version: int
    what: str
    carry_out: Callable[[Operations], None]


def _to_10(operations: Operations) -> None:
    operations.create_table(
        "about",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("ledger", sa.String),
    )
    operations.execute("INSERT INTO about (id, version) VALUES (0, 10)")


def _to_11(operations: Operations) -> None:
    operations.create_table(
        "positions",
        sa.Column("session", sa.LargeBinary(16), sa.ForeignKey("sessions.id"), primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), sa.CheckConstraint("length(digest) = 32"), nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    operations.add_column("spots", sa.Column("asked_ns", sa.BigInteger))


def _to_12(operations: Operations) -> None:
    operations.create_table(
        "endings",
        sa.Column("session", sa.LargeBinary(16), sa.ForeignKey("sessions.id"), primary_key=True),
        sa.Column("ended_ns", sa.BigInteger, nullable=False),
    )
    operations.create_index("endings_by_time", "endings", ["ended_ns"])
    operations.create_table(
        "upkeep",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False),
        sa.Column("again_ns", sa.BigInteger, nullable=False),
    )
    # When they ended was not written down: not before that.
    operations.execute(
        "INSERT INTO endings (session, ended_ns)"
        " SELECT s.id, coalesce(w.received_ns, s.opened_ns) FROM sessions AS s"
        " LEFT JOIN windows AS w ON w.session = s.id AND w.seq = s.next_seq - 1"
        " WHERE s.state IN ('closed', 'failed', 'interrupted')"
    )


STEPS: Final = (
    Step(10, "which version the tables are of, and whose they are, is said in a table", _to_10),
    Step(11, "where sessions stood lately is kept, and when a spot challenge left first", _to_11),
    Step(12, "when sessions ended is kept, so that their windows and challenges can be taken away", _to_12),
)
"""In their order, without a gap."""


def version_of(connection: sa.Connection, where: str) -> int | None:
    """Of which version the tables are; ``None`` where there is no table at all.

    Raises:
        EnvironmentFault: ``STATE_FOREIGN``: there are others.
    """
    names = frozenset(sa.inspect(connection).get_table_names())
    if not names and _told_in_file(connection) == 0:
        return None
    found = _told_in_file(connection)
    if about.name in names:
        found = connection.execute(sa.select(about.c.version)).scalar_one_or_none() or 0
    if found == 0:
        raise foreign(where, "it has tables, and none of Weighbridge", _HINT)
    return found


def create(database: Database, *, again: bool = False) -> None:
    """Make the tables where there are none; those in which nothing was ever recorded will do.

    Args:
        database: whichever.
        again: whether tables of this version, whatever is in them, will do as well.

    Raises:
        EnvironmentFault: ``STATE_FOREIGN`` or ``STATE_VERSION``: there are others; or the database is at fault.
    """
    with database.migrating() as connection:
        found = version_of(connection, database.where)
        if found is None:
            metadata.create_all(connection)
            connection.execute(sa.insert(progress).values(id=0, settled=0, size=0, root=merkle.EMPTY_ROOT))
            connection.execute(sa.insert(about).values(id=0, version=SCHEMA_VERSION))
            _tell_in_file(connection, SCHEMA_VERSION)
            return
        _require(found, database.where)
        if not again and connection.execute(sa.select(about.c.ledger)).scalar_one() is not None:
            raise foreign(database.where, "it is a verifier's already", "name a database of its own for each verifier")


def require(database: Database) -> None:
    """Require that the tables are those of this version of Weighbridge.

    Raises:
        EnvironmentFault: ``STATE_VERSION``; ``STATE_FOREIGN``, also where there are none; or the database is at fault.
    """
    with database.reading() as connection:
        found = version_of(connection, database.where)
    if found is None:
        raise foreign(database.where, "it has no state of Weighbridge", _HINT)
    _require(found, database.where)


def migrate(database: Database) -> tuple[int, tuple[Step, ...]]:
    """Bring the tables to the version of this Weighbridge.

    Returns:
        Of which version they were, and what was done: nothing, where they are so already.

    Raises:
        EnvironmentFault: ``STATE_VERSION`` where they are newer, or older than any step begins; ``STATE_FOREIGN``;
            ``STATE_LOCKED`` where somebody writes for long; ``STATE_CORRUPT`` where the tables are no release's, so
            that the steps do not lead to those of this version; or the database is at fault. Nothing has changed.
    """
    from alembic.migration import MigrationContext  # noqa: PLC0415 - only for this, and it takes its time
    from alembic.operations import Operations  # noqa: PLC0415

    with database.migrating() as connection:
        found = version_of(connection, database.where)
        if found is None:
            raise foreign(database.where, "it has no state of Weighbridge", _HINT)
        if not _OLDEST <= found <= SCHEMA_VERSION:
            raise wrong_version(database.where, found, SCHEMA_VERSION)
        steps = tuple(step for step in STEPS if step.version > found)
        operations = Operations(MigrationContext.configure(connection))
        for step in steps:
            step.carry_out(operations)
            connection.execute(sa.update(about).values(version=step.version))
            _tell_in_file(connection, step.version)
        if differs := _differences(connection):
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                f"the tables would not be those of version {SCHEMA_VERSION}, and are left as they are; missing: "
                + ", ".join(map(_named, differs[:_TOLD])),
                where=database.where,
                got=f"tables that call themselves version {found}",
                hint="a build between releases, or somebody by hand, made them: put back a copy from before, or begin "
                "a new state with `weighbridge init`",
            )
    return found, steps


def differences(database: Database) -> tuple[str, ...]:
    """In what the tables differ from those of this version, by what the database says of them: none, if all is well.

    Raises:
        EnvironmentFault: the database is at fault.
    """
    with database.reading() as connection:
        return tuple(" ".join(str(item).split()) for item in _differences(connection))


def _differences(connection: sa.Connection) -> list[Any]:
    """Alembic's operations that would make the tables those of this version."""
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - only for this, and it takes its time
    from alembic.migration import MigrationContext  # noqa: PLC0415

    found: list[Any] = compare_metadata(MigrationContext.configure(connection), metadata)
    return found


def _named(operation: Any) -> str:  # noqa: ANN401 - a tuple of alembic's: the operation, and what it is of
    """Such as ``add_column spots asked_ns``."""
    parts = cast("tuple[object, ...]", operation[0] if isinstance(operation, list) else operation)
    names = [part if isinstance(part, str) else getattr(part, "name", None) for part in parts]
    return " ".join(name for name in names if isinstance(name, str))


def _require(found: int, where: str) -> None:
    if found != SCHEMA_VERSION:
        raise wrong_version(where, found, SCHEMA_VERSION)


def _told_in_file(connection: sa.Connection) -> int:
    """What a file of SQLite says in its head: programs of before version 10 look there."""
    if connection.dialect.name != "sqlite":
        return 0
    found: int = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    return found


def _tell_in_file(connection: sa.Connection, version: int) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {version:d}")
