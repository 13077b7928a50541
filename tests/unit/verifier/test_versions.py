"""Versions of the store's tables: refused where they are others, brought forward whole, by whoever comes first."""

from __future__ import annotations

import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
import sqlalchemy as sa

from weighbridge.proto import merkle
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier import versions
from weighbridge.verifier.database import PostgresAddress, SqliteAddress, database_at
from weighbridge.verifier.store import Store
from weighbridge.verifier.tables import SCHEMA_VERSION, about, endings, metadata, positions, upkeep
from weighbridge.verifier.versions import STEPS, Step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from alembic.operations import Operations

    from support.postgres import Server
    from weighbridge.verifier.database import Address

FAILS: Final = "on purpose"


def code_of(act: Callable[[], object]) -> tuple[Code, str]:
    with pytest.raises(EnvironmentFault) as caught:
        act()
    return caught.value.code, caught.value.hint


def set_version(address: Address, version: int) -> None:
    with closing(database_at(address)) as database, database.migrating() as connection:
        connection.execute(sa.update(about).values(version=version))
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"PRAGMA user_version = {version}")


def test_steps_are_in_order_and_end_where_the_tables_are() -> None:
    numbers = [step.version for step in STEPS]
    assert numbers == list(range(numbers[0], SCHEMA_VERSION + 1))


def test_tables_are_as_the_database_says(store_address: Address) -> None:
    Store.create(store_address)
    with closing(database_at(store_address)) as database:
        assert versions.differences(database) == ()
        with database.migrating() as connection:
            connection.exec_driver_sql("DROP INDEX spots_left")
        (found,) = versions.differences(database)
    assert "spots_left" in found


def test_other_versions_are_refused_with_what_to_do(store_address: Address) -> None:
    Store.create(store_address)
    with closing(Store.open(store_address)) as store:
        for version, word in ((SCHEMA_VERSION - 1, "migrate"), (SCHEMA_VERSION + 1, "newer")):
            set_version(store_address, version)
            code, hint = code_of(lambda: Store.open(store_address))
            assert (code, word in hint) == (Code.STATE_VERSION, True)
            # Neither does one write that was there before.
            code, hint = code_of(lambda: store.claim("anybody"))
            assert (code, word in hint) == (Code.STATE_VERSION, True)
    with closing(database_at(store_address)) as database:
        assert code_of(lambda: versions.migrate(database))[0] is Code.STATE_VERSION


def test_whoever_waits_for_a_migration_sees_it(store_address: Address) -> None:
    """A transaction of an older program, which had begun to wait before the tables changed, writes nothing."""
    Store.create(store_address)
    begun = threading.Event()

    def write() -> Code:
        begun.set()
        return code_of(lambda: store.claim("anybody"))[0]

    with (
        closing(Store.open(store_address)) as store,
        closing(database_at(store_address)) as database,
        ThreadPoolExecutor(1) as thread,
    ):
        with database.migrating() as connection:
            told = thread.submit(write)
            begun.wait()
            connection.execute(sa.update(about).values(version=99))
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA user_version = 99")
            with pytest.raises(TimeoutError):
                told.result(0.1)
        assert told.result() is Code.STATE_VERSION


def wider(operations: Operations) -> None:
    with operations.batch_alter_table("sessions") as table:
        table.add_column(sa.Column("note", sa.String))
    operations.create_index("by_tenant", "sessions", ["tenant"])


def failing(operations: Operations) -> None:
    wider(operations)
    raise RuntimeError(FAILS)


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr(versions, "STEPS", (*STEPS, Step(SCHEMA_VERSION + 1, "more", wider)))


