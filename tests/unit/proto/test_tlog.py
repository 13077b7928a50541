"""Tiles, bundles, checkpoints and offline proofs: C2SP's formats, and nothing lenient about them."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import merkle, note, tlog
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence, NotAuthentic, WeighbridgeError

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "ledger.example/windows"
KEY = note.NoteKey(ORIGIN, PRIVATE.public_key().public_bytes_raw())
LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(7)]
ROOT = merkle.root(LEAVES)


def signed(text: bytes, private: Ed25519PrivateKey = PRIVATE) -> bytes:
    return note.sign(text, key=KEY, signer=private.sign)


GOOD = signed(tlog.Checkpoint(ORIGIN, 7, ROOT).encode())
PROOF = tlog.Proof(3, merkle.inclusion_proof(3, 7, merkle.nodes_of(LEAVES)), GOOD)


def test_paths_of_the_specification() -> None:
    """Examples of C2SP tlog-tiles."""
    assert tlog.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tlog.tile_path(3, 0, 17) == "tile/3/000.p/17"
    assert tlog.entries_path(999) == "tile/entries/999"
    assert tlog.entries_path(1000, 1) == "tile/entries/x001/000.p/1"


def test_paths_that_do_not_exist() -> None:
    for level, index, width in ((8, 0, 256), (-1, 0, 256), (0, -1, 256), (0, 0, 0), (0, 0, 257)):
        with pytest.raises(ValueError, match="no tile"):
            tlog.tile_path(level, index, width)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_bundles_round_trip(entries: list[bytes]) -> None:
    assert tlog.parse_bundle(tlog.encode_bundle(entries), width=len(entries)) == tuple(entries)


@given(st.binary(max_size=200), st.integers(1, 256))
def test_any_bytes_are_a_bundle_or_malformed(data: bytes, width: int) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert tlog.encode_bundle(tlog.parse_bundle(data, width=width)) == data


@pytest.mark.parametrize(
    ("data", "width", "code"),
    [
        (b"\x00", 1, Code.TRUNCATED),
        (b"\x00\x02a", 1, Code.TRUNCATED),
        (b"\x00\x01a", 2, Code.LEDGER_MALFORMED),
        (b"\x00\x01a\x00", 1, Code.TRAILING_BYTES),
        (bytes(tlog.BUNDLE_MAX + 1), 256, Code.TOO_LARGE),
    ],
)
def test_malformed_bundles(data: bytes, width: int, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        tlog.parse_bundle(data, width=width)
    assert caught.value.code is code


def test_tiles() -> None:
    assert tlog.parse_tile(tlog.encode_tile(LEAVES), width=7) == tuple(LEAVES)
    for width in (6, 8):
        with pytest.raises(MalformedEvidence):
            tlog.parse_tile(tlog.encode_tile(LEAVES), width=width)
    with pytest.raises(ValueError, match="65536"):
        tlog.encode_bundle([bytes(65536)])


def test_nodes_in_tiles() -> None:
    """Perfect subtrees are found at every level of tiles of a tree with three of them."""
    size = 70_000
    level0 = [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(size)]
    levels = [level0]
    while len(levels[-1]) >= 256:
        below = levels[-1]
        levels.append([merkle.root(below[at : at + 256]) for at in range(0, len(below) - 255, 256)])

    def tile(level: int, index: int) -> Sequence[bytes]:
        return levels[level][index * 256 : index * 256 + 256]

    nodes, memory = tlog.tile_nodes(tile), merkle.nodes_of(level0)
    for index in (0, 255, 256, 65_535, 65_536, size - 1):
        assert merkle.inclusion_proof(index, size, nodes) == merkle.inclusion_proof(index, size, memory)
    for old in (1, 256, 65_536, 69_999):
        assert merkle.consistency_proof(old, size, nodes) == merkle.consistency_proof(old, size, memory)


def test_checkpoint() -> None:
    opened = tlog.open_checkpoint(GOOD, KEY, origin=ORIGIN)
    assert (opened.origin, opened.size, opened.root) == (ORIGIN, 7, ROOT)
    assert (opened.note, opened.key) == (GOOD, KEY)


ROOT_TEXT = tlog.Checkpoint(ORIGIN, 7, ROOT).encode().split(b"\n")[2]


@pytest.mark.parametrize(
    "text",
    [
        b"%s\n7\n%s\nextension\n" % (ORIGIN.encode(), ROOT_TEXT),
        b"%s\n7\n" % ORIGIN.encode(),
        b"%s\n+7\n%s\n" % (ORIGIN.encode(), ROOT_TEXT),
        b"%s\n1_0\n%s\n" % (ORIGIN.encode(), ROOT_TEXT),
        b"%s\n07\n%s\n" % (ORIGIN.encode(), ROOT_TEXT),
        b"%s\n7 \n%s\n" % (ORIGIN.encode(), ROOT_TEXT),
        b"%s\n9223372036854775808\n%s\n" % (ORIGIN.encode(), ROOT_TEXT),
        "ledger.example/windows\n\u0667\nAAAA\n".encode(),
        b"%s\n7\n %s\n" % (ORIGIN.encode(), ROOT_TEXT),
        b"%s\n7\nAAAA\n" % ORIGIN.encode(),
        b"%s\n0\n%s\n" % (ORIGIN.encode(), ROOT_TEXT),
        b"two words\n7\n%s\n" % ROOT_TEXT,
        b"\n7\n%s\n" % ROOT_TEXT,
        b"junk\n%s\n7\n%s\n" % (ORIGIN.encode(), ROOT_TEXT),
    ],
)
def test_no_lenient_checkpoints(text: bytes) -> None:
    """Signed or not: sigstore's parser skipped junk lines and read ``+1_0`` as 10."""
    with pytest.raises(MalformedEvidence):
        tlog.open_checkpoint(signed(text), KEY, origin=ORIGIN)


