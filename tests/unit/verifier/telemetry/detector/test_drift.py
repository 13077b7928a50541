"""What counts as the same thing measured again, and what an owner has to accept in so many words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.baseline_owners import made_up
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


def test_work_counts_where_it_explains_more() -> None:
    """A term that has grown is seen at the most work that was ever declared."""
    steep = tuple(replace(term, microwatts=20_000) for term in BEFORE.explained.terms)
    moved = replace(BEFORE, explained=replace(BEFORE.explained, terms=steep))
    assert drift(BEFORE, moved) == ("the power that the same work explains differs by 23.8 %",)


def test_who_has_never_seen_anything_takes_any_resolution() -> None:
    assert drift(made_up(smallest_mw=None), made_up(smallest_mw=90_000)) == ()
