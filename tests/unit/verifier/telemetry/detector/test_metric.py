"""Distances: shrunk covariance as others compute it, whole numbers that are exact, levels that count no further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf as reference  # type: ignore[import-untyped]  # scikit-learn has no types

from weighbridge.proto.profile import FEATURES
from weighbridge.verifier.telemetry.detector.covariance import ledoit_wolf
from weighbridge.verifier.telemetry.detector.metric import CLIP, Metric, middle

if TYPE_CHECKING:
    from numpy.typing import NDArray


@given(st.integers(2, 60), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_shrinks_as_scikit_learn_does(count: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    samples = random.normal(size=(count, width)) @ random.normal(size=(width, width)) + random.normal(size=width)
    covariance, shrinkage = ledoit_wolf(samples)
    expected, amount = reference(samples)
    assert covariance == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert shrinkage == pytest.approx(amount, rel=1e-9, abs=1e-12)


def test_samples_that_are_all_the_same_have_no_spread() -> None:
    covariance, shrinkage = ledoit_wolf(np.ones((5, 3)))
    assert shrinkage == 1
    assert not covariance.any()


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="two samples"):
        ledoit_wolf(np.ones((1, 3)))


def units(seed: int, count: int = 60) -> NDArray[np.int64]:
    random = np.random.default_rng(seed)
    return np.rint(random.normal(400_000, 4000, (count, FEATURES)) * 1e6).astype(np.int64)


def test_a_distance_is_exact() -> None:
    metric = Metric.fit(units(1), 400_000, 100)
    for row in np.clip(metric.scaled(units(2, 5)), -CLIP, CLIP).tolist():
        precision = [[int(entry) for entry in line] for line in metric.precision.tolist()]
        total = sum(row[i] * precision[i][j] * row[j] for i in range(FEATURES) for j in range(FEATURES))
        assert metric.distance(row) == max(0, total) // 10**9


def test_arrays_are_kept_as_they_are() -> None:
    metric = Metric.fit(units(1), 400_000, 100)
    for array in (metric.centre, metric.scale, metric.precision):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_units_of_one_kind_are_near_and_others_far() -> None:
    metric = Metric.fit(units(1), 400_000, 100)
    near = metric.distance(np.clip(metric.scaled(units(3, 1))[0], -CLIP, CLIP).tolist())
    far = metric.distance(np.clip(metric.scaled(units(3, 1)[0] + 20_000 * 10**6), -CLIP, CLIP).tolist())
    assert far > 5 * near


def test_a_scale_is_never_less_than_runs_of_one_machine_differ_by() -> None:
    still = np.full((20, FEATURES), 400_000 * 10**6, dtype=np.int64)
    metric = Metric.fit(still, 400_000, 100)
    assert metric.scale[0] == 2_000 * 10**6


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([[1, 9]], (1, 9)), ([[1, 9], [4, 0]], (2, 4)), ([[3, 0], [1, 0], [2, 7]], (2, 0)), ([[-1], [-2]], (-2,))],
)
def test_the_middle_is_the_median_rounded_down(rows: list[list[int]], expected: tuple[int, ...]) -> None:
    assert middle(rows) == expected
