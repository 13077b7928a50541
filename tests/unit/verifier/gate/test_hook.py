"""When a command is run for a gate's changes: also where it fails, is killed, or cannot be started."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from support.relying import Bench, shut
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.gate import hook
from weighbridge.verifier.gate.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WITHIN_S = 10.0


class Watch:
    """A hook whose command writes down what it was told, and what it reports."""

    def __init__(self, directory: Path, bench: Bench, body: str = "") -> None:
        self.program = directory / "switch"
        self.state = directory / "state"
        self.said: list[str] = []
        self.stop = asyncio.Event()
        self.program.write_text(f'#!/bin/sh\n{body}\necho "$WEIGHBRIDGE_GATE" > {self.state}\n')
        self.program.chmod(0o755)
        self.hook = Hook([str(self.program)], ask=bench.answer, report=self.said.append)

    def stands(self) -> str:
        return self.state.read_text().strip() if self.state.exists() else ""

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():  # noqa: ASYNC110 - files have no events
                await asyncio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "_LOOK_S", 0.01)
    monkeypatch.setattr(hook, "_AGAIN_S", 0.05)
    monkeypatch.setattr(hook, "_LEAVE_S", 0.2)


@pytest.mark.usefixtures("quick")
def test_a_command_that_cannot_be_started_for_a_while_closes_later(tmp_path: Path) -> None:
    bench = Bench.make()
    bench.affirm()

    async def work() -> None:
        watch = Watch(tmp_path, bench)
        following = asyncio.create_task(watch.hook.follow(watch.stop))
        await watch.until(lambda: watch.stands() == "open")
        away = watch.program.rename(tmp_path / "away")
        bench.hear(shut())
        await watch.until(lambda: any("cannot run the command" in line for line in watch.said))
        assert (watch.stands(), following.done()) == ("open", False)
        away.rename(watch.program)
        await watch.until(lambda: watch.stands() == "closed")
        watch.stop.set()
        await following

    asyncio.run(work())


@pytest.mark.usefixtures("quick")
def test_a_program_that_is_missing_at_the_first_run_ends_the_watch() -> None:
    async def work() -> None:
        missing = Hook(["/none/such"], ask=Bench.make().answer, report=lambda _: None)
        await missing.follow(asyncio.Event())

    with pytest.raises(EnvironmentFault) as refusal:
        asyncio.run(work())
    assert refusal.value.code == Code.TOOL_MISSING


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("back", [True, False])
def test_the_end_tries_to_close_for_a_bounded_time(tmp_path: Path, *, back: bool) -> None:
    bench = Bench.make()
    bench.affirm()

    async def work() -> None:
        watch = Watch(tmp_path, bench)
        following = asyncio.create_task(watch.hook.follow(watch.stop))
        await watch.until(lambda: watch.stands() == "open")
        away = watch.program.rename(tmp_path / "away")
        watch.stop.set()
        await watch.until(lambda: any("cannot run the command" in line for line in watch.said))
        if back:
            away.rename(watch.program)
        async with asyncio.timeout(WITHIN_S):
            await following
        assert watch.stands() == ("closed" if back else "open")
        assert ("given up" in watch.said[-1]) is not back

    asyncio.run(work())


def test_what_breaks_the_watch_closes_first(tmp_path: Path) -> None:
    """As with a report that cannot be written, or a command that may not be killed."""
    bench = Bench.make()
    bench.affirm()

    async def work() -> None:
        watch = Watch(tmp_path, bench)
        following = asyncio.create_task(watch.hook.follow(watch.stop))
        await watch.until(lambda: watch.stands() == "open")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert (following.cancelled(), watch.stands()) == (True, "closed")

    asyncio.run(work())


@pytest.mark.parametrize(
    "body", ['[ "$WEIGHBRIDGE_GATE" = closed ] || sleep 20', '[ "$WEIGHBRIDGE_GATE" = closed ]||exit 1']
)
def test_closing_does_not_wait_after_one_that_was_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(hook, "_AGAIN_S", 600.0)
    monkeypatch.setattr(hook, "_LOOK_S", 0.01)
    bench = Bench.make()

    async def work() -> None:
        watch = Watch(tmp_path, bench, body)
        following = asyncio.create_task(watch.hook.follow(watch.stop))
        await watch.until(lambda: watch.stands() == "closed")
        watch.state.unlink()
        bench.affirm()
        await asyncio.sleep(0.2)
        bench.hear(shut())
        await watch.until(lambda: watch.stands() == "closed")
        watch.stop.set()
        await following
        assert any(line.startswith("open: ") for line in watch.said)

    asyncio.run(work())
