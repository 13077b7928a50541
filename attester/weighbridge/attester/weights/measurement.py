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

from weighbridge.attester.weights.directory import FoundFile, changed, walk
from weighbridge.attester.weights.hashing import Progress, hash_ranges
from weighbridge.attester.weights.plan import plan
from weighbridge.proto.manifest import Algorithm, Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Progress", "measure"]


def measure(
    directory: Path,
    *,
    name: str | None = None,
    algorithm: Algorithm = "sha256",
    progress: Progress | None = None,
) -> Manifest:
    """The manifest of every regular file below ``directory``.

    Symbolic links are followed while they stay inside; hidden files count. A ``*.safetensors`` file must be one, as
    must a ``*.gguf`` file.

    Args:
        directory: the model's directory.
        name: the model's name; the directory's own by default.
        algorithm: what the content is hashed with.
        progress: called with bytes done and bytes in all, from several threads but never from two at once.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE`` for what cannot be read, is no regular file, leaves the directory or
            has no UTF-8 name; ``WEIGHTS_CHANGED`` when something changed meanwhile. Both name the path.
        MalformedEvidence: for a malformed safetensors or GGUF file, or a model beyond the manifest's limits.
    """
    root = directory.resolve()
    found = walk(root)
    plans = [plan(file) for file in found]
    ranges = [part for planned in plans for part in planned.ranges()]
    digests = iter(hash_ranges(ranges, algorithm=algorithm, progress=progress))
    entries = [planned.entry(digests) for planned in plans]
    _check_unchanged(found, walk(root))
    return Manifest.build(name if name is not None else root.name, entries, algorithm=algorithm)


def _check_unchanged(before: Sequence[FoundFile], after: Sequence[FoundFile]) -> None:
    different = set(before) ^ set(after)
    if different:
        raise changed(min(different, key=lambda file: file.path).path)
