"""How far a new profile is from one that it would replace: a baseline is not to be moved unseen.

A GPU that is measured again on the same stack shows the same power: runs on one machine differ by 0.15 % (median), and
by less than 1.4 % in nineteen of twenty. A new driver or engine shifts it by 2.3 % (median). So what lies within
:data:`POWER_PPM` is taken for the same thing measured again; more than that, an owner has to accept in so many words.

Pure, in whole numbers. Says nothing of whether either profile is a good one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.profile import FEATURE_STEP, FEATURES
from weighbridge.verifier.telemetry.detector.calibration import reference

if TYPE_CHECKING:
    from weighbridge.proto.profile import Explained, Profile

__all__ = ["POWER_PPM", "SEES_LESS", "drift"]

POWER_PPM: Final = 20_000
"""How far apart the power may lie that two profiles explain by the same work, as a share of it, in millionths."""
SEES_LESS: Final = 1_500
"""How much larger, in thousandths, the smallest deviation may be that the new one sees."""
_MILLIONTH: Final = 1_000_000
_PRECISION: Final = 1_000_000
_THOUSAND: Final = 1_000


def drift(before: Profile, after: Profile) -> tuple[str, ...]:
    """What of ``after`` is further from ``before`` than the bounds, in words for people; nothing where it is within.

    Args:
        before: of the baseline in force.
        after: of the same device and model.
    """
    found: list[str] = []
    if (before.channel, before.unit_ns, before.period_ns) != (after.channel, after.unit_ns, after.period_ns):
        # Neither power nor features of another channel, or of units of another length, can be compared.
        return (f"it is of {after.channel}, sampled otherwise than {before.channel} was",)
    share = max(abs(b - a) * _MILLIONTH // max(1, abs(a)) for a, b in _powers(before.explained, after.explained))
    if share > POWER_PPM:
        found.append(f"the power that the same work explains differs by {share / 10_000:.1f} %")
    if (
        _distance(before, after) * _THOUSAND
        > reference([run.statistic for run in before.runs]) * before.bounds[0].limit
    ):
        found.append("what is typical of it would be out of the baseline in force")
    # Each after a whole block of units.
    saw, sees = before.deviations[-1].milliwatts, after.deviations[-1].milliwatts
    if saw is not None:
        if sees is None:
            found.append("no change of power would be seen by it")
        elif sees * _THOUSAND > saw * SEES_LESS:
            found.append(
                f"it sees changes of {sees / _THOUSAND:.1f} W only, the one in force of {saw / _THOUSAND:.1f} W"
            )
    return tuple(found)


def _powers(before: Explained, after: Explained) -> list[tuple[int, int]]:
    """What both explain, in mW, by the least, the middle and the most work that ``before`` has seen."""
    works = (
        [term.low for term in before.terms],
        [(term.low + term.high) // 2 for term in before.terms],
        [term.high for term in before.terms],
    )
    return [(_explained(before, work), _explained(after, work)) for work in works]


def _explained(explained: Explained, work: list[int]) -> int:
    return explained.base_mw + sum(
        term.microwatts * amount for term, amount in zip(explained.terms, work, strict=True)
    ) // (_THOUSAND)


def _distance(before: Profile, after: Profile) -> int:
    """What ``before`` would make of the centre of ``after`` as a session: a squared distance, in thousandths."""
    steps = [
        (b - a) * FEATURE_STEP // scale for a, b, scale in zip(before.centre, after.centre, before.scale, strict=True)
    ]
    total, position = 0, 0
    for row in range(FEATURES):
        for column in range(row, FEATURES):
            weight = before.precision[position] * (1 if row == column else 2)
            total += weight * steps[row] * steps[column]
            position += 1
    return total * _THOUSAND // (FEATURE_STEP * FEATURE_STEP * _PRECISION)
