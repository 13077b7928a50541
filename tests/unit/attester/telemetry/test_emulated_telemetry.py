"""The emulated sensors: the same counts give the same bytes, and physics holds across windows."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weighbridge.attester.telemetry import TelemetrySource
from weighbridge.attester.telemetry.bounds import within
from weighbridge.attester.telemetry.emulated import EmulatedTelemetry, H100Model, made_up, open_emulated
from weighbridge.attester.telemetry.emulated_device import _Bursts
from weighbridge.attester.telemetry.interface import HostFacts
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import UNITS, Channel, EventKind, Source, Telemetry
from weighbridge.proto.workload import WorkSummary

IDS = [bytes([number]) * 32 for number in range(8)]
SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
# Long enough for the second of the power sensor and most of the heat.
LOADS = {
    "idle": (0, 0),
    "embedding": (100_000, 0),
    "one stream": (0, 2_350),
    "eight streams": (0, 18_600),
    "saturated": (0, 10**7),
    "prefill": (10**7, 0),
    "mixed": (30_000, 10_000),
}


def work(tokens_in: int, tokens_out: int, *, decode_ns: int = 0) -> WorkSummary:
    return WorkSummary(
        root=bytes(32), requests=1, tokens_in=tokens_in, tokens_out=tokens_out, batch_max=1, decode_ns=decode_ns
    )


def played(source: TelemetrySource, works: list[WorkSummary], *, duration: int = 10 * SECOND) -> list[list[Source]]:
    windows = [
        source.window(start_wall_ns=number * duration, duration_ns=duration, work=item)
        for number, item in enumerate(works)
    ]
    source.close()
    return windows


def run(
    loads: list[tuple[int, int]], *, seed: int = 1, devices: int = 1, duration: int = 10 * SECOND, of: int = 0
) -> list[list[Source]]:
    source = EmulatedTelemetry(seed, IDS[:devices], run=of)
    return played(source, [work(*load) for load in loads], duration=duration)


def values(windows: list[list[Source]], name: str, device: int = 0) -> list[int]:
    result: list[int] = []
    for sources in windows:
        read = sources[device].channels[name].values or ()
        result += [value for value in read if value is not None]
    return result


def encoded(windows: list[list[Source]]) -> list[bytes]:
    return [Telemetry(session=bytes(16), seq=0, sources=tuple(sources)).encode() for sources in windows]


def test_same_counts_same_bytes() -> None:
    loads = [(0, 0), (1000, 500), (7, 0), (0, 20_000)]
    assert encoded(run(loads, devices=2)) == encoded(run(loads, devices=2))


def test_seed_device_and_counts_each_change_something() -> None:
    base = run([(1000, 500)])
    assert encoded(base) != encoded(run([(1000, 500)], seed=2))
    assert values(base, "power") != values(run([(100_000, 500)]), "power")
    both = run([(1000, 500)], devices=2)
    assert values(both, "power", 0) != values(both, "power", 1)


def test_a_device_reads_the_same_whoever_stands_beside_it() -> None:
    """Gains and noise come from seed and identity; only the share of the work changes."""
    assert values(run([(0, 0)]), "power") == values(run([(0, 0)], devices=8), "power", 0)


def test_start_time_is_the_callers_and_changes_nothing_else() -> None:
    (one,), (two,) = (
        EmulatedTelemetry(1, IDS[:1]).window(start_wall_ns=start, duration_ns=SECOND, work=work(5, 5))
        for start in (1, 2)
    )
    assert (one.start_wall_ns, two.start_wall_ns) == (1, 2)
    assert (one.offsets, one.channels) == (two.offsets, two.channels)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_energy_counter_is_the_integral_of_power(load: tuple[int, int]) -> None:
    """The check of A59 must hold for an honest source: within 0.5 % over 30 s and more."""
    windows = run([load] * 4)
    power, energy = values(windows, "power"), values(windows, "energy")
    integral = sum(power[10:]) * 0.1
    assert integral == pytest.approx(energy[-1] - energy[9], rel=0.005)


def test_energy_is_the_integral_over_changing_loads() -> None:
    windows = run([LOADS[name] for name in ("idle", "mixed", "saturated", "idle", "one stream", "prefill", "idle")])
    power, energy = values(windows, "power"), values(windows, "energy")
    assert sum(power[10:]) * 0.1 == pytest.approx(energy[-1] - energy[9], rel=0.005)


def test_energy_never_goes_back_and_time_goes_on_across_windows() -> None:
    windows = run([(0, 0), (10**7, 0), (0, 0)], duration=1_050_000_000)
    energy = values(windows, "energy")
    assert all(later > earlier for earlier, later in pairwise(energy))
    # A grid of 100 ms that the windows' length does not disturb: 11, 10 and 11 samples.
    times = [source.start_wall_ns + offset for (source,) in windows for offset in source.offsets]
    assert times == [number * 100_000_000 for number in range(32)]


@pytest.mark.parametrize(
    ("name", "watts"),
    [("idle", 117), ("one stream", 420), ("eight streams", 438), ("saturated", 692), ("prefill", 655)],
)
def test_power_is_that_of_measured_h100s(name: str, watts: int) -> None:
    """Over units, whose idle power spreads by 3 % and dynamic power by 2.5 %."""
    units = [statistics.mean(values(run([LOADS[name]] * 2, seed=seed), "power")[20:]) / 1000 for seed in range(10)]
    assert statistics.mean(units) == pytest.approx(watts, rel=0.04)
    assert 0.001 < statistics.stdev(units) / watts < 0.06


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_run_begins_warm(load: tuple[int, int]) -> None:
    """As if its first load had lasted for long: the first ten seconds are as the ones that follow.

    These differ by two watts among themselves, where prefill and decoding mix: a busy step more or less.
    """
    first, *later = (statistics.mean(values([window], "power")) for window in run([load] * 5))
    assert abs(first - statistics.mean(later)) < 1_500


def test_a_load_that_begins_later_begins_cold() -> None:
    idle, busy, settled = (values([window], "power") for window in run([(0, 0), *[LOADS["eight streams"]] * 2]))
    assert busy[0] < (statistics.mean(idle) + statistics.mean(settled)) / 2
    assert statistics.mean(busy) < statistics.mean(settled) - 5_000


def stretches(powers: list[int]) -> list[int]:
    """How many readings lie between each two that rise above what an idle device draws."""
    high = [place for place, (before, after) in enumerate(pairwise(powers)) if before < 119_000 < after]
    return [later - earlier for earlier, later in pairwise(high)]


def test_little_work_comes_in_no_rhythm_and_in_another_order_in_every_run() -> None:
    """A busy step of 10 ms every seven seconds is what 64 tokens a second on two devices come to."""
    loads = [(640, 0)] * 20
    one, other = (values(run(loads, devices=2, of=number), "power_instant") for number in (1, 2))
    assert len(set(stretches(one))) > 5
    assert stretches(one) != stretches(other)
    # As much of it as was declared, whatever the order.
    busy = [sum(power > 119_000 for power in powers) for powers in (one, other)]
    assert min(busy) > 5


@given(st.floats(0, 1), st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 2**32))
def test_busy_steps_are_as_many_as_their_share_however_windows_are_cut(
    share: float, lengths: list[int], seed: int
) -> None:
    total = sum(lengths)
    whole = _Bursts(np.random.default_rng(seed)).steps(share, np.ones(total, dtype=np.bool_))
    cut = _Bursts(np.random.default_rng(seed))
    parts = np.concatenate([cut.steps(share, np.ones(length, dtype=np.bool_)) for length in lengths])
    assert parts.tolist() == whole.tolist()
    assert abs(int(whole.sum()) - share * total) <= 1
    assert share != 1 or whole.all()


def test_cap_holds() -> None:
    hot = values(run([(0, 10**7)] * 3), "power")
    assert max(hot) < 760_000
    model = H100Model(prefill_w=900.0)
    (source,) = EmulatedTelemetry(3, IDS[:1], model=model).window(
        start_wall_ns=0, duration_ns=30 * SECOND, work=work(10**7, 0)
    )
    assert values([[source]], "power")[-1] == pytest.approx(700_000, rel=0.03)
    assert values([[source]], "clock_reasons")[-1] == 4
    assert values([[source]], "sm_clock")[-1] < 1980


def test_temperature_follows_power_slowly_and_in_whole_degrees() -> None:
    windows = run([LOADS["idle"], *[LOADS["saturated"]] * 8, *[LOADS["idle"]] * 8])
    temperature = values(windows, "temperature")
    assert all(value % 1000 == 0 for value in temperature)
    assert max(abs(later - earlier) for earlier, later in pairwise(temperature)) <= 3000
    cold, hot, again = temperature[0], temperature[899], temperature[-1]
    assert 15_000 < cold < 45_000
    assert cold + 20_000 < hot < 100_000
    assert abs(again - cold) <= 2000


def test_power_moves_no_faster_than_its_sensor() -> None:
    """A trailing mean over one second cannot step by more than a tenth of the range in 100 ms."""
    power = values(run([LOADS["idle"], LOADS["saturated"], LOADS["idle"]]), "power")
    assert max(abs(later - earlier) for earlier, later in pairwise(power)) < 75_000


def test_utilisation_and_clocks() -> None:
    idle, busy = run([LOADS["idle"]]), run([LOADS["saturated"]] * 2)
    assert set(values(idle, "utilisation")) == {0}
    assert set(values(idle, "clock_reasons")) == {1}
    assert set(values(idle, "sm_clock")) == {1980}
    assert values(busy, "utilisation")[-1] == 1000
    assert set(values(busy, "memory_clock")) == {2619}


def test_tokens_are_shared_among_devices() -> None:
    one, eight = run([(80_000, 0)]), run([(80_000, 0)], devices=8)
    assert max(values(one, "utilisation")) > 3 * max(values(eight, "utilisation"))


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=3),
    st.sampled_from([1, 50_000_000, SECOND, 1_234_567_890]),
)
def test_any_counts_give_evidence_that_parses(loads: list[tuple[int, int]], duration: int) -> None:
    for number, sources in enumerate(run(loads, devices=2, duration=duration)):
        telemetry = Telemetry(session=bytes(16), seq=number, sources=tuple(sources))
        assert Telemetry.parse(telemetry.encode()) == telemetry
        for source in sources:
            assert {name: channel.unit for name, channel in source.channels.items()}.items() <= UNITS.items()
            for name in ("utilisation", "memory_utilisation"):
                assert all(0 <= value <= 1000 for value in values([[source]], name))
            for name in ("power", "power_instant", "energy"):
                assert all(value > 0 for value in values([[source]], name))


@pytest.mark.parametrize("period", [0, -1, 15_000_000])
def test_period_is_a_multiple_of_a_step(period: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        EmulatedTelemetry(1, IDS, period_ns=period)


def test_at_least_one_device() -> None:
    with pytest.raises(ValueError, match="device"):
        EmulatedTelemetry(1, [])


@pytest.mark.parametrize(("duration", "tokens_in", "tokens_out"), [(0, 0, 0), (1, -1, 0), (1, 0, -1)])
def test_impossible_windows(duration: int, tokens_in: int, tokens_out: int) -> None:
    with pytest.raises(ValueError, match="duration"):
        EmulatedTelemetry(1, IDS).window(start_wall_ns=0, duration_ns=duration, work=work(tokens_in, tokens_out))


def test_units_keep_their_gains_and_runs_differ_a_little() -> None:
    """Between runs of one unit far less than between units; and no sample of one run is in another."""
    loads = [LOADS["eight streams"]] * 3
    runs = [values(run(loads, of=number), "power")[20:] for number in range(8)]
    units = [values(run(loads, seed=seed), "power")[20:] for seed in range(8)]
    between_runs, between_units = (
        statistics.stdev(statistics.mean(powers) for powers in group) for group in (runs, units)
    )
    assert 0.0005 < between_runs / 438_000 < 0.01
    assert between_units > 3 * between_runs
    assert len({tuple(power[start : start + 5]) for power in runs for start in range(0, 280, 5)}) == 8 * 56


def test_a_run_goes_on_as_the_same_run() -> None:
    """What differs between runs is drawn once, not in every window."""
    source = EmulatedTelemetry(1, IDS[:1])
    minute = tuple(6 * count for count in LOADS["eight streams"])
    windows = played(source, [work(*minute)] * 12, duration=60 * SECOND)
    means = [statistics.mean(values([window], "power")) for window in windows[2:]]
    assert statistics.stdev(means) / statistics.mean(means) < 0.0015


def test_channels_of_a_real_source() -> None:
    (window,) = run([LOADS["mixed"]])
    channels = window[0].channels
    assert {name for name, channel in channels.items() if channel.values is None} == {"pcie_tx", "pcie_rx"}
    assert {name: channel.window_ns for name, channel in channels.items() if channel.window_ns is not None} == {
        "power": SECOND,
        "power_instant": 25_000_000,
        "utilisation": SECOND,
        "memory_utilisation": SECOND,
    }
    assert channels["power_limit"] == Channel("mW", (700_000,) * 100)
    assert window[0].events == ()


def test_instant_power_is_quicker_than_its_mean() -> None:
    windows = run([LOADS["idle"], LOADS["saturated"]])
    instant, mean = values(windows, "power_instant"), values(windows, "power")
    assert instant[101] > 600_000
    assert mean[101] < 400_000
    assert statistics.mean(instant[120:]) == pytest.approx(statistics.mean(mean[120:]), rel=0.005)


def test_memory_is_busier_and_no_hotter_when_decoding() -> None:
    decode, prefill = run([LOADS["saturated"]] * 4), run([LOADS["prefill"]] * 4)
    assert values(decode, "memory_utilisation")[-1] > 2 * values(prefill, "memory_utilisation")[-1] > 0
    for windows in (decode, prefill):
        assert 30_000 < values(windows, "memory_temperature")[-1] < values(windows, "temperature")[-1]


def test_more_requests_side_by_side_cost_more_power_for_the_same_tokens() -> None:
    """Declared decoding time says how many share the device; least concurrency is assumed where it is not declared."""
    few, many = (
        statistics.mean(values(played(EmulatedTelemetry(1, IDS[:1]), [item] * 2), "power")[20:])
        for item in (work(0, 23_000), work(0, 23_000, decode_ns=640 * SECOND))
    )
    # Many at a time are done sooner, and the device waits in between.
    assert abs(many - few) > 5_000
    impossible = work(0, 10**6, decode_ns=SECOND)
    (window,) = played(EmulatedTelemetry(1, IDS[:1]), [impossible])
    assert values([window], "utilisation")[-1] == 1000


def test_a_window_takes_well_below_20_ms() -> None:
    source = EmulatedTelemetry(1, IDS[:1])
    took: list[float] = []
    for _ in range(9):
        start = time.perf_counter()
        source.window(start_wall_ns=0, duration_ns=10 * SECOND, work=work(*LOADS["mixed"]))
        took.append(time.perf_counter() - start)
    # The quickest: others share this machine.
    assert min(took) < 0.02


class TestUndeclared:
    def test_no_file_no_hidden_work(self, tmp_path: Path) -> None:
        source = EmulatedTelemetry(1, IDS[:1], undeclared=tmp_path / "none")
        assert encoded(played(source, [work(0, 500)])) == encoded(run([(0, 500)]))

    def test_it_shows_as_so_much_more_declared_work_would(self, tmp_path: Path) -> None:
        file = tmp_path / "undeclared"
        file.write_text("1000\n")
        source = EmulatedTelemetry(1, IDS[:1], undeclared=file)
        assert encoded(played(source, [work(0, 500)])) == encoded(run([(0, 10_500)]))

    def test_it_begins_and_ends_with_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "undeclared"
        source = EmulatedTelemetry(1, IDS[:1], undeclared=file)
        last: list[int] = []
        for hidden in (None, "2000", None):
            file.unlink(missing_ok=True)
            if hidden is not None:
                file.write_text(hidden)
            last.append(values(played(source, [WorkSummary.empty()] * 2), "power")[-1])
        assert last[1] > last[0] + 100_000
        assert last[2] == pytest.approx(last[0], rel=0.05)

    @pytest.mark.parametrize(
        "content", ["", "-1", "1e3", "nan", "inf", "1.5", "²", "10000001", "1 2", "0x10", "\x00", "9" * 100, "1_0"]
    )
    def test_what_is_no_number_of_tokens(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "undeclared"
        file.write_text(content)
        with pytest.raises(EnvironmentFault) as caught:
            played(EmulatedTelemetry(1, IDS, undeclared=file), [work(0, 0)])
        assert caught.value.code is Code.TELEMETRY_SOURCE
        assert caught.value.where == str(file)
        assert caught.value.hint

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentFault) as caught:
            played(EmulatedTelemetry(1, IDS, undeclared=tmp_path), [work(0, 0)])
        assert caught.value.code is Code.TELEMETRY_SOURCE


class TestPlugIn:
    def test_the_sessions_devices(self, tmp_path: Path) -> None:
        file = tmp_path / "undeclared"
        file.write_text("5000")
        host = HostFacts(devices=tuple(IDS[:2]), period_ns=50_000_000, seed=3)
        source = open_emulated({"run": "9", "undeclared": str(file)}, host)
        same = EmulatedTelemetry(3, IDS[:2], period_ns=50_000_000, run=9, undeclared=file)
        assert encoded(played(source, [work(1, 1)])) == encoded(played(same, [work(1, 1)]))

    def test_a_run_is_drawn_anew_unless_it_is_given(self) -> None:
        one, two = (played(open_emulated({}, HostFacts(devices=(IDS[0],))), [work(1, 1)]) for _ in range(2))
        assert not set(values(one, "power")) >= set(values(two, "power"))

    def test_without_a_session(self) -> None:
        source = open_emulated({"devices": "3"}, HostFacts())
        (window,) = played(source, [work(1, 1)])
        assert tuple(item.device for item in window) == made_up(3)

    @pytest.mark.parametrize(
        ("options", "host"),
        [
            ({"devices": "2"}, HostFacts(devices=(IDS[0],))),
            ({"devices": "0"}, HostFacts()),
            ({"devices": "65"}, HostFacts()),
            ({"run": "-1"}, HostFacts()),
            ({"speed": "1"}, HostFacts()),
            ({}, HostFacts(period_ns=15_000_000)),
        ],
    )
    def test_options_that_will_not_do(self, options: dict[str, str], host: HostFacts) -> None:
        with pytest.raises(EnvironmentFault) as caught:
            open_emulated(options, host)
        assert caught.value.code is Code.TELEMETRY_SOURCE


def test_a_window_that_is_cut_late_does_not_move_what_was_read() -> None:
    """Its counter would go on by more than the time between two readings."""
    source = EmulatedTelemetry(1, made_up(1))
    cuts = [0, SECOND + 90_000_000, 2 * SECOND + 5_000_000, 3 * SECOND]
    times = [
        read.start_wall_ns + offset
        for cut in cuts
        for read in source.window(start_wall_ns=START + cut, duration_ns=SECOND, work=WorkSummary.empty())
        for offset in read.offsets
    ]
    assert {later - earlier for earlier, later in pairwise(times)} == {100_000_000}
    # A clock that was set is another matter.
    (read,) = source.window(start_wall_ns=START + 60 * SECOND, duration_ns=SECOND, work=WorkSummary.empty())
    assert read.start_wall_ns == START + 60 * SECOND


@pytest.mark.parametrize("cuts", [[5, 12.9, 15, 20], [5, 18, 18.05, 20], [5, 65, 65.05, 70], [5, 10, 15.8, 20]])
def test_a_host_that_stood_still_moves_nothing_and_says_a_gap(cuts: list[float]) -> None:
    """Windows of 5 s: stopped while one waited to be cut, and while it was cut. Counters go on as time does."""
    source, start, nominal = EmulatedTelemetry(1, made_up(1)), START, 0
    read: list[tuple[int, int]] = []
    gaps = 0
    for cut in cuts:
        # As the session cuts: on a grid, one window of many where it fell behind, and labelled when it was cut.
        ends = 5 if nominal + 5 > cut or cut - nominal in {13, 60} else int((cut - nominal) // 5 * 5)
        end = START + int(cut * SECOND)
        (window,) = source.window(start_wall_ns=start, duration_ns=ends * SECOND, work=WorkSummary.empty())
        held = within(window, start_wall_ns=start, end_wall_ns=end)
        times = [held.start_wall_ns + offset for offset in held.offsets]
        assert start - SECOND <= held.start_wall_ns
        assert all(start - SECOND <= at <= end + SECOND for at in times)
        energy = held.channels["energy"].values or ()
        read += [(at, value) for at, value in zip(times, energy, strict=True) if value is not None]
        gaps += any(event.kind is EventKind.GAP for event in held.events)
        start, nominal = end, nominal + ends
    assert all(before[0] < after[0] for before, after in pairwise(read))
    watts = [(after[1] - before[1]) * 10**6 / (after[0] - before[0]) for before, after in pairwise(read)]
    assert all(80 < each < 150 for each in watts)
    assert (gaps > 0) == any(after[0] - before[0] > 10**8 for before, after in pairwise(read))
