"""NVIDIA's opaque data in both formats."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_support import vector_report
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spdm import opaque, report
from weighbridge.proto.spdm.opaque import OpaqueType

NVDAOD = b"NVDAOD\x00\x00\x02\x00\x00\x00"


def entry(number: int, kind: int, value: bytes) -> bytes:
    return b"".join(part.to_bytes(2, "little") for part in (number, kind, len(value))) + value


def refusal(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        opaque.parse(data, where="opaque")
    return caught.value.code


def test_unknown_types_are_kept() -> None:
    parsed = opaque.parse(opaque.encode_tlv([(999, b"x"), (3, b"545.00\0")]), where="opaque")
    assert [(field.type, field.name, field.kind, field.value) for field in parsed.fields] == [
        (999, "TYPE_999", None, b"x"),
        (3, "DRIVER_VERSION", None, b"545.00\0"),
    ]
    assert parsed.get(OpaqueType.DRIVER_VERSION) == b"545.00\0"
    assert parsed.get(OpaqueType.FWID) is None
    assert [field.is_named for field in parsed.fields] == [False, True]


def test_new_format() -> None:
    parsed = opaque.parse(NVDAOD + entry(37, 0x87, b"\x01\x00") + entry(700, 0x01, b""), where="opaque")
    assert (parsed.format, parsed.version) == ("NVDAOD", (2, 0, 0))
    assert [(field.name, field.kind, field.value) for field in parsed.fields] == [
        ("FSP_UCODE_SVN", 0x87, b"\x01\x00"),
        ("TYPE_700", 0x01, b""),
    ]


def test_new_format_in_a_captured_report(vectors_dir: Path) -> None:
    parsed = report.parse(vector_report(vectors_dir, "attsdk-2.0.0-nvdaod/sample_nvdaod_transcript.txt")).opaque
    assert (parsed.format, parsed.version, len(parsed.fields)) == ("NVDAOD", (2, 0, 0), 17)
    fwid = next(field for field in parsed.fields if field.type == OpaqueType.FWID)
    assert (fwid.kind, len(fwid.value)) == (0x01, 48)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x03\x00\x01", Code.TRUNCATED),
        (b"\x03\x00\x02\x00x", Code.TRUNCATED),
        (opaque.encode_tlv([(3, b"a"), (3, b"a")]), Code.DUPLICATE_KEY),
        (opaque.encode_tlv([(number, b"") for number in range(257)]), Code.TOO_LARGE),
        (NVDAOD[:11], Code.TRUNCATED),
        (b"NVDAOD\x01\x00\x02\x00\x00\x00", Code.VERSION_UNSUPPORTED),
        (b"NVDAOD\x00\x00\x03\x00\x00\x00", Code.VERSION_UNSUPPORTED),
        (NVDAOD + b"\x01\x00\x01\x00\x01", Code.TRUNCATED),
        (NVDAOD + b"\x01\x00\x01\x00\x01\x00", Code.TRUNCATED),
        (NVDAOD + entry(5, 1, b"") + entry(5, 2, b""), Code.DUPLICATE_KEY),
    ],
)
def test_refused(data: bytes, code: Code) -> None:
    assert refusal(data) == code


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=20, unique_by=lambda item: item[0]))
def test_what_is_encoded_is_parsed(fields: list[tuple[int, bytes]]) -> None:
    data = opaque.encode_tlv(fields)
    if not data.startswith(b"NVDAOD"):
        assert [(field.type, field.value) for field in opaque.parse(data, where="opaque").fields] == fields


@given(
    st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=40)),
        max_size=20,
        unique_by=lambda item: item[0],
    )
)
def test_what_is_encoded_in_the_new_format_is_parsed(fields: list[tuple[int, int, bytes]]) -> None:
    parsed = opaque.parse(opaque.encode_nvdaod(fields), where="opaque")
    assert (parsed.format, parsed.version) == ("NVDAOD", (2, 0, 0))
    assert [(field.type, field.kind, field.value) for field in parsed.fields] == fields


WHOLE = [
    opaque.encode_tlv([(3, b"550.90.07"), (20, bytes(48)), (999, b"")]),
    opaque.encode_nvdaod([(3, 0x86, b"620.12"), (20, 0x01, bytes(48)), (999, 0x82, b"")]),
]


@given(st.sampled_from(WHOLE), st.dictionaries(st.integers(0, 80), st.integers(0, 255), max_size=4), st.integers(0, 90))
def test_any_change_is_parsed_or_malformed(data: bytes, changes: dict[int, int], cut: int) -> None:
    """What parses accounts for every byte."""
    changed = bytearray(data)
    for position, value in changes.items():
        changed[position % len(data)] = value
    try:
        parsed = opaque.parse(bytes(changed[:cut]), where="opaque")
    except MalformedEvidence:
        return
    overhead, start = (4, 0) if parsed.format == "tlv" else (6, 12)
    assert start + sum(overhead + len(field.value) for field in parsed.fields) == len(changed[:cut])


@given(st.sampled_from([b"", b"NVDAOD", NVDAOD]), st.binary(max_size=100))
def test_any_bytes_are_parsed_or_malformed(start: bytes, data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        opaque.parse(start + data, where="opaque")
