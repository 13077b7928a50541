"""A kernel with fs-verity and dm-verity: the ioctls of linux/fsverity.h and linux/dm-ioctl.h, with their errors.

The errors are those of ``Documentation/filesystems/fsverity.rst`` ("FS_IOC_ENABLE_VERITY", "FS_IOC_MEASURE_VERITY").
Structures are taken apart here byte by byte, and not by the code under test. A file is known by its inode.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

ENABLE, MEASURE, TABLE_STATUS = 0x40806685, 0xC0046686, 0xC138FD0C
BLOCK = 4096


def reference_digest(data: bytes, *, salt: bytes = b"") -> bytes:
    """The fs-verity digest, written down as simply as its description."""
    prefix = salt + bytes(-len(salt) % 64)

    def hashed(block: bytes) -> bytes:
        return hashlib.sha256(prefix + block.ljust(BLOCK, b"\0")).digest()

    level = [hashed(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]
    while len(level) > 1:
        level = [hashed(b"".join(level[start : start + 128])) for start in range(0, len(level), 128)]
    root = level[0] if level else bytes(32)
    descriptor = bytes([1, 1, 12, len(salt), 0, 0, 0, 0]) + len(data).to_bytes(8, "little")
    return hashlib.sha256(descriptor + root.ljust(64, b"\0") + salt.ljust(32, b"\0") + bytes(144)).digest()


class FakeKernel:
    """``fcntl.ioctl`` of such a kernel. ``fails`` is the errno of the next call; ``enabled`` maps inode to digest."""

    def __init__(self) -> None:
        self.enabled: dict[int, bytes] = {}
        self.algorithm = 1
        self.supported = True
        self.fails = 0
        self.table: list[tuple[str, str]] = []
        self.flags = 0
        self.asked: list[int] = []

    def __call__(self, handle: int, request: int, buffer: bytearray) -> int:
        self.asked.append(request)
        if self.fails:
            fails, self.fails = self.fails, 0
            raise _error(fails)
        if request == TABLE_STATUS:
            return self._status(buffer)
        if not self.supported:
            raise _error(errno.ENOTTY)
        if request == MEASURE:
            return self._measure(os.fstat(handle).st_ino, buffer)
        assert request == ENABLE
        return self._enable(handle, buffer)

    def _measure(self, inode: int, buffer: bytearray) -> int:
        digest = self.enabled.get(inode)
        if digest is None:
            raise _error(errno.ENODATA)
        if int.from_bytes(buffer[2:4], "little") < len(digest):
            raise _error(errno.EOVERFLOW)
        buffer[0:2] = self.algorithm.to_bytes(2, "little")
        buffer[2:4] = len(digest).to_bytes(2, "little")
        buffer[4 : 4 + len(digest)] = digest
        return 0

    def _enable(self, handle: int, buffer: bytearray) -> int:
        assert len(buffer) == 128
        version, algorithm, block, salt = (int.from_bytes(buffer[at : at + 4], "little") for at in (0, 4, 8, 12))
        if (version, algorithm, block, salt) != (1, 1, BLOCK, 0) or any(buffer[16:]):
            raise _error(errno.EINVAL)
        if os.fstat(handle).st_ino in self.enabled:
            raise _error(errno.EEXIST)
        self.enabled[os.fstat(handle).st_ino] = reference_digest(os.pread(handle, os.fstat(handle).st_size, 0))
        return 0

    def _status(self, buffer: bytearray) -> int:
        assert int.from_bytes(buffer[12:16], "little") == len(buffer)
        assert int.from_bytes(buffer[28:32], "little") & (1 << 4)
        start = int.from_bytes(buffer[16:20], "little")
        body = b""
        for kind, parameters in self.table:
            text = parameters.encode() + b"\0"
            text += bytes(-len(text) % 8)
            following = len(body) + 40 + len(text)
            body += bytes(8) + (800).to_bytes(8, "little") + bytes(4) + following.to_bytes(4, "little")
            body += kind.encode().ljust(16, b"\0") + text
        buffer[start : start + len(body)] = body
        buffer[20:24] = len(self.table).to_bytes(4, "little")
        buffer[28:32] = ((1 << 4) | self.flags).to_bytes(4, "little")
        return 0


def verity_device(directory: Path, device: int, *, name: str = "model", uuid: str = "CRYPT-VERITY-00-model") -> Path:
    """A ``/sys`` in which block device number ``device`` belongs to the device mapper."""
    place = directory / "sys" / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}" / "dm"
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    (place / "uuid").write_text(f"{uuid}\n")
    return directory / "sys"


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
