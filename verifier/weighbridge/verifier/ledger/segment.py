"""Segments: files of many contents, packed into blocks that are written together; and their indices. Writes nothing.

A segment is a run of *blocks*. Each is compressed as a whole, so that what its contents have in common is kept once::

    block     = "WBC1" | packed size | raw size | number of rows | checksum (16 bytes) | row… | zstd frame
    row       = SHA-256 (32 bytes) | offset and length within the unpacked frame | kind (1 byte)
    checksum  = the first half of SHA-256 over the three numbers and the rows

Numbers have four bytes, big-endian. The checksum covers what finds a content and not the frame: that is what the
content's own SHA-256 is for, which every reader computes. So a damaged frame is seen as damage to the contents in it,
by their names, and the blocks behind it are found all the same.

Of a row's content, kind 0 has the bytes themselves; kind 1 a *recipe*, deterministic CBOR: an array of byte strings
which are to be joined. Every other one, from the second on, is the digest of another content of kind 0, which takes its
place.

An *index* says where the contents of a segment's beginning lie: ``"WBI1" | number of rows | bytes of the segment that
it covers (8 bytes) | row…`` with rows ``SHA-256 | offset of the block (8 bytes)``, ascending. It can be made again.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from weighbridge.proto import cbor, limits, zstd
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "INDEX_SUFFIX",
    "PLAIN",
    "RECIPE",
    "Block",
    "Row",
    "Scan",
    "cut",
    "encode_block",
    "encode_head",
    "encode_index",
    "encode_recipe",
    "index_row",
    "join",
    "look_up",
    "open_block",
    "parse_recipe",
    "read_head",
    "read_index_head",
    "scan",
]

INDEX_SUFFIX: Final = ".index"
PLAIN: Final = 0
RECIPE: Final = 1

_MAGIC: Final = b"WBC1"
_HEAD: Final = struct.Struct(">4sIII16s")
_NUMBERS: Final = struct.Struct(">III")
_ROW: Final = struct.Struct(">32sIIB")
# A block holds one content, however large, or small ones up to this: enough to have much in common, little to unpack.
_RAW_SOFT: Final = 256 * 1024
_RAW_MAX: Final = limits.CONTENT_MAX + _RAW_SOFT
_ROWS_MAX: Final = 65_536
_PACKED_MAX: Final = _RAW_MAX + _RAW_MAX // 128 + 1024
# The quickest: a block's contents are alike, and higher levels find little more.
_LEVEL: Final = 1
# Behind damage the next block is looked for; whoever has altered the file must not make that take for ever.
_CANDIDATES_MAX: Final = 64
_NEEDLE: Final = 32

_INDEX_MAGIC: Final = b"WBI1"
_INDEX_HEAD: Final = struct.Struct(">4sIQ")
_INDEX_ROW: Final = struct.Struct(">32sQ")


@dataclass(frozen=True, slots=True)
class Row:
    """Where a content lies within its block's unpacked frame, and of which kind it is."""

    digest: bytes
    offset: int
    length: int
    kind: int


@dataclass(frozen=True, slots=True)
class Block:
    """The head of a block, well-formed: its frame has not been looked at.

    ``packed`` and ``raw`` are the sizes of the frame and of what is in it, ``size`` that of the whole block.
    """

    packed: int
    raw: int
    rows: tuple[Row, ...]

    @property
    def size(self) -> int:
        """Bytes in the segment, head and frame."""
        return _HEAD.size + _ROW.size * len(self.rows) + self.packed


@dataclass(frozen=True, slots=True)
class Scan:
    """What the end of a segment has: its blocks, by their offset, and where what can be read ends.

    ``damaged`` says where something lies that is no block although blocks follow; where none follows, it is what an
    interrupted write has left, which nobody was told of.
    """

    blocks: tuple[tuple[int, Block], ...]
    end: int
    damaged: int | None


def cut(contents: Iterable[tuple[bytes, bytes, int]]) -> Iterator[list[tuple[bytes, bytes, int]]]:
    """Digest, bytes and kind of each content, in runs that make a block each."""
    run: list[tuple[bytes, bytes, int]] = []
    size = 0
    for content in contents:
        if run and (size + len(content[1]) > _RAW_SOFT or len(run) == _ROWS_MAX):
            yield run
            run, size = [], 0
        run.append(content)
        size += len(content[1])
    if run:
        yield run


