"""Measuring a model: every file below its directory is read once, and every byte of it hashed once.

Three steps: find the files, plan (read the headers, cut files into parts and parts into shards), hash. A file that
changes while it is read is refused, as is a directory that changes while it is walked; nothing that cannot be read is
left out silently. Not proven: that what a server maps later are the bytes measured here (that takes fs-verity or
dm-verity beneath, see ``docs/trust-model.md``).

>>> manifest = measure(Path("models/minilm"))           # doctest: +SKIP
>>> manifest.digest.hex()                               # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.attester.weights.directory import FoundFile, changed, check_ignored, resolved, walk
from weighbridge.attester.weights.hashing import FileRange, Progress, hash_ranges
from weighbridge.attester.weights.plan import Plan, plan
from weighbridge.proto.manifest import Algorithm, FileEntry, Manifest
from weighbridge.proto.manifest_diff import Difference, diff

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from weighbridge.attester.weights.cache import Cache

__all__ = ["Progress", "compare", "measure"]


def measure(
    directory: Path,
    *,
    name: str | None = None,
    algorithm: Algorithm = "sha256",
    ignore: Iterable[str] = (),
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """The manifest of every regular file below ``directory``.

    Symbolic links are followed while they stay inside; hidden files count. A ``*.safetensors`` file must be one, as
    must a ``*.gguf`` file.

    Args:
        directory: the model's directory.
        name: the model's name; the directory's own by default.
        algorithm: what the content is hashed with.
        ignore: exact paths, of files or directories, to leave out; the manifest names them.
        cache: what is known of files that were measured before, and learns what is measured now. A cache proves
            nothing: what is measured for others (a session) takes none.
        progress: called with bytes done and bytes in all, from several threads but never from two at once.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE`` for what cannot be read, is no regular file, leaves the directory or
            has no UTF-8 name; ``WEIGHTS_AMBIGUOUS`` for two names that differ by case or normalisation only;
            ``WEIGHTS_CHANGED`` when something changed meanwhile. All name the path. ``TOOL_MISSING`` for BLAKE3.
        MalformedEvidence: for a malformed safetensors or GGUF file, or a model beyond the manifest's limits.
        ValueError: something to ignore is no plain path below the directory.
    """
    root = resolved(directory)
    ignored = check_ignored(ignore)
    found = walk(root, ignore=ignored)
    known = {} if cache is None else {file: entry for file in found if (entry := cache.get(file, algorithm))}
    fresh = _Fresh([plan(file) for file in found if file not in known], algorithm, cache)
    hash_ranges(fresh.ranges, algorithm=algorithm, progress=progress, done=fresh.done)
    _check_unchanged(found, walk(root, ignore=ignored))
    entries = [*known.values(), *fresh.entries]
    return Manifest.build(name if name is not None else root.name, entries, algorithm=algorithm, ignored=ignored)


def compare(
    declared: Manifest, directory: Path, *, cache: Cache | None = None, progress: Progress | None = None
) -> tuple[Difference, ...]:
    """How ``directory`` differs from what was declared: measured in the same way, under the same name.

    Empty when every file, shard and tensor is as declared, none is missing and there is no other.

    Raises:
        EnvironmentFault, MalformedEvidence: as :func:`measure`.
    """
    measured = measure(
        directory,
        name=declared.name,
        algorithm=declared.algorithm,
        ignore=declared.ignored,
        cache=cache,
        progress=progress,
    )
    return diff(declared, measured)


class _Fresh:
    """Files that are to be read, and their entries as soon as all of their ranges are hashed."""

    def __init__(self, plans: Sequence[Plan], algorithm: Algorithm, cache: Cache | None) -> None:
        self._plans = plans
        self._algorithm: Algorithm = algorithm
        self._cache = cache
        self._bounds = [0]
        self._owners: list[int] = []
        self._left: list[int] = []
        self.ranges: list[FileRange] = []
        self.entries: list[FileEntry] = []
        for owner, planned in enumerate(plans):
            ranges = planned.ranges()
            self._owners.extend([owner] * len(ranges))
            self._left.append(len(ranges))
            self.ranges.extend(ranges)
            self._bounds.append(len(self.ranges))
        self._digests = [b""] * len(self.ranges)

    def done(self, index: int, digest: bytes) -> None:
        """Take the digest of a range."""
        self._digests[index] = digest
        owner = self._owners[index]
        self._left[owner] -= 1
        if self._left[owner] == 0:
            planned = self._plans[owner]
            begin, end = self._bounds[owner : owner + 2]
            entry = planned.entry(iter(self._digests[begin:end]))
            self.entries.append(entry)
            if self._cache is not None:
                self._cache.put(planned.file, self._algorithm, entry)


def _check_unchanged(before: Sequence[FoundFile], after: Sequence[FoundFile]) -> None:
    different = set(before) ^ set(after)
    if different:
        raise changed(min(different, key=lambda file: file.path).path)
