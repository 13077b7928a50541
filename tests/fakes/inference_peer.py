"""An inference server in the test's own event loop: loads through the workload socket, then works at every tick."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from weighbridge.attester.workload.client import PROTOCOL, commit


class InferencePeer:
    """Connects to ``socket``, loads ``model``, and reports ``per_tick`` requests in every window."""

    def __init__(self, socket: Path, model: Path, *, per_tick: int = 2) -> None:
        self._socket = socket
        self._model = model
        self._per_tick = per_tick
        self._writer: asyncio.StreamWriter | None = None
        self._replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.ticks: list[int] = []

    async def run(self) -> None:
        while not self._socket.is_socket():  # noqa: ASYNC110 - a file system sets no event
            await asyncio.sleep(0.001)
        reader, self._writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            self.send({"type": "hello", "protocol": PROTOCOL, "ticks": True})
            self.send({"type": "load", "directory": str(self._model), "name": "tiny", "guarded": False})
            while line := await reader.readline():
                message = json.loads(line)
                if message["type"] == "tick":
                    self._work(message["seq"])
                else:
                    self._replies.put_nowait(message)
        finally:
            self._writer.close()

    async def load(self, model: Path, name: str | None = None) -> dict[str, Any]:
        """Load another model as well."""
        return await self.ask({"type": "load", "directory": str(model), "name": name, "guarded": False})

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message; its answer."""
        while not self._replies.empty():
            self._replies.get_nowait()
        self.send(message)
        return await self._replies.get()

    def send(self, message: dict[str, Any]) -> None:
        assert self._writer is not None
        self._writer.write(json.dumps(message).encode() + b"\n")

    def _work(self, seq: int) -> None:
        self.ticks.append(seq)
        for number in range(self._per_tick):
            salt = number.to_bytes(32)
            self.send(
                {
                    "type": "done",
                    "commitment": commit(salt, b"request", b"response").hex(),
                    "tokens_in": 10,
                    "tokens_out": 5,
                    "batch": 1,
                    "prefill_ns": 20_000_000,
                    "decode_ns": 300_000_000,
                }
            )
        self.send({"type": "ticked", "seq": seq})
