"""The grid, its gaps and stalls, the ring, and windows that follow one another: by a clock that the test moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.telemetry import sampler as module
from weighbridge.attester.telemetry.sampler import MISSING, RESOLUTION_NS, Sampler, SystemSampleClock, Tick
from weighbridge.attester.telemetry.samples import Samples
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import EventKind, Source

MS = 1_000_000
PERIOD = 100 * MS
NOON = 1_780_315_200_000_000_000


class Clock:
    """Stands still but for what a test does to it."""

    def __init__(self, at: int = 7 * PERIOD) -> None:
        self.now = at
        self.lead = NOON

    def wall_ns(self) -> int:
        return self.now + self.lead

    def monotonic_ns(self) -> int:
        return self.now

    def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
        raise AssertionError((monotonic_ns, stop))


class Bench:
    """A sampler of one column, which counts, and what it read when."""

    def __init__(self, *, rows: int | None = None, at: int = 7 * PERIOD) -> None:
        self.clock = Clock(at)
        self.takes = 0
        self.took: Callable[[], int] = lambda: self.takes
        self.read: list[tuple[int, int]] = []
        self.sampler = Sampler(self._read, columns=1, period_ns=PERIOD, clock=self.clock, rows=rows)
        self.until = self.clock.wall_ns()

    def _read(self, tick: Tick) -> None:
        self.read.append((tick.number, self.clock.now))
        tick.row[0] = len(self.read)
        self.clock.now += self.took()

    def ticks(self, count: int, *, late: int = 0) -> None:
        """Let as many come, each ``late`` after it is due."""
        for _ in range(count):
            self.clock.now = max(self.clock.now, self.sampler.due_ns) + late
            self.sampler.tick()

    def window(self, *, late: int = 0) -> Source:
        """The window that ends now, cut ``late`` after that."""
        end = self.clock.wall_ns()
        self.clock.now += late
        samples = self.sampler.take(start_wall_ns=self.until, duration_ns=max(1, end - self.until))
        self.until = self.clock.wall_ns()
        return source(samples)


def source(samples: Samples) -> Source:
    return samples.source(device=None, name="test", columns=("count",), units=("1",))


def values(source: Source) -> Sequence[int | None]:
    found = source.channels["count"].values
    assert found is not None
    return found


def kinds(source: Source) -> list[EventKind]:
    return [event.kind for event in source.events]


def test_samples_lie_on_the_grid() -> None:
    bench = Bench(at=7 * PERIOD + 30 * MS)
    bench.ticks(3)
    bench.clock.now += 50 * MS
    found = bench.window()
    # The grid is that of the clock, not of when sampling began.
    assert found.offsets == (70 * MS, 170 * MS, 270 * MS)
    assert (found.start_wall_ns, found.period_ns, found.events) == (NOON + 7 * PERIOD + 30 * MS, PERIOD, ())
    assert values(found) == (1, 2, 3)


def test_a_late_sample_is_told_when_it_was_taken() -> None:
    bench = Bench()
    bench.ticks(1, late=12_345_678)
    bench.ticks(1)
    bench.clock.now += MS
    found = bench.window()
    assert found.offsets == (12_340_000, PERIOD)
    assert found.offsets[0] % RESOLUTION_NS == 0
    assert found.events == ()


def test_what_is_a_period_late_is_a_gap() -> None:
    bench = Bench()
    bench.ticks(1)
    bench.clock.now += 3 * PERIOD + 5 * MS
    bench.sampler.tick()
    bench.clock.now += MS
    found = bench.window()
    assert found.offsets == (0, 3 * PERIOD + 5 * MS)
    assert values(found) == (1, 2)
    assert [(event.offset_ns, event.kind, event.channel) for event in found.events] == [(PERIOD, EventKind.GAP, None)]


def test_a_read_that_takes_longer_than_a_period_is_a_stall() -> None:
    bench = Bench()
    bench.took = lambda: 2 * PERIOD + 30 * MS if len(bench.read) == 2 else 0
    bench.ticks(3)
    bench.clock.now += MS
    found = bench.window()
    assert found.offsets == (0, PERIOD, 3 * PERIOD + 30 * MS)
    assert [(event.offset_ns, event.kind) for event in found.events] == [
        (PERIOD, EventKind.STALL),
        (2 * PERIOD, EventKind.GAP),
    ]


def test_a_sample_that_is_being_read_when_a_window_is_cut_is_the_next_ones() -> None:
    bench = Bench()
    bench.ticks(1)
    cut: list[Source] = []

    def took() -> int:
        bench.clock.now += 5 * MS
        cut.append(bench.window())
        return 5 * MS

    bench.took = took
    bench.ticks(1)
    bench.took = lambda: 0
    bench.ticks(1)
    bench.clock.now += MS
    found = bench.window()
    assert (values(cut[0]), values(found)) == ((1,), (2, 3))
    # It begins with that sample, and says so.
    assert (found.start_wall_ns, found.offsets) == (NOON + 8 * PERIOD, (0, PERIOD))


@pytest.mark.parametrize("step", [-3600 * 10**9, -20 * MS, 20 * MS, 10**9])
def test_a_step_of_the_wall_clock_is_told_once(step: int) -> None:
    bench = Bench()
    bench.ticks(2)
    bench.clock.lead += step
    bench.ticks(3)
    bench.clock.now += MS
    found = source(bench.sampler.take(start_wall_ns=NOON + 7 * PERIOD, duration_ns=5 * PERIOD))
    assert [(event.offset_ns, event.kind) for event in found.events] == [(2 * PERIOD, EventKind.CLOCK_STEP)]
    # Offsets are the monotonic clock's.
    assert found.offsets == tuple(number * PERIOD for number in range(5))


def test_a_clock_that_is_slewed_is_no_step() -> None:
    bench = Bench()
    for _ in range(20):
        bench.clock.lead += PERIOD // 2000
        bench.ticks(1)
    assert bench.window().events == ()


def test_a_window_longer_than_the_ring_says_that_something_was_lost() -> None:
    bench = Bench(rows=64)
    bench.ticks(100)
    bench.clock.now += MS
    found = bench.window()
    assert values(found) == tuple(range(37, 101))
    assert [(event.offset_ns, event.kind) for event in found.events] == [(0, EventKind.GAP)]
    bench.ticks(10)
    bench.clock.now += MS
    found = bench.window()
    assert values(found) == tuple(range(101, 111))
    assert found.events == ()


def test_what_was_sampled_before_the_first_window_is_in_none() -> None:
    bench = Bench(rows=64)
    bench.ticks(100)
    bench.clock.now += 50 * MS
    bench.until = bench.clock.wall_ns()
    bench.ticks(3)
    bench.clock.now += MS
    found = bench.window()
    # Nor is it missed, though the ring has lost it.
    assert (values(found), found.events) == ((101, 102, 103), ())
    assert found.offsets == (50 * MS, 150 * MS, 250 * MS)


@pytest.mark.parametrize("late", [0, 40 * MS, 60 * MS, 700 * MS])
def test_a_window_that_is_cut_late_has_what_was_sampled_until_then(late: int) -> None:
    bench = Bench()
    for cut in (12 * PERIOD, 17 * PERIOD + late, 22 * PERIOD + late):
        while bench.sampler.due_ns < cut:
            bench.ticks(1)
        bench.clock.now = cut
        start, bench.until = bench.until, bench.clock.wall_ns()
        found = source(bench.sampler.take(start_wall_ns=start, duration_ns=5 * PERIOD))
        first, last = (found.start_wall_ns + found.offsets[place] for place in (0, -1))
        # As the verifier wants it: from the window's start to its end, by not more than a period and a half.
        assert abs(first - start) < 3 * PERIOD // 2
        assert abs(last - bench.until) < 3 * PERIOD // 2
        assert found.events == ()
        assert len(bench.read) - (values(found)[-1] or 0) <= 1


def test_a_host_that_stands_still_while_a_window_is_cut_has_the_sample_of_after_it_in_the_next() -> None:
    """The window's end was told, then all stood still, and the thread that samples was the first to go on."""
    bench = Bench()
    bench.window()
    bench.ticks(5)
    bench.clock.now += PERIOD
    ended, start = bench.clock.wall_ns(), bench.until
    bench.clock.now += 80 * PERIOD
    bench.ticks(1)
    found = source(bench.sampler.take(start_wall_ns=start, duration_ns=5 * PERIOD))
    assert found.start_wall_ns + found.offsets[-1] <= ended
    assert kinds(found) == [EventKind.GAP]
    bench.until = ended
    bench.ticks(2)
    later = bench.window()
    assert values(later) == (6, 7)
    times = [later.start_wall_ns + offset - NOON for offset in later.offsets]
    assert times == [at for _, at in bench.read[5:7]]


