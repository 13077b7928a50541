"""From a verified bundle to what is shown: each number is the one that the verdict or the samples say."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from corpus.bundle import Exported, export, exported
from corpus.telemetry import sensing
from support.baseline_owners import made_up
from support.sensors import reading
from support.views import AGAIN
from weighbridge.verifier.report.gather import gather
from weighbridge.verifier.telemetry.physics import Finding
from weighbridge.verifier.telemetry.state import DeviceState, TelemetryState

if TYPE_CHECKING:
    from corpus.arena import Arena
    from weighbridge.verifier.bundle import BundleVerdict, BundleWindow
    from weighbridge.verifier.report.view import SessionView
    from weighbridge.verifier.telemetry.state import DeviceAppraisal


def view(result: BundleVerdict, made: Exported) -> SessionView:
    return gather(result, made.bundle, judged_by=["recorded"], rests_on="its word", again=AGAIN)


def judged(window: BundleWindow, **changes: object) -> BundleWindow:
    """``window``, whose first GPU was compared with a baseline."""
    verdict = window.verdict
    assert verdict is not None
    assert verdict.physical is not None
    first, *rest = verdict.physical.devices
    said: DeviceAppraisal = replace(first, **changes)  # type: ignore[arg-type] # a test names fields
    states = TelemetryState(MappingProxyType({first.device: DeviceState(profile=made_up())}))
    physical = replace(verdict.physical, devices=(said, *rest), state=states)
    return replace(window, verdict=replace(verdict, physical=physical))


@pytest.fixture
def made(arena: Arena) -> Exported:
    return exported(arena, windows=4)


def test_a_session(made: Exported) -> None:
    result = made.verify()
    shown = view(result, made)
    assert (shown.standing, shown.model_name, shown.emulated) == ("admitted", "tiny", True)
    assert (shown.seconds, shown.period) == (4.0, 1.0)
    assert [(row.start, row.end, row.outcome, row.shown) for row in shown.rows] == [
        (seq, seq + 1, "affirmed", True) for seq in range(4)
    ]
    assert [gpu.identity for gpu in shown.gpus] == [report.identity.hex() for report in result.gpus]
    assert shown.checks == result.checks
    assert shown.not_proven == result.not_proven
    assert shown.checkpoint.startswith("ledger.example/test\n")
    for gpu in shown.gpus:
        assert [word for _, _, word in gpu.words] == ["no_baseline"] * 4
        assert set(gpu.traces) == {"power", "temperature", "memory_temperature", "sm_clock"}
        assert (gpu.alarm, gpu.units) == (None, ())


def test_samples_are_drawn_where_they_were_taken(arena: Arena) -> None:
    world = arena.settled(2)
    # In the third window: 10 W more with every sample.
    sensing(world, lambda source: reading(source, power=lambda at, _: 100_000 + 10_000 * at))
    world.window()
    arena.forget()
    made = Exported(arena.engines, world, export(world))
    shown = view(made.verify(), made)
    power = shown.gpus[0].traces["power"]
    columns = power.envelope.known.nonzero()[0]
    last = power.envelope.high[columns[columns >= 240]]
    assert last.tolist() == [100.0 + 10 * at for at in range(10)]
    assert power.most == 190
    assert power.reach >= 12


def test_what_a_baseline_says(made: Exported) -> None:
    result = made.verify()
    finding = Finding(check="cap", channel="power", verdict="unusable", expected="<= 700 W", got="800 W", at_ns=0)
    scored = {"explained_mw": 430_000, "residual_mw": -1_500, "e_log10_milli": 250, "smallest_deviation_mw": 9_000}
    windows = (
        judged(result.windows[0], verdict="unusable", why="1.0 of 2 s", units=0, findings=(finding,)),
        judged(result.windows[1], verdict="in_baseline", units=1, first_seq=0, last_seq=1, **scored),
        judged(result.windows[2], verdict="in_baseline", units=1, first_seq=0, last_seq=1, **scored),
        judged(result.windows[3], verdict="out_of_baseline", why="it is", units=2, first_seq=2, last_seq=3, **scored),
    )
    gpu = view(replace(result, windows=windows), made).gpus[0]
    assert [word for _, _, word in gpu.words] == ["unusable", "in_baseline", "in_baseline", "out_of_baseline"]
    assert gpu.why == "it is"
    assert [(unit.start, unit.end) for unit in gpu.units] == [(0, 2), (2, 4)]
    unit = gpu.units[0]
    assert (unit.explained, unit.residual, unit.reach, unit.evidence) == (430, -1.5, 9, 0.25)
    assert gpu.alarm == pytest.approx(2)
    assert [item.got for item in gpu.findings] == ["800 W"]


def test_what_is_not_shown(made: Exported) -> None:
    result = made.verify()
    hidden = replace(result.windows[1], verdict=None, header=None, samples=None)
    shown = view(replace(result, windows=(result.windows[0], hidden, *result.windows[2:]), withheld=1), made)
    assert shown.standing == "withheld"
    row = shown.rows[1]
    assert (row.outcome, row.word, row.shown) == ("recorded", None, False)
    assert row.reasons[0].message == "recorded as affirmed: that is the verifier's word"
    # By the verifier's clock, as there is no other.
    assert row.end - row.start == 1
    assert view(replace(result, windows=()), made).rows == ()


def test_a_window_that_was_refused(made: Exported) -> None:
    result = made.verify()
    first = result.windows[0]
    assert first.verdict is not None
    refused = replace(first, header=None, samples=None, verdict=replace(first.verdict, outcome="denied", physical=None))
    shown = view(replace(result, windows=(refused,)), made)
    assert shown.standing == "denied"
    assert shown.rows[0].outcome == "denied"
    assert shown.gpus[0].words == ()
    assert shown.gpus[0].traces == {}
