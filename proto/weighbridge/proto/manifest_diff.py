"""How a measured model differs from the declared one, by file, shard and tensor.

``diff(a, b)`` is empty exactly when the two manifests have the same digest. Where a table of parts did not travel, a
file is named and nothing within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from weighbridge.proto.manifest import SHARD_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weighbridge.proto.manifest import FileEntry, Manifest, Part

__all__ = ["Difference", "DifferenceKind", "diff", "unlike"]


class DifferenceKind(StrEnum):
    """What kind of difference: wire format, as codes are."""

    NAME = "name"
    ALGORITHM = "algorithm"
    IGNORED = "ignored"
    FILE_MISSING = "file_missing"
    FILE_UNEXPECTED = "file_unexpected"
    FORMAT = "format"
    SIZE = "size"
    CONTENT = "content"
    HEADER = "header"
    TENSOR_MISSING = "tensor_missing"
    TENSOR_UNEXPECTED = "tensor_unexpected"
    TENSOR_CHANGED = "tensor_changed"
    TENSOR_LAYOUT = "tensor_layout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference. ``path`` is empty for the whole model; ``tensor`` is ``None`` outside tensors.

    ``begin`` and ``end`` are the first bytes of the file, in a shard of 64 MiB, within which it lies; ``None`` where
    nothing is said of that.
    """

    kind: DifferenceKind
    path: str
    tensor: str | None = None
    expected: str | None = None
    got: str | None = None
    begin: int | None = None
    end: int | None = None

    @property
    def place(self) -> str:
        """Where: the file, the tensor in it, the bytes of the shard."""
        place = self.path or "model"
        if self.tensor is not None:
            place = f"{place}, tensor {self.tensor}"
        if self.begin is not None:
            place = f"{place}, bytes {self.begin} to {self.end}"
        return place

    def __str__(self) -> str:
        """One line: where, what kind, declared and measured value."""
        values = [f"declared {self.expected}"] if self.expected is not None else []
        values += [f"measured {self.got}"] if self.got is not None else []
        return ", ".join([f"{self.place}: {self.kind.value.replace('_', ' ')}", *values])

    def document(self) -> dict[str, str | int | None]:
        """The difference as a JSON-ready object with every field present."""
        return {
            "kind": self.kind.value,
            "path": self.path,
            "tensor": self.tensor,
            "begin": self.begin,
            "end": self.end,
            "expected": self.expected,
            "got": self.got,
        }


def diff(declared: Manifest, measured: Manifest) -> tuple[Difference, ...]:
    """Every difference, ordered by path and, within a file, by where it lies.

    Manifests by different algorithms cannot be compared: of their files only names and sizes are.
    """
    return tuple(_models(declared, measured))


def unlike(measured: Manifest, declared: Iterable[Manifest]) -> frozenset[str]:
    """The paths of ``measured`` that differ from a file of that path in ``declared``: whose tables tell how."""
    known = [{file.path: file.digest for file in manifest.files} for manifest in declared]
    return frozenset(
        file.path for file in measured.files if any(files.get(file.path, file.digest) != file.digest for files in known)
    )


def _models(declared: Manifest, measured: Manifest) -> Iterator[Difference]:
    if declared.name != measured.name:
        yield Difference(kind=DifferenceKind.NAME, path="", expected=declared.name, got=measured.name)
    if declared.ignored != measured.ignored:
        expected, got = (", ".join(manifest.ignored) or "nothing" for manifest in (declared, measured))
        yield Difference(kind=DifferenceKind.IGNORED, path="", expected=expected, got=got)
    comparable = declared.algorithm == measured.algorithm
    if not comparable:
        yield Difference(kind=DifferenceKind.ALGORITHM, path="", expected=declared.algorithm, got=measured.algorithm)
    before = {file.path: file for file in declared.files}
    after = {file.path: file for file in measured.files}
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            yield Difference(kind=DifferenceKind.FILE_MISSING, path=path, expected=before[path].digest.hex())
        elif path not in before:
            yield Difference(kind=DifferenceKind.FILE_UNEXPECTED, path=path, got=after[path].digest.hex())
        elif _identity(before[path]) != _identity(after[path]):
            yield from _files(before[path], after[path], comparable=comparable)


