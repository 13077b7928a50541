"""What waits for a thread is taken together: in order, once of each sender, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from weighbridge.verifier.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.asyncio


class Work:
    """Doubles numbers, as many at a time as it is told to; the first turn waits until it is let go."""

    def __init__(self, *, most: int = 100) -> None:
        self.turns: list[list[int]] = []
        self.go = threading.Event()
        self._most = most

    def __call__(self, items: Sequence[int]) -> list[int]:
        assert self.go.wait(10)
        self.turns.append(list(items))
        if -1 in items:
            raise ZeroDivisionError
        return [2 * item for item in items[: self._most]]


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as made:
        yield made


async def take(turns: Turns[int, int], work: Work, items: Sequence[tuple[int, int]]) -> list[int | BaseException]:
    """Items with their senders, all at once."""
    tasks = [asyncio.create_task(turns.take(item, sender=sender)) for sender, item in items]
    await asyncio.sleep(0)
    work.go.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_came_meanwhile_is_taken_together(thread: ThreadPoolExecutor) -> None:
    work = Work()
    turns = Turns(thread, work)
    first = asyncio.create_task(turns.take(0, sender=0))
    await asyncio.sleep(0.01)
    assert await take(turns, work, [(number, number) for number in range(1, 6)]) == [2, 4, 6, 8, 10]
    assert await first == 0
    assert work.turns == [[0], [1, 2, 3, 4, 5]]


async def test_one_of_each_sender_at_a_time(thread: ThreadPoolExecutor) -> None:
    work = Work()
    assert await take(Turns(thread, work), work, [(1, 10), (2, 20), (1, 11), (1, 12), (3, 30)]) == [20, 40, 22, 24, 60]
    assert work.turns == [[10, 20, 30], [11], [12]]


async def test_what_there_was_no_time_for_comes_first_in_the_next_turn(thread: ThreadPoolExecutor) -> None:
    work = Work(most=2)
    assert await take(Turns(thread, work), work, [(number, number) for number in range(5)]) == [0, 2, 4, 6, 8]
    assert work.turns == [[0, 1, 2, 3, 4], [2, 3, 4], [4]]


async def test_a_defect_is_told_to_its_turn_alone(thread: ThreadPoolExecutor) -> None:
    work = Work()
    results = await take(Turns(thread, work), work, [(1, -1), (2, 2), (1, 3)])
    assert [type(result) for result in results] == [ZeroDivisionError, ZeroDivisionError, int]


async def test_whoever_stops_waiting_stops_nobody_else(thread: ThreadPoolExecutor) -> None:
    work = Work()
    turns = Turns(thread, work)
    gone = asyncio.create_task(turns.take(1, sender=1))
    stays = asyncio.create_task(turns.take(2, sender=2))
    await asyncio.sleep(0.01)
    gone.cancel()
    work.go.set()
    await turns.done()
    assert await stays == 4
    with pytest.raises(asyncio.CancelledError):
        await gone
    await turns.done()


async def test_how_long_it_would_wait_is_told_by_how_long_others_took(thread: ThreadPoolExecutor) -> None:
    """Nothing while turns get done with all; then by those before it, of which each owner has as many as it."""
    each, most = 0.005, 100

    def slow(items: Sequence[int]) -> list[int]:
        time.sleep(each * len(items[:most]))
        return list(items[:most])

    turns: Turns[int, int] = Turns(thread, slow)

    async def wait_for(owners: Sequence[str]) -> list[asyncio.Task[int]]:
        """Items of ``owners``, the first turn of them begun."""
        tasks = [asyncio.create_task(turns.take(n, sender=n, owner=owner)) for n, owner in enumerate(owners)]
        await asyncio.sleep(0.002)
        return tasks

    # However long it takes: more of them would take as long.
    tasks = await wait_for(["one", "another"] * 20)
    assert turns.delay("anybody") == 0
    await asyncio.gather(*tasks)
    most = 1
    tasks = await wait_for(["some"] * 30)
    await asyncio.gather(*tasks[:20])
    assert 5 * each < turns.delay("some") < 40 * each
    # One who has nothing there comes behind the first of each who has.
    assert 0 < turns.delay("anybody") < 4 * each
    await asyncio.gather(*tasks)
    assert turns.delay("some") == 0
