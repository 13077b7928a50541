"""Waiting for the first of several things without leaving the others behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["cancel", "first_of"]


async def first_of(*waits: Coroutine[object, object, None], watched: asyncio.Task[None] | None = None) -> None:
    """Return as soon as one of ``waits`` has, or ``watched`` is done; the other waits are cancelled, ``watched`` never.

    Raises:
        BaseException: what the wait that ended first raised.
    """
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(
            [*tasks, *([] if watched is None else [watched])], return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if task is not watched:
            task.result()


async def cancel(task: asyncio.Task[None]) -> None:
    """Cancel ``task`` and wait for its end; what it raised before stays in it."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
