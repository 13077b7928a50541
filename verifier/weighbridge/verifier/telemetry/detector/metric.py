"""How far a unit, or a block of units, is from a baseline: robust scaling, and a Mahalanobis distance.

Each feature is scaled and cut at :data:`CLIP`, so that no single one outweighs all others: a server that draws a tenth
more after a restart, and is the same in every other respect, is nearer than one that runs something else. A block of
units is as far as the *median* of its scaled units is: what single units do at random cancels, what the session does
stays. All of it in whole numbers once a profile is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from weighbridge.proto.profile import FEATURE_STEP, FEATURES
from weighbridge.verifier.telemetry.detector.covariance import ledoit_wolf
from weighbridge.verifier.telemetry.detector.features import floors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from weighbridge.proto.profile import Profile

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["CLIP", "SPAN", "Metric", "distance_of", "middle"]

CLIP: Final = 6_000
"""Thousandths of a feature's scale beyond which it counts no further."""
SPAN: Final = 20
"""Units of a block: after as many, a session is looked at as a whole; then the next block begins."""
_STEP: Final = 1_000
_PRECISION_STEP: Final = 1_000_000
# Of a profile's whole numbers: below it a feature of quiet sensors would have no scale at all.
_SCALE_MIN: Final = 1
_SPREAD_MIN: Final = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """Centre and scale of each feature in steps of :data:`.profile.FEATURE_STEP`; the precision in millionths."""

    centre: Integers
    scale: Integers
    precision: Integers

    @classmethod
    def fit(cls, features: Integers, power_mw: float, samples: int) -> Self:
        """The metric of units that belong together.

        Args:
            features: of the residual, one unit a row, at least two.
            power_mw: what the device draws on average, without anything taken off: its noise goes with that.
            samples: in a unit.
        """
        values = features / FEATURE_STEP
        middle_of = np.median(values, axis=0)
        scale = np.maximum(values.std(axis=0), floors(power_mw, samples))
        scaled = np.clip((values - middle_of) / scale, -CLIP / _STEP, CLIP / _STEP)
        covariance, _ = ledoit_wolf(scaled)
        # Units that are all alike have no spread to invert.
        covariance[np.diag_indices(FEATURES)] += _SPREAD_MIN
        # The mean of what is cut is not the median: distances are from where the covariance was taken.
        centre = middle_of + scaled.mean(axis=0) * scale
        return cls(
            _kept(np.rint(centre * FEATURE_STEP).astype(np.int64)),
            _kept(np.maximum(_SCALE_MIN, np.rint(scale * FEATURE_STEP)).astype(np.int64)),
            _kept(np.rint(np.linalg.inv(covariance) * _PRECISION_STEP).astype(np.int64)),
        )

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """The metric of a parsed profile."""
        precision = np.zeros((FEATURES, FEATURES), dtype=np.int64)
        precision[np.triu_indices(FEATURES)] = profile.precision
        precision += np.triu(precision, 1).T
        return cls(
            _kept(np.array(profile.centre, dtype=np.int64)),
            _kept(np.array(profile.scale, dtype=np.int64)),
            _kept(precision),
        )

    def triangle(self) -> tuple[int, ...]:
        """The precision as a profile has it: the upper triangle, row by row."""
        return tuple(self.precision[np.triu_indices(FEATURES)].tolist())

    def scaled(self, features: Integers) -> Integers:
        """Thousandths of each feature's scale, not cut yet; of one unit, or of several, one a row."""
        return (features - self.centre) * _STEP // self.scale

    def shares(self, cut: Integers) -> list[int]:
        """What each feature adds to the distance of what was scaled and cut. Exact: nothing is rounded on its way."""
        return list(map(mul, cut.tolist(), self.precision.dot(cut).tolist()))

    def distance(self, cut: Sequence[int]) -> int:
        """The squared distance, in thousandths, of what was scaled and cut."""
        return distance_of(self.shares(np.array(cut, dtype=np.int64)))


def distance_of(shares: Sequence[int]) -> int:
    """The squared distance, in thousandths, to which the features add these."""
    return max(0, sum(shares)) // (_STEP * _PRECISION_STEP)


def middle(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The median of each column, whole: rounded down between two."""
    ordered = np.sort(np.array(rows, dtype=np.int64), axis=0)
    half = len(rows) // 2
    found = ordered[half] if len(rows) % 2 else (ordered[half - 1] + ordered[half]) // 2
    return tuple(found.tolist())


def _kept(array: Integers) -> Integers:
    array.setflags(write=False)
    return array
