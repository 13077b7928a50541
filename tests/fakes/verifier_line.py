"""The line to a verifier in the same process: the product's verifier without gRPC, and a hand that cuts it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from weighbridge.attester.client import Answer, Opened, Resumed
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.spot import SpotChallenge

if TYPE_CHECKING:
    from fakes.virtual_time import VirtualClock
    from support.world import World


def spot_of(data: bytes | None) -> SpotChallenge | None:
    return None if data is None else SpotChallenge.parse(data)


def unreachable() -> EnvironmentFault:
    return EnvironmentFault(Code.PEER_UNREACHABLE, "cut on purpose", where="line")


class VerifierTransport:
    """Lines to ``world``'s verifier, whose receipt time follows ``clock``."""

    def __init__(self, world: World, clock: VirtualClock, peer: bytes) -> None:
        self.world = world
        self.clock = clock
        self.peer = peer
        self.up = True
        self.lines: list[VerifierLine] = []
        self.connects = 0
        self.on_window: Callable[[int], None] = lambda _: None
        self.edit_opening: Callable[[bytes], bytes] = lambda opening: opening
        # What the next openings are refused with.
        self.refuse_openings: list[EnvironmentFault] = []
        self.windows = 0

    def cut(self) -> None:
        """From now on nothing gets through."""
        self.up = False
        for line in self.lines:
            line.broken.set()

    def restore(self) -> None:
        self.up = True

    async def connect(self) -> VerifierLine:
        self.connects += 1
        if not self.up:
            raise unreachable()
        line = VerifierLine(self)
        self.lines.append(line)
        return line


class VerifierLine:
    def __init__(self, transport: VerifierTransport) -> None:
        self._transport = transport
        self._session = b""
        self._sent: deque[bytes] = deque()
        self.broken = asyncio.Event()

    def _now(self) -> None:
        if self.broken.is_set() or not self._transport.up:
            raise unreachable()
        transport = self._transport
        transport.world.clock.at = datetime.fromtimestamp(0, UTC) + timedelta(
            microseconds=transport.clock.true_ns() // 1000
        )

    async def open(self, opening: bytes) -> bytes:
        self._now()
        if self._transport.refuse_openings:
            raise self._transport.refuse_openings.pop()
        opening = self._transport.edit_opening(opening)
        return self._transport.world.verifier.open(opening, peer=self._transport.peer).encode()

    async def prove(self, proof: bytes) -> Opened:
        self._now()
        opened = self._transport.world.verifier.prove(proof, peer=self._transport.peer)
        self._session = opened.terms.terms.session
        return Opened(opened.terms.raw, opened.challenge, spot_of(opened.spot))

    async def resume(self, session: bytes) -> Resumed:
        self._now()
        resumed = self._transport.world.verifier.resume(session, peer=self._transport.peer)
        self._session = session
        return Resumed(resumed.next_seq, resumed.challenge, spot_of(resumed.spot))

    async def window(self, evidence: bytes) -> Answer:
        await self.send_window(evidence)
        return await self.next_answer()

    async def send_window(self, evidence: bytes) -> None:
        self._now()
        self._sent.append(evidence)

    async def next_answer(self) -> Answer:
        self._now()
        evidence = self._sent.popleft()
        transport = self._transport
        number, transport.windows = transport.windows, transport.windows + 1
        answer = transport.world.verifier.window(self._session, evidence, peer=transport.peer)
        transport.on_window(number)
        # The verdict is recorded; whether the answer arrives is another matter.
        if self.broken.is_set():
            raise unreachable()
        return Answer(answer.verdict.seq, answer.verdict.encode(), answer.token, answer.challenge, spot_of(answer.spot))

    async def close_session(self, session: bytes) -> bytes:
        self._now()
        return strict.json_encode(self._transport.world.verifier.close(session, peer=self._transport.peer))

    async def lost(self) -> EnvironmentFault:
        await self.broken.wait()
        return unreachable()

    async def disconnect(self) -> None:
        self.broken.set()
