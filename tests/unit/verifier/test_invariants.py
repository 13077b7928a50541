"""The list of invariants is true: each is enforced where it says, by code that refuses with the codes it names."""

from __future__ import annotations

import importlib
import re

import pytest

from support.refusing import refused_in, refused_in_step
from weighbridge.proto.errors import Code
from weighbridge.verifier.invariants import APPRAISED, GROUPS, INVARIANTS, Invariant, Place


@pytest.mark.parametrize("item", INVARIANTS, ids=lambda item: item.name)
def test_every_place_is_there_and_has_the_steps(item: Invariant) -> None:
    assert item.where
    for place in item.where:
        doc = importlib.import_module(place.module).__doc__ or ""
        for step in place.steps:
            assert re.search(rf"^ ?{step}\.  ?\S", doc, re.MULTILINE), str(place)
        assert list(place.steps) == sorted(set(place.steps)), str(place)


@pytest.mark.parametrize("item", INVARIANTS, ids=lambda item: item.name)
def test_each_place_refuses_with_its_codes_and_each_code_is_refused_with_in_one(item: Invariant) -> None:
    refused = {
        f"{place.module}, step {step}": refused_in_step(place.module, step) if step else refused_in(place.module)
        for place in item.where
        for step in place.steps or (0,)
    }
    assert [where for where, found in refused.items() if found.isdisjoint(item.codes)] == []
    assert set(item.codes) - frozenset().union(*refused.values()) == set()


def test_names_are_one_each_and_texts_are_clauses() -> None:
    names = [item.name for item in INVARIANTS]
    assert len(set(names)) == len(names)
    assert [group for group in GROUPS if not any(item.group == group for item in INVARIANTS)] == []
    for item in INVARIANTS:
        assert item.codes, item.name
        assert not item.holds.endswith("."), item.name
        assert len(set(item.codes)) == len(item.codes), item.name


def test_groups_stand_together_in_their_order() -> None:
    order = [GROUPS.index(item.group) for item in INVARIANTS]
    assert order == sorted(order)


def test_appraisal_denies_what_is_wrong_with_models_and_what_sticks() -> None:
    """What it denies with is told together; what verification raises stops at once, and is no code of these."""
    assert {
        Code.MODEL_UNDECLARED,
        Code.MODEL_NOT_LOADED,
        Code.WEIGHTS_MISMATCH,
        Code.MODEL_REVOKED,
        Code.MODEL_EXPIRED,
        Code.HOST_SET_EXPIRED,
        Code.LOAD_MISMATCH,
        Code.BASELINE_UNEXPLAINED,
        Code.SUBJECT_FAILED,
    } == APPRAISED
    others = {code for item in INVARIANTS if not item.appraised for code in item.codes}
    assert frozenset(others) & APPRAISED == frozenset()


def test_places_are_named_with_their_steps() -> None:
    assert str(Place("a.b")) == "a.b"
    assert str(Place("a.b", (5,))) == "a.b, step 5"
    assert str(Place("a.b", (5, 7))) == "a.b, steps 5, 7"
