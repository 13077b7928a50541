"""Turns of a verifier: in each, it alone writes, and the store knows of everything in the ledger when it begins.

Entering a turn takes up what other processes have recorded, and finishes what one of them, or this one, has left
between ledger and store: a process died there, its disk failed, or the database was replaced by a copy that is behind.
Where nothing has happened since the last turn, that is a look at the ledger's head, and one at the store's row of it,
in the transaction in which the turn then writes.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.clock import moment, require_after
from weighbridge.verifier.record import Leaf
from weighbridge.verifier.recovery import settle

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime

    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.live import LiveSessions
    from weighbridge.verifier.store import Store, Transaction

__all__ = ["Leader", "Turn"]

# Whoever monitors a ledger lets a receipt time lie this far before that of an entry in front of it, and some more.
_DISORDER: Final = timedelta(seconds=1)


@final
class Turn:
    """One turn.

    Attributes:
        tx: the store's transaction: what is written in the turn is durable, all of it, once that is left.
        latest: the receipt time of the last entry, if it may be later than a judgement's.
    """

    __slots__ = ("latest", "tx")

    def __init__(self, tx: Transaction, latest: datetime | None) -> None:
        self.tx: Final = tx
        self.latest = latest

    def made_at(self, at: datetime) -> None:
        """An entry of the time ``at`` will be recorded."""
        self.latest = at if self.latest is None else max(self.latest, at)

    def too_old(self, at: datetime) -> bool:
        """Whether a judgement of the time ``at`` waited too long to be recorded as of then."""
        return self.latest is not None and at < self.latest - _DISORDER


@final
class Leader:
    """Gives turns to the verifier. One thread uses it."""

    __slots__ = ("_archive", "_clock", "_known", "_sessions", "_store")

    def __init__(self, *, archive: Archive, store: Store, sessions: LiveSessions, clock: Clock) -> None:
        self._archive = archive
        self._store = store
        self._sessions = sessions
        self._clock = clock
        # So many entries had the ledger when the last turn ended well.
        self._known = -1

    def begin(self) -> None:
        """Finish what was left undone, in a turn: whoever starts does this first, whatever its clock says.

        Raises:
            WeighbridgeError: as :meth:`turn`, but for the time.
        """
        with self._archive.turn(), contextlib.ExitStack() as within:
            _ = self._caught_up(within)

    @contextlib.contextmanager
    def turn(self) -> Generator[Turn]:
        """Lead, and write to the store, while the block lasts; leaving it without an error, what it wrote is durable.

        The store knows of everything in the ledger then, if the block has told it of what it has added.

        Raises:
            EnvironmentFault: others lead for too long; ledger or store cannot be read or written; ``CLOCK_STEPPED``:
                this machine's clock is behind the last entry. Nothing has been done.
            LedgerInconsistent: as :func:`.recovery.settle`.
        """
        ledger = self._archive.ledger
        with self._archive.turn():
            with contextlib.ExitStack() as within:
                # Whatever was known: a database that another has replaced may have forgotten what it was told.
                tx = self._caught_up(within)
                latest = None if ledger.size == self._known else self._require_time()
                self._known = -1
                yield Turn(tx, latest)
            self._known = ledger.size

    def _require_time(self) -> datetime | None:
        """The receipt time of the last entry, which another process's clock may have told."""
        last = self._archive.ledger.last()
        if last is None:
            return None
        latest = moment(Leaf.parse(last).received_ns)
        require_after(self._clock.now(), latest)
        return latest

    def _caught_up(self, within: contextlib.ExitStack) -> Transaction:
        """A transaction, left by ``within``, in which the store knows of everything in the ledger.

        Else a denial that its process could not carry out would be forgotten, and another window take its place.
        """
        tree = self._archive.ledger.reader().checkpoint
        # As whoever writes in this turn: another connection may still lead to another server.
        tx = within.enter_context(self._store.transaction())
        if tx.progress.knows(tree):
            return tx
        # What was left undone is finished step by step, each durable before the next.
        within.close()
        settle(self._archive, self._store, self._sessions)
        tx = within.enter_context(self._store.transaction())
        if not tx.progress.knows(tree):
            # What it has forgotten may be a denial.
            message = "the store does not know of all that is in the ledger, although it was just told"
            raise EnvironmentFault(
                Code.STATE_UNREACHABLE, message, where="store", expected=tree.size, got=tx.progress.settled()
            )
        return tx
