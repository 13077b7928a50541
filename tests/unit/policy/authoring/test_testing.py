"""Authors' tests: only exactly true passes, whatever the engine does, and whoever fails says where and with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.authoring.golden import Expectation, ExpectedDenial, Golden
from weighbridge.policy.authoring.testing import Report, Result, Suite, run
from weighbridge.policy.authoring.trial import Fault, Trial
from weighbridge.policy.engine import Limits
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicyModule, PolicySet, shipped
from weighbridge.proto.errors import Code, PolicyDenied

EXAMPLE: Final = EXAMPLES["azure_snp_h100"]
POLICY: Final = """package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

allow if count(deny) == 0

deny contains d if some d in lib.always

deny contains d if {
	not ours
	d := lib.denial("NOT_OURS", null, "another tenant's", "acme", input.session.tenant, null)
}

ours if input.session.tenant == "acme"
"""
HEAD: Final = """package weighbridge.policy_test

import data.examples
import data.weighbridge.policy
import rego.v1

good := examples.azure_snp_h100

"""
# Every builtin that makes much out of little is forbidden; what is left are loops in loops.
MANY: Final = f'split("{"," * 29}", ",")'
SLOW: Final = f"[1 | {'; '.join(f'some {name} in {MANY}' for name in 'abcde')}]"
PolicyOf = Callable[[str], PolicySet]


@pytest.fixture
def policy(policy_of: PolicyOf) -> PolicySet:
    return policy_of(POLICY)


def written(*rules: str, head: str = HEAD) -> tuple[PolicyModule, ...]:
    return tuple(PolicyModule(f"{'ab'[number]}_test.rego", (head + text).encode()) for number, text in enumerate(rules))


def ran(policy: PolicySet, *rules: str, limits: Limits | None = None) -> Report:
    return run(Suite(policy, written(*rules)), limits=limits or Limits())


def only(report: Report) -> Result:
    (result,) = report.results
    return result


ALLOWS: Final = "test_a if policy.allow with input as good.input with data.reference as good.reference\n"


def test_what_is_true_passes(policy: PolicySet) -> None:
    report = ran(policy, ALLOWS + "test_b := true\n")
    assert report.passed
    assert [(result.name, result.file, result.line) for result in report.results] == [
        ("test_a", "a_test.rego", 9),
        ("test_b", "a_test.rego", 10),
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("test_a if false", "this does not hold:"),
        ("test_a := false", "it is false, not true"),
        ("test_a := 1", "it is 1, not true"),
        ("test_a := null", "it is null, not true"),
        ('test_a := "true"', 'it is "true", not true'),
        ("test_a := {}", "it is {}, not true"),
        ("test_a contains true", "it is a set, and not a test: write test_a if { … }"),
        ("test_a(x) if x", "it is a function, and not a test: write test_a if { … }"),
        ("default test_a := true", "it is a default, and not a test: write test_a if { … }"),
        ('test_a if to_number("x") == 1', "the policy ends in an error: a_test.rego:9: could not parse"),
        (f"test_a if count({SLOW}) > 0", "the policy takes too long"),
    ],
)
def test_everything_else_fails(policy: PolicySet, rule: str, said: str) -> None:
    report = ran(policy, f"{rule}\n\ntest_z := true\n", limits=Limits(decide_seconds=1.0))
    failed, passed = report.results
    assert not report.passed
    assert failed.failure[0].startswith(said)
    assert passed.passed, "the next test has another engine"


def test_the_present_is_when_the_examples_were_received(policy: PolicySet) -> None:
    assert ran(policy, "test_a if time.now_ns() == time.parse_rfc3339_ns(good.input.received_at)\n").passed


def test_no_tests_are_not_passed(policy: PolicySet) -> None:
    assert not ran(policy, "").passed
    assert not run(Suite(policy)).passed


def test_two_of_one_name_fail(policy: PolicySet) -> None:
    twice = "test_a if false\n\ntest_a if true\n"
    (said,) = only(ran(policy, twice)).failure
    assert "test_a stands twice, again at a_test.rego:11" in said
    (said,) = only(ran(policy, "test_a if true\n", "test_a if true\n")).failure
    assert "again at b_test.rego:9" in said


def test_what_was_printed_is_kept(policy: PolicySet) -> None:
    result = only(ran(policy, 'test_a if {\n\tprint("seen", 3)\n\tfalse\n}\n'))
    assert result.prints == ("a_test.rego:10: seen 3",)


def test_whoever_fails_shows_where_and_both_sides(policy: PolicySet) -> None:
    rule = """test_a if {
	some number in [1, 2]
	found := {"a", "b"}
	count(found) == number + 3
	true
}
"""
    assert only(ran(policy, rule)).failure == (
        "this does not hold:",
        "    12  count(found) == number + 3",
        "        left   2",
        "        right  4",
        "        left   2",
        "        right  5",
    )
    rule = 'test_a if {\n\tfound := ["a"]\n\t"x" in found\n}\n'
    assert only(ran(policy, rule)).failure[1:] == ('    11  "x" in found', '        value  "x"', '        in     ["a"]')


def test_a_denial_that_was_not_expected_is_shown(policy: PolicySet) -> None:
    rule = """test_a if {
	document := json.patch(good.input, [{"op": "replace", "path": "/session/tenant", "value": "other"}])
	policy.allow with input as document
		with data.reference as good.reference
}
"""
    assert only(ran(policy, rule)).failure == (
        "this does not hold:",
        "    11  policy.allow with input as document",
        "    12  with data.reference as good.reference",
        '        denied  ["NOT_OURS"]',
    )


def test_what_cannot_be_shown_is_left_out(policy: PolicySet) -> None:
    long = f'test_a if {{\n\tx := "{"x" * 480}"\n\tcount(x) == 1\n}}\n'
    assert only(ran(policy, long)).failure[-1] == "        right  1"
    longer = f'test_a if {{\n\tcount("{"x" * 492}") == 1\n}}\n'
    assert len(only(ran(policy, longer)).failure) == 2
    chosen = "test_a := false if {\n\tfalse\n} else := true if {\n\t1 == 2\n}\n"
    assert only(ran(policy, chosen)).failure[0] == "this does not hold:"


def test_only_what_is_selected_runs(policy: PolicySet) -> None:
    suite = Suite(policy, written("test_a := true\n\ntest_b := false\n"), (("x.golden.json", golden()),))
    assert [result.name for result in run(suite, selected=lambda name: name.endswith("a")).results] == ["test_a"]
    assert [result.kind for result in run(suite, selected=lambda name: name.startswith("x")).results] == ["golden"]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("package weighbridge.policy\n\nimport rego.v1\n\n", "package weighbridge.policy"),
        ("package weighbridge.lib\n\nimport rego.v1\n\n", "package weighbridge.lib"),
        ("package weighbridge.policy_test\n\nimport rego.v1\n\nx if {\n", "does not load"),
        ("package weighbridge.policy_test\n\nimport rego.v1\n\nx if input.absent\n\n", "input has no absent"),
        ("package weighbridge.policy_test\n\nimport rego.v1\n\nf(x) := f(x + 1)\n\n", "depends on itself"),
    ],
)
def test_a_module_that_is_no_test_is_refused(policy: PolicySet, head: str, said: str) -> None:
    with pytest.raises(PolicyDenied) as refused:
        run(Suite(policy, written("test_a := true\n", head=head)))
    assert refused.value.code is Code.POLICY_INVALID
    assert said in str(refused.value)
    assert "a_test.rego" in refused.value.where


@pytest.mark.parametrize("name", ["a.rego", "z.rego"])
def test_policies_of_several_modules_are_tested_as_they_decide(policy: PolicySet, name: str) -> None:
    """Reached by an alias, regorus loses what all but the first module of a package import."""
    text = """package weighbridge.policy

