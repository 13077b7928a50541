"""The strict GGUF header."""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.gguf import ARRAY, F32, Q4_0, STRING, UINT32, Gguf, Tensor, array, real, text
from weighbridge.attester.weights import gguf
from weighbridge.attester.weights.gguf import parse_header
from weighbridge.attester.weights.layout import Layout
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence

SMALL = Gguf()


def parse(data: bytes) -> Layout:
    layout = parse_header(data, file_size=len(data), where="m.gguf")
    assert layout is not None
    return layout


def refusal(data: bytes) -> MalformedEvidence:
    with pytest.raises(MalformedEvidence) as caught:
        parse(data)
    return caught.value


def tensor(**changes: object) -> Gguf:
    """`SMALL` with its last tensor changed."""
    last = replace(SMALL.tensors[-1], **changes)  # type: ignore[arg-type]
    return SMALL.but(tensors=(*SMALL.tensors[:-1], last))


def metadata(*pairs: tuple[bytes, int, bytes]) -> Gguf:
    return SMALL.but(metadata=pairs)


@pytest.mark.parametrize("file", [SMALL, real(), SMALL.but(version=2), SMALL.but(pad_last=False)])
def test_spans_cover_the_file_and_hold_the_tensors(file: Gguf) -> None:
    data = file.data()
    layout = parse(data)
    assert layout.kind == "gguf"
    assert (layout.spans[0].begin, layout.spans[-1].end) == (0, len(data))
    assert all(before.end == after.begin for before, after in pairwise(layout.spans))
    assert layout.spans[0].end == len(file.header())
    found = [(s.name, s.dtype, s.shape, data[s.begin : s.end]) for s in layout.spans if s.name is not None]
    assert found == [
        ("token_embd.weight", "F32", (32, 2), bytes(range(256))),
        ("blk.0.attn_q.weight", "Q4_0", (64,), b"q" * 36),
        ("output_norm.weight", "F32", (3,), b"n" * 12),
    ]
    assert all(not any(data[s.begin : s.end]) for s in layout.spans[1:] if s.name is None)


def test_file_without_tensors_is_its_header() -> None:
    """Vocabularies come so."""
    data = real().but(tensors=()).data()
    assert [(span.name, span.end) for span in parse(data).spans] == [(None, len(data))]


def test_tensor_without_elements_or_dimensions() -> None:
    file = SMALL.but(tensors=(Tensor(b"none", (0, 3), F32, b""), Tensor(b"one", (), F32, b"1234")))
    named = [(s.name, s.shape, s.end - s.begin) for s in parse(file.data()).spans if s.name]
    assert named == [("none", (0, 3), 0), ("one", (), 4)]


def test_prefix_that_ends_within_the_header_asks_for_more() -> None:
    data, header = real().data(), real().header()
    for size in range(len(header)):
        assert parse_header(data[:size], file_size=len(data), where="m") is None
    assert parse_header(data[: len(header)], file_size=len(data), where="m") == parse(data)


def test_every_shorter_file_is_truncated() -> None:
    data = real().but(pad_last=False).data()
    for size in range(len(data)):
        assert refusal(data[:size]).code == Code.TRUNCATED


