"""How a file is cut before it is hashed: into the parts of its format, and those into shards.

``*.safetensors`` and ``*.gguf`` must be what their names say; every other file is one part. A file is not recognised by
its content: what a server takes for a model is decided by its name too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.attester.weights import gguf, safetensors
from weighbridge.attester.weights.directory import changed, unreadable
from weighbridge.attester.weights.hashing import FileRange, check_same, open_found
from weighbridge.attester.weights.layout import Layout, Span
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.manifest import SHARD_SIZE, FileEntry, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.attester.weights.directory import FoundFile
    from weighbridge.proto.manifest import Kind

__all__ = ["Plan", "kind_by_name", "plan"]

# What is read of a GGUF file until its header is complete: a few kilobytes, with a vocabulary some megabytes.
_PREFIXES: Final = (64 * 1024, 8 * 1024 * 1024, gguf.HEADER_MAX)


@dataclass(frozen=True, slots=True)
class Plan:
    """A file and how it is cut."""

    file: FoundFile
    layout: Layout

    def ranges(self) -> list[FileRange]:
        """What is hashed by itself: the shards of every part, at least one each, in the order of the file."""
        return [
            FileRange(self.file, begin, min(begin + SHARD_SIZE, span.end))
            for span in self.layout.spans
            for begin in range(span.begin, max(span.end, span.begin + 1), SHARD_SIZE)
        ]

    def entry(self, digests: Iterator[bytes]) -> FileEntry:
        """The manifest's entry, from the digests of :meth:`ranges`.

        Raises:
            MalformedEvidence: a name or a shape that no manifest takes.
        """
        return FileEntry.of(self.file.path, self.layout.kind, [_part(span, digests) for span in self.layout.spans])


def plan(file: FoundFile) -> Plan:
    """Read the header of ``file``, if it is of a kind that has one.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE`` or ``WEIGHTS_CHANGED``, naming the path.
        MalformedEvidence: the file is not what its name says.
    """
    match kind_by_name(file.path):
        case "safetensors":
            return Plan(file, _safetensors(file))
        case "gguf":
            return Plan(file, _gguf(file))
        case "plain":
            return Plan(file, Layout("plain", (Span.unnamed(0, file.size),)))


def kind_by_name(path: str) -> Kind:
    """The kind that a file of this path must be."""
    if path.endswith(".safetensors"):
        return "safetensors"
    return "gguf" if path.endswith(".gguf") else "plain"


def _part(span: Span, digests: Iterator[bytes]) -> Part:
    size = span.end - span.begin
    shards = [next(digests) for _ in range(max(1, -(-size // SHARD_SIZE)))]
    return Part.of(span.name, span.dtype, span.shape, offset=span.begin, size=size, shards=shards)


def _safetensors(file: FoundFile) -> Layout:
    prefix = _read(file, 0, safetensors.LENGTH_SIZE)
    length = safetensors.header_length(prefix, file_size=file.size, where=file.path)
    header = _read(file, safetensors.LENGTH_SIZE, length)
    return safetensors.parse_header(header, file_size=file.size, where=file.path)


def _gguf(file: FoundFile) -> Layout:
    for size in _PREFIXES:
        layout = gguf.parse_header(_read(file, 0, size), file_size=file.size, where=file.path)
        if layout is not None:
            return layout
    raise MalformedEvidence(Code.TOO_LARGE, "header is too large", where=file.path)


def _read(file: FoundFile, begin: int, size: int) -> bytes:
    """``size`` bytes of the file as it was found, fewer only where it ends."""
    size = min(size, file.size - begin)
    data = bytearray()
    handle = open_found(file)
    try:
        while len(data) < size:
            chunk = os.pread(handle, size - len(data), begin + len(data))
            if not chunk:
                raise changed(file.path)
            data += chunk
        check_same(handle, file)
    except OSError as error:
        raise unreadable(file.path, error.strerror or str(error)) from error
    finally:
        os.close(handle)
    return bytes(data)
