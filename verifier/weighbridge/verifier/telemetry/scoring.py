"""Scores a unit of power against a profile: how far from what this GPU shows under the work that was declared.

The *sovereignty residual* is power minus what the declared work explains. Features are computed on its series, in
doubles, and rounded to :data:`.profile.FEATURE_STEP`; everything after that is whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.units import Unit

__all__ = ["Scorer", "UnitScore"]


@dataclass(frozen=True, slots=True)
class UnitScore:
    """What one unit shows. Not judged: a single unit is no verdict.

    ``score`` is a squared distance in thousandths. ``p_ppb`` bounds, in billionths, the chance of a genuine unit's
    score as far out (calibration-conditional). ``covered`` is false where the declared work is outside of what the
    baseline has seen: such a unit says nothing. ``leading`` names up to three features that the score comes from.
    """

    score: int
    p_ppb: int
    residual_mw: int
    explained_mw: int
    uncertainty_mw: int
    covered: bool
    leading: tuple[str, ...]


@final
class Scorer:
    """Scores units of one device against ``profile``."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def score(self, unit: Unit) -> UnitScore:
        """The unit's score.

        Raises:
            ValueError: the unit is of another length, rate or channel than the profile: the caller looks first.
        """
        raise NotImplementedError
