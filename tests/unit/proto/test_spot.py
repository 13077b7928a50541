"""Spot challenges: their bytes, what the answer hashes, and what is no pool."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.mutations import check_total, inputs, keys, with_field, without_field
from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spot import PoolEntry, SpotAnswer, SpotChallenge, SpotExpectation, SpotPool, SpotRange

if TYPE_CHECKING:
    from collections.abc import Callable

CHALLENGE: Final = SpotChallenge(
    id=bytes(range(16)),
    manifest=sha256(b"model"),
    key=sha256(b"key"),
    ranges=(SpotRange("model.safetensors", 100, 3), SpotRange("extra/vocab.txt", 0, 2)),
)
PIECES: Final = [b"abc", b"de"]
EXPECTATION: Final = SpotExpectation(CHALLENGE, CHALLENGE.answer(PIECES).mac)
POOL: Final = SpotPool(CHALLENGE.manifest, "tiny", (PoolEntry(EXPECTATION, ("layer.weight", None)),))


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        call()
    return refusal.value.code


def test_the_answer_is_an_hmac_over_the_question_and_the_bytes() -> None:
    rows: list[cbor.CborValue] = [["model.safetensors", 100, 3], ["extra/vocab.txt", 0, 2]]
    head = cbor.encode(["weighbridge/v1/spot", CHALLENGE.manifest, CHALLENGE.id, rows])
    mac = hmac.digest(CHALLENGE.key, head + b"abcde", "sha256")
    assert CHALLENGE.answer(PIECES) == SpotAnswer(CHALLENGE.id, mac)


@pytest.mark.parametrize(
    "other",
    [
        replace(CHALLENGE, id=bytes(16)),
        replace(CHALLENGE, manifest=bytes(32)),
        replace(CHALLENGE, key=bytes(32)),
        # The same bytes in all, cut elsewhere or found elsewhere.
        replace(CHALLENGE, ranges=(replace(CHALLENGE.ranges[0], offset=101), CHALLENGE.ranges[1])),
        replace(CHALLENGE, ranges=(replace(CHALLENGE.ranges[0], path="a"), CHALLENGE.ranges[1])),
    ],
    ids=["id", "manifest", "key", "offset", "path"],
)
def test_everything_that_is_asked_is_in_the_answer(other: SpotChallenge) -> None:
    assert other.answer(PIECES).mac != EXPECTATION.mac


@pytest.mark.parametrize("pieces", [[], [b"abc"], [b"abc", b"d"], [b"abcd", b"e"], [b"abc", b"de", b""]])
def test_other_pieces_than_were_asked_for_are_a_mistake(pieces: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"bytes for a range|argument 2"):
        CHALLENGE.answer(pieces)


def test_what_is_encoded_is_parsed_to_the_same() -> None:
    assert SpotChallenge.parse(CHALLENGE.encode()) == CHALLENGE
    answer = CHALLENGE.answer(PIECES)
    assert SpotAnswer.from_cbor(cbor.decode(cbor.encode(answer.to_cbor()), limit=100, what="x"), where="x") == answer
    assert SpotAnswer.from_cbor(None, where="x") is None
    recorded = cbor.decode(cbor.encode(EXPECTATION.to_cbor()), limit=10_000, what="x")
    assert SpotExpectation.from_cbor(recorded, where="x") == EXPECTATION
    assert SpotExpectation.from_cbor(None, where="x") is None
    assert SpotPool.from_json(POOL.to_json()) == POOL


def test_the_largest_challenge_fits() -> None:
    length = limits.SPOT_BYTES_MAX // limits.SPOT_RANGES_MAX
    path = "model-00001-of-00163.safetensors"
    ranges = tuple(SpotRange(path, 2**40 + index, length) for index in range(limits.SPOT_RANGES_MAX))
    largest = replace(CHALLENGE, ranges=ranges)
    assert SpotChallenge.parse(largest.encode()) == largest
    one_more = replace(largest, ranges=(*ranges, ranges[0]))
    assert code_of(lambda: SpotChallenge.parse(one_more.encode())) is Code.TOO_LARGE
    longer = replace(largest, ranges=(*ranges[1:], replace(ranges[0], length=length + 1)))
    assert code_of(lambda: SpotChallenge.parse(longer.encode())) is Code.TOO_LARGE


@given(inputs(CHALLENGE.encode()))
def test_any_bytes_are_a_challenge_or_malformed(data: bytes) -> None:
    check_total(SpotChallenge.parse, lambda parsed: parsed.encode(), data)  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", keys(CHALLENGE.encode()))
def test_a_challenge_without_a_field_is_refused(key: int | str) -> None:
    assert code_of(lambda: SpotChallenge.parse(without_field(CHALLENGE.encode(), key))) is Code.FIELD_MISSING


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (0, "weighbridge/v2/spot-challenge", Code.VERSION_UNSUPPORTED),
        (1, bytes(15), Code.FIELD_RANGE),
        (2, bytes(31), Code.FIELD_RANGE),
        (3, b"", Code.FIELD_RANGE),
        (4, [], Code.FIELD_RANGE),
        (4, None, Code.FIELD_TYPE),
        (4, [["a", 0]], Code.FIELD_RANGE),
        (4, [["a", 0, 0]], Code.FIELD_RANGE),
        (4, [["a", -1, 1]], Code.FIELD_RANGE),
        (4, [["a", 2**53 + 1, 1]], Code.FIELD_RANGE),
        (4, [["a", 0, limits.SPOT_BYTES_MAX + 1]], Code.FIELD_RANGE),
        (4, [["a", 0, limits.SPOT_BYTES_MAX], ["a", 0, 1]], Code.TOO_LARGE),
        (4, [["../a", 0, 1]], Code.FIELD_RANGE),
        (4, [["/etc/passwd", 0, 1]], Code.FIELD_RANGE),
        (4, [["a//b", 0, 1]], Code.FIELD_RANGE),
        (4, [["", 0, 1]], Code.FIELD_RANGE),
        (5, None, Code.FIELD_UNKNOWN),
    ],
)
def test_challenges_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    assert code_of(lambda: SpotChallenge.parse(with_field(CHALLENGE.encode(), key, value))) is code


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (False, Code.FIELD_TYPE),
        (b"", Code.FIELD_TYPE),
        ([], Code.FIELD_RANGE),
        ([bytes(16)], Code.FIELD_RANGE),
        ([bytes(16), bytes(31)], Code.FIELD_RANGE),
        ([bytes(17), bytes(32)], Code.FIELD_RANGE),
        ([None, bytes(32)], Code.FIELD_TYPE),
        ([bytes(16), bytes(32), None], Code.TOO_LARGE),
    ],
)
def test_answers_out_of_range_are_refused(value: cbor.CborValue, code: Code) -> None:
    assert code_of(lambda: SpotAnswer.from_cbor(value, where="header.spot")) is code


def pool(**changes: object) -> bytes:
    """The pool with members of its document exchanged."""
    document = strict.json_decode(POOL.to_json(), what="pool")
    assert isinstance(document, dict)
    return strict.json_encode({**document, **changes})


def entry(**changes: object) -> dict[str, Any]:
    document = strict.json_decode(POOL.to_json(), what="pool")
    return {**document["challenges"][0], **changes}  # type: ignore[call-overload, dict-item, index]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.NOT_JSON),
        (b"[]", Code.FIELD_TYPE),
        (pool(schema="weighbridge/spot-pool/v2"), Code.VERSION_UNSUPPORTED),
        (pool(manifest="00"), Code.FIELD_RANGE),
        (pool(manifest=sha256(b"").hex().upper()), Code.NOT_HEX),
        (pool(name=""), Code.FIELD_RANGE),
        (pool(name="a\nb"), Code.FIELD_RANGE),
        (pool(more=None), Code.FIELD_UNKNOWN),
        (pool(challenges={}), Code.FIELD_TYPE),
        (pool(challenges=[entry(), entry()]), Code.DUPLICATE_KEY),
        (pool(challenges=[entry(id="00")]), Code.FIELD_RANGE),
        (pool(challenges=[entry(key="")]), Code.FIELD_RANGE),
        (pool(challenges=[entry(mac=None)]), Code.FIELD_TYPE),
        (pool(challenges=[entry(more=1)]), Code.FIELD_UNKNOWN),
        (pool(challenges=[entry(ranges=[])]), Code.FIELD_RANGE),
        (pool(challenges=[entry(ranges=[["a", 0, 1]])]), Code.FIELD_RANGE),
        (pool(challenges=[entry(ranges=[["a", 0, 1, 7]])]), Code.FIELD_TYPE),
        (pool(challenges=[entry(ranges=[["a", 0, 1.5, None]])]), Code.FIELD_TYPE),
        (pool(challenges=[entry(ranges=[["..", 0, 1, None]])]), Code.FIELD_RANGE),
        (pool(challenges=[entry(ranges=[["a" * 4000, 0, 1, None]] * 20)]), Code.TOO_LARGE),
        (pool(challenges=[entry(ranges=[["a", 0, 1, None]] * 65)]), Code.TOO_LARGE),
        (pool(challenges=[None] * (limits.SPOT_POOL_CHALLENGES_MAX + 1)), Code.TOO_LARGE),
    ],
)
def test_what_is_no_pool_is_refused(data: bytes, code: Code) -> None:
    assert code_of(lambda: SpotPool.from_json(data)) is code


def test_an_empty_pool_is_one() -> None:
    empty = replace(POOL, entries=())
    assert SpotPool.from_json(empty.to_json()) == empty


def test_keys_and_answers_are_not_printed() -> None:
    shown = repr(POOL) + str(POOL)
    for secret in (CHALLENGE.key, EXPECTATION.mac):
        assert repr(secret) not in shown
        assert secret.hex() not in shown


JSON: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=8,
)


@given(
    st.one_of(
        st.binary(max_size=200),
        JSON.map(strict.json_encode),
        st.tuples(st.sampled_from(["schema", "manifest", "name", "challenges", "x"]), JSON).map(
            lambda change: pool(**{change[0]: change[1]})
        ),
        st.tuples(st.sampled_from(["id", "key", "mac", "ranges", "x"]), JSON).map(
            lambda change: pool(challenges=[entry(**{change[0]: change[1]})])
        ),
        JSON.map(lambda row: pool(challenges=[entry(ranges=[row])])),
    )
)
def test_any_bytes_are_a_pool_or_malformed(data: bytes) -> None:
    check_total(SpotPool.from_json, None, data)
