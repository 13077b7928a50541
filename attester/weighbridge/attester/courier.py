"""Delivers spooled windows in order over a line that may be cut at any time.

States: *connected* (nothing waits, or one window is with the verifier); *cut*, trying again with growing, jittered
delays. On reconnecting the session is resumed: the verifier says which window it wants next; those before it are
forgotten, the others are sent in order, and the last answer's challenge makes the next window fresh again.

What the verifier refuses with :class:`EnvironmentFault` (its disk, its clock) counts as a cut line: nothing is lost and
it is tried again. Any other refusal ends the session.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from weighbridge.attester.refusal import VerdictNotice
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, PolicyDenied

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from weighbridge.attester.client import Answer, Line, Transport
    from weighbridge.attester.clock import Clock
    from weighbridge.attester.offload import Offload
    from weighbridge.attester.spool import Spool

__all__ = ["Backoff", "Courier", "denied"]

_T = TypeVar("_T")
_SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between attempts to connect, in seconds: doubling from ``first`` to ``most``, less up to half of it."""

    first: float = 0.25
    most: float = 5.0

    def delay_ns(self, attempt: int, rng: random.Random) -> int:
        """The delay after failed attempt number ``attempt``, from 0, in nanoseconds."""
        longest = min(self.most, self.first * 2.0 ** min(attempt, 32))
        return round(longest * rng.uniform(0.5, 1.0) * _SECOND_NS)


class _LineLost(Exception):
    """The line is of no further use; the fault says why."""

    def __init__(self, fault: EnvironmentFault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class Courier:
    """Runs beside the sealing of windows, in the same event loop.

    Args:
        spool: the session's.
        transport: where lines come from.
        line: the one on which the session was opened; ``None`` to connect and resume first.
        clock: for the delays.
        offload: for the disk.
        rng: jitters the delays.
        on_answer: called for each answer, after it was recorded.
        on_line: called with the reason when the line is cut, and with ``None`` when windows are taken again: a
            verifier that resumes the session and then takes none is no better than a line that is cut.
        on_unheard: called with a number of windows that turn out to be recorded, though no answer to them arrived.
        backoff: the delays.
    """

    def __init__(  # noqa: PLR0913 - everything it touches, each once
        self,
        spool: Spool,
        transport: Transport,
        line: Line | None,
        *,
        clock: Clock,
        offload: Offload,
        rng: random.Random,
        on_answer: Callable[[VerdictNotice, Answer], Awaitable[None]],
        on_line: Callable[[EnvironmentFault | None], None],
        on_unheard: Callable[[int], None] = lambda _: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._spool = spool
        self._transport = transport
        self._line = line
        self._clock = clock
        self._offload = offload
        self._rng = rng
        self._on_answer = on_answer
        self._on_line = on_line
        self._on_unheard = on_unheard
        self._backoff = backoff or Backoff()
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        # What ``on_line`` was told last; ``None`` before it was told anything.
        self._told_up: bool | None = None if line is None else True

    @property
    def connected(self) -> bool:
        """Whether there is a line, as far as is known."""
        return self._line is not None

    @property
    def line(self) -> Line | None:
        """The line, for closing the session once everything is delivered."""
        return self._line

    def notify(self) -> None:
        """A window was put into the spool."""
        self._settled.clear()
        self._wake.set()

    async def settled(self) -> None:
        """Return when nothing waits for an answer, or nothing can be delivered now."""
        await self._settled.wait()

    async def run(self) -> None:
        """Deliver until cancelled.

        Raises:
            PolicyDenied: a window was denied, or the session has failed: its code is the first denial's.
            WeighbridgeError: another refusal that no repetition will change, or this host's disk is at fault.
        """
        attempt = 0
        while True:
            try:
                if self._line is None:
                    await self._resume()
                await self._deliver()
                self._restored()
                attempt = 0
                self._settled.set()
                await self._wait()
            except _LineLost as lost:
                await self._drop()
                self._settled.set()
                if self._told_up is not False:
                    self._told_up = False
                    self._on_line(lost.fault)
                delay = self._backoff.delay_ns(attempt, self._rng)
                attempt += 1
                await self._clock.sleep_until(self._clock.monotonic_ns() + delay)

    async def deliver_once(self) -> None:
        """Connect once, resume, deliver what is in the spool, and let the line go: for a session of an earlier run.

        Raises:
            EnvironmentFault: ``PEER_UNREACHABLE`` or another fault of line or verifier: nothing is lost.
            WeighbridgeError: the verifier does not take the session up again, or denied a window.
        """
        # Nobody waits for news of this line: it ends in an error, or in having delivered.
        self._told_up = True
        try:
            await self._resume()
            await self._deliver()
        except _LineLost as lost:
            raise lost.fault from lost
        finally:
            await self._drop()

    async def disconnect(self) -> None:
        """Let the line go."""
        await self._drop()

    async def _resume(self) -> None:
        self._line = await _ask(self._transport.connect())
        resumed = await _ask(self._line.resume(self._spool.session))
        unheard = await self._offload(
            lambda: self._spool.skip_to(resumed.next_seq, challenge=resumed.challenge, spot=resumed.spot)
        )
        if unheard:
            self._on_unheard(unheard)

    async def _deliver(self) -> None:
        assert self._line is not None  # noqa: S101 - `run` has connected
        while (window := await self._offload(self._spool.oldest)) is not None:
            self._settled.clear()
            answer = await _ask(self._line.window(window.evidence))
            notice = VerdictNotice.parse(answer.verdict)
            if answer.seq != window.seq or notice.seq != window.seq:
                raise MalformedEvidence(
                    Code.FIELD_RANGE,
                    "the answer is to another window",
                    where="answer.seq",
                    expected=window.seq,
                    got=answer.seq,
                )
            seq = window.seq
            await self._offload(
                lambda: self._spool.record(seq, challenge=answer.challenge, spot=answer.spot)  # noqa: B023 - awaited here
            )
            self._restored()
            await self._on_answer(notice, answer)
            if notice.outcome == "denied" or answer.challenge is None:
                raise denied(notice)

    def _restored(self) -> None:
        if self._told_up is not True:
            self._told_up = True
            self._on_line(None)

    async def _wait(self) -> None:
        """Until there is something to deliver, or the line is known to be cut."""
        assert self._line is not None  # noqa: S101 - `run` has connected
        waiting = asyncio.ensure_future(self._wake.wait())
        losing = asyncio.ensure_future(self._line.lost())
        try:
            await asyncio.wait({waiting, losing}, return_when=asyncio.FIRST_COMPLETED)
            if losing.done():
                raise _LineLost(losing.result())
        finally:
            for task in (waiting, losing):
                task.cancel()
            await asyncio.gather(waiting, losing, return_exceptions=True)
        self._wake.clear()

    async def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.disconnect()


def denied(notice: VerdictNotice) -> PolicyDenied:
    """The error that ends a session whose window was denied."""
    first = notice.denials[0] if notice.denials else None
    known = first is not None and first.code in Code.__members__
    return PolicyDenied(
        Code(first.code) if first is not None and known else Code.POLICY_DENIED,
        "the verifier denied the window: " + ("no reason given" if first is None else first.text),
        where=f"window {notice.seq}",
        expected=None if first is None else first.expected,
        got=None if first is None else first.got,
        hint="" if first is None else first.hint or "",
    )


async def _ask(request: Awaitable[_T]) -> _T:
    """What is asked of the other side: a fault of it, or of the line, is not one of this host."""
    try:
        return await request
    except EnvironmentFault as error:
        raise _LineLost(error) from error
