"""Takes what waits for one thread together: while the last turn is being synced to disk, the next one gathers.

So a disk's syncs cost a busy verifier per turn, not per window, and an idle one waits for nobody. A turn has at most
one item of each sender, in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from concurrent.futures import Executor

__all__ = ["Turns"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# More than any turn gets done; it bounds what is handed over and back.
_MOST: Final = 256


class _Waiting(NamedTuple, Generic[_Item, _Result]):
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

    __slots__ = ("_task", "_thread", "_waiting", "_work")

    def __init__(self, thread: Executor, work: Callable[[Sequence[_Item]], Sequence[_Result]]) -> None:
        self._thread = thread
        self._work = work
        self._waiting: deque[_Waiting[_Item, _Result]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def take(self, item: _Item, *, sender: Hashable) -> _Result:
        """What comes of ``item``. Whoever does not wait for it any more does not stop it.

        Raises:
            BaseException: whatever the work of its turn raised.
        """
        result: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(sender, item, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await result

    async def done(self) -> None:
        """Return when nothing waits."""
        while self._task is not None:
            await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._turn(self._gather())
        finally:
            self._task = None

    async def _turn(self, turn: list[_Waiting[_Item, _Result]]) -> None:
        call = asyncio.get_running_loop().run_in_executor(self._thread, self._work, [waiting.item for waiting in turn])
        await asyncio.wait([call])
        if (error := call.exception()) is not None:
            # A defect of the work's: whoever waits learns of it, and the next turn is taken all the same.
            for waiting in turn:
                if not waiting.result.done():
                    waiting.result.set_exception(error)
            return
        results = call.result()
        for waiting, result in zip(turn, results, strict=False):
            if not waiting.result.done():
                waiting.result.set_result(result)
        self._waiting.extendleft(reversed(turn[len(results) :]))

    def _gather(self) -> list[_Waiting[_Item, _Result]]:
        """The first of each sender, taken out of the queue."""
        turn: list[_Waiting[_Item, _Result]] = []
        rest: list[_Waiting[_Item, _Result]] = []
        senders: set[Hashable] = set()
        for waiting in self._waiting:
            if len(turn) < _MOST and waiting.sender not in senders:
                turn.append(waiting)
                senders.add(waiting.sender)
            else:
                rest.append(waiting)
        self._waiting = deque(rest)
        return turn
