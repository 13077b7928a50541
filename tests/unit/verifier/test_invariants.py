"""The list of invariants is true: each is enforced where it says, by code that refuses with the codes it names."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from typing import TYPE_CHECKING

import pytest

from weighbridge.proto.errors import Code
from weighbridge.verifier.invariants import APPRAISED, GROUPS, INVARIANTS, Invariant, Place, codes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Not where something is refused: the list of codes, and lists of what codes mean.
LISTS = {"errors.py", "invariants.py", "acceptance.py"}


@cache
def refused_in(source: Path) -> frozenset[str]:
    """The codes that stand in a module as ``Code.…``."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return frozenset(
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    )


def sources(root: Path) -> Iterator[Path]:
    for part in ("verifier", "policy", "proto"):
        yield from (path for path in (root / part).rglob("*.py") if path.name not in LISTS)


@pytest.mark.parametrize("code", sorted(codes()))
def test_every_code_is_one_that_something_refuses_with(code: Code, root: Path) -> None:
    own = root / "verifier" / "weighbridge" / "verifier" / "acceptance.py"
    words = {"MODEL_REVOKED", "MODEL_EXPIRED", "HOST_SET_EXPIRED"}
    assert (code.name in words and code.name in refused_in(own)) or any(
        code.name in refused_in(source) for source in sources(root)
    )


@pytest.mark.parametrize("item", INVARIANTS, ids=lambda item: item.name)
def test_every_place_is_there_and_has_the_steps(item: Invariant) -> None:
    assert item.where
    for place in item.where:
        doc = importlib.import_module(place.module).__doc__ or ""
        for step in place.steps:
            assert re.search(rf"^ ?{step}\.  ?\S", doc, re.MULTILINE), str(place)


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


def test_what_appraisal_denies_is_no_code_of_verification() -> None:
    """What it denies with is told together; what verification raises stops at once."""
    others = {code for item in INVARIANTS if not item.appraised for code in item.codes}
    assert frozenset(others) & APPRAISED == frozenset()


def test_places_are_named_with_their_steps() -> None:
    assert str(Place("a.b")) == "a.b"
    assert str(Place("a.b", (5,))) == "a.b, step 5"
    assert str(Place("a.b", (5, 7))) == "a.b, steps 5, 7"
