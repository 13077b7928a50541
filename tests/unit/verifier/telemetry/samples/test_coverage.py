"""What samples cover counts, and never what a header says of them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.honest_gpu import DEVICE, START_NS
from weighbridge.proto.telemetry import Channel, Event, EventKind, Source
from weighbridge.verifier.telemetry.samples.series import Defect, Sampled
from weighbridge.verifier.telemetry.samples.units import NO_PIECES, Unit, UnitBuilder
from weighbridge.verifier.telemetry.samples.work import DeclaredWork

SECOND = 10**9
PERIOD = SECOND // 10
UNIT = 10 * SECOND
WORK = DeclaredWork(duration_ns=1, requests=1, tokens_out=1_000)


class Line:
    """Windows that follow one another; all that was made of them."""

    def __init__(self) -> None:
        self.builder = UnitBuilder(unit_ns=UNIT)
        self.units: list[Unit] = []
        self.defects: list[Defect] = []
        self.seq = 0

    def brings(self, times: list[int], interval: tuple[int, int], *, event: Event | None = None) -> None:
        """A window with samples at these times, both from the start of the line, ns."""
        source = Source(
            device=DEVICE,
            name="x",
            start_wall_ns=START_NS + times[0],
            period_ns=PERIOD,
            offsets=tuple(at - times[0] for at in times),
            channels={"power": Channel("mW", tuple(400_000 + at % 977 for at in times), SECOND)},
            events=() if event is None else (event,),
        )
        said = (START_NS + interval[0], START_NS + interval[1])
        self.builder, units, defects = self.builder.after(Sampled.of(source), WORK, said, self.seq)
        self.units += units
        self.defects += [defect for defect in defects if defect.breaks]
        self.seq += 1

    @property
    def kinds(self) -> set[str]:
        return {defect.kind for defect in self.defects}


def grid(first: int, last: int, step: int = PERIOD) -> list[int]:
    return [at * step for at in range(first, last)]


def test_a_window_is_not_much_shorter_than_its_samples() -> None:
    line = Line()
    line.brings(grid(0, 3), (PERIOD, PERIOD + 1))
    assert [defect.detail for defect in line.defects] == ["samples of 0.300 s in a window of 0.000 s"]
    assert line.builder.begun == NO_PIECES
    line = Line()
    line.brings(grid(0, 5), (PERIOD * 3 // 2, PERIOD * 7 // 2))
    assert line.kinds == {"range"}


def test_a_begun_unit_lasts_as_long_as_its_samples() -> None:
    # Two samples in a nanosecond: as much as clocks may be apart.
    line = Line()
    for number in range(24):
        at = 2 * number * PERIOD
        line.brings([at, at + PERIOD], (at + PERIOD // 2, at + PERIOD // 2 + 1))
    assert line.kinds == set()
    assert line.builder.work is not None
    assert line.builder.work.duration_ns == 48 * PERIOD


def test_rates_are_of_the_time_that_samples_cover() -> None:
    line = Line()
    for number in range(20):
        at = 5 * number * PERIOD
        # Said to last two thirds of it.
        line.brings(grid(5 * number, 5 * number + 5), (at + PERIOD, at + PERIOD * 13 // 3))
    (unit,) = line.units
    assert (unit.work.duration_ns, unit.work.tokens_out) == (UNIT * 19 // 20, 19_000)
    assert unit.work.regressors()[-1] == 2_000_000


def test_time_between_windows_is_counted() -> None:
    # One sample in each window, and 1.4 periods between them: no gap is as long as one.
    line = Line()
    step = PERIOD * 14 // 10
    for number in range(100):
        line.brings([number * step], (number * step, (number + 1) * step))
    assert line.kinds == {"range"}
    assert line.units == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_unit_takes_its_time(count: int) -> None:
    line = Line()
    for number in range(300 // count):
        at = number * count * 1_000_000
        line.brings(grid(number * count, (number + 1) * count, 1_000_000), (at, at + count * 1_000_000))
    assert line.units == []
    assert line.kinds == {"range"}


def test_each_unit_of_a_window_takes_its_time() -> None:
    """Half of the samples come at twice the rate, and half at two thirds of it: on average they do as they should."""
    line = Line()
    dense = [at * PERIOD // 2 for at in range(100)]
    sparse = [dense[-1] + (at + 1) * PERIOD * 3 // 2 for at in range(100)]
    line.brings([*dense, *sparse], (0, 2 * UNIT))
    assert line.units == []
    assert line.kinds == {"range"}


def test_a_gap_of_another_channel_excuses_no_rate() -> None:
    line = Line()
    event = Event(0, EventKind.GAP, "temperature")
    line.brings([at * PERIOD * 14 // 10 for at in range(72)], (0, UNIT), event=event)
    assert line.kinds == {"range"}


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(0, 2**32))
def test_honest_samplers_that_are_late_are_taken(lengths: list[int], seed: int) -> None:
    """Each sample is late by up to 0.4 of a period, and so is each end of a window by the other clock."""
    random, most = Random(seed), PERIOD * 4 // 10
    line, first, edge = Line(), 0, 0
    for length in lengths:
        times = [at * PERIOD + random.randint(0, most) for at in range(first, first + length)]
        first += length
        end = first * PERIOD + random.randint(0, most)
        line.brings(times, (edge, end))
        edge = end
    assert line.defects == []
    left = line.builder.begun
    assert sum(len(unit.series) for unit in line.units) + left.samples == first
    lasted = sum(unit.work.duration_ns for unit in line.units) + (left.work.duration_ns if left.work else 0)
    # From a period before the first sample to the last one, but for what shares are rounded by.
    assert abs(lasted - first * PERIOD) <= PERIOD * 4 // 10 + len(line.units)


@given(st.lists(st.integers(1, 130), min_size=1, max_size=30))
def test_sums_are_of_what_there_is(lengths: list[int]) -> None:
    line, first = Line(), 0
    for length in lengths:
        line.brings(grid(first, first + length), (first * PERIOD, (first + length) * PERIOD))
        first += length
        begun = line.builder.begun
        anew = NO_PIECES
        for source, seq, work in zip(begun.sources, begun.seqs, begun.works, strict=True):
            anew = anew.and_(source, seq, work, channel="power")
        assert begun == anew
        assert begun.samples == sum(len(source.offsets) for source in begun.sources) == begun.readings
        assert begun.drawn_mw == sum(
            value or 0 for source in begun.sources for value in source.channels["power"].values or ()
        )


def test_windows_that_are_as_short_as_can_be_are_not_all_kept() -> None:
    builder, kinds = UnitBuilder(unit_ns=UNIT, values_max=2**20), set[str]()
    step = UNIT // 50_000
    for number in range(1100):
        source = Source(
            device=DEVICE,
            name="x",
            start_wall_ns=START_NS + number * step,
            period_ns=step,
            offsets=(0,),
            channels={"power": Channel("mW", (400_000,), SECOND)},
        )
        at = START_NS + number * step
        builder, _, defects = builder.after(Sampled.of(source), WORK, (at, at + step), number)
        kinds |= {defect.kind for defect in defects}
        assert len(builder.begun.sources) <= 1024
    assert kinds == {"size"}


def test_a_window_within_another_is_none() -> None:
    line = Line()
    line.brings(grid(0, 50), (0, 50 * PERIOD))
    builder = replace(line.builder)
    line.brings(grid(49, 60), (50 * PERIOD, 60 * PERIOD))
    assert "unsorted" in line.kinds
    assert builder.begun.samples == 50
