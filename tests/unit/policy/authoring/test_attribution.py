"""Which clause makes which denial."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from weighbridge.policy.authoring.attribution import Attributed, Attributor
from weighbridge.policy.authoring.clauses import Clause, Written, modules_of, one_line
from weighbridge.policy.checker.syntax import Module
from weighbridge.policy.document import PolicyInput
from weighbridge.policy.engine import Denial, Limits
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import LINES_MAX, PolicySet, shipped
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import PolicyDenied


def attributed(policy: PolicySet, document: PolicyInput) -> tuple[Attributed, ...]:
    with RegorusEngine().load(policy) as prepared, Attributor(policy) as attributor:
        return attributor.rules_of(document, prepared.decide(document).denials)


def source_at(policy: PolicySet, clause: Clause) -> str:
    (text,) = (module.text for module in policy.modules if module.name == clause.module)
    return text.decode().split("\n")[clause.line - 1]


def test_every_denial_is_traced_to_a_clause(emulated: PolicyInput, reference: Callable[..., Reference]) -> None:
    policy = shipped("production", reference=reference(unchecked={}))
    found = attributed(policy, emulated)
    assert len(found) > 5
    for item in found:
        assert item.sources, item
        for clause in item.sources:
            assert re.search(r" contains | := \{d \|", source_at(policy, clause))
    by_message = {item.denial.message: item for item in found}
    (clause,) = by_message["the GPU is not a genuine one"].sources
    assert (clause.module, clause.name) == ("weighbridge/lib.rego", "lib.platform_denials")


def test_what_the_library_says_is_traced_into_it(good: PolicyInput, reference: Callable[..., Reference]) -> None:
    policy = shipped("production", reference=reference())
    (item,) = attributed(policy, replace(good, runtime=replace(good.runtime, violations=2)))
    assert item.denial.code == "RUNTIME_VIOLATION"
    (made,) = item.made_by
    assert made.clause.name == "deny"
    assert source_at(policy, made.clause).startswith("deny contains d if")
    assert [clause.name for clause in item.sources] == ["lib.always"]


def test_a_comprehension_in_a_function_is_seen_through(
    good: PolicyInput, policy_of: Callable[[str], PolicySet]
) -> None:
    rules = """deny contains d if {
	wanted := "TEST_A"
	some d in made(wanted)
}

deny contains d if some d in chosen(input.window.seq)

made(code) := {d |
	some item in ["x", "y"]
	d := lib.denial(code, null, item, null, null, null)
}

chosen(seq) := set() if {
	seq == 7
} else := {lib.denial("TEST_B", null, "m", seq, null, null)}
"""
    found = attributed(policy_of(HEAD + rules), good)
    places = [(item.denial.code, item.denial.message, item.sources[0].line, item.sources[0].name) for item in found]
    assert places == [("TEST_A", "x", 15, "made"), ("TEST_A", "y", 15, "made"), ("TEST_B", "m", 22, "chosen")]
    assert [item.made_by[0].clause.line for item in found] == [8, 8, 13]
    (item,) = attributed(policy_of(HEAD + rules.replace("TEST_A", "a").replace("seq == 7", "seq == 3")), good)
    assert item.denial.code == "POLICY_OUTPUT"


def test_a_union_is_seen_through(good: PolicyInput, policy_of: Callable[[str], PolicySet]) -> None:
    rules = "deny contains d if some d in mine | theirs\n\n" + saying("TEST_A", name="mine")
    (item,) = attributed(policy_of(HEAD + rules + saying("TEST_A", name="theirs")), good)
    assert [clause.name for clause in item.sources] == ["mine", "theirs"]


HEAD = """package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

"""


def saying(code: str, *, name: str = "deny", when: str = "true") -> str:
    """A clause of five lines."""
    return f'{name} contains d if {{\n\t{when}\n\td := lib.denial("{code}", null, "m", 1, {{}}, null)\n}}\n\n'


def test_two_clauses_that_say_the_same_are_both_named(good: PolicyInput, policy_of: Callable[[str], PolicySet]) -> None:
    one, other = saying("TEST_X", when="input.window.seq > 1"), saying("TEST_X")
    (item,) = attributed(policy_of(HEAD + one + other), good)
    assert [str(clause) for clause in item.sources] == ["test.rego:8", "test.rego:13"]


def test_a_set_that_is_filtered_is_seen_through_and_a_computed_one_is_not(
    good: PolicyInput, policy_of: Callable[[str], PolicySet]
) -> None:
    rules = """deny contains d if {
	some d in mine
	d.code == "TEST_A"
}

