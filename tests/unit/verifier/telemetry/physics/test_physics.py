"""The checks of physics, one by one: what each names, where its band ends, and that no samples raise anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.honest_gpu import DEVICE, LIMIT_MW, START_NS, Trace, record
from weighbridge.proto.telemetry import UNITS, WINDOWS_NS, Channel, Event, EventKind, Source
from weighbridge.verifier.telemetry.physics import (
    CHECKS,
    Carried,
    Finding,
    Limits,
    check_unit,
    check_window,
    unreported,
)
from weighbridge.verifier.telemetry.physics.heat import Heat
from weighbridge.verifier.telemetry.physics.readings import readings_of
from weighbridge.verifier.telemetry.samples.series import Series, join
from weighbridge.verifier.telemetry.samples.units import Unit
from weighbridge.verifier.telemetry.samples.work import DeclaredWork

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIMITS = Limits(power_limit_mw=LIMIT_MW)


@pytest.fixture(scope="module")
def decode() -> Trace:
    return record("decode", 1)


@pytest.fixture(scope="module")
def idle() -> Trace:
    return record("idle", 1)


def of(trace: Trace, limits: Limits = LIMITS, **options: tuple[str, ...]) -> dict[str, Finding]:
    """The findings of the first ten seconds, by check."""
    return {item.check: item for item in check_unit(trace.part(0, 100).unit(**options), limits)}


def windows(trace: Trace, limits: Limits = LIMITS, *, size: int = 100) -> list[Finding]:
    carried, found = Carried(), list[Finding]()
    for first in range(0, len(trace), size):
        now, carried = check_window(trace.part(first, first + size).unit().series, carried, limits)
        found += now
    return found


def made(offsets: Sequence[int], channels: Mapping[str, Sequence[int | None]], period_ns: int = 10**8) -> Series:
    source = Source(
        device=DEVICE,
        name="x",
        start_wall_ns=START_NS,
        period_ns=period_ns,
        offsets=tuple(offsets),
        channels={name: Channel(UNITS[name], tuple(values), WINDOWS_NS.get(name)) for name, values in channels.items()},
    )
    series, _ = join([source])
    assert series is not None
    return series


def unit(series: Series) -> Unit:
    return Unit(series=series, work=DeclaredWork(duration_ns=1), first_seq=0, last_seq=0)


def test_the_table_names_each_check_once() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.says and check.source for check in CHECKS)


def test_a_finding_names_band_reading_and_time(decode: Trace) -> None:
    power = decode["power"].copy()
    power[42] = 900_000
    found = of(decode.having(power=power))["power_cap"]
    assert (found.channel, found.verdict) == ("power", "implausible")
    assert found.expected == "at most 805 W, of a limit of 700 W"
    assert found.got == "900 W"
    jitter = decode.jitter_ns
    assert jitter is not None
    assert abs(found.at_ns - (START_NS + 42 * 10**8 + int(jitter[42]))) < 1000


# Values of no physical sense.
@pytest.mark.parametrize(
    ("channel", "value"),
    [
        ("power", -5),
        ("power", 2**60),
        ("power_instant", -(2**60)),
        ("energy", -1),
        ("energy", 2**62),
        ("temperature", 500_000),
        ("temperature", -50_000),
        ("sm_clock", -1),
        ("utilisation", 1001),
    ],
)
def test_values_of_no_physical_sense_are_unusable(decode: Trace, channel: str, value: int) -> None:
    values = decode[channel].copy()
    values[7] = value
    found = of(decode.having(**{channel: values}))
    assert list(found) == ["physical_range"]
    finding = found["physical_range"]
    assert (finding.channel, finding.verdict, finding.got) == (channel, "unusable", str(value))


def test_a_unit_without_power_is_unusable(decode: Trace) -> None:
    found = of(decode.without("power"))
    assert list(found) == ["power_constant"]
    assert found["power_constant"].verdict == "unusable"
    assert of(decode.without("power", "power_instant", "temperature"))["power_constant"].got == "none, or one"


def test_stretches_of_hours_are_not_looked_at() -> None:
    long = made([0, 10**14], {"power": [400_000, 401_000], "energy": [0, 10**9]}, period_ns=10**12)
    assert [(item.check, item.verdict) for item in check_unit(unit(long), LIMITS)] == [("physical_range", "unusable")]
    assert check_window(long, Carried(), LIMITS)[0] == ()


# Energy.
def test_a_dead_counter_is_unusable(decode: Trace) -> None:
    found = of(decode.having(energy=np.full(len(decode), 10**9)))
    assert found["energy_integral"].verdict == "unusable"


def test_a_counter_that_is_read_now_and_then_is_compared(decode: Trace) -> None:
    assert of(decode, sparse=("energy",)) == {}
    lying = decode.having(power=0.9 * decode["power"].astype(np.float64))
    assert of(lying, sparse=("energy",))["energy_integral"].verdict == "implausible"


def test_energy_is_not_compared_over_a_stall(decode: Trace) -> None:
    lying = decode.having(power=0.8 * decode["power"].astype(np.float64), power_instant=decode["power"]).part(0, 100)
    series = lying.unit().series
    assert "energy_integral" in {item.check for item in check_unit(unit(series), LIMITS)}
    keep = [at for at in range(100) if not 50 <= at < 53]
    holed = replace(
        series, times=series.times[keep], channels={name: values[keep] for name, values in series.channels.items()}
    )
    assert "energy_integral" not in {item.check for item in check_unit(unit(holed), LIMITS)}


@pytest.mark.parametrize(
    ("moved", "taken"),
    [
        ([7_000_000, None, -5_000_000], [7_000, 195_000]),
        ([10**8, None, 0], [100_000, 200_000]),
        ([10**8 + 1000, None, 0], [0, 200_000]),  # further away than a period
        ([10**8, None, -(10**8)], [0, 200_000]),  # no longer in order
        ([0, 0, 0], [0, 200_000]),  # not where the counter was read
        ([None, None, None], [0, 200_000]),
    ],
)
def test_the_counter_stands_where_it_was_read(moved: list[int | None], taken: list[int]) -> None:
    channels: dict[str, list[int | None]] = {"power": [400_000] * 3, "energy": [5, None, 9], "energy_at": moved}
    readings, findings = readings_of(made([0, 10**8, 2 * 10**8], channels), LIMITS)
    assert findings == ()
    assert readings.tracks["energy"].times.tolist() == taken
    assert readings.tracks["energy"].values.tolist() == [5, 9]


def test_a_counter_that_began_anew_is_not_compared(decode: Trace) -> None:
    reset = decode.having(energy=decode["energy"] - np.where(np.arange(len(decode)) < 150, 0, 10**9))
    assert "energy_monotone" in {item.check for item in check_unit(reset.part(100, 200).unit(), LIMITS)}
    said = replace(reset, events=(Event(0, EventKind.WRAP, "energy"),))
    assert check_unit(said.part(100, 200).unit(), LIMITS) == ()
    assert windows(said) == []


def test_energy_that_no_window_shows_is_found_at_the_border(decode: Trace) -> None:
    hidden = decode.having(energy=decode["energy"] + np.where(np.arange(len(decode)) < 100, 0, 200_000))
    assert "energy_border" in {item.check for item in windows(hidden, Limits())}
    assert "energy_border" not in {item.check for item in windows(hidden.part(0, 100), Limits())}


def test_a_counter_that_falls_between_windows_is_implausible(decode: Trace) -> None:
    fallen = decode.having(energy=decode["energy"] - np.where(np.arange(len(decode)) < 100, 0, 10**6))
    found = [item for item in windows(fallen) if item.check == "energy_border"]
    assert len(found) == 1
    assert found[0].verdict == "implausible"


def test_between_windows_that_are_far_apart_energy_is_bounded_by_the_limit(decode: Trace) -> None:
    series = [decode.part(0, 100).unit().series, decode.part(300, 400).unit().series]
    _, carried = check_window(series[0], Carried(), LIMITS)
    assert check_window(series[1], carried, LIMITS)[0] == ()
    more = decode.having(energy=decode["energy"] + np.where(np.arange(len(decode)) < 200, 0, 12_000_000))
    (found,), _ = check_window(more.part(300, 400).unit().series, carried, LIMITS)
    assert (found.check, found.expected) == ("energy_border", "at most 16200 J in 20.1 s")


def test_sums_find_what_single_units_do_not() -> None:
    trace = record("square", 0, seconds=120)
    lying = trace.having(
        power=0.97 * trace["power"].astype(np.float64), power_instant=0.97 * trace["power_instant"].astype(np.float64)
    )
    assert not any(check_unit(lying.part(first, first + 100).unit(), LIMITS) for first in range(0, 1200, 100))
    assert {item.check for item in windows(lying)} == {"energy_sum"}


def test_a_sensor_that_is_said_to_miss_what_happens_hides_little_for_long() -> None:
    trace = record("square", 0, seconds=300)

    def sums(share: float) -> set[str]:
        carried, found = Carried(), set[str]()
        for first in range(0, len(trace), 100):
            power = share * trace["power"][first : first + 100].astype(np.float64)
            part = trace.part(first, first + 100).having(power=power)
            series = replace(part.unit().series, windows_ns={"power": 25_000_000})
            now, carried = check_window(series, carried, LIMITS)
            found |= {item.check for item in now}
        return found

    assert sums(1.0) == set()
    assert sums(0.85) == {"energy_sum"}


def test_sums_begin_anew_behind_a_gap_and_after_ten_minutes(decode: Trace) -> None:
    _, first = check_window(decode.part(0, 100).unit().series, Carried(), LIMITS)
    _, next_ = check_window(decode.part(100, 200).unit().series, first, LIMITS)
    assert first.anchor is not None
    assert next_.anchor == first.anchor
    _, behind = check_window(decode.part(300, 400).unit().series, next_, LIMITS)
    assert behind.anchor is not None
    assert behind.anchor.at_ns > first.anchor.at_ns
    old = replace(first, anchor=replace(first.anchor, at_ns=first.anchor.at_ns - 600 * 10**9))
    assert check_window(decode.part(100, 200).unit().series, old, LIMITS)[1].anchor != old.anchor


def test_readings_that_are_older_than_the_last_are_not_compared(decode: Trace) -> None:
    _, carried = check_window(decode.part(100, 200).unit().series, Carried(), LIMITS)
    found, _ = check_window(decode.part(0, 100).unit().series, carried, LIMITS)
    assert found == ()


def test_windows_without_power_or_counter_carry_what_there_is(decode: Trace) -> None:
    first, second, third = (decode.part(at, at + 100) for at in (0, 100, 200))
    _, carried = check_window(first.unit().series, Carried(), LIMITS)
    found, without_power = check_window(second.without("power").unit().series, carried, LIMITS)
    assert (found, without_power.power, without_power.energy) == ((), None, carried.energy)
    assert check_window(third.unit().series, without_power, LIMITS)[0] == ()
    found, without_energy = check_window(second.without("energy").unit().series, carried, LIMITS)
    assert (found, without_energy.energy, without_energy.anchor) == ((), carried.energy, None)
    assert check_window(third.unit().series, without_energy, LIMITS)[0] == ()


# Power.
def test_power_may_not_jump_between_windows(decode: Trace) -> None:
    jump = decode.having(power=decode["power"] - np.where(np.arange(len(decode)) < 100, 0, 200_000))
    found = [item for item in windows(jump) if item.check == "power_border"]
    assert [item.got for item in found] == ["200 W"]
    assert "power_border" not in {item.check for item in windows(jump, Limits())}
    far = [jump.part(0, 100).unit().series, jump.part(300, 400).unit().series]
    _, carried = check_window(far[0], Carried(), LIMITS)
    assert "power_border" not in {item.check for item in check_window(far[1], carried, LIMITS)[0]}


def test_sensors_of_short_or_unknown_windows_may_jump(decode: Trace) -> None:
    power = decode["power"] - np.where(np.arange(len(decode)) < 50, 0, 200_000)
    series = decode.having(power=power).without("power_instant", "energy").part(0, 100).unit().series
    assert [item.check for item in check_unit(unit(series), LIMITS)] == ["power_slew"]
    for windows_ns in ({}, {"power": 25_000_000}):
        assert check_unit(unit(replace(series, windows_ns=windows_ns)), LIMITS) == ()


def test_the_limit_that_the_host_reports_stands_in(decode: Trace) -> None:
    over = decode.having(power=decode["power"] + 450_000).without("energy", "power_instant")
    assert of(over, Limits()) == {}
    said = over.having(power_limit=np.full(len(over), 600_000))
    assert set(of(said, Limits())) == {"power_cap"}
    assert "of a limit of 700 W" in of(said)["power_cap"].expected


def test_a_constant_sensor_is_accused_only_by_a_counter_that_moves(decode: Trace) -> None:
    still = decode.having(power=np.full(len(decode), 430_000), power_instant=np.full(len(decode), 430_000))
    quiet = still.without("energy")
    assert of(quiet)["power_constant"].verdict == "unusable"
    swing = np.cumsum(np.where(np.arange(len(decode)) // 30 % 2 == 0, 30_000, 56_000))
    assert of(still.having(energy=swing))["power_constant"].verdict == "implausible"
    assert of(still.having(energy=43_000 * np.arange(len(decode))))["power_constant"].verdict == "unusable"


def test_a_sensor_that_repeats_itself_in_load_is_dead(decode: Trace, idle: Trace) -> None:
    def stuck(trace: Trace) -> Trace:
        power = np.full(len(trace), int(trace["power"][0]))
        power[50:] += 900
        return trace.having(power=power).without("energy", "power_instant")

    assert of(stuck(decode))["power_constant"].verdict == "unusable"
    assert of(stuck(idle)) == {}


def test_a_sensor_that_is_asked_too_often_repeats_itself() -> None:
    values = [430_000 + 500 * (at // 200) for at in range(400)]
    often = made([at * 10**6 for at in range(400)], {"power": values}, period_ns=10**6)
    assert check_unit(unit(often), LIMITS) == ()


def test_a_busy_device_at_idle_power_is_unusable_and_no_lie(decode: Trace) -> None:
    low = decode.having(power=decode["power"] // 10).without("energy", "power_instant")
    found = of(low)
    assert {name: item.verdict for name, item in found.items()} == {"power_utilisation": "unusable"}
    assert found["power_utilisation"].expected == "at least 130 W at 100 % utilisation"
    assert of(low, Limits()) == {}


# Clocks.
@pytest.mark.parametrize(
    ("reasons", "found"), [(0, True), (1, True), (4, True), (8, False), (0x20, False), (0x80, False)]
)
def test_low_clocks_of_a_busy_device_need_a_reason(decode: Trace, reasons: int, *, found: bool) -> None:
    slow = decode.having(sm_clock=np.full(len(decode), 345), clock_reasons=np.full(len(decode), reasons))
    assert ("clock_utilisation" in of(slow)) == found


def test_a_clock_may_be_low_for_a_moment(decode: Trace) -> None:
    def slow(first: int, last: int) -> Trace:
        at = np.arange(len(decode))
        return decode.having(sm_clock=np.where((at >= first) & (at < last), 345, 1980))

    assert of(slow(20, 29)) == {}
    assert "clock_utilisation" in of(slow(20, 33))
    assert "clock_utilisation" in of(slow(85, 100))


def test_a_cap_that_is_given_as_a_reason_now_and_then_says_nothing(decode: Trace) -> None:
    low = decode.having(power=decode["power"] // 2).without("energy", "power_instant")
    capped = low.having(clock_reasons=np.full(len(low), 4))
    assert set(of(capped)) == {"power_cap_reason"}
    assert of(low.having(clock_reasons=np.where(np.arange(len(low)) == 50, 0, 4))) == {}
    late = capped.part(0, 100).unit(absent=("clock_reasons",)).series
    assert check_unit(unit(late), LIMITS) == ()


# Heat.
def test_temperatures_that_are_read_too_rarely_say_nothing() -> None:
    steps = record("steps", 2).having()
    still = steps.having(temperature=np.full(len(steps), 50_000)).without("energy")
    found = {item.check for at in range(0, 600, 100) for item in check_unit(still.part(at, at + 100).unit(), LIMITS)}
    assert found == {"temperature_response"}
    rarely = {
        item.check
        for at in range(0, 600, 100)
        for item in check_unit(still.part(at, at + 100).unit(absent=("temperature",)), LIMITS)
    }
    assert rarely == set()


def test_bounds_on_heat_hold_for_every_slow_node() -> None:
    random = np.random.default_rng(1)
    for tau in (16.0, 22.0, 32.0):
        node, state = float(random.uniform(0, 700_000)), Heat.unknown(LIMIT_MW)
        for _ in range(200):
            power, lasts = int(random.integers(0, 700_001)), float(random.uniform(0.05, 3))
            node += (power - node) * lasts / (tau + lasts)
            state = state.after(power, round(lasts * 1e6))
            assert state.low_mw - 2 <= node <= state.high_mw + 2


def test_heat_is_unknown_behind_a_gap() -> None:
    settled = Heat(300_000, 300_000)
    blind = settled.blind(LIMIT_MW, 10_000_000)
    assert blind.low_mw < 300_000 < blind.high_mw <= LIMIT_MW


def test_a_chip_that_stays_hot_without_power_is_implausible(idle: Trace) -> None:
    hot = idle.having(temperature=np.full(len(idle), 90_000))
    found = windows(hot)
    assert {item.check for item in found} == {"temperature_ambient"}
    # Only once the heat of whatever was before has gone.
    assert "temperature_ambient" not in {item.check for item in windows(hot.part(0, 100))}


def test_a_chip_that_stays_cold_under_load_is_implausible() -> None:
    capped = record("capped", 1)
    assert {item.check for item in windows(capped.having(temperature=np.full(len(capped), 8_000)))} == {
        "temperature_ambient"
    }


# Any samples.
VALUES = st.one_of(st.integers(-(2**62), 2**62), st.integers(0, 10**6), st.none())


@st.composite
def anything(draw: st.DrawFn) -> Series:
    size = draw(st.integers(1, 40))
    steps = draw(
        st.lists(st.sampled_from([1, 500, 10**6, 10**8, 2 * 10**8, 10**10, 10**15]), min_size=size, max_size=size)
    )
    names = draw(st.sets(st.sampled_from(sorted(UNITS)), max_size=8)) | {"power", "energy", "temperature"}
    flat = draw(st.booleans())
    channels: dict[str, list[int | None]] = {}
    for name in sorted(names):
        one = draw(VALUES)
        channels[name] = [one] * size if flat else draw(st.lists(VALUES, min_size=size, max_size=size))
    return made(np.cumsum(steps).tolist(), channels, draw(st.sampled_from([1, 10**8, 10**9, 10**12])))


@settings(deadline=None)
@given(series=anything(), again=anything())
def test_no_samples_raise(series: Series, again: Series) -> None:
    for limits in (LIMITS, Limits()):
        assert all(item.check in {check.name for check in CHECKS} for item in check_unit(unit(series), limits))
        _, carried = check_window(series, Carried(), limits)
        check_window(again, carried, limits)


def test_nothing_is_nothing(decode: Trace) -> None:
    empty = decode.part(0, 10).unit().series.cut(0, 0)
    assert check_window(empty, Carried(), LIMITS) == ((), Carried())
    assert [item.verdict for item in check_unit(unit(empty), LIMITS)] == ["unusable"]


@pytest.mark.parametrize("size", [10, 20, 50, 300])
def test_windows_of_any_length_continue(size: int) -> None:
    for workload in ("poisson", "square", "steps"):
        assert windows(record(workload, 4), size=size) == []


# Between sessions.
@dataclass(frozen=True)
class Counted:
    wall_ns: int
    energy_mj: int


def test_energy_between_sessions_is_told_without_accusing() -> None:
    before = Counted(wall_ns=START_NS, energy_mj=10**12)
    hour = Counted(wall_ns=START_NS + 3600 * 10**9, energy_mj=10**12 + 1_800_000_000)
    found = unreported(before, hour, idle_mw=100_000)
    assert (found.energy_mj, found.idle_mj, found.work_mj) == (1_800_000_000, 360_000_000, 1_440_000_000)
    assert found.words == "0.500 kWh in 1.00 h that no attested window reports, 0.400 kWh beyond idleness"
    assert found.document() == {
        "energy_mj": 1_800_000_000,
        "lasts_ns": 3600 * 10**9,
        "idle_mj": 360_000_000,
        "work_mj": 1_440_000_000,
    }


def test_a_counter_that_began_anew_between_sessions_tells_nothing() -> None:
    before = Counted(wall_ns=START_NS, energy_mj=10**12)
    found = unreported(before, Counted(wall_ns=START_NS - 5, energy_mj=3), idle_mw=100_000)
    assert (found.energy_mj, found.work_mj, found.lasts_ns) == (None, None, 0)
    assert "is not known" in found.words
