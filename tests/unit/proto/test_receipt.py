"""COSE receipts of a ledger: one profile, nothing lenient about it, and a root that is always computed."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from typing import Final, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor, cose, merkle, note, receipt, tlog
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, WeighbridgeError
from weighbridge.proto.receipt import Consistency, Inclusion

PRIVATE: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN: Final = "ledger.example/windows"
KEY: Final = note.NoteKey(ORIGIN, PRIVATE.public_key().public_bytes_raw())
LEAVES: Final = [merkle.leaf_hash(bytes([number])) for number in range(13)]
NODES: Final = merkle.nodes_of(LEAVES)


def checkpoint(size: int, *, origin: str = ORIGIN, private: Ed25519PrivateKey = PRIVATE) -> tlog.VerifiedCheckpoint:
    key = note.NoteKey(origin, private.public_key().public_bytes_raw())
    text = tlog.Checkpoint(origin, size, merkle.root(LEAVES[:size])).encode()
    return tlog.open_checkpoint(note.sign(text, key=key, signer=private.sign), key, origin=origin)


def included(index: int, size: int) -> bytes:
    proof = Inclusion(index, merkle.inclusion_proof(index, size, NODES))
    return receipt.sign_inclusion(checkpoint(size), LEAVES[index], proof, signer=PRIVATE.sign)


def consistent(old: int, new: int) -> bytes:
    path = merkle.consistency_proof(old, new, NODES)
    return receipt.sign_consistency(checkpoint(old), checkpoint(new), path, signer=PRIVATE.sign)


GOOD: Final = included(5, 13)
GROWN: Final = consistent(6, 13)


def refused(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as caught:
        call()
    return caught.value.code


def parts(data: bytes) -> tuple[cbor.CborMap, cbor.CborMap, cbor.CborValue, bytes]:
    """Header, proofs, payload and signature, decoded: to be changed and put together again."""
    values = cast("list[cbor.CborValue]", cbor.decode(data[1:], limit=4096, what="receipt"))
    header = cbor.decode(cast(bytes, values[0]), limit=4096, what="header")
    return cast(cbor.CborMap, header), cast(cbor.CborMap, values[1]), values[2], cast(bytes, values[3])


def assembled(header: object, proofs: object, payload: object = None, signature: bytes | None = None) -> bytes:
    protected = header if isinstance(header, bytes) else cbor.encode(header)
    if signature is None:
        signature = PRIVATE.sign(cose.to_be_signed(protected, merkle.root(LEAVES)))
    return b"\xd2" + cbor.encode([protected, proofs, payload, signature])


def test_every_entry_of_every_tree() -> None:
    for size in range(2, len(LEAVES) + 1):
        for index in range(size):
            parsed = receipt.parse(included(index, size))
            verified = receipt.verify_inclusion(parsed, LEAVES[index], KEY, origin=ORIGIN)
            assert (verified.index, verified.size, verified.origin) == (index, size, ORIGIN)
            assert (verified.root, verified.leaf_hash, verified.key) == (
                merkle.root(LEAVES[:size]),
                LEAVES[index],
                KEY,
            )


def test_every_growth() -> None:
    for new in range(2, len(LEAVES) + 1):
        for old in range(1, new):
            verified = receipt.verify_consistency(receipt.parse(consistent(old, new)), checkpoint(old), origin=ORIGIN)
            assert (verified.old.size, verified.size, verified.root) == (old, new, merkle.root(LEAVES[:new]))
            assert (verified.origin, verified.key) == (ORIGIN, KEY)


def test_what_is_in_it() -> None:
    header, proofs, payload, _ = parts(GOOD)
    assert header == {
        1: -8,
        4: sha256(KEY.spki),
        15: {1: ORIGIN, 2: ORIGIN, -70200: 13},
        16: "application/vnd.weighbridge.receipt+cose",
        395: 1,
    }
    path = list(merkle.inclusion_proof(5, 13, NODES))
    assert proofs == {396: {-1: [cbor.encode([13, 5, path])]}}
    assert payload is None
    assert parts(GROWN)[1] == {396: {-2: [cbor.encode([6, 13, list(merkle.consistency_proof(6, 13, NODES))])]}}
    # One statement of the tree, whatever is proven with it; Ed25519 signs alike each time.
    assert parts(GOOD)[0] == parts(GROWN)[0]
    assert parts(GOOD)[3] == parts(GROWN)[3]
    assert receipt.is_receipt(GOOD)
    assert not receipt.is_receipt(b"c2sp.org/tlog-proof@v1\n")
    assert not receipt.is_receipt(b"")


def test_no_signature_is_good_for_the_other_structure() -> None:
    """A checkpoint begins with a printable character, a Sig_structure never does."""
    header = cbor.encode(parts(GOOD)[0])
    assert cose.to_be_signed(header, merkle.root(LEAVES))[0] == 0x84
    assert not note.is_key_name("\x84")


def test_another_entry_key_or_ledger() -> None:
    parsed = receipt.parse(GOOD)
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    other = note.NoteKey(ORIGIN, stranger.public_key().public_bytes_raw())
    renamed = note.NoteKey("other.example/windows", KEY.public)
    for code, leaf, key, origin in (
        (Code.LEDGER_SIGNATURE, LEAVES[6], KEY, ORIGIN),
        (Code.LEDGER_SIGNATURE, LEAVES[5], other, ORIGIN),
        (Code.LEDGER_ORIGIN, LEAVES[5], KEY, "other.example/windows"),
        (Code.LEDGER_ORIGIN, LEAVES[5], renamed, ORIGIN),
        (Code.LEDGER_PROOF, LEAVES[5][:31], KEY, ORIGIN),
    ):
        assert refused(lambda: receipt.verify_inclusion(parsed, leaf, key, origin=origin)) is code  # noqa: B023 - called at once
    grown = receipt.parse(GROWN)
    for code, old, origin in (
        (Code.LEDGER_PROOF, checkpoint(5), ORIGIN),
        (Code.LEDGER_SIGNATURE, checkpoint(6, private=stranger), ORIGIN),
        (Code.LEDGER_ORIGIN, checkpoint(6, origin="other.example/windows"), ORIGIN),
        (Code.LEDGER_ORIGIN, checkpoint(6), "other.example/windows"),
    ):
        assert refused(lambda: receipt.verify_consistency(grown, old, origin=origin)) is code  # noqa: B023 - called at once


def test_a_history_that_was_written_anew() -> None:
    """The later tree does not begin with the one that was kept: no proof leads from it to the root that is signed."""
    text = tlog.Checkpoint(ORIGIN, 6, merkle.root([*LEAVES[:5], LEAVES[0]])).encode()
    kept = tlog.open_checkpoint(note.sign(text, key=KEY, signer=PRIVATE.sign), KEY, origin=ORIGIN)
    assert refused(lambda: receipt.verify_consistency(receipt.parse(GROWN), kept, origin=ORIGIN)) is Code.LEDGER_PROOF


def test_each_kind_is_asked_for_by_its_name() -> None:
    for call in (
        lambda: receipt.verify_inclusion(receipt.parse(GROWN), LEAVES[5], KEY, origin=ORIGIN),
        lambda: receipt.verify_consistency(receipt.parse(GOOD), checkpoint(6), origin=ORIGIN),
    ):
        assert refused(call) is Code.LEDGER_MALFORMED


def test_the_size_is_signed() -> None:
    """Under RFC 9942 alone, the last of three entries could pass for the last of two: the hashes are the same."""
    header, _, _, signature = parts(included(2, 3))
    path = list(merkle.inclusion_proof(2, 3, NODES))
    assert len(path) == 1
    claims = cast(cbor.CborMap, header[15])
    moved = {396: {-1: [cbor.encode([2, 1, path])]}}
    assert refused(lambda: receipt.parse(assembled(header, moved, signature=signature))) is Code.LEDGER_MALFORMED
    shrunk = receipt.parse(assembled({**header, 15: {**claims, -70200: 2}}, moved, signature=signature))
    assert refused(lambda: receipt.verify_inclusion(shrunk, LEAVES[2], KEY, origin=ORIGIN)) is Code.LEDGER_SIGNATURE


def test_nothing_is_signed_that_does_not_hold() -> None:
    path = merkle.inclusion_proof(5, 13, NODES)

    def sign(leaf: bytes, index: int) -> bytes:
        return receipt.sign_inclusion(checkpoint(13), leaf, Inclusion(index, path), signer=PRIVATE.sign)

    assert sign(LEAVES[5], 5) == GOOD
    assert refused(lambda: sign(LEAVES[6], 5)) is Code.LEDGER_PROOF
    assert refused(lambda: sign(LEAVES[5], 4)) is Code.LEDGER_PROOF
    grown = merkle.consistency_proof(6, 13, NODES)
    for old in (5, 7):
        call = lambda: receipt.sign_consistency(checkpoint(old), checkpoint(13), grown, signer=PRIVATE.sign)  # noqa: B023, E731 - called at once
        assert refused(call) is Code.LEDGER_PROOF


def test_trees_without_a_receipt() -> None:
    with pytest.raises(ValueError, match="one hash at least"):
        included(0, 1)
    for old in (0, 6):
        with pytest.raises(ValueError, match="one hash at least"):
            consistent(old, 6)
    proof = Inclusion(5, merkle.inclusion_proof(5, 13, NODES))
    with pytest.raises(ValueError, match="64 bytes"):
        receipt.sign_inclusion(checkpoint(13), LEAVES[5], proof, signer=lambda _: b"short")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({1: -7}, Code.COSE_HEADER),
        ({1: -19}, Code.COSE_HEADER),
        ({1: "EdDSA"}, Code.COSE_HEADER),
        ({395: 2}, Code.COSE_HEADER),
        ({395: True}, Code.COSE_HEADER),
        ({16: "application/eat+cwt"}, Code.COSE_HEADER),
        ({16: [1]}, Code.COSE_HEADER),
        ({4: b"short"}, Code.FIELD_RANGE),
        ({2: [395]}, Code.FIELD_UNKNOWN),
        ({15: None}, Code.FIELD_TYPE),
        ({15: {1: ORIGIN, 2: "other", -70200: 13}}, Code.COSE_HEADER),
        ({15: {1: "a b", 2: "a b", -70200: 13}}, Code.COSE_HEADER),
        ({15: {1: ORIGIN, 2: ORIGIN, 6: 1, -70200: 13}}, Code.FIELD_UNKNOWN),
        ({15: {1: ORIGIN, 2: ORIGIN}}, Code.FIELD_MISSING),
        ({15: {1: ORIGIN, 2: ORIGIN, -70200: -1}}, Code.FIELD_RANGE),
        ({15: {1: ORIGIN, 2: ORIGIN, -70200: 12}}, Code.LEDGER_MALFORMED),
    ],
)
def test_another_header(changes: cbor.CborMap, code: Code) -> None:
    header, proofs, _, _ = parts(GOOD)
    assert refused(lambda: receipt.parse(assembled({**header, **changes}, proofs))) is code


@pytest.mark.parametrize("label", [1, 4, 15, 16, 395])
def test_a_header_that_lacks_something(label: int) -> None:
    header, proofs, _, _ = parts(GOOD)
    del header[label]
    assert refused(lambda: receipt.parse(assembled(header, proofs))) is Code.FIELD_MISSING


@pytest.mark.parametrize(
    ("proofs", "code"),
    [
        ({}, Code.FIELD_MISSING),
        ({396: {}}, Code.LEDGER_MALFORMED),
        ({396: {-3: []}}, Code.LEDGER_MALFORMED),
        ({396: {-1: [b""], -2: [b""]}}, Code.LEDGER_MALFORMED),
        ({4: b"", 396: {-1: [b""]}}, Code.FIELD_UNKNOWN),
        ({396: {-1: []}}, Code.FIELD_RANGE),
        ({396: {-1: [b"", b""]}}, Code.TOO_LARGE),
        ({396: {-1: ["text"]}}, Code.LEDGER_MALFORMED),
        ({396: {-1: [2**60]}}, Code.LEDGER_MALFORMED),
        ({396: {-1: [b"junk"]}}, Code.NOT_CBOR),
        ({396: {-1: [cbor.encode([13, 5])]}}, Code.FIELD_RANGE),
        ({396: {-1: [cbor.encode([13, 5, []])]}}, Code.LEDGER_MALFORMED),
        ({396: {-1: [cbor.encode([13, 5, [bytes(31)]])]}}, Code.LEDGER_MALFORMED),
        ({396: {-1: [cbor.encode([13, 5, [bytes(33)]])]}}, Code.FIELD_TYPE),
        ({396: {-1: [cbor.encode([13, 5, [bytes(32)] * 64])]}}, Code.TOO_LARGE),
        ({396: {-1: [cbor.encode([13, -5, [bytes(32)]])]}}, Code.FIELD_RANGE),
        ({396: {-1: [cbor.encode([12, 5, [bytes(32)]])]}}, Code.LEDGER_MALFORMED),
        ({396: {-2: [cbor.encode([13, 6, [bytes(32)]])]}}, Code.LEDGER_MALFORMED),
    ],
)
def test_another_proof(proofs: cbor.CborMap, code: Code) -> None:
    header = parts(GOOD)[0]
    assert refused(lambda: receipt.parse(assembled(header, proofs))) is code


def test_other_frames() -> None:
    header, proofs, _, signature = parts(GOOD)
    for data, code in (
        (b"", Code.NOT_CBOR),
        (GOOD[1:], Code.NOT_CBOR),
        (GOOD + b"\0", Code.NOT_DETERMINISTIC),
        (GOOD[:-1], Code.NOT_CBOR),
        (assembled(header, proofs, payload=merkle.root(LEAVES)), Code.COSE_HEADER),
        (assembled(header, proofs, payload=b""), Code.COSE_HEADER),
        (assembled(header, proofs, signature=signature[:63]), Code.FIELD_RANGE),
        (assembled(b"", proofs), Code.NOT_CBOR),
        (b"\xd2" + cbor.encode([b"", {}, None]), Code.FIELD_RANGE),
        (b"\xd2" + cbor.encode({}), Code.FIELD_TYPE),
        (b"\xd2" + bytes(5000), Code.TOO_LARGE),
    ):
        assert refused(lambda: receipt.parse(data)) is code  # noqa: B023 - called at once


@given(st.binary(max_size=300))
def test_any_bytes_are_a_receipt_or_malformed(data: bytes) -> None:
    for bytes_ in (data, b"\xd2\x84" + data):
        with contextlib.suppress(MalformedEvidence):
            receipt.parse(bytes_)


@given(st.integers(0, 8 * len(GOOD) - 1), st.sampled_from([GOOD, GROWN]))
def test_one_flipped_bit_is_refused(bit: int, data: bytes) -> None:
    number = bit % (8 * len(data))
    flipped = bytearray(data)
    flipped[number // 8] ^= 1 << number % 8
    with pytest.raises(WeighbridgeError):  # noqa: PT012 - whichever of the two notices
        parsed = receipt.parse(bytes(flipped))
        if isinstance(parsed.proof, Consistency):
            receipt.verify_consistency(parsed, checkpoint(6), origin=ORIGIN)
        else:
            receipt.verify_inclusion(parsed, LEAVES[5], KEY, origin=ORIGIN)


def test_verified_is_not_made_by_hand() -> None:
    parsed = receipt.parse(GOOD)
    verified = receipt.verify_inclusion(parsed, LEAVES[5], KEY, origin=ORIGIN)
    grown = receipt.verify_consistency(receipt.parse(GROWN), checkpoint(6), origin=ORIGIN)
    with pytest.raises(TypeError, match="verify_inclusion"):
        receipt.VerifiedInclusion(object(), leaf_hash=LEAVES[5], index=5, size=13, root=verified.root, key=KEY)
    with pytest.raises(TypeError, match="verify_consistency"):
        receipt.VerifiedConsistency(object(), old=grown.old, size=13, root=verified.root, key=KEY)
    for value in (verified, grown):
        with pytest.raises(TypeError, match="verify again"):
            pickle.dumps(value)
