"""How a measured model differs from the declared one, by file and tensor.

``diff(a, b)`` is empty exactly when the two manifests are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.proto.manifest import FileEntry, Manifest, TensorEntry

__all__ = ["Difference", "DifferenceKind", "diff"]


class DifferenceKind(StrEnum):
    """What kind of difference: wire format, as codes are."""

    NAME = "name"
    FILE_MISSING = "file_missing"
    FILE_UNEXPECTED = "file_unexpected"
    SIZE = "size"
    CONTENT = "content"
    HEADER = "header"
    TENSOR_MISSING = "tensor_missing"
    TENSOR_UNEXPECTED = "tensor_unexpected"
    TENSOR_CHANGED = "tensor_changed"
    TENSOR_LAYOUT = "tensor_layout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference. ``path`` is empty for the model's name only; ``tensor`` is ``None`` outside tensors."""

    kind: DifferenceKind
    path: str
    tensor: str | None = None
    expected: str | None = None
    got: str | None = None

    def __str__(self) -> str:
        """One line: where, what kind, declared and measured value."""
        place = self.path or "model"
        if self.tensor is not None:
            place = f"{place}, tensor {self.tensor}"
        values = [f"declared {self.expected}"] if self.expected is not None else []
        values += [f"measured {self.got}"] if self.got is not None else []
        return ", ".join([f"{place}: {self.kind.value.replace('_', ' ')}", *values])

    def document(self) -> dict[str, str | None]:
        """The difference as a JSON-ready object with every field present."""
        return {
            "kind": self.kind.value,
            "path": self.path,
            "tensor": self.tensor,
            "expected": self.expected,
            "got": self.got,
        }


def diff(declared: Manifest, measured: Manifest) -> tuple[Difference, ...]:
    """Every difference, ordered by path and, within a file, by tensor name.

    A file whose tensors are all as declared, but whose digest is not, differs in its header: names, metadata or order.
    """
    return tuple(_models(declared, measured))


def _models(declared: Manifest, measured: Manifest) -> Iterator[Difference]:
    if declared.name != measured.name:
        yield Difference(kind=DifferenceKind.NAME, path="", expected=declared.name, got=measured.name)
    before = {file.path: file for file in declared.files}
    after = {file.path: file for file in measured.files}
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            yield Difference(kind=DifferenceKind.FILE_MISSING, path=path, expected=before[path].sha256.hex())
        elif path not in before:
            yield Difference(kind=DifferenceKind.FILE_UNEXPECTED, path=path, got=after[path].sha256.hex())
        elif before[path] != after[path]:
            yield from _files(before[path], after[path])


def _files(declared: FileEntry, measured: FileEntry) -> Iterator[Difference]:
    path = declared.path
    if declared.size != measured.size:
        yield Difference(
            kind=DifferenceKind.SIZE, path=path, expected=f"{declared.size} bytes", got=f"{measured.size} bytes"
        )
    tensors = list(_tensors(declared, measured))
    yield from tensors
    if not tensors:
        # Offsets alone move whenever the header's length changes: they are the header's business.
        kind = DifferenceKind.HEADER if declared.tensors else DifferenceKind.CONTENT
        yield Difference(kind=kind, path=path, expected=declared.sha256.hex(), got=measured.sha256.hex())


def _tensors(declared: FileEntry, measured: FileEntry) -> Iterator[Difference]:
    path = declared.path
    before = {tensor.name: tensor for tensor in declared.tensors}
    after = {tensor.name: tensor for tensor in measured.tensors}
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield Difference(kind=DifferenceKind.TENSOR_MISSING, path=path, tensor=name, expected=_digest(before[name]))
        elif name not in before:
            yield Difference(kind=DifferenceKind.TENSOR_UNEXPECTED, path=path, tensor=name, got=_digest(after[name]))
        elif before[name].sha256 != after[name].sha256:
            yield Difference(
                kind=DifferenceKind.TENSOR_CHANGED,
                path=path,
                tensor=name,
                expected=_digest(before[name]),
                got=_digest(after[name]),
            )
        elif _layout(before[name]) != _layout(after[name]):
            yield Difference(
                kind=DifferenceKind.TENSOR_LAYOUT,
                path=path,
                tensor=name,
                expected=_layout(before[name]),
                got=_layout(after[name]),
            )


def _digest(tensor: TensorEntry) -> str:
    return tensor.sha256.hex()


def _layout(tensor: TensorEntry) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}, {tensor.size} bytes"
