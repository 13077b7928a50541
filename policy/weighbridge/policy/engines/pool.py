"""Loaded workers, taken in turns by threads; whatever dies is replaced before it is missed.

As many decisions run at once as the pool has workers. Beside them stand spares, started and loaded: after a crash or a
timeout the next decision finds one ready, while another is being made in the background. A worker that has failed in
any way is never used again, since an engine that has panicked gives wrong answers afterwards.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, final

from weighbridge.policy.engines.process import WorkerCrashed, WorkerFault
from weighbridge.proto.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from weighbridge.policy.engine import Limits
    from weighbridge.policy.engines.process import Worker

__all__ = ["Pool", "start_all"]

# Of each part of what goes to a worker together, and comes back.
_LENGTH: Final = 4


@final
class Pool:
    """Workers that hold one policy. Close it after use.

    Args:
        start: makes a worker and loads it; called in threads, too.
        ready: the workers that there are already; as many decisions run at once.
        spares: how many more are kept loaded.
        limits: bounds of every exchange.
    """

    def __init__(self, start: Callable[[], Worker], ready: Iterable[Worker], *, spares: int, limits: Limits) -> None:
        self._start: Callable[[], Worker] = start
        self._ready: deque[Worker] = deque(ready)
        self._size: int = len(self._ready)
        self._whole: int = self._size + spares
        self._limits: Limits = limits
        self._turns: threading.Semaphore = threading.Semaphore(self._size)
        self._state: threading.Condition = threading.Condition()
        self._busy: int = 0
        self._starting: int = 0
        self._threads: list[threading.Thread] = []
        self._closed: bool = False
        with self._state:
            self._replenish()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers that stand ready, the one that is taken next last."""
        with self._state:
            return tuple(worker.pid for worker in self._ready)

    def evaluate(self, query: bytes, document: bytes, *, now_ns: int) -> bytes:
        """The engine's answer to one expression about one document.

        Raises:
            WorkerFault: none, an error, or one out of form.
            RuntimeError: after :meth:`close`.
            EnvironmentFault: no worker is left, and none can be started.
        """
        limits, request = self._limits, _question(query, document, now_ns)
        with self._borrowed() as worker:
            return worker.exchange(request, seconds=limits.decide_seconds, reply_max=limits.reply_max)

    def evaluate_all(self, query: bytes, documents: Sequence[tuple[bytes, int]]) -> Sequence[bytes]:
        """The answers to one expression about each of ``documents``, with its time: by one worker, waited for once.

        All of them have the time of one.

        Raises:
            WorkerFault, RuntimeError, EnvironmentFault: as :meth:`evaluate`, where any of them comes to that.
        """
        request = bytearray(b"M")
        for document, now_ns in documents:
            asked = _question(query, document, now_ns)
            request += len(asked).to_bytes(_LENGTH, "big")
            request += asked
        limits, count = self._limits, len(documents)
        most = 1 + count * (_LENGTH + limits.reply_max)
        with self._borrowed() as worker:
            answers = worker.exchange(bytes(request), seconds=limits.decide_seconds, reply_max=most)
            return _taken_apart(answers, count, limits.reply_max)

    def close(self) -> None:
        """End every worker, after the decisions that are being made. May be called again."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        for _ in range(self._size):
            _ = self._turns.acquire()
        with self._state:
            while self._ready:
                self._ready.pop().close()
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        self._turns.release(self._size)

    @contextlib.contextmanager
    def _borrowed(self) -> Generator[Worker]:
        """A worker, which is used again if the block is left without an error."""
        with self._turns:
            worker = self._take()
            whole = False
            try:
                yield worker
                whole = True
            finally:
                self._give(worker, whole=whole)

    def _take(self) -> Worker:
        with self._state:
            while True:
                if self._closed:
                    raise RuntimeError("the prepared policy is closed")
                while self._ready:
                    worker = self._ready.pop()
                    if worker.alive:
                        self._busy += 1
                        return worker
                    worker.close()
                if not self._starting:
                    self._busy += 1
                    break
                _ = self._state.wait()
        try:
            return self._start()
        except BaseException:
            with self._state:
                self._busy -= 1
            raise

    def _give(self, worker: Worker, *, whole: bool) -> None:
        if not whole:
            worker.close()
        with self._state:
            self._busy -= 1
            # Spares may have died while they were waiting; whoever has just answered has not.
            for spare in [spare for spare in self._ready if not spare.alive]:
                self._ready.remove(spare)
                spare.close()
            if whole:
                self._ready.append(worker)
            if not self._closed:
                self._replenish()

    def _replenish(self) -> None:
        """Start in the background what is missing."""
        missing = self._whole - len(self._ready) - self._busy - self._starting
        if missing <= 0:
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(missing):
            self._starting += 1
            self._threads.append(threading.Thread(target=self._start_spare, name="weighbridge-spare-worker"))
            self._threads[-1].start()

    def _start_spare(self) -> None:
        worker: Worker | None = None
        try:
            worker = self._start()
        except (WorkerFault, EnvironmentFault):
            # The next decision that needs one tries for itself, and says why it cannot be.
            pass
        finally:
            with self._state:
                self._starting -= 1
                if worker is not None and not self._closed:
                    # The one used last is taken first: its memory is warm.
                    self._ready.appendleft(worker)
                    worker = None
                self._state.notify_all()
            if worker is not None:
                worker.close()


def _question(query: bytes, document: bytes, now_ns: int) -> bytes:
    return b"".join((b"D", now_ns.to_bytes(8, "big"), len(query).to_bytes(2, "big"), query, document))


def _taken_apart(answers: bytes, count: int, most: int) -> list[bytes]:
    """As many answers as that, each of ``most`` bytes at the most, and nothing else.

    Raises:
        WorkerCrashed: they are not.
    """
    found: list[bytes] = []
    place = 0
    while place < len(answers):
        begins = place + _LENGTH
        place = begins + int.from_bytes(answers[place:begins], "big")
        found.append(answers[begins:place])
    if place != len(answers) or len(found) != count or max(map(len, found), default=0) >= most:
        raise WorkerCrashed("the engine answers out of form")
    return found


def start_all(start: Callable[[], Worker], count: int) -> tuple[Worker, ...]:
    """``count`` workers, started at the same time.

    Raises:
        WorkerFault: one does not load; all are ended.
        EnvironmentFault: one cannot be started; all are ended.
    """
    with ThreadPoolExecutor(max_workers=count) as threads:
        futures = [threads.submit(start) for _ in range(count)]
    try:
        return tuple(future.result() for future in futures)
    except BaseException:
        for future in futures:
            if future.exception() is None:
                future.result().close()
        raise
