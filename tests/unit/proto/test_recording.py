"""Recordings and their scope: strict, bounded, one encoding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.recording import VERSION, RecordedWindow, Recording
from weighbridge.proto.scope import Scope
from weighbridge.proto.telemetry import Channel, Source, Telemetry
from weighbridge.proto.workload import WorkSummary

SCOPE = Scope(
    gpu_model="NVIDIA H200",
    driver="580.159.04",
    vbios="96.00.A5.00.1A",
    engine="vllm 0.11.0",
    model=bytes([7] * 32),
    workload="chat, 32 streams",
    power_limit_mw=700_000,
)
TELEMETRY = Telemetry(
    session=bytes(16),
    seq=3,
    sources=(
        Source(
            device=bytes(32),
            name="nvml",
            start_wall_ns=5,
            period_ns=100,
            offsets=(0, 100),
            channels={"power": Channel("mW", (417_000, None))},
        ),
    ),
)
WORK = WorkSummary(
    root=bytes([1] * 32), requests=2, tokens_in=30, tokens_out=40, batch_max=2, prefill_ns=5, decode_ns=6
)
WINDOW = RecordedWindow(telemetry=TELEMETRY.encode(), work=WORK, start_ns=5, end_ns=205, window=bytes([2] * 32))
RECORDING = Recording(
    origin="session",
    label="run 1",
    scope=SCOPE,
    windows=(WINDOW, replace(WINDOW, window=None, start_ns=205, end_ns=9999)),
)


def fields(**changes: object) -> dict[int, Any]:
    """A good recording's map with fields changed: `whole_N`, or `window_N` of its one window."""
    window: list[Any] = [b"", WORK.to_cbor(), 5, 205, None]
    whole: dict[int, Any] = {0: VERSION, 1: "host", 2: "", 3: strict.json_encode(SCOPE.to_json()), 4: [window]}
    for name, change in changes.items():
        kind, number = name.split("_")
        if kind == "whole":
            whole[int(number)] = change
        else:
            window[int(number)] = change
    return whole


def refusal(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        Recording.parse(data)
    return caught.value.code


def test_what_is_encoded_is_parsed() -> None:
    data = RECORDING.encode()
    assert Recording.parse(data) == RECORDING
    assert RECORDING.digest == sha256(data)
    assert RECORDING.windows[0].readings() == TELEMETRY
    bare = Recording(
        origin="imported", label="", scope=replace(SCOPE, vbios=None, model=None, power_limit_mw=None), windows=()
    )
    assert Recording.parse(bare.encode()) == bare


def test_telemetry_is_read_when_it_is_wanted() -> None:
    recording = Recording.parse(cbor.encode(fields()))
    with pytest.raises(MalformedEvidence) as caught:
        recording.windows[0].readings()
    assert caught.value.code == Code.NOT_CBOR


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"whole_0": "weighbridge/v1/telemetry"}, Code.VERSION_UNSUPPORTED),
        ({"whole_1": "stream"}, Code.FIELD_RANGE),
        ({"whole_2": "x" * 129}, Code.TOO_LARGE),
        ({"whole_3": strict.json_encode(SCOPE.to_json(), indent=1)}, Code.NOT_DETERMINISTIC),
        ({"whole_3": b"{}"}, Code.FIELD_MISSING),
        ({"whole_3": bytes(2049)}, Code.TOO_LARGE),
        ({"whole_4": None}, Code.FIELD_TYPE),
        ({"whole_4": [None] * (limits.RECORDING_WINDOWS_MAX + 1)}, Code.TOO_LARGE),
        ({"whole_4": [[]] * limits.RECORDING_ITEMS_MAX}, Code.TOO_LARGE),
        ({"whole_5": 0}, Code.FIELD_UNKNOWN),
        ({"window_0": None}, Code.FIELD_TYPE),
        ({"window_0": bytes(limits.TELEMETRY_MAX + 1)}, Code.TOO_LARGE),
        ({"window_1": []}, Code.FIELD_RANGE),
        ({"window_2": -1}, Code.FIELD_RANGE),
        ({"window_3": 5}, Code.FIELD_RANGE),
        ({"window_3": 4}, Code.FIELD_RANGE),
        ({"window_3": 2**62}, Code.FIELD_RANGE),
        ({"window_4": bytes(31)}, Code.FIELD_RANGE),
    ],
)
def test_each_field_is_checked(changes: dict[str, object], code: Code) -> None:
    assert refusal(cbor.encode(fields(**changes))) == code


