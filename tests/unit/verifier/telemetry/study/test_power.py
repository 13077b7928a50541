"""What the instrument tells apart: hidden work, and not another seed; too few runs, other rates and gaps are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.runs import GPU, record_run
from weighbridge.proto.errors import Code, Indeterminate, PolicyDenied
from weighbridge.proto.recording import Recording
from weighbridge.verifier.telemetry.study.power import RUNS_MIN, tell_apart

Named = tuple[str, Recording]


def named(first: int, count: int, **changes: float) -> list[Named]:
    """Every other seed: two conditions are recorded in turns."""
    extra = changes.get("extra_w", 0.0)
    return [(f"run {seed}", record_run(seed, windows=6, extra_w=extra)) for seed in range(first, first + 2 * count, 2)]


def test_hidden_work_is_told_apart() -> None:
    fits: list[None] = []
    found = tell_apart(named(1, 12), named(2, 8, extra_w=30.0), GPU, told=lambda: fits.append(None))
    assert len(fits) == 13
    assert found.answer == "yes"
    assert found.residual_w.low < 30 < found.residual_w.high
    assert found.detected == (8, 8)
    assert found.effects[0].size > 5
    assert found.interleaved
    assert 0 < found.bound < 0.1


def test_nothing_is_chance() -> None:
    found = tell_apart(named(1, 12), named(2, 12), GPU)
    assert found.answer == "no"
    assert found.detected[0] <= 1


def test_work_that_declares_more_and_draws_more_is_no_difference() -> None:
    a = [(f"a {seed}", record_run(seed, windows=6, busy=(4, 32))) for seed in range(1, 17, 2)]
    b = [(f"b {seed}", record_run(seed, windows=6, busy=(16, 32))) for seed in range(2, 18, 2)]
    found = tell_apart(a, b, GPU)
    assert found.power_w.low > 3
    assert found.residual_w.low < 0 < found.residual_w.high
    assert found.answer != "yes"
    assert found.outside == 0


def test_work_beyond_what_a_declared_says_nothing() -> None:
    b = [(f"b {seed}", record_run(seed, windows=6, busy=(60, 64))) for seed in (2, 4, 6)]
    found = tell_apart(named(1, 8), b, GPU)
    assert found.outside == 1.0
    assert found.detected[0] == 0
    assert found.answer == "cannot_say"


def test_few_runs_of_a_are_refused() -> None:
    with pytest.raises(Indeterminate) as caught:
        _ = tell_apart(named(1, RUNS_MIN - 1), named(2, 3), GPU)
    assert caught.value.code is Code.BASELINE_RUNS


def test_runs_at_other_rates_are_refused() -> None:
    label, run = named(2, 1)[0]
    telemetry = run.windows[0].readings()
    sources = (replace(telemetry.sources[0], period_ns=200_000_000),)
    windows = (replace(run.windows[0], telemetry=replace(telemetry, sources=sources).encode()), *run.windows[1:])
    with pytest.raises(PolicyDenied) as caught:
        _ = tell_apart(named(1, 3), [(label, replace(run, windows=windows))], GPU)
    assert caught.value.code is Code.BASELINE_SCOPE


def test_a_run_of_no_whole_unit_is_refused() -> None:
    label, run = named(2, 1)[0]
    telemetry = run.windows[0].readings()
    channels = {name: replace(channel, values=None) for name, channel in telemetry.sources[0].channels.items()}
    sources = (replace(telemetry.sources[0], channels=channels),)
    windows = (replace(run.windows[0], telemetry=replace(telemetry, sources=sources).encode()),)
    with pytest.raises(Indeterminate) as caught:
        _ = tell_apart(named(1, 3), [(label, replace(run, windows=windows))], GPU)
    assert (caught.value.code, caught.value.where) == (Code.RECORDING_EMPTY, label)
