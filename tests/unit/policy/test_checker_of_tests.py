"""Test modules: they may replace documents, print and look at examples; what is dangerous elsewhere is so there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from support.checked import TESTS, checked, checked_tests
from weighbridge.policy.checker.findings import errors

if TYPE_CHECKING:
    from weighbridge.policy.checker.findings import CheckerFinding

POLICY: Final = """package weighbridge.policy

import data.weighbridge.lib

default allow := false

allow if count(deny) == 0

deny contains d if some d in lib.always
"""
HEAD: Final = """package weighbridge.policy_test

import data.examples
import data.weighbridge.lib
import data.weighbridge.policy

"""
# So that every import is looked at.
FOOT: Final = "\ntest_all if { policy.allow; lib.fresh; examples.good.input.gpus }\n"

ACCEPTED: Final = {
    "with an example": (
        "test_a if policy.allow with input as examples.good.input with data.reference as examples.good.reference\n"
    ),
    "not with a changed example": (
        "test_a if not policy.allow with input as "
        'json.patch(examples.good.input, [{"op": "replace", "path": "/window/freshness", "value": "held"}])\n'
    ),
    "with a part of a document": 'test_a if not lib.fresh with input.window.freshness as "held"\n',
    "with a part of the reference values": "test_a if count(policy.deny) > 0 with data.reference.models as {}\n",
    "with the author's data": 'test_a if policy.allow with data.author as {"a": 1}\n',
    "print": 'test_a if { print("denied", policy.deny); policy.allow }\n',
    "a denial by its code": (
        'test_a if { some d in policy.deny with input as examples.good.input; d.code == "WINDOW_HELD" }\n'
    ),
    "helpers and tables": (
        "gpus := examples.good.input.gpus\n\n"
        'worse := {"hold", "revoked"}\n\n'
        "changed(word) := [object.union(gpu, {`revocation`: word}) | some gpu in gpus]\n\n"
        "test_a if { count(worse) > 0; every word in worse { not policy.allow with input.gpus as changed(word) } }\n"
    ),
    "removed members": 'test_a if not policy.allow with input as json.remove(examples.good.input, ["/gpus/0"])\n',
}

REFUSED: Final = {
    "an example that is not there": ("path-unknown", "test_a if examples.god.input\n", "did you mean good?"),
    "a field that an example has not": ("path-unknown", "test_a if examples.good.input.gpu\n", "did you mean gpus?"),
    "a field of its reference values": (
        "path-unknown",
        "test_a if examples.good.reference.model\n",
        "did you mean models?",
    ),
    "a rule that the policy has not": ("path-unknown", "test_a if policy.alow\n", "did you mean allow?"),
    "a member that no denial has": (
        "path-unknown",
        'test_a if { some d in policy.deny; d.cod == "A" }\n',
        "mean code?",
    ),
    "with the rules": ("with", "test_a if policy.allow with policy.deny as set()\n", "replace one of"),
    "with the library": (
        "with",
        "test_a if policy.allow with lib.always as set()\n",
        "replace one of",
    ),
    "with a builtin": ("with", "test_a if policy.allow with time.now_ns as 1\n", "replace one of"),
    "the network": ("function-forbidden", "test_a if http.send({})\n", "reaches outside"),
    "every over what may be empty": (
        "every-maybe-empty",
        "test_a if every d in policy.deny { d }\n",
        "empty",
    ),
    "not with a call": (
        "not-maybe-undefined",
        "test_a if not startswith(input.session.tenant, `a`)\n",
        "may be undefined",
    ),
    "a rule that no test looks at": ("unused-rule", "tset_a if policy.allow\n", "looks at the rule tset_a"),
    "a name of the policy's": ("unbound", "test_a if allow\n", "not bound"),
    "a circle": ("recursion", "test_a if test_b\n\ntest_b if test_a\n", "depends on itself"),
}


@pytest.fixture(scope="module")
def findings() -> dict[str, tuple[CheckerFinding, ...]]:
    cases = {**ACCEPTED, **{name: text for name, (_, text, _) in REFUSED.items()}}
    return checked_tests(POLICY, {name: HEAD + text + FOOT for name, text in cases.items()})


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_tests_need_is_accepted(findings: dict[str, tuple[CheckerFinding, ...]], name: str) -> None:
    assert findings[name] == ()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_dangerous_in_tests_is_found(findings: dict[str, tuple[CheckerFinding, ...]], name: str) -> None:
    check, _, words = REFUSED[name]
    found = [item for item in findings[name] if item.check == check and words in item.message + item.safe]
    assert found, findings[name]
    assert found[0].module == TESTS


def test_what_tests_may_do_policies_may_not() -> None:
    """A test module among a policy's own is in the wrong package, and everything that it may do is an error."""
    cases = {
        "test": HEAD + "test_a if policy.allow with input as {}\n",
        "examples": POLICY + "\nwarn contains w if w := data.examples.good.input\n",
        "patch": POLICY + "\nwarn contains w if { w := json.patch({}, []) }\n",
        "print": POLICY + "\nwarn contains w if { w := 1; print(w) }\n",
    }
    found = {name: {item.check for item in errors(each)} for name, each in checked(cases).items()}
    assert {"package", "with", "path-unknown"} <= found["test"]
    assert found["examples"] == {"path-unknown"}
    assert found["patch"] == {"function-unknown"}
    assert found["print"] == {"print-in-policy"}


def test_a_test_module_is_in_its_own_package() -> None:
    (found,) = checked_tests(POLICY, {"a": POLICY}).values()
    assert {item.check for item in errors(found)} >= {"package", "default-twice"}


def test_a_rule_that_only_tests_look_at_is_unused() -> None:
    helper = POLICY + "\nhelper if input.window.seq == 1\n"
    (found,) = checked_tests(helper, {"a": HEAD + "test_a if policy.helper\n" + FOOT}).values()
    assert [item.check for item in found] == ["unused-rule"]