def test_a_typed_array_has_no_place_outside_of_telemetry() -> None:
    assert refusal(b"\xd8\x48\x40") == Code.NOT_CBOR


def test_too_large_a_file_is_refused_unread() -> None:
    assert refusal(bytes(limits.RECORDING_MAX + 1)) == Code.TOO_LARGE


def test_an_hour_of_eight_gpus_fits() -> None:
    hour = replace(RECORDING, windows=(replace(WINDOW, telemetry=bytes(20_000)),) * 360)
    assert Recording.parse(hour.encode()) == hour


@given(st.binary(max_size=80))
def test_any_bytes_are_parsed_or_malformed(data: bytes) -> None:
    _total(data)


@given(st.dictionaries(st.integers(0, 700), st.integers(0, 255), max_size=3))
def test_any_change_is_parsed_or_malformed(changes: dict[int, int]) -> None:
    data = bytearray(RECORDING.encode())
    for offset, change in changes.items():
        data[offset % len(data)] = change
    _total(bytes(data))


def _total(data: bytes) -> None:
    try:
        parsed = Recording.parse(data)
    except MalformedEvidence:
        return
    assert parsed.encode() == data


# -- scope -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"gpu_model": None}, Code.FIELD_TYPE),
        ({"gpu_model": ""}, Code.FIELD_RANGE),
        ({"driver": 580}, Code.FIELD_TYPE),
        ({"driver": "x" * 129}, Code.FIELD_RANGE),
        ({"engine": "v\n"}, Code.FIELD_RANGE),
        ({"vbios": ""}, Code.FIELD_RANGE),
        ({"workload": "\x1b[2J"}, Code.FIELD_RANGE),
        ({"model": "07" * 31}, Code.FIELD_RANGE),
        ({"model": "0G" * 32}, Code.NOT_HEX),
        ({"power_limit_mw": 0}, Code.FIELD_RANGE),
        ({"power_limit_mw": 2**31 + 1}, Code.FIELD_RANGE),
        ({"power_limit_mw": True}, Code.FIELD_TYPE),
        ({"power_limit_mw": 1.5}, Code.FIELD_TYPE),
        ({"unit": "GPU-1"}, Code.FIELD_UNKNOWN),
    ],
)
def test_each_field_of_a_scope_is_checked(changes: strict.JsonObject, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        Scope.from_json({**SCOPE.to_json(), **changes}, where="scope")
    assert caught.value.code == code


def test_every_field_of_a_scope_is_said() -> None:
    for name in SCOPE.to_json():
        value = {key: item for key, item in SCOPE.to_json().items() if key != name}
        with pytest.raises(MalformedEvidence) as caught:
            Scope.from_json(value, where="scope")
        assert caught.value.code == Code.FIELD_MISSING
    others: tuple[strict.JsonValue, ...] = (None, [], "H200")
    for other in others:
        with pytest.raises(MalformedEvidence) as caught:
            Scope.from_json(other, where="scope")
        assert caught.value.code == Code.FIELD_TYPE


def test_a_scope_returns() -> None:
    for scope in (SCOPE, Scope(gpu_model="a", driver="b", engine="c", workload="d")):
        assert Scope.from_json(scope.to_json(), where="scope") == scope


@given(
    st.dictionaries(
        st.sampled_from([*SCOPE.to_json(), "more"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]),
    )
)
def test_a_scope_is_read_or_malformed(changes: dict[str, Any]) -> None:
    try:
        scope = Scope.from_json({**SCOPE.to_json(), **changes}, where="scope")
    except MalformedEvidence:
        return
    assert scope.to_json() == {**SCOPE.to_json(), **changes}
