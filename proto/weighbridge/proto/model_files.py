"""The files of a manifest: their parts, the tables that list them, and the digests of both.

A part is a tensor, or what lies between tensors, or a whole file; see :mod:`weighbridge.proto.manifest` for how digests
are made of shards, parts and files. A table is the deterministic CBOR array of a file's rows; it proves itself against
the digest of its file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, Self, final, get_args

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "PATH_MAX",
    "SHARD_SIZE",
    "FileEntry",
    "Kind",
    "Part",
    "bare_entry",
    "check_name",
    "check_path",
    "decode_table",
    "encode_table",
    "file_from_json",
    "file_to_json",
    "kind_of",
    "range_digest",
]

SHARD_SIZE: Final = 64 * 1024 * 1024
PATH_MAX: Final = 4096  # PATH_MAX of linux/limits.h

Kind = Literal["plain", "safetensors", "gguf"]
_KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# numpy, the widest reader of tensors, has at most 64 dimensions; models have at most 5.
_RANK_MAX: Final = 64
_DTYPE_MAX: Final = 16
_ROW_FIELDS: Final = 6
_SHARDS_MAX: Final = limits.MANIFEST_PACKED_MAX // limits.DIGEST_SIZE


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a file: a tensor, or (``name`` is ``None``) bytes of none: a header, padding, a whole file.

    ``offset`` counts from the file's first byte; it and ``size`` are bytes. ``digest`` is that of the range; ``shards``
    are its shards' digests, and empty up to 64 MiB.
    """

    name: str | None
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    digest: bytes
    shards: tuple[bytes, ...] = ()

    @classmethod
    def of(
        cls, name: str | None, dtype: str, shape: tuple[int, ...], *, offset: int, size: int, shards: Sequence[bytes]
    ) -> Self:
        """The part whose shards have the digests ``shards``: one, even for an empty range, up to 64 MiB."""
        kept = tuple(shards) if size > SHARD_SIZE else ()
        return cls(name, dtype, shape, offset, size, range_digest(shards), kept)


