"""What lies below a model's directory: every regular file, or an error that names what is in the way.

Nothing is left out but what the caller names, path by path: hidden files count, as do empty ones. Symbolic links are
followed while they stay inside. Refused: what is neither file nor directory (a FIFO, a device, a socket), names that
are not UTF-8 or have control characters, links out of the directory or in a circle, and two names in one directory that
differ only by case or by Unicode normalisation. A file system that folds names would keep one of the two, and which one
a server then loads depends on the order in which they were copied.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.manifest import check_path
from weighbridge.proto.model_files import PATH_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["FoundFile", "Identity", "changed", "check_ignored", "identity", "resolved", "unreadable", "walk"]

# Device, inode, size, and both times: a write changes the last, and no unprivileged process can set it back.
Identity = tuple[int, int, int, int, int]

_DIRECTORIES_MAX: Final = limits.MANIFEST_FILES_MAX
_OUT: Final = "remove it, or leave it out: --ignore"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file: its path below the directory, where it really is, and what it was when it was found."""

    path: str
    real: Path
    identity: Identity

    @property
    def size(self) -> int:
        """Its size in bytes when it was found."""
        return self.identity[2]


def identity(status: os.stat_result) -> Identity:
    """What must stay the same for a file to count as unchanged."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def unreadable(path: str, reason: str, *, hint: str = "") -> EnvironmentFault:
    """The fault for a path that cannot be measured."""
    return EnvironmentFault(Code.WEIGHTS_UNREADABLE, f"cannot measure: {reason}", where=_shown(path), hint=hint)


def changed(path: str) -> EnvironmentFault:
    """The fault for a path that changed while it was measured."""
    return EnvironmentFault(
        Code.WEIGHTS_CHANGED,
        "changed while it was measured",
        where=_shown(path),
        hint="measure again once nothing writes to the directory",
    )


def resolved(path: Path) -> Path:
    """Where ``path`` leads, by every link; as far as they lead, should some be broken or in a circle. Never raises.

    ``Path.resolve`` raises ``RuntimeError`` for a circle before Python 3.13: whoever walks or opens the result is told
    by the system.
    """
    return Path(os.path.realpath(path))


def check_ignored(ignore: Iterable[str]) -> tuple[str, ...]:
    """The paths of ``ignore``, sorted and each once; a final slash, as shells complete directories, is dropped.

    Raises:
        ValueError: for what is no plain path below the directory.
    """
    paths = sorted({path.removesuffix("/") for path in ignore})
    for path in paths:
        try:
            check_path(path, where="ignore")
        except MalformedEvidence as error:
            raise ValueError(f"{path!r} is not a path below the directory") from error
    return tuple(paths)


def walk(root: Path, *, ignore: Iterable[str] = ()) -> tuple[FoundFile, ...]:
    """Every regular file below ``root``, sorted by path. ``root`` must be resolved.

    Args:
        root: the directory.
        ignore: paths relative to it, of files or of directories with all that is in them; exact, no patterns. Nothing
            need be there. They are left out by the name under which they would be found, not by what it links to.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE``, ``WEIGHTS_AMBIGUOUS``.
        ValueError: for what is no plain path below the directory.
    """
    ignored = frozenset(check_ignored(ignore))
    try:
        status = root.stat()
    except OSError as error:
        raise unreadable(str(root), error.strerror or str(error)) from error
    if not stat.S_ISDIR(status.st_mode):
        raise unreadable(str(root), "not a directory")
    found = sorted(_Walk(root, ignored).files(), key=lambda file: file.path)
    if not found:
        raise unreadable(str(root), "no file in the directory")
    return tuple(found)


class _Walk:
    def __init__(self, root: Path, ignored: frozenset[str]) -> None:
        self._root = root
        self._ignored = ignored
        self._files = 0
        self._directories = 0

    def files(self) -> Iterator[FoundFile]:
        # Each pending directory knows its ancestors, since a link may lead back to one of them.
        pending: list[tuple[str, Path, frozenset[Path]]] = [("", self._root, frozenset({self._root}))]
        while pending:
            prefix, directory, ancestors = pending.pop()
            self._directories += 1
            if self._directories > _DIRECTORIES_MAX:
                raise unreadable(prefix, f"more than {_DIRECTORIES_MAX} directories")
            for name in self._names(prefix, directory):
                path = f"{prefix}{name}"
                real, status = self._status(path, directory / name)
                if stat.S_ISDIR(status.st_mode):
                    if real in ancestors:
                        raise unreadable(path, "symbolic link to a directory that contains it")
                    pending.append((f"{path}/", real, ancestors | {real}))
                elif stat.S_ISREG(status.st_mode):
                    self._files += 1
                    if self._files > limits.MANIFEST_FILES_MAX:
                        raise unreadable(path, f"more than {limits.MANIFEST_FILES_MAX} files")
                    yield FoundFile(path, real, identity(status))
                else:
                    raise unreadable(path, "not a regular file", hint=_OUT)

    def _names(self, prefix: str, directory: Path) -> list[str]:
        try:
            names = sorted(entry.name for entry in directory.iterdir())
        except OSError as error:
            raise unreadable(prefix or str(directory), error.strerror or str(error)) from error
        names = [name for name in names if f"{prefix}{name}" not in self._ignored]
        folded: dict[str, str] = {}
        for name in names:
            path = f"{prefix}{name}"
            try:
                check_path(path, where=path)
            except MalformedEvidence as error:
                raise unreadable(
                    path,
                    f"not a name for a manifest ({error.code})",
                    hint=f"rename it: UTF-8 without control characters, at most {PATH_MAX} bytes",
                ) from error
            other = folded.setdefault(_folded(name), path)
            if other != path:
                raise _ambiguous(other, path)
        return names

    def _status(self, path: str, location: Path) -> tuple[Path, os.stat_result]:
        try:
            status = location.lstat()
            if not stat.S_ISLNK(status.st_mode):
                return location, status
            real = location.resolve(strict=True)
            if not real.is_relative_to(self._root):
                raise unreadable(
                    path,
                    "symbolic link out of the directory",
                    hint="measure the directory that holds both, or a copy without links",
                )
            return real, real.lstat()
        # RuntimeError: how pathlib reports a loop of links before Python 3.13.
        except (OSError, RuntimeError) as error:
            if isinstance(error, FileNotFoundError) and location.is_symlink():
                raise unreadable(path, "symbolic link to nothing", hint=_OUT) from error
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise unreadable(path, reason) from error


def _folded(name: str) -> str:
    """What file systems that fold names compare: Unicode 3.13 D145, canonical caseless matching."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _ambiguous(one: str, other: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.WEIGHTS_AMBIGUOUS,
        "two names differ only by case or Unicode normalisation",
        # Both may look the same.
        where=f"{one!a} and {other!a}",
        hint="rename one, or move it away: a file system that folds names keeps one of them only",
    )


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)
