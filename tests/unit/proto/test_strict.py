"""The strict decoders: one spelling of each value, and nothing but MalformedEvidence on any other."""

from __future__ import annotations

import base64
import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        call()
    return refusal.value.code


# -- hexadecimal -------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_hexadecimal_back_and_forth(data: bytes) -> None:
    assert strict.hex_decode(data.hex(), what="it", size=len(data)) == data


@given(st.text(max_size=20))
def test_any_text_is_hexadecimal_or_not(text: str) -> None:
    try:
        value = strict.hex_decode(text, what="it")
    except MalformedEvidence:
        return
    assert value.hex() == text


@pytest.mark.parametrize("text", ["0", "0G", "AB", " ab", "ab ", "ab\n", "a b", "0x00", "\u0660\u0660", "ab\x00"])
def test_what_python_would_take_for_hexadecimal_is_refused(text: str) -> None:
    assert code_of(lambda: strict.hex_decode(text, what="it")) is Code.NOT_HEX


def test_hexadecimal_of_another_length() -> None:
    assert code_of(lambda: strict.hex_decode("abcd", what="it", size=1)) is Code.FIELD_RANGE


# -- base64 ------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_base64_back_and_forth(data: bytes) -> None:
    assert strict.base64_decode(strict.base64_encode(data), what="it") == data
    assert strict.base64url_decode(strict.base64url_encode(data), what="it") == data
    assert strict.base64_decode(strict.base64_encode(data).encode(), what="it") == data


@given(st.one_of(st.text(max_size=12), st.text("AQg=+/-_", max_size=12), st.binary(max_size=12)))
def test_any_text_is_canonical_base64_or_not(text: str | bytes) -> None:
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    for decode, encode in (
        (strict.base64_decode, strict.base64_encode),
        (strict.base64url_decode, strict.base64url_encode),
    ):
        try:
            value = decode(text, what="it")
        except MalformedEvidence:
            continue
        assert encode(value).encode() == raw


@pytest.mark.parametrize("text", ["QQ", "QQ=", "QR==", "Q Q==", "QQ==\n", "QQ==QQ==", "=QQ=", "QQ===", "Q-_=", "é"])
def test_what_python_would_take_for_base64_is_refused(text: str) -> None:
    assert code_of(lambda: strict.base64_decode(text, what="it")) is Code.NOT_BASE64


@pytest.mark.parametrize("text", ["QQ==", "QR", "Q", "Q+/A", "QQ\n", "\ud800"])
def test_what_python_would_take_for_base64url_is_refused(text: str) -> None:
    assert code_of(lambda: strict.base64url_decode(text, what="it")) is Code.NOT_BASE64


# -- numbers, times ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**63 - 1))
def test_decimal_back_and_forth(value: int) -> None:
    assert strict.decimal(str(value), what="it") == value


@given(st.text(max_size=25))
def test_any_text_is_a_decimal_or_not(text: str) -> None:
    try:
        value = strict.decimal(text, what="it")
    except MalformedEvidence:
        return
    assert str(value) == text


@pytest.mark.parametrize("text", ["", "+1", "-1", "01", "1_0", " 1", "1 ", "1\n", "²", "\u0661", "1.0", "1e3", "0x1"])
def test_what_python_would_take_for_a_number_is_refused(text: str) -> None:
    assert code_of(lambda: strict.decimal(text, what="it")) is Code.NOT_A_NUMBER


def test_a_decimal_beyond_its_limit() -> None:
    assert code_of(lambda: strict.decimal("11", what="it", limit=10)) is Code.FIELD_RANGE
    assert code_of(lambda: strict.decimal(str(2**63), what="it")) is Code.FIELD_RANGE
    assert code_of(lambda: strict.decimal("9" * 5000, what="it")) is Code.NOT_A_NUMBER


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds
def test_time_back_and_forth(moment: datetime) -> None:
    assert strict.time_decode(strict.time_encode(moment), what="it") == moment


