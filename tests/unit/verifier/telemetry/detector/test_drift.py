"""What counts as the same thing measured again, and what an owner has to accept in so many words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.baseline_owners import made_up
from weighbridge.proto.profile import Reported
from weighbridge.verifier.telemetry.detector.drift import drift

if TYPE_CHECKING:
    from weighbridge.proto.baseline import Profile

BEFORE = made_up()


@pytest.mark.parametrize(
    "after",
    [
        BEFORE,
        made_up(base_mw=428_000),
        made_up(base_mw=412_000),
        made_up(centre=1_200_000),
        made_up(smallest_mw=18_000),
        made_up(smallest_mw=2_000),
        made_up(driver="590.1"),
    ],
)
def test_what_lies_within_the_bounds(after: Profile) -> None:
    assert drift(BEFORE, after) == ()


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (made_up(base_mw=432_000), "the power that the same work explains differs by 2.9 %"),
        (made_up(base_mw=408_000), "the power that the same work explains differs by 2.9 %"),
        (made_up(centre=1_400_000), "what is typical of it would be out of the baseline in force"),
        (made_up(centre=-1_400_000), "what is typical of it would be out of the baseline in force"),
        (made_up(smallest_mw=None), "no change of power would be seen by it"),
        (made_up(smallest_mw=19_000), "it sees changes of 19.0 W only, the one in force of 12.0 W"),
        (made_up(channel="power_instant"), "it is of power_instant, sampled otherwise than power was"),
        (made_up(unit_ns=20_000_000_000), "it is of power, sampled otherwise than power was"),
    ],
)
def test_what_does_not(after: Profile, words: str) -> None:
    assert drift(BEFORE, after) == (words,)


def scoped(**changes: object) -> Profile:
    return replace(STRICT, scope=replace(STRICT.scope, **changes))  # type: ignore[arg-type] # of any of its types


def asking(*channels: Reported) -> Profile:
    return replace(STRICT, channels=channels)


def ranging(low: int, high: int) -> Profile:
    terms = tuple(replace(term, low=low, high=high) for term in STRICT.explained.terms)
    return replace(STRICT, explained=replace(STRICT.explained, terms=(terms[0], *STRICT.explained.terms[1:])))


def grossly(*limits: int, upper: int = 140) -> Profile:
    first, second, third = limits
    return replace(STRICT, gross=replace(STRICT.gross, limits=(first, second, third), upper=upper))


def straying(limit: int, times: int = 1) -> Profile:
    bounds = tuple(replace(bound, limit=limit) for bound in STRICT.bounds)
    runs = tuple(replace(run, scores=tuple(times * score for score in run.scores)) for run in STRICT.runs)
    return replace(STRICT, bounds=bounds, runs=runs)


POWER = Reported("power", 1_000_000_000, 100)
ENERGY = Reported("energy", None, 10)
# What nobody has to say: a firmware, a limit of power, a counter.
STRICT = replace(
    BEFORE,
    scope=replace(BEFORE.scope, vbios="96.00", power_limit_mw=700_000),
    channels=(ENERGY, POWER),
    explained=replace(
        BEFORE.explained, terms=(replace(BEFORE.explained.terms[0], low=200), *BEFORE.explained.terms[1:])
    ),
    bounds=tuple(replace(bound, claimed_ppm=10_000) for bound in BEFORE.bounds),
)


@pytest.mark.parametrize(
    "after",
    [
        STRICT,
        scoped(engine="vllm 0.12", workload="batch", gpu_model="H100 PCIe"),
        asking(replace(ENERGY, readings=9), POWER, Reported("sm_clock", None, 100)),
        ranging(300, 900),
        ranging(185, 1_090),
        grossly(620, 400, 190, upper=150),
        grossly(500, 300, 100, upper=100),
        straying(3_500),
        straying(1_800, times=2),
        replace(STRICT, evidence_ppm=12_000, delta_ppm=200_000),
    ],
)
def test_what_asks_for_as_much(after: Profile) -> None:
    assert drift(STRICT, after) == ()


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (replace(STRICT, source="aaa"), "it judges what aaa says, the one in force what nvml does"),
        (scoped(vbios=None), "it is for any VBIOS, the one in force for 96.00"),
        (scoped(vbios="97.00"), "it is for VBIOS 97.00, the one in force for 96.00"),
        (scoped(power_limit_mw=None), "it is for any power limit, the one in force for 700 W"),
        (scoped(power_limit_mw=500_000), "it is for a power limit of 500 W, the one in force for 700 W"),
        (asking(POWER), "it asks for no energy, the one in force does"),
        (
            asking(replace(ENERGY, readings=8), POWER),
            "it asks for 8 readings of energy in a unit, the one in force for 10",
        ),
        (
            asking(replace(ENERGY, readings=0), POWER),
            "it asks for 0 readings of energy in a unit, the one in force for 10",
        ),
        (asking(ENERGY, replace(POWER, window_ns=25_000_000)), "by it, power is a mean over another time"),
        (
            ranging(200, 1_200),
            "it is for work that the runs of the one in force never had: busy of 0.2 to 1.2, not 0.2 to 1",
        ),
        (ranging(0, 1_000), "it is for work that the runs of the one in force never had: busy of 0 to 1, not 0.2 to 1"),
        (grossly(700, 370, 180), "power of the last unit may be off by 70 %, by the one in force by 57 %"),
        (grossly(570, 370, 210), "power of the last 3 may be off by 21 %, by the one in force by 18 %"),
        (grossly(570, 370, 180, upper=160), "power may be 16 % above in a block, not 14 %"),
        (straying(3_700), "a block may stray by it more than twice as far"),
        (
            straying(1_800, times=3),
            "a unit strays by it before its evidence counts, more than twice as far",
        ),
        (
            replace(STRICT, delta_ppm=50_000),
            "its evidence takes longer to be believed: it claims 1 %, the one in force 1 %",
        ),
    ],
)
def test_what_asks_for_less(after: Profile, words: str) -> None:
    assert drift(STRICT, after) == (words,)


def test_evidence_that_is_hardly_ever_believed_and_no_bound_that_decides() -> None:
    assert drift(STRICT, replace(STRICT, evidence_ppm=1)) == (
        "a block may stray by it more than twice as far",
        "its evidence takes longer to be believed: it claims 0.0001 %, the one in force 1 %",
    )


def test_one_reading_may_fail_and_not_the_only_one() -> None:
    seldom = replace(STRICT, channels=(replace(ENERGY, readings=1), POWER))
    assert drift(seldom, asking(replace(ENERGY, readings=0), POWER)) == (
        "it asks for 0 readings of energy in a unit, the one in force for 1",
    )
    setting = asking(replace(ENERGY, readings=0), POWER)
    assert drift(setting, setting) == ()


def test_all_that_is_less_is_told() -> None:
    assert len(drift(STRICT, replace(asking(POWER), source="aaa", scope=BEFORE.scope))) == 4


def test_work_counts_where_it_explains_more() -> None:
    """A term that has grown is seen at the most work that was ever declared."""
    steep = tuple(replace(term, microwatts=20_000) for term in BEFORE.explained.terms)
    moved = replace(BEFORE, explained=replace(BEFORE.explained, terms=steep))
    assert drift(BEFORE, moved) == ("the power that the same work explains differs by 23.8 %",)


def test_who_has_never_seen_anything_takes_any_resolution() -> None:
    assert drift(made_up(smallest_mw=None), made_up(smallest_mw=90_000)) == ()