def test_a_failed_read_leaves_a_row_of_nothing() -> None:
    clock = Clock()
    answers: list[int | Exception] = [1, EnvironmentFault(Code.GPU_FAILED, "gone"), OSError("gone"), 4]

    def read(tick: Tick) -> None:
        tick.row[0] = 17
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        tick.row[0] = answer

    sampler = Sampler(read, columns=1, period_ns=PERIOD, clock=clock)
    for _ in range(4):
        clock.now = sampler.tick()
    found = source(sampler.take(start_wall_ns=NOON + 7 * PERIOD, duration_ns=4 * PERIOD))
    assert values(found) == (1, None, None, 4)
    # Told once: the missing readings show how long it went on.
    assert [(event.offset_ns, event.kind) for event in found.events] == [(PERIOD, EventKind.FAULT)]


def test_what_goes_on_is_told_once_in_each_window() -> None:
    clock = Clock()

    def read(tick: Tick) -> None:
        tick.note(EventKind.SENTINEL, 0)
        tick.note(EventKind.SENTINEL, 0)

    sampler = Sampler(read, columns=1, period_ns=PERIOD, clock=clock)
    for number in range(3):
        for _ in range(5):
            clock.now = sampler.tick()
        found = source(sampler.take(start_wall_ns=NOON + (7 + 5 * number) * PERIOD, duration_ns=5 * PERIOD))
        assert [(event.offset_ns, event.kind, event.channel) for event in found.events] == [
            (0, EventKind.SENTINEL, "count")
        ]
        assert values(found) == (None,) * 5


