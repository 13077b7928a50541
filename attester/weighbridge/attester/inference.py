"""The inference server that the attester launches, or that connects by itself: when it is there, and when it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.workload.client import ENVIRONMENT
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from weighbridge.attester.keys import ServingKey

__all__ = ["InferenceServer", "Launch"]

# Servers finish the requests that they are answering.
_GRACE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What the command is told, by its environment.

    ``port_file`` is where the server writes the port it listens on, ``None`` when nobody asked.
    """

    command: Sequence[str]
    workload: Path
    serving: ServingKey
    port_file: Path | None

    def environment(self) -> dict[str, str]:
        """This process's environment and the variables for the server."""
        variables = {
            ENVIRONMENT: str(self.workload),
            "WEIGHBRIDGE_TLS_CERT": str(self.serving.certificate_file),
            "WEIGHBRIDGE_TLS_KEY": str(self.serving.key_file),
        }
        if self.port_file is not None:
            variables["WEIGHBRIDGE_PORT_FILE"] = str(self.port_file)
        return {**os.environ, **variables}


@final
class InferenceServer:
    """A launched command. Made by :meth:`launch`; :meth:`stop` before letting it go."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        """Not for callers: use :meth:`launch`."""
        self._process = process
        self._name = name
        self._stopped = False

    @classmethod
    async def launch(cls, launch: Launch) -> InferenceServer:
        """Start the command. It is a session of its own, so that an interrupt at the terminal reaches us first.

        Its output goes to our standard error: our standard output is a result.

        Raises:
            EnvironmentFault: ``COMMAND_FAILED`` when it cannot be started.
        """
        name = launch.command[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *_die_with_parent(),
                *launch.command,
                env=launch.environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentFault(
                Code.COMMAND_FAILED,
                f"the inference server cannot be started: {error.strerror or error}",
                where=name,
                hint="the command stands after --, as in `run … -- python server.py`",
            ) from error
        return cls(process, name)

    async def ended(self) -> None:
        """Return when it has ended by itself or was stopped."""
        await self._process.wait()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    def failure(self) -> EnvironmentFault | None:
        """What to say of a server that ended by itself with another status than 0, or by a signal."""
        status = self._process.returncode
        if self._stopped or not status:
            return None
        how = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
        return EnvironmentFault(
            Code.COMMAND_FAILED, f"the inference server {how}", where=self._name, hint="its own output is above"
        )

    async def stop(self) -> None:
        """Ask it to end, wait, then insist."""
        if not self.running:
            return
        self._stopped = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_GRACE_S):
                await self._process.wait()
        except (TimeoutError, asyncio.CancelledError) as error:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            # At once: nothing outlives this signal.
            await self._process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise


def _die_with_parent() -> list[str]:
    """A prefix that ends the server with us, however we end: it could not report what it serves any more."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "TERM", "--"]
