"""The strict wrapper around CBOR, and the reader of decoded maps."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.mutations import VALUES, inputs
from weighbridge.proto import cbor
from weighbridge.proto.cbor import Reader
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable


def decode(data: bytes) -> cbor.CborValue:
    return cbor.decode(data, limit=1000, what="it")


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        call()
    return refusal.value.code


# -- encode, decode ----------------------------------------------------------------------------------------------------


@given(VALUES)
def test_what_is_encoded_is_decoded_to_the_same(value: cbor.CborValue) -> None:
    assert cbor.decode(cbor.encode(value), limit=10_000, what="it") == value


@given(inputs(cbor.encode({1: [b"x", None, True], "a": {"b": -1}})))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    try:
        value = cbor.decode(data, limit=10_000, what="it")
    except MalformedEvidence:
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("", Code.NOT_CBOR),
        ("1818", None),
        ("1817", Code.NOT_DETERMINISTIC),
        ("0000", Code.NOT_DETERMINISTIC),
        ("a2 01 00 01 00", Code.DUPLICATE_KEY),
        ("a2 02 00 01 00", Code.NOT_DETERMINISTIC),
        ("a1 f6 00", Code.NOT_CBOR),
        ("a1 f5 00", Code.NOT_CBOR),
        ("a1 80 00", Code.NOT_CBOR),
        ("9f ff", Code.NOT_CBOR),
        ("5f 41 00 ff", Code.NOT_CBOR),
        ("7f 61 61 ff", Code.NOT_CBOR),
        ("f9 3c00", Code.NOT_CBOR),
        ("fb 3ff0000000000000", Code.NOT_CBOR),
        ("f7", Code.NOT_CBOR),
        ("e0", Code.NOT_CBOR),
        ("f8 20", Code.NOT_CBOR),
        ("c0 60", Code.NOT_CBOR),
        ("c2 41 01", Code.NOT_CBOR),
        ("d9 d9f7 00", Code.NOT_CBOR),
        ("d8 1c 80", Code.NOT_CBOR),
        ("d9 0100 80", Code.NOT_CBOR),
        ("da ffffffff 00", Code.NOT_CBOR),
        ("61 ff", Code.NOT_CBOR),
        ("63 eda080", Code.NOT_CBOR),
        ("41", Code.NOT_CBOR),
        ("5b 7fffffffffffffff", Code.NOT_CBOR),
        ("9b 7fffffffffffffff", Code.NOT_CBOR),
        ("bb 7fffffffffffffff", Code.NOT_CBOR),
        ("1c", Code.NOT_CBOR),
        ("ff", Code.NOT_CBOR),
        ("81" * 13 + "00", Code.TOO_DEEP),
        ("81" * 12 + "00", None),
        ("00" * 1001, Code.TOO_LARGE),
    ],
)
def test_everything_outside_the_subset_is_refused_by_its_code(data: str, code: Code | None) -> None:
    """A70"""
    octets = bytes.fromhex(data)
    if code is None:
        decode(octets)
    else:
        assert code_of(lambda: decode(octets)) is code


class _Number(IntEnum):
    SEVEN = 7


def test_a_member_of_an_enumeration_is_its_number() -> None:
    assert cbor.encode(_Number.SEVEN) == b"\x07"
    assert cbor.encode((1, 2)) == cbor.encode([1, 2])


@pytest.mark.parametrize("value", [1.0, 2**64, -(2**64) - 1, {None: 1}, {True: 1}, {b"k": 1}, object(), {1, 2}, [1.5]])
def test_what_the_subset_has_no_word_for_is_misuse(value: object) -> None:
    with pytest.raises(TypeError):
        cbor.encode(value)


# -- the reader --------------------------------------------------------------------------------------------------------

FIELDS: cbor.CborMap = {
    "octets": b"abc",
    "digest": bytes(32),
    "integer": 5,
    "boolean": True,
    "text": "äöü",
    "array": [1, 2],
    "ascending": [1, 4, 9],
    "strings": [b"a", b"bc"],
    "table": {1: 2},
    "null": None,
}
GOOD: dict[str, Callable[[Reader], object]] = {
    "octets": lambda r: r.octets("octets"),
    "digest": lambda r: r.digest("digest"),
    "integer": lambda r: r.integer("integer", low=5, high=5),
    "uint": lambda r: r.uint("integer"),
    "boolean": lambda r: r.boolean("boolean"),
    "text": lambda r: r.text("text", limit=6),
    "array": lambda r: r.array("array", limit=2),
    "ascending": lambda r: r.ascending("ascending", below=10),
    "strings": lambda r: r.octet_strings("strings", count=2, limit=2),
    "table": lambda r: r.table("table").uint(1),
    "optional_octets": lambda r: (r.optional_octets("octets"), r.optional_octets("null")),
    "optional_digest": lambda r: (r.optional_digest("digest"), r.optional_digest("null")),
    "optional_text": lambda r: (r.optional_text("text"), r.optional_text("null")),
    "optional_table": lambda r: (r.optional_table("table"), r.optional_table("null")),
    "optional_array": lambda r: (r.optional_array("array", limit=2), r.optional_array("null", limit=0)),
    "take": lambda r: r.take("null"),
}
BAD: list[tuple[str, Callable[[Reader], object], Code]] = [
    ("octets absent", lambda r: r.octets("absent"), Code.FIELD_MISSING),
    ("octets of text", lambda r: r.octets("text"), Code.FIELD_TYPE),
    ("octets null", lambda r: r.octets("null"), Code.FIELD_TYPE),
    ("octets short", lambda r: r.octets("octets", size=4), Code.FIELD_RANGE),
    ("octets long", lambda r: r.octets("octets", limit=2), Code.TOO_LARGE),
    ("digest", lambda r: r.digest("octets"), Code.FIELD_RANGE),
    ("optional digest absent", lambda r: r.optional_digest("absent"), Code.FIELD_MISSING),
    ("integer of boolean", lambda r: r.uint("boolean"), Code.FIELD_TYPE),
    ("integer of text", lambda r: r.uint("text"), Code.FIELD_TYPE),
    ("integer low", lambda r: r.integer("integer", low=6, high=9), Code.FIELD_RANGE),
    ("integer high", lambda r: r.uint("integer", limit=4), Code.FIELD_RANGE),
    ("boolean of integer", lambda r: r.boolean("integer"), Code.FIELD_TYPE),
    ("text of octets", lambda r: r.text("octets"), Code.FIELD_TYPE),
    ("text in bytes, not characters", lambda r: r.text("text", limit=5), Code.TOO_LARGE),
    ("optional text absent", lambda r: r.optional_text("absent"), Code.FIELD_MISSING),
    ("array of table", lambda r: r.array("table", limit=2), Code.FIELD_TYPE),
    ("array long", lambda r: r.array("array", limit=1), Code.TOO_LARGE),
    ("ascending not below", lambda r: r.ascending("ascending", below=9), Code.FIELD_RANGE),
    ("ascending of octets", lambda r: r.ascending("strings", below=9), Code.FIELD_RANGE),
    ("strings of integers", lambda r: r.octet_strings("array", count=2, limit=2), Code.FIELD_TYPE),
    ("strings long", lambda r: r.octet_strings("strings", count=2, limit=1), Code.FIELD_TYPE),
    ("strings many", lambda r: r.octet_strings("strings", count=1, limit=2), Code.TOO_LARGE),
    ("table of array", lambda r: r.table("array"), Code.FIELD_TYPE),
    ("something left", lambda r: r.end(), Code.FIELD_UNKNOWN),
]


@pytest.mark.parametrize("read", GOOD.values(), ids=GOOD)
def test_reader_takes(read: Callable[[Reader], object]) -> None:
    read(Reader(FIELDS, "it"))


@pytest.mark.parametrize(("read", "code"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_reader_refuses(read: Callable[[Reader], object], code: Code) -> None:
    assert code_of(lambda: read(Reader(FIELDS, "it"))) is code


@given(st.lists(st.integers(-2, 12), max_size=6))
def test_ascending_numbers_are_distinct_and_in_order(values: list[int]) -> None:
    good = values == sorted(set(values)) and all(0 <= value < 10 for value in values)
    reader = Reader({0: list(values)}, "it")
    if good:
        assert reader.ascending(0, below=10) == tuple(values)
    else:
        with pytest.raises(MalformedEvidence):
            reader.ascending(0, below=10)


def test_each_field_is_taken_once() -> None:
    reader = Reader({1: 2}, "it")
    assert reader.has(1)
    assert reader.keys() == [1]
    reader.uint(1)
    assert not reader.has(1)
    reader.end()
    assert code_of(lambda: reader.uint(1)) is Code.FIELD_MISSING


def test_the_place_is_in_the_message() -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        Reader({"a": {1: "x"}}, "it").table("a").uint(1)
    assert refusal.value.where == "it[a][1]"


def test_reading_leaves_the_map_alone() -> None:
    fields: cbor.CborMap = {1: None}
    Reader(fields, "it").take(1)
    assert fields == {1: None}


# -- helpers -----------------------------------------------------------------------------------------------------------


def test_versions_are_compared_for_equality() -> None:
    def read(data: bytes) -> Reader:
        return cbor.read_versioned(data, version="it/v1", limit=100, what="it")

    read(cbor.encode({0: "it/v1"})).end()
    assert code_of(lambda: read(cbor.encode({0: "it/v2"}))) is Code.VERSION_UNSUPPORTED
    assert code_of(lambda: read(cbor.encode({0: 1}))) is Code.FIELD_TYPE
    assert code_of(lambda: read(cbor.encode({1: "it/v1"}))) is Code.FIELD_MISSING
    assert code_of(lambda: read(cbor.encode(["it/v1"]))) is Code.FIELD_TYPE


def test_arrays_have_a_size_or_a_limit() -> None:
    assert cbor.read_array([1, 2], where="it", limit=2, size=2) == [1, 2]
    assert code_of(lambda: cbor.read_array([1], where="it", limit=2, size=2)) is Code.FIELD_RANGE
    assert code_of(lambda: cbor.read_array({}, where="it", limit=2)) is Code.FIELD_TYPE
