"""Listens to the verifier for a gate, and connects again when a line is cut.

There is one line for the sessions that the gate's file names, and one for each model whose sessions are to be found.
Waiting grows from one attempt to the next and is drawn at random: a verifier that comes back is not met by all its
gates at once. A session that the verifier does not know is left out for a while, so that the others are told of.
Whatever else happens here opens nothing, and closes nothing: :mod:`.holder` does. Keys for tokens are asked for beside
(:mod:`.key_asking`); when one was wanted and found, every session is asked for anew.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.verifier.gate.key_asking import KeyAsker

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.verifier.gate.checking import Gate
    from weighbridge.verifier.gate.source import Source
    from weighbridge.verifier.told import Model

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
        report: told, for people, that a line is cut or up again; once each.
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
        # By line, ``None`` being that of the sessions that are named: why it is cut, if it is.
        self._faults: dict[Model | None, WeighbridgeError] = {}
        # Sessions that the verifier does not know, and until when they are left out (monotonic seconds).
        self._unknown: dict[bytes, float] = {}
        self._again = asyncio.Event()
        self._keys = KeyAsker(gate, source, report=report)

    def renew(self) -> None:
        """Ask the verifier anew, for the sessions that the gate has by now."""
        self._unknown.clear()
        self._keys.renew()
        self._again.set()

    async def run(self) -> None:
        """Listen until cancelled. A defect of ours is raised: it ends the gate, which nobody then takes for open."""
        await self._keys.first()
        while True:
            self._again.clear()
            holder = self._gate.holder
            lines = [*([None] if holder.sessions else []), *holder.models]
            self._faults = {line: fault for line, fault in self._faults.items() if line in lines}
            listening = [asyncio.create_task(_Line(self, line).listen()) for line in lines]
            if self._gate.asks_for_keys:
                listening.append(asyncio.create_task(self._keys.run(self._again.set)))
            asked = asyncio.create_task(self._again.wait())
            try:
                await asyncio.wait([*listening, asked], return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                for task in listening:
                    task.cancel()
                await asyncio.wait([*listening, asked])
            for task in listening:
                if not task.cancelled():
                    task.result()

    async def hear_sessions(self, up: Callable[[], None]) -> None:
        """One line of the sessions that are named, until the verifier ends it.

        Raises:
            WeighbridgeError: it is cut, or the verifier refuses.
        """
        sessions = [session for session in self._gate.holder.sessions if session not in self._unknown]
        if not sessions:
            await asyncio.sleep(_LEFT_OUT_S)
            return
        async with aclosing(self._source.watch(sessions, audience=self._gate.file.audience)) as told:
            async for answered in told:
                if answered is not None:
                    self._gate.holder.hear(answered.session, answered.told, answered.token, self._gate.clocks.now())
                up()

    async def hear_model(self, model: Model, up: Callable[[], None]) -> None:
        """One line of the sessions of a model, until the verifier ends it.

        Raises:
            WeighbridgeError: as :meth:`hear_sessions`.
        """
        async with aclosing(self._source.watch_model(model, audience=self._gate.file.audience)) as told:
            async for answered in told:
                holder = self._gate.holder
                holder.hear_model(model)
                if answered is not None:
                    now = self._gate.clocks.now()
                    holder.hear_found(model, answered.session, answered.told, answered.token, now)
                up()

    def patience(self) -> float | None:
        """Seconds until a session that is left out is asked for again, if one is."""
        now = time.monotonic()
        self._unknown = {session: until for session, until in self._unknown.items() if until > now}
        return min(self._unknown.values()) - now if self._unknown else None

    def leave_out(self, error: WeighbridgeError) -> bool:
        """Whether the verifier has refused for one session alone, which is then shut and left out."""
        if error.code is not Code.SESSION_UNKNOWN:
            return False
        for session in self._gate.holder.sessions:
            if session.hex() == error.got and session not in self._unknown:
                self._unknown[session] = time.monotonic() + _LEFT_OUT_S
                self._gate.holder.refuse(session, error)
                self._report(f"the verifier does not know session {session.hex()}, or does not tell us of it")
                return True
        return False

    def up(self, line: Model | None) -> None:
        """Something was heard."""
        if self._faults.pop(line, None) is not None and not self._faults:
            self._report("the verifier can be heard again")
        self._gate.holder.line(next(iter(self._faults.values()), None))
        if self._gate.holder.lacks_key:
            self._gate.holder.lacks_key = False
            self._keys.want()
        self._changed()

    def cut(self, line: Model | None, error: WeighbridgeError) -> None:
        """It is cut."""
        self._gate.holder.line(error)
        said = {fault.code for fault in self._faults.values()}
        self._faults[line] = error
        if error.code not in said:
            self._report(f"the verifier cannot be heard, gates close as their tokens expire: {error}")
        self._changed()

    async def wait(self, attempts: int) -> None:
        """Before the next attempt."""
        self._changed()
        longest = min(_LONGEST_S, _FIRST_S * 2**attempts)
        await asyncio.sleep(self._random.uniform(longest / 2, longest))


@final
class _Line:
    """One line of a watcher, which is connected again and again."""

    def __init__(self, watcher: Watcher, about: Model | None) -> None:
        self._watcher = watcher
        self._about = about
        self._attempts = 0

    async def listen(self) -> None:
        while True:
            try:
                if self._about is None:
                    async with asyncio.timeout(self._watcher.patience()):
                        await self._watcher.hear_sessions(self._up)
                else:
                    await self._watcher.hear_model(self._about, self._up)
            except TimeoutError:
                # Time to ask again for what was left out; the line was good.
                self._attempts = 0
            except WeighbridgeError as error:
                if self._about is None and self._watcher.leave_out(error):
                    continue
                self._watcher.cut(self._about, error)
            # Or the verifier has ended the line in good order, as it does from time to time.
            await self._watcher.wait(self._attempts)
            self._attempts = min(self._attempts + 1, _DOUBLINGS_MAX)

    def _up(self) -> None:
        self._attempts = 0
        self._watcher.up(self._about)