HUGE = struct.pack("<Q", 2**63)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (SMALL.but(magic=b"GGML"), Code.FIELD_RANGE),
        (SMALL.but(version=1), Code.VERSION_UNSUPPORTED),
        (SMALL.but(version=4), Code.VERSION_UNSUPPORTED),
        (SMALL.but(order=">"), Code.VERSION_UNSUPPORTED),
        (SMALL.but(tail=b"\0"), Code.TRAILING_BYTES),
        (SMALL.but(pad_last=False, tail=b"\0"), Code.TRAILING_BYTES),
        (SMALL.but(tensor_count=2**63), Code.TOO_LARGE),
        (SMALL.but(tensor_count=4), Code.FIELD_RANGE),
        (SMALL.but(pair_count=2**63), Code.TOO_LARGE),
        (SMALL.but(pair_count=1), Code.TOO_LARGE),
        (tensor(name=b"token_embd.weight"), Code.DUPLICATE_KEY),
        (tensor(name=b""), Code.FIELD_RANGE),
        (tensor(name=b"a\0b"), Code.FIELD_RANGE),
        (tensor(name=b"\xff"), Code.NOT_UTF8),
        (tensor(name=b"n" * 256), Code.TOO_LARGE),
        (tensor(shape=(1, 1, 1, 1, 3)), Code.FIELD_RANGE),
        (tensor(shape=(2**63, 2)), Code.FIELD_RANGE),
        (tensor(shape=(2**64 - 1,) * 4), Code.FIELD_RANGE),
        (tensor(shape=(2**62,)), Code.TRUNCATED),
        (tensor(shape=(9,)), Code.TRUNCATED),
        (tensor(shape=(3, 20)), Code.TRUNCATED),
        (tensor(kind=Q4_0), Code.FIELD_RANGE),
        (tensor(kind=4), Code.FIELD_RANGE),
        (tensor(kind=31), Code.FIELD_RANGE),
        (tensor(kind=2**31), Code.FIELD_RANGE),
        (tensor(offset=0), Code.FIELD_RANGE),
        (tensor(offset=319), Code.FIELD_RANGE),
        (tensor(offset=352), Code.FIELD_RANGE),
        (tensor(offset=2**64 - 32), Code.FIELD_RANGE),
        (metadata((b"", 0, b"1")), Code.DUPLICATE_KEY),
        (metadata((b"k", 0, b"1"), (b"k", 0, b"2")), Code.DUPLICATE_KEY),
        (metadata((b"k" * 65_536, 0, b"1")), Code.TOO_LARGE),
        (metadata((b"k", 13, b"1")), Code.FIELD_RANGE),
        (metadata((b"k", STRING, HUGE)), Code.TRUNCATED),
        (metadata((b"k", ARRAY, array(13, count=1))), Code.FIELD_RANGE),
        (metadata((b"k", ARRAY, array(13))), Code.FIELD_RANGE),
        (metadata((b"k", ARRAY, array(12, count=2**63))), Code.TRUNCATED),
        (metadata((b"k", ARRAY, array(STRING, HUGE))), Code.TRUNCATED),
        (metadata((b"k", ARRAY, array(STRING, text(b""), count=2**63))), Code.TRUNCATED),
        (metadata((b"k", ARRAY, array(ARRAY, array(0), count=2**63))), Code.FIELD_RANGE),
        (metadata((b"k", ARRAY, array(ARRAY, array(ARRAY, array(ARRAY, array(ARRAY, array(0))))))), Code.TOO_DEEP),
        (metadata((b"general.alignment", STRING, text(b"32"))), Code.FIELD_TYPE),
        (metadata((b"general.alignment", UINT32, struct.pack("<I", 0))), Code.FIELD_RANGE),
        (metadata((b"general.alignment", UINT32, struct.pack("<I", 48))), Code.FIELD_RANGE),
        (metadata((b"general.alignment", UINT32, struct.pack("<I", 2**31))), Code.FIELD_RANGE),
    ],
)
def test_each_field_refuses_what_is_wrong_by_code(file: Gguf, code: Code) -> None:
    error = refusal(file.data())
    assert error.code == code
    assert error.where.startswith("m.gguf")


def test_unknown_type_is_named_with_its_tensor() -> None:
    error = refusal(tensor(kind=99).data())
    assert (error.where, error.got) == ("m.gguf#output_norm.weight", "99")
    assert error.hint


def test_big_endian_file_says_so() -> None:
    error = refusal(SMALL.but(order=">").data())
    assert "big-endian" in error.message
    assert error.hint


def test_more_tensors_than_a_manifest_has_are_refused_before_they_are_read() -> None:
    data = SMALL.but(tensor_count=limits.MANIFEST_PARTS_MAX + 1).data()
    assert refusal(data).code == Code.TOO_LARGE


def test_header_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "HEADER_MAX", 100)
    with pytest.raises(MalformedEvidence) as caught:
        parse_header(real().data()[:100], file_size=10_000, where="m")
    assert caught.value.code == Code.TOO_LARGE


def test_names_in_messages_are_printable() -> None:
    assert str(refusal(tensor(name=b"\x1b[2J", kind=99).data())).isprintable()


def test_hostile_vocabulary_takes_bounded_time() -> None:
    """As many strings as a header can have, each of them empty: the most work for its size."""
    data = metadata((b"k", ARRAY, array(STRING, bytes(gguf.HEADER_MAX), count=2**62))).data()
    started = time.process_time()
    with pytest.raises(MalformedEvidence) as caught:
        parse_header(data, file_size=len(data), where="m")
    assert caught.value.code == Code.TRUNCATED
    assert time.process_time() - started < 20


def change(data: bytes, position: int, value: int) -> bytes:
    changed = bytearray(data)
    changed[position % len(changed)] = value
    return bytes(changed)


def holds(data: bytes, size: int) -> None:
    try:
        layout = parse_header(data, file_size=size, where="m")
    except MalformedEvidence:
        return
    if layout is not None:
        assert (layout.spans[0].begin, layout.spans[-1].end) == (0, size)
        assert all(before.end == after.begin for before, after in pairwise(layout.spans))


@given(st.binary(max_size=200), st.integers(0, 400))
def test_parser_is_total_on_any_bytes(data: bytes, size: int) -> None:
    size = max(size, len(data))
    holds(data, size)
    holds(b"GGUF" + struct.pack("<I", 3) + data, size + 8)


@given(st.integers(0, 2000), st.integers(0, 255), st.sampled_from([real(), SMALL]))
def test_parser_is_total_on_changed_files(position: int, value: int, file: Gguf) -> None:
    data = file.data()
    changed = change(data, position, value)
    holds(changed, len(changed))


@given(st.data())
def test_parser_is_total_on_strange_numbers(data: st.DataObject) -> None:
    number = st.sampled_from([0, 1, 31, 32, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
    shape = tuple(data.draw(st.lists(number, max_size=5)))
    file = tensor(shape=shape, kind=data.draw(st.integers(0, 50)), offset=data.draw(number))
    raw = file.data()
    holds(raw, len(raw))
