"""Listens to the verifier for a gate, and connects again when the line is cut.

Waiting grows from one attempt to the next and is drawn at random: a verifier that comes back is not met by all its
gates at once. A session that the verifier does not know is left out for a while, so that the others are told of.
Whatever else happens here opens nothing, and closes nothing: :mod:`.holder` does.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.verifier.gate.checking import Gate
    from weighbridge.verifier.gate.source import Source

__all__ = ["Watcher"]

_FIRST_S: Final = 0.25
_LONGEST_S: Final = 10.0
_DOUBLINGS_MAX: Final = 16
# How long a session that the verifier does not know is left out.
_LEFT_OUT_S: Final = 15.0


@final
class Watcher:
    """Keeps a gate told.

    Args:
        gate: told of what comes.
        source: the verifier.
        report: told, for people, that the line is cut or up again; once each.
        changed: called after anything was heard.
    """

    def __init__(
        self,
        gate: Gate,
        source: Source,
        *,
        report: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._gate = gate
        self._source = source
        self._report = report
        self._changed = changed
        self._random = random.SystemRandom()
        self._fault: Code | None = None
        self._attempts = 0
        # Sessions that the verifier does not know, and until when they are left out (monotonic seconds).
        self._unknown: dict[bytes, float] = {}
        self._again = asyncio.Event()

    def renew(self) -> None:
        """Ask the verifier anew, for the sessions that the gate has by now."""
        self._unknown.clear()
        self._again.set()

    async def run(self) -> None:
        """Listen until cancelled. A defect of ours is raised: it ends the gate, which nobody then takes for open."""
        while True:
            self._again.clear()
            listening = asyncio.create_task(self._listen())
            asked = asyncio.create_task(self._again.wait())
            try:
                await asyncio.wait([listening, asked], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (listening, asked):
                    task.cancel()
                await asyncio.gather(listening, asked, return_exceptions=True)
            if not listening.cancelled():
                listening.result()

    async def _listen(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._patience()):
                    await self._line()
            except TimeoutError:
                # Time to ask again for what was left out; the line was good.
                self._attempts = 0
            except WeighbridgeError as error:
                if self._leave_out(error):
                    continue
                self._cut(error)
            # Or the verifier has ended the line in good order, as it does from time to time.
            self._changed()
            longest = min(_LONGEST_S, _FIRST_S * 2**self._attempts)
            self._attempts = min(self._attempts + 1, _DOUBLINGS_MAX)
            await asyncio.sleep(self._random.uniform(longest / 2, longest))

    async def _line(self) -> None:
        """One line, until the verifier ends it.

        Raises:
            WeighbridgeError: it is cut, or the verifier refuses.
        """
        sessions = [session for session in self._gate.holder.expected if session not in self._unknown]
        if not sessions:
            await asyncio.sleep(_LEFT_OUT_S)
            return
        async with aclosing(self._source.watch(sessions, audience=self._gate.file.audience)) as told:
            async for answered in told:
                if answered is not None:
                    self._gate.holder.hear(answered.session, answered.told, answered.token, self._gate.clocks.now())
                self._up()
                self._changed()

    def _patience(self) -> float | None:
        """Seconds until a session that is left out is asked for again, if one is."""
        now = time.monotonic()
        self._unknown = {session: until for session, until in self._unknown.items() if until > now}
        return min(self._unknown.values()) - now if self._unknown else None

    def _leave_out(self, error: WeighbridgeError) -> bool:
        """Whether the verifier has refused for one session alone, which is then shut and left out."""
        if error.code is not Code.SESSION_UNKNOWN:
            return False
        for session in self._gate.holder.expected:
            if session.hex() == error.got and session not in self._unknown:
                self._unknown[session] = time.monotonic() + _LEFT_OUT_S
                self._gate.holder.refuse(session, error)
                self._report(f"the verifier does not know session {session.hex()}, or does not tell us of it")
                return True
        return False

    def _up(self) -> None:
        self._attempts = 0
        self._gate.holder.line(None)
        if self._fault is not None:
            self._fault = None
            self._report("the verifier can be heard again")

    def _cut(self, error: WeighbridgeError) -> None:
        self._gate.holder.line(error)
        if self._fault is not error.code:
            self._fault = error.code
            self._report(f"the verifier cannot be heard, gates close as their tokens expire: {error}")
