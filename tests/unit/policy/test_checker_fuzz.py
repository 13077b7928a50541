"""Whatever is written, the checker answers: text like Rego, shipped policies with pieces changed, nests of brackets."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.checked import PACKAGE, WHOLE, library
from weighbridge.policy.checker.check import check, check_tests
from weighbridge.policy.engine import Limits
from weighbridge.policy.engines.process import WorkerFault
from weighbridge.policy.engines.workbench import Workbench
from weighbridge.policy.policy_set import LIBRARY, PolicyModule, shipped
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code, PolicyDenied

if TYPE_CHECKING:
    from weighbridge.policy.checker.findings import CheckerFinding

QUICK: Final = Limits(load_seconds=2.0)
SLOW: Final = 20.0
"""Seconds, on a machine that does other things as well."""
# A worker for every example: few examples here, and each of several rules.
FEW: Final = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

WORDS: Final = st.sampled_from([
    "input", "data", "gpus", "window", "reference", "models", "lib", "deny", "allow", "x", "y", "f", "g", "_", "1", "0",
    "-1", '"a"', "`a`", "null", "true", "false", "count", "startswith", "object.get", "print", "every", "some",
    "in", "not", "if", "else", "contains", "default", "with", "as", "import", "package", ":=", "=", "==", "!=", "<",
    ">=", "+", "-", "|", "&", "(", ")", "[", "]", "{", "}", ",", ";", ":", ".", "\n", "#", '"', "é", "😀",
])  # fmt: skip
TERM: Final = st.recursive(
    st.sampled_from(
        ["input", "x", "y", "1", '"good"', "null", "data.reference", "input.gpus", "deny", "_", "[]", "set()"]
    ),
    lambda inner: st.one_of(
        st.builds("{}.{}".format, st.sampled_from(["input", "x", "data.reference"]), st.sampled_from(["gpus", "z"])),
        st.builds("x[{}]".format, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{{{}: {}}}".format, inner, inner),
        st.builds("f({})".format, inner),
        st.builds("count({})".format, inner),
        st.builds("object.get({}, {}, {})".format, inner, inner, inner),
        st.builds("[x | some x in {}; {} == {}]".format, inner, inner, inner),
        st.builds("({} + {})".format, inner, inner),
        st.builds("({} | {})".format, inner, inner),
    ),
    max_leaves=6,
)  # fmt: skip
STATEMENT: Final = st.one_of(
    st.builds("{} := {}".format, st.sampled_from(["x", "y", "z", "[x, y]", "input"]), TERM),
    st.builds("{} {} {}".format, TERM, st.sampled_from(["==", "!=", "<", ">=", "in", "="]), TERM),
    st.builds("some {} in {}".format, st.sampled_from(["x", "y", "x, y", "_, z"]), TERM),
    st.builds("not {}".format, TERM),
    st.builds("not {} == {}".format, TERM, TERM),
    st.builds("every x in {} {{ {} }}".format, TERM, TERM),
    st.builds("{} with input as {}".format, TERM, TERM),
    st.sampled_from(["false", "some x", "print(x)"]),
)
HEAD: Final = st.sampled_from(
    ["allow", "deny contains x", "deny contains {}", "f(x) := y", "f(x)", "x := 1", "x[y] := 2", "a.b contains y"]
)
RULE: Final = st.builds(
    lambda head, body: f"{head} if {{ {'; '.join(body)} }}\n", HEAD, st.lists(STATEMENT, min_size=1, max_size=5)
)


def judged(text: str) -> tuple[CheckerFinding, ...] | None:
    """The findings; ``None`` for what is refused before, in the ways in which it may be."""
    began = time.monotonic()
    try:
        module = PolicyModule("a.rego", text.encode())
        with Workbench([module], {}, limits=QUICK) as bench:
            modules = (library(), *bench.syntax)
        found = check(modules, LIBRARY)
        assert found == check(modules, LIBRARY)
        assert list(found) == sorted(set(found))
        tests = check_tests(modules, LIBRARY, tests=frozenset({"a.rego"}), examples=frozenset({"good"}))
        assert list(tests) == sorted(set(tests))
    except WorkerFault:
        return None
    except PolicyDenied as refused:
        assert refused.code is Code.POLICY_INVALID  # noqa: PT017 - the other outcome is as good
        return None
    finally:
        assert time.monotonic() - began < SLOW
    lines = text.split("\n")
    for finding in found:
        if finding.module == "a.rego":
            assert 1 <= finding.line <= len(lines)
            assert 1 <= finding.column <= len(lines[finding.line - 1]) + 1
    return found


@FEW
@given(st.lists(RULE, min_size=1, max_size=6))
def test_rules_of_any_kind(rules: list[str]) -> None:
    _ = judged(WHOLE + "\n".join(rules))


@FEW
@given(st.lists(WORDS, max_size=60))
def test_words_in_any_order(words: list[str]) -> None:
    _ = judged(PACKAGE + " ".join(words))


@cache
def production() -> str:
    return shipped("production", reference=Reference({}, {}, {})).modules[-1].text.decode()


@FEW
@given(st.data())
def test_the_production_policy_with_pieces_changed(data: st.DataObject) -> None:
    text = production()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        until = min(len(text), at + data.draw(st.integers(0, 12)))
        text = text[:at] + data.draw(st.one_of(WORDS, st.text(max_size=3))) + text[until:]
    _ = judged(text)


def test_most_rules_are_judged_and_not_refused_before() -> None:
    """Otherwise the tests above show nothing."""
    assert judged(WHOLE + "x := [y | some y in input.gpus; y.z == 1]\n")
    assert judged(production()) == ()


@pytest.mark.parametrize(
    "text",
    [
        "x := " + "[" * 12 + "]" * 12,
        "x := " + "[" * 13 + "]" * 13,
        "x := " + "{1: " * 11 + "2" + "}" * 11,
        "x := " + "f(" * 12 + "1" + ")" * 12,
        "x := " + " + ".join(["1"] * 100),
        "x := 1" + "\n+ 1" * 3000,
        "x if " + "not " * 100 + "y",
        "x := " + "-" * 400 + "1",
        "x := input" + ".a" * 200,
        "x := input" + "\n.a" * 2000,
        "".join(f"r{n} if r{n + 1}\n" for n in range(2000)) + "r2000 := 1",
        "".join(f"f{n}(a) := f{n + 1}(a)\n" for n in range(1500)) + "f1500(a) := a.b\n\nx := f0(input)",
        "".join(f"v{n} := v{n + 1}\n" for n in range(300)) + "v300 := input.gpus\n\nx if v0[0].fwidd",
        "x if {\n" + "".join(f"v{n} := v{n - 1}\n" for n in range(1500, 0, -1)) + "v0 := input\n}",
        "x if {\n" + 'input.gpus[0].fwid == "a"\n' * 2000 + "}",
        "x if " + "y else if ".join(["y "] * 25) + "y",
    ],
    ids=range(16),
)
def test_bombs_end_within_their_time(text: str) -> None:
    _ = judged(WHOLE + text + "\n")


def test_a_thousand_findings_take_no_longer_than_they_must() -> None:
    rules = "".join(f"x{n} if {{ some g in input.gpus; g.revokation == `goood{n}` }}\n" for n in range(1000))
    found = judged(WHOLE + rules)
    assert found is not None
    assert sum(finding.check == "path-unknown" for finding in found) == 1000
