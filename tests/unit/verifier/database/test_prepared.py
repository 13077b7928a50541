"""Statements that the driver runs itself: the same values in and out on both databases, and its errors."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
import sqlalchemy as sa

from weighbridge.proto.digest import sha256
from weighbridge.verifier.database import Conflict, database_at
from weighbridge.verifier.database.prepared import AT_ONCE, Changes, Prepared, part, together
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.store import Store
from weighbridge.verifier.tables import SCHEMA_VERSION, memory, subjects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.verifier.database import Address

COLUMNS: Final = ["kind", "identity", "failed_code", "failed_ns"]
KEEP: Final = Prepared(sa.insert(subjects), sets=COLUMNS)
FIND: Final = sa.select(subjects.c.identity, subjects.c.failed_code, subjects.c.failed_ns).where(
    subjects.c.kind == "gpu", subjects.c.identity.in_(sa.bindparam("of", expanding=True))
)
FOUND: Final = Prepared(FIND, lists=["of"])
CLEAR: Final = Prepared(
    sa.update(subjects).where(subjects.c.identity == sa.bindparam("of_identity")), sets=["failed_code", "failed_ns"]
)
ALL: Final = Prepared(sa.select(sa.func.count()).select_from(subjects))
ADD: Final = Prepared(Upsert(memory, added=["kept"]), sets=["id", "kept"])
KEPT: Final = Prepared(sa.select(memory.c.kept))


@pytest.fixture
def connection(store_address: Address) -> Iterator[sa.Connection]:
    Store.create(store_address)
    with closing(database_at(store_address)) as database, database.transaction(version=SCHEMA_VERSION) as opened:
        yield opened


def row(number: int) -> dict[str, object]:
    return {"kind": "gpu", "identity": sha256(b"%d" % number), "failed_code": "A", "failed_ns": 2**62 + number}


def keep(connection: sa.Connection, *numbers: int) -> None:
    changes = Changes()
    changes.add(KEEP, [row(number) for number in numbers])
    changes.write(connection)


def test_what_is_written_is_found_by_lists_of_any_length(connection: sa.Connection) -> None:
    keep(connection, *range(20))
    finding = Prepared(FIND, lists=["of"])
    for count in (1, 2, 3, 4, 9, 16, 20):
        asked = [row(number)["identity"] for number in range(count)]
        found = finding.rows(connection, of=asked)
        assert sorted(found) == sorted((item["identity"], "A", item["failed_ns"]) for item in map(row, range(count)))
    assert finding.pieces("of", []) == []
    # Whoever has compiled them has so few: of one, two, four, sixteen and thirty-two.
    assert len(finding._forms) == 5


def test_a_list_that_is_too_long_goes_in_pieces(connection: sa.Connection) -> None:
    keep(connection, 0, 1)
    asked = [row(0)["identity"], *(bytes(32) for _ in range(AT_ONCE)), row(1)["identity"]]
    found = together(connection, *FOUND.pieces("of", asked), (ALL, {}))
    assert [len(rows) for rows in found] == [1, 1, 1]
    assert found[-1] == [(2,)]


def test_changes_are_written_in_their_order_and_counted(connection: sa.Connection) -> None:
    changes = Changes()
    changes.add(KEEP, [row(number) for number in range(3)])
    cleared = [{"of_identity": row(number)["identity"], "failed_code": None, "failed_ns": None} for number in (0, 2)]
    changes.add(CLEAR, cleared, otherwise="not there")
    changes.add(ADD, [{"id": 0, "kept": number} for number in (1, 2, 4)])
    changes.add(ADD, [])
    changes.write(connection)
    identities = [row(number)["identity"] for number in range(3)]
    assert {code for _, code, _ in FOUND.rows(connection, of=identities)} == {"A", None}
    assert KEPT.rows(connection) == [(7,)]
    changes = Changes()
    changes.add(CLEAR, [*cleared, {"of_identity": bytes(32), "failed_code": None, "failed_ns": None}], otherwise="gone")
    with pytest.raises(Conflict, match="gone"):
        changes.write(connection)


def test_part_of_a_transaction_is_undone_alone(connection: sa.Connection) -> None:
    keep(connection, 0)

    def some(*numbers: int) -> None:
        with part(connection):
            for number in numbers:
                keep(connection, number)

    with pytest.raises(Conflict):
        some(1, 2, 0)
    some(3)
    assert ALL.rows(connection) == [(2,)]
    # Whatever goes wrong in it.
    with pytest.raises(TypeError):
        some(4, "five")  # type: ignore[arg-type]
    assert ALL.rows(connection) == [(2,)]
