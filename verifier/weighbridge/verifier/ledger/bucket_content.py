"""Contents in a bucket of object storage: one object for each turn, and one for each content that many share.

Below the contents' prefix::

    segments/<where>-<when>-<random>     what a turn has put: blocks, as in a segment on disk (:mod:`.segment`)
    contents/<first two>/<sha-256>       one content: a block of one row

A turn's object is named by the ledger entry that was expected to be the turn's first, counted down, so that names sort
from the newest to the oldest: what the ledger's entry *n* leads to lies in the first object, in the order of names,
that is not behind *n*. One request lists it and one reads it, however many there are: nothing is listed to open a
store, and no index is kept. Behind it lie the objects of turns whose leaves never entered the ledger, with the very
same entry at most: ``<when>``, counted down as well, has the one that counts come first.

Parts that many contents have in common, such as chains of certificates, and what is put alone (policies, reference
values, collateral), are objects of their own, found by their digest.

No object is overwritten, but one that no longer has its digest. If the process ends in the middle: some objects are
there that nobody refers to.
"""

from __future__ import annotations

import io
import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, Indeterminate, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.ledger import segment
from weighbridge.verifier.ledger.bucket import PRIVATE, Bucket
from weighbridge.verifier.ledger.contents import Content

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["BucketContents"]

_LAST: Final = 2**64 - 1
_PART_MIN: Final = 256
# As much as one object has: the contents of a turn, compressed, are more very rarely.
_SEGMENT_MAX: Final = 64 * 1024 * 1024
_CONTENT_MAX: Final = limits.CONTENT_MAX + 1024 * 1024
_OBJECT_MAX: Final = _SEGMENT_MAX + _CONTENT_MAX
# Objects that were read last, some digests that are known to be durable, and some blocks unpacked.
_KEPT_MAX: Final = 64 * 1024 * 1024
_KNOWN_MAX: Final = 65_536
_UNPACKED_MAX: Final = 16
# Segments that are looked into for one content: each but one is of a turn that has failed.
_PAGE: Final = 8
_LOOKED_INTO_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class _Segment:
    """An object of blocks, and in which of them each content lies."""

    data: bytes
    at: Mapping[bytes, tuple[int, ...]]

    @classmethod
    def of(cls, data: bytes) -> _Segment:
        rows: dict[bytes, tuple[int, ...]] = {}
        for at, block in segment.scan(io.BytesIO(data), 0).blocks:
            for row in block.rows:
                rows[row.digest] = (*rows.get(row.digest, ()), at)
        return cls(data, rows)


