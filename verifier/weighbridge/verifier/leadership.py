"""Turns of leading: of the processes that judge on one state, one at a time writes to ledger and store.

Judging needs no turn. Whatever appends to the ledger, or tells the store of what is in it, happens in one: so nobody
appends behind what another process has begun, and what was compared with the store before an append still holds after
it. A process that ends, however it ends, leads no more.

What a turn need not be is a fence: a process that was paused may go on to write when it has lost its turn, where the
way in which turns are given lets that happen. So the commit of the ledger is a compare-and-swap against the head that
was there when the turn began, each change of a session's row is one against where that session stood, and
:meth:`Leadership.require` asks once more before the commit.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol, final

from weighbridge.verifier.file_lock import PATIENCE, locked, open_lock

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["FileLeadership", "Leadership"]


class Leadership(Protocol):
    """Gives turns to this process. One thread at a time uses an object, and turns do not nest."""

    def turn(self) -> AbstractContextManager[None]:
        """Lead while the block lasts.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED`` when others lead for too long, or whoever gives turns cannot be reached:
                the block has not begun.
            RuntimeError: in a turn.
        """
        ...

    def require(self) -> None:
        """Return if this process leads, as far as can be told: called in a turn before what cannot be taken back.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED``: the turn was lost.
            RuntimeError: outside a turn.
        """
        ...

    def close(self) -> None:
        """Let go of what is held open; closing twice is allowed."""
        ...


@final
class FileLeadership:
    """Turns among the processes of one machine, by a lock on the file ``path``, which is made if need be.

    The lock goes when its process does, and not before: there is nothing to fence.
    """

    __slots__ = ("_descriptor", "_leading", "_path")

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE`` or ``DISK_FULL``.
        """
        self._path = path
        self._leading = False
        self._descriptor: int | None = open_lock(path)

    @contextlib.contextmanager
    def turn(self) -> Generator[None]:
        """See :meth:`Leadership.turn`."""
        if self._leading or self._descriptor is None:
            raise RuntimeError("turns do not nest" if self._leading else "closed")
        with locked(self._descriptor, self._path, patience=PATIENCE):
            self._leading = True
            try:
                yield
            finally:
                self._leading = False

    def require(self) -> None:
        """See :meth:`Leadership.require`."""
        if not self._leading:
            raise RuntimeError("not in a turn")

    def close(self) -> None:
        """See :meth:`Leadership.close`."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
