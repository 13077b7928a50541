"""Intervals and tests of runs: against published values, by simulation, and where there is too little to say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from weighbridge.verifier.telemetry.study import intervals
from weighbridge.verifier.telemetry.study.intervals import Interval


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        # SciPy 1.17: scipy.stats.binomtest(hits, trials).proportion_ci()
        (0, 10, 0.0, 0.3084971),
        (5, 10, 0.1870860, 0.8129140),
        (10, 10, 0.6915029, 1.0),
        (1, 20, 0.001265089, 0.2487328),
        (46, 660, 0.05147542, 0.09187431),
        (2, 584, 0.00041501, 0.01231583),
    ],
)
def test_shares_have_the_exact_interval(hits: int, trials: int, low: float, high: float) -> None:
    found = intervals.clopper_pearson(hits, trials)
    assert found.value == hits / trials
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_of_no_trials_nothing_is_known() -> None:
    found = intervals.clopper_pearson(0, 0)
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "trials"), [(-1, 3), (4, 3)])
def test_hits_are_among_the_trials(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match="among"):
        _ = intervals.clopper_pearson(hits, trials)


def test_a_difference_has_welchs_interval() -> None:
    # SciPy 1.17: scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval()
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 5.0, 9.0])
    found = intervals.difference(a, b)
    assert found.value == pytest.approx(3.1666667)
    assert (found.low, found.high) == pytest.approx((-3.4701410, 9.8034743), abs=1e-6)


def test_one_degree_of_freedom_has_students_widest_tail() -> None:
    # Two values at 0 and 2: sd of the mean 1; and a side without spread.
    found = intervals.difference(np.array([0.0, 2.0]), np.array([1.0, 1.0]))
    assert found.high == pytest.approx(12.7062, abs=1e-3)
    assert found.low == -found.high


def test_a_single_run_has_no_interval() -> None:
    assert intervals.difference(np.array([1.0]), np.array([2.0, 3.0])) == Interval(1.5, -math.inf, math.inf)
    assert intervals.difference(np.array([1.0, 1.0]), np.array([2.0, 2.0])) == Interval(1.0, 1.0, 1.0)


def test_a_median_has_the_interval_of_its_ranks() -> None:
    # Of ten values, the second and the ninth: 97.9 % (Conover 1999, table A3).
    assert intervals.median_interval(range(1, 11)) == Interval(5.5, 2, 9)
    assert intervals.median_interval([3.0, 1.0, math.inf]) == Interval(3.0, 0.0, math.inf)
    assert math.isnan(intervals.median_interval([]).value)
    assert math.isinf(intervals.median_interval([1.0, math.inf]).value)


def test_the_area_counts_ties_half() -> None:
    low, high = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    assert intervals.auroc(low, high) == 1.0
    assert intervals.auroc(high, low) == 0.0
    assert intervals.auroc(low, low) == 0.5
    assert intervals.auroc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert math.isnan(intervals.auroc(low, np.array([])))


def test_whole_runs_are_drawn_again_and_alike_each_time() -> None:
    a, b = np.arange(8.0), np.arange(8.0) + 4

    def area(first: np.typing.NDArray[np.int64], second: np.typing.NDArray[np.int64]) -> float:
        return intervals.auroc(a[first], b[second])

    found = intervals.bootstrap(area, 8, 8)
    assert found == intervals.bootstrap(area, 8, 8)
    assert found[0] < intervals.auroc(a, b) < found[1]
    assert all(map(math.isnan, intervals.bootstrap(lambda _, __: math.nan, 2, 2)))


def test_all_arrangements_of_few_runs_are_there() -> None:
    found = intervals.permutations(3, 3)
    assert found.exact
    assert found.labels.shape == (20, 6)
    assert found.labels[0].tolist() == [False] * 3 + [True] * 3
    assert len({tuple(row) for row in found.labels.tolist()}) == 20
    assert (found.labels.sum(axis=1) == 3).all()
    assert found.smallest == 0.05


def test_of_many_runs_some_are_drawn() -> None:
    found = intervals.permutations(12, 12)
    assert not found.exact
    assert found.labels.shape[0] == intervals.ARRANGEMENTS_MAX
    assert (found.labels.sum(axis=1) == 12).all()
    assert np.array_equal(found.labels, intervals.permutations(12, 12).labels)


def test_p_values_are_uniform_where_there_is_nothing() -> None:
    rng = np.random.default_rng(7)
    ways = intervals.permutations(4, 4)
    small = 0
    for _ in range(600):
        values = rng.normal(size=8)
        means = np.abs(ways.labels @ values / 4 - (~ways.labels) @ values / 4)
        small += ways.p_value(means) <= 0.1
    # 2 of 35 distinct pairs of arrangements: exactly 6 of 70 are at most 0.1. Five standard deviations about it.
    assert 600 * 6 / 70 - 35 < small < 600 * 6 / 70 + 35
