"""The manifest of a model: every file below its directory, and every tensor of its safetensors files, by digest.

One manifest has one encoding (deterministic CBOR), so its digest ``D("manifest", bytes)`` names it. JSON is a rendering
for people and tools; it carries the digest and is refused when the two disagree. Byte layout: ``docs/protocol.md``.

A manifest says what files held when they were measured. Not proven by it: that those bytes were the ones loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "SCHEMA",
    "TYPE",
    "FileEntry",
    "Manifest",
    "TensorEntry",
    "check_name",
    "check_path",
    "encode_manifests",
    "parse_manifests",
]

TYPE: Final = "weighbridge/v1/manifest"
SCHEMA: Final = "weighbridge/manifest/v1"

# numpy, the widest reader of tensors, has at most 64 dimensions; models have at most 5.
_RANK_MAX: Final = 64
_DTYPE_MAX: Final = 16
_PATH_MAX: Final = 4096  # PATH_MAX of linux/limits.h
_TENSOR_FIELDS: Final = 6
_FILE_FIELDS: Final = 4
_MANIFESTS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a safetensors file. ``offset`` counts from the file's first byte; it and ``size`` are bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its path relative to the model's directory, its size in bytes, SHA-256 over all of it.

    ``tensors`` is sorted by name, and empty for a file that is not in safetensors format.
    """

    path: str
    size: int
    sha256: bytes
    tensors: tuple[TensorEntry, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Manifest:
    """A well-formed manifest. Made by :meth:`build`, :meth:`parse` or :meth:`from_json` only, so ``raw`` always agrees.

    ``files`` is sorted by path; ``raw`` is the encoding; ``digest`` is ``D("manifest", raw)``, 32 bytes.
    """

    name: str
    files: tuple[FileEntry, ...]
    raw: bytes
    digest: bytes

    @classmethod
    def build(cls, name: str, files: Iterable[FileEntry]) -> Self:
        """The manifest of ``files``, in any order.

        Raises:
            MalformedEvidence: as :meth:`parse`: a path outside the directory, a duplicate, too many entries.
        """
        # Lone surrogates, which no UTF-8 can carry, are not printable.
        check_name(name, where="manifest.name")
        ordered = sorted(files, key=lambda file: file.path)
        return cls.parse(cbor.encode({0: TYPE, 1: name, 2: [_file_to_cbor(file) for file in ordered]}))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a manifest's encoding.

        Raises:
            MalformedEvidence: for any bytes that :meth:`build` would not have written.
        """
        fields = cbor.read_map(cbor.decode(data, limit=limits.MANIFEST_MAX, what="manifest"), where="manifest")
        kind = fields.text(0)
        if kind != TYPE:
            raise MalformedEvidence(Code.VERSION_UNSUPPORTED, "unknown type", where="manifest", expected=TYPE, got=kind)
        name = fields.text(1)
        check_name(name, where="manifest.name")
        entries = fields.array(2, limit=limits.MANIFEST_FILES_MAX)
        fields.end()
        if not entries:
            raise MalformedEvidence(Code.FIELD_RANGE, "manifest names no file", where="manifest.files")
        files = tuple(_file_from_cbor(entry, f"manifest.files[{index}]") for index, entry in enumerate(entries))
        _check_ascending([file.path for file in files], "manifest.files")
        if sum(len(file.tensors) for file in files) > limits.MANIFEST_TENSORS_MAX:
            raise MalformedEvidence(Code.TOO_LARGE, "too many tensors", where="manifest")
        return cls(name=name, files=files, raw=data, digest=D("manifest", data))

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def tensor_count(self) -> int:
        """Tensors of all files together."""
        return sum(len(file.tensors) for file in self.files)

    def to_json(self) -> bytes:
        """The JSON rendering, indented, with a final newline."""
        files = [
            {
                "path": f.path,
                "size": f.size,
                "sha256": f.sha256.hex(),
                "tensors": [_tensor_to_json(t) for t in f.tensors],
            }
            for f in self.files
        ]
        document = {"schema": SCHEMA, "name": self.name, "digest": self.digest.hex(), "files": files}
        return strict.json_encode(document, indent=1) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the JSON rendering.

        Raises:
            MalformedEvidence: ``MANIFEST_DIGEST`` when the stated digest is not the content's; otherwise as
                :meth:`parse`.
        """
        fields = cbor.read_map(_plain(strict.json_decode(data, what="manifest"), "manifest"), where="manifest")
        schema = fields.text("schema")
        if schema != SCHEMA:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "unknown schema", where="manifest", expected=SCHEMA, got=schema
            )
        name = fields.text("name")
        stated = strict.hex_decode(fields.text("digest"), what="manifest.digest", size=limits.DIGEST_SIZE)
        entries = fields.array("files", limit=limits.MANIFEST_FILES_MAX)
        fields.end()
        files = [_file_from_json(entry, f"manifest.files[{index}]") for index, entry in enumerate(entries)]
        manifest = cls.build(name, files)
        if manifest.digest != stated:
            raise MalformedEvidence(
                Code.MANIFEST_DIGEST,
                "the stated digest is not that of the content",
                where="manifest",
                expected=stated,
                got=manifest.digest,
            )
        return manifest


def encode_manifests(manifests: Iterable[Manifest]) -> bytes:
    """The evidence part that carries manifests: an array of byte strings."""
    return cbor.encode([manifest.raw for manifest in manifests])


def parse_manifests(data: bytes) -> tuple[Manifest, ...]:
    """Parse the evidence part that carries manifests.

    Raises:
        MalformedEvidence: a decoding code, or as :meth:`Manifest.parse`.
    """
    value = cbor.decode(data, limit=limits.EVIDENCE_MAX, what="manifests")
    items = cbor.read_array(value, where="manifests", limit=_MANIFESTS_MAX)
    reader = cbor.Reader(dict(enumerate(items)), "manifests")
    return tuple(Manifest.parse(reader.octets(index, limit=limits.MANIFEST_MAX)) for index in range(len(items)))


