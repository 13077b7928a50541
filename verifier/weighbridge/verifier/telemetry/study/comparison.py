"""What an instrument can tell apart between two conditions, from whole runs of each.

A is the condition that the instrument knows, B the other. Each run of A is judged by an instrument that was fitted
without it; each run of B by one fitted to all runs of A, so that no run is judged by itself. Alarms are counted per
run. The test whether anything differs at all exchanges whole runs between A and B: it assumes that under "nothing
differs" the order of the runs does not matter, which a drift breaks where A was recorded before B (``interleaved``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np

from weighbridge.verifier.telemetry.study import intervals
from weighbridge.verifier.telemetry.study.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Answer", "Comparison", "Effect", "Instrument", "Run", "compare"]

LEVEL: Final = 0.05
RUNS_TO_SAY_NO: Final = 6
"""Fewer on either side, and "no difference was seen" is no answer."""
AREA_TO_SAY_NO: Final = 0.8
"""While the interval still reaches this AUROC, a difference that matters may have been missed."""
_CHANCE: Final = 0.5

Answer = Literal["yes", "no", "cannot_say"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one device, unit by unit, beyond what its declared work explains.

    Attributes:
        label: for people.
        start_ns: wall clock at its start.
        seconds: from its start to the end of each unit.
        residual: W, measured minus explained, of each unit.
        power: W, measured, of each unit.
        features: one row per unit.
        covered: whether the declared work of each unit lies within what A's runs declared.
    """

    label: str
    start_ns: int
    seconds: Floats
    residual: Floats
    power: Floats
    features: Floats
    covered: NDArray[np.bool_]


class Instrument(Protocol):
    """What was fitted to some runs of A, its threshold frozen."""

    @property
    def bound(self) -> float:
        """The stated bound on false alarms, per run."""
        ...

    def scores(self, run: int, *, other: bool) -> Floats:
        """Of each unit of a run, by its number among A or (``other``) B; the higher, the farther from A."""
        ...

    def alarm(self, run: int, *, other: bool) -> float | None:
        """Seconds from the run's start to the alarm; ``None`` where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Effect:
    """What B does to one feature, at the level of runs.

    Attributes:
        feature: its name.
        size: difference of the runs' means in standard deviations of A's runs.
        p: permutation p-value, corrected for looking at all features (Westfall and Young 1993, max statistic).
    """

    feature: str
    size: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The answer. Intervals are of 95 %.

    Attributes:
        answer: ``yes``: the physics differs and the instrument sees it; ``no``: chance, with runs enough to say so.
        runs: of A and of B.
        units: of A and of B.
        area: AUROC over units, run by run; the interval is a bootstrap over runs.
        p: permutation p-value that any feature differs; ``None`` where the runs are too few for one below ``level``.
        p_exact: whether every arrangement of the runs was counted.
        p_smallest: the smallest that so many runs can give.
        level: p-values above it are called chance.
        bound: the stated bound on false alarms per run.
        false_alarms: runs of A, of all.
        detected: runs of B, of all.
        seconds: median time to the alarm over runs of B; infinite where half of them or more raise none.
        power_w: difference of the mean measured power, B minus A.
        residual_w: the same beyond what declared work explains.
        effects: of the features, the strongest first.
        interleaved: whether the runs of A and B were recorded in turns.
        outside: the share of B's units whose declared work lies outside what A's runs declared.
    """

    answer: Answer
    runs: tuple[int, int]
    units: tuple[int, int]
    area: Interval
    p: float | None
    p_exact: bool
    p_smallest: float
    level: float
    bound: float
    false_alarms: tuple[int, int]
    detected: tuple[int, int]
    seconds: Interval
    power_w: Interval
    residual_w: Interval
    effects: tuple[Effect, ...]
    interleaved: bool
    outside: float

    @property
    def false_alarm_share(self) -> Interval:
        """With its exact interval: runs are taken for independent."""
        return intervals.clopper_pearson(*self.false_alarms)

    @property
    def detected_share(self) -> Interval:
        """With its exact interval: runs are taken for independent."""
        return intervals.clopper_pearson(*self.detected)