deny contains d if some d in {each | some each in mine; each.code == "TEST_B"}

"""
    rules += saying("TEST_A", name="mine") + saying("TEST_B", name="mine")
    first, second = attributed(policy_of(HEAD + rules), good)
    assert [(clause.line, clause.name) for clause in first.sources] == [(15, "mine")]
    assert [(clause.line, clause.name) for clause in second.sources] == [(13, "deny")]


def test_an_invariant_and_an_unknown_denial_have_no_clause(
    good: PolicyInput, policy_of: Callable[[str], PolicySet]
) -> None:
    policy = policy_of(HEAD + saying("TEST_X"))
    held = replace(good, window=replace(good.window, freshness="held"))
    found = {item.denial.code: item for item in attributed(policy, held)}
    assert set(found) == {"TEST_X", "WINDOW_HELD"}
    assert found["TEST_X"].sources
    assert found["WINDOW_HELD"].made_by == ()
    with Attributor(policy) as attributor:
        (other,) = attributor.rules_of(good, [Denial("TEST_X", 3, None, None, None, None, "another message")])
    assert other.made_by == ()


def test_a_policy_without_an_answer_has_no_clauses_and_the_next_document_has(
    good: PolicyInput, policy_of: Callable[[str], PolicySet]
) -> None:
    rules = """busy contains a if {
	input.window.seq == 7
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	a * b == 0
}

busy contains 1 if input.window.seq != 7
"""
    policy = policy_of(HEAD + saying("TEST_X", when="count(busy) > 0") + rules)
    denial = Denial("TEST_X", None, None, "1", "{}", None, "m")
    with Attributor(policy, Limits(decide_seconds=0.3)) as attributor:
        slow = replace(good, window=replace(good.window, seq=7))
        assert attributor.rules_of(slow, [denial]) == (Attributed(denial, ()),)
        (item,) = attributor.rules_of(good, [replace(denial, window=good.window.seq)])
        assert item.sources
        attributor.close()
        (item,) = attributor.rules_of(good, [replace(denial, window=good.window.seq)])
        assert item.sources


def test_a_policy_that_does_not_load_is_refused(policy_of: Callable[[str], PolicySet]) -> None:
    with pytest.raises(PolicyDenied, match="POLICY_INVALID"):
        Attributor(policy_of("package weighbridge.policy\n\nallow if {\n"))


def test_a_name_of_the_author_is_not_taken(good: PolicyInput, policy_of: Callable[[str], PolicySet]) -> None:
    rules = saying("TEST_X", when="why_h0") + "why_h0 if true\n\nwhy__h0 if true\n"
    (item,) = attributed(policy_of(HEAD + rules), good)
    assert item.sources


def test_generated_modules_keep_the_bounds_of_modules() -> None:
    module = Module("a.rego", "weighbridge.policy", {"v1": "rego.v1"}, (), b"import rego.v1", ((0, 14),))
    rules = [Written(module, f"r{number}", f"r{number} := [\n1\n]") for number in range(4_000)]
    made = modules_of(rules, "why_")
    assert len(made) > 1
    assert len({one.name for one in made}) == len(made)
    assert sum(one.text.count(b" := [") for one in made) == len(rules)
    assert all(one.text.count(b"\n") < LINES_MAX for one in made)
    assert all(before.name < after.name for before, after in pairwise(made))


def test_source_is_shown_on_one_line_without_comments() -> None:
    text = b'f(a, # one\n\t"b # no", `c # no "`, "\\"# no") # two'
    module = Module("a.rego", "p", {}, (), text)
    assert one_line(module, (0, len(text))) == 'f(a, "b # no", `c # no "`, "\\"# no")'