def test_events_belong_to_the_source_whose_column_they_are_of() -> None:
    clock = Clock()

    def read(tick: Tick) -> None:
        tick.row[0], tick.row[1] = 1, 2
        tick.note(EventKind.WRAP, 1)

    sampler = Sampler(read, columns=2, period_ns=PERIOD, clock=clock)
    clock.now = sampler.tick()
    samples = sampler.take(start_wall_ns=NOON + 7 * PERIOD, duration_ns=PERIOD)
    first, second = (
        samples.source(device=None, name=name, columns=(name,), first=number, units=("1",))
        for number, name in enumerate(("a", "b"))
    )
    assert first.events == ()
    assert [(event.kind, event.channel) for event in second.events] == [(EventKind.WRAP, "b")]
    assert (first.channels["a"].values, second.channels["b"].values) == ((1,), (2,))


def test_units_and_windows_of_known_channels() -> None:
    clock = Clock()

    def read(tick: Tick) -> None:
        tick.row[0], tick.row[2] = 400_000, clock.wall_ns() + 5

    sampler = Sampler(read, columns=3, period_ns=PERIOD, clock=clock)
    clock.now = sampler.tick()
    samples = sampler.take(start_wall_ns=NOON + 7 * PERIOD, duration_ns=PERIOD)
    found = samples.source(
        device=bytes(32),
        name="nvml",
        columns=("power_instant", "energy", "read_at"),
        absent=("energy",),
        moments=("read_at",),
    )
    assert {name: (channel.unit, channel.values, channel.window_ns) for name, channel in found.channels.items()} == {
        "power_instant": ("mW", (400_000,), 25 * MS),
        "energy": ("mJ", None, None),
        "read_at": ("ns", (5,), None),
    }


