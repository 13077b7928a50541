"""What a terminal shows of a window's power: per device, within its columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.telemetry.power_seen import PowerSeen, power_lines, power_seen
from weighbridge.attester.telemetry.sparkline import ASCII, BLOCKS
from weighbridge.proto.telemetry import Channel, Source


def source(device: int | None, **channels: tuple[int | None, ...] | None) -> Source:
    counts = {len(values) for values in channels.values() if values is not None}
    return Source(
        device=None if device is None else bytes([device]) * 32,
        name="x",
        start_wall_ns=0,
        period_ns=1,
        offsets=tuple(range(max(counts, default=0))),
        channels={name: Channel("mW", values) for name, values in channels.items()},
    )


def test_the_mean_of_what_was_read() -> None:
    seen = power_seen(
        [source(1, power=(400_000, None, 410_000)), source(2, power_instant=(1_500,)), source(3, fan=(1,))]
    )
    assert seen == (
        PowerSeen(bytes([1]) * 32, 405.0, (400.0, None, 410.0)),
        PowerSeen(bytes([2]) * 32, 1.5, (1.5,)),
    )


def test_nothing_to_show() -> None:
    assert power_seen([source(1, power=None)]) == ()
    assert power_lines((), columns=100, levels=BLOCKS) == []
    (empty,) = power_seen([source(1, power=())])
    assert power_lines([empty], columns=100, levels=BLOCKS) == ["power    none"]
    (missing,) = power_seen([source(1, power=(None, None))])
    assert power_lines([missing], columns=100, levels=BLOCKS) == ["power      none"]


def test_the_first_source_of_a_device() -> None:
    (seen,) = power_seen([source(1, power=(1_000,)), source(1, power=(2_000,))])
    assert seen.watts == 1.0


def test_one_device() -> None:
    values = tuple(100_000 + 6_000 * (number % 100) for number in range(100))
    assert power_lines(power_seen([source(1, power=values)]), columns=96, levels=BLOCKS) == [
        "power ▁▁▁▂▂▂▂▂▂▃▃▃▃▃▄▄▄▄▄▄▅▅▅▅▅▅▆▆▆▆▆▇▇▇▇▇▇███  397 W"
    ]


def test_eight_devices_at_a_hundred_columns() -> None:
    values = tuple(100_000 + 6_000 * number for number in range(100))
    lines = power_lines(power_seen([source(number, power=values) for number in range(8)]), columns=96, levels=ASCII)
    assert lines[1].startswith("0404 _")
    assert [line.count(" W") for line in lines] == [4, 4]
    assert max(len(line) for line in lines) <= 96


@given(
    st.lists(st.lists(st.none() | st.integers(-(2**62), 2**62), max_size=100), max_size=20),
    st.integers(30, 200),
)
def test_any_readings_in_any_width(readings: list[list[int | None]], columns: int) -> None:
    sources = [source(number, power=tuple(values)) for number, values in enumerate(readings)]
    lines = power_lines(power_seen(sources), columns=columns, levels=BLOCKS)
    assert len(lines) <= len(readings)
    if all(abs(value or 0) < 10**8 for values in readings for value in values):
        assert all(len(line) <= columns for line in lines)


@pytest.mark.parametrize("columns", [1, 10])
def test_no_room(columns: int) -> None:
    (line,) = power_lines(power_seen([source(1, power=(1_000, 2_000))]), columns=columns, levels=ASCII)
    assert line.endswith("2 W")
