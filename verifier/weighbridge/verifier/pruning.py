"""Takes away rows of sessions that ended long ago (:mod:`.endings`), a few at a time, between turns.

A removal is a turn of its own (:mod:`.leading`): nobody else writes meanwhile, and the store knows of everything in the
ledger. So that no window waits for long, it has as many rows as took :data:`_GOAL` of late; and removals have a
twentieth of the time, whoever of those that share the store does the next one: the store says from when on.

Nothing depends on when it happens. What was cut off is gone or is there, and is taken the next time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.endings import Removed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.leading import Leader
    from weighbridge.verifier.observed import Observer
    from weighbridge.verifier.store import Store

__all__ = ["Batch", "Pruner", "prune"]

# Seconds: how long a removal may take, by what the last ones took; how often is looked for what is due.
_GOAL: Final = 0.02
_LOOK: Final = 60.0
# Of the time, the part in which nothing is removed, to that in which something is.
_PAUSES: Final = 19
_SECOND_NS: Final = 1_000_000_000


@final
class Batch:
    """How many rows are taken away at once: fewer where they took longer than :data:`_GOAL`."""

    __slots__ = ("most",)

    LEAST: Final = 16
    MOST: Final = 4096

    def __init__(self) -> None:
        self.most = 64

    def took(self, rows: int, seconds: float) -> None:
        """So many rows took so long."""
        if seconds > _GOAL:
            self.most = max(self.LEAST, round(min(rows, self.most) * _GOAL / seconds))
        elif rows >= self.most and seconds < _GOAL / 2:
            self.most = min(self.MOST, self.most * 2)


@final
class Pruner:
    """Takes away what is due. One thread uses it, the one that judges.

    Args:
        store: from which.
        leader: gives turns.
        clock: by which sessions have ended long ago.
        observer: is told what is taken away.
        keep: how long rows are kept of a session that has ended; ``None``: for ever.
    """

    def __init__(
        self, *, store: Store, leader: Leader, clock: Clock, observer: Observer, keep: timedelta | None
    ) -> None:
        self._store = store
        self._leader = leader
        self._clock = clock
        self._observer = observer
        self._keep = keep
        self._batch = Batch()

    def prune(self) -> float:
        """Take away some of what is due; after how many seconds to come again.

        Raises:
            WeighbridgeError: as :meth:`.Leader.turn`, and of the clock; nothing was taken away.
        """
        if self._keep is None:
            return _LOOK
        now = self._clock.now()
        before_ns, now_ns = nanoseconds(now - self._keep), nanoseconds(now)
        # Nobody waits for a turn where there is nothing to do.
        if not self._store.look(lambda tx: tx.endings.due(before_ns=before_ns, now_ns=now_ns)):
            return _LOOK
        with self._leader.turn() as turn:
            began = time.perf_counter()
            # Another process may have been here while this waited.
            if not turn.tx.endings.due(before_ns=before_ns, now_ns=now_ns):
                return _LOOK
            removed = turn.tx.endings.remove(before_ns=before_ns, most=self._batch.most)
            pause = _PAUSES * max(_GOAL, time.perf_counter() - began)
            turn.tx.endings.next_at(now_ns + round(pause * _SECOND_NS))
        self._batch.took(removed.rows, time.perf_counter() - began)
        self._observer.removed(windows=removed.windows, challenges=removed.challenges)
        return pause


def prune(store: Store, *, before_ns: int) -> Iterator[Removed]:
    """Take away all that is left of sessions that ended before ``before_ns``: an operator's act; what each time.

    Each time is a transaction, with a pause of the same length behind it for whoever serves meanwhile.

    Raises:
        EnvironmentFault: as :meth:`.Store.transaction`. What was told until then is gone.
    """
    batch = Batch()
    while True:
        began = time.perf_counter()
        with store.transaction() as tx:
            removed = tx.endings.remove(before_ns=before_ns, most=batch.most)
        if not removed.rows:
            return
        took = time.perf_counter() - began
        batch.took(removed.rows, took)
        yield removed
        time.sleep(took)