@final
class BucketContents:
    """See :class:`.contents.Contents`.

    What was put with an ``entry`` is found by that entry, or while it is remembered: the contents of the last segments
    that were read or written. Others are found by their digest alone.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        # The longest unused first, in all of these.
        self._segments: OrderedDict[str, _Segment] = OrderedDict()
        self._size = 0
        self._places: OrderedDict[bytes, str] = OrderedDict()
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._unpacked: OrderedDict[tuple[str, int], tuple[segment.Block, bytes]] = OrderedDict()

    def close(self) -> None:
        """Let go of the bucket."""
        self._bucket.close()

    def put(self, data: bytes, parts: Sequence[bytes] = ()) -> bytes:
        """See :meth:`.contents.Contents.put`."""
        return self.put_all([Content(data, tuple(parts))])[0]

    def put_all(self, contents: Sequence[Content], *, entry: int | None = None) -> tuple[bytes, ...]:
        """See :meth:`.contents.Contents.put_all`. With an ``entry`` they are one object, else one each."""
        digests: list[bytes] = []
        alone: dict[bytes, bytes] = {}
        together: dict[bytes, tuple[bytes, bytes, int]] = {}
        for content in contents:
            if len(content.data) > limits.CONTENT_MAX:
                raise ValueError(f"content of {len(content.data)} bytes")
            digests.append(sha256(content.data))
            if entry is not None:
                together[digests[-1]] = self._packed(digests[-1], content, alone)
            elif digests[-1] not in self._known:
                alone[digests[-1]] = content.data
        segments = {} if entry is None else dict(_segments(entry, together.values()))
        _ = self._bucket.at_once(
            [
                *(partial(self._put_alone, digest, data) for digest, data in alone.items()),
                *(partial(self._put_segment, name, data) for name, data in segments.items()),
            ]
        )
        for digest in alone:
            self._remember(digest)
        for name, data in segments.items():
            _ = self._keep(name, _Segment.of(data))
        return tuple(digests)

    def get(self, digest: bytes, *, entry: int | None = None) -> bytes:
        """See :meth:`.contents.Contents.get`."""
        if len(digest) != limits.DIGEST_SIZE:
            raise ValueError("a digest has 32 bytes")
        altered = ""
        for name in self._candidates(digest, entry):
            loaded = self._load(name, digest)
            if loaded is not None:
                return loaded
            if digest in self._segment(name).at:
                altered = name
        if altered:
            raise LedgerInconsistent(
                Code.LEDGER_INCONSISTENT,
                "stored content was altered",
                where=f"{self._bucket.place(altered)}, content {digest.hex()}",
            )
        raise Indeterminate(Code.EVIDENCE_ABSENT, "content is not in the store", where=digest.hex())

    def ahead(self, entries: Sequence[int]) -> None:
        """See :meth:`.contents.Contents.ahead`."""
        found = self._bucket.at_once([partial(self._newest, entry) for entry in entries])
        # Windows of one turn lie in one.
        wanted = [name for name in dict.fromkeys(found) if name is not None and name not in self._segments]
        got = self._bucket.at_once([partial(self._bucket.get, name, limit=_OBJECT_MAX) for name in wanted])
        for name, data in zip(wanted, got, strict=True):
            if data is not None:
                _ = self._keep(name, _Segment.of(data.data))

    def has(self, digest: bytes) -> bool:
        """See :meth:`.contents.Contents.has`."""
        if len(digest) != limits.DIGEST_SIZE:
            raise ValueError("a digest has 32 bytes")
        return digest in self._known or digest in self._places or digest in self._segment(_alone(digest)).at

    def _candidates(self, digest: bytes, entry: int | None) -> Iterator[str]:
        """Where ``digest`` may lie, the likeliest first."""
        if (known := self._places.get(digest)) is not None:
            yield known
        if entry is None:
            yield _alone(digest)
            return
        after = f"segments/{_LAST - entry:016x}"
        for _ in range(_LOOKED_INTO_MAX // _PAGE):
            listed = self._bucket.names("segments/", after=after, limit=_PAGE)
            yield from listed
            if len(listed) < _PAGE:
                break
            after = listed[-1]
        yield _alone(digest)

    def _newest(self, entry: int) -> str | None:
        """The first object that ``entry`` may lie in."""
        return next(iter(self._bucket.names("segments/", after=f"segments/{_LAST - entry:016x}", limit=1)), None)

    def _packed(self, digest: bytes, content: Content, alone: dict[bytes, bytes]) -> tuple[bytes, bytes, int]:
        """``content`` as it is stored with others; parts that are not known to be there are added to ``alone``."""
        parts = [(sha256(part), part) for part in content.parts if len(part) >= _PART_MIN]
        recipe = segment.encode_recipe(content.data, parts)
        if recipe is None:
            return digest, content.data, segment.PLAIN
        alone |= {name: part for name, part in parts if name not in self._known}
        return digest, recipe, segment.RECIPE

    def _put_segment(self, name: str, data: bytes) -> None:
        # The name is random: nothing can be there but this.
        if self._bucket.create(name, data, PRIVATE) is None:
            raise LedgerInconsistent(
                Code.LEDGER_INCONSISTENT, "an object has this random name already", where=self._bucket.place(name)
            )

    def _put_alone(self, digest: bytes, data: bytes) -> None:
        name, block = _alone(digest), segment.encode_block([(digest, data, segment.PLAIN)])
        if self._bucket.create(name, block, PRIVATE) is not None:
            return
        # Another version of the compressor may have packed it otherwise: what is in it counts.
        found = self._bucket.get(name, limit=_CONTENT_MAX)
        if found is not None and _raw(found.data, digest) != data:
            _ = self._bucket.replace(name, block, PRIVATE, tag=found.tag)

    def _remember(self, digest: bytes) -> None:
        self._known[digest] = None
        if len(self._known) > _KNOWN_MAX:
            _ = self._known.popitem(last=False)

    def _segment(self, name: str) -> _Segment:
        """What lies under ``name``, which is kept; nothing where there is no such object."""
        if name in self._segments:
            self._segments.move_to_end(name)
            return self._segments[name]
        found = self._bucket.get(name, limit=_OBJECT_MAX)
        # What is not there now may be soon.
        return _Segment(b"", {}) if found is None else self._keep(name, _Segment.of(found.data))

    def _keep(self, name: str, kept: _Segment) -> _Segment:
        self._segments[name] = kept
        self._size += len(kept.data)
        while self._size > _KEPT_MAX and len(self._segments) > 1:
            self._size -= len(self._segments.popitem(last=False)[1].data)
        for digest in kept.at:
            self._places[digest] = name
            if len(self._places) > _KNOWN_MAX:
                _ = self._places.popitem(last=False)
        return kept

    def _load(self, name: str, digest: bytes, *, is_part: bool = False) -> bytes | None:
        """The content ``digest``, if it lies in object ``name`` whole."""
        for offset in self._segment(name).at.get(digest, ()):
            try:
                block, raw = self._unpack(name, offset)
                row = next(row for row in block.rows if row.digest == digest)
                data = raw[row.offset : row.offset + row.length]
                if row.kind == segment.RECIPE and not is_part:
                    data = segment.join(data, self._part, limit=limits.CONTENT_MAX)
            except MalformedEvidence:
                continue
            if sha256(data) == digest:
                return data
        return None

    def _part(self, digest: bytes) -> bytes:
        # Parts are plain: a recipe that refers to another would have no end.
        if (data := self._load(_alone(digest), digest, is_part=True)) is not None:
            return data
        raise MalformedEvidence(Code.LEDGER_MALFORMED, "a part is not there", where="recipe", got=digest)

    def _unpack(self, name: str, offset: int) -> tuple[segment.Block, bytes]:
        key = name, offset
        if key not in self._unpacked:
            self._unpacked[key] = segment.open_block(io.BytesIO(self._segment(name).data), offset)
            if len(self._unpacked) > _UNPACKED_MAX:
                _ = self._unpacked.popitem(last=False)
        self._unpacked.move_to_end(key)
        return self._unpacked[key]


def _segments(entry: int, packed: Iterable[tuple[bytes, bytes, int]]) -> Iterator[tuple[str, bytes]]:
    """Objects of these contents, by names of their own: mostly one."""
    made: list[bytes] = []
    size = 0
    for block in map(segment.encode_block, segment.cut(packed)):
        if made and size + len(block) > _SEGMENT_MAX:
            yield _name(entry), b"".join(made)
            made, size = [], 0
        made.append(block)
        size += len(block)
    if made:
        yield _name(entry), b"".join(made)


def _name(entry: int) -> str:
    return f"segments/{_LAST - entry:016x}-{_LAST - time.time_ns():016x}-{os.urandom(4).hex()}"


def _alone(digest: bytes) -> str:
    return f"contents/{digest.hex()[:2]}/{digest.hex()}"


def _raw(data: bytes, digest: bytes) -> bytes | None:
    """What an object of one content holds, as it was put: ``None`` for what is no such object."""
    try:
        block, raw = segment.open_block(io.BytesIO(data), 0)
    except MalformedEvidence:
        return None
    return raw if [row.digest for row in block.rows] == [digest] else None