def encode_block(contents: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    """The block of these contents: digest, bytes and kind of each."""
    rows: list[Row] = []
    at = 0
    for digest, data, kind in contents:
        rows.append(Row(digest, at, len(data), kind))
        at += len(data)
    frame = zstd.compress(b"".join(data for _, data, _ in contents), level=_LEVEL)
    return encode_head(Block(len(frame), at, tuple(rows))) + frame


def encode_head(block: Block) -> bytes:
    """What stands before the frame of ``block``."""
    rows = b"".join(_ROW.pack(row.digest, row.offset, row.length, row.kind) for row in block.rows)
    checksum = _checksum(block.packed, block.raw, len(block.rows), rows)
    return _HEAD.pack(_MAGIC, block.packed, block.raw, len(block.rows), checksum) + rows


def read_head(file: IO[bytes], offset: int) -> Block:
    """The block whose head begins at ``offset``.

    Raises:
        MalformedEvidence: ``LEDGER_MALFORMED`` where there is none.
        OSError: the file cannot be read.
    """
    file.seek(offset)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise _malformed("the file ends within a block's head")
    magic, packed, raw, count, checksum = _HEAD.unpack(head)
    if magic != _MAGIC or packed > _PACKED_MAX or raw > _RAW_MAX or not 0 < count <= _ROWS_MAX:
        raise _malformed("no block begins here")
    directory = file.read(_ROW.size * count)
    if len(directory) != _ROW.size * count or _checksum(packed, raw, count, directory) != checksum:
        raise _malformed("the block's rows do not have their checksum")
    rows = tuple(Row(*values) for values in _ROW.iter_unpack(directory))  # lenient: their length was compared above
    if any(row.offset + row.length > raw or row.kind not in {PLAIN, RECIPE} for row in rows):
        raise _malformed("a row points out of its block")
    return Block(packed, raw, rows)


def open_block(file: IO[bytes], offset: int) -> tuple[Block, bytes]:
    """The block at ``offset``, and what its frame holds. Whether that has the rows' digests is not looked at.

    Raises:
        MalformedEvidence: ``LEDGER_MALFORMED``, or ``NOT_ZSTD`` for the frame.
        OSError: the file cannot be read.
    """
    block = read_head(file, offset)
    return block, zstd.decompress(file.read(block.packed), size=block.raw, what="block")


def scan(file: IO[bytes], start: int) -> Scan:
    """The blocks of a segment from offset ``start`` on. Frames are not read.

    Raises:
        OSError: the file cannot be read.
    """
    size = file.seek(0, os.SEEK_END)
    blocks: list[tuple[int, Block]] = []
    at, damaged = start, None
    while at < size:
        try:
            block = read_head(file, at)
        except MalformedEvidence:
            following = _next_block(file, at + 1, size)
            if following is None:
                break
            damaged = at if damaged is None else damaged
            at = following
            continue
        if at + block.size > size:
            break
        blocks.append((at, block))
        at += block.size
    return Scan(tuple(blocks), at, damaged)


def encode_recipe(data: bytes, parts: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """``data`` as a recipe of ``parts`` (digest and bytes of each) and what lies between; ``None`` if it has none.

    A part counts where its beginning is found first behind the one before it.
    """
    items: list[cbor.CborValue] = []
    at = 0
    for digest, part in parts:
        # Preparing the search for something long takes longer than comparing it once.
        found = data.find(part[:_NEEDLE], at)
        if found < 0 or not part or not data.startswith(part, found):
            continue
        items += [data[at:found], digest]
        at = found + len(part)
    return cbor.encode([*items, data[at:]]) if items else None


def parse_recipe(data: bytes) -> list[bytes | tuple[bytes]]:
    """The strings of a recipe, and of each part its digest.

    Raises:
        MalformedEvidence: a decoding code.
    """
    value = cbor.decode(data, limit=_RAW_MAX, what="recipe")
    items = cbor.Reader(dict(enumerate(cbor.read_array(value, where="recipe", limit=_ROWS_MAX))), "recipe")
    return [
        (items.digest(number),) if number % 2 else items.octets(number, limit=_RAW_MAX)
        for number in range(len(items.keys()))
    ]


def join(recipe: bytes, part: Callable[[bytes], bytes], *, limit: int) -> bytes:
    """What a recipe makes, of at most ``limit`` bytes: ``part`` finds one by its digest.

    Raises:
        MalformedEvidence: it is none, makes more, or what ``part`` raises.
    """
    made: list[bytes] = []
    size = 0
    for item in parse_recipe(recipe):
        found = item if isinstance(item, bytes) else part(item[0])
        size += len(found)
        if size > limit:
            raise MalformedEvidence(Code.TOO_LARGE, "a recipe makes more than a content may have", where="recipe")
        made.append(found)
    return b"".join(made)


def index_row(digest: bytes, offset: int) -> bytes:
    """The row of an index which says that content ``digest`` lies in the block at ``offset``."""
    return _INDEX_ROW.pack(digest, offset)


def encode_index(rows: Iterable[bytes], *, covered: int) -> bytes:
    """The index of a segment's first ``covered`` bytes, of rows in any order (:func:`index_row`)."""
    ascending = sorted(rows)
    return b"".join((_INDEX_HEAD.pack(_INDEX_MAGIC, len(ascending), covered), *ascending))


def read_index_head(file: IO[bytes]) -> tuple[int, int]:
    """The number of rows of an index, and how much of its segment it covers.

    Raises:
        MalformedEvidence: ``LEDGER_MALFORMED`` for no index, or a part of one.
        OSError: the file cannot be read.
    """
    head = file.read(_INDEX_HEAD.size)
    if len(head) == _INDEX_HEAD.size:
        magic, count, covered = _INDEX_HEAD.unpack(head)
        if magic == _INDEX_MAGIC and os.fstat(file.fileno()).st_size == _INDEX_HEAD.size + _INDEX_ROW.size * count:
            return count, covered
    raise _malformed("not an index")


def look_up(file: IO[bytes], digest: bytes) -> tuple[int, ...]:
    """The offsets of the blocks that have content ``digest``, by this index; usually one, or none.

    Raises:
        MalformedEvidence: ``LEDGER_MALFORMED`` for no index.
        OSError: the file cannot be read.
    """
    file.seek(0)
    count, _ = read_index_head(file)
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if _index_row(file, middle)[0] < digest:
            low = middle + 1
        else:
            high = middle
    offsets: list[int] = []
    while low < count and (row := _index_row(file, low))[0] == digest:
        offsets.append(row[1])
        low += 1
    return tuple(offsets)


def _index_row(file: IO[bytes], number: int) -> tuple[bytes, int]:
    data = os.pread(file.fileno(), _INDEX_ROW.size, _INDEX_HEAD.size + _INDEX_ROW.size * number)
    if len(data) != _INDEX_ROW.size:
        raise _malformed("the index is cut off")
    digest, offset = _INDEX_ROW.unpack(data)
    return digest, offset


def _next_block(file: IO[bytes], start: int, size: int) -> int | None:
    """Where the next whole block begins, if there is one: what lies before it was damaged later."""
    at, chunk, candidates = start, 1 << 20, 0
    while at < size and candidates < _CANDIDATES_MAX:
        file.seek(at)
        window = file.read(chunk + len(_MAGIC) - 1)
        found = window.find(_MAGIC)
        if found < 0:
            at += chunk
            continue
        candidates += 1
        try:
            block = read_head(file, at + found)
        except MalformedEvidence:
            at += found + 1
            continue
        if at + found + block.size <= size:
            return at + found
        at += found + 1
    return None


def _checksum(packed: int, raw: int, count: int, directory: bytes) -> bytes:
    return sha256(_NUMBERS.pack(packed, raw, count) + directory)[:16]


def _malformed(message: str) -> MalformedEvidence:
    return MalformedEvidence(Code.LEDGER_MALFORMED, message, where="segment")
