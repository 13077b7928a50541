"""Structures of UEFI inside the events of a boot log: variables, images, tagged events.

Each is read where the data are exactly one, else there is none: firmware in the field writes other bytes too, and
whether an event's digest vouches for its data is said by its binding, never here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from weighbridge.proto.errors import MalformedEvidence
from weighbridge.proto.eventlog.reader import LogReader

__all__ = ["GLOBAL_VARIABLE", "IMAGE_SECURITY", "Variable", "image_path", "tagged", "utf16", "variable"]

# UEFI 2.10 §3.3 and §32.4, as on the wire: 8be4df61-93ca-11d2-aa0d-00e098032b8c, d719b2cb-3d3a-4596-a3bc-dad00e67656f.
GLOBAL_VARIABLE: Final = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
IMAGE_SECURITY: Final = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")

_GUID_SIZE: Final = 16
# UEFI 2.10 §10.3.5.4: a file path of a media device; §10.3.1: the end of the whole path.
_FILE_PATH: Final = (4, 4)
_END: Final = 0x7F
_NODE_SIZE: Final = 4


@final
@dataclass(frozen=True, slots=True)
class Variable:
    """A UEFI_VARIABLE_DATA (PC Client Platform Firmware Profile 1.06 §10.2.6). ``guid`` is as on the wire."""

    guid: bytes
    name: str
    value: bytes


def variable(data: bytes) -> Variable | None:
    """The variable that fills ``data``."""
    try:
        reader = LogReader(data, "variable")
        guid = reader.take(_GUID_SIZE)
        units, size = reader.le64(), reader.le64()
        name = reader.take(2 * units).decode("utf-16-le")
        value = reader.take(size)
        reader.end()
    except (MalformedEvidence, UnicodeDecodeError):
        return None
    return Variable(guid, name, value)


def image_path(data: bytes) -> str:
    r"""The file that a UEFI_IMAGE_LOAD_EVENT names (§10.2.3), such as ``\EFI\BOOT\BOOTX64.EFI``; empty where none."""
    try:
        reader = LogReader(data, "image")
        reader.take(3 * 8)  # where it lies in memory, how long it is, where it was linked for
        path = reader.part(reader.le64())
        parts: list[str] = []
        while path.more:
            kind, subtype, size = path.u8(), path.u8(), path.le16()
            if kind == _END or size < _NODE_SIZE:
                break
            content = path.take(size - _NODE_SIZE)
            if (kind, subtype) == _FILE_PATH:
                parts.append(content.decode("utf-16-le").rstrip("\0"))
    except (MalformedEvidence, UnicodeDecodeError):
        return ""
    text = "".join(parts)
    return text if text.isprintable() else ""


def tagged(data: bytes) -> tuple[int, bytes] | None:
    """The tag and the data of a TCG_PCClientTaggedEvent that fills ``data`` (§10.2.2)."""
    try:
        reader = LogReader(data, "event")
        tag = reader.le32()
        content = reader.sized()
        reader.end()
    except MalformedEvidence:
        return None
    return tag, content


def utf16(data: bytes) -> str | None:
    """The text in ``data`` before its first zero, where that is printable UTF-16.

    An odd byte at the end is taken: systemd's boot loader wrote one until v250.
    """
    text, _, _ = (data[:-1] if len(data) % 2 else data).decode("utf-16-le", "replace").partition("\0")
    return text if text and text.isprintable() and "\ufffd" not in text else None
