"""What a score is worth: thresholds of whole runs, and p-values of single units that hold for this calibration.

Two kinds of bound on a block of units stand side by side, because each rests on something that may be untrue:

``runs``
    A session's statistic passes the largest of R runs in at most 1/(R + 1) of sessions, if the session is one more run
    like the others (*exchangeable*). Windows of one run are dependent, so that only whole runs count: twelve give
    7.7 %, and a distribution-free 1 % takes 99.
``pooled``
    What one in a hundred of :data:`POOLED_RUNS` genuine sessions of other machines passed, each in units of its own
    calibration. It claims 1 %, if this device strays from its own baseline as those did from theirs.

Power that is off by far is seen before a block is full, and in a minority of its units (:mod:`.gross`).

Beside them, p-values for evidence that grows unit by unit (:mod:`.evidence`). The plain rank of a score among the
calibration's is right on average over calibrations only, and this one calibration may be a lucky one; *calibration-
conditional* p-values add the Dvoretzky-Kiefer-Wolfowitz band (Massart 1990: sqrt(ln(1/delta) / 2n)), so that they are
valid for all scores at once in all but a share delta of calibrations. Bates, Candès, Lei, Romano, Sesia, *Testing for
outliers with conformal p-values* (2023), §4.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.profile import Bound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.proto.profile import Profile

__all__ = [
    "ASSUMPTIONS",
    "LEVEL_WEIGHT",
    "POOLED_CLAIM_PPM",
    "POOLED_LIMIT",
    "POOLED_RUNS",
    "PValues",
    "bounds_of",
    "deciding",
    "deviation_after",
    "ending_ppm",
    "reference",
    "runs_needed",
    "span_of",
    "statistic_of",
    "together_ppm",
]

POOLED_LIMIT: Final = 7_344
"""In thousandths of what a device's own runs come to. Widened: what was frozen before held-out systems were looked at,
4,564 from 186 sessions, was passed by 5 of 210 of theirs (docs/baseline-evaluation.md)."""
POOLED_RUNS: Final = 396
POOLED_CLAIM_PPM: Final = 10_000
LEVEL_WEIGHT: Final = 150
"""How much of the statistic, in thousandths, one scale of the mean's distance is worth at least: what :mod:`.metric`
cuts off would else hide how far power as a whole has moved."""

ASSUMPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sessions-like-runs": "a genuine session differs from the calibration runs as they do from one another",
        "devices-alike": "this device strays from its baseline as those servers strayed from theirs",
        "units-like-calibration": "a genuine unit scores as the calibration's did, whatever came before it",
    }
)
"""What each bound rests on, in words."""

_PPM: Final = 1_000_000
_PPB: Final = 1_000_000_000
_THOUSAND: Final = 1_000


def runs_needed(claim_ppm: int) -> int:
    """How many runs it takes to claim ``claim_ppm`` without any assumption on distributions: 99 for 1 %."""
    return -(-_PPM // claim_ppm) - 1


def reference(statistics: Sequence[int]) -> int:
    """What runs come to: the median of their statistics, in thousandths, at least one."""
    return max(1, math.floor(median(statistics)))


def statistic_of(distance: int, level: int, *, of_runs: int) -> int:
    """A block's statistic in thousandths of what runs come to.

    Args:
        distance: of the block's median unit (:meth:`.metric.Metric.distance`).
        level: its mean power's distance from the centre in thousandths of its scale, not cut, with its sign.
        of_runs: :func:`reference` of the profile's runs.
    """
    return max(distance * _THOUSAND // of_runs, abs(level) * LEVEL_WEIGHT // _THOUSAND)


def bounds_of(statistics: Sequence[int], *, claim_ppm: int) -> tuple[Bound, ...]:
    """The bounds of a calibration whose runs have these statistics, in thousandths of :func:`reference`."""
    count = len(statistics)
    rank = min(count, math.ceil((_PPM - claim_ppm) * (count + 1) / _PPM))
    claimed = max(claim_ppm, -(-_PPM // (count + 1)))
    own = max(1, sorted(statistics)[rank - 1])
    return (
        Bound("runs", own, claimed, count, "sessions-like-runs"),
        # Runs of this very device that passed the limit contradict what it rests on: it gives way to them.
        Bound("pooled", max(POOLED_LIMIT, *statistics), POOLED_CLAIM_PPM, POOLED_RUNS, "devices-alike"),
    )


def deciding(profile: Profile) -> Bound | None:
    """The bound whose limit a session may not pass: the first that claims no more than is asked for; maybe none."""
    return next((bound for bound in profile.bounds if bound.claimed_ppm <= profile.evidence_ppm), None)


def together_ppm(profile: Profile) -> int:
    """What all that can alarm claims together: sessions that pass one of them are no more than their sum.

    Not in it: :func:`ending_ppm`, which sessions that follow many others alone may add.
    """
    bound = deciding(profile)
    return profile.evidence_ppm + profile.gross.claimed_ppm + (0 if bound is None else bound.claimed_ppm)


def ending_ppm(profile: Profile) -> int:
    """What the look at the ends of earlier sessions (:mod:`..remains`) claims: one limit more, as a unit's.

    It is had once for as much as a unit has, and by the session that begins then. Nothing was measured of such ends.
    """
    return -(-_PPM // (profile.gross.runs + 1))


def deviation_after(profile: Profile, units: int) -> int | None:
    """Milliwatts of a change, sustained for so many units, that would have been flagged; ``None`` where none would."""
    seen = [deviation.milliwatts for deviation in profile.deviations if deviation.units <= units]
    return seen[-1] if seen else None


def span_of(profile: Profile, *, at_most: int) -> int:
    """How many units a block has: as many as each calibration run had at least, up to ``at_most``."""
    return min(at_most, *(len(run.scores) for run in profile.runs))


@final
class PValues:
    """p-values of scores against those of a calibration, valid for this calibration in all but ``delta_ppm`` of them.

    None is below sqrt(ln(1/delta) / 2n): with 240 units and a delta of a tenth, 0.069. Whoever wants to be surer than
    that after one unit needs more runs, not another formula.
    """

    def __init__(self, scores: Sequence[int], *, delta_ppm: int) -> None:
        self._scores = sorted(scores)
        self._band = math.ceil(math.sqrt(math.log(_PPM / delta_ppm) / (2 * len(scores))) * _PPB)

    def of(self, score: int) -> int:
        """The p-value in billionths, 1 to 1,000,000,000."""
        above = len(self._scores) - bisect_left(self._scores, score)
        return min(_PPB, -(-above * _PPB // len(self._scores)) + self._band)
