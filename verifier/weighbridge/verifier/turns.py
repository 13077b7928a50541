"""Takes what waits for one thread together: while the last turn is being synced to disk, the next one gathers.

So a disk's syncs cost a busy verifier per turn, not per window, and an idle one waits for nobody. A turn has at most
one item of each sender. Senders belong to owners, and owners take turns: whoever has many senders, or sends much, waits
behind himself and not before others. How long something would wait is told by how long others took of late.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from concurrent.futures import Executor

__all__ = ["Turns"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# More than any turn gets done; it bounds what is handed over and back.
_MOST: Final = 256
# Of the turns that did not get done with all so much counts for what an item takes: seconds of them, not the last one.
_LATELY_S: Final = 2.0
# Nothing is said of how long items take before so many were done in such turns.
_KNOWN: Final = 16


class _Waiting(NamedTuple, Generic[_Item, _Result]):
    owner: Hashable
    sender: Hashable
    item: _Item
    result: asyncio.Future[_Result]


@final
class Turns(Generic[_Item, _Result]):
    """The queue before a thread. All methods are called in one event loop.

    Args:
        thread: runs one call at a time.
        work: given items, at least one, the results of at least the first, in their order. Those without a result
            come first in the next turn.
    """

    __slots__ = ("_busy", "_count", "_done", "_left", "_of", "_out", "_owners", "_task", "_thread", "_waiting", "_work")

    def __init__(self, thread: Executor, work: Callable[[Sequence[_Item]], Sequence[_Result]]) -> None:
        self._thread = thread
        self._work = work
        # By owner, the one whose turn it is first; of each owner the first that came first. None is empty.
        self._waiting: OrderedDict[Hashable, deque[_Waiting[_Item, _Result]]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._count = 0
        # How many are in the turn, and whose; of how many owners there was something when it began.
        self._out = self._owners = 0
        self._of: Counter[Hashable] = Counter()
        # Whether the last turn has left something over; seconds of lately in such turns, and what was done in them.
        self._left = False
        self._busy = self._done = 0.0

    async def take(self, item: _Item, *, sender: Hashable, owner: Hashable = None) -> _Result:
        """What comes of ``item``. Whoever does not wait for it any more does not stop it.

        Raises:
            BaseException: whatever the work of its turn raised.
        """
        result: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(_Waiting(owner, sender, item, result))
        self._count += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await result

    async def done(self) -> None:
        """Return when nothing waits."""
        while self._task is not None:
            await asyncio.shield(self._task)

    def delay(self, owner: Hashable) -> float:
        """Seconds after which an item of ``owner`` would about be done if it came now.

        0 as long as turns get done with all there is, however long that takes, and where little is known. Owners take
        turns: before it come as many of each other's as it has of its own.
        """
        if not self._left or self._done < _KNOWN:
            return 0.0
        own = len(self._waiting.get(owner, ())) + self._of[owner] + 1
        before = min(self._out + self._count, own * max(self._owners, len(self._waiting)))
        return before * self._busy / self._done

    def __len__(self) -> int:
        """How many items wait, without those whose turn it is."""
        return self._count

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._turn(self._gather())
        finally:
            self._task = None

    async def _turn(self, turn: list[_Waiting[_Item, _Result]]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._out, self._of = len(turn), Counter(waiting.owner for waiting in turn)
        call = loop.run_in_executor(self._thread, self._work, [waiting.item for waiting in turn])
        await asyncio.wait([call])
        self._out, self._of, self._left = 0, Counter(), False
        if (error := call.exception()) is not None:
            # A defect of the work's: whoever waits learns of it, and the next turn is taken all the same.
            for waiting in turn:
                if not waiting.result.done():
                    waiting.result.set_exception(error)
            return
        results = call.result()
        self._left = len(results) < len(turn)
        if self._left:
            self._took(loop.time() - began, len(results))
        for waiting, result in zip(turn, results, strict=False):
            if not waiting.result.done():
                waiting.result.set_result(result)
        for waiting in reversed(turn[len(results) :]):
            self._waiting.setdefault(waiting.owner, deque()).appendleft(waiting)
            self._waiting.move_to_end(waiting.owner, last=False)
            self._count += 1

    def _took(self, seconds: float, done: int) -> None:
        """So many were done in so long, and there was no time for more."""
        kept = math.exp(-seconds / _LATELY_S)
        self._busy, self._done = self._busy * kept + seconds, self._done * kept + done

    def _gather(self) -> list[_Waiting[_Item, _Result]]:
        """Of each owner in turn the first that may go, over and over: at most one of each sender. Taken out."""
        self._owners = len(self._waiting)
        turn: list[_Waiting[_Item, _Result]] = []
        senders: set[Hashable] = set()
        owners = deque(self._waiting)
        while owners and len(turn) < _MOST:
            owner = owners.popleft()
            chosen = _first(self._waiting[owner], senders)
            if chosen is None:
                continue
            turn.append(chosen)
            self._count -= 1
            senders.add(chosen.sender)
            if self._waiting[owner]:
                owners.append(owner)
                # Whoever has more than others comes after them the next time.
                self._waiting.move_to_end(owner)
            else:
                del self._waiting[owner]
        return turn


def _first(waiting: deque[_Waiting[_Item, _Result]], senders: set[Hashable]) -> _Waiting[_Item, _Result] | None:
    """The first item whose sender is not among ``senders``, taken out."""
    for position, one in enumerate(waiting):
        if one.sender not in senders:
            del waiting[position]
            return one
    return None
