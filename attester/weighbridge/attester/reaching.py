"""Asks a verifier again until it answers: before there is a session, whose courier does the same for windows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar, final

from weighbridge.attester.courier import Backoff
from weighbridge.attester.refusal import Throttled
from weighbridge.attester.waiting import first_of
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from weighbridge.attester.clock import Clock

__all__ = ["Reaching"]

_T = TypeVar("_T")


@final
class Reaching:
    """Runs what needs the verifier, and runs it again when that is only a matter of time.

    A verifier that wants to be asked later always is. One that cannot be reached is only if ``patient``: else a wrong
    address would be waited for as well.

    Args:
        clock: for the delays.
        rng: jitters the delays.
        patient: whether to wait for a verifier that cannot be reached.
        stop: set when there is nothing to wait for any more.
        tell: called with the fault when waiting begins.
        backoff: the delays.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        rng: random.Random,
        patient: bool,
        stop: asyncio.Event,
        tell: Callable[[EnvironmentFault], None],
        backoff: Backoff | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._patient = patient
        self._stop = stop
        self._tell = tell
        self._backoff = backoff or Backoff()

    async def __call__(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What ``ask`` returns in the end.

        Raises:
            EnvironmentFault: a fault that is not waited for, or the last one when ``stop`` was set meanwhile.
            WeighbridgeError: any other refusal.
        """
        attempt = 0
        while True:
            try:
                return await ask()
            except EnvironmentFault as fault:
                if not isinstance(fault, Throttled) and not (self._patient and fault.code is Code.PEER_UNREACHABLE):
                    raise
                if not attempt:
                    self._tell(fault)
                delay = self._backoff.delay_ns(attempt, self._rng)
                delay += fault.retry_after_ns if isinstance(fault, Throttled) else 0
                attempt += 1
                await first_of(self._clock.sleep_until(self._clock.monotonic_ns() + delay), _set(self._stop))
                if self._stop.is_set():
                    raise


async def _set(event: asyncio.Event) -> None:
    await event.wait()
