"""How much of the ledger the verifier's state knows of: one row of it. See :mod:`.store` and :mod:`.recovery`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.verifier.tables import progress

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["Progress"]

_SETTLED: Final = sa.select(progress.c.settled)
_SETTLE: Final = sa.update(progress)


@final
class Progress:
    """The row within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def settled(self) -> int:
        """How many of the ledger's entries everything else here knows of; some behind these may be known as well."""
        size: int = self._connection.execute(_SETTLED).scalar_one()
        return size

    def settle(self, size: int) -> None:
        """Remember that the first ``size`` entries are known of, in the transaction that makes it true."""
        self._connection.execute(_SETTLE, {"settled": size})
