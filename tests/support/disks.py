"""A disk that can be filled and freed again while programs write to it."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_SIZE = "16m"
_BLOCK = 4096


class Disk:
    """A small file system of its own where we may mount one; elsewhere, processes that may not write any more."""

    def __init__(self, path: Path, *, mounted: bool) -> None:
        self.path = path
        self.mounted = mounted
        self._stopped: dict[int, tuple[int, int]] = {}

    def fill(self, *pids: int) -> None:
        """From now on there is no space left for the processes ``pids``."""
        if self.mounted:
            with (self.path / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(_BLOCK))
            return
        for pid in pids:
            self._stopped[pid] = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, self._stopped[pid][1]))

    def free(self) -> None:
        """There is space again."""
        if self.mounted:
            (self.path / "ballast").unlink()
        for pid, limits in self._stopped.items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        self._stopped.clear()


@contextlib.contextmanager
def small_disk(path: Path) -> Generator[Disk]:
    """A disk at ``path``, which is made."""
    path.mkdir()
    mounted = os.geteuid() == 0 and _mount("-t", "tmpfs", "-o", f"size={_SIZE},mode=700", "tmpfs", str(path))
    try:
        yield Disk(path, mounted=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=30)


@contextlib.contextmanager
def full_disk(path: Path) -> Generator[Path]:
    """A directory on a disk that is full from the beginning; without the right to mount one, read-only to us."""
    with small_disk(path) as disk:
        if not disk.mounted:
            path.chmod(0o500)
        else:
            disk.fill()
        try:
            yield path
        finally:
            path.chmod(0o700)


def _mount(*arguments: str) -> bool:
    # Containers may keep even root from mounting.
    return subprocess.run(["mount", *arguments], check=False, capture_output=True, timeout=30).returncode == 0