@pytest.mark.parametrize(("period_ns", "columns"), [(0, 1), (MS - 1, 1), (PERIOD, 0)])
def test_misuse(period_ns: int, columns: int) -> None:
    with pytest.raises(ValueError, match="period"):
        Sampler(lambda _: None, columns=columns, period_ns=period_ns)


# -- whatever happens --------------------------------------------------------------------------------------------------

DELAYS = st.integers(0, 3 * PERIOD) | st.sampled_from([0, 1, PERIOD - 1, PERIOD, PERIOD + 1])


@given(steps=st.lists(st.tuples(DELAYS, DELAYS, st.none() | st.integers(0, 40 * MS)), max_size=40), phase=DELAYS)
def test_every_sample_is_in_one_window_and_every_gap_is_told(
    steps: list[tuple[int, int, int | None]], phase: int
) -> None:
    """Wake-ups are late, reads take their time, windows are cut late: nothing is lost, repeated or made up."""
    bench = Bench(rows=64)
    bench.clock.now += phase
    first = bench.sampler.due_ns // PERIOD - 1
    windows: list[Source] = []
    for late, took, cut in steps:
        bench.takes = took
        bench.ticks(1, late=late)
        if cut is not None:
            windows.append(bench.window(late=cut))
    bench.clock.now += PERIOD
    windows.append(bench.window())
    bench.clock.now += PERIOD
    windows.append(bench.window())
    for found in windows:
        assert all(low < high for low, high in pairwise(found.offsets))
        assert all(offset >= 0 for offset in found.offsets)
        assert all(event.offset_ns >= 0 for event in found.events)
    taken = [
        (found.start_wall_ns + offset - NOON, value)
        for found in windows
        for offset, value in zip(found.offsets, values(found), strict=True)
    ]
    assert taken == [
        (at // RESOLUTION_NS * RESOLUTION_NS, number) for number, (_, at) in enumerate(bench.read, start=1)
    ]
    numbers = [number for number, _ in bench.read]
    assert all(0 <= at - number * PERIOD < PERIOD for number, at in bench.read)
    missed = any(high - low > 1 for low, high in pairwise([first, *numbers]))
    told = [event.kind for found in windows for event in found.events]
    # The last read may have passed ticks that nobody asked for any more.
    assert not missed or EventKind.GAP in told
    assert missed or EventKind.GAP not in told or bench.takes >= PERIOD
    assert any(took > PERIOD for _, took, _ in steps[: len(bench.read)]) == (EventKind.STALL in told)
    assert EventKind.CLOCK_STEP not in told


# -- the thread --------------------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_thread_samples_until_it_is_closed() -> None:
    read: list[int] = []
    sampler = Sampler(lambda tick: read.append(tick.number), columns=1, period_ns=MS)
    start = SystemSampleClock().wall_ns()
    sampler.start()
    wait_for(lambda: len(read) >= 5)
    assert sampler.close()
    count = len(read)
    found = source(sampler.take(start_wall_ns=start, duration_ns=10**9))
    assert len(found.offsets) == count
    assert len(read) == count


def test_a_driver_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_JOIN_S", 0.05)
    entered, release = threading.Event(), threading.Event()

    def read(tick: Tick) -> None:
        tick.row[0] = 1
        entered.set()
        release.wait()

    sampler = Sampler(read, columns=1, period_ns=MS)
    start = SystemSampleClock().wall_ns()
    sampler.start()
    assert entered.wait(30)
    time.sleep(0.003)
    for _ in range(2):
        found = source(sampler.take(start_wall_ns=start, duration_ns=10**9))
        assert found.offsets == ()
        assert EventKind.STALL in kinds(found)
    began = time.monotonic()
    assert not sampler.close()
    assert time.monotonic() - began < 5
    release.set()
    wait_for(sampler.close)


def test_closing_what_was_never_started() -> None:
    assert Sampler(lambda _: None, columns=1, period_ns=MS).close()


def test_missing_cannot_be_sent() -> None:
    assert MISSING < -(2**62)
