"""What a profile would have seen: the smallest sustained change of mean power that it flags in nine of ten of its runs.

Each run is judged by the fit that has not seen it, with its power raised or lowered throughout. An instrument that
says only "in the baseline" says nothing: this is how large a lie it would have let pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.calibration import LEVEL_WEIGHT, PValues, deciding, reference, span_of
from weighbridge.verifier.telemetry.evidence import ONE, START, bet
from weighbridge.verifier.telemetry.features import LEVELS
from weighbridge.verifier.telemetry.metric import CLIP, SPAN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.metric import Metric

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["LeftOut", "smallest_deviation"]

_RUNS_SHARE: Final = 0.9
_STEPS: Final = 40
# From a thousandth of the base to all of it.
_LEAST: Final = 1e-3
_MOST: Final = 1.0
_PPM: Final = 1_000_000
_STEP_MW: Final = 1_000_000
_MILLI: Final = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """A run scaled by a fit of the others: thousandths, not cut, a unit each a row."""

    metric: Metric
    scaled: Integers


def smallest_deviation(profile: Profile, runs: Sequence[LeftOut]) -> int | None:
    """Milliwatts from which on a change, up or down, is flagged in nine of ten runs; ``None`` where none would be."""
    power = max(1.0, *(abs(term) for term in _powers(profile)))
    sizes = np.geomspace(_LEAST, _MOST, _STEPS) * power
    p_values = PValues([score for run in profile.runs for score in run.scores], delta_ppm=profile.delta_ppm)
    found: list[float] = []
    for run in runs:
        worst = 0
        for sign in (1, -1):
            # The largest change that is not flagged, so that whatever is larger is.
            for number in range(_STEPS - 1, worst - 1, -1):
                if not _is_flagged(profile, run, sign * float(sizes[number]), p_values):
                    worst = max(worst, number + 1)
                    break
        found.append(math.inf if worst == _STEPS else float(sizes[worst]))
    least = sorted(found)[math.ceil(_RUNS_SHARE * len(found)) - 1]
    return None if math.isinf(least) else math.ceil(least)


def _powers(profile: Profile) -> tuple[float, float]:
    """What the least and the most work that was seen explains."""
    explained = profile.explained
    low, high = (
        explained.base_mw
        + sum(term.microwatts * work for term, work in zip(explained.terms, works, strict=True)) / _MILLI
        for works in ([term.low for term in explained.terms], [term.high for term in explained.terms])
    )
    return low, high


def _is_flagged(profile: Profile, run: LeftOut, change_mw: float, p_values: PValues) -> bool:
    moved = run.scaled.astype(np.float64)
    levels = list(LEVELS)
    moved[:, levels] += change_mw * _STEP_MW * _MILLI / run.metric.scale[levels]
    cut = np.clip(moved, -CLIP, CLIP)
    span = span_of(profile, at_most=SPAN)
    bound = deciding(profile)
    if bound is not None and _statistic(profile, run, cut[:span], moved[:span, 0]) > bound.limit:
        return True
    capital, scores = START, _distances(run.metric, cut)
    for units, score in enumerate(scores.tolist()):
        capital, evidence = bet(capital, units, p_values.of(math.floor(score)))
        if evidence * profile.evidence_ppm >= ONE * _PPM:
            return True
    return False


def _statistic(profile: Profile, run: LeftOut, cut: Floats, level: Floats) -> float:
    of_runs = reference([one.statistic for one in profile.runs])
    distance = float(_distances(run.metric, np.median(cut, axis=0)[np.newaxis])[0])
    return max(distance / of_runs * _MILLI, abs(float(np.median(level))) * LEVEL_WEIGHT / _MILLI)


def _distances(metric: Metric, cut: Floats) -> Floats:
    """As :meth:`.metric.Metric.distance`, of many units and in doubles."""
    found: Floats = np.einsum("ij,jk,ik->i", cut, metric.precision.astype(np.float64), cut)
    return found / (_MILLI * _STEP_MW)