def test_the_signature_comes_first() -> None:
    """Junk with a bad signature is not authentic, whatever its text; so is a good text of another ledger."""
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    for text in (b"junk\n", tlog.Checkpoint("ledger.example/other", 7, ROOT).encode()):
        with pytest.raises(NotAuthentic) as caught:
            tlog.open_checkpoint(signed(text, stranger), KEY, origin=ORIGIN)
        assert caught.value.code is Code.LEDGER_SIGNATURE


def test_another_ledger_of_the_same_key() -> None:
    other = signed(tlog.Checkpoint("ledger.example/other", 7, ROOT).encode())
    with pytest.raises(LedgerInconsistent) as caught:
        tlog.open_checkpoint(other, KEY, origin=ORIGIN)
    assert caught.value.code is Code.LEDGER_ORIGIN


@given(st.binary(max_size=120) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_checkpoint_or_malformed(text: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert tlog.Checkpoint.parse(text).encode() == text


def test_offline_proof() -> None:
    parsed = tlog.parse_proof(PROOF.encode())
    assert parsed == PROOF
    verified = tlog.verify_entry(parsed, LEAVES[3], KEY, origin=ORIGIN)
    assert (verified.index, verified.leaf_hash, verified.checkpoint.size) == (3, LEAVES[3], 7)


def test_proof_of_the_only_entry() -> None:
    only = tlog.Proof(0, (), signed(tlog.Checkpoint(ORIGIN, 1, LEAVES[0]).encode()))
    assert tlog.parse_proof(only.encode()) == only
    assert tlog.verify_entry(only, LEAVES[0], KEY, origin=ORIGIN).index == 0


@given(st.integers(0, len(PROOF.encode()) * 8 - 1))
def test_one_flipped_bit_of_a_proof_is_refused(bit: int) -> None:
    changed = bytearray(PROOF.encode())
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WeighbridgeError):
        tlog.verify_entry(tlog.parse_proof(bytes(changed)), LEAVES[3], KEY, origin=ORIGIN)


@given(st.binary(max_size=120) | st.binary(max_size=60).map(lambda tail: b"c2sp.org/tlog-proof@v1\nindex " + tail))
def test_any_bytes_are_a_proof_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert tlog.parse_proof(data).encode() == data


HEAD = b"c2sp.org/tlog-proof@v1\n"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.LEDGER_MALFORMED),
        (HEAD[:-1] + b"\n\n" + GOOD, Code.LEDGER_MALFORMED),
        (b"c2sp.org/tlog-proof@v2\nindex 3\n\n" + GOOD, Code.LEDGER_MALFORMED),
        (HEAD + b"extra AAAA\nindex 3\n\n" + GOOD, Code.LEDGER_MALFORMED),
        (HEAD + b"index 03\n\n" + GOOD, Code.NOT_A_NUMBER),
        (HEAD + b"index 3\nAAAA\n\n" + GOOD, Code.LEDGER_MALFORMED),
        (HEAD + b"index 3\n!\n\n" + GOOD, Code.NOT_BASE64),
        (HEAD + b"index 3\n" + b"AAAA\n" * 64 + b"\n" + GOOD, Code.LEDGER_MALFORMED),
        (b"\xff\n\n", Code.NOT_UTF8),
        (bytes(131_073), Code.TOO_LARGE),
    ],
)
def test_malformed_proofs(data: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        tlog.parse_proof(data)
    assert caught.value.code is code


def test_a_proof_that_is_cut_short_says_so() -> None:
    whole = PROOF.encode()
    for end in range(len(whole)):
        with pytest.raises(MalformedEvidence, match=r"cut short|ends before these|unexpected end"):
            note.parse(tlog.parse_proof(whole[:end]).checkpoint_note)


def test_misuse() -> None:
    for origin, size, root in (("a b", 1, ROOT), (ORIGIN, -1, ROOT), (ORIGIN, 1, b"")):
        with pytest.raises(ValueError, match="not a checkpoint"):
            tlog.Checkpoint(origin, size, root)


def test_the_seals() -> None:
    opened = tlog.open_checkpoint(GOOD, KEY, origin=ORIGIN)
    verified = tlog.verify_entry(PROOF, LEAVES[3], KEY, origin=ORIGIN)
    for sealed in (opened, verified):
        with pytest.raises(TypeError):
            pickle.dumps(sealed)
    with pytest.raises(TypeError):
        tlog.VerifiedEntry(object(), leaf_hash=b"", index=0, checkpoint=opened)
    with pytest.raises(TypeError):
        tlog.VerifiedCheckpoint(
            object(), checkpoint=tlog.Checkpoint(ORIGIN, 7, ROOT), signed=note.verify(note.parse(GOOD), KEY)
        )
