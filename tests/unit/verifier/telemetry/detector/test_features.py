"""Features: thirty-two finite numbers of any series, the same however it is computed, and levels that move alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto.profile import FEATURE_STEP, FEATURES
from weighbridge.verifier.telemetry.detector.features import LEVELS, NAMES, features, floors, residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STEP = FEATURE_STEP


def wave(samples: int = 100, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    found: Floats = np.round(450_000 + 9_000 * np.sin(np.arange(samples) * 0.7) + random.normal(0, 1_500, samples))
    return found


def named(series: Floats) -> dict[str, float]:
    return dict(zip(NAMES, (features(series) / STEP).tolist(), strict=True))


def test_each_feature_has_a_name() -> None:
    assert len(NAMES) == len(set(NAMES)) == FEATURES


def test_they_are_what_they_are_called() -> None:
    series = wave()
    found = named(series)
    steps = np.diff(series)
    for name, expected in {
        "mean": series.mean(),
        "spread": np.log(series.std() + 1),
        "quantile 2 %": np.quantile(series, 0.02),
        "quantile 50 %": np.median(series),
        "quantile 98 %": np.quantile(series, 0.98),
        "minimum": series.min(),
        "maximum": series.max(),
        "step, mean": np.log(np.abs(steps).mean() + 1),
        "step, spread": np.log(steps.std() + 1),
        "step, largest": np.log(np.abs(steps).max() + 1),
        "skewness": ((series - series.mean()) ** 3).mean() / series.std() ** 3,
        "tails": ((series - series.mean()) ** 4).mean() / series.std() ** 4 - 3,
        "slope": np.polyfit(np.arange(100), series, 1)[0],
        "halves": series[50:].mean() - series[:50].mean(),
        "repeats": 0.0,
    }.items():
        assert found[name] == pytest.approx(float(expected), abs=2e-6, rel=1e-9), name


def test_a_constant_series_has_features() -> None:
    found = named(np.full(100, 450_000.0))
    assert found["mean"] == found["minimum"] == found["maximum"] == 450_000
    assert found["spread"] == found["skewness"] == found["tails"] == 0
    assert found["repeats"] == 1


def test_a_rhythm_is_in_one_band() -> None:
    slow, fast = (named(450_000 + 9_000 * np.sin(2 * np.pi * np.arange(100) * f / 100)) for f in (2, 40))
    assert slow["spectral centre"] == pytest.approx(0.04, abs=0.02)
    assert fast["spectral centre"] == pytest.approx(0.8, abs=0.02)
    assert slow["crossings"] < fast["crossings"]
    assert fast["band 5"] > slow["band 5"]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=16, max_size=200))
def test_any_series_has_bounded_features(values: list[int]) -> None:
    found = features(np.array(values, dtype=np.float64))
    assert found.shape == (FEATURES,)
    assert int(np.abs(found).max()) <= 10**15


@given(st.integers(16, 300), st.integers(0, 100), st.integers(-200_000, 200_000))
def test_what_is_explained_is_taken_from_the_levels_alone(samples: int, seed: int, explained: int) -> None:
    found = features(wave(samples, seed))
    less = residual(found, explained)
    for place in range(FEATURES):
        assert int(found[place] - less[place]) == (explained * STEP if place in LEVELS else 0)
    rows = residual(np.stack([found, found]), np.array([explained, 0], dtype=np.int64))
    assert (rows[0] == less).all()
    assert (rows[1] == found).all()


def test_they_are_those_of_the_residual_itself() -> None:
    """Taking a constant from the levels, or from every sample, is the same."""
    series = wave()
    apart = residual(features(series), 400_000) - features(series - 400_000)
    assert int(np.abs(apart).max()) <= 1


def test_scales_have_floors_of_the_device_s_own_size() -> None:
    small, large = floors(100_000, 100), floors(700_000, 100)
    assert small[0] == 500
    assert large[0] == 3_500
    assert (small > 0).all()
