"""The parent's side of the workers (``worker.py``, ``opa_worker.py``): spawn, one bounded exchange, kill.

Spawned, never forked: nothing of this process (keys, sockets, memory) reaches the child. Every exchange has a
deadline in both directions and a bound on the answer; after any failure the child is dead and a new one is needed.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final, final

from weighbridge.proto.errors import Code, EnvironmentFault

__all__ = ["Program", "Worker", "WorkerCrashed", "WorkerFault", "WorkerRefused", "WorkerTimeout"]

_SCRIPT: Final = Path(__file__).with_name("worker.py")
_CHUNK: Final = 1 << 18
_HEADER: Final = 4


class WorkerFault(Exception):
    """The worker gave no result. It is dead by now. Never leaves this package."""


@final
class WorkerTimeout(WorkerFault):
    """No complete answer before the deadline."""


@final
class WorkerCrashed(WorkerFault):
    """The process ended, or answered beyond its bound or out of form."""


@final
class WorkerRefused(WorkerFault):
    """The engine answered with an error."""


@dataclass(frozen=True, slots=True)
class Program:
    """What runs as a worker.

    Attributes:
        script: the program, one of this package.
        directory: where it finds its engine.
        reserve: address space in bytes that the engine takes for itself, beside what a policy may use.
        environment: all that the process finds in its environment.
    """

    script: Path
    directory: str
    reserve: int = 0
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@final
class Worker:
    """One worker process.

    Args:
        program: what to run; the engine regorus when none is named.
        memory: address space in bytes.
        cpu_seconds: CPU time per exchange: the bound that holds when this process is gone.
        request_max: largest request in bytes.

    Raises:
        EnvironmentFault: ``TOOL_MISSING``: the engine is not installed; ``COMMAND_FAILED``: no process can be made.
    """

    def __init__(self, *, memory: int, cpu_seconds: int, request_max: int, program: Program | None = None) -> None:
        program = program or Program(_SCRIPT, _engine_directory())
        command = [sys.executable, "-I", "-S", "-B", str(program.script), program.directory]
        command += [str(memory + program.reserve), str(cpu_seconds), str(request_max)]
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - fixed program, no shell
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=dict(program.environment),
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentFault(Code.COMMAND_FAILED, f"cannot start the policy worker: {error}") from error
        if self._process.stdin is None or self._process.stdout is None:  # pragma: no cover - both are pipes
            raise RuntimeError("the worker has no pipes")
        self._pipes: tuple[IO[bytes], IO[bytes]] = (self._process.stdin, self._process.stdout)
        self._in: int = self._process.stdin.fileno()
        self._out: int = self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._writable: select.poll = select.poll()
        self._writable.register(self._in, select.POLLOUT)
        self._readable: select.poll = select.poll()
        self._readable.register(self._out, select.POLLIN)

    @property
    def pid(self) -> int:
        """The child's process identifier."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether another exchange can be tried."""
        return self._process.poll() is None

    def exchange(self, request: bytes, *, seconds: float, reply_max: int) -> bytes:
        """Send ``request`` and return the answer.

        Raises:
            WorkerTimeout: nothing complete within ``seconds``.
            WorkerCrashed: the process ended, or its answer is too long or out of form.
            WorkerRefused: the engine reports an error; the text is its own.
        """
        deadline = time.monotonic() + seconds
        try:
            self._send(request, deadline)
            body = self._receive(reply_max, deadline)
        except WorkerFault:
            self.close()
            raise
        match body[:1]:
            case b"R":
                return body[1:]
            case b"E":
                self.close()
                raise WorkerRefused(body[1:].decode("utf-8", "replace"))
            case _:
                self.close()
                raise WorkerCrashed("the engine answers out of form")

    def close(self) -> None:
        """Kill the process and reap it. May be called again."""
        self._process.kill()
        _ = self._process.wait()
        for pipe in self._pipes:
            pipe.close()

    def _send(self, request: bytes, deadline: float) -> None:
        """Header and body in one call as a rule: the pipe is empty, and takes most documents whole."""
        header = len(request).to_bytes(_HEADER, "big")
        view = memoryview(request)
        try:
            sent = os.writev(self._in, (header, view)) - _HEADER  # an empty pipe takes the header whole
            view = view[sent:]
            while view:
                self._await(self._writable, deadline)
                view = view[os.write(self._in, view[:_CHUNK]) :]
        except BrokenPipeError as error:
            raise self._ended() from error

    def _receive(self, reply_max: int, deadline: float) -> bytes:
        """The body of the answer; header and body arrive together as a rule."""
        data = bytearray()
        size = _HEADER
        while len(data) < size:
            self._await(self._readable, deadline)
            more = os.read(self._out, _CHUNK)
            if not more:
                raise self._ended()
            data += more
            if size == _HEADER and len(data) >= size:
                size += int.from_bytes(data[:_HEADER], "big")
                if not 1 <= size - _HEADER <= reply_max:
                    raise WorkerCrashed(f"the engine answers with {size - _HEADER} bytes, more than {reply_max}")
        if len(data) > size:
            raise WorkerCrashed("the engine answers out of form")
        return bytes(memoryview(data)[_HEADER:])

    @staticmethod
    def _await(ready: select.poll, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise WorkerTimeout("no answer before the deadline")

    def _ended(self) -> WorkerCrashed:
        try:
            status = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return WorkerCrashed("the engine closed its pipe")
        return WorkerCrashed(f"the engine died with status {status}")


def _engine_directory() -> str:
    spec: ModuleSpec | None = find_spec("regorus")
    if spec is None or spec.origin is None:
        raise EnvironmentFault(
            Code.TOOL_MISSING,
            "the policy engine is not installed",
            hint="install gordon-to-regorus at the pinned version",
        )
    return str(Path(spec.origin).parent.parent)
