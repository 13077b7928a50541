"""Where a store is: one spelling, no secrets, and whatever else is written there is refused by code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.database import PostgresAddress, SqliteAddress, server
from weighbridge.verifier.database.faults import hint
from weighbridge.verifier.database.named import named_in

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql://weighbridge@db.example/weighbridge"


@given(st.one_of(st.text(), st.text(alphabet="postgresql:/@?&=%[]# a\0").map("postgresql://".__add__)))
@example("postgresql://[")
@example("postgresql://u@h/d?a")
@example("postgresql://u@h:x/d")
def test_anything_is_an_address_or_refused(text: str) -> None:
    try:
        told = str(PostgresAddress.parse(text))
    except EnvironmentFault as error:
        told = error.code
    assert told in (text, Code.STATE_UNFIT)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:secret@h/d",
        "postgresql://u:@h/d",
        "postgresql://u@h/d?password=secret",
        "postgresql://u@h/d?PASSWORD=secret",
        "postgresql://u@h/d?sslpassword=secret",
    ],
)
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        PostgresAddress.parse(text)
    assert "secret" not in f"{caught.value} {caught.value.hint}"
    assert "PGPASSFILE" in caught.value.hint


@pytest.mark.parametrize("text", ["", "postgres://u@h/d", "sqlite:///x", f"{URL}#x", f" {URL}", "x" * 3000])
def test_what_is_none(text: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        PostgresAddress.parse(text)
    assert caught.value.code is Code.STATE_UNFIT


def test_a_directory_names_its_store(tmp_path: Path) -> None:
    assert named_in(tmp_path) == SqliteAddress(tmp_path / "sessions.sqlite")
    (tmp_path / "store").write_text(f"{URL}\n")
    assert named_in(tmp_path) == PostgresAddress(URL)
    for wrong in (b"", b"\xff", b"postgresql://a\npostgresql://b\n"):
        (tmp_path / "store").write_bytes(wrong)
        with pytest.raises(EnvironmentFault) as caught:
            named_in(tmp_path)
        assert caught.value.code is Code.STATE_UNFIT


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({"host": "db.example"}, True),
        ({"host": "localhost,db.example"}, True),
        ({"hostaddr": "192.0.2.1", "host": "localhost"}, True),
        ({"host": "db.example", "sslmode": "require"}, False),
        ({"service": "weighbridge"}, False),
        ({"host": "/run/postgresql"}, False),
        ({"host": "localhost"}, False),
        ({}, False),
    ],
)
def test_a_line_that_leaves_this_machine_is_secured(
    given: dict[str, str], needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGSSLMODE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    assert server._needs_tls(given) is needed
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert not server._needs_tls(given)


def test_a_password_that_nobody_gave_is_asked_for_by_the_files_that_are_read() -> None:
    """What libpq says where the server wants one has no state of its own."""
    missing = psycopg.OperationalError("connection failed: fe_sendauth: no password supplied")
    assert all(name in hint(missing) for name in ("~/.pgpass", "PGPASSFILE", "PGPASSWORD"))
    assert hint(psycopg.OperationalError("connection refused")) == ""
