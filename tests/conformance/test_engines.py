"""Every engine that is installed gives the answers that policies rely on; and one that does not is found out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from weighbridge.policy.engines.conformance import BenchEngine, run
from weighbridge.policy.engines.conformance_cases import CASES, ERROR, Case
from weighbridge.policy.engines.opa_binary import OpaBinaryEngine
from weighbridge.policy.engines.opa_go import OpaGoEngine
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.engines.workbench import UNDEFINED
from weighbridge.proto.errors import EnvironmentFault

if TYPE_CHECKING:
    from weighbridge.proto.strict import JsonValue


def installed(name: str, request: pytest.FixtureRequest) -> BenchEngine:
    if name == "opa-go":
        folder: Path = request.getfixturevalue("opa_library")
        return OpaGoEngine(folder)
    if name == "opa":
        try:
            return OpaBinaryEngine()
        except EnvironmentFault:
            pytest.skip("no opa on the PATH")
    return RegorusEngine()


@pytest.mark.parametrize(
    "name", ["regorus", pytest.param("opa-go", marks=pytest.mark.peer), pytest.param("opa", marks=pytest.mark.peer)]
)
def test_every_case_on_every_engine(name: str, request: pytest.FixtureRequest) -> None:
    results = run(installed(name, request))
    assert len(results) == len(CASES)
    assert [(result.case.about, result.case.name, result.got) for result in results if not result.passed] == []


def test_there_are_enough_cases_and_each_says_something_else() -> None:
    assert len(CASES) >= 60
    assert len({(case.rules, case.query, repr(case.document)) for case in CASES}) == len(CASES)
    assert len({case.name for case in CASES}) == len(CASES)
    parts = {case.about for case in CASES}
    assert parts >= {"undefined", "not", "every", "partial", "complete", "else", "function", "comprehension", "in"}
    assert parts >= {"text", "number", "collection", "type", "with", "time", "forbidden"}


@pytest.mark.parametrize(
    ("rules", "expected", "got"),
    [
        ("answer := 1", 2, "1"),
        ("answer := 1", True, "1"),
        ("answer := true", 1, "true"),
        ("answer := [1, true]", [1, 1], "[1,true]"),
        ("answer := {`a`: 1}", {"a": "1"}, '{"a":1}'),
        ("answer := 1", UNDEFINED, "1"),
        ("answer := 1", ERROR, "1"),
        ("answer := null", UNDEFINED, "null"),
        ("answer := input.x", None, "undefined"),
        ("answer := input.x", ERROR, "undefined"),
        ("answer := to_number(`x`)", 1, "an error: "),
        ("answer := to_number(`x`)", UNDEFINED, "an error: "),
        ("answer := numbers.range(1, 1000000000)", ERROR, "the engine died"),
    ],
)
def test_a_wrong_answer_is_told(rules: str, expected: JsonValue, got: str) -> None:
    """The last is a crash, which is no error that a policy could be relied on to end in."""
    wrong = Case("x", "wrong", rules, expected, {})
    right = Case("x", "right", "answer := 1.0", 1)
    results = run(RegorusEngine(), (wrong, right))
    assert [result.passed for result in results] == [False, True]
    assert results[0].got.startswith(got)
