"""Listening: what is heard, what a cut line does, and what is left out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from support.relying import AUDIENCE, MODEL, NOON_NS, A, B, Bench, ScriptedSource, document, open_until, shut, token
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied
from weighbridge.verifier.gate import watcher as module
from weighbridge.verifier.gate.watcher import Watcher
from weighbridge.verifier.result_client import Answered

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence

    from weighbridge.verifier.told import Model


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with mock.patch.multiple(module, _FIRST_S=0.002, _LONGEST_S=0.004, _LEFT_OUT_S=0.05):
        yield


def heard(session: bytes = A, seq: int = 3) -> Answered:
    return Answered(session=session, told=open_until(seq=seq), token=token(session, seq, received_ns=NOON_NS))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


def watched(
    story: Callable[[Bench, ScriptedSource, list[str], Watcher], Coroutine[Any, Any, None]],
) -> tuple[Bench, ScriptedSource, list[str]]:
    async def run() -> tuple[Bench, ScriptedSource, list[str]]:
        bench, source = Bench.make(), ScriptedSource()
        said: list[str] = []
        watcher = Watcher(bench.gate, source, report=said.append)
        task = asyncio.create_task(watcher.run())
        try:
            await story(bench, source, said, watcher)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return bench, source, said

    return asyncio.run(run())


def test_what_is_heard_is_told_to_the_gate() -> None:
    async def story(bench: Bench, source: ScriptedSource, _said: list[str], _watcher: Watcher) -> None:
        line = source.line()
        line.put_nowait(heard())
        line.put_nowait(None)
        await until(lambda: bench.answer().allowed)
        line.put_nowait(Answered(session=A, told=shut(), token=None))
        await until(lambda: bench.code() == "QUOTE_NONCE")

    _, source, said = watched(story)
    assert (source.asked, said) == ([([A, B], AUDIENCE)], [])


def test_a_cut_line_is_told_once_and_tried_again() -> None:
    async def cut(bench: Bench, source: ScriptedSource, said: list[str], _watcher: Watcher) -> None:
        line = source.line()
        line.put_nowait(heard())
        await until(lambda: bench.answer().allowed)
        fault = EnvironmentFault(Code.PEER_UNREACHABLE, "cut")
        line.put_nowait(fault)
        for _ in range(3):
            source.line().put_nowait(fault)
        await until(lambda: len(source.asked) >= 5)
        assert bench.answer().allowed, "closed by nothing but time"
        source.line().put_nowait(None)
        await until(lambda: len(said) == 2)

    _, _, said = watched(cut)
    assert "cannot be heard" in said[0]
    assert "heard again" in said[1]


def test_a_session_that_is_not_known_is_left_out_for_a_while() -> None:
    async def story(bench: Bench, source: ScriptedSource, _said: list[str], _watcher: Watcher) -> None:
        source.line().put_nowait(NotAuthentic(Code.SESSION_UNKNOWN, "no such session", got=B))
        source.line().put_nowait(heard())
        await until(lambda: bench.answer(A).allowed)
        assert bench.code(B) == Code.SESSION_UNKNOWN
        source.line().put_nowait(heard(B))
        await until(lambda: bench.answer(B).allowed)

    _, source, said = watched(story)
    assert [sessions for sessions, _ in source.asked] == [[A, B], [A], [A, B]]
    assert len(said) == 1


def test_a_new_file_is_asked_for_at_once() -> None:
    async def story(bench: Bench, source: ScriptedSource, _said: list[str], watcher: Watcher) -> None:
        source.line().put_nowait(heard())
        await until(lambda: bench.answer().allowed)
        watcher.renew()
        source.line().put_nowait(heard(seq=4))
        await until(lambda: bench.answer().headers.get("x-weighbridge-result") == f"{A.hex()}.4")

    assert len(watched(story)[1].asked) == 2


def test_a_defect_ends_the_gate() -> None:
    bench = Bench.make()

    class Broken:
        async def watch(self, sessions: Sequence[bytes], *, audience: str) -> AsyncGenerator[Answered | None]:
            yield Answered(session=sessions[0], told=shut(audience), token=None)
            raise ZeroDivisionError

        async def watch_model(self, model: Model, *, audience: str) -> AsyncGenerator[Answered | None]:
            yield Answered(session=model.digest[:16], told=shut(audience), token=None)

        async def token_keys(self) -> bytes:
            return b'{"keys":[]}'

    with pytest.raises(ZeroDivisionError):
        asyncio.run(Watcher(bench.gate, Broken(), report=print).run())


def test_each_model_has_a_line_of_its_own() -> None:
    """One that is refused is no other one's fault."""
    sessions = [{**one, "session": "any"} for one in document()["sessions"]]
    sessions[1] |= {"model": sha256(b"another model").hex()}
    routes = [{"name": "all", "hosts": ["*"], "path": "/", "sessions": ["a", "b"]}]

    async def story() -> tuple[ScriptedSource, list[str]]:
        bench, source, said = Bench.make(sessions=sessions, routes=routes), ScriptedSource(), list[str]()
        entry = bench.gate.router.session("a")
        first, second = source.line(), source.line()
        task = asyncio.create_task(Watcher(bench.gate, source, report=said.append).run())
        try:
            first.put_nowait(heard(A))
            await until(lambda: bench.gate.check(entry).allowed)
            second.put_nowait(PolicyDenied(Code.RESULT_TENANT, "not yours"))
            await until(lambda: said)
            first.put_nowait(heard(A, seq=4))
            await until(lambda: bench.gate.check(entry).headers.get("x-weighbridge-result") == f"{A.hex()}.4")
            source.line().put_nowait(None)
            await until(lambda: len(said) == 2)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return source, said

    source, said = asyncio.run(story())
    assert [asked for asked, _ in source.asked] == [[MODEL], [sha256(b"another model")], [sha256(b"another model")]]
    assert "RESULT_TENANT" in said[0]
    assert "heard again" in said[1]
