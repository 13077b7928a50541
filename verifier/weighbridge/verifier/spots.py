"""The verifier's pool of spot challenges, one table of its durable state. See :mod:`.store`.

A challenge and its answer are secret from their import until the challenge is spent; nothing prints them. Spending is
final, also when what it left with never arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.proto.spot import SpotChallenge, SpotExpectation
from weighbridge.verifier import statements
from weighbridge.verifier.database.prepared import Changes
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.tables import spots

if TYPE_CHECKING:
    from weighbridge.proto.spot import SpotPool

__all__ = ["SpotCount", "Spots"]

_ADD: Final = Upsert(spots, key=["id"])


@dataclass(frozen=True, slots=True)
class SpotCount:
    """How many spot challenges of one model are left, and how many are spent. ``name`` is the owner's word."""

    manifest: bytes
    name: str
    left: int
    spent: int


@final
class Spots:
    """The pool within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, pool: SpotPool) -> int:
        """Remember the challenges of ``pool``; those that are known already stay as they are, spent or not.

        Returns:
            How many are new.
        """
        rows = [
            {
                "id": entry.expectation.challenge.id,
                "manifest": pool.manifest,
                "name": pool.name,
                "challenge": entry.expectation.challenge.encode(),
                "mac": entry.expectation.mac,
            }
            for entry in pool.entries
        ]
        if not rows:
            return 0
        counting = _ADD.on(self._connection).execution_options(preserve_rowcount=True)
        return self._connection.execute(counting, rows).rowcount

    def spend(self, manifest: bytes, *, issued: bytes, asked_ns: int) -> SpotExpectation | None:
        """Take one challenge of a model out of the pool for good; ``None`` when none is left.

        Args:
            manifest: the model's digest, 32 bytes.
            issued: the freshness challenge with which it leaves, outstanding in this transaction.
            asked_ns: when; it stays that of the first time.
        """
        found = statements.SPEND_SPOT.rows(self._connection, of_manifest=manifest, issued=issued, asked_ns=asked_ns)
        if not found:
            return None
        ((challenge, mac),) = found
        return SpotExpectation(SpotChallenge.parse(challenge), mac)

    def carry(self, before: bytes, *, issued: bytes) -> None:
        """Let the spot challenge that left with the freshness challenge ``before`` leave again, with ``issued``.

        For a window that comes after the one of ``before``, by which nothing can be answered any more.
        """
        changes = Changes()
        changes.add(statements.CARRY_SPOT, [{"of_issued": before, "issued": issued}])
        changes.write(self._connection)

    def counts(self) -> tuple[SpotCount, ...]:
        """What is left and what is spent, by model."""
        rows = self._connection.execute(
            sa.select(
                spots.c.manifest,
                sa.func.min(spots.c.name).label("name"),
                sa.func.count().label("whole"),
                sa.func.count(spots.c.issued).label("spent"),
            )
            .group_by(spots.c.manifest)
            .order_by(sa.text("name"), spots.c.manifest)
        )
        return tuple(SpotCount(row.manifest, row.name, row.whole - row.spent, row.spent) for row in rows)
