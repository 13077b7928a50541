"""Asks the verifier for its keys for tokens: now and then, and sooner when a token names one that is not known.

When:

1. At once when the gate starts, before it listens, and for three seconds at most.
2. Every four to five minutes: a key is announced fifteen before it signs, at least, so a gate has it by then.
3. After a token by an unknown key, and after a failure, as soon as ten seconds have passed since it was last asked.
   Each time that this brings no new key doubles them, up to five minutes: no token makes a gate ask more often.

What is answered is judged by :mod:`.token_keys`. Whatever fails here leaves what is believed as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weighbridge.verifier.gate.checking import Gate
    from weighbridge.verifier.gate.source import Source

__all__ = ["KeyAsker"]

_FIRST_S: Final = 3.0
_LEAST_S: Final = 10.0
_EVERY_S: Final = 300.0
# Gates that were started together do not ask together for ever.
_SOONER: Final = 0.8


@final
class KeyAsker:
    """Keeps a gate's keys for tokens those of the verifier.

    Args:
        gate: learns them.
        source: the verifier.
        report: told, for people, which keys are new or gone, and once why they cannot be had.
    """

    def __init__(self, gate: Gate, source: Source, *, report: Callable[[str], None]) -> None:
        self._gate = gate
        self._source = source
        self._report = report
        self._random = random.SystemRandom()
        self._wanted = asyncio.Event()
        self._pause = _LEAST_S
        # When it was last asked, monotonic seconds; ``None``: it may be at once.
        self._asked: float | None = None
        self._faulty = False

    def want(self) -> None:
        """A token has named a key that is not known."""
        self._wanted.set()

    def renew(self) -> None:
        """Ask at once: whoever runs the gate wants it."""
        self._asked, self._pause = None, _LEAST_S
        self._wanted.set()

    async def first(self) -> None:
        """Ask, if nobody has yet, and wait a moment for the answer."""
        if self._asked is None and self._gate.asks_for_keys:
            try:
                async with asyncio.timeout(_FIRST_S):
                    await self._ask(lambda: None)
            except TimeoutError:
                self._wanted.set()

    async def run(self, found: Callable[[], None]) -> None:
        """Ask, again and again, until cancelled. ``found``: called after a key was wanted and a new one was found."""
        while True:
            await self._wait()
            await self._ask(found)

    async def _wait(self) -> None:
        if self._asked is None:
            return
        await asyncio.sleep(self._asked + self._pause - time.monotonic())
        regular = self._asked + _EVERY_S * self._random.uniform(_SOONER, 1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, regular - time.monotonic())):
                await self._wanted.wait()

    async def _ask(self, found: Callable[[], None]) -> None:
        # If this is cancelled or takes too long, it was asked for all that.
        self._asked = time.monotonic()
        try:
            change = self._gate.learn(await self._source.token_keys())
        except WeighbridgeError as error:
            if not self._faulty:
                self._report(f"the verifier's keys for tokens cannot be had, those known are kept: {error}")
            self._faulty = True
            self._pause = min(2 * self._pause, _EVERY_S)
            # Not only in five minutes.
            self._wanted.set()
            return
        self._faulty = False
        wanted = self._wanted.is_set()
        self._wanted.clear()
        self._pause = min(2 * self._pause, _EVERY_S) if wanted and not change.new else _LEAST_S
        for what, keys in (("new", change.new), ("no longer", change.gone)):
            if keys:
                self._report(f"{what} among the verifier's keys for tokens: {_names(keys)}")
        if wanted and change.new:
            found()


def _names(keys: Iterable[bytes]) -> str:
    return ", ".join(sorted(key.hex()[:16] for key in keys))
