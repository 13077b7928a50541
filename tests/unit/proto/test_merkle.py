"""Merkle trees against the definitions of RFC 6962 §2.1, spelt out recursively, and its published test values."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import merkle
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, LedgerInconsistent

# The entries and roots that implementations of RFC 6962 test each other with.
ENTRIES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
ENTRIES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaves(count: int) -> list[bytes]:
    return [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(count)]


def split(width: int) -> int:
    power = 1
    while power * 2 < width:
        power *= 2
    return power


def mth(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 §2.1."""
    if not hashes:
        return sha256(b"")
    if len(hashes) == 1:
        return hashes[0]
    at = split(len(hashes))
    return merkle.node_hash(mth(hashes[:at]), mth(hashes[at:]))


def path(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 §2.1.1."""
    if len(hashes) == 1:
        return []
    at = split(len(hashes))
    if index < at:
        return [*path(index, hashes[:at]), mth(hashes[at:])]
    return [*path(index - at, hashes[at:]), mth(hashes[:at])]


def subproof(old: int, hashes: Sequence[bytes], *, complete: bool) -> list[bytes]:
    """RFC 6962 §2.1.2."""
    if old == len(hashes):
        return [] if complete else [mth(hashes)]
    at = split(len(hashes))
    if old <= at:
        return [*subproof(old, hashes[:at], complete=complete), mth(hashes[at:])]
    return [*subproof(old - at, hashes[at:], complete=False), mth(hashes[:at])]


@pytest.mark.parametrize("count", range(9))
def test_published_roots(count: int) -> None:
    hashes = [merkle.leaf_hash(entry) for entry in ENTRIES[:count]]
    assert merkle.root(hashes).hex() == ROOTS[count]
    assert mth(hashes).hex() == ROOTS[count]


def test_all_proofs_of_small_trees() -> None:
    """Every inclusion and consistency proof up to 40 leaves is the RFC's and verifies."""
    for size in range(1, 41):
        hashes = leaves(size)
        nodes, root = merkle.nodes_of(hashes), merkle.root(hashes)
        assert root == mth(hashes)
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, nodes)
            assert list(proof) == path(index, hashes)
            merkle.verify_inclusion(hashes[index], proof, index=index, size=size, root=root)
        for old in range(1, size + 1):
            proof = merkle.consistency_proof(old, size, nodes)
            assert list(proof) == subproof(old, hashes, complete=True)
            merkle.verify_consistency(proof, old=old, old_root=mth(hashes[:old]), new=size, new_root=root)


@given(st.integers(1, 600), st.data())
def test_random_trees_grow_in_any_steps(size: int, data: st.DataObject) -> None:
    hashes = leaves(size)
    tree = merkle.CompactRange()
    while tree.size < size:
        tree = tree.extend(hashes[tree.size : tree.size + data.draw(st.integers(1, size))])
    assert tree.root == mth(hashes)
    old = data.draw(st.integers(0, size))
    proof = merkle.consistency_proof(old, size, merkle.nodes_of(hashes))
    merkle.verify_consistency(proof, old=old, old_root=mth(hashes[:old]), new=size, new_root=tree.root)


def flip(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8 % len(value)] ^= 1 << bit % 8
    return bytes(changed)


def changed(proof: Sequence[bytes], bit: int) -> list[bytes]:
    at = bit // 256 % len(proof)
    return [flip(value, bit) if number == at else value for number, value in enumerate(proof)]


@given(st.integers(2, 300), st.integers(0), st.integers(0))
def test_one_flipped_bit_of_an_inclusion_proof_is_refused(size: int, pick: int, bit: int) -> None:
    hashes, index = leaves(size), pick % size
    root = merkle.root(hashes)
    proof = merkle.inclusion_proof(index, size, merkle.nodes_of(hashes))
    good = hashes[index]
    for leaf, path_, number, top in (
        (flip(good, bit), proof, index, root),
        (good, changed(proof, bit), index, root),
        (good, proof, index, flip(root, bit)),
        (good, proof, (index + 1) % size, root),
        (good, proof[:-1], index, root),
        (good, [*proof, root], index, root),
        (good, proof, size, root),
        (good, proof, -1, root),
        (good, [value[:31] for value in proof], index, root),
    ):
        with pytest.raises(LedgerInconsistent) as caught:
            merkle.verify_inclusion(leaf, path_, index=number, size=size, root=top)
        assert caught.value.code is Code.LEDGER_PROOF


@given(st.integers(2, 300), st.integers(0), st.integers(0))
def test_one_flipped_bit_of_a_consistency_proof_is_refused(size: int, pick: int, bit: int) -> None:
    hashes, old = leaves(size), 1 + pick % (size - 1)
    old_root, root = mth(hashes[:old]), mth(hashes)
    proof = merkle.consistency_proof(old, size, merkle.nodes_of(hashes))
    for path_, before, after in (
        (changed(proof, bit), old_root, root),
        (proof, flip(old_root, bit), root),
        (proof, old_root, flip(root, bit)),
        (proof[:-1], old_root, root),
        ([*proof, root], old_root, root),
        ([], old_root, root),
    ):
        with pytest.raises(LedgerInconsistent) as caught:
            merkle.verify_consistency(path_, old=old, old_root=before, new=size, new_root=after)
        assert caught.value.code is Code.LEDGER_PROOF


def test_a_rewritten_entry_breaks_consistency() -> None:
    """A71: a ledger that changed an entry behind a checkpoint cannot prove that it only grew."""
    before, after = leaves(20), leaves(33)
    after[7] = merkle.leaf_hash(b"rewritten")
    proof = merkle.consistency_proof(20, 33, merkle.nodes_of(after))
    with pytest.raises(LedgerInconsistent):
        merkle.verify_consistency(proof, old=20, old_root=mth(before), new=33, new_root=mth(after))


@pytest.mark.parametrize(
    ("old", "old_root", "new", "proof"),
    [
        (3, merkle.root(leaves(3)), 2, []),
        (-1, merkle.EMPTY_ROOT, 2, []),
        (0, merkle.root(leaves(1)), 2, []),
        (0, merkle.EMPTY_ROOT, 2, [merkle.EMPTY_ROOT]),
        (2, merkle.root(leaves(1)), 2, []),
        (2, merkle.root(leaves(2)), 2, [merkle.EMPTY_ROOT]),
    ],
)
def test_edges_of_consistency(old: int, old_root: bytes, new: int, proof: list[bytes]) -> None:
    with pytest.raises(LedgerInconsistent) as caught:
        merkle.verify_consistency(proof, old=old, old_root=old_root, new=new, new_root=merkle.root(leaves(new)))
    assert caught.value.code is Code.LEDGER_PROOF


def test_every_tree_extends_the_empty_one() -> None:
    merkle.verify_consistency((), old=0, old_root=merkle.EMPTY_ROOT, new=5, new_root=merkle.root(leaves(5)))


def test_misuse() -> None:
    nodes = merkle.nodes_of(leaves(4))
    for wrong in (
        lambda: merkle.inclusion_proof(4, 4, nodes),
        lambda: merkle.consistency_proof(5, 4, nodes),
        lambda: merkle.perfect_root([]),
        lambda: merkle.perfect_root(leaves(3)),
        lambda: merkle.CompactRange(3, (bytes(32),)),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is not the contract
            wrong()
