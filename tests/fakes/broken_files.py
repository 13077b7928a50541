"""File systems that fail: one operation of many is refused, or power is cut between two of them."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path

from weighbridge.verifier.files import Files, PosixFiles


class Broken(Enum):
    """How an operation fails."""

    NOT_DONE = "not persisted"
    DONE = "persisted but reported failed"
    HALF = "half of it persisted"


class FaultyFiles:
    """The local file system, whose operation number ``at`` (counted from 1) fails; later ones work again."""

    def __init__(
        self, *, at: int = 0, how: Broken = Broken.NOT_DONE, number: int = errno.ENOSPC, inner: Files | None = None
    ) -> None:
        self._files = inner or PosixFiles()
        self._how = how
        self._number = number
        self._counting = threading.Lock()
        self.at = at
        self.count = 0

    def arm(self, at: int) -> None:
        """Count from here, and fail at operation ``at``."""
        self.count, self.at = 0, at

    def _do(self, operation: Callable[[], None], half: Callable[[], None] | None = None) -> None:
        with self._counting:
            self.count += 1
            spared = self.count != self.at
        if spared:
            operation()
            return
        if self._how is Broken.DONE:
            operation()
        elif self._how is Broken.HALF and half is not None:
            half()
        raise OSError(self._number, "broken on purpose")

    def write(self, path: Path, data: bytes, *, mode: int) -> None:
        self._do(
            lambda: self._files.write(path, data, mode=mode),
            lambda: self._files.write(path, data[: len(data) // 2], mode=mode),
        )

    def write_all(self, contents: Mapping[Path, bytes], *, mode: int, directories: Iterable[Path] = ()) -> None:
        for path, data in contents.items():
            self.write(path, data, mode=mode)
        for path in directories:
            self.sync_directory(path)

    def extend(self, path: Path, data: bytes, *, at: int, mode: int) -> None:
        self._do(
            lambda: self._files.extend(path, data, at=at, mode=mode),
            lambda: self._files.extend(path, data[: len(data) // 2], at=at, mode=mode),
        )

    def sync(self, path: Path) -> None:
        self._do(lambda: self._files.sync(path))

    def rename(self, source: Path, target: Path) -> None:
        self._do(lambda: self._files.rename(source, target))

    def sync_directory(self, path: Path) -> None:
        self._do(lambda: self._files.sync_directory(path))

    def make_directory(self, path: Path, *, mode: int) -> None:
        self._do(lambda: self._files.make_directory(path, mode=mode))

    def remove(self, path: Path) -> None:
        # Cleaning up is not counted: nobody relies on it.
        self._files.remove(path)


class PowerCut(Exception):
    """The machine is off."""


class VolatileFiles:
    """The local file system, with a model of what of it is on disk: contents once written, names once synced.

    After ``cut_after`` operations every further one raises :class:`PowerCut`; :meth:`survive` then writes down a state
    in which the disk may be found.
    """

    def __init__(self, root: Path, *, cut_after: int | None = None, watch: Callable[[], None] = lambda: None) -> None:
        self._files = PosixFiles()
        self._root = root
        self._watch = watch
        self._durable: dict[Path, bytes | None] = {}
        self.cut_after = cut_after
        self.count = 0

    def _step(self, operation: Callable[[], None]) -> None:
        if self.cut_after is not None and self.count >= self.cut_after:
            raise PowerCut
        self.count += 1
        operation()
        self._watch()

    def write(self, path: Path, data: bytes, *, mode: int) -> None:
        self._step(lambda: self._files.write(path, data, mode=mode))

    def write_all(self, contents: Mapping[Path, bytes], *, mode: int, directories: Iterable[Path] = ()) -> None:
        for path, data in contents.items():
            self.write(path, data, mode=mode)
        for path in directories:
            self.sync_directory(path)

    def extend(self, path: Path, data: bytes, *, at: int, mode: int) -> None:
        def extend() -> None:
            self._files.extend(path, data, at=at, mode=mode)
            self._content_synced(path)

        if self.cut_after is not None and self.count == self.cut_after:
            # Torn: what had begun to be written may be there, or not.
            self._files.extend(path, data[: len(data) // 2], at=at, mode=mode)
        self._step(extend)

    def sync(self, path: Path) -> None:
        def sync() -> None:
            self._files.sync(path)
            self._content_synced(path)

        self._step(sync)

    def _content_synced(self, path: Path) -> None:
        """What is in the file is on disk; whether its name is, is another matter."""
        if path in self._durable:
            self._durable[path] = path.read_bytes()

    def rename(self, source: Path, target: Path) -> None:
        self._step(lambda: self._files.rename(source, target))

    def make_directory(self, path: Path, *, mode: int) -> None:
        self._step(lambda: self._files.make_directory(path, mode=mode))

    def remove(self, path: Path) -> None:
        self._step(lambda: self._files.remove(path))

    def sync_directory(self, path: Path) -> None:
        def sync() -> None:
            for known in [name for name in self._durable if name.parent == path]:
                del self._durable[known]
            for name in path.iterdir():
                self._durable[name] = None if name.is_dir() else name.read_bytes()

        self._step(sync)

    def survive(self, target: Path, kept: Callable[[Path], bool]) -> None:
        """Write to ``target`` what is on disk: all that was synced, and of the rest what ``kept`` says."""
        visible = {name: None if name.is_dir() else name.read_bytes() for name in self._root.rglob("*")}
        found = dict(self._durable)
        for name in sorted(visible.keys() | self._durable.keys()):
            changed = visible.get(name, b"gone") != self._durable.get(name, b"gone")
            if changed and kept(name):
                if name in visible:
                    found[name] = visible[name]
                else:
                    del found[name]
        target.mkdir()
        for name, content in sorted(found.items()):
            path = target / name.relative_to(self._root)
            if not path.parent.is_dir():
                continue
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content)