@final
@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its path relative to the model's directory, its size in bytes, its digest.

    ``parts`` are in the order of the file, and ``table`` is their encoding; both are ``None`` when the table did not
    travel. A plain file has one part; a small one has no table, and its part all the same. Made by :meth:`of`,
    :meth:`with_table` and :func:`bare_entry` only, so that parts, table and digest agree.
    """

    path: str
    size: int
    kind: Kind
    digest: bytes
    parts: tuple[Part, ...] | None
    table: bytes | None = None

    @classmethod
    def of(cls, path: str, kind: Kind, parts: Iterable[Part]) -> FileEntry:
        """The entry of the file that consists of ``parts``.

        Raises:
            MalformedEvidence: the parts do not cover a file in order, or are not what ``kind`` has.
        """
        listed = tuple(parts)
        table = encode_table(listed)
        size = sum(part.size for part in listed)
        return _listed(cls(path, size, kind, _file_digest(kind, listed, table), None), listed, table, path)

    @property
    def implied(self) -> bool:
        """Whether size and digest say all there is to say of the parts: such a file has no table."""
        return self.kind == "plain" and self.size <= SHARD_SIZE

    @property
    def tensors(self) -> tuple[Part, ...]:
        """The named parts; none when the table did not travel."""
        return tuple(part for part in self.parts or () if part.name is not None)

    def with_table(self, table: bytes, where: str) -> FileEntry:
        """This entry with its table.

        Raises:
            MalformedEvidence: ``MANIFEST_DIGEST`` or ``FIELD_RANGE`` when it is not the table that the digest names; a
                decoding code.
        """
        return _listed(self, decode_table(table, where), table, where)

    def without_table(self) -> FileEntry:
        """This entry as a head has it."""
        return self if self.implied else replace(self, parts=None, table=None)


def range_digest(shards: Sequence[bytes]) -> bytes:
    """The digest of a range from those of its shards, in order: at least one, even of an empty range.

    Raises:
        ValueError: for no shard.
    """
    if not shards:
        raise ValueError("a range has at least one shard")
    return shards[0] if len(shards) == 1 else D("shards", *shards)


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
    if size > PATH_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "path is too long", where=where, expected=f"<= {PATH_MAX} bytes")
    bad_segment = any(segment in {"", ".", ".."} for segment in path.split("/"))
    if bad_segment or any(char < " " or char == "\x7f" for char in path):
        raise MalformedEvidence(Code.FIELD_RANGE, "not a plain relative path", where=where, got=repr(path))


def encode_table(parts: tuple[Part, ...]) -> bytes:
    """The table of a file's parts, as :func:`decode_table` reads it.

    Offsets are left out: each part begins where the one before it ends.
    """
    return cbor.encode(
        [[part.name, part.dtype, list(part.shape), part.size, part.digest, list(part.shards)] for part in parts]
    )


def _file_digest(kind: Kind, parts: tuple[Part, ...], table: bytes) -> bytes:
    if kind == "plain":
        return parts[0].digest if parts else bytes(limits.DIGEST_SIZE)
    return D("parts", table)


def _listed(file: FileEntry, parts: tuple[Part, ...], table: bytes, where: str) -> FileEntry:
    """``file`` with ``parts``, which ``table`` encodes, once they are shown to be its own."""
    _check_parts(file, parts, table, where)
    return replace(file, parts=parts, table=None if file.implied else table)


def _check_parts(file: FileEntry, parts: tuple[Part, ...], table: bytes, where: str) -> None:
    position = 0
    names: set[str] = set()
    for part in parts:
        if part.offset != position:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "parts overlap or leave a gap", where=where, expected=position, got=part.offset
            )
        position += part.size
        if part.name is None:
            fits = not part.dtype and not part.shape
        else:
            fits = bool(part.dtype) and part.name not in names and file.kind != "plain"
            names.add(part.name)
        if not fits:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "a part is twice, or none of its file", where=where, got=part.name
            )
        wanted = -(-part.size // SHARD_SIZE) if part.size > SHARD_SIZE else 0
        # NOTE: the size is anybody's word: nothing is made that is as long as it says.
        if len(part.shards) != wanted or any(len(shard) != limits.DIGEST_SIZE for shard in part.shards):
            raise MalformedEvidence(Code.FIELD_RANGE, "wrong number or length of shards", where=where, expected=wanted)
        if wanted and range_digest(part.shards) != part.digest:
            raise MalformedEvidence(Code.MANIFEST_DIGEST, "the shards are not those of the part", where=where)
    if position != file.size or (file.kind == "plain" and len(parts) != 1):
        raise MalformedEvidence(
            Code.FIELD_RANGE, "the parts do not cover the file", where=where, expected=file.size, got=position
        )
    if _file_digest(file.kind, parts, table) != file.digest:
        raise MalformedEvidence(
            Code.MANIFEST_DIGEST, "the table is not that of the file", where=where, expected=file.digest
        )


def decode_table(table: bytes, where: str) -> tuple[Part, ...]:
    """The parts that a table lists. Whose they are is not checked: :meth:`FileEntry.with_table` does.

    Raises:
        MalformedEvidence: for any bytes that :func:`encode_table` would not have written.
    """
    value = cbor.decode(table, limit=limits.MANIFEST_PACKED_MAX, what="table")
    parts: list[Part] = []
    position = 0
    for index, item in enumerate(cbor.read_array(value, where=where, limit=limits.MANIFEST_PARTS_MAX)):
        row = _row(item, f"{where}[{index}]", _ROW_FIELDS)
        part = Part(
            name=row.optional_text(0, limit=PATH_MAX),
            dtype=row.text(1, limit=_DTYPE_MAX),
            shape=_sizes(row.array(2, limit=_RANK_MAX), f"{where}[{index}].shape"),
            offset=position,
            size=row.uint(3),
            digest=row.digest(4),
            shards=row.octet_strings(5, count=_SHARDS_MAX, limit=limits.DIGEST_SIZE),
        )
        position += part.size
        parts.append(part)
    return tuple(parts)


def kind_of(text: str, where: str) -> Kind:
    """``text`` as a kind of file.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``.
    """
    for kind in _KINDS:
        if text == kind:
            return kind
    raise MalformedEvidence(Code.FIELD_RANGE, "unknown kind", where=where, expected=", ".join(_KINDS), got=text)


def _row(value: cbor.CborValue, where: str, size: int) -> cbor.Reader:
    return cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=size, size=size))), where)


def _sizes(values: list[cbor.CborValue], where: str) -> tuple[int, ...]:
    reader = cbor.Reader(dict(enumerate(values)), where)
    return tuple(reader.uint(axis) for axis in range(len(values)))


def bare_entry(path: str, size: int, kind: Kind, digest: bytes) -> FileEntry:
    """A file without its table, as a head names it; a small plain file has its one part all the same."""
    file = FileEntry(path, size, kind, digest, None)
    return replace(file, parts=(Part(None, "", (), 0, size, digest),)) if file.implied else file


def file_to_json(file: FileEntry) -> dict[str, object]:
    """The file with its parts as a JSON-ready object, every field present; ``parts`` is null without a table."""
    parts = None if file.parts is None or file.implied else [_part_to_json(part) for part in file.parts]
    return {"path": file.path, "size": file.size, "kind": file.kind, "digest": file.digest.hex(), "parts": parts}


def _part_to_json(part: Part) -> dict[str, object]:
    return {
        "name": part.name,
        "dtype": part.dtype,
        "shape": list(part.shape),
        "offset": part.offset,
        "size": part.size,
        "digest": part.digest.hex(),
        "shards": [shard.hex() for shard in part.shards],
    }


def file_from_json(value: cbor.CborValue, where: str) -> FileEntry:
    """What :func:`file_to_json` rendered.

    Raises:
        MalformedEvidence: a field's code, or as :meth:`FileEntry.with_table`.
    """
    fields = cbor.read_map(value, where=where)
    path = fields.text("path", limit=PATH_MAX)
    size = fields.uint("size")
    kind = kind_of(fields.text("kind"), f"{where}.kind")
    digest = strict.hex_decode(fields.text("digest"), what=f"{where}.digest", size=limits.DIGEST_SIZE)
    rows = fields.optional_array("parts", limit=limits.MANIFEST_PARTS_MAX)
    fields.end()
    file = bare_entry(path, size, kind, digest)
    if rows is None:
        return file
    if file.implied:
        raise MalformedEvidence(Code.FIELD_RANGE, "a small plain file has no table", where=f"{where}.parts")
    parts = tuple(_part_from_json(row, f"{where}.parts[{index}]") for index, row in enumerate(rows))
    return _listed(file, parts, encode_table(parts), where)


def _part_from_json(value: cbor.CborValue, where: str) -> Part:
    fields = cbor.read_map(value, where=where)
    shards = fields.array("shards", limit=_SHARDS_MAX)
    texts = cbor.Reader(dict(enumerate(shards)), f"{where}.shards")
    part = Part(
        name=fields.optional_text("name", limit=PATH_MAX),
        dtype=fields.text("dtype", limit=_DTYPE_MAX),
        shape=_sizes(fields.array("shape", limit=_RANK_MAX), f"{where}.shape"),
        offset=fields.uint("offset"),
        size=fields.uint("size"),
        digest=strict.hex_decode(fields.text("digest"), what=f"{where}.digest", size=limits.DIGEST_SIZE),
        shards=tuple(
            strict.hex_decode(texts.text(index), what=f"{where}.shards", size=limits.DIGEST_SIZE)
            for index in range(len(shards))
        ),
    )
    fields.end()
    return part
