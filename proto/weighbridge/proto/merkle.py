"""Merkle trees of RFC 6962 §2: hashing, roots, and the making and verifying of inclusion and consistency proofs.

Used for the ledger and for the workload tree; both use SHA-256. A proof is made from :data:`Nodes`, a function that
gives the hash of any *perfect* subtree, so that the same code serves a tree in memory and a tree in tiles on disk.
Verification follows RFC 9162 §2.1.3.2 and §2.1.4.2 to the letter, raises on failure and returns nothing.

>>> leaves = [leaf_hash(b"a"), leaf_hash(b"b"), leaf_hash(b"c")]
>>> proof = inclusion_proof(1, 3, nodes_of(leaves))
>>> verify_inclusion(leaves[1], proof, index=1, size=3, root=root(leaves))
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, LedgerInconsistent

__all__ = [
    "EMPTY_ROOT",
    "CompactRange",
    "Nodes",
    "consistency_proof",
    "consistency_root",
    "inclusion_proof",
    "inclusion_root",
    "leaf_hash",
    "node_hash",
    "nodes_of",
    "perfect_root",
    "root",
    "verify_consistency",
    "verify_inclusion",
]

# RFC 6962 §2.1: the hash of an empty list is the hash of an empty string.
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_INCLUSION: Final = "RFC 9162 §2.1.3.2"
_CONSISTENCY: Final = "RFC 9162 §2.1.4.2"

Nodes = Callable[[int, int], bytes]
"""``nodes(level, index)``: the hash over leaves ``index * 2**level`` to ``(index + 1) * 2**level``, all present."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry) (RFC 6962 §2.1)."""
    return hashlib.sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right) (RFC 6962 §2.1)."""
    return hashlib.sha256(_NODE + left + right).digest()


@dataclass(frozen=True, slots=True)
class CompactRange:
    """The perfect subtrees that a tree of ``size`` leaves decomposes into, left to right, largest first.

    Enough to append and to compute the root, in O(log size) space. Extending gives a new value and leaves the old
    one as it was, so a failed append is undone by forgetting its result.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise ValueError(f"{len(self.hashes)} subtrees cannot make up a tree of {self.size} leaves")

    def extend(self, leaf_hashes: Sequence[bytes]) -> CompactRange:
        """The range after ``leaf_hashes`` (32 bytes each) have been appended in order."""
        stack = list(self.hashes)
        size = self.size
        for leaf in leaf_hashes:
            carry = leaf
            below = size
            while below & 1:
                carry = node_hash(stack.pop(), carry)
                below >>= 1
            stack.append(carry)
            size += 1
        return CompactRange(size, tuple(stack))

    @property
    def root(self) -> bytes:
        """The Merkle tree hash, :data:`EMPTY_ROOT` for no leaves."""
        return _join(self.hashes)


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The Merkle tree hash over ``leaf_hashes`` (32 bytes each, already leaf-hashed), RFC 6962 §2.1."""
    return CompactRange().extend(leaf_hashes).root


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of sibling subtree hashes.

    Raises:
        ValueError: for another number of hashes.
    """
    if not hashes or len(hashes) & (len(hashes) - 1):
        raise ValueError(f"{len(hashes)} is not a power of two")
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def nodes_of(leaf_hashes: Sequence[bytes]) -> Nodes:
    """All perfect subtrees over leaves held in memory."""
    rows = [list(leaf_hashes)]
    while len(rows[-1]) > 1:
        below = rows[-1]
        rows.append([node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])
    return lambda level, index: rows[level][index]


