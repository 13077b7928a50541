"""Delivers spooled windows in order over a line that may be cut at any time.

States: *connected* (nothing waits, or windows are with the verifier, as many as it gives credit for); *throttled*, the
line is kept and asked again when the verifier says; *cut*, trying again with growing, jittered delays. On reconnecting
the session is resumed: the verifier says which window it wants next; those before it are forgotten, the others are sent
in order, and the last answer's challenge makes the next window fresh again.

The order is that of the chain, so a backlog comes before what is sealed meanwhile: those windows are held as well. The
credit makes it go as fast as the verifier judges, whatever the way there and back takes.

What the verifier refuses with :class:`EnvironmentFault` (its disk, its clock) counts as a cut line: nothing is lost and
it is tried again. Any other refusal ends the session.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

from weighbridge.attester.refusal import Throttled, VerdictNotice
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
_FIRST_S: Final = 1.0
_MOST_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between attempts to connect: any length up to a longest one, which doubles from ``first`` to ``most`` s.

    Any length, from zero on: attesters that lost their line at one moment come back at as many different ones. A
    connection costs a verifier about 2 ms of a core. Of 10,000 attesters that all try again after an outage, 670 come
    in the first second, and all within ``most``: 1.3 cores at first, two thirds of one on the whole.
    """

    first: float = _FIRST_S
    most: float = _MOST_S

    @classmethod
    def of(cls, period_ns: int) -> Self:
        """For a session with a window every ``period_ns``: a tenth of it and three of it, at most the defaults.

        Shorter windows wait less: a verifier that judges as many windows in a second has as many fewer sessions.
        """
        period = period_ns / _SECOND_NS
        return cls(min(_FIRST_S, period / 10), min(_MOST_S, period * 3))

    def delay_ns(self, attempt: int, rng: random.Random) -> int:
        """The delay after failed attempt number ``attempt``, from 0, in nanoseconds."""
        longest = min(self.most, self.first * 2.0 ** min(attempt, 32))
        return round(longest * rng.random() * _SECOND_NS)


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
        credit: how many windows may be under way on ``line``.
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
        credit: int = 1,
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
        self._credit = credit
        # Whether the line speaks for the session and windows may be sent over it.
        self._open = line is not None
        # Whether a window was recorded since the last attempt to connect.
        self._progressed = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        # What ``on_line`` was told last; ``None`` before it was told anything.
        self._told_up: bool | None = None if line is None else True

    @property
    def connected(self) -> bool:
        """Whether there is a line over which windows are taken, as far as is known."""
        return self._line is not None and self._open

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
                if not self._open:
                    await self._resume()
                await self._deliver()
                self._restored()
                attempt = 0
                self._settled.set()
                await self._wait()
            except _LineLost as lost:
                self._open = False
                wait_ns = lost.fault.retry_after_ns if isinstance(lost.fault, Throttled) else None
                if wait_ns is None:
                    await self._drop()
                self._settled.set()
                if self._told_up is not False:
                    self._told_up = False
                    self._on_line(lost.fault)
                attempt = 0 if self._progressed else attempt
                self._progressed = False
                delay = (wait_ns or 0) + self._backoff.delay_ns(attempt, self._rng)
                attempt += 1
                await self._clock.sleep_until(self._clock.monotonic_ns() + delay)

    async def deliver_once(self) -> None:
        """Connect once, resume, deliver what is in the spool, and let the line go: for a session of an earlier run.

        Raises:
            EnvironmentFault: ``PEER_UNREACHABLE`` or another fault of line or verifier: nothing is lost.
                ``STATE_CORRUPT`` where a window is damaged: those before it are delivered.
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
        if self._line is None:
            self._line = await _ask(self._transport.connect())
        resumed = await _ask(self._line.resume(self._spool.session))
        unheard = await self._offload(
            lambda: self._spool.skip_to(resumed.next_seq, challenge=resumed.challenge, spot=resumed.spot)
        )
        self._open, self._credit = True, resumed.credit
        if unheard:
            self._progressed = True
            self._on_unheard(unheard)

    async def _deliver(self) -> None:
        assert self._line is not None  # noqa: S101 - `run` has connected
        line = self._line
        under_way: deque[int] = deque()
        while await self._send(line, under_way):
            answer = await self._answer(line, under_way)
            notice = VerdictNotice.parse(answer.verdict)
            seq = under_way.popleft()
            if answer.seq != seq or notice.seq != seq:
                raise MalformedEvidence(
                    Code.FIELD_RANGE,
                    "the answer is to another window",
                    where="answer.seq",
                    expected=seq,
                    got=answer.seq,
                )
            await self._offload(partial(self._spool.record, seq, challenge=answer.challenge, spot=answer.spot))
            self._progressed = True
            self._restored()
            await self._on_answer(notice, answer)
            if notice.outcome == "denied" or answer.challenge is None:
                raise denied(notice)

    async def _send(self, line: Line, under_way: deque[int]) -> bool:
        """Send what the credit allows of what waits; whether an answer is due."""
        seq = self._spool.progress.seq + len(under_way)
        while len(under_way) < self._credit and seq < self._spool.next_seq:
            window = await self._offload(partial(self._spool.window, seq))
            self._settled.clear()
            await _ask(line.send_window(window.evidence))
            under_way.append(seq)
            seq += 1
        return bool(under_way)

    async def _answer(self, line: Line, under_way: deque[int]) -> Answer:
        try:
            return await _ask(line.next_answer())
        except _LineLost as lost:
            if isinstance(lost.fault, Throttled):
                # Those behind it were refused as it was; their answers must not be taken for others.
                for _ in range(len(under_way) - 1):
                    await self._refused_too(line)
            raise

    async def _refused_too(self, line: Line) -> None:
        try:
            await _ask(line.next_answer())
        except _LineLost as lost:
            if isinstance(lost.fault, Throttled):
                return
            raise
        raise _LineLost(
            EnvironmentFault(
                Code.PEER_UNREACHABLE,
                "the verifier judged a window behind one that it refused",
                where="answer",
                hint="the session is resumed over another line",
            )
        )

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
        line, self._line, self._open = self._line, None, False
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
