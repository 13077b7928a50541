"""Reading a ledger without locking it: entries and proofs under one signed checkpoint.

A :class:`LedgerReader` is a snapshot: everything that it returns has been verified against the root of its checkpoint.
Tiles are immutable and only a partial one is ever deleted, after its full one is there; so a snapshot stays readable
while a writer goes on, and needs no lock.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import limits, merkle, tlog
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.ledger.published import CHECKPOINT, open_head
from weighbridge.verifier.ledger.source import source_of

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.proto.note import NoteKey
    from weighbridge.verifier.ledger.source import Source

__all__ = ["LedgerReader", "read_file"]

# Whoever reads the entries of one session comes by each tile again and again: 60 KB each, 32 MB in all.
_TILES_KEPT: Final = 512


@final
class LedgerReader:
    """A ledger as of ``checkpoint``. Use :meth:`open` to read the published one.

    Args:
        where: the ledger: its directory, or wherever else its files are.
        checkpoint: verified; everything is read and proven under its root.
    """

    __slots__ = ("_kept", "_source", "checkpoint")

    def __init__(self, where: Path | Source, checkpoint: tlog.VerifiedCheckpoint) -> None:
        self._source = source_of(where)
        self.checkpoint = checkpoint
        # Proven leaf hashes and entries, by the number of their tile; the longest unused first.
        self._kept: OrderedDict[int, tuple[tuple[bytes, ...], tuple[bytes, ...]]] = OrderedDict()

    @classmethod
    def open(cls, where: Path | Source, *, key: NoteKey, origin: str, head: str = CHECKPOINT) -> LedgerReader:
        """The ledger as it is published now.

        Args:
            where: the ledger.
            key: its key, trusted by the caller.
            origin: the ledger that the caller means.
            head: the file that has the signed head.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE`` when there is no ledger, or it cannot be read.
            MalformedEvidence: a decoding code, for the checkpoint.
            NotAuthentic: ``LEDGER_SIGNATURE``.
            LedgerInconsistent: ``LEDGER_ORIGIN``.
        """
        source = source_of(where)
        data = source.read(head, limit=limits.CHECKPOINT_MAX)
        return cls(source, open_head(data, key, origin=origin, where=source.place(head)))

    def entry(self, index: int) -> bytes:
        """Entry ``index``, proven to be in the tree.

        Raises:
            ValueError: when the tree has no such entry.
            LedgerInconsistent: ``LEDGER_PROOF``, ``LEDGER_INCONSISTENT`` or ``LEDGER_MALFORMED``: storage was altered.
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        number, at = divmod(index, tlog.TILE_WIDTH)
        if number not in self._kept or not 0 <= index < self.checkpoint.size:
            self._keep(number, index)
        self._kept.move_to_end(number)
        leaves, entries = self._kept[number]
        if (found := merkle.leaf_hash(entries[at])) != leaves[at]:
            # What was proven is kept, and nothing else.
            del self._kept[number]
            raise LedgerInconsistent(
                Code.LEDGER_PROOF, "not the entry of the tree", where=f"entry {index}", expected=leaves[at], got=found
            )
        return entries[at]

    def leaf_hash(self, index: int) -> bytes:
        """Leaf hash ``index``, proven to be in the tree; raises as :meth:`entry`."""
        return self._proven(index)[0]

    def inclusion_proof(self, index: int) -> tuple[bytes, ...]:
        """The hashes from leaf ``index`` to the root, verified before they are returned; raises as :meth:`entry`."""
        return self._proven(index)[1]

    def proof(self, index: int) -> tlog.Proof:
        """The same as an offline proof, with the checkpoint in it; raises as :meth:`entry`."""
        return tlog.Proof(index, self.inclusion_proof(index), self.checkpoint.note)

    def consistency_proof(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """The proof from the tree of ``old`` leaves to that of ``new``, by default the checkpoint's.

        Not verified here: the two roots are the asker's to give.

        Raises:
            ValueError: unless ``0 <= old <= new <= size``.
            LedgerInconsistent: ``LEDGER_INCONSISTENT`` or ``LEDGER_MALFORMED``: storage was altered.
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        size = self.checkpoint.size if new is None else new
        if size > self.checkpoint.size:
            raise ValueError(f"the checkpoint has {self.checkpoint.size} leaves, not {size}")
        return merkle.consistency_proof(old, size, tlog.tile_nodes(cache(self._tile)))

    def _keep(self, number: int, index: int) -> None:
        """Read tile ``number`` with the entries that it commits to, and prove its leaf hashes.

        The proof of one leaf proves them all: the others are what its siblings in the tile were made of.
        """
        size = self.checkpoint.size
        if not 0 <= index < size:
            raise ValueError(f"no entry {index} in a tree of {size}")
        # Each tile is read once for one proof: from a bucket or a server, every one takes its time.
        tile = cache(self._tile)
        leaves, width = tile(0, number), self._width(number, 0)
        proof = merkle.inclusion_proof(index, size, tlog.tile_nodes(tile))
        self._verify(leaves[index % tlog.TILE_WIDTH], index, proof)
        path, data = self._read(tlog.entries_path(number, width), tlog.entries_path(number))
        try:
            stored = width if path.endswith(f".p/{width}") else tlog.TILE_WIDTH
            entries = tlog.parse_bundle(data, width=stored)
        except MalformedEvidence as error:
            raise _altered(self._source.place(path), error) from error
        self._kept[number] = leaves, entries
        if len(self._kept) > _TILES_KEPT:
            _ = self._kept.popitem(last=False)

    def _proven(self, index: int) -> tuple[bytes, tuple[bytes, ...]]:
        """Leaf hash ``index``, and its proof."""
        tile = cache(self._tile)
        proof = merkle.inclusion_proof(index, self.checkpoint.size, tlog.tile_nodes(tile))
        number, at = divmod(index, tlog.TILE_WIDTH)
        leaf = tile(0, number)[at]
        self._verify(leaf, index, proof)
        return leaf, proof

    def _verify(self, leaf: bytes, index: int, proof: tuple[bytes, ...]) -> None:
        merkle.verify_inclusion(leaf, proof, index=index, size=self.checkpoint.size, root=self.checkpoint.root)

    def _width(self, number: int, level: int) -> int:
        """How wide tile ``number`` is in the tree of the checkpoint."""
        hashes = self.checkpoint.size >> (tlog.TILE_HEIGHT * level)
        return min(tlog.TILE_WIDTH, hashes - number * tlog.TILE_WIDTH)

    def _tile(self, level: int, number: int) -> tuple[bytes, ...]:
        width = self._width(number, level)
        path, data = self._read(tlog.tile_path(level, number, width), tlog.tile_path(level, number))
        try:
            stored = width if path.endswith(f".p/{width}") else tlog.TILE_WIDTH
            return tlog.parse_tile(data, width=stored)[:width]
        except MalformedEvidence as error:
            raise _altered(self._source.place(path), error) from error

    def _read(self, partial: str, full: str) -> tuple[str, bytes]:
        """The tile of just this width or, when it has been deleted since, the full one, of which it is a prefix."""
        for path in (partial, full):
            try:
                data = self._source.read(path, limit=tlog.BUNDLE_MAX)
            except MalformedEvidence as error:
                raise _altered(self._source.place(path), error) from error
            if data is not None:
                return path, data
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "tile is missing",
            where=self._source.place(partial),
            clause="C2SP tlog-tiles",
        )


def read_file(path: Path) -> bytes | None:
    """The content of ``path``, or ``None`` when there is no such file.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # One byte more than any file of a ledger has: the parsers refuse it. Room is made for what is there.
            return os.read(descriptor, min(os.fstat(descriptor).st_size, tlog.BUNDLE_MAX) + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise EnvironmentFault(Code.FILE_UNREADABLE, reason, where=str(path)) from error


def _altered(place: str, error: MalformedEvidence) -> LedgerInconsistent:
    return LedgerInconsistent(Code.LEDGER_MALFORMED, f"stored tile is malformed: {error.message}", where=place)
