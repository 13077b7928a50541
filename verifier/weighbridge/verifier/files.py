"""Writing to disk so that it stays written: the few operations that the ledger and the stores are built from.

Everything durable goes through :class:`Files`, so that a test can break each single operation. The operations are as
small as the promises of POSIX: :meth:`Files.write` makes *content* durable, not its name; a name is durable once
:meth:`Files.sync_directory` of its directory has returned. All raise :class:`OSError`; :func:`fault` says what that
means to a caller.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Final, Protocol, TextIO, final

from weighbridge.proto.errors import Code, EnvironmentFault

__all__ = ["Directories", "Files", "PosixFiles", "fault", "install", "standard_input"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# So many are synced at once beside the one that is waited for here: all that an append to a ledger writes, as a rule.
_BESIDE: Final = 7


class Files(Protocol):
    """The operations that change a file system, each raising :class:`OSError`."""

    def write(self, path: Path, data: bytes, *, mode: int) -> None:
        """Create or overwrite ``path`` and return when its content is on disk. Not atomic: for staging only."""
        ...

    def write_all(self, contents: Mapping[Path, bytes], *, mode: int, directories: Iterable[Path] = ()) -> None:
        """:meth:`write` several files and :meth:`sync_directory` several directories, waiting for the disk once.

        When that fails, each of it may have been done or not, or in part.
        """
        ...

    def extend(self, path: Path, data: bytes, *, at: int, mode: int) -> None:
        """Let ``path``, created if need be, end with ``data`` from offset ``at`` on, and return when it is on disk.

        What lies before ``at`` is not touched, whatever fails; what lies behind is cut off first.
        """
        ...

    def sync(self, path: Path) -> None:
        """Return when the content of ``path`` is on disk, whoever wrote it."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Put ``source`` in the place of ``target`` atomically; durable after :meth:`sync_directory`."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Return when the names in ``path`` are on disk."""
        ...

    def make_directory(self, path: Path, *, mode: int) -> None:
        """Create ``path``, whose parent exists; nothing happens when it is a directory already."""
        ...

    def remove(self, path: Path) -> None:
        """Delete a file or a whole directory; nothing happens when there is none. Nobody relies on it being durable."""
        ...


@final
class PosixFiles:
    """:class:`Files` on a local file system. Threads may share it, but not a process that is forked: it has none."""

    __slots__ = ("_beside",)

    def __init__(self) -> None:
        # Its threads are started once there is more than one thing to sync, and end with this object.
        self._beside: Executor = ThreadPoolExecutor(_BESIDE, thread_name_prefix="sync")

    def write(self, path: Path, data: bytes, *, mode: int) -> None:
        """See :meth:`Files.write`."""
        self.write_all({path: data}, mode=mode)

    def write_all(self, contents: Mapping[Path, bytes], *, mode: int, directories: Iterable[Path] = ()) -> None:
        """See :meth:`Files.write_all`."""
        with contextlib.ExitStack() as opened:
            descriptors: list[int] = []
            for path, data in contents.items():
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
                opened.callback(os.close, descriptor)
                descriptors.append(descriptor)
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            for path in directories:
                descriptors.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                opened.callback(os.close, descriptors[-1])
            _sync_together(descriptors, self._beside)

    def extend(self, path: Path, data: bytes, *, at: int, mode: int) -> None:
        """See :meth:`Files.extend`."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            if os.fstat(descriptor).st_size > at:
                os.ftruncate(descriptor, at)
            rest = memoryview(data)
            while rest:
                written = os.pwrite(descriptor, rest, at)
                rest, at = rest[written:], at + written
            # The new size is needed to read the data: it is synced with it.
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """See :meth:`Files.sync`."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """See :meth:`Files.rename`."""
        source.replace(target)

    def sync_directory(self, path: Path) -> None:
        """See :meth:`Files.sync_directory`."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_directory(self, path: Path, *, mode: int) -> None:
        """See :meth:`Files.make_directory`."""
        try:
            path.mkdir(mode)
        except FileExistsError:
            if not path.is_dir():
                raise

    def remove(self, path: Path) -> None:
        """See :meth:`Files.remove`."""
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _sync_together(descriptors: Sequence[int], beside: Executor) -> None:
    """Return when all are on disk; ``beside`` has threads that wait for all but the first.

    At the same time: a file system writes its journal once for those that wait together, and once for each that comes
    alone. The interpreter lets go of its lock meanwhile. The threads are kept: to start one takes longer than all else.
    """
    first, *others = descriptors
    waiting: list[Future[None]] = []
    try:
        waiting.extend(beside.submit(os.fsync, descriptor) for descriptor in others)
        os.fsync(first)
    finally:
        # Whatever failed: nothing is closed that is being synced.
        _ = wait(waiting)
    for synced in waiting:
        synced.result()


