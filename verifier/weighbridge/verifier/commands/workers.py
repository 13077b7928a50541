"""Several processes that serve on one port, and the one that starts them and starts again those that die.

Each worker is this program once more, with the same command line and ``--worker`` behind it: it judges on its own, and
shares port (``SO_REUSEPORT``) and state with the others. The parent judges nothing. A line to each worker tells it that
the parent is there: a worker whose parent is gone ends as on SIGTERM. On that line it says once that it listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto import strict
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.files import PosixFiles, fault, install
from weighbridge.verifier.ports import check_port, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from weighbridge.verifier.settings.model import Settings

__all__ = ["Supervisor", "Worker", "run_workers", "write_port"]

# How long after a death a worker is started again: twice as long each time, until one has lived for a while.
_FIRST_DELAY_S: Final = 0.5
_LONGEST_DELAY_S: Final = 30.0
_STEADY_S: Final = 60.0
# Beyond the time that a worker has to answer what it has read.
_GRACE_S: Final = 15.0
_LISTENING: Final = b"\n"
_PARTS: Final = 3
_NUMBER_MAX: Final = 2**16
_PROGRAM: Final = "import sys; from weighbridge.verifier.entry import main; sys.exit(main())"


@final
class Worker:
    """One of several workers, and its line to the parent.

    Attributes:
        number: from 0 on; one that is started again has the number of the one that died.
        port: where all of them listen.
    """

    __slots__ = ("_line", "number", "port")

    def __init__(self, number: int, port: int, line: socket.socket) -> None:
        self.number: Final = number
        self.port: Final = port
        self._line = line
        line.settimeout(0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The worker that the parent has started with ``--worker=TEXT``.

        Raises:
            ValueError: nobody's parent has written this.
        """
        try:
            number, descriptor, port = (
                strict.decimal(part, what="worker", limit=_NUMBER_MAX) for part in text.split(":", _PARTS)
            )
            return cls(number, port, socket.socket(fileno=descriptor))
        except (MalformedEvidence, ValueError, OSError) as error:
            raise ValueError("for workers alone: --workers N starts them") from error

    def listening(self) -> None:
        """Tell the parent that this worker listens; one that is gone is noticed by :meth:`watch`."""
        with contextlib.suppress(OSError):
            self._line.send(_LISTENING)

    def watch(self, gone: Callable[[], None]) -> None:
        """Call ``gone`` in the running event loop when the parent is not there any more."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            # The parent says nothing on the line: this is its end.
            loop.remove_reader(self._line)
            gone()

        loop.add_reader(self._line, look)

    def close(self) -> None:
        """Let go of the line; the loop that watches it has ended."""
        self._line.close()


def _reserve(host: str, port: int, *, where: str) -> socket.socket:
    """A socket that has ``port`` of ``host``, or any free one for 0, for as long as it is open, and does not listen.

    Workers, and nobody else's programs, can listen there meanwhile.

    Raises:
        EnvironmentFault: ``PORT_UNAVAILABLE``.
    """
    # Without sharing: another verifier that shares its port with its own workers is in the way.
    check_port(host, port, where=where)
    failure = OSError(0, "no address")
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        held = socket.socket(family, socket.SOCK_STREAM)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(address)
        except OSError as error:
            held.close()
            failure = error
        else:
            return held
    raise unavailable(failure, where=where) from failure


@final
class Supervisor:
    """Keeps workers running until it is told to end.

    Args:
        command: starts one: interpreter, program and arguments, but for those that make it a worker.
        count: how many.
        port: where they listen.
        drain: seconds that a worker has to end.
        note: tells the operator a line.
    """

    def __init__(
        self, command: Sequence[str], *, count: int, port: int, drain: float, note: Callable[[str], None]
    ) -> None:
        self._command = tuple(command)
        self._count = count
        self._port = port
        self._drain = drain
        self._note = note
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._ending = asyncio.Event()

    async def run(self, *, started: Callable[[], None]) -> int:
        """Run until SIGTERM or SIGINT; ``started`` is called once all listen. Other signals are passed on.

        Returns:
            0; or the status with which a worker ended before all listened for the first time: something is wrong that
            starting again does not mend, and it has said what.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._signal, signal.SIGHUP)
        listening = [asyncio.Event() for _ in range(self._count)]
        tasks = [asyncio.create_task(self._keep(number, event)) for number, event in enumerate(listening)]
        all_listen = asyncio.create_task(_all(listening))
        try:
            await asyncio.wait([all_listen, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if all_listen.done() and not self._ending.is_set():
                started()
                await self._ending.wait()
            if not self._ending.is_set():
                # A worker that has ended before all listened ends the others.
                self._end()
            statuses = await asyncio.gather(*tasks)
        finally:
            all_listen.cancel()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)
            for process in self._running.values():
                process.kill()
        return next((status for status in statuses if status), 0)

    async def _keep(self, number: int, listening: asyncio.Event) -> int:
        """Run worker ``number``, again and again; its status if it ended before it had ever listened, else 0."""
        delay = _FIRST_DELAY_S
        while not self._ending.is_set():
            began = time.monotonic()
            status = await self._once(number, listening)
            if self._ending.is_set():
                return 0 if listening.is_set() else max(status, 0)
            if not listening.is_set():
                return status if status > 0 else 1
            if time.monotonic() - began > _STEADY_S:
                delay = _FIRST_DELAY_S
            self._note(
                f"weighbridge: warning: worker {number} has ended ({_how(status)}); another one starts in {delay:g} s"
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay)
            delay = min(2 * delay, _LONGEST_DELAY_S)
        return 0

    async def _once(self, number: int, listening: asyncio.Event) -> int:
        """Start worker ``number`` and wait until it has ended; its status, or minus the signal that ended it."""
        own, its = socket.socketpair()
        with own, its:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                f"--worker={number}:{its.fileno()}:{self._port}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                # What a terminal sends to all is passed on by the parent, once.
                process_group=0,
            )
            its.close()
            self._running[number] = process
            own.settimeout(0)
            hears = asyncio.create_task(_hear(own, listening))
            try:
                return await self._ended(process)
            finally:
                hears.cancel()
                del self._running[number]

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        ending = asyncio.create_task(self._ending.wait())
        waiting = asyncio.create_task(process.wait())
        await asyncio.wait([ending, waiting], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not waiting.done():
            await asyncio.wait([waiting], timeout=self._drain + _GRACE_S)
        if not waiting.done():
            self._note(f"weighbridge: warning: process {process.pid} does not end, and is killed")
            process.kill()
        return await waiting

    def _end(self) -> None:
        """Let all end; told a second time, they do so at once."""
        self._ending.set()
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


async def _all(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


async def _hear(line: socket.socket, listening: asyncio.Event) -> None:
    """Wait for the worker's word that it listens."""
    with contextlib.suppress(OSError):
        if await asyncio.get_running_loop().sock_recv(line, 1) == _LISTENING:
            listening.set()


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def _command_line(arguments: Sequence[str]) -> list[str]:
    """How this program is started once more, with ``arguments``."""
    # The directory that it is started in has no say in what it imports.
    isolated = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, isolated, "-c", _PROGRAM, *arguments]


def run_workers(settings: Settings, *, note: Callable[[str], None]) -> int:
    """Serve by several processes until SIGINT or SIGTERM; as :meth:`Supervisor.run`.

    Raises:
        EnvironmentFault: ``PORT_UNAVAILABLE``, or ``FILE_UNWRITABLE`` for the port's file.
    """
    listen = settings.serve.listen
    with contextlib.ExitStack() as reserved:
        held = reserved.enter_context(_reserve(listen.host, listen.port, where=str(listen)))
        port: int = held.getsockname()[1]
        for place in (settings.http.listen, settings.relying_parties.listen):
            if place is not None:
                # Else each worker would tell that it is taken, or share it with whoever has it.
                reserved.enter_context(_reserve(place.host, place.port, where=str(place)))

        def started() -> None:
            if settings.serve.port_file is not None:
                write_port(settings.serve.port_file, port)
            note(f"listening on {listen.host}:{port}, {counted(settings.serve.workers, 'worker')}")

        supervisor = Supervisor(
            _command_line(sys.argv[1:]),
            count=settings.serve.workers,
            port=port,
            drain=settings.service_limits().drain,
            note=note,
        )
        return asyncio.run(supervisor.run(started=started))


def write_port(path: Path, port: int) -> None:
    """Write the port where whoever has started this looks for it.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE`` or ``DISK_FULL``.
    """
    try:
        install(PosixFiles(), b"%d\n" % port, path, staging=path.with_name(f".{path.name}.new"), mode=0o644)
    except OSError as error:
        raise fault(error, path, "writing the port") from error
