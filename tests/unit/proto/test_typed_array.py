"""Typed arrays: four tags, the narrowest one, and only where a structure has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.typed_array import WIDTHS, TypedArray


def decode(data: bytes, *, items: int | None = None) -> cbor.CborValue:
    return cbor.decode(data, limit=1000, what="test", items=items, typed_arrays=True)


def refusal(data: bytes, *, items: int | None = None) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        decode(data, items=items)
    return caught.value.code


@pytest.mark.parametrize(
    ("values", "encoded"),
    [
        ([], "d84840"),
        ([-128, 127], "d848428 07f"),
        ([128], "d849420080"),
        ([-129], "d84942ff7f"),
        ([32768], "d84a4400008000"),
        ([2**31], "d84b480000000080000000"),
        ([-(2**63)], "d84b488000000000000000"),
    ],
)
def test_the_encoding_is_that_of_the_rfc(values: list[int], encoded: str) -> None:
    data = cbor.encode(TypedArray.of(values))
    assert data.hex() == encoded.replace(" ", "")
    again = decode(data)
    assert isinstance(again, TypedArray)
    assert again.integers(where="test") == tuple(values)


@given(st.lists(st.integers(-(2**63), 2**63 - 1)) | st.lists(st.integers(-300, 300)))
def test_what_is_encoded_is_read(values: list[int]) -> None:
    assert TypedArray.of(values).integers(where="test") == tuple(values)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_no_integer_beyond_64_bits(value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        TypedArray.of([value])


@pytest.mark.parametrize(
    ("tag", "octets"), [(73, b""), (73, b"\0\x7f"), (74, b"\0\0\x7f\xff"), (75, b"\xff\xff\xff\xff\x80\0\0\0")]
)
def test_a_wider_array_than_needed_is_refused(tag: int, octets: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        TypedArray(tag, octets).integers(where="test")
    assert caught.value.code == Code.NOT_DETERMINISTIC


@pytest.mark.parametrize("tag", [n for n in (*range(6), 24, 25, 28, 29, *range(64, 88), 256, 258) if n not in WIDTHS])
def test_other_tags_are_refused(tag: int) -> None:
    head = bytes([0xC0 | tag]) if tag < 24 else b"\xd8" + bytes([tag]) if tag < 256 else b"\xd9" + tag.to_bytes(2)
    assert refusal(head + b"\x48" + bytes(8)) == Code.NOT_CBOR
    assert refusal(head + b"\x00") == Code.NOT_CBOR


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("d84900", Code.NOT_CBOR),  # under the tag is no byte string
        ("d8496161", Code.NOT_CBOR),
        ("d84980", Code.NOT_CBOR),
        ("d849d8484100", Code.NOT_CBOR),
        ("d84943000000", Code.NOT_CBOR),  # not a whole number of integers
        ("d9004840", Code.NOT_DETERMINISTIC),  # the tag in more bytes than it takes
        ("d848580100", Code.NOT_DETERMINISTIC),
        ("d8485f4100ff", Code.NOT_CBOR),
        ("a1d8484000", Code.NOT_CBOR),  # as a map's key
    ],
)
def test_other_shapes_are_refused(data: str, code: Code) -> None:
    assert refusal(bytes.fromhex(data)) == code


def test_refused_where_nobody_asked_for_it() -> None:
    for data in (cbor.encode(TypedArray.of([1])), cbor.encode([{1: TypedArray.of([1])}])):
        with pytest.raises(MalformedEvidence) as caught:
            cbor.decode(data, limit=100, what="test")
        assert caught.value.code == Code.NOT_CBOR


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_to_themselves_or_malformed(data: bytes) -> None:
    try:
        value = decode(data, items=10)
    except MalformedEvidence:
        return
    assert cbor.encode(value) == data


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.lists(st.integers(-70_000, 70_000), max_size=5).map(TypedArray.of),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 300), inner, max_size=4),
    max_leaves=20,
)


def _heads(value: cbor.CborValue) -> int:
    if isinstance(value, list):
        return 1 + sum(map(_heads, value))
    if isinstance(value, dict):
        return 1 + sum(_heads(key) + _heads(item) for key, item in value.items())
    return 2 if isinstance(value, TypedArray) else 1


@given(_VALUES)
def test_the_number_of_items_is_bounded_exactly(value: cbor.CborValue) -> None:
    data = cbor.encode(value)
    number = _heads(value)
    assert cbor.decode(data, limit=10_000, what="test", items=number, typed_arrays=True) == value
    with pytest.raises(MalformedEvidence) as caught:
        cbor.decode(data, limit=10_000, what="test", items=number - 1, typed_arrays=True)
    assert caught.value.code == Code.TOO_LARGE
