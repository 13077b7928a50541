"""Reads an attester's stream no further ahead than its credit goes: what more is sent waits at the attester's end.

HTTP/2 carries nothing of a message that nobody asks for but what fits the stream's window, 64 KiB
(``grpc.http2.bdp_probe`` is off: with it that window grows to megabytes, read or not).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import grpc

from weighbridge.verifier.quotas import Limited

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator

    from weighbridge.proto.v1 import attestation_pb2
    from weighbridge.verifier.quotas import Held, Visit

__all__ = ["Ended", "Reader", "Received", "taken_within"]


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a stream: with which status, and where it is yet to come, in how many seconds."""

    status: grpc.StatusCode
    details: str = ""
    within: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """A request. ``limited``: why it is not looked at; nothing of it is kept then but which kind it is."""

    request: attestation_pb2.AttestRequest
    held: Held | None
    limited: Limited | None


@final
class Reader:
    """What was read of one stream and is not answered. Used in one event loop. Made by :meth:`reading`."""

    def __init__(self, requests: AsyncIterator[attestation_pb2.AttestRequest], visit: Visit) -> None:
        self._requests = requests
        self._visit = visit
        # Bounded by the room there is.
        self._arrived: asyncio.Queue[Received | Ended] = asyncio.Queue()
        self._room = asyncio.Semaphore(1)
        self._credit = 1
        self._refused: tuple[attestation_pb2.AttestResponse, int] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def reading(
        cls, requests: AsyncIterator[attestation_pb2.AttestRequest], visit: Visit
    ) -> AsyncGenerator[Reader]:
        """Read ``requests`` while the block lasts."""
        reader = cls(requests, visit)
        task = asyncio.create_task(reader._read())
        try:
            yield reader
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def next(self, patience: Ended) -> Received | Ended:
        """The next request; or how the stream ended, which is with ``patience`` if nothing comes within its time."""
        if patience.within <= 0:
            # A queue that is never empty would not let the time run out.
            return patience
        try:
            async with asyncio.timeout(patience.within):
                return await self._arrived.get()
        except TimeoutError:
            return patience

    def answered(self, received: Received, *, credit: int) -> None:
        """``received`` was answered; from now on so many may be under way as ``credit`` says, or as before."""
        if received.held is not None:
            self._visit.release(received.held)
        for _ in range(1 + max(0, credit - self._credit)):
            self._room.release()
        self._credit = max(credit, self._credit)

    def end(self, status: grpc.StatusCode, details: str) -> None:
        """Let the stream end behind what was read."""
        self._arrived.put_nowait(Ended(status, details))

    def refuse_those_behind(self, response: attestation_pb2.AttestResponse) -> None:
        """Windows that were read by now came behind one that is refused: they are answered with the same."""
        self._refused = response, self._arrived.qsize()

    def refused_before(self, received: Received) -> attestation_pb2.AttestResponse | None:
        """The refusal of the window before, if ``received`` is one, too, and came too early to know of it."""
        if self._refused is None:
            return None
        response, left = self._refused
        window = received.request.HasField("window")
        self._refused = (response, left - 1) if window and left else None
        return None if self._refused is None else response

    async def _read(self) -> None:
        ended = Ended(grpc.StatusCode.OK)
        try:
            while True:
                await self._room.acquire()
                self._arrived.put_nowait(self._received(await anext(self._requests)))
        except StopAsyncIteration:
            pass
        finally:
            # Also where the transport has failed: then nobody hears of a status anyway.
            self._arrived.put_nowait(ended)

    def _received(self, request: attestation_pb2.AttestRequest) -> Received:
        try:
            return Received(request, self._visit.hold(request.ByteSize()), None)
        except Limited as limited:
            kind = request.WhichOneof("request")
            request.Clear()
            if kind == "window":
                request.window = b""
            return Received(request, None, limited)


@contextlib.contextmanager
def taken_within(seconds: float) -> Generator[None]:
    """Cancel this task, which gives an answer away, if nobody takes it."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - gRPC runs each call in one
    timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        yield
    finally:
        timer.cancel()
