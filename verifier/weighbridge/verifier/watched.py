"""Files that are looked at before each window: how one looks, and what is in it. Replaced in one step, by a rename."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NOT_THERE", "Fingerprint", "look", "read"]

Fingerprint = tuple[int, ...]
NOT_THERE: Final[Fingerprint] = ()
"""How a file looks that cannot be looked at."""


def look(path: Path) -> Fingerprint:
    """How the file looks now: another one in its place looks otherwise. Costs one ``stat``."""
    try:
        return _fingerprint(path.stat())
    except OSError:
        return NOT_THERE


def read(path: Path, *, limit: int) -> tuple[Fingerprint, bytes]:
    """How the file looks, and its bytes: of one that is longer than ``limit``, so many that every parser says so.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    try:
        with path.open("rb") as file:
            return _fingerprint(os.fstat(file.fileno())), file.read(limit + 2)
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, (error.strerror or type(error).__name__).lower(), where=str(path)
        ) from error


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