@given(st.text("0123456789-:.TZ +", max_size=30))
def test_any_text_is_a_time_or_not(text: str) -> None:
    try:
        assert strict.time_decode(text, what="it").tzinfo is not None
    except MalformedEvidence:
        return


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00:00z",
        "2026-01-31T12:00:00+00:00",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00.1234567Z",
        "2026-01-31T12:00:00Z\n",
        "2026-02-30T12:00:00Z",
        "2026-01-31T24:00:01Z",
        "2026-01-31T12:00:60Z",
        "0000-01-01T00:00:00Z",
        "2026-W05-6T12:00:00Z",
    ],
)
def test_what_python_would_take_for_a_time_is_refused(text: str) -> None:
    assert code_of(lambda: strict.time_decode(text, what="it")) is Code.NOT_A_TIME


def test_a_time_is_told_in_utc() -> None:
    east = datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))
    assert strict.time_encode(east) == "2026-01-31T12:00:00Z"
    with pytest.raises(ValueError, match="naive"):
        strict.time_encode(datetime(2026, 1, 31))  # noqa: DTZ001 - naive is what is refused


# -- JSON --------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=10,
)


def decode(data: bytes) -> strict.JsonValue:
    return strict.json_decode(data, what="it")


@given(JSON.filter(lambda value: "\\ud" not in json.dumps(value)))
def test_json_back_and_forth(value: strict.JsonValue) -> None:
    assert decode(strict.json_encode(value)) == value
    assert decode(strict.json_encode(value, indent=2)) == value


@given(st.one_of(st.binary(max_size=60), st.text('{}[]":,\\0123456789.eE-+truefalsnN ', max_size=40).map(str.encode)))
def test_any_bytes_are_json_or_malformed(data: bytes) -> None:
    try:
        decode(data)
    except MalformedEvidence:
        return


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.NOT_JSON),
        (b"{}{}", Code.NOT_JSON),
        (b"\xff", Code.NOT_UTF8),
        (b'{"a":1,"a":2}', Code.DUPLICATE_KEY),
        (b'{"a":{"b":1,"\\u0062":2}}', Code.DUPLICATE_KEY),
        (b"NaN", Code.NOT_JSON),
        (b"[Infinity]", Code.NOT_JSON),
        (b"[-Infinity]", Code.NOT_JSON),
        (b"1e999", Code.NOT_JSON),
        (b"-1e999", Code.NOT_JSON),
        (b"[" * 33 + b"]" * 33, Code.TOO_DEEP),
        (b'{"a":' * 40 + b"1" + b"}" * 40, Code.TOO_DEEP),
        (b"9" * 5000, Code.NOT_JSON),
        (b'"\x01"', Code.NOT_JSON),
        (b"'a'", Code.NOT_JSON),
        (b"[1,]", Code.NOT_JSON),
        (b"\xef\xbb\xbf{}", Code.NOT_JSON),
    ],
)
def test_json_that_others_read_differently_is_refused(data: bytes, code: Code) -> None:
    """A70"""
    assert code_of(lambda: decode(data)) is code


def test_brackets_inside_strings_do_not_nest() -> None:
    text = '"' + "[" * 100 + '\\""'
    assert decode(f"[{text}]".encode()) == ["[" * 100 + '"']
    assert decode(b"[" * limits.JSON_DEPTH_MAX + b"]" * limits.JSON_DEPTH_MAX) is not None


def test_json_beyond_its_limit() -> None:
    assert code_of(lambda: strict.json_decode(b"[]", what="it", limit=1)) is Code.TOO_LARGE


def test_json_has_no_word_for_some_things() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        strict.json_encode(math.nan)
    with pytest.raises(TypeError):
        strict.json_encode(b"bytes")


def test_json_is_canonical() -> None:
    assert strict.json_encode({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()


# -- structures --------------------------------------------------------------------------------------------------------


def test_a_structure_is_exactly_as_long_as_it_is() -> None:
    assert strict.unpack(">HB", struct.pack(">HB", 1, 2), what="it") == (1, 2)
    assert code_of(lambda: strict.unpack(">HB", b"\0\1", what="it")) is Code.TRUNCATED
    assert code_of(lambda: strict.unpack(">HB", b"\0\1\2\3", what="it")) is Code.TRAILING_BYTES


def test_the_alphabets_are_those_of_the_library() -> None:
    data = bytes(range(256))
    assert strict.base64_encode(data) == base64.b64encode(data).decode()
    assert strict.base64url_encode(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")
