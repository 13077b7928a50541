"""Runs a command when a session opens and when it closes, for whatever has no other way to ask.

The command sets what the environment says, ``WEIGHBRIDGE_GATE=open`` or ``closed``, and ends. The rule:

1. First it is run with what holds when the watch begins: nothing is known then, so ``closed``.
2. One runs at a time. One that opens is killed when the session closes meanwhile: closing does not wait.
3. One that closes is not killed for anything but being too slow. Until a command has ended with status 0, it is run
   again each second, with what holds by then: a gate that could not be closed is an open one. One that cannot be
   started has not ended with status 0; at the very first it ends the watch. After one that was to open, the one that
   closes waits for no second.
4. When the watch ends, for whatever reason, the command is run with ``closed`` once more, and if that fails, again for
   ten seconds.

What is not prevented: if the watch is killed, nobody runs the command. So have its supervisor run it when the watch has
ended in any way (``docs/gates/exec.md``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.verifier.gate.checking import Answer

__all__ = ["Hook", "environment"]

_LOOK_S: Final = 0.1
_AGAIN_S: Final = 1.0
_PATIENCE_S: Final = 30.0
_TERM_S: Final = 2.0
_LEAVE_S: Final = 10.0
_PREFIX: Final = "WEIGHBRIDGE_"
_GATE: Final = f"{_PREFIX}GATE"


def environment(answer: Answer | None) -> dict[str, str]:
    """What a command is told; ``None``: that the watch ends."""
    if answer is None:
        return {_GATE: "closed", f"{_PREFIX}REASON": "the watch has ended"}
    told = {_GATE: "open" if answer.allowed else "closed"}
    for name, value in answer.document.items():
        if name not in {"schema", "open"}:
            text = value if isinstance(value, str) else strict.json_encode(value).decode()
            told[f"{_PREFIX}{name.upper()}"] = text.replace("\0", "")
    return told


@final
class Hook:
    """Follows one session.

    Args:
        command: the program and its arguments; no shell is between.
        ask: how the session stands now.
        report: told, for people, what was run and how it ended.
    """

    def __init__(self, command: Sequence[str], *, ask: Callable[[], Answer], report: Callable[[str], None]) -> None:
        self._command = tuple(command)
        self._ask = ask
        self._report = report

    async def follow(self, stop: asyncio.Event) -> None:
        """Run the command at each change until ``stop`` is set, and with ``closed`` then.

        Raises:
            EnvironmentFault: ``TOOL_MISSING``: at the first run, there is no such program, or it may not be run.
        """
        answer = self._ask()
        process = await self._start(answer)
        try:
            done = await self._wait(process, answer, stop)
            await self._watch(stop, opened=answer.allowed, done=done)
        finally:
            await self._leave(stop)

    async def _watch(self, stop: asyncio.Event, *, opened: bool, done: bool) -> None:
        """Run the command at each change. ``opened``: what the last one was told, which it has ``done`` or not."""
        now = asyncio.get_running_loop().time
        again = now() + _AGAIN_S
        while not stop.is_set():
            answer = self._ask()
            changed = answer.allowed is not opened
            # After one that has failed, how the gate stands is unknown: closing it is never put off for that.
            if (changed and (done or opened)) or (not done and now() >= again):
                opened, done = answer.allowed, await self._run(answer, stop)
                again = now() + _AGAIN_S
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_S)

    async def _leave(self, stop: asyncio.Event) -> None:
        now = asyncio.get_running_loop().time
        end = now() + _LEAVE_S
        while not await self._run(None, stop):
            if now() + _AGAIN_S > end:
                self._report("closed: given up; what is behind the gate may be open")
                return
            await asyncio.sleep(_AGAIN_S)

    async def _run(self, answer: Answer | None, stop: asyncio.Event) -> bool:
        """Whether the command has been started, and has done what it was asked for."""
        try:
            process = await self._start(answer)
        except EnvironmentFault as fault:
            self._report(f"{environment(answer)[_GATE]}: {fault.message}")
            return False
        return await self._wait(process, answer, stop)

    async def _start(self, answer: Answer | None) -> asyncio.subprocess.Process:
        """Start the command.

        Raises:
            EnvironmentFault: ``TOOL_MISSING``.
        """
        told = {**os.environ, **environment(answer)}
        try:
            return await asyncio.create_subprocess_exec(
                *self._command, env=told, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise EnvironmentFault(
                Code.TOOL_MISSING, f"cannot run the command: {error.strerror or error}", where=self._command[0]
            ) from error

    async def _wait(self, process: asyncio.subprocess.Process, answer: Answer | None, stop: asyncio.Event) -> bool:
        """Whether the command has done what it was asked for."""
        ending = asyncio.create_task(process.wait())
        try:
            why = await self._over(ending, stop, opens=answer is not None and answer.allowed)
        finally:
            await _end(process, ending)
        status = ending.result()
        word = environment(answer)[_GATE]
        self._report(f"{word}: the command {f'was killed: {why}' if why else f'has ended with status {status}'}")
        return not why and status == 0

    async def _over(self, ending: asyncio.Task[int], stop: asyncio.Event, *, opens: bool) -> str:
        """Wait for the command; why it is to be killed, if it is."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not ending.done():
                    await asyncio.wait([ending], timeout=_LOOK_S)
                    if opens and not ending.done() and (stop.is_set() or not self._ask().allowed):
                        return "the session has closed" if not stop.is_set() else "the watch ends"
        except TimeoutError:
            return f"it has run for {_PATIENCE_S:g} s"
        return ""


async def _end(process: asyncio.subprocess.Process, ending: asyncio.Task[int]) -> None:
    """See to it that the command, and what it has started in its session, has ended."""
    for number, patience in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, None)):
        if ending.done():
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        await asyncio.wait([ending], timeout=patience)
