"""How far a new profile is from one that it would replace: a baseline is not to be moved unseen.

A GPU that is measured again on the same stack shows the same power: runs on one machine differ by 0.15 % (median), and
by less than 1.4 % in nineteen of twenty. A new driver or engine shifts it by 2.3 % (median). So what lies within
:data:`POWER_PPM` is taken for the same thing measured again; more than that, an owner has to accept in so many words.

So he has to where the new one asks for less, though power is what it was: whoever makes the recordings need only leave
the energy counter out of one of them, or let one have work that was never served, and no session would have to report,
or be explained, as before. What a verifier compares is looked at: the source and its channels, the GPU's firmware and
power limit, the ranges of work, and every limit. Names that nobody compares (engine, workload) may change, and the
driver, which is attested: another driver's profile counts for no other session.

Pure, in whole numbers. Says nothing of whether either profile is a good one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.profile import FEATURE_STEP, FEATURES, GROSS_UNITS
from weighbridge.verifier.telemetry.detector.calibration import deciding, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.proto.profile import Explained, Profile, Reported

__all__ = ["LOOSER", "POWER_PPM", "SEES_LESS", "WIDER", "drift"]

POWER_PPM: Final = 20_000
"""How far apart the power may lie that two profiles explain by the same work, as a share of it, in millionths."""
SEES_LESS: Final = 1_500
"""How much larger, in thousandths, the smallest deviation may be that the new one sees."""
WIDER: Final = 1_100
"""How much further than before, in thousandths, ranges of work and the limits of power by itself may go."""
LOOSER: Final = 2_000
"""How much more, in thousandths, a session may stray by a limit that follows from how the runs strayed."""
_FAIL: Final = 10
_MILLIONTH: Final = 1_000_000
_PRECISION: Final = 1_000_000
_THOUSAND: Final = 1_000


def drift(before: Profile, after: Profile) -> tuple[str, ...]:
    """What of ``after`` is further from ``before`` than the bounds, in words for people; nothing where it is within.

    Args:
        before: of the baseline in force.
        after: of the same device and model.
    """
    if (before.channel, before.unit_ns, before.period_ns) != (after.channel, after.unit_ns, after.period_ns):
        # Neither power nor features of another channel, or of units of another length, can be compared.
        return (f"it is of {after.channel}, sampled otherwise than {before.channel} was",)
    return (*_moved(before, after), *_scope(before, after), *_asks_less(before, after), *_looser(before, after))


def _moved(before: Profile, after: Profile) -> Iterator[str]:
    """What is typical of ``after`` is not what it was, or less is seen by it."""
    share = max(abs(b - a) * _MILLIONTH // max(1, abs(a)) for a, b in _powers(before.explained, after.explained))
    if share > POWER_PPM:
        yield f"the power that the same work explains differs by {share / 10_000:.1f} %"
    if (
        _distance(before, after) * _THOUSAND
        > reference([run.statistic for run in before.runs]) * before.bounds[0].limit
    ):
        yield "what is typical of it would be out of the baseline in force"
    # Each after a whole block of units.
    saw, sees = before.deviations[-1].milliwatts, after.deviations[-1].milliwatts
    if saw is not None:
        if sees is None:
            yield "no change of power would be seen by it"
        elif sees * _THOUSAND > saw * SEES_LESS:
            yield f"it sees changes of {sees / _THOUSAND:.1f} W only, the one in force of {saw / _THOUSAND:.1f} W"


def _scope(before: Profile, after: Profile) -> Iterator[str]:
    """It is compared with sessions that ``before`` is not compared with."""
    if before.source != after.source:
        yield f"it judges what {after.source} says, the one in force what {before.source} does"
    old, new = before.scope, after.scope
    if old.vbios not in {None, new.vbios}:
        vbios = "any VBIOS" if new.vbios is None else f"VBIOS {new.vbios}"
        yield f"it is for {vbios}, the one in force for {old.vbios}"
    if old.power_limit_mw is not None and old.power_limit_mw != new.power_limit_mw:
        limit = "any power limit" if new.power_limit_mw is None else f"a power limit of {_watts(new.power_limit_mw)}"
        yield f"it is for {limit}, the one in force for {_watts(old.power_limit_mw)}"


def _asks_less(before: Profile, after: Profile) -> Iterator[str]:
    """Sessions have to report less than by ``before``, or may do what its runs never did."""
    asked = {channel.name: channel for channel in after.channels}
    for channel in before.channels:
        if words := _asked_less(channel, asked.get(channel.name)):
            yield words
    for old, new in zip(before.explained.terms, after.explained.terms, strict=True):
        if new.high * _THOUSAND > old.high * WIDER or new.low * WIDER < old.low * _THOUSAND:
            was, is_now = (f"{term.low / _THOUSAND:g} to {term.high / _THOUSAND:g}" for term in (old, new))
            yield f"it is for work that the runs of the one in force never had: {old.name} of {is_now}, not {was}"


def _asked_less(old: Reported, new: Reported | None) -> str:
    if new is None:
        return f"it asks for no {old.name}, the one in force does"
    if new.window_ns != old.window_ns:
        return f"by it, {old.name} is a mean over another time"
    # As many may fail of a unit's (:func:`.reported.lack`), but never all.
    if new.readings < old.readings - max(1, old.readings // _FAIL) or new.readings < 1 <= old.readings:
        return f"it asks for {new.readings} readings of {old.name} in a unit, the one in force for {old.readings}"
    return ""


def _looser(before: Profile, after: Profile) -> Iterator[str]:
    """A limit lets a session stray further than by ``before``."""
    for units, old, new in zip(GROSS_UNITS, before.gross.limits, after.gross.limits, strict=True):
        if new * _THOUSAND > old * WIDER:
            last = "the last unit" if units == 1 else f"the last {units}"
            yield f"power of {last} may be off by {new / 10:g} %, by the one in force by {old / 10:g} %"
    if after.gross.upper * _THOUSAND > before.gross.upper * WIDER:
        yield f"power may be {after.gross.upper / 10:g} % above in a block, not {before.gross.upper / 10:g} %"
    strayed, strays = _strays(before), _strays(after)
    if strayed is not None and (strays is None or strays * _THOUSAND > strayed * LOOSER):
        yield "a block may stray by it more than twice as far"
    if after.evidence_ppm * WIDER < before.evidence_ppm * _THOUSAND or after.delta_ppm < before.delta_ppm:
        claims = f"{after.evidence_ppm / 10_000:g} %, the one in force {before.evidence_ppm / 10_000:g} %"
        yield f"its evidence takes longer to be believed: it claims {claims}"
    if any(new * _THOUSAND > old * LOOSER for old, new in zip(_scores(before), _scores(after), strict=True)):
        yield "a unit strays by it before its evidence counts, more than twice as far"


def _strays(profile: Profile) -> int | None:
    """How far a block may stray, in a profile's own scale; ``None`` where no bound decides."""
    bound = deciding(profile)
    return None if bound is None else bound.limit * reference([run.statistic for run in profile.runs])


def _scores(profile: Profile) -> tuple[int, int]:
    """What half of the units of its runs score at most, and what nine in ten do."""
    ordered = sorted(score for run in profile.runs for score in run.scores)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 9 // 10]


def _watts(milliwatts: int) -> str:
    return f"{milliwatts / _THOUSAND:g} W"


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