import data.weighbridge.lib
import rego.v1

deny contains d if {
	input.window.seq == 3
	d := lib.denial("THREE", null, "the third", null, null, null)
}

fine(x) if lib.schema_known == x
"""
    module = PolicyModule(name, text.encode())
    several = replace(policy, modules=(policy.modules[0], *sorted([policy.modules[1], module], key=str)))
    tests = """test_a if {
	document := json.patch(good.input, [
		{"op": "replace", "path": "/session/tenant", "value": "other"},
		{"op": "replace", "path": "/gpus/0/revocation", "value": "revoked"},
	])
	found := {d.code | some d in policy.deny} with input as document with data.reference as good.reference
	found == {"GPU_REVOKED", "NOT_OURS", "THREE"}
}

test_b if policy.fine(true) with input as good.input

test_c if {
	rule := "deny"
	count(policy[rule]) == 1 with input as good.input with data.reference as good.reference
}
"""
    assert only_failures(ran(several, tests)) == []


def only_failures(report: Report) -> list[tuple[str, tuple[str, ...]]]:
    return [(result.name, result.failure) for result in report.failed]


# -- golden inputs -----------------------------------------------------------------------------------------------------


def golden(*codes: str, tenant: str = "acme") -> Golden:
    document = replace(EXAMPLE.input, session=replace(EXAMPLE.input.session, tenant=tenant))
    denials = tuple(ExpectedDenial(code) for code in codes)
    return Golden("title", document, EXAMPLE.reference, Expectation("deny" if codes else "allow", denials, {}))


def test_golden_inputs_are_decided_by_their_own_values(policy: PolicySet) -> None:
    without = replace(golden("REFERENCE_ABSENT"), reference=replace(EXAMPLE.reference, models={}))
    suite = Suite(
        policy,
        golden=(("a", golden()), ("b", without), ("c", golden("NOT_OURS", tenant="other"))),
    )
    report = run(suite)
    assert report.passed, [result.failure for result in report.results]
    assert [result.file for result in report.results] == ["a", "b", "c"]


def test_a_golden_input_that_differs_says_how_and_why(policy: PolicySet) -> None:
    suite = Suite(policy, golden=(("a", golden(tenant="other")),))
    result = only(run(suite))
    assert result.failure == ("expected allow, got deny", "+ deny NOT_OURS: another tenant's")
    (why,) = result.because
    assert "test.rego line 12 denies it" in why
    assert 'input.session.tenant is "other"' in why


def test_an_engine_that_fails_on_a_golden_input_fails_it_alone(policy_of: PolicyOf) -> None:
    clause = f'ours if {{\n\tinput.session.tenant == "other"\n\tcount({SLOW}) == 1\n}}\n'
    slow = policy_of(f"{POLICY}\n{clause}")
    suite = Suite(slow, golden=(("a", golden(tenant="other")), ("b", golden())))
    report = run(suite, limits=Limits(decide_seconds=1.0))
    late, good = report.results
    assert late.failure == (
        "expected allow, got timeout",
        "+ deny POLICY_TIMEOUT: the policy takes too long",
        "no answer before the deadline",
    )
    assert good.passed


# -- coverage ----------------------------------------------------------------------------------------------------------


def test_lines_that_no_test_reaches_are_known(policy: PolicySet) -> None:
    report = ran(policy, ALLOWS)
    (module,) = report.coverage.modules
    assert module.name == "test.rego"
    assert [line for line, _ in module.missed] == [12, 14]
    assert module.missed[0] == (12, "deny contains d if {")
    assert report.coverage.reaches(70)
    assert not report.coverage.reaches(100)


def test_golden_inputs_count_for_coverage(policy: PolicySet) -> None:
    both = Suite(policy, written(ALLOWS), (("a", golden("NOT_OURS", tenant="other")),))
    assert run(both).coverage.reaches(100)


def test_the_library_is_counted_where_it_is_asked_for(policy: PolicySet) -> None:
    report = run(Suite(policy, written(ALLOWS)), covering=("weighbridge.lib",))
    assert report.coverage.modules
    assert all(module.name.startswith("weighbridge/lib") for module in report.coverage.modules)
    assert not report.coverage.reaches(100)


# -- trials ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_a_trial_decides_as_the_engine_does(name: str) -> None:
    example = EXAMPLES[name]
    made = shipped("production", reference=example.reference)
    with Trial(made) as trial, RegorusEngine().load(made) as prepared:
        assert trial.decide(example.input).decision == prepared.decide(example.input)


def test_print_works_in_a_trial_and_nowhere_else(policy_of: PolicyOf) -> None:
    printing = policy_of(POLICY.replace("\tnot ours\n", '\tprint("tenant", input.session.tenant)\n\tnot ours\n'))
    with Trial(printing) as trial:
        trial.refuse_errors()
        tried = trial.decide(EXAMPLE.input)
    assert tried.prints == ("test.rego:13: tenant acme",)
    with pytest.raises(PolicyDenied):
        RegorusEngine().load(printing)


def test_what_the_checker_refuses_is_not_tried(policy_of: PolicyOf) -> None:
    wrong = policy_of(POLICY.replace("not ours", "not input.session.tenannt"))
    with Trial(wrong) as trial, pytest.raises(PolicyDenied) as refused:
        trial.refuse_errors()
    assert (refused.value.code, refused.value.where) == (Code.POLICY_INVALID, "test.rego:13")
    assert "policy check" in refused.value.hint


def test_a_trial_survives_what_it_evaluates(policy: PolicySet) -> None:
    with Trial(policy, limits=Limits(decide_seconds=1.0)) as trial:
        for query, outcome in (
            ("nonsense(", "error"),
            (f"count({SLOW}) > 0", "timeout"),
            ("numbers.range(1, 1000000000)", "crashed"),
            ('to_number("x")', "error"),
        ):
            found = trial.evaluate(query, b"{}", now_ns=0)
            assert isinstance(found, Fault)
            assert found.outcome == outcome
        assert trial.decide(EXAMPLE.input).decision.outcome == "deny"
        trial.close()
    trial.close()
