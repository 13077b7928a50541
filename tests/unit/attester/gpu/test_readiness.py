"""The ready state is set once, after the verifier's first good word, and never before."""

from __future__ import annotations

import asyncio

import pytest

from weighbridge.attester.gpu.readiness import ReadyWhenAffirmed
from weighbridge.attester.report import Notice, WindowReport, WindowStatus
from weighbridge.proto.errors import Code, EnvironmentFault


class Watcher:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.windows: list[WindowStatus] = []
        self.notices: list[Notice] = []

    def window(self, report: WindowReport) -> None:
        self.windows.append(report.status)

    def notice(self, notice: Notice) -> None:
        self.notices.append(notice)


def window(status: WindowStatus) -> WindowReport:
    return WindowReport(
        session=bytes(16), seq=0, status=status, work=None, denials=(), token_expires=None, backlog=0, verdict=None
    )


class Driver:
    """Counts how often it was told, and refuses the first ``failures`` times."""

    def __init__(self, failures: int = 0) -> None:
        self.calls = 0
        self.failures = failures

    def accept_work(self) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise EnvironmentFault(Code.GPU_FAILED, "refused")


async def settled() -> None:
    """Wait until nothing is being done any more."""
    async with asyncio.timeout(10):
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))


@pytest.mark.asyncio
async def test_not_before_a_window_was_affirmed() -> None:
    watcher, driver = Watcher(), Driver()
    observer = ReadyWhenAffirmed(watcher, driver.accept_work)
    others: list[WindowStatus] = ["denied", "held", "spooled", "lost"]
    for status in others:
        observer.window(window(status))
    observer.notice(Notice("loaded", "a model"))
    await settled()
    assert (watcher.windows, driver.calls) == (others, 0)
    assert watcher.notices == [Notice("loaded", "a model")]


@pytest.mark.asyncio
async def test_once() -> None:
    watcher, driver = Watcher(), Driver()
    observer = ReadyWhenAffirmed(watcher, driver.accept_work)
    observer.window(window("affirmed"))
    observer.window(window("affirmed"))
    await settled()
    observer.window(window("affirmed"))
    await settled()
    assert driver.calls == 1
    (notice,) = watcher.notices
    assert "take work" in notice.message


@pytest.mark.asyncio
async def test_again_where_it_failed() -> None:
    watcher, driver = Watcher(), Driver(failures=1)
    observer = ReadyWhenAffirmed(watcher, driver.accept_work)
    observer.window(window("affirmed"))
    await settled()
    observer.window(window("denied"))
    assert driver.calls == 1
    observer.window(window("affirmed"))
    await settled()
    assert driver.calls == 2
    assert "GPU_FAILED" in watcher.notices[0].message
    assert "take work" in watcher.notices[1].message
