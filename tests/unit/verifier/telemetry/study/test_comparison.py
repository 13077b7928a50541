"""Two conditions compared: what differs is found, chance is called chance, and few runs say nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from weighbridge.verifier.telemetry.study.comparison import Run, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from weighbridge.verifier.telemetry.study.comparison import Comparison

    Floats = NDArray[np.float64]

UNITS = 12
NAMES = ("mean", "spread", "still")


def runs(count: int, *, seed: int, shift: float = 0.0, between: float = 1.0, start: int = 0) -> list[Run]:
    """Runs about 400 W that share a shift each, ``between`` W wide."""
    rng = np.random.default_rng(seed)
    made: list[Run] = []
    for number in range(count):
        residual = rng.normal(shift + rng.normal(0, between), 0.5, UNITS)
        features = np.column_stack([residual, rng.normal(0, 1, UNITS), np.zeros(UNITS)])
        made.append(
            Run(
                label=f"run {number}",
                start_ns=(start + 2 * number) * 10**9,
                seconds=np.arange(1.0, UNITS + 1) * 10,
                residual=residual,
                power=residual + 400,
                features=features,
                covered=np.ones(UNITS, dtype=np.bool_),
            )
        )
    return made


@dataclass(frozen=True)
class Largest:
    """Scores the distance from the mean; alarms above the largest mean score of a run it was fitted to."""

    a: Sequence[Run]
    b: Sequence[Run]
    left_out: int | None

    @property
    def bound(self) -> float:
        return 1 / (len(self.fitted) + 1)

    @property
    def fitted(self) -> list[Floats]:
        return [run.residual for number, run in enumerate(self.a) if number != self.left_out]

    def scores(self, run: int, *, other: bool) -> Floats:
        centre = float(np.mean([values.mean() for values in self.fitted]))
        return np.abs((self.b if other else self.a)[run].residual - centre)

    def alarm(self, run: int, *, other: bool) -> float | None:
        centre = np.mean([values.mean() for values in self.fitted])
        threshold = max(float(np.abs(values - centre).mean()) for values in self.fitted)
        return 10.0 if float(self.scores(run, other=other).mean()) > threshold else None


def compared(a: Sequence[Run], b: Sequence[Run]) -> Comparison:
    def fitted(left_out: int | None) -> Largest:
        return Largest(a, b, left_out)

    return compare(a, b, names=NAMES, fitted=fitted)


def test_a_difference_is_found_with_its_size() -> None:
    found = compared(runs(12, seed=1), runs(10, seed=2, shift=8.0, start=1))
    assert found.answer == "yes"
    assert found.area.low > 0.95
    assert found.p is not None
    assert found.p < 0.001
    assert found.detected == (10, 10)
    assert found.detected_share.low > 0.69
    assert found.seconds.value == 10
    assert found.residual_w.low < 8 < found.residual_w.high
    assert found.power_w.value == pytest.approx(found.residual_w.value)
    first = found.effects[0]
    assert (first.feature, first.p) == ("mean", found.p)
    assert first.size > 4
    assert found.interleaved
    assert found.outside == 0


def test_chance_is_called_chance() -> None:
    found = compared(runs(12, seed=3), runs(12, seed=4, start=1))
    assert found.answer == "no"
    assert found.p is not None
    assert found.p > 0.05
    assert found.area.low < 0.5 < found.area.high


def test_a_feature_that_never_moves_says_nothing() -> None:
    found = compared(runs(6, seed=5), runs(6, seed=6, start=1))
    still = next(effect for effect in found.effects if effect.feature == "still")
    assert (still.size, still.p) == (0.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [(3, 2), (1, 1), (2, 2), (12, 1)])
def test_too_few_runs_say_nothing_however_large_the_difference(a: int, b: int) -> None:
    found = compared(runs(max(a, 2), seed=1), runs(b, seed=2, shift=50.0, start=1))
    assert found.answer == "cannot_say"
    assert found.p is None
    assert found.p_smallest > 0.05


def test_chance_of_few_runs_is_no_answer() -> None:
    found = compared(runs(5, seed=3), runs(5, seed=4, start=1))
    assert found.p is not None
    assert found.answer == "cannot_say"


def test_under_nothing_the_answer_is_rarely_yes() -> None:
    said = [compared(runs(6, seed=100 + n), runs(6, seed=300 + n, start=1)).answer for n in range(40)]
    # At most 5 % each: more than six of forty would be one in three hundred.
    assert said.count("yes") <= 6


def test_one_condition_after_the_other_shows() -> None:
    a, b = runs(4, seed=1), runs(4, seed=2, start=1)
    assert compared(a, b).interleaved
    later = [replace(run, start_ns=run.start_ns + 10**12) for run in b]
    assert not compared(a, later).interleaved
    assert not compared(later, a).interleaved


def test_what_is_never_detected_takes_forever() -> None:
    found = compared(runs(8, seed=1), [replace(run, label="b") for run in runs(8, seed=1)])
    assert math.isinf(found.seconds.value)
    assert found.seconds.high == math.inf


def test_work_that_a_never_declared_shows() -> None:
    b = [replace(run, covered=np.arange(UNITS) < 9) for run in runs(3, seed=2)]
    assert compared(runs(3, seed=1), b).outside == pytest.approx(0.25)


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 0)])
def test_a_side_without_runs_is_a_mistake(a: int, b: int) -> None:
    with pytest.raises(ValueError, match="both"):
        _ = compared(runs(a, seed=1), runs(b, seed=1))


def test_every_fit_is_told() -> None:
    a, b, count = runs(3, seed=1), runs(2, seed=2), [0]

    def told() -> None:
        count[0] += 1

    fitted: Callable[[int | None], Largest] = lambda left_out: Largest(a, b, left_out)  # noqa: E731
    _ = compare(a, b, names=NAMES, fitted=fitted, told=told)
    assert count == [4]


def test_of_several_gpus_each_is_asked_for_more() -> None:
    a, b = runs(5, seed=1), runs(5, seed=2, shift=8.0, start=1)

    def fitted(left_out: int | None) -> Largest:
        return Largest(a, b, left_out)

    # 1 in 252 arrangements: enough for one GPU, too little for thirteen.
    alone = compare(a, b, names=NAMES, fitted=fitted)
    among = compare(a, b, names=NAMES, fitted=fitted, level=0.05 / 13)
    assert (alone.answer, among.answer) == ("yes", "cannot_say")
    assert alone.p is not None
    assert among.p is None
