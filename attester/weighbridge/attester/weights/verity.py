"""fs-verity: the digest of a file as the kernel computes it, whether the kernel enforces it, and how to switch it on.

Linux, ``Documentation/filesystems/fsverity.rst`` ("File digest computation", "User API"); SHA-256, blocks of 4096
bytes, as ``fsverity digest`` has by default. A file with verity cannot be written to, and every read of it is checked
against its digest. Not protected by it: the file's *name*. Whoever may write to the directory can put another file
there under the same name; what a record says of a file is for the file that was open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Ioctl", "KernelVerity", "enable", "file_digest", "kernel_verity"]

# fcntl.ioctl, or what stands in for a kernel: descriptor, request, and the structure, which it may change.
Ioctl = Callable[[int, int, bytearray], object]
State = Literal["enabled", "not-enabled", "unsupported"]

# linux/fsverity.h: _IOW('f', 133, struct fsverity_enable_arg), _IOWR('f', 134, struct fsverity_digest).
FS_IOC_ENABLE_VERITY: Final = 0x40806685
FS_IOC_MEASURE_VERITY: Final = 0xC0046686
FS_VERITY_HASH_ALG_SHA256: Final = 1

_BLOCK: Final = 4096
_LOG_BLOCK: Final = 12
_HASH_SIZE: Final = 32
_SALT_MAX: Final = 32
# A salt is padded to SHA-256's own block.
_SALT_UNIT: Final = 64
_DIGEST_MAX: Final = 64
_READ: Final = 1024 * 1024
# version, algorithm, log2 of the block, salt's size, reserved, file's size, root hash, salt, reserved.
_DESCRIPTOR: Final = struct.Struct("<BBBBIQ64s32s144s")
# version, algorithm, block, salt's size and address, signature's size, reserved, signature's address, reserved.
_ENABLE_ARG: Final = struct.Struct("=IIIIQIIQ88s")
_DIGEST_HEAD: Final = struct.Struct("=HH")
_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY})


@dataclass(frozen=True, slots=True)
class KernelVerity:
    """What the kernel says of an open file. ``digest`` is there when it enforces a SHA-256 digest, and only then."""

    state: State
    digest: bytes | None = None


def file_digest(handle: int, size: int, *, salt: bytes = b"") -> bytes:
    """The fs-verity digest of the ``size`` bytes of an open file: what the kernel would enforce. Memory is constant.

    Args:
        handle: a descriptor that can be read at any position.
        size: the file's size in bytes.
        salt: at most 32 bytes.

    Raises:
        EnvironmentFault: ``WEIGHTS_CHANGED`` when the file ends before ``size``.
        OSError: it cannot be read.
    """
    if len(salt) > _SALT_MAX:
        raise ValueError(f"a salt has at most {_SALT_MAX} bytes")
    tree = _Tree(salt)
    for block in _blocks(handle, size):
        tree.add(block)
    root = tree.root() if size else bytes(_HASH_SIZE)
    # The structure pads root and salt with zeros.
    descriptor = _DESCRIPTOR.pack(1, FS_VERITY_HASH_ALG_SHA256, _LOG_BLOCK, len(salt), 0, size, root, salt, b"")
    return sha256(descriptor).digest()


def kernel_verity(handle: int, *, where: str, ioctl: Ioctl = fcntl.ioctl) -> KernelVerity:
    """What the kernel enforces of an open file: a digest, nothing, or that it cannot say.

    A file that has verity with another hash than SHA-256 counts as one that has none.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE`` when the kernel answers with an error that none of these explains.
    """
    buffer = bytearray(_DIGEST_HEAD.pack(0, _DIGEST_MAX) + bytes(_DIGEST_MAX))
    try:
        ioctl(handle, FS_IOC_MEASURE_VERITY, buffer)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return KernelVerity("unsupported")
        if error.errno == errno.ENODATA:
            return KernelVerity("not-enabled")
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, f"the kernel gives no fs-verity digest: {error.strerror or error}", where=where
        ) from error
    algorithm, size = _DIGEST_HEAD.unpack(buffer[: _DIGEST_HEAD.size])
    if algorithm != FS_VERITY_HASH_ALG_SHA256 or size != _HASH_SIZE:
        return KernelVerity("not-enabled")
    return KernelVerity("enabled", bytes(buffer[_DIGEST_HEAD.size : _DIGEST_HEAD.size + _HASH_SIZE]))


def enable(handle: int, *, where: str, ioctl: Ioctl = fcntl.ioctl) -> bool:
    """Have the kernel enforce an open file's digest from now on, for good; ``False`` if it did already.

    Args:
        handle: opened for reading; nobody may have the file open for writing.
        where: the file's path, for messages.
        ioctl: the kernel.

    Raises:
        EnvironmentFault: ``VERITY_UNSUPPORTED`` where kernel or file system cannot; ``FILE_UNWRITABLE`` when it may
            not be done: no write permission, a file system mounted read-only, or the file is open for writing.
    """
    argument = _ENABLE_ARG.pack(1, FS_VERITY_HASH_ALG_SHA256, _BLOCK, 0, 0, 0, 0, 0, b"")
    try:
        ioctl(handle, FS_IOC_ENABLE_VERITY, bytearray(argument))
    except OSError as error:
        if error.errno == errno.EEXIST:
            return False
        if error.errno in _UNSUPPORTED:
            raise EnvironmentFault(
                Code.VERITY_UNSUPPORTED, "kernel or file system has no fs-verity", where=where
            ) from error
        hint = "something has the file open for writing: end it first" if error.errno == errno.ETXTBSY else ""
        raise EnvironmentFault(
            Code.FILE_UNWRITABLE, f"cannot enable fs-verity: {error.strerror or error}", where=where, hint=hint
        ) from error
    return True


class _Tree:
    """The Merkle tree's levels, each with the hashes that do not fill a block yet."""

    def __init__(self, salt: bytes) -> None:
        padded = salt.ljust(-(-len(salt) // _SALT_UNIT) * _SALT_UNIT, b"\0")
        self._start = sha256(padded)
        self._levels = [bytearray()]

    def add(self, block: memoryview | bytes) -> None:
        self._append(0, self._hash(block))

    def root(self) -> bytes:
        level = 0
        while True:
            hashes = self._levels[level]
            if level == len(self._levels) - 1 and len(hashes) == _HASH_SIZE:
                return bytes(hashes)
            if hashes:
                self._append(level + 1, self._hash(bytes(hashes)))
            level += 1

    def _append(self, level: int, value: bytes) -> None:
        if level == len(self._levels):
            self._levels.append(bytearray())
        hashes = self._levels[level]
        hashes += value
        if len(hashes) == _BLOCK:
            full = bytes(hashes)
            hashes.clear()
            self._append(level + 1, self._hash(full))

    def _hash(self, block: memoryview | bytes) -> bytes:
        value = self._start.copy()
        value.update(block)
        if len(block) < _BLOCK:
            value.update(bytes(_BLOCK - len(block)))
        return value.digest()


def _blocks(handle: int, size: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_READ))
    position = 0
    while position < size:
        wanted = buffer[: size - position]
        filled = 0
        while filled < len(wanted):
            count = os.preadv(handle, [wanted[filled:]], position + filled)
            if count == 0:
                raise EnvironmentFault(
                    Code.WEIGHTS_CHANGED,
                    "the file became shorter while it was read",
                    where=f"byte {position + filled}",
                    hint="measure again once nothing writes to the directory",
                )
            filled += count
        for start in range(0, filled, _BLOCK):
            yield wanted[start : start + _BLOCK]
        position += filled