def check_name(name: str, *, where: str) -> None:
    """Require a non-empty name of printable characters. Its length is the decoder's business.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``.
    """
    if not name or not name.isprintable():
        raise MalformedEvidence(Code.FIELD_RANGE, "name is empty or not printable", where=where, got=ascii(name))


def check_path(path: str, *, where: str) -> None:
    """Require a relative POSIX path that stays below its directory and has one spelling only.

    No empty, ``.`` or ``..`` segment, hence no leading, trailing or doubled slash; no control characters. Unicode is
    not normalised: two spellings are two files, as they are to the kernel.

    Raises:
        MalformedEvidence: ``NOT_UTF8``, ``FIELD_RANGE`` or ``TOO_LARGE``.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError as error:
        raise MalformedEvidence(Code.NOT_UTF8, "path has a lone surrogate", where=where, got=ascii(path)) from error
    if size > _PATH_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "path is too long", where=where, expected=f"<= {_PATH_MAX} bytes")
    bad_segment = any(segment in {"", ".", ".."} for segment in path.split("/"))
    if bad_segment or any(char < " " or char == "\x7f" for char in path):
        raise MalformedEvidence(Code.FIELD_RANGE, "not a plain relative path", where=where, got=repr(path))


def _check_ascending(names: list[str], where: str) -> None:
    # Code points order as UTF-8 bytes do.
    for before, after in pairwise(names):
        if before == after:
            raise MalformedEvidence(Code.DUPLICATE_KEY, "entry appears twice", where=where, got=repr(after))
        if before > after:
            raise MalformedEvidence(Code.NOT_DETERMINISTIC, "entries are not in order", where=where, got=repr(after))


def _file_to_cbor(file: FileEntry) -> list[object]:
    tensors = sorted(file.tensors, key=lambda tensor: tensor.name)
    rows = [[t.name, t.dtype, list(t.shape), t.offset, t.size, t.sha256] for t in tensors]
    return [file.path, file.size, file.sha256, rows]


def _row(value: cbor.CborValue, where: str, size: int) -> cbor.Reader:
    return cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=size, size=size))), where)


def _file_from_cbor(value: cbor.CborValue, where: str) -> FileEntry:
    row = _row(value, where, _FILE_FIELDS)
    path = row.text(0, limit=_PATH_MAX)
    check_path(path, where=f"{where}.path")
    size = row.uint(1)
    digest = row.digest(2)
    tensors = tuple(
        _tensor_from_cbor(entry, f"{where}.tensors[{index}]", size)
        for index, entry in enumerate(row.array(3, limit=limits.MANIFEST_TENSORS_MAX))
    )
    _check_ascending([tensor.name for tensor in tensors], f"{where}.tensors")
    return FileEntry(path=path, size=size, sha256=digest, tensors=tensors)


def _tensor_from_cbor(value: cbor.CborValue, where: str, file_size: int) -> TensorEntry:
    row = _row(value, where, _TENSOR_FIELDS)
    name = row.text(0, limit=_PATH_MAX)
    dtype = row.text(1, limit=_DTYPE_MAX)
    dimensions = row.array(2, limit=_RANK_MAX)
    shape = cbor.Reader(dict(enumerate(dimensions)), f"{where}.shape")
    tensor = TensorEntry(
        name=name,
        dtype=dtype,
        shape=tuple(shape.uint(axis) for axis in range(len(dimensions))),
        offset=row.uint(3),
        size=row.uint(4),
        sha256=row.digest(5),
    )
    if tensor.offset + tensor.size > file_size:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "tensor lies beyond its file", where=where, expected=f"<= {file_size}"
        )
    return tensor


def _tensor_to_json(tensor: TensorEntry) -> dict[str, object]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "offset": tensor.offset,
        "size": tensor.size,
        "sha256": tensor.sha256.hex(),
    }


def _file_from_json(value: cbor.CborValue, where: str) -> FileEntry:
    fields = cbor.read_map(value, where=where)
    path = fields.text("path", limit=_PATH_MAX)
    size = fields.uint("size")
    digest = strict.hex_decode(fields.text("sha256"), what=f"{where}.sha256", size=limits.DIGEST_SIZE)
    entries = fields.array("tensors", limit=limits.MANIFEST_TENSORS_MAX)
    fields.end()
    tensors = tuple(_tensor_from_json(entry, f"{where}.tensors[{index}]") for index, entry in enumerate(entries))
    return FileEntry(path=path, size=size, sha256=digest, tensors=tensors)


def _tensor_from_json(value: cbor.CborValue, where: str) -> TensorEntry:
    fields = cbor.read_map(value, where=where)
    dimensions = fields.array("shape", limit=_RANK_MAX)
    shape = cbor.Reader(dict(enumerate(dimensions)), f"{where}.shape")
    tensor = TensorEntry(
        name=fields.text("name", limit=_PATH_MAX),
        dtype=fields.text("dtype", limit=_DTYPE_MAX),
        shape=tuple(shape.uint(axis) for axis in range(len(dimensions))),
        offset=fields.uint("offset"),
        size=fields.uint("size"),
        sha256=strict.hex_decode(fields.text("sha256"), what=f"{where}.sha256", size=limits.DIGEST_SIZE),
    )
    fields.end()
    return tensor


def _plain(value: strict.JsonValue, where: str) -> cbor.CborValue:
    """JSON without what the manifest has no use for: fractions."""
    if isinstance(value, float):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="integer", got=value)
    if isinstance(value, list):
        return [_plain(item, where) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, where) for key, item in value.items()}
    return value
