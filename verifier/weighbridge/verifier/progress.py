"""How much of the ledger the verifier's state knows of, and which ledger: one row of it. See :mod:`.recovery`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.verifier.database.prepared import Changes, Prepared
from weighbridge.verifier.tables import progress

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from weighbridge.proto import tlog

__all__ = ["Progress"]

_KNOWN: Final = Prepared(sa.select(progress.c.settled, progress.c.size, progress.c.root))
_SETTLE: Final = Prepared(sa.update(progress), sets=["settled", "size", "root"])


@final
class Progress:
    """The row within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def settled(self) -> int:
        """How many of the ledger's entries everything else here knows of; some behind these may be known as well."""
        settled, _, _ = self._known()
        return settled

    def seen(self) -> tuple[int, bytes]:
        """Size and root of the ledger's tree when this was written last."""
        _, size, root = self._known()
        return size, root

    def knows(self, tree: tlog.VerifiedCheckpoint) -> bool:
        """Whether everything in the ledger is known of, whose last commit is ``tree``, and this is that ledger."""
        return self._known() == (tree.size, tree.size, tree.root)

    def settle(self, settled: int, tree: tlog.VerifiedCheckpoint) -> None:
        """Remember that the first ``settled`` entries are known of, in the transaction that makes it true.

        ``tree`` is the ledger's last commit.
        """
        changes = Changes()
        row = {"settled": settled, "size": tree.size, "root": tree.root}
        changes.add(_SETTLE, [row], otherwise="nothing is said of the ledger")
        changes.write(self._connection)

    def _known(self) -> tuple[int, int, bytes]:
        ((settled, size, root),) = _KNOWN.rows(self._connection)
        return settled, size, root
