"""The manifest of a model: every file below its directory, every shard and every tensor of it, by digest.

Each byte is hashed once. A file is cut into **parts** that cover it without gap or overlap: its tensors where the
format is known (safetensors, GGUF) and what lies between them, or the whole file. A part of more than 64 MiB is cut
into **shards** of 64 MiB, so that one large tensor or file keeps every core busy::

    digest(range) = H(bytes)                              up to 64 MiB
                  = D("shards", H(shard_0), …)            beyond
    digest(file)  = digest(its only part)                 kind "plain": up to 64 MiB, the digest anybody would compute
                  = D("parts", table)                     else; a row for each part: name, type, shape, size, digest

The **head** names the model and every file; its digest ``D("manifest", head)`` is the manifest's, and what is extended,
declared and signed. The tables of parts travel beside it as far as they are wanted, each proven by its file's digest:
a model of 100,000 tensors has a head of a few kilobytes. Byte layout: ``docs/protocol.md`` §6.6.

A manifest says what files held when they were measured. Not proven by it: that those bytes were the ones loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, Self, final, get_args

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.digest import D, preimage
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_files import (
    PATH_MAX,
    SHARD_SIZE,
    FileEntry,
    Kind,
    Part,
    bare_entry,
    check_name,
    check_path,
    encode_table,
    file_from_json,
    file_to_json,
    kind_of,
    range_digest,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = [
    "SCHEMA",
    "SHARD_SIZE",
    "TYPE",
    "Algorithm",
    "FileEntry",
    "Kind",
    "Manifest",
    "Part",
    "check_name",
    "check_path",
    "digest_of",
    "encode_manifests",
    "parse_manifests",
    "range_digest",
]

TYPE: Final = "weighbridge/v1/manifest"
SCHEMA: Final = "weighbridge/manifest/v1"

Algorithm = Literal["sha256", "blake3"]
_ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)

_FILE_FIELDS: Final = 4
# The head, and a path and a table for each file.
_PACKED_ITEMS_MAX: Final = 3 + 2 * limits.MANIFEST_FILES_MAX


@final
@dataclass(frozen=True, slots=True)
class Manifest:
    """A well-formed manifest. Made by its class methods only, so that ``raw``, ``digest`` and content always agree.

    ``files`` is sorted by path; ``ignored`` are the paths that were left out on purpose, sorted; ``raw`` is the head's
    encoding; ``digest`` is ``D("manifest", raw)``, 32 bytes. Two manifests are equal when their digests are and they
    carry the same tables.
    """

    name: str
    algorithm: Algorithm
    ignored: tuple[str, ...]
    files: tuple[FileEntry, ...]
    raw: bytes
    digest: bytes

    @classmethod
    def build(
        cls, name: str, files: Iterable[FileEntry], *, algorithm: Algorithm = "sha256", ignored: Iterable[str] = ()
    ) -> Manifest:
        """The manifest of ``files``, in any order, with the tables that they have.

        Raises:
            MalformedEvidence: as :meth:`parse`: a path outside the directory, a duplicate, too many entries.
        """
        # Lone surrogates, which no UTF-8 can carry, are not printable.
        check_name(name, where="manifest.name")
        ordered = sorted(files, key=lambda file: file.path)
        rows = [[file.path, file.size, file.kind, file.digest] for file in ordered]
        head = cls.parse(cbor.encode({0: TYPE, 1: name, 2: algorithm, 3: sorted(ignored), 4: rows}))
        return _with_files(
            head, [bare if file.parts is None else file for bare, file in zip(head.files, ordered, strict=True)]
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a head. The tables are left out, but for plain files of at most 64 MiB, which have none.

        Raises:
            MalformedEvidence: for any bytes that :meth:`build` would not have written.
        """
        fields = cbor.read_map(cbor.decode(data, limit=limits.MANIFEST_MAX, what="manifest"), where="manifest")
        kind = fields.text(0)
        if kind != TYPE:
            raise MalformedEvidence(Code.VERSION_UNSUPPORTED, "unknown type", where="manifest", expected=TYPE, got=kind)
        name = fields.text(1)
        check_name(name, where="manifest.name")
        algorithm = _algorithm(fields.text(2))
        ignored = _ignored(fields.array(3, limit=limits.MANIFEST_FILES_MAX))
        entries = fields.array(4, limit=limits.MANIFEST_FILES_MAX)
        fields.end()
        if not entries:
            raise MalformedEvidence(Code.FIELD_RANGE, "manifest names no file", where="manifest.files")
        files = tuple(_file_from_cbor(entry, f"manifest.files[{index}]") for index, entry in enumerate(entries))
        _check_ascending([file.path for file in files], "manifest.files")
        return cls(name, algorithm, ignored, files, data, digest_of(data))

    def telling(self, paths: Collection[str]) -> Manifest:
        """This manifest with the tables of the files ``paths`` only."""
        return _with_files(self, [file if file.path in paths else file.without_table() for file in self.files])

    def pack(self, *, limit: int = limits.MANIFEST_PACKED_MAX) -> bytes:
        """Head and tables as one byte string.

        Args:
            limit: leave tables out, the largest first, until the rest has no more than this many bytes.
        """
        tables = {file.path: file.table for file in self.files if file.table is not None}
        room = limit
        for path, size in sorted(((path, len(table)) for path, table in tables.items()), key=lambda item: item[1]):
            room -= size
            if room < 0:
                del tables[path]
        return cbor.encode([self.raw, tables])

    @classmethod
    def unpack(cls, data: bytes) -> Manifest:
        """Parse what :meth:`pack` wrote. Each table is the one that its file's digest names.

        Raises:
            MalformedEvidence: a decoding code, or as :meth:`parse`; ``MANIFEST_DIGEST`` for another file's table.
        """
        outer = _packed(data)
        manifest = cls.parse(outer.octets(0, limit=limits.MANIFEST_MAX))
        tables = outer.table(1)
        files = {file.path: file for file in manifest.files}
        for key in tables.keys():  # noqa: SIM118 - a reader, no dict
            where = f"manifest[{key!r}]"
            table = tables.octets(key, limit=limits.MANIFEST_PACKED_MAX)
            if not isinstance(key, str) or key not in files or files[key].implied:
                raise MalformedEvidence(Code.FIELD_UNKNOWN, "a table of no such file", where=where)
            files[key] = files[key].with_table(table, where)
        return _with_files(manifest, files.values())

    def hashed(self) -> dict[str, bytes]:
        """By path, what the digest of each file with a table is the SHA-256 of: to keep it under that."""
        return {
            file.path: preimage("parts", file.table)
            if file.kind != "plain"
            else preimage("shards", *(shard for part in file.parts or () for shard in part.shards))
            for file in self.files
            if file.table is not None
        }

    def with_hashed(self, contents: Mapping[str, bytes]) -> Manifest:
        """This manifest with the tables in ``contents``, some of what :meth:`hashed` has returned.

        Raises:
            MalformedEvidence: a decoding code, or as :meth:`FileEntry.with_table`.
        """
        return _with_files(
            self, [_with_hashed(file, contents[file.path]) if file.path in contents else file for file in self.files]
        )

    @classmethod
    def unpack_head(cls, data: bytes) -> bytes:
        """The head in what :meth:`pack` wrote: whose manifest it is, :func:`digest_of` says, before more is read.

        Raises:
            MalformedEvidence: a decoding code. Neither head nor tables are looked into.
        """
        return _packed(data).octets(0, limit=limits.MANIFEST_MAX)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def tensor_count(self) -> int:
        """Tensors of all files whose tables travelled."""
        return sum(len(file.tensors) for file in self.files)

    @property
    def shard_count(self) -> int:
        """Shards of all files whose tables travelled: what was hashed separately."""
        return sum(max(1, len(part.shards)) for file in self.files for part in file.parts or ())

    def to_json(self) -> bytes:
        """The JSON rendering, indented, with a final newline."""
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "digest": self.digest.hex(),
            "algorithm": self.algorithm,
            "ignored": list(self.ignored),
            "files": [file_to_json(file) for file in self.files],
        }
        return strict.json_encode(document, indent=1) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Parse the JSON rendering.

        Raises:
            MalformedEvidence: ``MANIFEST_DIGEST`` when a stated digest is not the content's; otherwise as
                :meth:`parse`.
        """
        decoded = strict.json_decode(data, what="manifest", limit=limits.MANIFEST_JSON_MAX)
        fields = cbor.read_map(_plain(decoded, "manifest"), where="manifest")
        schema = fields.text("schema")
        if schema != SCHEMA:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "unknown schema", where="manifest", expected=SCHEMA, got=schema
            )
        name = fields.text("name")
        stated = strict.hex_decode(fields.text("digest"), what="manifest.digest", size=limits.DIGEST_SIZE)
        algorithm = _algorithm(fields.text("algorithm"))
        ignored = _ignored(fields.array("ignored", limit=limits.MANIFEST_FILES_MAX))
        entries = fields.array("files", limit=limits.MANIFEST_FILES_MAX)
        fields.end()
        files = [file_from_json(entry, f"manifest.files[{index}]") for index, entry in enumerate(entries)]
        manifest = cls.build(name, files, algorithm=algorithm, ignored=ignored)
        if manifest.digest != stated:
            raise MalformedEvidence(
                Code.MANIFEST_DIGEST,
                "the stated digest is not that of the content",
                where="manifest",
                expected=stated,
                got=manifest.digest,
            )
        return manifest


def digest_of(head: bytes) -> bytes:
    """What terms, logs and policies call the manifest with this head, well-formed or not."""
    return D("manifest", head)


def encode_manifests(manifests: Iterable[Manifest]) -> bytes:
    """The evidence part that carries manifests, with those of their tables for which there is room."""
    carried = list(manifests)
    room = limits.MANIFEST_TABLES_MAX // max(1, len(carried))
    return cbor.encode([manifest.pack(limit=room) for manifest in carried])


def parse_manifests(data: bytes) -> tuple[Manifest, ...]:
    """Parse the evidence part that carries manifests.

    Raises:
        MalformedEvidence: a decoding code, or as :meth:`Manifest.unpack`.
    """
    value = cbor.decode(data, limit=limits.EVIDENCE_MAX, what="manifests")
    items = cbor.read_array(value, where="manifests", limit=limits.MANIFESTS_MAX)
    reader = cbor.Reader(dict(enumerate(items)), "manifests")
    return tuple(Manifest.unpack(reader.octets(index)) for index in range(len(items)))


def _packed(data: bytes) -> cbor.Reader:
    value = cbor.decode(data, limit=limits.MANIFEST_PACKED_MAX, what="manifest", items=_PACKED_ITEMS_MAX)
    return cbor.Reader(dict(enumerate(cbor.read_array(value, where="manifest", limit=2, size=2))), "manifest")


def _with_hashed(file: FileEntry, content: bytes) -> FileEntry:
    where = f"manifest[{file.path!r}]"
    value = cbor.decode(content, limit=limits.MANIFEST_PACKED_MAX, what="table")
    _, *rest = cbor.read_array(value, where=where, limit=limits.MANIFEST_PARTS_MAX)
    reader = cbor.Reader(dict(enumerate(rest)), where)
    if file.kind != "plain":
        return file.with_table(reader.octets(0, limit=limits.MANIFEST_PACKED_MAX), where)
    shards = tuple(reader.octets(index, size=limits.DIGEST_SIZE) for index in range(len(rest)))
    whole = Part(None, "", (), 0, file.size, file.digest, shards)
    return file.with_table(encode_table((whole,)), where)


def _with_files(manifest: Manifest, files: Iterable[FileEntry]) -> Manifest:
    """``manifest`` with the tables of ``files``, which are its own and in its order."""
    kept = tuple(files)
    if sum(len(file.parts or ()) for file in kept) > limits.MANIFEST_PARTS_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "too many tensors", where="manifest")
    return replace(manifest, files=kept)


def _check_ascending(names: list[str], where: str) -> None:
    # Code points order as UTF-8 bytes do.
    for before, after in pairwise(names):
        if before == after:
            raise MalformedEvidence(Code.DUPLICATE_KEY, "entry appears twice", where=where, got=repr(after))
        if before > after:
            raise MalformedEvidence(Code.NOT_DETERMINISTIC, "entries are not in order", where=where, got=repr(after))


def _algorithm(text: str) -> Algorithm:
    for algorithm in _ALGORITHMS:
        if text == algorithm:
            return algorithm
    raise MalformedEvidence(
        Code.FIELD_RANGE, "unknown algorithm", where="manifest.algorithm", expected=", ".join(_ALGORITHMS), got=text
    )


def _ignored(values: list[cbor.CborValue]) -> tuple[str, ...]:
    reader = cbor.Reader(dict(enumerate(values)), "manifest.ignored")
    paths = [reader.text(index, limit=PATH_MAX) for index in range(len(values))]
    for path in paths:
        check_path(path, where="manifest.ignored")
    _check_ascending(paths, "manifest.ignored")
    return tuple(paths)


def _row(value: cbor.CborValue, where: str, size: int) -> cbor.Reader:
    return cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=size, size=size))), where)


def _file_from_cbor(value: cbor.CborValue, where: str) -> FileEntry:
    row = _row(value, where, _FILE_FIELDS)
    path = row.text(0, limit=PATH_MAX)
    check_path(path, where=f"{where}.path")
    return bare_entry(path, row.uint(1), kind_of(row.text(2), f"{where}.kind"), row.digest(3))


def _plain(value: strict.JsonValue, where: str) -> cbor.CborValue:
    """JSON without what the manifest has no use for: fractions."""
    if isinstance(value, float):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="integer", got=value)
    if isinstance(value, list):
        return [_plain(item, where) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, where) for key, item in value.items()}
    return value
