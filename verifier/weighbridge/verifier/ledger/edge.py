"""The right edge of a tree in tiles: all that a writer has to know, and what an append adds to it. Pure.

An :class:`Edge` is a value: an append computes the next one and the files that belong to it, writes the files, and
only then puts the next edge in the place of the old one. Undoing a failed append is not doing that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from weighbridge.proto import merkle, tlog
from weighbridge.proto.errors import Code, LedgerInconsistent

__all__ = ["Edge", "Growth", "grow", "load"]

_WIDTH = tlog.TILE_WIDTH
_HEIGHT = tlog.TILE_HEIGHT


@dataclass(frozen=True, slots=True)
class Edge:
    """The partial tiles of a tree.

    Attributes:
        tree: the same tree as a compact range, for its root.
        levels: for each tile level that the tree has, the hashes of its partial tile: 0 to 255 of them.
        entries: the entries of the partial bundle: as many as there are hashes at level 0.
    """

    tree: merkle.CompactRange = field(default_factory=merkle.CompactRange)
    levels: tuple[tuple[bytes, ...], ...] = ()
    entries: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self.tree.size


@dataclass(frozen=True, slots=True)
class Growth:
    """What an append amounts to.

    Attributes:
        edge: the edge afterwards.
        leaf_hashes: of the appended entries, in order.
        files: path below the ledger to content, for every tile and bundle that is new or wider.
    """

    edge: Edge
    leaf_hashes: tuple[bytes, ...]
    files: dict[str, bytes]


def grow(edge: Edge, entries: Sequence[bytes]) -> Growth:
    """The edge after ``entries`` have been appended, proven to be an extension of ``edge``.

    Raises:
        LedgerInconsistent: ``LEDGER_PROOF`` when the tree in tiles and the compact range disagree: a fault of this
            machine's memory or of this code, caught before anything is signed.
    """
    leaf_hashes = tuple(merkle.leaf_hash(entry) for entry in entries)
    files: dict[str, bytes] = {}
    bundles, rest = _divide([*edge.entries, *entries])
    index = edge.size // _WIDTH
    for bundle in bundles:
        files[tlog.entries_path(index)] = tlog.encode_bundle(bundle)
        index += 1
    if rest:
        files[tlog.entries_path(index, len(rest))] = tlog.encode_bundle(rest)
    levels = _grow_levels(edge, leaf_hashes, files)
    grown = Edge(tree=edge.tree.extend(leaf_hashes), levels=levels, entries=rest)
    _check(edge, grown, files)
    return Growth(grown, leaf_hashes, files)


def load(size: int, tile: Callable[[int, int, int], bytes], bundle: Callable[[int, int], bytes]) -> Edge:
    """The edge of a stored tree of ``size`` leaves. Does not check that its root is the right one: the caller does.

    Args:
        size: number of leaves, from a verified checkpoint.
        tile: given level, index and width, the stored partial tile.
        bundle: given index and width, the stored partial entry bundle.

    Raises:
        MalformedEvidence: a decoding code, for what is stored.
        LedgerInconsistent: ``LEDGER_INCONSISTENT`` when the entries do not have the hashes of the tile.
    """
    levels: list[tuple[bytes, ...]] = []
    while size >> (_HEIGHT * len(levels)):
        number, width = divmod(size >> (_HEIGHT * len(levels)), _WIDTH)
        levels.append(tlog.parse_tile(tile(len(levels), number, width), width=width) if width else ())
    number, width = divmod(size, _WIDTH)
    entries = tlog.parse_bundle(bundle(number, width), width=width) if width else ()
    if levels and tuple(map(merkle.leaf_hash, entries)) != levels[0]:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "entries do not have the hashes of their tile",
            where=tlog.entries_path(number, width),
        )
    hashes = [root for level in reversed(levels) for root in _perfect_roots(level)]
    return Edge(tree=merkle.CompactRange(size, tuple(hashes)), levels=tuple(levels), entries=entries)


def _grow_levels(edge: Edge, leaf_hashes: tuple[bytes, ...], files: dict[str, bytes]) -> tuple[tuple[bytes, ...], ...]:
    """Append upwards: each tile that becomes full adds its root to the level above."""
    levels = list(edge.levels)
    fresh: Sequence[bytes] = leaf_hashes
    level = 0
    while fresh:
        if level == len(levels):
            levels.append(())
        tiles, rest = _divide([*levels[level], *fresh])
        index = edge.size >> (_HEIGHT * (level + 1))
        for tile in tiles:
            files[tlog.tile_path(level, index)] = tlog.encode_tile(tile)
            index += 1
        if rest:
            files[tlog.tile_path(level, index, len(rest))] = tlog.encode_tile(rest)
        levels[level] = rest
        fresh = [merkle.perfect_root(tile) for tile in tiles]
        level += 1
    return tuple(levels)


def _divide(items: list[bytes]) -> tuple[list[tuple[bytes, ...]], tuple[bytes, ...]]:
    """Full runs of 256, and what is left over."""
    full = len(items) - len(items) % _WIDTH
    return [tuple(items[at : at + _WIDTH]) for at in range(0, full, _WIDTH)], tuple(items[full:])


def _perfect_roots(hashes: Sequence[bytes]) -> list[bytes]:
    """The roots of the perfect subtrees that a partial tile decomposes into, left to right."""
    roots: list[bytes] = []
    at = 0
    while at < len(hashes):
        width = 1 << ((len(hashes) - at).bit_length() - 1)
        roots.append(merkle.perfect_root(hashes[at : at + width]))
        at += width
    return roots


def _check(old: Edge, new: Edge, files: dict[str, bytes]) -> None:
    """Prove the new tree, read from the very bytes to be written, to be an extension of the old one.

    Every node of such a proof lies in a tile that the append completes or leaves partial: nothing is read from disk.
    """

    def tile(level: int, index: int) -> Sequence[bytes]:
        if index == new.size >> (_HEIGHT * (level + 1)):
            return new.levels[level]
        return tlog.parse_tile(files[tlog.tile_path(level, index)], width=_WIDTH)

    proof = merkle.consistency_proof(old.size, new.size, tlog.tile_nodes(tile))
    merkle.verify_consistency(proof, old=old.size, old_root=old.tree.root, new=new.size, new_root=new.tree.root)
