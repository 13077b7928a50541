"""Where blocking work is done: TPM, GPUs and disk, one call after the other, away from the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Inline", "Offload", "Worker"]

_T = TypeVar("_T")


class Offload(Protocol):
    """Runs blocking calls in the order in which they were handed over, never two at once."""

    async def __call__(self, work: Callable[[], _T]) -> _T:
        """What ``work`` returns or raises."""
        ...


@final
class Worker:
    """One thread. Work that was begun is ended: a cancelled caller does not leave a window half sealed."""

    __slots__ = ("_executor",)

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="weighbridge-seal")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=True)

    async def __call__(self, work: Callable[[], _T]) -> _T:
        """See :meth:`Offload.__call__`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


@final
class Inline:
    """No thread: for devices that do not block, such as emulated ones."""

    __slots__ = ()

    async def __call__(self, work: Callable[[], _T]) -> _T:
        """See :meth:`Offload.__call__`."""
        return work()