def _identity(file: FileEntry) -> tuple[int, str, bytes]:
    return file.size, file.kind, file.digest


def _files(declared: FileEntry, measured: FileEntry, *, comparable: bool) -> Iterator[Difference]:
    path = declared.path
    if declared.kind != measured.kind:
        yield Difference(kind=DifferenceKind.FORMAT, path=path, expected=declared.kind, got=measured.kind)
        return
    if declared.size != measured.size:
        yield Difference(
            kind=DifferenceKind.SIZE, path=path, expected=f"{declared.size} bytes", got=f"{measured.size} bytes"
        )
    if not comparable:
        return
    found: list[Difference] = []
    if declared.parts is not None and measured.parts is not None:
        found = [*_between(path, declared.parts, measured.parts), *_tensors(declared, measured)]
    yield from found
    if not found:
        # Its tensors are as declared: so header and padding, names, metadata or order differ.
        known = declared.kind != "plain" and declared.parts is not None and measured.parts is not None
        kind = DifferenceKind.HEADER if known else DifferenceKind.CONTENT
        yield Difference(kind=kind, path=path, expected=declared.digest.hex(), got=measured.digest.hex())


def _between(path: str, declared: tuple[Part, ...], measured: tuple[Part, ...]) -> Iterator[Difference]:
    """What lies between the tensors, where it is large enough to have shards; a plain file is all of that."""
    if [part.name for part in declared] != [part.name for part in measured]:
        return
    for before, after in zip(declared, measured, strict=True):
        if before.name is None and before.shards and after.shards:
            kind = DifferenceKind.CONTENT
            yield from (
                Difference(kind=kind, path=path, expected=expected, got=got, begin=begin, end=end)
                for begin, end, expected, got in _shards(before, after)
            )


def _tensors(declared: FileEntry, measured: FileEntry) -> Iterator[Difference]:
    path = declared.path
    before = {str(part.name): part for part in declared.tensors}
    after = {str(part.name): part for part in measured.tensors}
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield Difference(kind=DifferenceKind.TENSOR_MISSING, path=path, tensor=name, expected=_digest(before[name]))
        elif name not in before:
            yield Difference(kind=DifferenceKind.TENSOR_UNEXPECTED, path=path, tensor=name, got=_digest(after[name]))
        elif _layout(before[name]) != _layout(after[name]):
            yield Difference(
                kind=DifferenceKind.TENSOR_LAYOUT,
                path=path,
                tensor=name,
                expected=_layout(before[name]),
                got=_layout(after[name]),
            )
        elif before[name].digest != after[name].digest:
            yield from _changed(path, name, before[name], after[name])


def _changed(path: str, name: str, before: Part, after: Part) -> Iterator[Difference]:
    kind = DifferenceKind.TENSOR_CHANGED
    if not before.shards:
        yield Difference(kind=kind, path=path, tensor=name, expected=_digest(before), got=_digest(after))
    for begin, end, expected, got in _shards(before, after):
        yield Difference(kind=kind, path=path, tensor=name, expected=expected, got=got, begin=begin, end=end)


def _shards(before: Part, after: Part) -> Iterator[tuple[int, int, str, str]]:
    """Of two ranges of more than one shard: the bytes of the file, as declared, of each shard that differs."""
    for index, (expected, got) in enumerate(zip(before.shards, after.shards, strict=False)):
        if expected != got:
            begin = before.offset + index * SHARD_SIZE
            yield begin, min(begin + SHARD_SIZE, before.offset + before.size), expected.hex(), got.hex()


def _digest(tensor: Part) -> str:
    return tensor.digest.hex()


def _layout(tensor: Part) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}, {tensor.size} bytes"
