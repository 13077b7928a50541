"""Work for several processes: they import it by its name, as they could not a test."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


@dataclass(frozen=True)
class Counting:
    """Counts to the task's number; fails, dies or is wrong where it is told to. Says in which process."""

    fails: int = -1
    dies: int = -1
    wrong: int = -1

    @contextlib.contextmanager
    def open(self) -> Generator[Callable[[int], Iterator[tuple[int, int]]]]:
        yield self.count

    def count(self, task: int) -> Iterator[tuple[int, int]]:
        for number in range(task):
            if number and task == self.fails:
                raise MalformedEvidence(Code.FIELD_RANGE, "it fails", where=f"task {task}", hint="do not")
            if number and task == self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            if number and task == self.wrong:
                raise ValueError("a defect")
            yield number, os.getpid()
