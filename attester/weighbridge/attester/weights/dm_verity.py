"""dm-verity: the root hash of the device beneath a directory, as far as the kernel tells it.

``Documentation/admin-guide/device-mapper/verity.rst``. A block device with verity is read-only, names and all, and each
block that is read is checked. Two sources, in this order: the device's table, which only the superuser may read; else
the kernel's command line, for the devices that systemd sets up from it (``roothash=`` and ``usrhash=``, see
systemd-veritysetup-generator(8)). Not proven by either: that the host's kernel tells the truth. A table that says
``ignore_corruption`` or ``check_at_most_once`` protects nothing, or not for long, and does not count; nor does a hash
that has not 32 bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import MalformedEvidence

if TYPE_CHECKING:
    from weighbridge.attester.weights.verity import Ioctl

__all__ = ["DeviceMapper"]

# linux/dm-ioctl.h: _IOWR(0xfd, DM_TABLE_STATUS_CMD, struct dm_ioctl), whose size is 312 bytes.
DM_TABLE_STATUS: Final = 0xC138FD0C
DM_STATUS_TABLE_FLAG: Final = 1 << 4
DM_BUFFER_FULL_FLAG: Final = 1 << 8

# version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid, data.
_DM_IOCTL: Final = struct.Struct("=3IIIIiIIIQ128s129s7s")
# sector_start, length, status, next, target_type.
_TARGET: Final = struct.Struct("=QQiI16s")
_VERSION: Final = (4, 0, 0)
_TABLE_MAX: Final = 16 * 1024
_UUID: Final = "CRYPT-VERITY-"
# version, data device, hash device, block sizes, blocks, first hash block, algorithm, digest, salt; then options.
_DIGEST, _FIXED = 8, 10
_WEAK: Final = frozenset({"ignore_corruption", "check_at_most_once"})
# Options of `systemd.verity_root_options=` that make a table weak.
_HASHES: Final = {"root": ("roothash",), "usr": ("usrhash",)}
_OPTIONS: Final = {"root": "systemd.verity_root_options", "usr": "systemd.verity_usr_options"}


@dataclass(frozen=True, slots=True)
class DeviceMapper:
    """The kernel's view of block devices; paths and ioctl can be others, for tests."""

    sys: Path = Path("/sys")
    cmdline: Path = Path("/proc/cmdline")
    control: Path = Path("/dev/mapper/control")
    ioctl: Ioctl = fcntl.ioctl

    def root_hash(self, device: int) -> bytes | None:
        """The root hash, 32 bytes, that the kernel enforces on the device of number ``device`` (``st_dev``).

        ``None`` when it is no dm-verity device, or nothing is known of how it is enforced. Never raises: what cannot be
        read protects nothing.
        """
        place = self.sys / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}" / "dm"
        uuid, name = _read(place / "uuid"), _read(place / "name")
        if uuid is None or name is None or not uuid.startswith(_UUID):
            return None
        table = self._table(device)
        return self._from_command_line(name) if table is None else _from_table(table)

    def _table(self, device: int) -> list[tuple[str, str]] | None:
        """Type and parameters of each target; ``None`` when we may not ask."""
        try:
            handle = os.open(self.control, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        head = _DM_IOCTL.pack(
            *_VERSION, _TABLE_MAX, _DM_IOCTL.size, 0, 0, DM_STATUS_TABLE_FLAG, 0, 0, device, b"", b"", b""
        )
        buffer = bytearray(head.ljust(_TABLE_MAX, b"\0"))
        try:
            self.ioctl(handle, DM_TABLE_STATUS, buffer)
        except OSError as error:
            return None if error.errno in {errno.EPERM, errno.EACCES} else []
        finally:
            os.close(handle)
        return _targets(buffer)

    def _from_command_line(self, name: str) -> bytes | None:
        words = (_read(self.cmdline) or "").split()
        settings = [word.partition("=") for word in words]
        if name not in _HASHES or any(key == _OPTIONS[name] for key, _, _ in settings):
            return None
        values = {value for key, _, value in settings if key in _HASHES[name]}
        return _hash(values.pop()) if len(values) == 1 else None


def _targets(buffer: bytearray) -> list[tuple[str, str]]:
    _, _, _, _, data_start, count, _, flags, *_ = _DM_IOCTL.unpack(buffer[: _DM_IOCTL.size])
    targets: list[tuple[str, str]] = []
    position = data_start
    if flags & DM_BUFFER_FULL_FLAG:
        return []
    for _ in range(count):
        if position + _TARGET.size > len(buffer):
            return []
        _, _, _, following, kind = _TARGET.unpack(buffer[position : position + _TARGET.size])
        parameters, end, _ = bytes(buffer[position + _TARGET.size :]).partition(b"\0")
        if not end:
            return []
        targets.append((_text(kind.rstrip(b"\0")), _text(parameters)))
        # Counted from the first target, not from this one.
        position = data_start + following
    return targets


def _from_table(targets: list[tuple[str, str]]) -> bytes | None:
    if len(targets) != 1:
        return None
    kind, parameters = targets[0]
    words = parameters.split()
    if kind != "verity" or len(words) < _FIXED or _WEAK & set(words[_FIXED:]):
        return None
    return _hash(words[_DIGEST])


def _hash(text: str) -> bytes | None:
    try:
        return strict.hex_decode(text, what="root hash", size=limits.DIGEST_SIZE)
    except MalformedEvidence:
        return None


def _text(data: bytes) -> str:
    return data.decode("ascii", errors="replace")


def _read(path: Path) -> str | None:
    try:
        return _text(path.read_bytes()[:_TABLE_MAX]).strip()
    except OSError:
        return None
