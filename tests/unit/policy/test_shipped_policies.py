"""Every shipped policy: its tests in Rego reach all of it, it denies what all deny, and no odd field opens it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from typing import Final, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from regorus import Engine

from support.policy_cases import ALWAYS, PRODUCTION, SUBSTITUTES, Change, kind_at, mutate, places
from weighbridge.policy import document as doc
from weighbridge.policy.authoring import testing
from weighbridge.policy.authoring.examples import EXAMPLES, Example
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import LIBRARY, SHIPPED, PolicyModule, PolicySet, Shipped, shipped, shipped_name
from weighbridge.proto import strict
from weighbridge.proto.errors import Code

Prepare = Callable[..., PreparedPolicy]
# The example that a policy is made for; production's is the one with fewer devices.
FOR: Final[dict[Shipped, str]] = {
    "production": "azure_snp_h100",
    "azure_snp_h100": "azure_snp_h100",
    "bare_metal_tpm_h100": "bare_metal_tpm_h100",
    "audit_only": "azure_snp_h100",
    "insecure_development": "emulated",
}
ADMITTING: Final = [name for name in SHIPPED if name != "audit_only"]


def example_of(name: Shipped) -> Example:
    """With a second GPU, since cases change that."""
    found = EXAMPLES[FOR[name]]
    first, *rest = found.input.gpus
    gpus = (first, *rest) if rest else (first, replace(first, identity="ff" * 32))
    return replace(found, input=replace(found.input, gpus=gpus))


def rego_test(name: str) -> PolicyModule:
    file = f"{name}_test.rego"
    return PolicyModule(file, (resources.files("weighbridge.policy") / "rego" / "tests" / file).read_bytes())


def ran(policy: PolicySet, name: str, covering: str) -> testing.Report:
    report = testing.run(testing.Suite(policy, (rego_test(name),)), covering=(covering,))
    assert report.passed, [(result.name, result.failure) for result in report.failed]
    return report


# ---------- tests in Rego


@pytest.mark.parametrize("name", SHIPPED)
def test_the_tests_of_a_policy_reach_every_line_of_it(name: Shipped) -> None:
    report = ran(shipped(name, reference=EXAMPLES[FOR[name]].reference), name, "weighbridge.policy")
    (module,) = report.coverage.modules
    assert module.missed == ()
    assert report.coverage.reaches(100)


def test_the_tests_of_the_library_reach_every_line_of_it() -> None:
    policy = shipped("production", reference=EXAMPLES["azure_snp_h100"].reference)
    report = ran(policy, "lib", "weighbridge.lib")
    (module,) = report.coverage.modules
    assert (module.name, module.missed) == (LIBRARY, ())
    assert report.coverage.reaches(100)


def test_every_policy_has_tests_and_there_are_no_others() -> None:
    folder = resources.files("weighbridge.policy") / "rego"
    tests = {path.name.removesuffix("_test.rego") for path in (folder / "tests").iterdir()}
    policies = {path.name.removesuffix(".rego") for path in folder.iterdir() if path.name.endswith(".rego")}
    assert tests == policies == {*SHIPPED, "lib"}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_checker_has_nothing_against_it(name: Shipped) -> None:
    assert RegorusEngine().check(shipped(name, reference=EXAMPLES[FOR[name]].reference)) == ()


def test_names() -> None:
    assert [shipped_name(name) for name in SHIPPED] == list(SHIPPED)
    assert shipped_name("lib") is None


# ---------- what they decide


@pytest.mark.parametrize("name", ADMITTING)
def test_a_policy_admits_what_it_is_for(prepared: Prepare, name: Shipped) -> None:
    example = example_of(name)
    decision = prepared(name, example.reference).decide(example.input)
    assert (decision.outcome, decision.denials) == ("allow", ())


@pytest.mark.parametrize("which", EXAMPLES)
@pytest.mark.parametrize("name", SHIPPED)
def test_who_admits_which_example(prepared: Prepare, name: Shipped, which: str) -> None:
    admitting = {
        "azure_snp_h100": {"production", "azure_snp_h100", "insecure_development"},
        "bare_metal_tpm_h100": {"production", "bare_metal_tpm_h100", "insecure_development"},
        "in_baseline": {"production", "azure_snp_h100", "insecure_development"},
        "emulated": {"insecure_development"},
    }
    example = EXAMPLES[which]
    decision = prepared(name, example.reference).decide(example.input)
    assert decision.outcome == ("allow" if name in admitting[which] else "deny")
    if name == "audit_only":
        assert [denial.code for denial in decision.denials] == [Code.AUDIT_ONLY]


@pytest.mark.parametrize("name", ADMITTING)
@pytest.mark.parametrize(("code", "change"), ALWAYS.values(), ids=ALWAYS)
def test_every_policy_denies_it(prepared: Prepare, name: Shipped, code: Code, change: Change) -> None:
    """A10 and A63 among them: no device, no reference value."""
    example = example_of(name)
    decision = prepared(name, example.reference).decide(change(example.input))
    assert decision.outcome == "deny"
    assert code in {denial.code for denial in decision.denials}


@pytest.mark.parametrize(("code", "change"), (ALWAYS | PRODUCTION).values(), ids=ALWAYS | PRODUCTION)
def test_an_audit_sees_what_production_denies(prepared: Prepare, code: Code, change: Change) -> None:
    example = example_of("audit_only")
    decision = prepared("audit_only", example.reference).decide(change(example.input))
    assert decision.outcome == "deny"
    assert Code.AUDIT_ONLY in {denial.code for denial in decision.denials}
    assert code in {advice.code for advice in decision.warnings}


@pytest.mark.parametrize("name", ADMITTING)
def test_without_reference_values_nothing_is_admitted(prepared: Prepare, name: Shipped) -> None:
    """A63: of models, of GPUs, and of everything."""
    example = example_of(name)
    bare = replace(example.reference, models={})
    assert Code.REFERENCE_ABSENT in {denial.code for denial in prepared(name, bare).decide(example.input).denials}


# ---------- odd fields


@pytest.mark.parametrize("name", ["azure_snp_h100", "bare_metal_tpm_h100", "audit_only"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_mutation_turns_a_denial_into_an_admission(prepared: Prepare, name: Shipped, data: st.DataObject) -> None:
    example = example_of(name)
    policy = prepared(name, example.reference)
    _, change = ALWAYS[data.draw(st.sampled_from(sorted(ALWAYS)))]
    value = json.loads(change(example.input).to_json())
    own = {path: kind_at(value, path) for path in places(value)}
    count = 0
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(own)))
        count += mutate(value, path, data.draw(st.sampled_from((..., *SUBSTITUTES))), own=own[path])
    assert policy._evaluate(json.dumps(value).encode(), example.input).outcome != "allow", (count, value)


# ---------- `sound` and `genuine` are `always` and `platform_denials`, in short

QUERY: Final = """package summary
answer := [
	count(data.weighbridge.lib.always) == 0, count([true | data.weighbridge.lib.sound]) == 1,
	count(data.weighbridge.lib.platform_denials) == 0, count([true | data.weighbridge.lib.genuine]) == 1,
]
"""


ODD: Final[tuple[object, ...]] = (..., None, True, 0, "other", "none", "switch", "mismatch", [], {"x": 1})


class Summary:
    """The library alone, in this process: thousands of questions."""

    def __init__(self, example: Example) -> None:
        self.policy: PolicySet = shipped("production", reference=example.reference)
        self.engine: Engine = self.load()

    def load(self) -> Engine:
        engine = Engine()
        (library,) = (module for module in self.policy.modules if module.name == LIBRARY)
        _ = engine.add_policy(library.name, library.text.decode())
        _ = engine.add_policy("summary.rego", QUERY)
        engine.add_data_json(strict.json_encode(self.policy.document()).decode())
        return engine

    def ask(self, value: object) -> list[bool] | None:
        """What is empty and what holds; nothing where the engine ends in an error."""
        self.engine.set_input_json(json.dumps(value))
        try:
            return cast("list[bool]", json.loads(self.engine.eval_rule_as_json("data.summary.answer")))
        except RuntimeError:
            self.engine = self.load()
            return None


def agree(summary: Summary, value: dict[str, object], place: object) -> bool:
    """Assert that the short rules are the long ones; true where there was an answer at all."""
    answer = summary.ask(value)
    if answer is None:
        return False
    nothing_always, sound, nothing_of_platforms, genuine = answer
    assert sound == nothing_always, place
    # Where a list is none, or there is no device, nothing is genuine, and another rule denies.
    telemetry = value.get("telemetry")
    sources = telemetry.get("sources") if isinstance(telemetry, dict) else None
    if value.get("gpus") and isinstance(value["gpus"], list) and isinstance(sources, list):
        assert genuine == nothing_of_platforms, place
    else:
        assert not (genuine and nothing_always), place
    return True


def test_the_short_rules_say_what_the_long_ones_say_of_every_case(good: doc.PolicyInput) -> None:
    summary = Summary(EXAMPLES["azure_snp_h100"])
    example = example_of("production").input
    for name, (_, change) in (ALWAYS | PRODUCTION).items():
        assert agree(summary, json.loads(change(example).to_json()), name)
        # Of another model than the reference's: never sound.
        assert agree(summary, json.loads(change(good).to_json()), name)


@pytest.mark.parametrize("which", ["azure_snp_h100", "in_baseline", "emulated"])
def test_the_short_rules_say_what_the_long_ones_say_of_every_odd_field(which: str) -> None:
    summary = Summary(EXAMPLES[which])
    document = EXAMPLES[which].input.to_json()
    answered = 0
    for path in places(json.loads(document)):
        for substitute in ODD:
            value = json.loads(document)
            if mutate(value, path, substitute):
                answered += agree(summary, value, (path, substitute))
    assert answered > 1000
