"""Labels of windows: consecutive, never overlapping, never ahead of the verifier."""

from __future__ import annotations

import asyncio

import pytest

from fakes.virtual_time import NOON_NS, VirtualClock
from weighbridge.attester.clock import SystemClock, WallTimeline
from weighbridge.proto.errors import Code, EnvironmentFault

SECOND = 1_000_000_000


def timeline(*, ahead: int = 0) -> tuple[VirtualClock, WallTimeline]:
    clock = VirtualClock()
    return clock, WallTimeline(clock, verifier_ns=NOON_NS - ahead)


def test_intervals_follow_one_another() -> None:
    clock, line = timeline()
    clock.elapsed_ns += SECOND
    assert line.cut() == (NOON_NS, NOON_NS + SECOND)
    clock.elapsed_ns += 3 * SECOND
    assert line.cut() == (NOON_NS + SECOND, NOON_NS + 4 * SECOND)


@pytest.mark.parametrize("step", [SECOND, 3600 * SECOND])
def test_a_step_behind_the_last_cut_is_refused(step: int) -> None:
    clock, line = timeline()
    clock.elapsed_ns += SECOND
    clock.skew_ns = -step
    with pytest.raises(EnvironmentFault) as caught:
        line.cut()
    assert caught.value.code is Code.CLOCK_STEPPED
    assert "set back" in caught.value.message


def test_a_step_back_within_a_window_is_refused_before_the_verifier_has_to() -> None:
    # Samples go by the monotonic clock: they would lie outside of the window's label, and that sticks to the host.
    clock, line = timeline()
    clock.elapsed_ns += 10 * SECOND
    clock.skew_ns = -SECOND // 2
    assert line.cut() == (NOON_NS, NOON_NS + 9 * SECOND + SECOND // 2)
    clock.elapsed_ns += 10 * SECOND
    clock.skew_ns = -4 * SECOND
    with pytest.raises(EnvironmentFault) as caught:
        line.cut()
    assert caught.value.code is Code.CLOCK_STEPPED
    assert "set back within a window" in caught.value.message


def test_a_clock_that_runs_ahead_of_the_verifier_is_refused_before_the_verifier_has_to() -> None:
    clock, line = timeline(ahead=3 * SECOND - 1)
    clock.elapsed_ns += SECOND
    line.cut()
    clock.elapsed_ns += SECOND
    clock.skew_ns = SECOND
    with pytest.raises(EnvironmentFault) as caught:
        line.cut()
    assert caught.value.code is Code.CLOCK_STEPPED
    assert "ahead" in caught.value.message


def test_what_an_answer_says_of_the_verifiers_clock_counts() -> None:
    clock, line = timeline(ahead=10 * SECOND)
    clock.elapsed_ns += SECOND
    line.heard(clock.true_ns())
    clock.elapsed_ns += SECOND
    assert line.cut() == (NOON_NS, NOON_NS + 2 * SECOND)


def test_two_good_clocks_may_drift_apart_while_the_line_is_cut() -> None:
    clock, line = timeline(ahead=3 * SECOND)
    clock.elapsed_ns += 86_400 * SECOND
    clock.skew_ns = 8 * SECOND
    line.cut()


@pytest.mark.asyncio
async def test_the_systems_clock() -> None:
    clock = SystemClock()
    before = clock.monotonic_ns()
    await clock.sleep_until(before + 2_000_000)
    assert clock.monotonic_ns() >= before + 2_000_000
    async with asyncio.timeout(1):
        await clock.sleep_until(0)
    assert abs(clock.wall_ns() - clock.wall_ns()) < SECOND


def test_how_far_behind_is_known_at_least() -> None:
    clock, line = timeline(ahead=-30 * SECOND)
    assert line.behind_ns() == 30 * SECOND
    clock.elapsed_ns += SECOND
    assert line.behind_ns() == 30 * SECOND
    # The answer took a second on its way: by that much the clock may lag more.
    line.heard(NOON_NS + 30 * SECOND)
    assert line.behind_ns() == 29 * SECOND
    clock.skew_ns = 60 * SECOND
    assert line.behind_ns() < 0
