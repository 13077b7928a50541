"""A clock that stands still until everybody waits for it, then jumps: sessions of minutes in milliseconds."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Final

# Turns of the event loop after which nobody is about to do anything: longer than any chain of awaits over sockets.
_IDLE_TURNS: Final = 60
NOON_NS: Final = 1_780_315_200_000_000_000


class VirtualClock:
    """Implements the attester's ``Clock``. ``skew_ns`` is what somebody did to the wall clock."""

    def __init__(self, wall_ns: int = NOON_NS) -> None:
        self._start = wall_ns
        self.elapsed_ns = 0
        self.skew_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def wall_ns(self) -> int:
        return self._start + self.elapsed_ns + self.skew_ns

    def true_ns(self) -> int:
        """What a right clock shows: the verifier's."""
        return self._start + self.elapsed_ns

    def monotonic_ns(self) -> int:
        return self.elapsed_ns

    async def sleep_until(self, monotonic_ns: int) -> None:
        if monotonic_ns <= self.elapsed_ns:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (monotonic_ns, next(self._order), future))
        await future

    async def run(self) -> None:
        """Let time pass, for as long as this task lives."""
        while True:
            for _ in range(_IDLE_TURNS):
                await asyncio.sleep(0)
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if self._sleepers:
                due, _, future = heapq.heappop(self._sleepers)
                self.elapsed_ns = max(self.elapsed_ns, due)
                future.set_result(None)
            else:
                await asyncio.sleep(0.001)
