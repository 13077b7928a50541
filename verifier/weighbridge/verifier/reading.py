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

from weighbridge.proto.v1 import attestation_pb2
from weighbridge.verifier.quotas import Limited

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

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
class _Bell:
    """Wakes the one that waits. What :mod:`asyncio` has for it keeps room for many, in every stream that is silent."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return when it rings. Why it rang is to be looked at again."""
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def ring(self) -> None:
        """Wake whoever waits, if anybody does."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


@final
class Reader:
    """What was read of one stream and is not answered. Used in one event loop. Made by :meth:`reading`."""

    __slots__ = ("_arrival", "_arrived", "_credit", "_read_one", "_refused", "_release", "_room", "_visit")

    def __init__(self, read: Callable[[], Awaitable[object]], visit: Visit) -> None:
        self._read_one = read
        self._visit = visit
        # Bounded by the room there is.
        self._arrived: list[Received | Ended] = []
        self._arrival = _Bell()
        self._room = self._credit = 1
        self._release = _Bell()
        self._refused: tuple[attestation_pb2.AttestResponse, int] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def reading(cls, read: Callable[[], Awaitable[object]], visit: Visit) -> AsyncGenerator[Reader]:
        """Read while the block lasts; ``read`` returns one request, or anything else behind the last."""
        reader = cls(read, visit)
        task = asyncio.create_task(reader._read())
        try:
            yield reader
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def next(self, patience: Ended) -> Received | Ended:
        """The next request; or how the stream ended, which is with ``patience`` if nothing comes within its time."""
        if patience.within <= 0:
            # Requests that keep coming would not let the time run out.
            return patience
        try:
            async with asyncio.timeout(patience.within):
                while not self._arrived:
                    await self._arrival.wait()
        except TimeoutError:
            return patience
        return self._arrived.pop(0)

    def answered(self, received: Received, *, credit: int) -> None:
        """``received`` was answered; from now on so many may be under way as ``credit`` says, or as before."""
        if received.held is not None:
            self._visit.release(received.held)
        self._room += 1 + max(0, credit - self._credit)
        self._credit = max(credit, self._credit)
        self._release.ring()

    def end(self, status: grpc.StatusCode, details: str) -> None:
        """Let the stream end behind what was read."""
        self._put(Ended(status, details))

    def refuse_those_behind(self, response: attestation_pb2.AttestResponse) -> None:
        """Windows that were read by now came behind one that is refused: they are answered with the same."""
        self._refused = (response, len(self._arrived)) if self._arrived else None

    def refused_before(self, received: Received) -> attestation_pb2.AttestResponse | None:
        """The refusal of the window before, if ``received`` is one, too, and came too early to know of it."""
        if self._refused is None:
            return None
        response, left = self._refused
        window = received.request.HasField("window")
        self._refused = (response, left - 1) if window and left > 1 else None
        return response if window else None

    def _put(self, item: Received | Ended) -> None:
        self._arrived.append(item)
        self._arrival.ring()

    async def _read(self) -> None:
        try:
            while True:
                while not self._room:
                    await self._release.wait()
                self._room -= 1
                request = await self._read_one()
                if not isinstance(request, attestation_pb2.AttestRequest):
                    break
                self._put(self._received(request))
                # The next one may be long in coming.
                del request
        finally:
            # Also where the transport has failed: then nobody hears of a status anyway.
            self._put(Ended(grpc.StatusCode.OK))

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