def inclusion_proof(index: int, size: int, nodes: Nodes) -> tuple[bytes, ...]:
    """PATH(index, D[size]) of RFC 6962 §2.1.1, from the leaf's sibling up to a child of the root.

    Raises:
        ValueError: unless ``0 <= index < size``.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        split = begin + _split(end - begin)
        if index < split:
            path.append(_range_hash(split, end, nodes))
            end = split
        else:
            path.append(_range_hash(begin, split, nodes))
            begin = split
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, nodes: Nodes) -> tuple[bytes, ...]:
    """PROOF(old, D[new]) of RFC 6962 §2.1.2; empty for ``old == 0``, for which the RFC leaves it undefined.

    Raises:
        ValueError: unless ``0 <= old <= new``.
    """
    if not 0 <= old <= new:
        raise ValueError(f"no consistency proof from {old} to {new}")
    if old in {0, new}:
        return ()
    path: list[bytes] = []
    begin, end = 0, new
    while old != end:
        split = begin + _split(end - begin)
        if old <= split:
            path.append(_range_hash(split, end, nodes))
            end = split
        else:
            path.append(_range_hash(begin, split, nodes))
            begin = split
    if begin:
        # SUBPROOF(m, D[m], false): the verifier cannot compute this subtree from the old root alone.
        path.append(_range_hash(begin, end, nodes))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, proof: Sequence[bytes], *, index: int, size: int, root: bytes) -> None:
    """Show that ``leaf`` is leaf ``index`` of the tree of ``size`` leaves under ``root`` (RFC 9162 §2.1.3.2).

    Does not show whose tree that is: the root has to come out of a verified checkpoint.

    Args:
        leaf: the leaf hash, 32 bytes.
        proof: hashes from the leaf's sibling upwards; untrusted.
        index: zero-based; may be untrusted.
        size: number of leaves; from the same verified checkpoint as the root.
        root: 32 bytes.

    Raises:
        LedgerInconsistent: ``LEDGER_PROOF``.
    """
    _check_sizes((root,), _INCLUSION)
    computed = inclusion_root(leaf, proof, index=index, size=size)
    if computed != root:
        raise _refuse("inclusion proof leads to another root", _INCLUSION, expected=root, got=computed)


def inclusion_root(leaf: bytes, proof: Sequence[bytes], *, index: int, size: int) -> bytes:
    """The root of the one tree of ``size`` leaves that has ``leaf`` at ``index`` and ``proof`` above it.

    Shows nothing by itself: it is for whoever has a signature over the root and not the root (RFC 9942 §5.2.1).

    Raises:
        LedgerInconsistent: ``LEDGER_PROOF`` when a tree of this size has no such path.
    """
    _check_sizes((leaf, *proof), _INCLUSION)
    if not 0 <= index < size:
        raise _refuse("leaf index outside the tree", _INCLUSION, expected=f"0..{size - 1}", got=index)
    first, last = index, size - 1
    computed = leaf
    for sibling in proof:
        if last == 0:
            raise _refuse("inclusion proof is too long", _INCLUSION, got=len(proof))
        if first & 1 or first == last:
            computed = node_hash(sibling, computed)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        first, last = first >> 1, last >> 1
    if last != 0:
        raise _refuse("inclusion proof is too short", _INCLUSION, got=len(proof))
    return computed


def verify_consistency(proof: Sequence[bytes], *, old: int, old_root: bytes, new: int, new_root: bytes) -> None:
    """Show that the tree of ``new`` leaves begins with the whole tree of ``old`` leaves (RFC 9162 §2.1.4.2).

    Args:
        proof: untrusted.
        old: number of leaves of the earlier tree. Zero is accepted with an empty proof and the empty root.
        old_root: root of the earlier tree, 32 bytes.
        new: number of leaves of the later tree.
        new_root: root of the later tree, 32 bytes.

    Raises:
        LedgerInconsistent: ``LEDGER_PROOF``.
    """
    _check_sizes((old_root, new_root, *proof), _CONSISTENCY)
    if not 0 <= old <= new:
        raise _refuse("later tree is smaller", _CONSISTENCY, expected=f">= {old}", got=new)
    if old in {0, new}:
        if proof:
            raise _refuse("consistency proof should be empty", _CONSISTENCY, got=len(proof))
        expected = new_root if old == new else EMPTY_ROOT
        if old_root != expected:
            raise _refuse("two roots for one tree size", _CONSISTENCY, expected=expected, got=old_root)
        return
    computed = consistency_root(proof, old=old, old_root=old_root, new=new)
    if computed != new_root:
        raise _refuse("consistency proof leads to another new root", _CONSISTENCY, expected=new_root, got=computed)


def consistency_root(proof: Sequence[bytes], *, old: int, old_root: bytes, new: int) -> bytes:
    """The root of the one tree of ``new`` leaves that ``proof`` makes of the tree under ``old_root``.

    RFC 9162 §2.1.4.2 for ``0 < old < new``, its steps numbered as there. Shows nothing by itself, as
    :func:`inclusion_root`.

    Raises:
        LedgerInconsistent: ``LEDGER_PROOF``, for other sizes as well.
    """
    _check_sizes((old_root, *proof), _CONSISTENCY)
    if not 0 < old < new:
        raise _refuse("no later tree after an earlier one", _CONSISTENCY, expected=f"> {old} > 0", got=new)
    # 1. An empty path proves nothing.
    if not proof:
        raise _refuse("consistency proof is empty", _CONSISTENCY)
    # 2. A perfect old tree is itself the first node.
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    # 3., 4.
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    # 5.
    first_root = last_root = path[0]
    # 6.
    for sibling in path[1:]:
        if last == 0:
            raise _refuse("consistency proof is too long", _CONSISTENCY, got=len(proof))
        if first & 1 or first == last:
            first_root = node_hash(sibling, first_root)
            last_root = node_hash(sibling, last_root)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            last_root = node_hash(last_root, sibling)
        first, last = first >> 1, last >> 1
    # 7.
    if last != 0:
        raise _refuse("consistency proof is too short", _CONSISTENCY, got=len(proof))
    if first_root != old_root:
        raise _refuse("consistency proof leads to another old root", _CONSISTENCY, expected=old_root, got=first_root)
    return last_root


def _split(width: int) -> int:
    """The largest power of two smaller than ``width``, which is at least 2 (RFC 6962 §2.1)."""
    return 1 << ((width - 1).bit_length() - 1)


def _range_hash(begin: int, end: int, nodes: Nodes) -> bytes:
    """MTH(D[begin:end]) for a range that a tree splits into, hence aligned to its largest part."""
    parts: list[bytes] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        parts.append(nodes(level, begin >> level))
        begin += 1 << level
    return _join(parts)


def _join(parts: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees of falling size: the smallest two are joined first."""
    if not parts:
        return EMPTY_ROOT
    result = parts[-1]
    for part in reversed(parts[:-1]):
        result = node_hash(part, result)
    return result


def _check_sizes(hashes: Sequence[bytes], clause: str) -> None:
    for position, value in enumerate(hashes):
        if len(value) != limits.DIGEST_SIZE:
            raise _refuse(f"hash {position} has the wrong length", clause, expected=limits.DIGEST_SIZE, got=len(value))


def _refuse(message: str, clause: str, *, expected: object = None, got: object = None) -> LedgerInconsistent:
    return LedgerInconsistent(Code.LEDGER_PROOF, message, where="proof", expected=expected, got=got, clause=clause)
