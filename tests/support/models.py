"""Files of models as manifests name them, made from content: the reference implementation of every digest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from weighbridge.proto.manifest import SHARD_SIZE, FileEntry, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def shards(data: bytes) -> list[bytes]:
    """SHA-256 of each 64 MiB of ``data``; of nothing, one."""
    cuts: Iterable[int] = range(0, len(data), SHARD_SIZE) if data else [0]
    return [hashlib.sha256(data[cut : cut + SHARD_SIZE]).digest() for cut in cuts]


def part(data: bytes, *, offset: int = 0, name: str | None = None, dtype: str = "U8") -> Part:
    """A tensor of bytes, or (without a name) a range that belongs to none."""
    kind, shape = ("", ()) if name is None else (dtype, (len(data),))
    return Part.of(name, kind, shape, offset=offset, size=len(data), shards=shards(data))


def plain(path: str, data: bytes) -> FileEntry:
    """A file of no known format."""
    return FileEntry.of(path, "plain", [part(data)])


def safetensors(path: str, tensors: Mapping[str, bytes], *, header: bytes = b"header") -> FileEntry:
    """A file of tensors of bytes behind ``header``, which is not looked at."""
    parts = [part(header)]
    for name, data in tensors.items():
        parts.append(part(data, offset=parts[-1].offset + parts[-1].size, name=name))
    return FileEntry.of(path, "safetensors", parts)
