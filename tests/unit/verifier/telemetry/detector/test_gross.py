"""The early look: what is off by far is seen within three units, wherever it begins, and genuine runs widen it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.baseline_owners import made_up
from weighbridge.proto.profile import FEATURES, Gross
from weighbridge.verifier.telemetry.detector.calibration import ending_ppm, together_ppm
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.detector.gross import (
    CLAIM_PPM,
    LIMITS,
    UPPER,
    gross_of,
    largest,
    off_by,
    passed,
    stray,
    upper,
    widened,
)
from weighbridge.verifier.telemetry.detector.scoring import UnitScore

GROSS = gross_of([], span=20)
PPB = 1_000_000_000


def unit(residual_mw: int, explained_mw: int = 114_000) -> UnitScore:
    """A unit that nothing but its mean power tells from a genuine one."""
    return UnitScore(
        score=30_000,
        p_ppb=PPB,
        residual_mw=residual_mw,
        explained_mw=explained_mw,
        uncertainty_mw=900,
        covered=True,
        leading=(),
        scaled=(0,) * FEATURES,
        level=0,
    )


def alarm_of(residuals: list[int]) -> tuple[int, str | None]:
    """Behind which unit there is an alarm, and which; no block of units is full before the twentieth."""
    runs = tuple(replace(run, scores=(30_000,) * 20) for run in made_up().runs)
    profile, evidence = replace(made_up(), runs=runs), SessionEvidence.start()
    for residual in residuals:
        evidence = evidence.after(unit(residual), profile)
        if evidence.alarm is not None:
            break
    return evidence.units, evidence.alarm


def test_four_limits_claim_four_times_what_one_does() -> None:
    assert Gross(LIMITS, UPPER, CLAIM_PPM, 396, "devices-alike") == GROSS
    assert abs(CLAIM_PPM - 4e6 / 397) < 1
    assert together_ppm(made_up()) == 10_000 + CLAIM_PPM
    assert abs(ending_ppm(made_up()) - CLAIM_PPM / 4) < 1


@pytest.mark.parametrize(
    ("residual_mw", "after", "says"),
    [
        (200_000, 1, "power 175 % above what declared work explains, in the last unit, passed 57 %"),
        (-70_000, 1, "power 61 % below what declared work explains, in the last unit, passed 57 %"),
        (50_000, 2, "power 44 % above what declared work explains, in the last 2 units, passed 37 %"),
        (-25_000, 3, "power 22 % below what declared work explains, in the last 3 units, passed 18 %"),
    ],
)
@pytest.mark.parametrize("genuine", [0, 1, 2, 7])
def test_power_that_is_off_by_far_is_seen_at_once(residual_mw: int, after: int, says: str, genuine: int) -> None:
    """Wherever it begins: a median of two lets half of one pass, and that of three is moved by two."""
    units, alarm = alarm_of([*[0] * genuine, *[residual_mw] * 5])
    assert genuine < units <= genuine + after
    assert alarm is not None
    assert "as in at most 1 % of genuine sessions (gross)" in alarm
    if genuine == 0:
        assert units == after
        assert says in alarm


def test_a_single_unit_may_be_off_by_half_and_power_by_a_sixth() -> None:
    assert alarm_of([64_000, 0, 0] * 4) == (12, None)
    assert alarm_of([20_000, -20_000] * 6) == (12, None)
    assert alarm_of([20_000] * 12) == (12, None)


def test_units_that_are_not_covered_are_not_looked_at() -> None:
    far = replace(unit(500_000), covered=False)
    assert SessionEvidence.start().after(far, made_up()).alarm is None


def test_a_share_is_of_what_is_explained_and_has_a_sign() -> None:
    assert [stray(*pair) for pair in ((114, 114_000), (-114, 114_000), (113, 114_000), (0, 1))] == [1, -1, 0, 0]
    assert stray(5, 0) == stray(5, -7) == 5_000


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=12))
def test_what_is_furthest_in_a_run_is_what_just_does_not_pass(strays: list[int]) -> None:
    one, two, three = (max(1, off) for off in largest(strays))
    quiet = Gross((one, two, three), 1, 1, 1, "a")
    looks = [passed(strays[max(0, end - 3) : end], quiet) for end in range(1, len(strays) + 1)]
    assert looks == [None] * len(strays)
    for size, off in zip((1, 2, 3), largest(strays), strict=True):
        if off > 1:
            limits = [10**6] * 3
            limits[size - 1] = off - 1
            tight = Gross((limits[0], limits[1], limits[2]), 1, 1, 1, "a")
            assert size in {passed(strays[max(0, end - 3) : end], tight) for end in range(1, len(strays) + 1)}


def test_a_median_between_two_is_their_middle() -> None:
    assert [off_by([9, 1, 4], size) for size in (1, 2, 3)] == [4, 2, 4]


def test_runs_of_the_very_device_widen_it() -> None:
    assert widened(GROSS, [[0, 0], [5, -900, 3]], span=2).limits == (900, 449, LIMITS[2])
    assert gross_of([[-300] * 3], span=3).limits == (*LIMITS[:2], 300)
    assert widened(GROSS, [[10] * 20], span=20) == GROSS


def test_the_upper_side_is_that_of_whole_blocks() -> None:
    assert upper([1, 2, 3]) == 3
    assert upper(list(range(10))) == 8
    assert upper([500, *[0] * 17, 600, 7]) == 7
    high = [[0] * 20 + [150] * 3 + [0] * 17, [0] * 39 + [200]]
    assert widened(GROSS, high, span=20).upper == 150
    # What a run has beyond its last full block counts in no block.
    assert widened(GROSS, [[0] * 20 + [150] * 10], span=20).upper == UPPER
    assert widened(GROSS, [[-900] * 20], span=20).upper == UPPER


@pytest.mark.parametrize("every", [3, 5, 6])
@pytest.mark.parametrize("residual_mw", [63_000, 18_000])
def test_what_a_minority_of_units_hides_is_seen_when_the_block_is_full(residual_mw: int, every: int) -> None:
    pattern = [residual_mw if number % every == every - 1 else 0 for number in range(40)]
    units, alarm = alarm_of(pattern)
    assert units == 20
    assert alarm is not None
    assert f"above what declared work explains in {20 // every} of the last 20 units, passed 14 %" in alarm
    assert "(gross)" in alarm


def test_one_unit_in_ten_may_be_above_and_any_number_below() -> None:
    assert alarm_of(([63_000, *[0] * 9]) * 4) == (40, None)
    assert alarm_of([-20_000, -20_000, 0] * 14) == (42, None)
    # The next block begins anew.
    assert alarm_of([63_000 if number in {14, 17, 20, 23} else 0 for number in range(40)]) == (40, None)
