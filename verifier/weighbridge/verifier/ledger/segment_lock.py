"""Who writes to a segment of the content store: whoever has it locked, and nobody once it is not.

The lock goes with the process, or with the object that has it, however they end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from typing import TYPE_CHECKING, Self, final

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["SegmentLock"]

_MODE = 0o600


@final
class SegmentLock:
    """The lock on one segment. Made by :meth:`of_new`; kept as long as the segment may be written to."""

    def __init__(self, descriptor: int) -> None:
        # It is let go as well when nobody has this object any more: the segment's writer is gone then.
        self._release = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def of_new(cls, path: Path) -> Self:
        """Make an empty segment and lock it.

        Raises:
            OSError: it cannot be made.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        lock = cls(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.release()
            raise
        return lock

    @staticmethod
    @contextlib.contextmanager
    def of_ended(path: Path) -> Generator[bool]:
        """Whether the segment's writer is gone; while this lasts, nobody else asks the same.

        Raises:
            OSError: it cannot be opened or locked.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Let go of the segment; again, does nothing."""
        self._release()
