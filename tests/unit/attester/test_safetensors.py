"""The strict safetensors header."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from fakes.models import minilm_directory
from weighbridge.attester.weights.layout import Layout, Span
from weighbridge.attester.weights.safetensors import header_length, parse_header
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence

FIELDS = {
    "__metadata__": {"format": "pt"},
    "b": {"dtype": "F32", "shape": [2, 2], "data_offsets": [4, 20]},
    "a": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]},
    "none": {"dtype": "F16", "shape": [0], "data_offsets": [20, 20]},
}


def parse(document: object, size: int = 20) -> Layout:
    header = json.dumps(document).encode()
    return parse_header(header, file_size=8 + len(header) + size, where="m")


def test_spans_are_contiguous_from_the_header_to_the_end() -> None:
    start = 8 + len(json.dumps(FIELDS))
    assert parse(FIELDS) == Layout(
        "safetensors",
        (
            Span(None, "", (), 0, start),
            Span("a", "I8", (4,), start, start + 4),
            Span("b", "F32", (2, 2), start + 4, start + 20),
            Span("none", "F16", (0,), start + 20, start + 20),
        ),
    )


def test_agrees_with_the_reference_implementation() -> None:
    data = save({"x": np.arange(6, dtype=np.int64).reshape(2, 3), "y": np.ones(3, np.float32)})
    length = header_length(data[:8], file_size=len(data), where="m")
    layout = parse_header(data[8 : 8 + length], file_size=len(data), where="m")
    spans = {span.name: span for span in layout.spans}
    assert np.frombuffer(data[spans["x"].begin : spans["x"].end], np.int64).tolist() == list(range(6))
    assert spans["y"].shape == (3,)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda v: v.update(__metadata__={"a": 1}), Code.FIELD_TYPE),
        (lambda v: v.update(__metadata__=[]), Code.FIELD_TYPE),
        (lambda v: v.update(a=[]), Code.FIELD_TYPE),
        (lambda v: v["a"].pop("dtype"), Code.FIELD_MISSING),
        (lambda v: v["a"].update(x=1), Code.FIELD_UNKNOWN),
        (lambda v: v["a"].update(dtype="F128"), Code.FIELD_RANGE),
        (lambda v: v["a"].update(dtype=8), Code.FIELD_RANGE),
        (lambda v: v["a"].update(shape=4), Code.FIELD_TYPE),
        (lambda v: v["a"].update(shape=[1] * 65), Code.FIELD_TYPE),
        (lambda v: v["a"].update(shape=[-4]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(shape=[4.0]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(shape=[True]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(shape=[5]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(data_offsets=[0]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(data_offsets=[4, 0]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(data_offsets=[0, 5]), Code.FIELD_RANGE),
        (lambda v: v["b"].update(data_offsets=[3, 19]), Code.FIELD_RANGE),
        (lambda v: v["b"].update(data_offsets=[5, 21]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(data_offsets=[2**62, 2**62 + 4]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(data_offsets=[0, 2**63]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(shape=[2**63]), Code.FIELD_RANGE),
        (lambda v: v["a"].update(shape=[2**62] * 64), Code.FIELD_RANGE),
        (lambda v: v["a"].update(shape=[2**61, 2], data_offsets=[0, 2**62]), Code.FIELD_RANGE),
        (lambda v: v["b"].update(data_offsets=[0, 16]), Code.FIELD_RANGE),
        (lambda v: v.pop("a"), Code.FIELD_RANGE),
        (lambda v: v.pop("b"), Code.FIELD_RANGE),
        (lambda v: (v.pop("b"), v.pop("none")), Code.TRAILING_BYTES),
    ],
)
def test_each_field_refuses_what_is_wrong_by_code(change: Callable[[Any], object], code: Code) -> None:
    document = json.loads(json.dumps(FIELDS))
    change(document)
    with pytest.raises(MalformedEvidence) as caught:
        parse(document)
    assert caught.value.code == code


def test_names_in_messages_are_printable() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse({"\x1b[2J": 1})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"", Code.NOT_JSON),
        (b' {"a": 1}', Code.FIELD_TYPE),
        (b"[]", Code.FIELD_TYPE),
        (b"{", Code.NOT_JSON),
        (b'{"a": 1, "a": 2}', Code.DUPLICATE_KEY),
        (b'{"a": NaN}', Code.NOT_JSON),
        (b'{"a": "\xff"}', Code.NOT_UTF8),
        (b'{"a": ' + b"[" * 40, Code.TOO_DEEP),
        (b'{"a": ' * 100_000, Code.TOO_DEEP),
        (b'{"a": {"dtype": "I8", "dtype": "I8"}}', Code.DUPLICATE_KEY),
        (b'{"\\ud800": {}}', Code.NOT_UTF8),
        (b'{"' + b"n" * 4097 + b'": {}}', Code.TOO_LARGE),
        (b'{"a": ' + b"9" * 5000 + b"}", Code.NOT_JSON),
    ],
)
def test_lenient_json_is_refused(header: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse_header(header, file_size=8 + len(header), where="m")
    assert caught.value.code == code


def test_file_that_ends_early_or_late_is_refused() -> None:
    for size, code in ((19, Code.TRUNCATED), (21, Code.TRAILING_BYTES)):
        with pytest.raises(MalformedEvidence) as caught:
            parse(FIELDS, size)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("prefix", "size", "code"),
    [
        (b"\1\0\0", 3, Code.TRUNCATED),
        ((9).to_bytes(8, "little"), 16, Code.TRUNCATED),
        ((limits.JSON_MAX + 1).to_bytes(8, "little"), 2**40, Code.TOO_LARGE),
        (b"\xff" * 8, 2**40, Code.TOO_LARGE),
    ],
)
def test_length_is_bounded_before_anything_is_read(prefix: bytes, size: int, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        header_length(prefix, file_size=size, where="m")
    assert caught.value.code == code


def test_length_may_fill_the_file() -> None:
    assert header_length((8).to_bytes(8, "little"), file_size=16, where="m") == 8


@given(st.binary(max_size=120), st.integers(0, 200))
def test_parser_is_total_on_any_bytes(data: bytes, size: int) -> None:
    for header in (data, b"{" + data):
        try:
            parse_header(header, file_size=size, where="m")
        except MalformedEvidence:
            continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 30) | st.floats(allow_nan=False) | st.sampled_from(["F32", "I8", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, st.integers(0, 40))
def test_parser_is_total_on_any_json(document: object, size: int) -> None:
    try:
        spans = parse(document, size).spans
    except MalformedEvidence:
        return
    assert all(before.end == after.begin for before, after in pairwise(spans))


def test_real_model_parses() -> None:
    with (minilm_directory() / "model.safetensors").open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = header_length(file.read(8), file_size=size, where="m")
        assert len(parse_header(file.read(length), file_size=size, where="m").spans) == 105
