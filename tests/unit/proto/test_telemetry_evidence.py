"""Telemetry evidence: integers, one encoding of the content, bounded before and after it is unpacked."""

from __future__ import annotations

import random
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor, limits, zstd
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.telemetry import (
    UNITS,
    VALUE_MAX,
    VERSION,
    WINDOWS_NS,
    Channel,
    Event,
    EventKind,
    Packed,
    Source,
    Telemetry,
)
from weighbridge.proto.typed_array import TypedArray

if TYPE_CHECKING:
    from collections.abc import Mapping

NUMBERS = TypedArray.of([0, 5])  # 0, 5
HOSTILE = "x\x1b[2J\nPASS all good"
WIDE = TypedArray(75, TypedArray.of([2**62]).octets)


def value(**changes: object) -> dict[int, Any]:
    """A good telemetry map with fields of its one source changed: `source_N`, or `whole_N`."""
    source: dict[int, Any] = {
        0: bytes(32),
        1: "emulated",
        2: 7,
        3: 100,
        4: NUMBERS,
        5: {"power": ["mW", NUMBERS, None, 10**9], "other": ["K", None, None, None]},
        6: [[0, "gap", None], [5, "stall", "power"]],
    }
    sources: object = changes.pop("sources", [source])
    whole: dict[int, Any] = {0: VERSION, 1: bytes(16), 2: 9}
    for name, change in changes.items():
        kind, number = name.split("_")
        (whole if kind == "whole" else source)[int(number)] = change
    content = cbor.encode(sources)
    return {3: len(content), 4: zstd.compress(content), **whole}


def of_content(content: bytes) -> dict[int, Any]:
    return {0: VERSION, 1: bytes(16), 2: 9, 3: len(content), 4: zstd.compress(content)}


def refusal(data: object) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        Telemetry.parse(cbor.encode(data))
    return caught.value.code


