"""Coverage counts what was reached of what can be, over all reports together, and rounds down."""

from __future__ import annotations

from typing import Final

from weighbridge.policy.authoring.coverage import Coverage, coverage_of
from weighbridge.policy.engines.workbench import Lines
from weighbridge.policy.policy_set import PolicyModule

MODULE: Final = PolicyModule("a.rego", b"one\n\ttwo\nthree\n")


def lines(covered: set[int], missed: set[int]) -> dict[str, Lines]:
    return {"a.rego": Lines(frozenset(covered), frozenset(missed)), "other.rego": Lines(frozenset({1}), frozenset())}


def test_reports_are_taken_together() -> None:
    found = coverage_of([MODULE], [lines({1}, {2, 3}), lines({3}, {1, 2})])
    (module,) = found.modules
    assert (module.covered, module.missed) == ((1, 3), ((2, "two"),))
    assert (found.covered, found.lines, found.tenths) == (2, 3, 666)
    assert found.reaches(66)
    assert not found.reaches(67)


def test_only_everything_is_all() -> None:
    assert coverage_of([MODULE], [lines({1, 2, 3}, set())]).reaches(100)
    nearly = coverage_of([PolicyModule("a.rego", b"x\n" * 2000)], [lines(set(range(1, 2000)), {2000})])
    assert (nearly.tenths, nearly.reaches(100)) == (999, False)


def test_nothing_is_not_covered() -> None:
    assert Coverage(()).tenths == 0
    assert not coverage_of([MODULE], []).reaches(1)