@final
class Directories:
    """The directories below ``root``, and which of their names are known to be on disk.

    That a directory can be seen does not mean that its name was synced: whoever made it may have failed or been killed
    just then. So nothing is taken as durable that was not synced through this object.

    Args:
        files: the file system.
        root: exists, durably.
        mode: permissions of directories made here.
    """

    __slots__ = ("_durable", "_files", "_mode", "_root")

    def __init__(self, files: Files, root: Path, *, mode: int) -> None:
        self._files = files
        self._root = root
        self._mode = mode
        self._durable: set[Path] = {root}

    def make(self, path: Path) -> tuple[Path, ...]:
        """Make ``path`` and what is missing above it; returns those whose names may not be on disk, top first."""
        pending: list[Path] = []
        while path not in self._durable:
            pending.append(path)
            path = path.parent
        pending.reverse()
        for directory in pending:
            self._files.make_directory(directory, mode=self._mode)
        return tuple(pending)

    def synced(self, paths: Iterable[Path]) -> None:
        """Take note that the parents of ``paths`` have been synced."""
        self._durable.update(paths)

    def sync(self, path: Path) -> None:
        """Make ``path`` and see to it that its name and all names above it are on disk."""
        pending = self.make(path)
        for directory in pending:
            self._files.sync_directory(directory.parent)
        self.synced(pending)

    def forget(self, path: Path) -> None:
        """Take note that ``path`` is about to be removed."""
        self._durable.discard(path)


def install(files: Files, data: bytes, target: Path, *, staging: Path, mode: int) -> None:
    """Put ``data`` at ``target`` durably: a reader sees the old file or the new one, whole, whatever fails.

    Args:
        files: the file system.
        data: the content.
        target: where; its directory exists.
        staging: a name in use by nobody else, on the same file system.
        mode: permissions of the new file.
    """
    try:
        # If power fails here: only the staging file is there, which nobody reads.
        files.write(staging, data, mode=mode)
        # If power fails here: the old file or the new one. Its content was synced before it got this name.
        files.rename(staging, target)
    except OSError:
        # Half of it may have filled the disk.
        with contextlib.suppress(OSError):
            files.remove(staging)
        raise
    files.sync_directory(target.parent)


def standard_input() -> IO[bytes]:
    """Standard input as bytes.

    Raises:
        OSError: it is closed.
    """
    # Python's types do not know it, but a process may be started without: `weighbridge verify bundle - <&-`.
    stream: TextIO | None = sys.stdin
    if stream is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return stream.buffer


def fault(error: OSError, path: Path, doing: str) -> EnvironmentFault:
    """What ``error`` means: the disk is full, or ``path`` cannot be written.

    Args:
        error: what the system said.
        path: the file or directory that was being changed.
        doing: what was being done, for the message: "appending to the ledger".
    """
    reason = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return EnvironmentFault(
            Code.DISK_FULL, f"no space left while {doing}", where=str(path), hint="Free some space and try again."
        )
    return EnvironmentFault(Code.FILE_UNWRITABLE, f"{reason.lower()} while {doing}", where=str(path))
