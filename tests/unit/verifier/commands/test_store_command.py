"""``weighbridge store check | migrate | prune``: by the directory or by the address."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from support.ended import ENDED, INTERRUPTED, LIVE, fill, rows
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main
from weighbridge.verifier.database import PostgresAddress, SqliteAddress
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.store import Store
from weighbridge.verifier.tables import SCHEMA_VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from support.postgres import Server
    from weighbridge.verifier.database import Address


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    status = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out), err


def named(address: Address, directory: Path) -> str:
    """What the command is told: the address, or the directory with the file."""
    if isinstance(address, PostgresAddress):
        return str(address)
    address.path.rename(directory / "sessions.sqlite")
    return str(directory)


def test_check_and_migrate(capsys: pytest.CaptureFixture[str], store_address: Address, tmp_path: Path) -> None:
    Store.create(store_address)
    target = named(store_address, tmp_path)
    status, document, _ = run(capsys, "store", "check", target)
    assert (status, document["version"], document["differences"]) == (ExitCode.AFFIRMED, SCHEMA_VERSION, [])
    assert document["told"]["database"].startswith(("SQLite 3", "PostgreSQL "))
    status, document, _ = run(capsys, "store", "migrate", target)
    now = SCHEMA_VERSION
    assert (status, document["from"], document["to"], document["steps"]) == (ExitCode.AFFIRMED, now, now, [])


def test_names_that_are_long_stand_apart_from_what_they_are(
    capsys: pytest.CaptureFixture[str], postgres: Server
) -> None:
    address = postgres.database()
    Store.create(address)
    assert main(["store", "check", str(address)]) == ExitCode.AFFIRMED
    lines = capsys.readouterr().out.splitlines()
    assert "synchronous_standby_names -" in lines
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)


def test_what_ended_is_told_and_taken_out(
    capsys: pytest.CaptureFixture[str], store_address: Address, tmp_path: Path
) -> None:
    Store.create(store_address)
    with closing(Store.open(store_address)) as store:
        fill(store, ENDED, of=0)
        fill(store, INTERRUPTED, of=1)
        fill(store, LIVE, of=1, count=2)
        with store.transaction() as tx:
            tx.set_state(ENDED, SessionState.CLOSED, at_ns=60_000_000_000)
    target = named(store_address, tmp_path)
    status, document, _ = run(capsys, "store", "check", target)
    assert (status, document["live"], document["ended"]) == (
        ExitCode.AFFIRMED,
        {"sessions": 1, "windows": 2, "since": "1970-01-01T00:00:00.000002Z"},
        {"sessions": 2, "windows": 14, "since": "1970-01-01T00:00:00.000002Z"},
    )
    assert int(document["told"]["size_bytes"]) > 100_000
    assert main(["store", "check", target]) == ExitCode.AFFIRMED
    assert "2 sessions, 14 windows, the first of 1970-01-01" in capsys.readouterr().out
    prune = ("store", "prune", target, "--ended-before")
    status, would, _ = run(capsys, *prune, "1970-01-01T00:01:00Z", "--dry-run")
    assert (status, would["windows"], would["challenges"], would["sessions"]) == (ExitCode.AFFIRMED, 6, 7, 1)
    _, did, _ = run(capsys, *prune, "1970-01-01T00:01:00Z")
    assert did == {**would, "dry_run": False}
    assert main([*prune, "now"]) == ExitCode.AFFIRMED
    assert capsys.readouterr().out.endswith("took out 6 windows and 7 challenges of 1 session\n")
    with closing(Store.open(store_address if isinstance(store_address, PostgresAddress) else at(tmp_path))) as store:
        assert rows(store, LIVE) == ([0, 1], [0, 1, 2])
        assert rows(store, ENDED) == ([6], [7])


def at(directory: Path) -> SqliteAddress:
    return SqliteAddress(directory / "sessions.sqlite")


def test_a_store_is_not_pruned_without_a_time(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["store", "prune", str(tmp_path)]) == ExitCode.USAGE
    assert "--ended-before" in capsys.readouterr().err
    status, document, _ = run(capsys, "store", "prune", str(tmp_path), "--ended-before", "now")
    assert (status, document["code"]) == (ExitCode.ENVIRONMENT, "FILE_UNREADABLE")
