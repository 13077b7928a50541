"""What a profile would have seen, and after how long: the smallest change of mean power that it flags by then.

Each run is judged by the fit that has not seen it, with its power raised or lowered throughout, by the very rules that
judge sessions. An instrument that says only "in the baseline" says nothing: this is how large a lie it would have let
pass, after one unit, after two, and so on to a whole block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.proto.profile import Deviation
from weighbridge.verifier.telemetry.detector.calibration import PValues
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence, rules_of
from weighbridge.verifier.telemetry.detector.features import LEVELS
from weighbridge.verifier.telemetry.detector.metric import CLIP
from weighbridge.verifier.telemetry.detector.scoring import UnitScore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.detector.evidence import Rules
    from weighbridge.verifier.telemetry.detector.metric import Metric

    Integers = NDArray[np.int64]

__all__ = ["LeftOut", "deviations"]

_RUNS_SHARE: Final = 0.9
_STEPS: Final = 60
# From a thousandth of the power to all of it.
_LEAST: Final = 1e-3
_AFTER: Final = (1, 2, 3, 5, 10)
_STEP_MW: Final = 1_000_000
_MILLI: Final = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """A run by a fit of the others, a unit each a row. ``scaled`` are thousandths of each feature's scale, not cut."""

    metric: Metric
    scaled: Integers
    residual_mw: Integers
    explained_mw: Integers


def deviations(profile: Profile, runs: Sequence[LeftOut]) -> tuple[Deviation, ...]:
    """The smallest change, up or down, that is flagged in nine of ten runs after so many units, up to a whole block.

    Args:
        profile: whose ``deviations`` do not count.
        runs: its runs, each as long as a block at least.
    """
    rules = rules_of(profile)
    p_values = PValues([score for run in profile.runs for score in run.scores], delta_ppm=profile.delta_ppm)
    least_mw = max(1.0, *(abs(term) for term in _powers(profile)))
    sizes = [round(size) for size in np.unique(np.ceil(np.geomspace(_LEAST, 1.0, _STEPS) * least_mw)).tolist()]
    after = (*(units for units in _AFTER if units < rules.span), rules.span)
    seen = [_seen(replace(rules, metric=run.metric), run, p_values, sizes) for run in runs]
    nth = math.ceil(_RUNS_SHARE * len(runs)) - 1
    found: list[Deviation] = []
    for units in after:
        smallest = sorted(_smallest(flagged, sizes, units) for flagged in seen)[nth]
        found.append(Deviation(units, None if math.isinf(smallest) else round(smallest)))
    return tuple(found)


def _powers(profile: Profile) -> tuple[float, float]:
    """What the least and the most work that was seen explains."""
    explained = profile.explained
    low, high = (
        explained.base_mw
        + sum(term.microwatts * work for term, work in zip(explained.terms, works, strict=True)) / _MILLI
        for works in ([term.low for term in explained.terms], [term.high for term in explained.terms])
    )
    return low, high


def _smallest(flagged: Sequence[int], sizes: Sequence[int], units: int) -> float:
    """The size from which on all are flagged after so many units."""
    below = max((number for number, after in enumerate(flagged) if after > units), default=-1)
    return math.inf if below + 1 == len(sizes) else sizes[below + 1]


def _seen(rules: Rules, run: LeftOut, p_values: PValues, sizes: Sequence[int]) -> list[int]:
    """After how many units each size is flagged, up and down; more than a block's where one of them is not."""
    found = [rules.span + 1] * len(sizes)
    for number in reversed(range(len(sizes))):
        found[number] = max(_flagged(rules, run, p_values, sign * sizes[number]) for sign in (1, -1))
        if found[number] > rules.span:
            # What is smaller has to be flagged for certain, too: it does not count any more.
            break
    return found


def _flagged(rules: Rules, run: LeftOut, p_values: PValues, change_mw: int) -> int:
    """Behind which unit the run would be flagged, had it drawn so much more throughout."""
    levels = list(LEVELS)
    raw = run.scaled.copy()
    raw[:, levels] += np.floor(change_mw * _STEP_MW * _MILLI / run.metric.scale[levels]).astype(np.int64)
    evidence = SessionEvidence.start()
    cuts = np.clip(raw[: rules.span], -CLIP, CLIP).tolist()
    for row, cut, residual, explained in zip(raw, cuts, run.residual_mw, run.explained_mw, strict=False):
        score = run.metric.distance(cut)
        unit = UnitScore(
            score=score,
            p_ppb=p_values.of(score),
            residual_mw=residual.item() + change_mw,
            explained_mw=explained.item(),
            uncertainty_mw=0,
            covered=True,
            leading=(),
            scaled=tuple(cut),
            level=row[0].item(),
        )
        evidence = evidence.by(rules, unit)
        if evidence.alarm is not None:
            return evidence.units
    return rules.span + 1
