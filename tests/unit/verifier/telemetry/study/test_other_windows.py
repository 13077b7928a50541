"""Sessions whose windows are not as long as those of the baseline's runs: an honest one stays in it, however long.

The configuration is the demonstration's: two emulated GPUs, runs of 200 s in windows of ten, sessions in windows of
one. No rate follows from emulated devices.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import pytest

from weighbridge.attester.telemetry.emulated import EmulatedTelemetry, made_up
from weighbridge.attester.telemetry.emulated_load import LoadRange, by_the_second
from weighbridge.attester.telemetry.recorder import Plan, recorded_nominally
from weighbridge.proto.digest import sha256
from weighbridge.proto.recording import Recording
from weighbridge.proto.scope import Scope
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.telemetry.study.fitting import Settings, fit
from weighbridge.verifier.telemetry.study.judging import judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.proto.profile import Profile

SECOND: Final = 1_000_000_000
START: Final = 1_790_000_000 * SECOND
GPUS: Final = made_up(2)
SCOPE: Final = Scope(gpu_model="H100", driver="580", engine="emulated", workload="embeddings")
# A block of units, and a part of the next.
WINDOWS: Final = 210


def run(number: int, plan: Plan) -> Recording:
    source = EmulatedTelemetry(7, GPUS, run=number)
    windows = tuple(recorded_nominally(source, plan, start_ns=START + number * 1000 * SECOND))
    return Recording(origin="emulated", label=f"run {number}", scope=SCOPE, windows=windows)


@lru_cache(maxsize=1)
def profile() -> Profile:
    """As ``telemetry record --load 40+0..240+0 --seconds 200 --idle 10 --emulated-runs 12`` makes the runs."""
    load = LoadRange.parse("40+0..240+0")

    def plan(number: int) -> Plan:
        rng = random.Random(number)

        def work(window: int) -> WorkSummary:
            return load.draw(rng, 10 * SECOND) if window else WorkSummary.empty()

        return Plan(20, 10 * SECOND, work, lambda work: by_the_second(rng, work, 10))

    return fit([run(number, plan(number)) for number in range(12)], GPUS[0], Settings())


def tokens(count: int, *, beside: int = 0) -> WorkSummary:
    if not count:
        return IDLE
    return WorkSummary(root=sha256(b"leaf"), requests=1, tokens_in=count, tokens_out=beside, batch_max=6)


IDLE: Final = WorkSummary.empty()
# What the demonstration's server embeds in each second: 48 lines of text, six at a time, again and again.
LINES: Final = (74, 91, 83, 98, 79, 88, 72, 95)


def arrivals(number: int) -> int:
    """Six requests of some 14 tokens a second on average, as they happen to come."""
    rng = random.Random(number)
    return sum(rng.randint(7, 21) for _ in range(12) if rng.random() < 0.5)


@pytest.mark.parametrize(
    ("number", "served"),
    [(100, lambda number: LINES[number % 8]), (101, lambda _: 85), (100, arrivals), (101, arrivals)],
    ids=["the demonstration's", "even", "as they come", "as they come to another run"],
)
def test_an_honest_session_of_short_windows_stays_in_the_baseline(number: int, served: Callable[[int], int]) -> None:
    plan = Plan(WINDOWS, SECOND, lambda window: tokens(served(window) if window > 2 else 0))
    judged = judge(run(number, plan), profile(), baseline=bytes(32))
    said = judged.appraisal
    assert (said.verdict, said.why, said.units) == ("in_baseline", "", WINDOWS // 10)
    # What was the first full block of it, in what the baseline's runs come to: far from the limit.
    assert (said.score or 0) * 2 < (said.threshold or 0)
    # A gambler against it has lost nearly all.
    assert (said.e_log10_milli or 0) < -500
    assert {unit.verdict for unit in judged.units} == {"in_baseline"}
    assert len(judged.scored) == WINDOWS // 10


def test_hidden_work_in_short_windows_does_not() -> None:
    """600 tokens a second that nobody declares, from the second unit on."""
    source = EmulatedTelemetry(7, GPUS, run=200)
    real = Plan(60, SECOND, lambda window: tokens(LINES[window % 8], beside=600 if window >= 20 else 0))
    done = list(recorded_nominally(source, real, start_ns=START))
    windows = tuple(replace(window, work=tokens(LINES[number % 8])) for number, window in enumerate(done))
    hidden = Recording(origin="emulated", label="hidden", scope=SCOPE, windows=windows)
    judged = judge(hidden, profile(), baseline=bytes(32))
    assert judged.appraisal.verdict == "out_of_baseline"
    assert judged.alarm == 2
