"""A lock on a file, waited for with an end. It goes when its process does, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.files import fault

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["PATIENCE", "locked", "open_lock"]

PATIENCE: Final = 10.0
"""Seconds that are waited for a lock: many times what anybody holds it, unless a disk hangs."""

_FIRST_PAUSE: Final = 0.0002
_LONGEST_PAUSE: Final = 0.001
_MODE: Final = 0o600


def open_lock(path: Path) -> int:
    """A descriptor of the file ``path``, which is made if need be, for :func:`locked`.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE`` or ``DISK_FULL``.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    except OSError as error:
        raise fault(error, path, "opening the ledger") from error


@contextlib.contextmanager
def locked(descriptor: int, path: Path, *, patience: float = PATIENCE) -> Generator[None]:
    """Hold the lock on an open file while the block lasts; ``path`` is for the message, ``patience`` in seconds.

    Raises:
        EnvironmentFault: ``LEDGER_LOCKED`` when somebody else holds it all that time; ``FILE_UNWRITABLE`` where files
            cannot be locked.
    """
    _lock(descriptor, path, patience)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _lock(descriptor: int, path: Path, patience: float) -> None:
    until = time.monotonic() + patience
    pause = _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise EnvironmentFault(
                    Code.LEDGER_LOCKED,
                    f"another process has held the ledger for more than {patience:g} s",
                    where=str(path),
                    hint="it hangs, perhaps on its disk, or is of an earlier version of Weighbridge: stop that process",
                ) from error
        except OSError as error:
            raise fault(error, path, "locking the ledger") from error
        else:
            return
        # It is held for milliseconds: whoever waits looks often, and that costs little.
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
