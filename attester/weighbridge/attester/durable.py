"""Files that are there in whole or not at all, also after a power failure.

Every error of the file system becomes an :class:`EnvironmentFault`: ``DISK_FULL``, ``FILE_UNWRITABLE`` or
``FILE_UNREADABLE``, with the path.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Final

from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

__all__ = ["make_directory", "read_file", "write_file", "write_fault"]

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_fault(path: Path, error: OSError) -> EnvironmentFault:
    """The fault that ``error``, raised while writing ``path``, stands for."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        return EnvironmentFault(
            Code.DISK_FULL, "no space left to write", where=str(path), hint="free space on this file system, then retry"
        )
    return EnvironmentFault(
        Code.FILE_UNWRITABLE, f"cannot write: {reason}", where=str(path), hint="check the path and its owner"
    )


def make_directory(path: Path) -> None:
    """Make ``path`` (mode 0700) and its parents, synced.

    Raises:
        EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
    """
    missing: list[Path] = []
    step = path
    while not step.is_dir() and step != step.parent:
        missing.append(step)
        step = step.parent
    for directory in reversed(missing):
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(directory.parent)
        except OSError as error:
            raise write_fault(directory, error) from error


def write_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``: on return it is on disk; on failure the old content, or none, is.

    Raises:
        EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``; nothing half-written stays.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # A crash before this line leaves a dot file that nothing reads; after it, the whole new content.
        Path(temporary).replace(path)
        temporary = None
        _sync_directory(path.parent)
    except OSError as error:
        raise write_fault(path, error) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def read_file(path: Path, *, limit: int, what: str) -> bytes:
    """The content of ``path``, which must not be longer than ``limit`` bytes.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: ``TOO_LARGE``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EnvironmentFault(Code.FILE_UNREADABLE, f"cannot read {what}: {reason}", where=str(path)) from error
    if len(data) > limit:
        raise MalformedEvidence(Code.TOO_LARGE, f"{what} is too large", where=str(path), expected=f"<= {limit} bytes")
    return data


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