@pytest.mark.usefixtures("next_version")
def test_of_two_that_migrate_at_once_one_does(store_address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.create(store_address)
    set_version(store_address, SCHEMA_VERSION)
    tables = sa.MetaData()
    for table in metadata.sorted_tables:
        table.to_metadata(tables)
    sessions = tables.tables["sessions"]
    sessions.append_column(sa.Column("note", sa.String))
    sa.Index("by_tenant", sessions.c.tenant)
    monkeypatch.setattr(versions, "metadata", tables)
    ready = threading.Barrier(2)

    def migrate() -> int:
        with closing(database_at(store_address)) as database:
            ready.wait()
            return len(versions.migrate(database)[1])

    with ThreadPoolExecutor(2) as threads:
        assert sorted(thread.result() for thread in [threads.submit(migrate) for _ in range(2)]) == [0, 1]
    with closing(database_at(store_address)) as database, database.reading() as connection:
        assert "note" in {column["name"] for column in sa.inspect(connection).get_columns("sessions")}
        assert versions.version_of(connection, "here") == SCHEMA_VERSION + 1


@pytest.mark.usefixtures("next_version")
def test_a_step_that_fails_has_changed_nothing(store_address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.create(store_address)
    set_version(store_address, SCHEMA_VERSION)
    monkeypatch.setattr(versions, "STEPS", (*STEPS, Step(SCHEMA_VERSION + 1, "more", failing)))
    with closing(database_at(store_address)) as database, pytest.raises(RuntimeError, match=FAILS):
        versions.migrate(database)
    monkeypatch.undo()
    Store.open(store_address).close()
    with closing(database_at(store_address)) as database:
        assert versions.differences(database) == ()


# -- files of version 9 -----------------------------------------------------------------------------------------------


def version_9(path: Path) -> None:
    """A file as the release before version 10 left it: the tables of now, but for what was added since."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    then = [table for table in metadata.sorted_tables if table not in {about, positions, endings, upkeep}]
    with engine.begin() as connection:
        metadata.create_all(connection, tables=then)
        connection.exec_driver_sql("ALTER TABLE spots DROP COLUMN asked_ns")
        connection.exec_driver_sql(
            "INSERT INTO progress (id, settled, size, root) VALUES (0, 0, 0, ?)", (merkle.EMPTY_ROOT,)
        )
        connection.exec_driver_sql("INSERT INTO subjects (kind, identity) VALUES ('gpu', ?)", (bytes(32),))
        connection.exec_driver_sql("PRAGMA user_version = 9")
    engine.dispose()


def schema(path: Path) -> set[tuple[object, ...]]:
    """All that is said of the file's tables; of columns that are added, SQLite says so behind all others."""
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        columns = {("spots", *row[1:]) for row in raw.execute("PRAGMA table_info(spots)")}
        words = {tuple(_told(str(part)) for part in row) for row in rows}
        return {*words, *columns, ("version", raw.execute("PRAGMA user_version").fetchone()[0])}


def _told(sql: str) -> str:
    return re.sub(r", asked_ns BIGINT(?=[,)])", "", re.sub(r"\s+", " ", sql).replace(" )", ")")).strip()


def test_a_file_of_version_9_goes_forward(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    version_9(old)
    for opened in (lambda: Store.create_or_open(old), lambda: Store.open(SqliteAddress(old))):
        code, hint = code_of(opened)
        assert (code, "migrate" in hint) == (Code.STATE_VERSION, True)
    with closing(database_at(SqliteAddress(old))) as database:
        assert versions.migrate(database) == (9, STEPS)
        assert versions.migrate(database) == (SCHEMA_VERSION, ())
    Store.create(SqliteAddress(new))
    assert schema(old) == schema(new)
    with closing(Store.open(SqliteAddress(old))) as store, store.reading() as tx:
        assert tx.subjects.of("gpu", bytes(32)) is not None


def test_tables_of_no_release_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    """A build between releases called its tables version 11 before they had a column of it: no step adds that."""
    version_9(tmp_path / "old")
    address = SqliteAddress(tmp_path / "old")
    with closing(database_at(address)) as database:
        versions.migrate(database)
        with database.migrating() as connection:
            for table in (endings, upkeep):
                table.drop(connection)
            connection.exec_driver_sql("ALTER TABLE spots DROP COLUMN asked_ns")
    set_version(address, 11)
    before = schema(tmp_path / "old")
    for version in (11, SCHEMA_VERSION):
        set_version(address, version)
        with closing(database_at(address)) as database, pytest.raises(EnvironmentFault, match="left as") as caught:
            versions.migrate(database)
        assert "add_column spots asked_ns" in caught.value.message
        assert (caught.value.code, "init" in caught.value.hint) == (Code.STATE_CORRUPT, True)
    set_version(address, 11)
    assert schema(tmp_path / "old") == before


def test_what_no_step_begins_from(tmp_path: Path) -> None:
    version_9(tmp_path / "old")
    with closing(sqlite3.connect(tmp_path / "old")) as raw:
        raw.execute("PRAGMA user_version = 8")
    sqlite3.connect(tmp_path / "other").close()
    with closing(sqlite3.connect(tmp_path / "theirs")) as raw:
        raw.execute("CREATE TABLE something (x)")
    for name, code in (
        ("old", Code.STATE_VERSION),
        ("other", Code.STATE_FOREIGN),
        ("theirs", Code.STATE_FOREIGN),
        ("none", Code.FILE_UNREADABLE),
    ):

        def migrate(path: Path = tmp_path / name) -> object:
            with closing(database_at(SqliteAddress(path))) as database:
                return versions.migrate(database)

        assert code_of(migrate)[0] is code
    assert not (tmp_path / "none").exists()


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_a_store_belongs_to_the_first_verifier_that_opens_it(store_address: Address) -> None:
    Store.create(store_address)
    Store.create(store_address)
    with closing(Store.open(store_address)) as store:
        if isinstance(store_address, PostgresAddress):
            # An empty database has forgotten all that another one knew: nobody takes it for his own by mistake.
            assert code_of(lambda: store.require_owner("ledger.example/a+00000000+AAAA"))[0] is Code.STATE_FOREIGN
        store.claim("ledger.example/a+00000000+AAAA")
        store.require_owner("ledger.example/a+00000000+AAAA")
        for act in (store.claim, store.require_owner):
            assert code_of(lambda act=act: act("ledger.example/b+00000000+AAAA"))[0] is Code.STATE_FOREIGN  # type: ignore[misc]
    assert code_of(lambda: Store.create(store_address))[0] is Code.STATE_FOREIGN


def test_a_database_with_others_tables(postgres: Server) -> None:
    address = postgres.database()
    with closing(database_at(address)) as database, database.migrating() as connection:
        connection.exec_driver_sql("CREATE TABLE something (x integer)")
    assert code_of(lambda: Store.create(address))[0] is Code.STATE_FOREIGN
    assert code_of(lambda: Store.open(address))[0] is Code.STATE_FOREIGN