def telemetry_of(*values: int | None, name: str = "x") -> Telemetry:
    source = Source(
        device=None,
        name="x",
        start_wall_ns=0,
        period_ns=1,
        offsets=tuple(range(len(values))),
        channels={name: Channel("1", values)},
    )
    return Telemetry(session=bytes(16), seq=0, sources=(source,))


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
                channels={"power": Channel("mW", (0, 5), 10**9), "other": Channel("K", None)},
                events=(Event(0, EventKind.GAP, None), Event(5, EventKind.STALL, "power")),
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
        ({"whole_3": 0}, Code.NOT_ZSTD),
        ({"whole_3": limits.TELEMETRY_CONTENT_MAX + 1}, Code.TOO_LARGE),
        ({"whole_4": 0}, Code.FIELD_TYPE),
        ({"whole_4": b""}, Code.NOT_ZSTD),
        ({"whole_5": 0}, Code.FIELD_UNKNOWN),
        ({"sources": None}, Code.FIELD_TYPE),
        ({"sources": [0]}, Code.FIELD_TYPE),
        ({"sources": [0] * 257}, Code.TOO_LARGE),
        ({"sources": [{}] * limits.TELEMETRY_ITEMS_MAX}, Code.TOO_LARGE),
        ({"source_0": bytes(31)}, Code.FIELD_RANGE),
        ({"source_1": "x" * 65}, Code.TOO_LARGE),
        ({"source_2": -1}, Code.FIELD_RANGE),
        ({"source_2": 2**62}, Code.FIELD_RANGE),
        ({"source_3": 0}, Code.FIELD_RANGE),
        ({"source_4": b"\0\5"}, Code.FIELD_TYPE),
        ({"source_4": None}, Code.FIELD_TYPE),
        ({"source_4": TypedArray.of([5, 0])}, Code.FIELD_RANGE),
        ({"source_4": TypedArray.of([-1, 2])}, Code.FIELD_RANGE),
        ({"source_4": TypedArray.of([1] * (limits.TELEMETRY_SAMPLES_MAX + 1))}, Code.TOO_LARGE),
        ({"source_4": TypedArray.of([1] * (limits.TELEMETRY_VALUES_MAX + 1))}, Code.TOO_LARGE),
        ({"source_4": TypedArray(73, bytes(4))}, Code.NOT_DETERMINISTIC),
        ({"source_4": WIDE}, Code.FIELD_RANGE),
        ({"source_5": []}, Code.FIELD_TYPE),
        ({"source_7": 0}, Code.FIELD_UNKNOWN),
        ({"source_5": {1: ["mW", NUMBERS, None, None]}}, Code.FIELD_TYPE),
        ({"source_5": {"": ["mW", NUMBERS, None, None]}}, Code.FIELD_TYPE),
        ({"source_5": {"x" * 65: ["mW", NUMBERS, None, None]}}, Code.FIELD_TYPE),
        ({"source_5": {"power": ["mW"]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": [0, NUMBERS, None, None]}}, Code.FIELD_TYPE),
        ({"source_5": {"x": ["y" * 65, NUMBERS, None, None]}}, Code.FIELD_TYPE),
        ({"source_5": {"power": ["W", NUMBERS, None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": ["mW", 0, None, None]}}, Code.FIELD_TYPE),
        ({"source_5": {"power": ["mW", TypedArray.of([1]), None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": ["mW", TypedArray(75, bytes(16)), None, None]}}, Code.NOT_DETERMINISTIC),
        ({"source_5": {"power": ["mW", TypedArray.of([2**61, 2**61]), None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": ["mW", NUMBERS, None, 0]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": ["mW", NUMBERS, None, True]}}, Code.FIELD_TYPE),
        # names: nothing that a terminal obeys, that ends a line, or that looks like another
        ({"source_1": ""}, Code.FIELD_RANGE),
        ({"source_1": HOSTILE}, Code.FIELD_RANGE),
        ({"source_1": "nvml "}, Code.FIELD_RANGE),
        ({"source_5": {HOSTILE: ["1", NUMBERS, None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {" power": ["1", NUMBERS, None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {"p\N{CYRILLIC SMALL LETTER O}wer": ["1", NUMBERS, None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {"x\x7f": ["1", NUMBERS, None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {"x": ["", NUMBERS, None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {"x": [HOSTILE, NUMBERS, None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {"x": ["m\N{RIGHT-TO-LEFT OVERRIDE}W", NUMBERS, None, None]}}, Code.FIELD_RANGE),
        ({"source_5": {"x": ["m\N{SOFT HYPHEN}W", NUMBERS, None, None]}}, Code.FIELD_RANGE),
        ({"source_6": [[0, "gap", HOSTILE]]}, Code.FIELD_RANGE),
        # missing readings: none said twice, none with a value, none outside
        ({"source_5": {"power": ["mW", None, TypedArray.of([0]), None]}}, Code.FIELD_TYPE),
        ({"source_5": {"power": ["mW", NUMBERS, TypedArray.of([]), None]}}, Code.NOT_DETERMINISTIC),
        ({"source_5": {"power": ["mW", NUMBERS, TypedArray.of([1]), None]}}, Code.NOT_DETERMINISTIC),
        ({"source_5": {"power": ["mW", NUMBERS, TypedArray.of([2]), None]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": ["mW", NUMBERS, TypedArray.of([-1]), None]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": ["mW", NUMBERS, TypedArray.of([0, 0]), None]}}, Code.FIELD_RANGE),
        ({"source_5": {"power": ["mW", NUMBERS, [0], None]}}, Code.FIELD_TYPE),
        ({"source_5": {str(number): ["K", None, None, None] for number in range(65)}}, Code.TOO_LARGE),
        # events: known, in order, each once
        ({"source_6": None}, Code.FIELD_TYPE),
        ({"source_6": [[0, "gap"]]}, Code.FIELD_RANGE),
        ({"source_6": [[0, "hiccup", None]]}, Code.FIELD_RANGE),
        ({"source_6": [[-1, "gap", None]]}, Code.FIELD_RANGE),
        ({"source_6": [[0, "gap", ""]]}, Code.FIELD_RANGE),
        ({"source_6": [[0, "gap", 0]]}, Code.FIELD_TYPE),
        ({"source_6": [[0, "gap", None], [0, "gap", None]]}, Code.FIELD_RANGE),
        ({"source_6": [[0, "stall", None], [0, "gap", None]]}, Code.FIELD_RANGE),
        ({"source_6": [[number, "gap", None] for number in range(4097)]}, Code.TOO_LARGE),
    ],
)
def test_each_field_is_checked(changes: dict[str, object], code: Code) -> None:
    assert refusal(value(**changes)) == code


def test_what_is_refused_is_not_said_as_it_is() -> None:
    for changes in ({"source_1": HOSTILE}, {"source_5": {HOSTILE: ["1", NUMBERS, None, None]}}):
        with pytest.raises(MalformedEvidence) as caught:
            Telemetry.parse(cbor.encode(value(**changes)))
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("unit", ["mW", "m°C", "‰", "µA²", "1/min", "Ω", "kWh per day", "℃"])
def test_units_as_people_write_them(unit: str) -> None:
    made = Telemetry.parse(cbor.encode(value(source_5={"x of hwmon0:1": [unit, NUMBERS, None, None]})))
    assert made.sources[0].channels == {"x of hwmon0:1": Channel(unit, (0, 5))}


@pytest.mark.parametrize(
    "source",
    [
        Source(device=None, name=HOSTILE, start_wall_ns=0, period_ns=1, offsets=(), channels={}),
        Source(device=None, name="", start_wall_ns=0, period_ns=1, offsets=(), channels={}),
        Source(device=None, name="x", start_wall_ns=0, period_ns=1, offsets=(), channels={HOSTILE: Channel("1", ())}),
        Source(device=None, name="x", start_wall_ns=0, period_ns=1, offsets=(), channels={"x": Channel(HOSTILE, ())}),
        Source(
            device=None,
            name="x",
            start_wall_ns=0,
            period_ns=1,
            offsets=(),
            channels={},
            events=(Event(0, EventKind.GAP, HOSTILE),),
        ),
    ],
)
def test_what_no_verifier_would_read_is_not_sent(source: Source) -> None:
    with pytest.raises(ValueError, match=r"not (a|the name)"):
        Telemetry(session=bytes(16), seq=0, sources=(source,)).encode()


def test_one_path_per_device() -> None:
    source = Source(device=None, name="x", start_wall_ns=0, period_ns=1, offsets=(), channels={})
    twice = Telemetry(session=bytes(16), seq=0, sources=(source, source)).encode()
    with pytest.raises(MalformedEvidence) as caught:
        Telemetry.parse(twice)
    assert caught.value.code == Code.DUPLICATE_KEY


def test_no_samples_and_no_sources_are_well_formed() -> None:
    empty = Source(
        device=None, name="host", start_wall_ns=0, period_ns=1, offsets=(), channels={"power": Channel("mW", ())}
    )
    for sources in ((), (empty,)):
        telemetry = Telemetry(session=bytes(16), seq=0, sources=sources)
        assert Telemetry.parse(telemetry.encode()) == telemetry


def test_events_are_sent_in_their_order_each_once() -> None:
    late, early = Event(9, EventKind.WRAP, "energy"), Event(1, EventKind.FAULT, None)
    source = Source(
        device=None,
        name="x",
        start_wall_ns=0,
        period_ns=1,
        offsets=(),
        channels={},
        events=(late, early, late),
    )
    sent = Telemetry(session=bytes(16), seq=0, sources=(source,)).encode()
    assert Telemetry.parse(sent).sources[0].events == (early, late)


def test_what_nothing_can_hold_is_misuse() -> None:
    for number in (VALUE_MAX + 1, -VALUE_MAX - 1, 2**64):
        with pytest.raises(ValueError, match="beyond"):
            telemetry_of(number).encode()


def test_the_extremes_are_held() -> None:
    telemetry = telemetry_of(VALUE_MAX, -VALUE_MAX, None, VALUE_MAX)
    assert Telemetry.parse(telemetry.encode()) == telemetry


@given(offsets=st.lists(st.integers(0, VALUE_MAX), unique=True, max_size=20).map(sorted), data=st.data())
def test_what_is_encoded_is_parsed(offsets: list[int], data: st.DataObject) -> None:
    integers = st.none() | st.integers(-VALUE_MAX, VALUE_MAX) | st.integers(-200, 200)
    values = st.none() | st.lists(integers, min_size=len(offsets), max_size=len(offsets)).map(tuple)
    windows = st.none() | st.integers(1, VALUE_MAX)
    names = st.from_regex(r"x([ -~]{0,9}[!-~])?", fullmatch=True)
    made = st.builds(Channel, st.sampled_from(["K", "mW"]), values, windows)
    events = st.builds(Event, st.integers(0, VALUE_MAX), st.sampled_from(EventKind), st.none() | names)
    source = Source(
        device=bytes(32),
        name="x",
        start_wall_ns=3,
        period_ns=4,
        offsets=tuple(offsets),
        channels=data.draw(st.dictionaries(names, made, max_size=4)),
        events=tuple(sorted(data.draw(st.frozensets(events, max_size=4)), key=lambda event: event.order)),
    )
    telemetry = Telemetry(session=bytes(16), seq=1, sources=(source,))
    assert Telemetry.parse(telemetry.encode()) == telemetry


# -- hostile bytes -----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_malformed(data: bytes) -> None:
    _total(data)


@given(st.dictionaries(st.integers(0, 160), st.integers(0, 255), max_size=3))
def test_any_change_is_parsed_or_malformed(changes: dict[int, int]) -> None:
    _total(_changed(cbor.encode(value()), changes))


@given(st.dictionaries(st.integers(0, 130), st.integers(0, 255), max_size=3))
def test_any_change_of_the_content_is_parsed_or_malformed(changes: dict[int, int]) -> None:
    content = zstd.decompress(value()[4], size=value()[3], what="test")
    _total(cbor.encode(of_content(_changed(content, changes))))


def _changed(data: bytes, changes: dict[int, int]) -> bytes:
    changed = bytearray(data)
    for offset, change in changes.items():
        changed[offset % len(changed)] = change
    return bytes(changed)


def _total(data: bytes) -> None:
    try:
        parsed = Telemetry.parse(data)
    except MalformedEvidence:
        return
    # Many frames have one content, and the content one encoding.
    content = cbor.decode(data, limit=limits.TELEMETRY_MAX, what="test")
    again = cbor.decode(parsed.encode(), limit=limits.TELEMETRY_MAX, what="test")
    assert isinstance(content, dict)
    assert isinstance(again, dict)
    assert {key: content[key] for key in range(4)} == {key: again[key] for key in range(4)}
    assert _unpacked(content) == _unpacked(again)


def _unpacked(message: Mapping[Any, cbor.CborValue]) -> bytes:
    frame, size = message[4], message[3]
    assert isinstance(frame, bytes)
    assert isinstance(size, int)
    return zstd.decompress(frame, size=size, what="test")


def test_bombs_do_not_go_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that is not allowed is refused before anything is unpacked."""
    content = bytes(64 * 1024 * 1024)
    bomb = of_content(content)
    assert len(cbor.encode(bomb)) < 8192
    # Not one decompressor may be made for these.
    monkeypatch.delattr(zstandard, "ZstdDecompressor")
    assert refusal(bomb) == Code.TOO_LARGE
    assert refusal({**bomb, 3: 100}) == Code.NOT_ZSTD


def test_many_small_items_are_refused_before_they_are_built() -> None:
    number = limits.TELEMETRY_CONTENT_MAX - 5
    bomb = of_content(b"\x9a" + number.to_bytes(4) + b"\xa0" * number)
    assert refusal(bomb) == Code.TOO_LARGE


def test_one_frame_alone() -> None:
    good = value()
    empty = zstandard.ZstdCompressor(write_content_size=True).compress(b"")
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + bytes(4)
    for frame in (
        good[4] + b"\0",
        good[4] + empty,
        good[4] + good[4],
        skipped + good[4],
        good[4][:-1],
        zstandard.ZstdCompressor(write_content_size=False).compress(_unpacked(good)),
    ):
        assert refusal({**good, 4: frame}) == Code.NOT_ZSTD


# -- size --------------------------------------------------------------------------------------------------------------


def test_ten_seconds_of_eight_gpus_take_less_than_20_kilobytes() -> None:
    """12 channels at 10 Hz: as noisy as a GPU under load that measured 653 to 730 W, with byte counters at GB/s."""
    sources = tuple(_noisy(random.Random(number), bytes([number]) * 32) for number in range(8))
    telemetry = Telemetry(session=bytes(16), seq=1, sources=sources)
    sent = telemetry.encode()
    assert Telemetry.parse(sent) == telemetry
    assert len(sent) < 20_000


def _noisy(noise: random.Random, device: bytes) -> Source:
    count = 100
    watts = [round(noise.gauss(690_000, 20_000)) for _ in range(count)]

    def counter(low: int, high: int) -> list[int]:
        return list(accumulate(noise.randrange(low, high, 4) for _ in range(count)))

    channels = {
        "power_instant": watts,
        "power": [sum(watts[max(0, n - 9) : n + 1]) // min(10, n + 1) for n in range(count)],
        "energy": list(accumulate((w // 10 for w in watts), initial=2 * 10**11))[1:],
        "temperature": [61_000 + 1000 * (noise.random() < 0.1) for _ in range(count)],
        "memory_temperature": [51_000] * count,
        "sm_clock": [1410 + 15 * noise.randrange(6) for _ in range(count)],
        "memory_clock": [2619] * count,
        "utilisation": [noise.choice((980, 990, 1000)) for _ in range(count)],
        "memory_utilisation": [10 * noise.randrange(30, 40) for _ in range(count)],
        "clock_reasons": [noise.choice((0, 4)) for _ in range(count)],
        "pcie_tx": counter(0, 2**24),
        "pcie_rx": counter(0, 2**22),
    }
    return Source(
        device=device,
        name="nvml",
        start_wall_ns=1_700_000_000_000_000_000,
        period_ns=100_000_000,
        offsets=tuple(n * 100_000_000 + noise.randrange(300_000) for n in range(count)),
        channels={name: Channel(UNITS[name], tuple(values), WINDOWS_NS.get(name)) for name, values in channels.items()},
    )


@given(st.lists(st.integers(-VALUE_MAX, VALUE_MAX) | st.integers(-300, 300), min_size=1, max_size=9))
def test_values_as_they_came_are_the_tuple_of_them(values: list[int]) -> None:
    read = Packed(TypedArray.of([value - before for before, value in pairwise((0, *values))]))
    again = Packed(read.differences)
    assert (len(read), read[-1], read[1:]) == (len(values), values[-1], tuple(values[1:]))
    assert read == tuple(values) == tuple(read)
    assert read == again
    assert hash(read) == hash(tuple(values))
    assert repr(read) == repr(tuple(values))
    assert read != values
