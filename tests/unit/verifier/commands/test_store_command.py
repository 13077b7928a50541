"""``weighbridge store check | migrate``: by the directory or by the address."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main
from weighbridge.verifier.database import PostgresAddress
from weighbridge.verifier.store import Store
from weighbridge.verifier.tables import SCHEMA_VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.verifier.database import Address


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    status = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out), err


def test_check_and_migrate(capsys: pytest.CaptureFixture[str], store_address: Address, tmp_path: Path) -> None:
    Store.create(store_address)
    if isinstance(store_address, PostgresAddress):
        target = str(store_address)
    else:
        store_address.path.rename(tmp_path / "sessions.sqlite")
        target = str(tmp_path)
    status, document, _ = run(capsys, "store", "check", target)
    assert (status, document["version"], document["differences"]) == (ExitCode.AFFIRMED, SCHEMA_VERSION, [])
    assert document["told"]["database"].startswith(("SQLite 3", "PostgreSQL "))
    status, document, _ = run(capsys, "store", "migrate", target)
    now = SCHEMA_VERSION
    assert (status, document["from"], document["to"], document["steps"]) == (ExitCode.AFFIRMED, now, now, [])
