"""Calls into a driver that may never return, each in a thread of its own, with a time limit.

A thread that is inside a library cannot be stopped. One that is late is left behind: what it returns is dropped, and
until it has come back nothing else is asked, so that at most one thread per device ever waits. The threads do not keep
the process from ending.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar, final

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["BoundedCalls"]

_T = TypeVar("_T")


@final
class BoundedCalls:
    """Makes calls of which each gets ``seconds`` of time. To be used by one thread at a time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._late: tuple[threading.Thread, ...] = ()

    @property
    def stuck(self) -> bool:
        """Whether an earlier call has not come back."""
        self._late = tuple(call for call in self._late if call.is_alive())
        return bool(self._late)

    def one(self, what: str, work: Callable[[], _T]) -> _T:
        """What ``work`` returns or raises; see :meth:`together`."""
        (result,) = self.together({what: work})
        return result

    def together(self, works: Mapping[str, Callable[[], _T]]) -> list[_T]:
        """What each of ``works`` returns, in their order; all run at the same time. The keys name them, for messages.

        Raises:
            EnvironmentFault: ``GPU_TIMEOUT``: one of them, or of an earlier call, has not come back in time.
            BaseException: what the first of them has raised.
        """
        if self.stuck:
            names = ", ".join(call.name for call in self._late)
            raise EnvironmentFault(
                Code.GPU_TIMEOUT, "the driver has not come back from an earlier call", where=names, expected="an answer"
            )
        calls = [_Call(what, work) for what, work in works.items()]
        deadline = time.monotonic() + self.seconds
        for call in calls:
            call.start()
        for call in calls:
            call.join(max(0.0, deadline - time.monotonic()))
        late = tuple(call for call in calls if call.is_alive())
        if late:
            self._late = late
            names = ", ".join(call.name for call in late)
            raise EnvironmentFault(
                Code.GPU_TIMEOUT, "no answer in time", where=names, expected=f"an answer within {self.seconds:g} s"
            )
        return [call.result() for call in calls]


@final
class _Call(threading.Thread, Generic[_T]):
    """A thread that keeps what its work returned or raised."""

    def __init__(self, what: str, work: Callable[[], _T]) -> None:
        super().__init__(name=what, daemon=True)
        self._work = work
        self._returned: list[_T] = []
        self._raised: BaseException | None = None

    def run(self) -> None:
        try:
            self._returned.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised by `result` in the thread that asked
            self._raised = error

    def result(self) -> _T:
        if self._raised is not None:
            raise self._raised
        return self._returned[0]
