"""The verifier's durable state in a file: private, durable, and what is wrong with the disk has a code."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import exc

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.database import sqlite
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.store import Conflict, Store, SubjectKind, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

GPU = sha256(b"gpu")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.create_or_open(path)
    yield opened
    opened.close()


def write(store: Store) -> None:
    with store.transaction() as tx:
        tx.subjects.fail([("gpu", GPU)], code=Code.GPU_SIG, session=None, at_ns=1)


def test_file_is_private_and_durable(store: Store, path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0
    with store.transaction() as tx:
        settings = [
            tx._connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]


def test_what_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"this is no database, though it is long enough to look at" * 40)
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE something (x)")
    other.close()
    with sqlite3.connect(tmp_path / "newer") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    for name, code in (
        ("text", Code.STATE_CORRUPT),
        ("other", Code.STATE_FOREIGN),
        # Whoever has mended nothing but his installation need not look at the disk.
        ("newer", Code.STATE_VERSION),
    ):
        with pytest.raises(EnvironmentFault) as caught:
            Store.create_or_open(tmp_path / name)
        assert caught.value.code is code
    with pytest.raises(EnvironmentFault) as caught:
        Store.create_or_open(tmp_path / "no" / "directory")
    assert caught.value.code is Code.FILE_UNWRITABLE


def test_damage_is_reported(store: Store, path: Path) -> None:
    write(store)
    store.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)

    def read() -> None:
        with Store.create_or_open(path).transaction() as tx:
            tx.subjects.of("gpu", GPU)

    with pytest.raises(EnvironmentFault) as caught:
        read()
    assert caught.value.code is Code.STATE_CORRUPT


def test_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.05)
    store = Store.create_or_open(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(EnvironmentFault) as caught:
        write(store)
    assert caught.value.code is Code.STATE_LOCKED
    holder.execute("ROLLBACK")
    holder.close()
    write(store)
    store.close()


@pytest.mark.parametrize("within", [Transaction.part, lambda _: nullcontext()])
def test_full(store: Store, within: Callable[[Transaction], AbstractContextManager[None]]) -> None:
    """The database may not grow: reported as a full disk, and nothing of the transaction stays."""
    write(store)
    with store.transaction() as tx:
        pages = tx._connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        # So little that pages are written, and SQLite gives up, before the end.
        tx._connection.exec_driver_sql("PRAGMA cache_size = 5")
    many: list[tuple[SubjectKind, bytes]] = [("gpu", sha256(b"%d" % number)) for number in range(2000)]
    with pytest.raises(EnvironmentFault) as caught, store.transaction() as tx, within(tx):
        tx.subjects.fail(many, code=Code.GPU_SIG, session=None, at_ns=1)
    assert caught.value.code is Code.DISK_FULL
    with store.transaction() as tx:
        assert tx.subjects.of("gpu", sha256(b"1")) is None


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, Code.FILE_UNWRITABLE),
        (sqlite3.SQLITE_READONLY, Code.FILE_UNWRITABLE),
        (sqlite3.SQLITE_CANTOPEN, Code.FILE_UNREADABLE),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Code.STATE_LOCKED),
    ],
)
def test_other_faults(store: Store, number: int, code: Code) -> None:
    error = sqlite3.OperationalError("from the disk")
    error.sqlite_errorcode = number
    with pytest.raises(EnvironmentFault) as caught, store.transaction():
        raise exc.OperationalError("statement", None, error)
    assert caught.value.code is code


WRITER = """
import hashlib, sys
from pathlib import Path
from weighbridge.proto.errors import Code
from weighbridge.verifier.store import Store

store = Store.create_or_open(Path(sys.argv[1]))
for number in range(1_000_000):
    with store.transaction() as tx:
        for half in "ab":
            identity = hashlib.sha256(f"{number}{half}".encode()).digest()
            tx.subjects.fail([("gpu", identity)], code=Code.GPU_SIG, session=None, at_ns=number)
    print(number, flush=True)
"""


def test_killed_in_the_middle(path: Path) -> None:
    """kill -9 while it writes: what was acknowledged is there, and no transaction is there by half."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert writer.stdout is not None
    with writer.stdout as lines:
        acknowledged = next(int(line) for line in lines if int(line) >= 50)
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, lines)])
    writer.wait()
    store = Store.create_or_open(path)
    with store.transaction() as tx:
        for number in range(acknowledged + 3):
            halves = [tx.subjects.of("gpu", sha256(f"{number}{half}".encode())) for half in "ab"]
            assert (halves[0] is None) == (halves[1] is None)
            assert number > acknowledged or halves[0] is not None
    store.close()


def test_connections_are_kept_but_not_many(store: Store) -> None:
    """However many were in use at once; and none that is in a transaction which could not be undone."""
    database = store.database
    assert isinstance(database, sqlite.SqliteDatabase)
    with ExitStack() as entered:
        for _ in range(9):
            entered.enter_context(store.reading())
    assert len(database._idle) == 5
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.set_state(bytes(16), SessionState.CLOSED, at_ns=0)
    assert len(database._idle) == 5
    assert not any(sqlite._raw(connection).in_transaction for connection in database._idle)
    store.database.look(lambda connection: sqlite._raw(connection).execute("BEGIN IMMEDIATE"))
    assert len(database._idle) == 4
    write(store)
