"""Whoever waits is told of every change, by this process at once, and of the newest state instead of a queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar, cast

import pytest

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier import watching
from weighbridge.verifier.results import Begun
from weighbridge.verifier.told import Model
from weighbridge.verifier.watching import Watch, Watches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from weighbridge.verifier.results import Version
    from weighbridge.verifier.standings import Standings

_T = TypeVar("_T")
pytestmark = pytest.mark.asyncio

A, B, C = (bytes([number] * 16) for number in range(3))


class Rows:
    """What the store would answer."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Version] = {}
        self.sessions: list[Begun] = []
        self.fault: EnvironmentFault | None = None
        self.asked = self.looked = 0
        self.asked_twice = asyncio.Event()

    def begun(self, *, after: int, at_most: int) -> Sequence[Begun]:
        self.looked += 1
        return [row for row in self.sessions if row.index > after][:at_most]

    def versions(self, sessions: Sequence[bytes]) -> Mapping[bytes, Version]:
        self.asked += 1
        if self.asked > 1:
            self.asked_twice.set()
        if self.fault is not None:
            raise self.fault
        return {session: self.rows[session] for session in sessions if session in self.rows}


async def ask(call: Callable[[], _T], /) -> _T:
    return call()


async def for_ever(watch: Watch) -> None:
    while True:
        await watch.wait(5)


def watches(rows: Rows) -> Watches:
    return Watches(cast("Standings", rows), ask)


async def test_all_sessions_are_new_at_first_and_then_those_that_change() -> None:
    made = watches(Rows())
    with made.watch([A, B]) as one, made.watch([B, C]) as two:
        assert await one.wait(0) == {A, B}
        assert await one.wait(0.01) == frozenset()
        made.touch([A, B, bytes(15)])
        made.touch([B])
        assert await one.wait(10) == {A, B}
        assert await two.wait(0) == {B, C}
        assert await one.wait(0) == frozenset()


async def test_whoever_waits_is_woken() -> None:
    made = watches(Rows())
    with made.watch([A]) as watch:
        await watch.wait(0)
        waiting = asyncio.create_task(watch.wait(60))
        await asyncio.sleep(0)
        made.touch([A])
        assert await asyncio.wait_for(waiting, 5) == {A}


async def test_what_has_ended_is_told_nothing() -> None:
    made = watches(Rows())
    with made.watch([A]) as watch:
        await watch.wait(0)
    made.touch([A])
    assert await watch.wait(0) == frozenset()


async def test_changes_by_others_are_found_by_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_POLL_S", 0.01)
    rows = Rows()
    rows.rows = {A: ("running", 0, None, None), B: ("running", 3, None, None)}
    made = watches(rows)
    polling = asyncio.create_task(made.poll())
    with made.watch([A, B]) as watch:
        await rows.asked_twice.wait()
        await watch.wait(0)
        rows.rows[B] = ("running", 4, None, None)
        assert await watch.wait(5) == {B}
        del rows.rows[A]
        assert await watch.wait(5) == {A}
        assert made.age < 5
    polling.cancel()


async def test_a_fault_ends_every_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_POLL_S", 0.01)
    rows = Rows()
    made = watches(rows)
    polling = asyncio.create_task(made.poll())
    with made.watch([A]) as one, made.watch([A, B]) as two:
        await one.wait(0)
        rows.fault = EnvironmentFault(Code.STATE_CORRUPT, "the state is damaged")
        for watch in (one, two):
            with pytest.raises(EnvironmentFault):
                await for_ever(watch)
    # It goes on for those who come later.
    rows.fault, rows.rows = None, {A: ("running", 0, None, None)}
    with made.watch([A]) as again:
        assert await again.wait(0) == {A}
        assert await again.wait(5) == {A}
    polling.cancel()


async def test_a_session_of_a_model_is_told_over_once() -> None:
    rows, model = Rows(), Model("a", bytes(32))
    rows.sessions = [Begun(A, "a", 0, model.digest), Begun(B, "a", 1, model.digest)]
    made = watches(rows)
    await made.find()
    with made.watch_model(model) as watch:
        assert await watch.wait(0) == {A, B}
        made.drop(watch, A)
        # It is remembered among the model's for a while.
        await made.find()
        assert (await watch.wait(0), watch.sessions) == (frozenset(), {B})
        rows.sessions.append(Begun(C, "a", 2, model.digest))
        await made.find()
        assert await watch.wait(0) == {C}


async def test_those_who_open_watches_share_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows()
    made = watches(rows)
    await asyncio.gather(*(made.find_lately() for _ in range(50)))
    assert rows.looked == 1
    monkeypatch.setattr(watching, "_POLL_S", 0.0)
    await made.find_lately()
    assert rows.looked == 2
