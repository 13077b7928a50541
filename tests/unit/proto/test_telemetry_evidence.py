"""Telemetry evidence: integers, one encoding, bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.telemetry import VERSION, Channel, Source, Telemetry

WORDS = bytes([0] * 15 + [5])


def value(**changes: object) -> dict[int, Any]:
    """A good telemetry map with fields of its one source changed: `device`, `name`, … or `whole_N`."""
    source: dict[int, Any] = {
        0: bytes(32),
        1: "emulated",
        2: 7,
        3: 100,
        4: WORDS,
        5: {"power": ["mW", WORDS], "other": ["K", None]},
    }
    whole: dict[int, Any] = {0: VERSION, 1: bytes(16), 2: 9, 3: [source]}
    for name, change in changes.items():
        kind, number = name.split("_")
        (whole if kind == "whole" else source)[int(number)] = change
    return whole


def refusal(data: object) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        Telemetry.parse(cbor.encode(data))
    return caught.value.code


def test_parsed() -> None:
    parsed = Telemetry.parse(cbor.encode(value()))
    assert parsed == Telemetry(
        session=bytes(16),
        seq=9,
        sources=(
            Source(
                device=bytes(32),
                name="emulated",
                start_wall_ns=7,
                period_ns=100,
                offsets=(0, 5),
                channels={"power": Channel("mW", (0, 5)), "other": Channel("K", None)},
            ),
        ),
    )
    assert parsed.encode() == cbor.encode(value())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"whole_0": "weighbridge/v2/telemetry"}, Code.VERSION_UNSUPPORTED),
        ({"whole_1": bytes(15)}, Code.FIELD_RANGE),
        ({"whole_2": -1}, Code.FIELD_RANGE),
        ({"whole_2": 2**53 + 1}, Code.FIELD_RANGE),
        ({"whole_3": None}, Code.FIELD_TYPE),
        ({"whole_3": [0]}, Code.FIELD_TYPE),
        ({"whole_3": [0] * 257}, Code.TOO_LARGE),
        ({"whole_4": 0}, Code.FIELD_UNKNOWN),
        ({"source_0": bytes(31)}, Code.FIELD_RANGE),
        ({"source_1": "x" * 65}, Code.TOO_LARGE),
        ({"source_2": -1}, Code.FIELD_RANGE),
        ({"source_3": 0}, Code.FIELD_RANGE),
        ({"source_4": bytes(7)}, Code.FIELD_RANGE),
        ({"source_4": bytes(16)}, Code.FIELD_RANGE),  # 0, 0
        ({"source_4": b"\xff" * 8 + bytes(8)}, Code.FIELD_RANGE),  # -1, 0
        ({"source_4": bytes(8 * (limits.TELEMETRY_SAMPLES_MAX + 1))}, Code.TOO_LARGE),
        ({"source_5": []}, Code.FIELD_TYPE),
        ({"source_6": 0}, Code.FIELD_UNKNOWN),
        ({"source_5": {1: ["mW", WORDS]}}, Code.FIELD_TYPE),
        ({"source_5": {"": ["mW", WORDS]}}, Code.FIELD_TYPE),
        ({"source_5": {"x" * 65: ["mW", WORDS]}}, Code.FIELD_TYPE),
        ({"source_5": {"power": ["mW"]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": [0, WORDS]}}, Code.FIELD_TYPE),
        ({"source_5": {"x": ["y" * 65, WORDS]}}, Code.FIELD_TYPE),
        ({"source_5": {"power": ["W", WORDS]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": ["mW", 0]}}, Code.FIELD_TYPE),
        ({"source_5": {"power": ["mW", WORDS + bytes(8)]}}, Code.FIELD_RANGE),
        ({"source_5": {str(number): ["K", None] for number in range(65)}}, Code.TOO_LARGE),
    ],
)
def test_each_field_is_checked(changes: dict[str, object], code: Code) -> None:
    assert refusal(value(**changes)) == code


def test_one_path_per_device() -> None:
    whole = value()
    whole[3] = whole[3] * 2
    assert refusal(whole) == Code.DUPLICATE_KEY


def test_no_samples_and_no_sources_are_well_formed() -> None:
    empty = Source(
        device=None, name="host", start_wall_ns=0, period_ns=1, offsets=(), channels={"power": Channel("mW", ())}
    )
    for sources in ((), (empty,)):
        telemetry = Telemetry(session=bytes(16), seq=0, sources=sources)
        assert Telemetry.parse(telemetry.encode()) == telemetry


@given(
    offsets=st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=20).map(sorted),
    data=st.data(),
)
def test_what_is_encoded_is_parsed(offsets: list[int], data: st.DataObject) -> None:
    integers = st.integers(-(2**63), 2**63 - 1)
    values = st.none() | st.lists(integers, min_size=len(offsets), max_size=len(offsets)).map(tuple)
    names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10).map(lambda text: "x" + text)
    channels = data.draw(st.dictionaries(names, st.builds(Channel, st.sampled_from(["K", "mW"]), values), max_size=4))
    source = Source(device=bytes(32), name="x", start_wall_ns=3, period_ns=4, offsets=tuple(offsets), channels=channels)
    telemetry = Telemetry(session=bytes(16), seq=1, sources=(source,))
    assert Telemetry.parse(telemetry.encode()) == telemetry


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_malformed(data: bytes) -> None:
    _total(data)


@given(st.dictionaries(st.integers(0, 120), st.integers(0, 255), max_size=3))
def test_any_change_is_parsed_or_malformed(changes: dict[int, int]) -> None:
    data = bytearray(cbor.encode(value()))
    for offset, change in changes.items():
        data[offset] = change
    _total(bytes(data))


def _total(data: bytes) -> None:
    try:
        parsed = Telemetry.parse(data)
    except MalformedEvidence:
        return
    assert parsed.encode() == data
