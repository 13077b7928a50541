"""Scores a unit of power against a profile: how far from what this GPU shows under the work that was declared.

The *sovereignty residual* is power minus what the declared work explains. Features are computed in doubles and rounded
(:mod:`.features`); everything after that is whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from weighbridge.verifier.telemetry.detector.calibration import PValues
from weighbridge.verifier.telemetry.detector.explained import covers, explained_mw
from weighbridge.verifier.telemetry.detector.features import NAMES, features, residual
from weighbridge.verifier.telemetry.detector.metric import CLIP, Metric, distance_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.samples.units import Unit

    Floats = NDArray[np.float64]

__all__ = ["SHORT", "Scorer", "UnitScore", "least_of", "power_of"]

SHORT: Final = 20
"""A unit may lack one sample in so many: windows are cut by clocks that jitter."""
_LEADING: Final = 3
_FEATURE_STEP_MW: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class UnitScore:
    """What one unit shows. Not judged: a single unit is no verdict.

    ``score`` is a squared distance in thousandths. ``p_ppb`` bounds, in billionths, the chance of a genuine unit's
    score as far out (calibration-conditional). ``residual_mw`` is mean power minus ``explained_mw``; ``uncertainty_mw``
    is how far a whole genuine run's residual strays, one sigma. ``covered`` is false where the declared work is outside
    of what the baseline has seen: such a unit says nothing. ``leading`` names up to three features that the score comes
    from. ``scaled`` are the features in thousandths of their scale, cut; ``level`` is the first of them, not cut.
    """

    score: int
    p_ppb: int
    residual_mw: int
    explained_mw: int
    uncertainty_mw: int
    covered: bool
    leading: tuple[str, ...]
    scaled: tuple[int, ...]
    level: int


@final
class Scorer:
    """Scores units of one device against ``profile``."""

    def __init__(self, profile: Profile) -> None:
        self._channel = profile.channel
        self._samples = profile.unit_ns // profile.period_ns
        self._explained = profile.explained
        self._metric = Metric.of(profile)
        scores = [score for run in profile.runs for score in run.scores]
        self._p_values = PValues(scores, delta_ppm=profile.delta_ppm)

    def score(self, unit: Unit) -> UnitScore:
        """The unit's score.

        Raises:
            ValueError: the unit is too short, or has no such channel: the caller looks first.
        """
        power = power_of(unit, self._channel, self._samples)
        work = unit.work.regressors()
        explained = explained_mw(self._explained, work)
        found = residual(features(power), explained)
        raw = self._metric.scaled(found)
        cut = np.minimum(np.maximum(raw, -CLIP), CLIP)
        scaled: list[int] = cut.tolist()
        shares = self._metric.shares(cut)
        score = distance_of(shares)
        return UnitScore(
            score=score,
            p_ppb=self._p_values.of(score),
            residual_mw=round(found[0].item() / _FEATURE_STEP_MW),
            explained_mw=explained,
            uncertainty_mw=self._explained.uncertainty_mw,
            covered=covers(self._explained, work),
            leading=_leading(shares),
            scaled=tuple(scaled),
            level=raw[0].item(),
        )


def least_of(samples: int) -> int:
    """How many samples a unit of nominally so many has to have."""
    return samples - samples // SHORT


def power_of(unit: Unit, channel: str, samples: int) -> Floats:
    """The unit's ``channel``, nominally so many ``samples``: all there are, of a unit that is a little longer too.

    Raises:
        ValueError: there is no such channel, or too little of it.
    """
    values = unit.series.channels.get(channel)
    if values is None or len(values) < least_of(samples):
        raise ValueError(f"not {samples} samples of {channel}")
    return values.astype(np.float64)


def _leading(shares: list[int]) -> tuple[str, ...]:
    """The features that add most to the distance, the largest first; none that takes from it."""
    order = sorted(range(len(shares)), key=shares.__getitem__, reverse=True)[:_LEADING]
    return tuple(NAMES[place] for place in order if shares[place] > 0)
