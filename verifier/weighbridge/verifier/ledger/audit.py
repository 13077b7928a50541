"""Re-verifies a whole ledger from its files, sharing no code with the writer but the encodings in ``proto``.

Every entry is hashed, every tile at every level computed anew and compared, and the root compared with the signed one.
Shows that the files are one tree under one signed checkpoint, and, given an earlier checkpoint, that nothing in it was
changed or removed since. Does not show that others were given the same checkpoints: that takes witnesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.proto import limits, merkle, tlog
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.ledger.published import CHECKPOINT, open_head
from weighbridge.verifier.ledger.source import source_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weighbridge.proto.note import NoteKey
    from weighbridge.verifier.ledger.source import Source

__all__ = ["AuditReport", "audit"]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit has verified; there is no report of one that failed.

    Attributes:
        origin: the ledger's name.
        size: number of entries, all of them hashed.
        root: the signed root, computed anew.
        entry_bytes: total length of the entries.
        tiles: number of hash tiles compared.
        consistent_with: size of the earlier checkpoint that this ledger was shown to extend, if one was given.
        note: the signed head, for whoever asks who has cosigned it.
    """

    origin: str
    size: int
    root: bytes
    entry_bytes: int
    tiles: int
    consistent_with: int | None
    note: bytes


def audit(
    where: Path | Source, key: NoteKey, origin: str, *, earlier: bytes | None = None, head: str = CHECKPOINT
) -> AuditReport:
    """Verify the ledger at ``where`` from end to end. May run while the ledger is being written to.

    Args:
        where: with ``checkpoint`` and ``tile/`` in it: a directory, or wherever else they are; untrusted.
        key: the ledger's key, trusted by the caller.
        origin: the ledger that the caller means.
        earlier: a signed checkpoint of the same ledger, kept from before.
        head: the file that has the signed head; of its tree every file is read, and of a longer one no more.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``, or another code of what reads the files.
        MalformedEvidence: a decoding code, for a checkpoint.
        NotAuthentic: ``LEDGER_SIGNATURE``.
        LedgerInconsistent: ``LEDGER_ORIGIN``, ``LEDGER_MALFORMED`` or ``LEDGER_INCONSISTENT``, naming the file.
    """
    # 1. Whose word is it: signature, then text, then name.
    source = source_of(where)
    place = source.place(head)
    checkpoint = open_head(source.read(head, limit=limits.CHECKPOINT_MAX), key, origin=origin, where=place)
    before = None if earlier is None else tlog.open_checkpoint(earlier, key, origin=origin)
    # 2. An append-only ledger does not become shorter.
    if before is not None and before.size > checkpoint.size:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "ledger is shorter than it was",
            where=place,
            expected=f">= {before.size}",
            got=checkpoint.size,
        )
    # 3. Hash every entry, fill the tiles of every level from below, and compare each with what is stored.
    tree, tiles, entry_bytes = merkle.CompactRange(), _Tiles(source), 0
    for number, width in _bundles(checkpoint.size):
        entries = _entries(source, number, width)
        leaves = [merkle.leaf_hash(entry) for entry in entries]
        if before is not None and tree.size <= before.size < tree.size + width:
            # 4. The tree at the earlier size has the root that was signed for it.
            _compare(
                before.root,
                tree.extend(leaves[: before.size - tree.size]).root,
                f"{place}: as of the earlier checkpoint",
            )
        tree = tree.extend(leaves)
        tiles.add(leaves)
        entry_bytes += sum(map(len, entries))
    if before is not None and before.size == tree.size:
        _compare(before.root, tree.root, f"{place}: as of the earlier checkpoint")
    tiles.end()
    # 5. The root over all entries is the one that was signed.
    _compare(checkpoint.root, tree.root, place)
    return AuditReport(
        origin=origin,
        size=checkpoint.size,
        root=checkpoint.root,
        entry_bytes=entry_bytes,
        tiles=tiles.count,
        consistent_with=None if before is None else before.size,
        note=checkpoint.note,
    )


class _Tiles:
    """Tiles under computation, one per level; each is compared with the stored one as soon as it is complete."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._levels: list[list[bytes]] = []
        self._full: list[int] = []
        self.count = 0

    def add(self, leaves: list[bytes]) -> None:
        """Take the next 256 leaf hashes, or at the very end fewer."""
        level, hashes = 0, leaves
        while hashes:
            if level == len(self._levels):
                self._levels.append([])
                self._full.append(0)
            tile = self._levels[level]
            tile += hashes
            hashes = []
            if len(tile) == tlog.TILE_WIDTH:
                self._compare(level)
                hashes = [merkle.root(tile)]
                self._levels[level] = []
                self._full[level] += 1
            level += 1

    def end(self) -> None:
        """Compare the partial tiles."""
        for level, tile in enumerate(self._levels):
            if tile:
                self._compare(level)

    def _compare(self, level: int) -> None:
        number, tile = self._full[level], self._levels[level]
        width = len(tile)
        name = tlog.tile_path(level, number, width)
        data, stored = _partial_or_full(self._source, name, width)
        try:
            claimed = tlog.parse_tile(data, width=stored)[:width]
        except MalformedEvidence as error:
            raise _malformed(self._source.place(name), error) from error
        for at, (theirs, ours) in enumerate(zip(claimed, tile, strict=True)):
            _compare(theirs, ours, f"{self._source.place(name)}[{at}]")
        self.count += 1


def _bundles(size: int) -> Iterator[tuple[int, int]]:
    """Index and width of each entry bundle of a tree of ``size`` leaves."""
    for at in range(0, size, tlog.TILE_WIDTH):
        yield at // tlog.TILE_WIDTH, min(tlog.TILE_WIDTH, size - at)


def _entries(source: Source, number: int, width: int) -> tuple[bytes, ...]:
    name = tlog.entries_path(number, width)
    data, stored = _partial_or_full(source, name, width)
    try:
        return tlog.parse_bundle(data, width=stored)[:width]
    except MalformedEvidence as error:
        raise _malformed(source.place(name), error) from error


def _partial_or_full(source: Source, name: str, width: int) -> tuple[bytes, int]:
    """The file and its width: the one of this name or, when it was deleted, the full one that it is a prefix of."""
    full = name.removesuffix(f".p/{width}")
    if (data := _read(source, name)) is not None:
        return data, width
    if name != full and (data := _read(source, full)) is not None:
        return data, tlog.TILE_WIDTH
    raise LedgerInconsistent(Code.LEDGER_INCONSISTENT, "file of the signed tree is missing", where=source.place(name))


def _read(source: Source, name: str) -> bytes | None:
    try:
        return source.read(name, limit=tlog.BUNDLE_MAX)
    except MalformedEvidence as error:
        raise _malformed(source.place(name), error) from error


def _compare(claimed: bytes, computed: bytes, where: str) -> None:
    if claimed != computed:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "hash is not that of the entries",
            where=where,
            expected=computed,
            got=claimed,
        )


def _malformed(place: str, error: MalformedEvidence) -> LedgerInconsistent:
    return LedgerInconsistent(Code.LEDGER_MALFORMED, f"stored file is malformed: {error.message}", where=place)
