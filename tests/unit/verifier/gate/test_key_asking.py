"""When a gate asks for keys for tokens: often enough for a rotation, and never more so for what it is sent."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from support.endorsed import FIRST, SECOND_KEY, endorsement, key_set
from support.relying import ANCHORS, NOON_NS, A, Bench, ScriptedSource, gate_file, open_until, token
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.gate import key_asking as module
from weighbridge.verifier.gate import watcher as watcher_module
from weighbridge.verifier.gate.key_asking import KeyAsker
from weighbridge.verifier.gate.verifiers import Verifiers
from weighbridge.verifier.gate.watcher import Watcher
from weighbridge.verifier.result_client import Answered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cryptography.hazmat.primitives.asymmetric import ec


def told(key: ec.EllipticCurvePrivateKey, seq: int = 3) -> Answered:
    return Answered(session=A, told=open_until(seq=seq), token=token(A, seq, received_ns=NOON_NS, key=key))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


def watched(
    story: Callable[[Bench, ScriptedSource], Awaitable[None]],
    *,
    least: float = 0.01,
    every: float = 60.0,
    source: ScriptedSource | None = None,
    bench: Bench | None = None,
) -> tuple[Bench, ScriptedSource, list[str]]:
    bench, source, said = bench or Bench.make(), source or ScriptedSource(), list[str]()

    async def run() -> None:
        task = asyncio.create_task(Watcher(bench.gate, source, report=said.append).run())
        try:
            await story(bench, source)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with (
        mock.patch.multiple(module, _LEAST_S=least, _EVERY_S=every, _FIRST_S=0.05),
        mock.patch.multiple(watcher_module, _FIRST_S=0.002, _LONGEST_S=0.004),
    ):
        asyncio.run(run())
    return bench, source, said


def test_a_gate_has_a_key_before_its_first_token() -> None:
    """It asks before it listens; and again before a key that was announced meanwhile signs."""

    async def story(bench: Bench, source: ScriptedSource) -> None:
        line = source.line()
        line.put_nowait(told(FIRST))
        await until(lambda: bench.answer().allowed)
        source.keys = key_set(endorsement(FIRST), endorsement(SECOND_KEY))
        await until(lambda: source.key_asks > 2)
        line.put_nowait(told(SECOND_KEY, 4))
        await until(lambda: bench.answer().headers.get("x-weighbridge-result") == f"{A.hex()}.4")

    _, source, said = watched(story, every=0.05, source=ScriptedSource(keys=key_set(endorsement(FIRST))))
    assert len(source.asked) == 1, "over the same line"
    assert len(said) == 2


def test_an_unknown_key_is_asked_for_and_the_sessions_then_anew() -> None:
    async def story(bench: Bench, source: ScriptedSource) -> None:
        first, second = source.line(), source.line()
        await until(lambda: source.key_asks == 1)
        source.keys = key_set(endorsement(FIRST))
        first.put_nowait(told(FIRST))
        second.put_nowait(told(FIRST))
        await until(lambda: bench.answer().allowed)

    _, source, said = watched(story)
    assert (source.key_asks, len(source.asked), len(said)) == (2, 2, 1)


def test_tokens_by_unknown_keys_do_not_make_it_ask_without_end() -> None:
    async def story(_bench: Bench, source: ScriptedSource) -> None:
        line = source.line()
        answered = told(FIRST)
        async with asyncio.timeout(5):
            while source.key_asks < 5:
                line.put_nowait(answered)
                await asyncio.sleep(0.002)

    loop_times: list[float] = []

    class Timed(ScriptedSource):
        async def token_keys(self) -> bytes:
            loop_times.append(asyncio.get_running_loop().time())
            return await super().token_keys()

    _, source, _ = watched(story, least=0.02, every=0.08, source=Timed())
    pauses = [after - before for before, after in pairwise(loop_times)]
    # 0.02 s, doubled each time, up to 0.08 s; less what passes before the call.
    assert all(pause >= 0.9 * least for pause, least in zip(pauses, (0.02, 0.04, 0.08, 0.08), strict=True)), pauses
    assert len(source.asked) == 1, "nothing new was found: the line stays"


def test_what_fails_is_said_once_and_tried_again() -> None:
    async def story(bench: Bench, source: ScriptedSource) -> None:
        line = source.line()
        line.put_nowait(told(FIRST))
        await until(lambda: source.key_asks > 2)
        assert bench.code() == Code.TOKEN_SIGNATURE
        source.keys = key_set(endorsement(FIRST))
        source.line().put_nowait(told(FIRST))
        await until(lambda: bench.answer().allowed)

    fault = EnvironmentFault(Code.PEER_REFUSED, "it is of an earlier version")
    _, _, said = watched(story, source=ScriptedSource(keys=fault))
    assert ["cannot be had" in line for line in said] == [True, False]


def test_a_forged_statement_takes_no_key_away() -> None:
    async def story(bench: Bench, source: ScriptedSource) -> None:
        line = source.line()
        line.put_nowait(told(FIRST))
        await until(lambda: bench.answer().allowed)
        source.keys = key_set(endorsement(SECOND_KEY, by=SECOND_KEY, forged=True))
        await until(lambda: source.key_asks > 2)
        assert bench.answer().allowed
        line.put_nowait(told(SECOND_KEY, 4))
        await until(lambda: bench.code() == Code.TOKEN_SIGNATURE)

    _, _, said = watched(story, every=0.05, source=ScriptedSource(keys=key_set(endorsement(FIRST))))
    assert Code.TOKEN_KEY_ENDORSEMENT in said[-1]


def test_a_verifier_that_does_not_say_its_keys_is_listened_to_all_the_same() -> None:
    class Silent(ScriptedSource):
        async def token_keys(self) -> bytes:
            self.key_asks += 1
            await asyncio.Event().wait()
            raise AssertionError

    async def story(bench: Bench, source: ScriptedSource) -> None:
        source.line().put_nowait(Answered(session=A, told=open_until(), token=token()))
        await until(lambda: bench.answer().allowed)
        await until(lambda: source.key_asks == 2)

    watched(story, source=Silent())


def test_reading_the_files_again_asks_at_once() -> None:
    async def run() -> int:
        bench, source = Bench.make(), ScriptedSource()
        asker = KeyAsker(bench.gate, source, report=print)
        await asker.first()
        await asker.first()
        task = asyncio.create_task(asker.run(lambda: None))
        await asyncio.sleep(0)
        asker.renew()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = asyncio.create_task(asker.run(lambda: None))
        await until(lambda: source.key_asks == 2)
        again.cancel()
        return source.key_asks

    assert asyncio.run(run()) == 2


def test_a_gate_with_a_key_set_of_its_own_does_not_ask() -> None:
    bench = Bench.make()
    bench.gate.take(gate_file(), Verifiers.of(ANCHORS, key_set(endorsement(FIRST))))

    async def story(bench: Bench, source: ScriptedSource) -> None:
        source.line().put_nowait(told(FIRST))
        await until(lambda: bench.answer().allowed)

    assert watched(story, bench=bench)[1].key_asks == 0


@pytest.mark.parametrize("pause", [module._LEAST_S, module._EVERY_S])
def test_it_asks_more_often_than_keys_are_announced(pause: float) -> None:
    from weighbridge.verifier.result.key_store import ANNOUNCED_MIN  # noqa: PLC0415 - the verifier's, not a gate's

    assert pause < ANNOUNCED_MIN.total_seconds() / 2
