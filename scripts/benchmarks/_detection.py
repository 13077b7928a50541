"""How well sessions are told apart, on MLPerf's power logs: false alarms of genuine ones, detection of others.

The baseline of a label is its run ``ranging``, a session is at most 20 units of 30 s of ``run_1``: of the same label a
genuine one, of another label of the same system and round a deviation. Features, estimator and statistic are the
product's. With one run for a baseline, how far a run strays is taken from four quarters of that run, each against the
other three; the product takes it from whole runs, which these logs do not have.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from _mlperf import Label, Side, traces

from weighbridge.proto.profile import FEATURE_STEP
from weighbridge.verifier.telemetry.detector.calibration import reference, statistic_of
from weighbridge.verifier.telemetry.detector.features import features
from weighbridge.verifier.telemetry.detector.gross import stray
from weighbridge.verifier.telemetry.detector.metric import CLIP, SPAN, Metric, middle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

__all__ = ["FROZEN_CLAIM_PPM", "FROZEN_LIMIT", "UNIT", "Kind", "Session", "limit_of", "sessions"]

Kind = Literal["genuine", "other benchmark", "other scenario", "other precision"]

UNIT: Final = 30
"""Samples of a unit, at 1 Hz."""
FROZEN_LIMIT: Final = 4_564
"""Thousandths: the largest of the 186 genuine sessions of development systems, before any other was opened."""
FROZEN_CLAIM_PPM: Final = 10_000
_UNITS_MIN: Final = 5
# Units of the one run that a baseline is fitted to overlap: there are few.
_STEP: Final = 10
_TRAINING_MIN: Final = 12
_QUARTERS: Final = 4
# Units that overlap a quarter are in neither part.
_OVERLAP: Final = UNIT // _STEP
_LABELS_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class Session:
    """A session against a baseline: the statistic it ends with, and how far each of its units strays, in thousandths.

    A unit strays by its mean power, less that of the baseline's run, as a share of the latter: no work is declared in
    these logs, so that the same power is explained throughout.
    """

    baseline: Label
    label: Label
    kind: Kind
    statistic: int
    strays: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Baseline:
    metric: Metric
    of_runs: int
    power_mw: int


def sessions(directory: Path, side: Side) -> Iterator[Session]:
    """All sessions of one side."""
    training: dict[Label, tuple[Integers, float]] = {}
    tests: dict[Label, Integers] = {}
    for trace in traces(directory, side):
        power = trace.power_mw
        if len(power) < _UNITS_MIN * UNIT:
            continue
        if trace.run == "ranging":
            starts = range(0, len(power) - UNIT + 1, _STEP)
            training[trace.label] = _features(power, starts), float(power.mean())
        else:
            tests[trace.label] = _features(power, range(0, len(power) - UNIT + 1, UNIT))[:SPAN]
    placed: dict[tuple[str, str], list[Label]] = defaultdict(list)
    for label in sorted(training.keys() & tests.keys()):
        placed[label.round, label.system].append(label)
    for labels in placed.values():
        if len(labels) < _LABELS_MIN:
            continue
        for label in labels:
            learned, power_mw = training[label]
            if len(learned) < _TRAINING_MIN:
                continue
            baseline = _fit(learned, power_mw)
            for other in labels:
                units = tests[other]
                yield Session(label, other, _kind(label, other), _statistic(baseline, units), _strays(baseline, units))


def limit_of(genuine: Sequence[int], *, claim_ppm: int) -> int:
    """The limit that at most ``claim_ppm`` of genuine sessions pass, if they are like these: a conformal quantile."""
    rank = math.ceil((1_000_000 - claim_ppm) * (len(genuine) + 1) / 1_000_000)
    return sorted(genuine)[min(len(genuine), rank) - 1]


def _features(power_mw: NDArray[np.float64], starts: range) -> Integers:
    return np.array([features(power_mw[start : start + UNIT]) for start in starts], dtype=np.int64)


def _fit(units: Integers, power_mw: float) -> _Baseline:
    distances: list[int] = []
    numbers = np.arange(len(units))
    for quarter in np.array_split(numbers, _QUARTERS):
        apart = (numbers < quarter[0] - _OVERLAP) | (numbers > quarter[-1] + _OVERLAP)
        metric = Metric.fit(units[apart], power_mw, UNIT)
        distances.append(_distance(metric, units[quarter[::_OVERLAP]])[0])
    return _Baseline(Metric.fit(units, power_mw, UNIT), reference(distances), round(power_mw))


def _strays(baseline: _Baseline, units: Integers) -> tuple[int, ...]:
    mean_mw: list[int] = (units[:, 0] // FEATURE_STEP).tolist()
    return tuple(stray(mean - baseline.power_mw, baseline.power_mw) for mean in mean_mw)


def _statistic(baseline: _Baseline, units: Integers) -> int:
    distance, level = _distance(baseline.metric, units)
    return statistic_of(distance, level, of_runs=baseline.of_runs)


def _distance(metric: Metric, units: Integers) -> tuple[int, int]:
    scaled = metric.scaled(units)
    cut = middle(np.clip(scaled, -CLIP, CLIP).tolist())
    (level,) = middle(scaled[:, :1].tolist())
    return metric.distance(cut), level


def _kind(baseline: Label, label: Label) -> Kind:
    if baseline == label:
        return "genuine"
    if baseline.model != label.model:
        return "other benchmark"
    return "other scenario" if baseline.scenario != label.scenario else "other precision"
