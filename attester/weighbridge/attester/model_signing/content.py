"""The files of a directory as a model signature sees them: which count, and the digests of those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.attester.weights.directory import FoundFile, changed, walk
from weighbridge.attester.weights.hashing import FileRange, hash_ranges
from weighbridge.proto.model_signing import ignore_rule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from weighbridge.attester.weights.hashing import Progress
    from weighbridge.proto.model_signing import FileHash

__all__ = ["Content", "content_of", "digests", "ranges_of"]


@dataclass(frozen=True, slots=True)
class Content:
    """``files`` count, by path, in order; ``left_out`` are there and ignored; ``links`` count, through a link."""

    root: Path
    ignore: tuple[str, ...]
    files: dict[str, FoundFile]
    left_out: tuple[str, ...]
    links: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files that count."""
        return sum(file.size for file in self.files.values())


def content_of(root: Path, ignore: tuple[str, ...]) -> Content:
    """What lies below ``root``, which must be resolved; ``ignore``, and what lies below those paths, is left out.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE``, also for what cannot be a model's file below an ignored path.
    """
    ignored = ignore_rule(ignore)
    found = walk(root)
    files = {file.path: file for file in found if not ignored(file.path)}
    links = tuple(path for path, file in files.items() if file.real != root / path)
    return Content(root, ignore, files, tuple(file.path for file in found if ignored(file.path)), links)


def ranges_of(file: FoundFile, shard_size: int | None) -> list[FileRange]:
    """The whole file, or its shards: none for an empty one."""
    if shard_size is None:
        return [FileRange(file, 0, file.size)]
    return [FileRange(file, begin, min(begin + shard_size, file.size)) for begin in range(0, file.size, shard_size)]


def digests(
    content: Content, ranges: Sequence[FileRange], *, algorithm: FileHash, progress: Progress | None
) -> list[bytes]:
    """The digest of each range, of a directory that holds the same files afterwards.

    Raises:
        EnvironmentFault: ``WEIGHTS_CHANGED``, ``WEIGHTS_UNREADABLE``, or ``TOOL_MISSING`` for BLAKE3.
    """
    found = hash_ranges(ranges, algorithm=algorithm, progress=progress)
    now = content_of(content.root, content.ignore).files
    different = set(content.files.values()) ^ set(now.values())
    if different:
        raise changed(min(file.path for file in different))
    return found
