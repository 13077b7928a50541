"""Turns of a verifier: in each, it alone writes, and the store knows of everything in the ledger when it begins.

Entering a turn takes up what other processes have recorded, and finishes what one of them, or this one, has left
between ledger and store: a process died there, its disk failed, or the database was replaced by a copy that is behind.
Where nothing has happened since the last turn, that is a look at the ledger's head, and one at the store's row of it.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final, final

from weighbridge.verifier.clock import moment, require_after
from weighbridge.verifier.record import Leaf
from weighbridge.verifier.recovery import settle

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime

    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.live import LiveSessions
    from weighbridge.verifier.store import Store

__all__ = ["Leader", "Turn"]

# Whoever monitors a ledger lets a receipt time lie this far before that of an entry in front of it, and some more.
_DISORDER: Final = timedelta(seconds=1)


@final
class Turn:
    """One turn. ``latest`` is the receipt time of the last entry, if it may be later than a judgement's."""

    __slots__ = ("latest",)

    def __init__(self, latest: datetime | None) -> None:
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
        with self._archive.turn():
            self._catch_up()

    @contextlib.contextmanager
    def turn(self) -> Generator[Turn]:
        """Lead while the block lasts. Leaving it without an error, the store knows of everything in the ledger.

        Raises:
            EnvironmentFault: others lead for too long; ledger or store cannot be read or written; ``CLOCK_STEPPED``:
                this machine's clock is behind the last entry. Nothing has been done.
            LedgerInconsistent: as :func:`.recovery.settle`.
        """
        ledger = self._archive.ledger
        with self._archive.turn():
            latest: datetime | None = None
            # Whatever was known: a database that another has replaced may have forgotten what this process told it.
            self._catch_up()
            if ledger.size != self._known:
                latest = self._require_time()
            self._known = -1
            yield Turn(latest)
            self._known = ledger.size

    def _require_time(self) -> datetime | None:
        """The receipt time of the last entry, which another process's clock may have told."""
        ledger = self._archive.ledger
        if not ledger.size:
            return None
        latest = moment(Leaf.parse(ledger.entry(ledger.size - 1)).received_ns)
        require_after(self._clock.now(), latest)
        return latest

    def _catch_up(self) -> None:
        """Else a denial that its process could not carry out would be forgotten, and another window take its place."""
        tree = self._archive.ledger.reader().checkpoint
        # As whoever writes in this turn: another connection may still lead to another server.
        with self._store.transaction() as tx:
            settled, seen = tx.progress.settled(), tx.progress.seen()
        if settled != tree.size or seen != (tree.size, tree.root):
            settle(self._archive, self._store, self._sessions)
