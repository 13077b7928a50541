"""Units: collected from short windows, cut from long ones, dropped by defects; nothing is lost or doubled."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.honest_gpu import DEVICE, START_NS, record
from weighbridge.proto.recording import RecordedWindow, Recording
from weighbridge.proto.scope import Scope
from weighbridge.proto.telemetry import Channel, Event, EventKind, Source, Telemetry
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.telemetry.samples.series import Defect, Sampled
from weighbridge.verifier.telemetry.samples.units import Unit, UnitBuilder, units_of
from weighbridge.verifier.telemetry.samples.work import DeclaredWork

SECOND = 10**9
PERIOD = SECOND // 10
UNIT = 10 * SECOND


def window(first: int, last: int, **fields: Any) -> Source:  # noqa: ANN401 - whichever fields a source has
    """Samples of tenths of a second ``first`` up to ``last``."""
    plain = Source(
        device=DEVICE,
        name="x",
        start_wall_ns=START_NS + first * PERIOD,
        period_ns=PERIOD,
        offsets=tuple(at * PERIOD for at in range(last - first)),
        channels={"power": Channel("mW", tuple(400_000 + at for at in range(first, last)), SECOND)},
    )
    return replace(plain, **fields)


def fed(
    builder: UnitBuilder, source: Source | None, first: int, last: int, seq: int, *, tokens: int = 0
) -> tuple[UnitBuilder, tuple[Unit, ...], tuple[Defect, ...]]:
    work = DeclaredWork(duration_ns=(last - first) * PERIOD, tokens_out=tokens, requests=1, batch_max=seq + 1)
    return builder.after(Sampled.of(source), work, (START_NS + first * PERIOD, START_NS + last * PERIOD), seq)


def run(lengths: list[int], *, tokens: int = 7) -> tuple[list[Unit], list[Defect], UnitBuilder]:
    """Windows of so many samples, one after the other."""
    builder, units, defects, first = UnitBuilder(unit_ns=UNIT), list[Unit](), list[Defect](), 0
    for seq, length in enumerate(lengths):
        builder, done, wrong = fed(builder, window(first, first + length), first, first + length, seq, tokens=tokens)
        units += done
        defects += wrong
        first += length
    return units, defects, builder


def test_short_windows_are_collected() -> None:
    units, defects, builder = run([20] * 12)
    assert defects == []
    assert [len(unit.series) for unit in units] == [100, 100]
    assert [(unit.first_seq, unit.last_seq) for unit in units] == [(0, 4), (5, 9)]
    assert [unit.work.tokens_out for unit in units] == [35, 35]
    assert units[0].work.duration_ns == UNIT
    assert units[0].work.batch_max == 5
    assert len(builder.begun.sources) == 2


def test_long_windows_are_cut_and_what_is_left_begins_the_next_unit() -> None:
    units, _, builder = run([300, 250, 49])
    assert [len(unit.series) for unit in units] == [100] * 5 + [99]
    assert [(unit.first_seq, unit.last_seq) for unit in units] == [(0, 0)] * 3 + [(1, 1)] * 2 + [(1, 2)]
    assert [unit.work.tokens_out for unit in units] == [2, 2, 3, 2, 3, 9]
    assert [unit.work.duration_ns for unit in units] == [UNIT] * 5 + [UNIT - PERIOD]
    assert builder.begun.sources == ()
    assert builder.work is None


def test_a_unit_may_begin_in_one_window_and_end_in_another() -> None:
    units, _, builder = run([90, 250])
    assert [(unit.first_seq, unit.last_seq) for unit in units] == [(0, 1), (1, 1), (1, 1)]
    assert [unit.work.tokens_out for unit in units] == [7, 2, 3]
    assert (len(builder.begun.sources[0].offsets), builder.begun.seqs) == (40, (1,))
    assert builder.work is not None
    assert (builder.work.tokens_out, builder.work.duration_ns) == (2, 40 * PERIOD)


def test_windows_as_long_as_two_units_less_a_sample_hide_nothing() -> None:
    units, _, _ = run([190] * 10)
    assert {len(unit.series) for unit in units} == {100}
    assert len(units) == 19


def test_a_window_that_jitters_is_a_unit() -> None:
    units, _, builder = run([97, 103, 100])
    assert [len(unit.series) for unit in units] == [97, 103, 100]
    assert builder.begun.sources == ()


def test_a_builder_is_not_changed() -> None:
    begun, _, _ = fed(UnitBuilder(unit_ns=UNIT), window(0, 50), 0, 50, 0)
    for _ in range(2):
        after, units, _ = fed(begun, window(50, 100), 50, 100, 1)
        assert [len(unit.series) for unit in units] == [100]
        assert after.begun.sources == ()
    assert len(begun.begun.sources) == 1


@given(st.lists(st.integers(min_value=1, max_value=330), min_size=1, max_size=20))
def test_no_sample_and_no_work_is_lost_or_doubled(lengths: list[int]) -> None:
    units, defects, builder = run(lengths)
    assert defects == []
    values = [value for unit in units for value in unit.series.channels["power"].tolist()]
    left = sum(len(source.offsets) for source in builder.begun.sources)
    assert values == [400_000 + at for at in range(sum(lengths) - left)]
    assert sum(unit.work.tokens_out for unit in units) + (builder.work.tokens_out if builder.work else 0) == 7 * len(
        lengths
    )
    assert all(95 <= len(unit.series) <= 105 for unit in units)
    assert all(before.last_seq <= after.first_seq for before, after in pairwise(units))


def test_a_missing_window_drops_the_begun_unit() -> None:
    builder, _, _ = fed(UnitBuilder(unit_ns=UNIT), window(0, 50), 0, 50, 0)
    builder, units, (defect,) = fed(builder, None, 50, 70, 1)
    assert (units, builder.begun.sources, defect.kind, defect.channel) == ((), (), "missing", None)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (window(50, 100, offsets=tuple(at * PERIOD for at in (*range(30), *range(40, 60)))), "gap"),
        (window(50, 100, events=(Event(3, EventKind.STALL, None),)), "stall"),
        (window(50, 100, events=(Event(3, EventKind.CLOCK_STEP, None),)), "clock_step"),
        (window(50, 100, channels={"power": Channel("mW", (None,) * 50)}), "missing"),
        (window(50, 100, channels={"power": Channel("W", (1,) * 50)}), "unit"),
        (window(50, 100, channels={"power": Channel("mW", (-1,) * 50)}), "sentinel"),
        (window(40, 90), "unsorted"),
        (window(50, 100, offsets=()), "missing"),
        (window(50, 100, period_ns=PERIOD + 1), "source"),
        (window(52, 102), "gap"),
        (window(50, 97), "gap"),
        (window(50, 104), "clock_step"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_defect_drops_the_begun_unit(source: Source, kind: str) -> None:
    builder, _, _ = fed(UnitBuilder(unit_ns=UNIT), window(0, 50), 0, 50, 0)
    builder, units, defects = fed(builder, source, 50, 100, 1)
    assert kind in {defect.kind for defect in defects if defect.breaks}
    assert (units, builder.begun.sources, builder.work, builder.begun.seqs) == ((), (), None, ())


def test_a_defect_of_another_channel_drops_nothing() -> None:
    event = (Event(3, EventKind.FAULT, "temperature"),)
    _, units, (defect,) = fed(UnitBuilder(unit_ns=UNIT), window(0, 100, events=event), 0, 100, 0)
    assert (len(units), defect.kind) == (1, "fault")


def test_a_gap_drops_windows_of_any_length() -> None:
    offsets = tuple(at * PERIOD for at in range(300) if not 150 <= at < 160)
    source = window(0, 290, offsets=offsets)
    builder, units, defects = fed(UnitBuilder(unit_ns=UNIT), source, 0, 300, 4)
    assert [defect.kind for defect in defects] == ["gap"]
    assert (units, builder.begun.sources) == ((), ())
    assert builder.last_ns == START_NS + 299 * PERIOD


@pytest.mark.parametrize("interval", [(START_NS, START_NS), (START_NS + 5, START_NS)])
def test_a_window_that_lasts_nothing_is_a_defect(interval: tuple[int, int]) -> None:
    builder, units, (defect,) = UnitBuilder(unit_ns=UNIT).after(
        Sampled.of(window(0, 1)), DeclaredWork(duration_ns=1), interval, 0
    )
    assert (defect.kind, units, builder.begun.sources) == ("clock_step", (), ())


@pytest.mark.parametrize("step", [PERIOD * 14 // 10, PERIOD * 9 // 10, 1])
def test_samples_come_at_the_rate_that_is_said(step: int) -> None:
    count = 10 * SECOND // step if step > 1 else 200
    source = window(0, count, offsets=tuple(at * step for at in range(count)))
    _, units, defects = fed(UnitBuilder(unit_ns=UNIT), source, 0, 100, 0)
    assert "range" in {defect.kind for defect in defects if defect.breaks}
    assert units == ()


def test_missing_readings_leave_no_piece_of_a_long_window() -> None:
    values = [400_000] * 300
    holes = tuple(None if at in {50, 250} else value for at, value in enumerate(values))
    source = window(0, 300, channels={"power": Channel("mW", holes)})
    _, units, defects = fed(UnitBuilder(unit_ns=UNIT), source, 0, 300, 0)
    assert [defect.kind for defect in defects] == ["missing"]
    assert units == ()


def test_channels_that_a_device_does_not_report_are_cut_too() -> None:
    channels = {"power": Channel("mW", tuple(range(1, 151))), "energy": Channel("mJ", None)}
    builder, units, _ = fed(UnitBuilder(unit_ns=UNIT), window(0, 150, channels=channels), 0, 150, 0)
    assert len(units) == 1
    (rest,) = builder.begun.sources
    assert rest.channels["energy"].values is None
    assert rest.channels["power"].values == tuple(range(101, 151))


@pytest.mark.parametrize("end", [START_NS + 2**80, START_NS + 1])
def test_claims_of_any_length_are_taken(end: int) -> None:
    work = DeclaredWork(duration_ns=end - START_NS)
    builder, units, defects = UnitBuilder(unit_ns=UNIT).after(Sampled.of(window(0, 100)), work, (START_NS, end), 0)
    assert any(defect.breaks for defect in defects)
    assert (units, builder.begun.sources) == ((), ())


def test_no_more_is_kept_than_a_unit_may_have() -> None:
    # At a nanosecond a sample a unit would never be full, and all windows of the session would be kept.
    times = tuple(range(2000))
    channels = {"power": Channel("mW", (300_000,) * 2000)}
    source = Source(device=DEVICE, name="nvml", start_wall_ns=START_NS, period_ns=1, offsets=times, channels=channels)
    work, interval = DeclaredWork(duration_ns=2000), (START_NS, START_NS + 2000)
    builder, units, (defect,) = UnitBuilder(unit_ns=UNIT).after(Sampled.of(source), work, interval, 0)
    assert (units, builder.begun.sources, defect.kind, defect.breaks) == ((), (), "size", True)


def test_no_more_is_kept_than_a_message_may_have() -> None:
    many = {f"c{number}": Channel("1", (1,) * 2000) for number in range(63)}
    builder, kept, kinds = UnitBuilder(unit_ns=100_000 * 1000), 0, set[str]()
    for seq in range(10):
        start = START_NS + seq * 2_000_000
        offsets = tuple(range(0, 2_000_000, 1000))
        source = Source(device=DEVICE, name="adc", start_wall_ns=start, period_ns=1000, offsets=offsets, channels=many)
        builder, _, defects = builder.after(
            Sampled.of(source), DeclaredWork(duration_ns=1), (start, start + 2_000_000), seq
        )
        kept = max(kept, len(builder.begun.sources))
        kinds |= {defect.kind for defect in defects}
    assert kinds == {"size"}
    assert kept == 2**20 // (2000 * 64)


def test_a_unit_lasts() -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        UnitBuilder(unit_ns=0)


def recorded(*pieces: tuple[int, int], without: range = range(0)) -> list[tuple[int, int, int]]:
    """The units of a recording whose windows have these samples: first and last window, length."""
    trace = record("decode", 3)
    scope = Scope(
        gpu_model="H100", driver="1", vbios=None, engine="x", model=None, workload="w", power_limit_mw=700_000
    )
    windows: list[RecordedWindow] = []
    for first, last in pieces:
        source = trace.part(first, last).source()
        kept = [at for at in range(last - first) if first + at not in without]
        channels = {
            name: replace(channel, values=tuple(channel.values[at] for at in kept))
            for name, channel in source.channels.items()
            if channel.values is not None
        }
        source = replace(source, offsets=tuple(source.offsets[at] for at in kept), channels=channels)
        windows.append(
            RecordedWindow(
                telemetry=Telemetry(session=bytes(16), seq=0, sources=(source,)).encode(),
                work=WorkSummary.empty(),
                start_ns=START_NS + first * PERIOD,
                end_ns=START_NS + last * PERIOD,
            )
        )
    recording = Recording(origin="host", label="x", scope=scope, windows=tuple(windows))
    assert units_of(recording, bytes(32), UNIT) == []
    return [(unit.first_seq, unit.last_seq, len(unit.series)) for unit in units_of(recording, DEVICE, UNIT)]


def test_units_of_a_recording() -> None:
    assert recorded((0, 100), (100, 300)) == [(0, 0, 100), (1, 1, 100), (1, 1, 100)]
    # What follows a gap, or lies between two, is kept; what was begun before it is not.
    assert recorded((0, 50), (150, 250), (250, 350)) == [(1, 1, 100), (2, 2, 100)]
    assert recorded((0, 300), (300, 400), without=range(120, 130)) == [(0, 0, 100), (0, 0, 100), (1, 1, 100)]
    assert recorded((0, 300), without=range(150, 250)) == [(0, 0, 100)]
