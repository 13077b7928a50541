"""A file that one process at a time reads, thinks about and replaces: whole and durably, or it stays as it was."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.files import Files, PosixFiles, fault, install

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["LockedFile"]

_MODE: Final = 0o644


@final
class LockedFile:
    """The file ``path``, which nobody else has from :meth:`__enter__` to :meth:`__exit__`. It need not be there.

    The lock lies beside it, as ``.NAME.lock``: the file itself is replaced, and a lock on it would go with it.

    Args:
        path: its directory exists.
        files: the file system; the local one by default.
    """

    __slots__ = ("_files", "_lock", "path")

    def __init__(self, path: Path, *, files: Files | None = None) -> None:
        self.path: Final = path
        self._files = files or PosixFiles()
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            EnvironmentFault: ``STATE_LOCKED``, ``FILE_UNWRITABLE`` or ``DISK_FULL``.
        """
        path = self.path.with_name(f".{self.path.name}.lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise fault(error, path, "taking the lock") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise EnvironmentFault(Code.STATE_LOCKED, "another process has this file", where=str(self.path)) from error
        except OSError as error:
            os.close(descriptor)
            raise fault(error, path, "taking the lock") from error
        self._lock = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self, *, limit: int) -> bytes | None:
        """The content, ``None`` where there is no file.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
            MalformedEvidence: ``TOO_LARGE``.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise EnvironmentFault(Code.FILE_UNREADABLE, reason, where=str(self.path)) from error
        if len(data) > limit:
            raise MalformedEvidence(
                Code.TOO_LARGE, "file is too large", where=str(self.path), expected=f"<= {limit} bytes"
            )
        return data

    def replace(self, data: bytes) -> None:
        """Have it hold ``data``; when this returns, a power failure cannot take that away.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE`` or ``DISK_FULL``; what it held before, it holds still.
        """
        self._install(data, self.path)

    def keep(self, name: str, data: bytes) -> Path:
        """Put ``data`` beside it as ``PATH.name``, durably; returns where that is.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE`` or ``DISK_FULL``.
        """
        path = self.path.with_name(f"{self.path.name}.{name}")
        self._install(data, path)
        return path

    def _install(self, data: bytes, target: Path) -> None:
        if self._lock is None:
            raise RuntimeError("the lock is not held")
        try:
            install(self._files, data, target, staging=target.with_name(f".{target.name}.new"), mode=_MODE)
        except OSError as error:
            raise fault(error, target, "writing it") from error