def compare(
    first: Sequence[Run],
    second: Sequence[Run],
    *,
    names: Sequence[str],
    fitted: Callable[[int | None], Instrument],
    level: float = LEVEL,
    told: Callable[[], None] = lambda: None,
) -> Comparison:
    """Compare the runs of A with those of B; each has a unit, at least.

    Args:
        first: of A.
        second: of B.
        names: of the features.
        fitted: an instrument fitted to all runs of A but the one with this number, or to all of them for ``None``.
        level: p-values above it are chance; lower where several GPUs are asked, of which any may say yes.
        told: called after each fit.
    """
    if not first or not second:
        raise ValueError("runs of both conditions are needed")
    areas = np.empty((len(first), len(second)))
    false_alarms = 0
    for left_out in range(len(first)):
        instrument = fitted(left_out)
        own = instrument.scores(left_out, other=False)
        for number in range(len(second)):
            areas[left_out, number] = intervals.auroc(own, instrument.scores(number, other=True))
        false_alarms += instrument.alarm(left_out, other=False) is not None
        told()
    whole = fitted(None)
    alarms = [whole.alarm(number, other=True) for number in range(len(second))]
    told()
    low, high = intervals.bootstrap(lambda rows, columns: _mean(areas[np.ix_(rows, columns)]), len(first), len(second))
    area = Interval(_mean(areas), low, high)
    effects, ways, p = _effects(_means(first), _means(second), names)
    enough = ways.smallest <= level
    return Comparison(
        answer=_answer(area, p if enough else None, level=level, runs=min(len(first), len(second))),
        runs=(len(first), len(second)),
        units=(_units(first), _units(second)),
        area=area,
        p=p if enough else None,
        p_exact=ways.exact,
        p_smallest=ways.smallest,
        level=level,
        bound=whole.bound,
        false_alarms=(false_alarms, len(first)),
        detected=(sum(alarm is not None for alarm in alarms), len(second)),
        seconds=intervals.median_interval([math.inf if alarm is None else alarm for alarm in alarms]),
        power_w=intervals.difference(_mean_of(first, "power"), _mean_of(second, "power")),
        residual_w=intervals.difference(_mean_of(first, "residual"), _mean_of(second, "residual")),
        effects=effects,
        interleaved=_interleaved(first, second),
        outside=float(np.mean(np.concatenate([~run.covered for run in second]))),
    )


def _answer(area: Interval, p: float | None, *, level: float, runs: int) -> Answer:
    if p is None:
        return "cannot_say"
    if p <= level and area.low > _CHANCE:
        return "yes"
    if p > level and runs >= RUNS_TO_SAY_NO and area.high < AREA_TO_SAY_NO:
        return "no"
    return "cannot_say"


def _effects(
    first: Floats, second: Floats, names: Sequence[str]
) -> tuple[tuple[Effect, ...], intervals.Permutations, float]:
    """Of each feature, and the p-value that any of them differs."""
    ways = intervals.permutations(len(first), len(second))
    both = np.vstack([first, second])
    spread = both.std(axis=0)
    # A feature that is the same in every run says nothing; dividing by its rounding would say something.
    scale = np.where(spread > 1e-9 * np.maximum(1.0, np.abs(both).max(axis=0)), spread, np.inf)
    standard = (both - both.mean(axis=0)) / scale
    chosen = ways.labels.astype(np.float64)
    # The difference of the two means is a multiple of the sum over B, as all of them together sum to zero.
    moved = np.abs(chosen @ standard)
    largest = moved.max(axis=1)
    own = first.std(axis=0, ddof=1) if len(first) > 1 else np.full(len(names), math.nan)
    found = [
        Effect(
            name,
            _size(float(second[:, at].mean() - first[:, at].mean()), float(own[at])),
            ways.p_value(np.concatenate([moved[:1, at], largest[1:]])),
        )
        for at, name in enumerate(names)
    ]
    strength = dict(zip(names, moved[0].tolist(), strict=True))
    found.sort(key=lambda effect: -strength[effect.feature])
    return tuple(found), ways, ways.p_value(largest)


def _size(difference: float, spread: float) -> float:
    if difference == 0:
        return 0.0
    return difference / spread if spread > 0 else math.copysign(math.inf, difference)


def _means(runs: Sequence[Run]) -> Floats:
    return np.vstack([run.features.mean(axis=0) for run in runs])


def _mean_of(runs: Sequence[Run], what: Literal["power", "residual"]) -> Floats:
    return np.asarray([(run.power if what == "power" else run.residual).mean() for run in runs])


def _mean(areas: Floats) -> float:
    """Of those that are known: a run of which nothing could be scored has none. Not a number where none is."""
    known = areas[~np.isnan(areas)]
    return float(known.mean()) if known.size else math.nan


def _units(runs: Sequence[Run]) -> int:
    return sum(run.residual.size for run in runs)


def _interleaved(first: Sequence[Run], second: Sequence[Run]) -> bool:
    """Whether some run of either side was recorded between two of the other's."""
    ends = [(min(starts), max(starts)) for starts in ([run.start_ns for run in side] for side in (first, second))]
    return ends[0][1] > ends[1][0] and ends[1][1] > ends[0][0]
