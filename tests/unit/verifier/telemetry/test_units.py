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
from weighbridge.verifier.telemetry.series import Defect
from weighbridge.verifier.telemetry.units import Unit, UnitBuilder, units_of
from weighbridge.verifier.telemetry.work import DeclaredWork

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
    return builder.after(source, work, (START_NS + first * PERIOD, START_NS + last * PERIOD), seq)


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
    assert len(builder.pending) == 2


def test_long_windows_are_cut_in_equal_pieces() -> None:
    units, _, _ = run([300, 250])
    assert [len(unit.series) for unit in units] == [100, 100, 100, 125, 125]
    assert [(unit.first_seq, unit.last_seq) for unit in units] == [(0, 0)] * 3 + [(1, 1)] * 2
    assert [unit.work.tokens_out for unit in units] == [2, 2, 3, 3, 4]
    assert sum(unit.work.duration_ns for unit in units) == 55 * SECOND


def test_a_unit_may_begin_in_one_window_and_end_in_another() -> None:
    units, _, _ = run([90, 250])
    assert [(unit.first_seq, unit.last_seq) for unit in units] == [(0, 1), (1, 1), (1, 1)]


def test_a_window_that_jitters_is_a_unit() -> None:
    units, _, _ = run([97, 103, 100])
    assert [len(unit.series) for unit in units] == [97, 103, 100]


def test_a_builder_is_not_changed() -> None:
    begun, _, _ = fed(UnitBuilder(unit_ns=UNIT), window(0, 50), 0, 50, 0)
    for _ in range(2):
        after, units, _ = fed(begun, window(50, 100), 50, 100, 1)
        assert [len(unit.series) for unit in units] == [100]
        assert after.pending == ()
    assert len(begun.pending) == 1


@given(st.lists(st.integers(min_value=1, max_value=330), min_size=1, max_size=20))
def test_no_sample_and_no_work_is_lost_or_doubled(lengths: list[int]) -> None:
    units, defects, builder = run(lengths)
    assert defects == []
    values = [value for unit in units for value in unit.series.channels["power"].tolist()]
    left = sum(len(source.offsets) for source in builder.pending)
    assert values == [400_000 + at for at in range(sum(lengths) - left)]
    assert sum(unit.work.tokens_out for unit in units) + (builder.work.tokens_out if builder.work else 0) == 7 * len(
        lengths
    )
    assert all(95 <= len(unit.series) < 200 + max(lengths) for unit in units)
    assert all(before.last_seq <= after.first_seq for before, after in pairwise(units))


def test_a_missing_window_drops_the_begun_unit() -> None:
    builder, _, _ = fed(UnitBuilder(unit_ns=UNIT), window(0, 50), 0, 50, 0)
    builder, units, (defect,) = fed(builder, None, 50, 70, 1)
    assert (units, builder.pending, defect.kind, defect.channel) == ((), (), "missing", None)


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
    assert (units, builder.pending, builder.work) == ((), (), None)


def test_a_defect_of_another_channel_drops_nothing() -> None:
    event = (Event(3, EventKind.FAULT, "temperature"),)
    _, units, (defect,) = fed(UnitBuilder(unit_ns=UNIT), window(0, 100, events=event), 0, 100, 0)
    assert (len(units), defect.kind) == (1, "fault")


def test_long_windows_keep_their_sound_pieces() -> None:
    offsets = tuple(at * PERIOD for at in range(300) if not 150 <= at < 160)
    source = window(0, 290, offsets=offsets)
    builder, units, defects = fed(UnitBuilder(unit_ns=UNIT), source, 0, 300, 4)
    assert [defect.kind for defect in defects] == ["gap"]
    assert [unit.series.channels["power"][0] for unit in units] == [400_000, 400_190]
    assert builder.last_ns == START_NS + 299 * PERIOD


@pytest.mark.parametrize("interval", [(START_NS, START_NS), (START_NS + 5, START_NS)])
def test_a_window_that_lasts_nothing_is_a_defect(interval: tuple[int, int]) -> None:
    builder, units, (defect,) = UnitBuilder(unit_ns=UNIT).after(window(0, 1), DeclaredWork(duration_ns=1), interval, 0)
    assert (defect.kind, units, builder.pending) == ("clock_step", (), ())


def test_claims_of_any_length_are_taken() -> None:
    far = (START_NS, START_NS + 2**80)
    _, units, defects = UnitBuilder(unit_ns=UNIT).after(window(0, 100), DeclaredWork(duration_ns=2**80), far, 0)
    assert [defect.kind for defect in defects] == ["gap"]
    assert sum(len(unit.series) for unit in units) <= 100


def test_windows_without_end_are_not_collected_without_end() -> None:
    builder, wrong = UnitBuilder(unit_ns=2**60), list[Defect]()
    sizes: list[int] = []
    for seq in range(4097):
        builder, _, defects = fed(builder, window(seq, seq + 1), seq, seq + 1, seq)
        wrong += defects
        sizes.append(len(builder.pending))
    assert max(sizes) < 4096
    assert wrong == []


def test_a_unit_lasts() -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        UnitBuilder(unit_ns=0)


def test_units_of_a_recording() -> None:
    trace = record("decode", 3)
    scope = Scope(
        gpu_model="H100", driver="1", vbios=None, engine="x", model=None, workload="w", power_limit_mw=700_000
    )
    windows = tuple(
        RecordedWindow(
            telemetry=Telemetry(session=bytes(16), seq=0, sources=(trace.part(first, first + 100).source(),)).encode(),
            work=WorkSummary.empty(),
            start_ns=START_NS + first * PERIOD,
            end_ns=START_NS + (first + 100) * PERIOD,
        )
        for first in (0, 100, 300, 400)
    )
    recording = Recording(origin="host", label="x", scope=scope, windows=windows)
    units = units_of(recording, DEVICE, UNIT)
    # The third follows a gap of ten seconds, and is dropped.
    assert [(unit.first_seq, unit.last_seq, len(unit.series)) for unit in units] == [
        (0, 0, 100),
        (1, 1, 100),
        (3, 3, 100),
    ]
    assert units_of(recording, bytes(32), UNIT) == []
