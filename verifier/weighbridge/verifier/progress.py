"""How much of the ledger the verifier's state knows of, and which ledger: one row of it. See :mod:`.recovery`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.verifier.tables import progress

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from weighbridge.proto import tlog

__all__ = ["Progress"]

_SETTLED: Final = sa.select(progress.c.settled)
_SEEN: Final = sa.select(progress.c.size, progress.c.root)
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

    def seen(self) -> tuple[int, bytes]:
        """Size and root of the ledger's tree when this was written last."""
        size, root = self._connection.execute(_SEEN).one()
        return size, root

    def settle(self, settled: int, tree: tlog.VerifiedCheckpoint) -> None:
        """Remember that the first ``settled`` entries are known of, in the transaction that makes it true.

        ``tree`` is the ledger's last commit.
        """
        self._connection.execute(_SETTLE, {"settled": settled, "size": tree.size, "root": tree.root})
