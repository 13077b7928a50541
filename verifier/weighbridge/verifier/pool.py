"""Work on many independent things in several processes, with what was found so far at hand at any time.

Results come in parts, in no particular order. What one task raises ends that task alone. A process that dies takes its
task with it and is replaced. Ends of the caller (a ``close`` of the iterator, an exception, an interrupt from the
keyboard) end the processes, too; they themselves ignore that interrupt.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import deque
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar, cast

from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from weighbridge.proto.errors import ExitCode

__all__ = ["Failed", "Work", "run"]

_DIED: Final = "run again with fewer jobs: it may have been killed for the memory that it took"
# How long a process may take to end that has said its last word.
_ENDING_SECONDS: Final = 5
_Task = TypeVar("_Task")
_Part = TypeVar("_Part")
_TaskIn_contra = TypeVar("_TaskIn_contra", contravariant=True)
_PartOut_co = TypeVar("_PartOut_co", covariant=True)


class Work(Protocol[_TaskIn_contra, _PartOut_co]):
    """What each process does. It is sent there, so it can be pickled; what it opens, it opens there."""

    def open(self) -> AbstractContextManager[Callable[[_TaskIn_contra], Iterator[_PartOut_co]]]:
        """What turns a task into parts."""
        ...


@dataclass(frozen=True, slots=True)
class Failed(Generic[_Task]):
    """A task that was not done to its end, and the error that ended it: for people, and as a document."""

    task: _Task
    text: str
    hint: str
    document: dict[str, str | None]
    exit_code: ExitCode


def run(
    tasks: Iterable[_Task], work: Work[_Task, _Part], *, jobs: int
) -> Generator[tuple[_Task, _Part | None] | Failed[_Task]]:
    """Each task's parts as they come, and ``None`` after its last; or how it failed.

    Args:
        tasks: what is to be done; taken one by one as a process becomes free.
        work: what is done.
        jobs: number of processes; with one, everything happens in this one.

    Raises:
        RuntimeError: a defect in the work; its traceback is on standard error.
        EnvironmentFault: ``COMMAND_FAILED``: no process can be started.
    """
    if jobs == 1:
        with work.open() as do:
            for task in tasks:
                try:
                    for part in do(task):
                        yield task, part
                except WeighbridgeError as error:
                    yield _failed(task, error)
                else:
                    yield task, None
        return
    with contextlib.ExitStack() as stack:
        yield from _share(iter(tasks), [_Process(work, stack) for _ in range(jobs)])


class _Process(Generic[_Task, _Part]):
    """A process that does one task at a time."""

    def __init__(self, work: Work[_Task, _Part], stack: contextlib.ExitStack) -> None:
        self._work: Work[_Task, _Part] = work
        self.task: deque[_Task] = deque()
        self._process: BaseProcess
        self.connection: Connection
        self._start()
        stack.callback(self.stop)

    def give(self, task: _Task) -> None:
        """Have it do ``task``."""
        self.task.append(task)
        self.connection.send((task,))

    def receive(self) -> tuple[str, object]:
        """What it says next; it died if it says nothing any more."""
        try:
            return cast("tuple[str, object]", self.connection.recv())
        except (EOFError, OSError):
            self._process.join(_ENDING_SECONDS)
            if self.stop() > 0:
                raise RuntimeError("a defect in another process; what it has said is above") from None
            self._start()
            return "died", None

    def stop(self) -> int:
        """End it, whatever it does. Its status; negative if a signal ended it."""
        self.connection.close()
        self._process.kill()
        self._process.join()
        return self._process.exitcode or 0

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        try:
            self._process.start()
        except OSError as error:
            raise EnvironmentFault(Code.COMMAND_FAILED, f"cannot start a process: {error}") from error
        theirs.close()
        self.connection = ours


def _share(
    tasks: Iterator[_Task], processes: list[_Process[_Task, _Part]]
) -> Generator[tuple[_Task, _Part | None] | Failed[_Task]]:
    busy: list[_Process[_Task, _Part]] = []
    for process in processes:
        busy += _next(tasks, process)
    while busy:
        ready = connection.wait([process.connection for process in busy])
        for process in [item for item in busy if item.connection in ready]:
            kind, value = process.receive()
            task = process.task[0]
            if kind == "part":
                yield task, cast("_Part", value)
                continue
            process.task.clear()
            busy.remove(process)
            if kind == "done":
                yield task, None
            elif kind == "failed":
                yield cast("Failed[_Task]", value)
            else:
                fault = EnvironmentFault(Code.COMMAND_FAILED, "the process that worked on it was killed", hint=_DIED)
                yield _failed(task, fault)
            busy += _next(tasks, process)


def _next(tasks: Iterator[_Task], process: _Process[_Task, _Part]) -> list[_Process[_Task, _Part]]:
    for task in tasks:
        process.give(task)
        return [process]
    return []


def _serve(pipe: Connection, work: Work[_Task, _Part]) -> None:
    """What a process does until there is nothing left to do, or nobody to tell."""
    # The keyboard's interrupt is for the parent, which ends this process.
    _ = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError), work.open() as do:
        while True:
            (task,) = cast("tuple[_Task]", pipe.recv())
            try:
                for part in do(task):
                    pipe.send(("part", part))
            except WeighbridgeError as error:
                pipe.send(("failed", _failed(task, error)))
            else:
                pipe.send(("done", None))


def _failed(task: _Task, error: WeighbridgeError) -> Failed[_Task]:
    return Failed(task, str(error), error.hint, error.document(), error.exit_code)
