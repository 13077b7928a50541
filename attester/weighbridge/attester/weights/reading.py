"""Reading a range of an open file piece by piece: without a copy where nobody can shorten the file meanwhile.

Copying out of the page cache costs a tenth of what SHA-256 costs, and a third of what BLAKE3 costs. A mapping costs
nothing, but touching one whose file has become shorter kills the process (SIGBUS), so mappings are made only

- under a read lease of the kernel (``fcntl(2)``, ``F_SETLEASE``): who would open the file for writing, or shorten it,
  waits until the lease is given back, which is some ten milliseconds; a file that somebody has open for writing gets
  none, nor does one of another owner, nor one on a file system without leases;
- of pages that ``MADV_POPULATE_READ`` (Linux 5.14) has read: where the disk fails, it says so instead of killing.

Everything else is copied, with the same result.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["ReadFailedError", "read_pieces"]

_POPULATE_READ: Final = 22  # MADV_POPULATE_READ of linux/mman.h; in Python's mmap since 3.14 only
# Below, a copy is cheaper than a mapping.
_MAPPED_FROM: Final = 1024 * 1024


class ReadFailedError(Exception):
    """The system could not read the file; the message says why."""


def read_pieces(
    handle: int, begin: int, end: int, *, buffer: memoryview, step: int, consume: Callable[[memoryview], None]
) -> int:
    """Hand the bytes from ``begin`` up to ``end`` to ``consume``, in order, piece by piece.

    Args:
        handle: a regular file, open for reading, whose lease nobody else holds.
        begin: bytes from the start of the file.
        end: likewise.
        buffer: where bytes are copied to when they are.
        step: how many mapped bytes are handed over at once, where none are copied.
        consume: must not keep the piece, which is overwritten or unmapped afterwards.

    Returns:
        How many bytes were handed over: fewer than asked for when the file ends before.

    Raises:
        ReadFailedError: reading failed. What ``consume`` raises passes through.
    """
    position = begin
    if end - begin >= _MAPPED_FROM:
        os.posix_fadvise(handle, begin, end - begin, os.POSIX_FADV_WILLNEED)
        with _leased(handle) as leased:
            if leased:
                position = _mapped(handle, begin, end, step, consume)
    return _copied(handle, position, end, buffer, consume) - begin


@contextlib.contextmanager
def _leased(handle: int) -> Generator[bool]:
    """Whether there is a lease within; it is given back at the end."""
    try:
        # The kernel would announce who waits with SIGIO, which ends a process; SIGURG is ignored.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _mapped(handle: int, begin: int, end: int, size: int, consume: Callable[[memoryview], None]) -> int:
    """Hand over what can be mapped; the position reached. The caller holds the lease, and copies the rest."""
    start = begin - begin % mmap.ALLOCATIONGRANULARITY
    try:
        area = mmap.mmap(handle, end - start, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=start)
    except (OSError, ValueError):
        # A file system without mappings; or the file became shorter before the lease.
        return begin
    position = begin
    try:
        with memoryview(area) as view:
            for step in range(start, end, size):
                stop = min(step + size, end)
                if not _populated(area, step - start, stop - step):
                    # The kernel is older, or the disk fails: copying will tell.
                    break
                with view[position - start : stop - start] as piece:
                    consume(piece)
                position = stop
    finally:
        # Where consuming failed, its frames still hold the piece; the mapping goes with them.
        with contextlib.suppress(BufferError):
            area.close()
    return position


def _populated(area: mmap.mmap, begin: int, size: int) -> bool:
    try:
        area.madvise(_POPULATE_READ, begin, size)
    except OSError:
        return False
    return True


def _copied(handle: int, begin: int, end: int, buffer: memoryview, consume: Callable[[memoryview], None]) -> int:
    """Hand over copies; the position reached, which is before ``end`` only where the file ends there."""
    position = begin
    while position < end:
        try:
            count = os.preadv(handle, [buffer[: end - position]], position)
        except OSError as error:
            raise ReadFailedError(error.strerror or str(error)) from error
        if count == 0:
            break
        consume(buffer[:count])
        position += count
    return position
