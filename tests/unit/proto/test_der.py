"""DER, one level at a time, to its last byte."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto.der import BOOLEAN, INTEGER, SEQUENCE, UTF8_STRING, Element, elements, one
from weighbridge.proto.errors import Code, MalformedEvidence


def refusal(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        elements(data, what="example")
    return caught.value.code


def test_elements_of_one_level() -> None:
    outer = one(b"\x30\x06\x02\x01\x07\x0c\x01a", SEQUENCE, what="x")
    assert outer.raw == b"\x30\x06" + outer.content
    number, text = outer.elements(what="x")
    assert (number.natural(what="x"), text.text(what="x")) == (7, "a")
    assert elements(b"", what="x") == ()


@pytest.mark.parametrize("size", [0, 127, 128, 255, 256, 65_536])
def test_lengths_in_their_shortest_form(size: int) -> None:
    digits = size.to_bytes(max(1, (size.bit_length() + 7) // 8))
    head = digits if size < 128 else bytes([0x80 + len(digits)]) + digits
    data = b"\x04" + head + bytes(size)
    assert elements(data, what="x") == (Element(4, bytes(size), data),)


@pytest.mark.parametrize(
    "data",
    [
        b"\x04",
        b"\x04\x01",
        b"\x1f\x01\x00",  # a long tag
        b"\x04\x80",  # an indefinite length
        b"\x04\x80\0\0",
        b"\x04\x81\x7f" + bytes(127),
        b"\x04\x82\x00\x80" + bytes(128),
        b"\x04\x81",
        b"\x04\x82\x01",
        b"\x05\0" * 65,
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    assert refusal(data) is Code.CERT_MALFORMED


@pytest.mark.parametrize(
    ("tag", "content"),
    [(INTEGER, b""), (INTEGER, b"\x00\x01"), (INTEGER, b"\x80"), (UTF8_STRING, b"\x01")],
)
def test_numbers_are_natural_and_short(tag: int, content: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        Element(tag, content, b"").natural(what="x")


def test_zero_and_high_bits() -> None:
    assert Element(INTEGER, b"\0", b"").natural(what="x") == 0
    assert Element(INTEGER, b"\x00\x80", b"").natural(what="x") == 128


def test_truth_and_text() -> None:
    assert Element(BOOLEAN, b"\xff", b"").truth(what="x") is True
    assert Element(BOOLEAN, b"\0", b"").truth(what="x") is False
    for tag, content in ((BOOLEAN, b"\x01"), (BOOLEAN, b""), (INTEGER, b"\xff")):
        with pytest.raises(MalformedEvidence):
            Element(tag, content, b"").truth(what="x")
    for tag, content in ((UTF8_STRING, b"\xff"), (SEQUENCE, b"a")):
        with pytest.raises(MalformedEvidence):
            Element(tag, content, b"").text(what="x")


@pytest.mark.parametrize("data", [b"", b"\x05\0\x05\0", b"\x05\0"])
def test_one_of_its_tag(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        one(data, SEQUENCE, what="x")


@given(st.binary(max_size=100))
def test_any_bytes_are_elements_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert b"".join(element.raw for element in elements(data, what="x")) == data
