"""Joining windows into series: what is wrong with samples is named, and nothing is smoothed or raised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.honest_gpu import DEVICE, START_NS, record
from weighbridge.proto.telemetry import Channel, Event, EventKind, Source, Telemetry
from weighbridge.verifier.telemetry.samples.series import DEFECTS_MAX, SAMPLES_MAX, Defect, Series, join, source_of

PERIOD = 100_000_000


def source(*watts: int | None, start: int = 0, step: int = PERIOD, **fields: Any) -> Source:  # noqa: ANN401 - whichever fields a source has
    values = tuple(None if value is None else value * 1000 for value in watts)
    plain = Source(
        device=DEVICE,
        name="x",
        start_wall_ns=START_NS + start,
        period_ns=PERIOD,
        offsets=tuple(step * at for at in range(len(watts))),
        channels={"power": Channel("mW", values, 10**9)},
    )
    return replace(plain, **fields)


def only(sources: list[Source]) -> tuple[Series | None, Defect]:
    series, defects = join(sources)
    assert len(defects) == 1, defects
    return series, defects[0]


def test_windows_are_joined() -> None:
    series, defects = join([source(100, 101), source(102, start=2 * PERIOD)])
    assert series is not None
    assert defects == ()
    assert series.times.tolist() == [START_NS, START_NS + PERIOD, START_NS + 2 * PERIOD]
    assert series.channels["power"].tolist() == [100_000, 101_000, 102_000]
    assert dict(series.windows_ns) == {"power": 10**9}
    assert len(series) == 3


def test_arrays_are_read_only() -> None:
    series, _ = join([source(100, None)])
    assert series is not None
    for array in (series.times, series.channels["power"], series.absent["power"], series.cut(0, 1).times):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_channels_that_a_device_does_not_report_are_left_out() -> None:
    series, defects = join([source(100, channels={"power": Channel("mW", (100,)), "energy": Channel("mJ", None)})])
    assert series is not None
    assert list(series.channels) == ["power"]
    assert series.readings("energy") is None
    assert defects == ()


def test_missing_readings_are_left_out_and_named_for_power_alone() -> None:
    channels = {"power": Channel("mW", (100, None, 102)), "energy": Channel("mJ", (None, 5, None))}
    series, defect = only([source(0, 0, 0, channels=channels)])
    assert series is not None
    assert (defect.kind, defect.channel, defect.breaks) == ("missing", "power", True)
    assert defect.at_ns == START_NS + PERIOD
    power, energy = series.readings("power"), series.readings("energy")
    assert power is not None
    assert energy is not None
    assert power[1].tolist() == [100, 102]
    assert energy[0].tolist() == [START_NS + PERIOD]
    assert energy[1].tolist() == [5]
    assert series.cut(1, 2).absent.keys() == {"power"}


def test_a_channel_of_one_window_only_is_missing_in_the_other() -> None:
    later = source(103, start=2 * PERIOD)
    with_energy = replace(later, channels={**later.channels, "energy": Channel("mJ", (7,))})
    series, defects = join([source(100, 101), with_energy])
    assert series is not None
    assert defects == ()
    assert series.absent["energy"].tolist() == [True, True, False]


def test_gaps_longer_than_one_and_a_half_periods_are_named() -> None:
    short = source(100, 101, offsets=(0, PERIOD * 3 // 2))
    assert join([short])[1] == ()
    series, defect = only([replace(short, offsets=(0, PERIOD * 3 // 2 + 1))])
    assert series is not None
    assert (defect.kind, defect.channel, defect.breaks) == ("gap", None, True)
    assert only([source(100), source(101, start=2 * PERIOD)])[1].kind == "gap"


@pytest.mark.parametrize("start", [0, PERIOD, -10 * PERIOD])
def test_times_that_do_not_ascend_over_windows_make_no_series(start: int) -> None:
    series, defect = only([source(100, 101), source(102, 103, start=start)])
    assert series is None
    assert (defect.kind, defect.breaks) == ("unsorted", True)


def test_times_that_do_not_ascend_within_a_window_make_no_series() -> None:
    assert only([source(100, 101, 102, offsets=(0, 2 * PERIOD, PERIOD))])[0] is None
    assert only([source(100, 101, offsets=(5, 5))])[1].kind == "unsorted"


def test_no_sample_makes_no_series() -> None:
    assert only([])[1].kind == "missing"
    assert only([source(), source()])[1].kind == "missing"


@pytest.mark.parametrize("other", [{"device": bytes(32)}, {"name": "y"}, {"period_ns": 1}])
def test_sources_of_several_sensors_make_no_series(other: dict[str, Any]) -> None:
    series, defect = only([source(100), source(101, start=PERIOD, **other)])
    assert (series, defect.kind) == (None, "source")


def test_ten_million_samples_are_not_looked_at() -> None:
    many = range(10_000_000)
    series, defect = only([source(offsets=many, channels={})])
    assert series is None
    assert defect.kind == "size"
    assert str(SAMPLES_MAX) in defect.detail


@pytest.mark.parametrize("start", [-START_NS - 1, 2**62, 2**80])
def test_clocks_beyond_sense_make_no_series(start: int) -> None:
    assert only([source(100, start=start)])[1].kind == "clock_step"


@pytest.mark.parametrize("period", [0, -1, 2**60])
def test_periods_beyond_sense_make_no_series(period: int) -> None:
    assert only([source(100, period_ns=period)])[1].kind == "range"


def test_units_are_compared() -> None:
    series, defect = only([source(100, channels={"power": Channel("W", (100,))})])
    assert series is not None
    assert "power" not in series.channels
    assert (defect.kind, defect.channel, defect.breaks) == ("unit", "power", True)
    first = source(1, channels={"made_up": Channel("m", (1,))})
    then = source(1, start=PERIOD, channels={"made_up": Channel("s", (1,))})
    assert only([first, then])[1].kind == "unit"
    assert not only([first, then])[1].breaks


@pytest.mark.parametrize("values", [(10**30,), (float("nan"),), (float("inf"),), (1, 2)])
def test_values_that_are_no_integers_of_64_bits_are_left_out(values: tuple[int, ...]) -> None:
    series, defect = only([source(100, channels={"power": Channel("mW", values)})])
    assert series is not None
    assert series.readings("power") is None
    assert (defect.kind, defect.channel) == ("range", "power")


@pytest.mark.parametrize("value", [-1, 0, 2**31 - 1, 2**32 - 1, 2**63 - 1])
def test_sentinels_of_power_are_named(value: int) -> None:
    channels = {"power": Channel("mW", (417_000, value)), "energy": Channel("mJ", (0, value))}
    series, defect = only([source(0, 0, channels=channels)])
    assert series is not None
    assert (defect.kind, defect.channel, defect.at_ns) == ("sentinel", "power", START_NS + PERIOD)


@pytest.mark.parametrize("kind", list(EventKind))
def test_events_of_the_host_are_defects(kind: EventKind) -> None:
    whole = only([source(100, events=(Event(5, kind, None),))])[1]
    assert (whole.kind, whole.channel, whole.at_ns, whole.breaks) == (kind.value, None, START_NS + 5, True)
    assert only([source(100, events=(Event(5, kind, "power"),))])[1].breaks
    assert not only([source(100, events=(Event(5, kind, "temperature"),))])[1].breaks


def test_a_counter_that_began_anew_breaks_a_unit() -> None:
    series, defect = only([source(100, events=(Event(0, EventKind.WRAP, "energy"),))])
    assert series is not None
    assert series.wrapped == {"energy"}
    assert defect.breaks
    assert not only([source(100, events=(Event(0, EventKind.FAULT, "energy"),))])[1].breaks


def test_defects_are_bounded_and_those_that_break_come_first() -> None:
    events = tuple(Event(at, EventKind.FAULT, "temperature") for at in range(2 * DEFECTS_MAX))
    _, defects = join([source(100, 101, offsets=(0, 10 * PERIOD), events=events)])
    assert len(defects) == DEFECTS_MAX
    assert [defect.kind for defect in defects[:2]] == ["gap", "fault"]


def test_the_source_with_power_speaks_for_a_device() -> None:
    nameless = source(100, device=None)
    none = source(100, name="a", channels={"power": Channel("mW", None)})
    some = source(100, name="b")
    telemetry = Telemetry(session=bytes(16), seq=0, sources=(nameless, some, none))
    assert source_of(telemetry, DEVICE) is some
    assert source_of(replace(telemetry, sources=(none,)), DEVICE) is none
    assert source_of(telemetry, bytes(32)) is None
    # That of the baseline, whatever stands before it, and if it reports no power.
    assert source_of(telemetry, DEVICE, none.name) is none
    assert source_of(telemetry, DEVICE, "else") is some
    assert source_of(telemetry, bytes(32), some.name) is None


def test_honest_samples_have_no_defect() -> None:
    trace = record("poisson", 1)
    series, defects = join([trace.part(first, first + 50).source() for first in range(0, 600, 50)])
    assert series is not None
    assert defects == ()
    assert np.array_equal(series.channels["power"], trace["power"])
