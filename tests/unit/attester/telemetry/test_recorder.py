"""Recordings made outside of a session: windows on a grid, and what an engine's counters say was served in them."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.telemetry.emulated import EmulatedTelemetry, made_up
from weighbridge.attester.telemetry.emulated_load import LoadRange, by_the_second
from weighbridge.attester.telemetry.recorder import EngineWork, Plan, recorded_live, recorded_nominally
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.recording import RecordedWindow, Recording
from weighbridge.proto.scope import Scope
from weighbridge.proto.telemetry import UNITS, Channel, Source
from weighbridge.proto.workload import WorkSummary

SECOND = 1_000_000_000


class FakeClock:
    """Waiting passes the time, and a little more."""

    def __init__(self) -> None:
        self.now = 10 * SECOND
        self.ahead = 10**18

    def wall_ns(self) -> int:
        return self.now + self.ahead

    def monotonic_ns(self) -> int:
        return self.now

    def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
        assert not stop.is_set()
        # Once in two it is woken too early.
        self.now = max(self.now + 1, monotonic_ns - 7 if self.now < monotonic_ns - 7 else monotonic_ns + 3)


def plan(windows: int = 3) -> Plan:
    load = LoadRange.parse("10+100..20+200")
    rng = random.Random(1)
    return Plan(windows, SECOND, lambda _: load.draw(rng, SECOND))


def recording(windows: list[RecordedWindow]) -> Recording:
    scope = Scope(gpu_model="H100", driver="1", engine="none", workload="idle")
    return Recording(origin="emulated", label="x", scope=scope, windows=tuple(windows))


def test_nominal_time_is_not_waited_for() -> None:
    windows = list(recorded_nominally(EmulatedTelemetry(1, made_up(2)), plan(), start_ns=77))
    assert [(window.start_ns, window.end_ns) for window in windows] == [
        (77 + number * SECOND, 77 + (number + 1) * SECOND) for number in range(3)
    ]
    assert Recording.parse(recording(windows).encode()) == recording(windows)
    for number, window in enumerate(windows):
        telemetry = window.readings()
        assert (telemetry.seq, len(telemetry.sources)) == (number, 2)
        assert all(source.start_wall_ns == window.start_ns for source in telemetry.sources)
        assert 100 <= window.work.tokens_out <= 200


def test_the_same_seed_and_run_give_the_same_bytes() -> None:
    one, two = (
        recording(list(recorded_nominally(EmulatedTelemetry(1, made_up(1), run=4), plan(), start_ns=0)))
        for _ in range(2)
    )
    assert one.digest == two.digest


def test_long_windows_are_read_by_the_second() -> None:
    """As many short ones of the same work would read the same; what is declared is that of the window."""
    halves = [WorkSummary(root=bytes(32), requests=1, tokens_in=n, tokens_out=0, batch_max=1) for n in (0, 9000)]
    whole = replace(halves[1], tokens_in=9000)
    long, short = EmulatedTelemetry(1, made_up(2)), EmulatedTelemetry(1, made_up(2))
    (one,) = recorded_nominally(long, Plan(1, 2 * SECOND, lambda _: whole, lambda _: halves), start_ns=7)
    two = list(recorded_nominally(short, Plan(2, SECOND, lambda number: halves[number]), start_ns=7))
    assert (one.work, one.start_ns, one.end_ns) == (whole, 7, 7 + 2 * SECOND)
    for place, source in enumerate(one.readings().sources):
        first, second = (window.readings().sources[place] for window in two)
        assert source.offsets == (*first.offsets, *(offset + SECOND for offset in second.offsets))
        for name, channel in source.channels.items():
            ends = first.channels[name].values, second.channels[name].values
            assert channel.values == (None if None in ends else (*(ends[0] or ()), *(ends[1] or ())))


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 30), st.integers(0, 2**32))
def test_the_seconds_of_a_window_have_its_work(tokens_in: int, tokens_out: int, seconds: int, seed: int) -> None:
    work = WorkSummary(
        root=bytes(32),
        requests=1,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        batch_max=4,
        decode_ns=4 * seconds * SECOND,
    )
    parts = by_the_second(random.Random(seed), work, seconds)
    assert sum(part.tokens_in for part in parts) == tokens_in
    assert sum(part.tokens_out for part in parts) == tokens_out
    assert {part.decode_ns for part in parts} == {4 * SECOND}
    assert all(part.tokens_in <= 2 * tokens_in / max(1, seconds / 2) + 1 for part in parts)


def test_half_of_all_windows_are_even_within() -> None:
    work = WorkSummary(root=bytes(32), requests=1, tokens_in=10_000, tokens_out=0, batch_max=1)
    even = [{part.tokens_in for part in by_the_second(random.Random(seed), work, 10)} == {1_000} for seed in range(200)]
    assert 70 < sum(even) < 130


def test_live_windows_follow_each_other() -> None:
    clock = FakeClock()
    windows = list(recorded_live(EmulatedTelemetry(1, made_up(1)), plan(), clock=clock))
    assert windows[0].start_ns == 10**18 + 10 * SECOND
    assert [window.start_ns for window in windows[1:]] == [window.end_ns for window in windows[:-1]]
    # Cut on the grid, whatever each wait took.
    assert all(0 <= window.end_ns - 10**18 - (11 + number) * SECOND < 100 for number, window in enumerate(windows))


def test_a_clock_that_is_set_back_ends_the_recording() -> None:
    clock = FakeClock()
    running = recorded_live(EmulatedTelemetry(1, made_up(1)), plan(), clock=clock)
    next(running)
    clock.ahead -= 5 * SECOND
    with pytest.raises(EnvironmentFault) as caught:
        next(running)
    assert caught.value.code is Code.CLOCK_STEPPED
    assert "is kept" in caught.value.hint


def engine(**channels: list[int | None]) -> list[Source]:
    size = max(len(values) for values in channels.values())
    return [
        Source(
            device=None,
            name="engine",
            start_wall_ns=0,
            period_ns=1,
            offsets=tuple(range(size)),
            channels={name: Channel(UNITS[name], tuple(values)) for name, values in channels.items()},
        )
    ]


class TestEngineWork:
    def test_no_engine(self) -> None:
        source = Source(device=None, name="nvml", start_wall_ns=0, period_ns=1, offsets=(), channels={})
        assert EngineWork().of([source]) is None
        assert EngineWork().of([]) is None

    def test_what_counters_grew_by(self) -> None:
        work = EngineWork()
        first = work.of(engine(requests=[5, 6], tokens_in=[100, 130], tokens_out=[1000, 1500], requests_running=[3, 4]))
        assert first is not None
        assert (first.requests, first.tokens_in, first.tokens_out, first.batch_max) == (1, 30, 500, 4)
        second = work.of(
            engine(
                requests=[None, 8],
                tokens_in=[130, 140],
                tokens_out=[1600, 1700],
                prefill_time=[0, 5],
                decode_time=[7, 9],
            )
        )
        assert second is not None
        assert (second.requests, second.tokens_in, second.tokens_out) == (2, 10, 200)
        assert (second.prefill_ns, second.decode_ns, second.batch_max) == (5, 2, 1)

    def test_idle(self) -> None:
        assert EngineWork().of(engine(requests=[5, 5], tokens_out=[9, 9])) == WorkSummary.empty()
        assert EngineWork().of(engine(requests=[None], tokens_out=[None])) == WorkSummary.empty()

    def test_a_server_that_began_anew(self) -> None:
        work = EngineWork()
        work.of(engine(tokens_out=[900, 1000], requests=[1, 2]))
        after = work.of(engine(tokens_out=[1010, 5, 30], requests=[2, 0, 1]))
        assert after is not None
        assert (after.tokens_out, after.requests) == (40, 1)

    def test_tokens_of_a_request_that_goes_on(self) -> None:
        """What is declared must be of some request."""
        summary = EngineWork().of(engine(tokens_out=[0, 10], requests=[3, 3]))
        assert summary is not None
        assert WorkSummary.from_cbor(summary.to_cbor(), where="work") == summary


class TestLoad:
    @given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 4096), st.integers(0, 1000))
    def test_what_is_drawn_can_be_declared(self, tokens_in: int, tokens_out: int, streams: int, seed: int) -> None:
        load = LoadRange.parse(f"0+0..{tokens_in}+{tokens_out}@{streams}")
        work = load.draw(random.Random(seed), 10 * SECOND)
        assert 0 <= work.tokens_in <= 10 * tokens_in
        assert 0 <= work.tokens_out <= 10 * tokens_out
        assert WorkSummary.from_cbor(work.to_cbor(), where="work") == work

    @pytest.mark.parametrize(
        "text", ["", "1", "1+", "+1", "1+1..", "1+1..0+1", "1+1@", "1+1@4097", "10000001+0", "1+-1", "nan+1", "01+1"]
    )
    def test_what_is_no_load(self, text: str) -> None:
        with pytest.raises(ValueError, match="not"):
            LoadRange.parse(text)
