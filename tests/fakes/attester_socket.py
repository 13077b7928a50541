"""The attester's side of the workload socket, served beside a synchronous client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from weighbridge.attester.weights import MeasurementLog
from weighbridge.attester.workload.server import WorkloadServer
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.workload import WorkSummary


class Attester:
    """A server in a thread of its own, for the synchronous client; `call` runs a function in its loop."""

    def __init__(self, path: Path, log: MeasurementLog, *, declared: Sequence[Manifest] = ()) -> None:
        self.path = path
        self.log = log
        self.declared = declared
        self.manifests: list[Manifest] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = WorkloadServer(self.path, self.log, declared=self.declared, on_load=self.manifests.append)
        async with server as self.server:
            self._ready.set()
            await self._stop.wait()

    def take(self, requests: int) -> WorkSummary:
        """The window, once `requests` were reported."""

        async def wait() -> WorkSummary:
            while self.server._window._requests < requests:  # noqa: ASYNC110 - reports are not acknowledged
                await asyncio.sleep(0.005)
            return self.server.take()

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(10)

    def tick(self, seq: int, timeout: float = 10) -> int:
        return asyncio.run_coroutine_threadsafe(self.server.tick(seq, timeout=timeout), self._loop).result(15)
