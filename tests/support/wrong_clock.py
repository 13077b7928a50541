"""The wall clock of other processes, as somebody sets it: `wrong_clock.c`, built, and what tells it by how much."""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path
from typing import Final, final

__all__ = ["WrongClock", "build"]

_SOURCE: Final = Path(__file__).with_suffix(".c")


def build(directory: Path) -> Path:
    """The library that shows a process another time."""
    library = directory / "wrong_clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    return library


@final
class WrongClock:
    """The wall clock of whatever is started with ``env``: right at first."""

    def __init__(self, library: Path, file: Path) -> None:
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), 8)
        self.env = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(file)}

    def set(self, *, wrong_by_ns: int) -> None:
        """Show the real time and so many nanoseconds."""
        # At once: `pack_into` writes zeros first, and whoever looks in between sees the right time.
        self._shared[:] = struct.pack("=q", wrong_by_ns)
