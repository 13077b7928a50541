"""A store of bytes under their SHA-256, in a directory: evidence, verdict records, terms, manifests.

The ledger's leaves are small and name such digests; the bytes themselves lie here. What :meth:`ContentStore.put` has
returned stays; what :meth:`ContentStore.get` returns has just been hashed. On disk, below the store's directory::

    segments/<number>-<random>          contents in blocks (:mod:`.segment`): a file for each writer, until it is large
    segments/<number>-<random>.index    where the contents of that file's beginning lie

Whatever is put together is one write and one sync. A part that many contents have in common, such as a device's chain
of certificates, is kept once, and the contents refer to it. Nothing is ever rewritten: a writer adds to the end of its
own segment and, when a write has failed, writes over what that may have left behind the last one that succeeded. It
locks that segment: nobody else writes an index of one that may still change.

If power fails during a write, the end of a segment is something that no block is, or a block whose frame was not
written: nobody was told of what is in it, and it is put again. An index is written after its segment was synced, and
only so that opening need not read the segment: what it does not cover is read from the segment itself.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, Indeterminate, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.files import Files, PosixFiles, fault, install
from weighbridge.verifier.ledger import segment
from weighbridge.verifier.ledger.catalogue import Catalogue, Place
from weighbridge.verifier.ledger.contents import Content
from weighbridge.verifier.ledger.segment_lock import SegmentLock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Content", "ContentStore"]

_SEGMENTS: Final = "segments"
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
# As much as is read of a segment without an index, heads only, when a store is opened.
_SEGMENT_MAX: Final = 128 * 1024 * 1024
# Shorter ones repeat as well, but a reference is not much shorter than they are.
_PART_MIN: Final = 256
# Digests of parts that are known to be durable, and unpacked blocks: some megabytes each.
_KNOWN_MAX: Final = 65_536
_UNPACKED_MAX: Final = 16


@final
class ContentStore:
    """Bytes by digest in ``directory``, which is created when it is not there; its parent exists.

    One thread at a time uses an object. Several objects and processes may use one directory at once: each writes to a
    segment of its own, and reads what the others have put.

    Raises:
        EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
    """

    __slots__ = ("_at", "_catalogue", "_directory", "_files", "_known", "_lock", "_own", "_rows", "_unpacked")

    def __init__(self, directory: Path, *, files: Files | None = None) -> None:
        self._directory = directory / _SEGMENTS
        self._files = files or PosixFiles()
        try:
            for path in (directory, self._directory):
                self._files.make_directory(path, mode=_DIRECTORY_MODE)
                self._files.sync_directory(path.parent)
        except OSError as error:
            raise fault(error, directory, "creating the content store") from error
        self._catalogue = Catalogue(self._directory)
        # The segment that this object writes to, how much of it is durable, and what is in that.
        self._own: str | None = None
        self._lock: SegmentLock | None = None
        self._at = 0
        self._rows: list[bytes] = []
        # Parts that are durable. The longest unused first, as in the other.
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._unpacked: OrderedDict[tuple[str, int], tuple[segment.Block, bytes]] = OrderedDict()

    def put(self, data: bytes, parts: Sequence[bytes] = ()) -> bytes:
        """Keep ``data`` and return its SHA-256. Putting the same bytes again writes nothing.

        Raises:
            EnvironmentFault: as :meth:`put_all`.
            ValueError: as :meth:`put_all`.
        """
        digest = sha256(data)
        if len(data) > limits.CONTENT_MAX or not self._durable(digest):
            _ = self.put_all([Content(data, tuple(parts))])
            self._remember(digest)
        return digest

    def put_all(self, contents: Sequence[Content], *, entry: int | None = None) -> tuple[bytes, ...]:  # noqa: ARG002 - see below
        """Keep all of ``contents`` with one sync, and return their digests. What is here already is written again.

        They are found by their digests alone: ``entry`` is for those that find them by it (:mod:`.contents`).

        Raises:
            EnvironmentFault: ``DISK_FULL``, ``FILE_UNWRITABLE`` or ``FILE_UNREADABLE``; none of them may be there, and
                all may be put again.
            ValueError: for more than ``limits.CONTENT_MAX`` in one.
        """
        digests: list[bytes] = []
        fresh: dict[bytes, bytes] = {}
        packed: dict[bytes, tuple[bytes, bytes, int]] = {}
        for content in contents:
            if len(content.data) > limits.CONTENT_MAX:
                raise ValueError(f"content of {len(content.data)} bytes")
            digests.append(sha256(content.data))
            packed[digests[-1]] = self._packed(digests[-1], content, fresh)
        parts = ((digest, part, segment.PLAIN) for digest, part in fresh.items())
        blocks = list(segment.cut([*parts, *packed.values()]))
        self._write(blocks)
        for digest in fresh:
            self._remember(digest)
        return tuple(digests)

    def get(self, digest: bytes, *, entry: int | None = None) -> bytes:  # noqa: ARG002 - as in `put_all`
        """The bytes whose SHA-256 is ``digest``, hashed again.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT`` when they are not here.
            LedgerInconsistent: ``LEDGER_INCONSISTENT`` when what is stored has another digest, or is part of a file
                that was damaged.
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        _require_digest(digest)
        if (data := self._first_good(digest)) is not None:
            return data
        # What another process had begun to write, it may have written over since.
        self._unpacked.clear()
        self._catalogue.reload()
        if (data := self._first_good(digest)) is not None:
            return data
        places, damaged = self._catalogue.find(digest), self._catalogue.damaged
        if places or damaged:
            raise LedgerInconsistent(
                Code.LEDGER_INCONSISTENT,
                "stored content was altered" if places else "content is not in the store, which was damaged",
                where=f"{self._directory / (places[0].segment if places else damaged[0])}, content {digest.hex()}",
            )
        raise Indeterminate(Code.EVIDENCE_ABSENT, "content is not in the store", where=digest.hex())

    def ahead(self, entries: Sequence[int]) -> None:
        """See :meth:`.contents.Contents.ahead`: a disk is near."""

    def has(self, digest: bytes) -> bool:
        """Whether something is stored under ``digest``. Does not read it.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        _require_digest(digest)
        return bool(self._catalogue.find(digest))

    def _packed(self, digest: bytes, content: Content, fresh: dict[bytes, bytes]) -> tuple[bytes, bytes, int]:
        """``content`` as it is stored; parts that are not there yet are added to ``fresh``."""
        parts = [(sha256(part), part) for part in content.parts if len(part) >= _PART_MIN]
        recipe = segment.encode_recipe(content.data, parts)
        if recipe is None:
            return digest, content.data, segment.PLAIN
        for name, part in parts:
            # What is kept although no recipe has come to need it does no harm.
            if name not in fresh and not self._durable(name):
                fresh[name] = part
        return digest, recipe, segment.RECIPE

    def _durable(self, digest: bytes) -> bool:
        """Whether ``digest`` can be read, and was synced by whoever wrote it."""
        if digest in self._known:
            self._known.move_to_end(digest)
            return True
        # What lies behind an index may not have been synced: its writer may have been killed just then.
        if not any(self._load(digest, place) is not None for place in self._catalogue.find(digest) if place.indexed):
            return False
        self._remember(digest)
        return True

    def _remember(self, digest: bytes) -> None:
        self._known[digest] = None
        if len(self._known) > _KNOWN_MAX:
            _ = self._known.popitem(last=False)

    def _write(self, blocks: Sequence[Sequence[tuple[bytes, bytes, int]]]) -> None:
        """Add ``blocks`` to the end of this object's segment, durably."""
        if not blocks:
            return
        encoded = [segment.encode_block(block) for block in blocks]
        try:
            if self._own is None:
                self._begin()
            path = self._directory / str(self._own)
            # If power fails here: the segment ends with a part of these blocks, of which nobody was told.
            self._files.extend(path, b"".join(encoded), at=self._at, mode=_FILE_MODE)
            if self._at == 0:
                # If power fails here: the segment may not be there; still nobody was told of anything in it.
                self._files.sync_directory(self._directory)
        except OSError as error:
            # Where the next write begins is not moved: it cuts off what this one has left.
            self._forget()
            raise fault(error, self._directory, "storing content") from error
        for block, data in zip(blocks, encoded, strict=True):
            # Packed as they come: once a segment is full, everybody waits for its index.
            self._rows += [segment.index_row(digest, self._at) for digest, _, _ in block]
            self._at += len(data)
        if self._at >= _SEGMENT_MAX:
            self._end()

    def _forget(self) -> None:
        """Forget what was seen of a write that has failed."""
        self._unpacked.clear()
        if self._own is not None:
            self._catalogue.forget(self._own)

    def _begin(self) -> None:
        """A segment of our own, behind all others; those that were left without an index get one."""
        for name in self._catalogue.unindexed():
            # Looked at once it is locked: its writer, who is gone then, writes over what a failed write has left.
            with SegmentLock.of_ended(self._directory / name) as ended:
                if ended:
                    self._files.sync(self._directory / name)
                    self._index(name, *self._catalogue.whole(name))
        name = self._catalogue.next_name()
        self._lock = SegmentLock.of_new(self._directory / name)
        self._own, self._at, self._rows = name, 0, []

    def _end(self) -> None:
        """Go on in another segment. The index is for those who open the store: they manage without, too."""
        name, rows, covered, lock = self._own, self._rows, self._at, self._lock
        self._own, self._lock = None, None
        if name is not None and lock is not None:
            # All of it is durable already; the beginning of the next segment tries again.
            with contextlib.suppress(OSError):
                self._index(name, rows, covered)
            lock.release()

    def _index(self, name: str, rows: Sequence[bytes], covered: int) -> None:
        target = self._directory / f"{name}{segment.INDEX_SUFFIX}"
        # If power fails here: there is no index, or a whole one.
        staging = self._directory / f"staging-{os.urandom(8).hex()}"
        install(self._files, segment.encode_index(rows, covered=covered), target, staging=staging, mode=_FILE_MODE)

    def _first_good(self, digest: bytes) -> bytes | None:
        # Where power failed during a write, a later one may have brought what an earlier one did not.
        loaded = (self._load(digest, place) for place in self._catalogue.find(digest))
        return next((data for data in loaded if data is not None), None)

    def _load(self, digest: bytes, place: Place, *, plain: bool = False) -> bytes | None:
        """The content at ``place``, if what lies there has its digest."""
        try:
            block, raw = self._unpack(place)
            row = next((row for row in block.rows if row.digest == digest), None)
            if row is None or (plain and row.kind != segment.PLAIN):
                return None
            data = raw[row.offset : row.offset + row.length]
            if row.kind == segment.RECIPE:
                data = self._joined(data)
        except MalformedEvidence:
            return None
        return data if sha256(data) == digest else None

    def _joined(self, recipe: bytes) -> bytes:
        """What a recipe makes.

        Raises:
            MalformedEvidence: it is none, refers to what is not there, or makes more than a content may have.
        """
        return segment.join(recipe, self._part, limit=limits.CONTENT_MAX)

    def _part(self, digest: bytes) -> bytes:
        for place in self._catalogue.find(digest):
            # Parts are plain: a recipe that refers to another would have no end.
            if (data := self._load(digest, place, plain=True)) is not None:
                return data
        raise MalformedEvidence(Code.LEDGER_MALFORMED, "a part is not there", where="recipe", got=digest)

    def _unpack(self, place: Place) -> tuple[segment.Block, bytes]:
        """The block at ``place``; those that were read last are kept: sessions are read content by content."""
        key = place.segment, place.offset
        if key not in self._unpacked:
            path = self._directory / place.segment
            try:
                with path.open("rb") as file:
                    self._unpacked[key] = segment.open_block(file, place.offset)
            except FileNotFoundError as error:
                raise MalformedEvidence(Code.LEDGER_MALFORMED, "the segment is gone", where=place.segment) from error
            except OSError as error:
                reason = (error.strerror or type(error).__name__).lower()
                raise EnvironmentFault(Code.FILE_UNREADABLE, reason, where=str(path)) from error
            if len(self._unpacked) > _UNPACKED_MAX:
                _ = self._unpacked.popitem(last=False)
        self._unpacked.move_to_end(key)
        return self._unpacked[key]


def _require_digest(digest: bytes) -> None:
    if len(digest) != limits.DIGEST_SIZE:
        raise ValueError("a digest has 32 bytes")
