"""That the checker's warnings are true: engines do evaluate what it refuses, and to something else than it reads.

Each case is one policy without a checker before it, in the worker that decides: what regorus makes of it, and OPA. The
last column is what the author meant, and did not get.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from support.checked import WHOLE, checked
from weighbridge.policy.engine import Limits
from weighbridge.policy.engines.opa_go import OpaGoEngine
from weighbridge.policy.engines.process import WorkerFault
from weighbridge.policy.engines.workbench import UNDEFINED, Undefined, Workbench, read_value
from weighbridge.policy.policy_set import PolicyModule

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.proto import strict

_NOW: Final = 1_795_348_800_000_000_000
Refused = Literal["refused"]
REFUSED: Final = "refused"
"""The engine does not load it, or dies of it."""


@dataclass(frozen=True)
class Case:
    """One rule ``r`` (or set ``deny``) under one input, and what each engine gives for it."""

    check: str
    rules: str
    document: dict[str, Any]
    regorus: strict.JsonValue | Undefined
    opa: strict.JsonValue | Undefined
    meant: strict.JsonValue | Undefined
    query: str = "r"


REVOKED: Final = {"gpus": [{"identity": "a", "revocation": "revoked"}]}

CASES: Final = {
    "a missing text begins with nothing (§2.3-1)": Case(
        "not-maybe-undefined", 'r if not startswith(input.gap.since, "2026")\n', {}, True, UNDEFINED, True
    ),
    "a missing number is not above another": Case(
        "not-maybe-undefined", "r if not data.author.n > 3\n", {}, True, UNDEFINED, True
    ),
    "nothing comes of a sum with what is missing": Case(
        "not-maybe-undefined", "r if not data.author.n + 1 == 2\n", {}, True, UNDEFINED, True
    ),
    "no list holds what is missing": Case(
        "not-maybe-undefined", "r if not [data.author.n] == []\n", {}, True, UNDEFINED, True
    ),
    "no key is what is missing": Case(
        "not-maybe-undefined", "r if not data.author.names[data.author.n]\n", {}, True, UNDEFINED, True
    ),
    "a function that gives nothing is not equal": Case(
        "not-maybe-undefined", "f(x) := 1 if x == 7\n\nr if not f(8) == 1\n", {}, True, UNDEFINED, True
    ),
    "a function that gives nothing has no member": Case(
        "not-maybe-undefined", "f(x) := {`a`: 1} if x == 7\n\nr if not f(8).a\n", {}, True, UNDEFINED, True
    ),
    "nothing is the least of none": Case(
        "not-maybe-undefined", "r if { x := []; not min(x) == 7 }\n", {}, True, UNDEFINED, True
    ),
    "one element more and the whole set is gone (§2.3-2)": Case(
        "head-unbound",
        "deny contains g.identity if some g in input.gpus\n",
        {"gpus": [{"identity": "bad"}, {}]},
        [],
        ["bad"],
        ["bad"],
        "deny",
    ),
    "nothing is unequal to what is missing (§2.3-8)": Case(
        "unequal-maybe-undefined",
        'r if data.reference.models.a.owner != "us"\n',
        {},
        UNDEFINED,
        UNDEFINED,
        True,
    ),
    "every one of none (§2.3-7)": Case(
        "every-maybe-empty",
        'r if every g in input.gpus { g.revocation == "good" }\n',
        {"gpus": []},
        True,
        True,
        UNDEFINED,
    ),
    "none bad of none": Case(
        "all-maybe-empty",
        'r if count([g | some g in input.gpus; g.revocation == "revoked"]) == 0\n',
        {"gpus": []},
        True,
        True,
        UNDEFINED,
    ),
    "no such function, noticed by nobody until it is too late (§2.2)": Case(
        "function-unknown",
        'r if { input.window.seq == 5; starts_with("a", "b") }\n',
        {"window": {"seq": 1}},
        UNDEFINED,
        REFUSED,
        REFUSED,
    ),
    "one argument too few (§2.2)": Case(
        "arity",
        'r if { input.window.seq == 5; startswith("a") }\n',
        {"window": {"seq": 1}},
        UNDEFINED,
        REFUSED,
        REFUSED,
    ),
    "a misspelt field never denies (trustee#1323)": Case(
        "path-unknown",
        'deny contains 1 if { some g in input.gpus; g.revokation == "revoked" }\n',
        REVOKED,
        [],
        [],
        [1],
        "deny",
    ),
    "a misspelt field under not always holds": Case(
        "path-unknown", 'r if { some g in input.gpus; not g.revokation == "revoked" }\n', REVOKED, True, True, UNDEFINED
    ),
    "in looks at a table's values, not at its keys": Case(
        "type-mismatch", 'r if { t := {"a": 1}; "a" in t }\n', {}, UNDEFINED, UNDEFINED, True
    ),
    "a misspelt word never denies": Case(
        "word-unknown",
        'deny contains 1 if { some g in input.gpus; g.revocation == "revokd" }\n',
        REVOKED,
        [],
        [],
        [1],
        "deny",
    ),
    "a misspelt word is always another": Case(
        "word-unknown",
        'r if { some g in input.gpus; g.revocation != "revokd" }\n',
        REVOKED,
        True,
        True,
        UNDEFINED,
    ),
    "text is above every number": Case(
        "type-mismatch", "r if input.received_ns > 5\n", {"received_ns": "1"}, True, True, UNDEFINED
    ),
    "text is no number": Case(
        "type-mismatch", 'r if input.window.seq == "5"\n', {"window": {"seq": 5}}, UNDEFINED, UNDEFINED, True
    ),
    "a full deny has at least nothing in it": Case(
        "count-bound", "r if count(input.findings) >= 0\n", {"findings": ["bad"]}, True, True, UNDEFINED
    ),
    "a GPU is no switch": Case(
        "contradiction",
        'r if { some g in input.gpus; g.kind == "gpu"; g.kind == "switch" }\n',
        {"gpus": [{"kind": "gpu"}, {"kind": "switch"}]},
        UNDEFINED,
        UNDEFINED,
        True,
    ),
    "= takes a misspelt name for a new one": Case(
        "unify",
        'ours := "acme"\n\nr if our = input.session.tenant\n',
        {"session": {"tenant": "evil"}},
        True,
        True,
        UNDEFINED,
    ),
    "not of any is some one not, for one engine alone": Case(
        "not-wildcard",
        "r if not input.gpus[_].reported_in_window\n",
        {"gpus": [{"reported_in_window": True}, {"reported_in_window": False}]},
        True,
        REFUSED,
        UNDEFINED,
    ),
    "another input than the evidence": Case(
        "with",
        'fresh if input.window.freshness == "fresh"\n\nr if fresh with input as {"window": {"freshness": "fresh"}}\n',
        {"window": {"freshness": "held"}},
        True,
        True,
        UNDEFINED,
    ),
    "one default of two (§2.2)": Case(
        "default-twice", "default r := true\n\ndefault r := false\n", {}, True, REFUSED, REFUSED
    ),
    "a function that calls itself (§2.2)": Case(
        "recursion", "f(n) := f(n)\n\nr := f(1)\n", {}, REFUSED, REFUSED, UNDEFINED
    ),
    "a name that nothing binds, in a line that is not reached (§2.2)": Case(
        "unbound", "r if { input.window.seq == 5; nothing == 1 }\n", {"window": {"seq": 1}}, REFUSED, REFUSED, UNDEFINED
    ),
    "a version is ordered by its letters": Case(
        "text-order",
        'r if { some g in input.gpus; g.driver < "580.10" }\n',
        {"gpus": [{"driver": "580.9"}]},
        UNDEFINED,
        UNDEFINED,
        True,
    ),
    "a driver's version is no semantic one": Case(
        "text-order",
        'r if { some g in input.gpus; semver.compare(g.driver, "580.10.0") < 0 }\n',
        {"gpus": [{"driver": "580.9"}]},
        REFUSED,
        REFUSED,
        True,
    ),
    "a text is taken for a denial, and read by nobody": Case(
        "denial-malformed",
        'deny contains "GPU_OLD" if input.gpus\n',
        {"gpus": []},
        ["GPU_OLD"],
        ["GPU_OLD"],
        [{"code": "GPU_OLD"}],
        "deny",
    ),
    "a null that never comes": Case(
        "null-never",
        "r if { some g in input.gpus; g.revocation == null }\n",
        {"gpus": [{"revocation": "unknown"}]},
        UNDEFINED,
        UNDEFINED,
        True,
    ),
}


def text_of(case: Case) -> str:
    return (
        WHOLE + case.rules
        if case.query == "r"
        else WHOLE.replace("deny contains d if {\n\tfalse\n\td := {}\n}\n", "") + case.rules
    )


@pytest.mark.parametrize("name", CASES)
def test_regorus_takes_it_otherwise_than_it_reads(name: str) -> None:
    case = CASES[name]
    try:
        with Workbench([PolicyModule("a.rego", text_of(case).encode())], {"reference": {"models": {}}}) as bench:
            document = json.dumps(case.document).encode()
            value = bench.evaluate(f"data.weighbridge.policy.{case.query}", document, now_ns=_NOW).value
    except WorkerFault:
        value = REFUSED
    assert value == case.regorus


@pytest.mark.peer
@pytest.mark.parametrize("name", CASES)
def test_opa_takes_it_as_is_said_here(opa_library: Path, name: str) -> None:
    case = CASES[name]
    query, document = f"data.weighbridge.policy.{case.query}".encode(), json.dumps(case.document).encode()
    modules = [PolicyModule("a.rego", text_of(case).encode())]
    limits = Limits(decide_seconds=10.0)
    try:
        pool = OpaGoEngine(opa_library).bench(modules, {"reference": {"models": {}}}, limits)
    except WorkerFault:
        assert case.opa == REFUSED
        return
    try:
        value = read_value(pool.evaluate(query, document, now_ns=_NOW))
    except WorkerFault:
        value = REFUSED
    finally:
        pool.close()
    assert value == case.opa


@pytest.fixture(scope="module")
def findings() -> dict[str, set[str]]:
    found = checked({name: text_of(case) for name, case in CASES.items()})
    return {name: {finding.check for finding in each} for name, each in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_checker_finds_it(findings: dict[str, set[str]], name: str) -> None:
    assert CASES[name].check in findings[name]


@pytest.mark.parametrize("name", CASES)
def test_it_is_not_what_was_meant_or_engines_differ(name: str) -> None:
    """Otherwise the case shows nothing."""
    case = CASES[name]
    assert case.regorus != case.meant or case.regorus != case.opa
