"""Two engines that must agree: where they differ, nothing is admitted, and nothing is held against the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, cast

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.checker.findings import CheckerFinding
from weighbridge.policy.engine import (
    DEFAULT_LIMITS,
    Advice,
    Decision,
    Denial,
    Limits,
    Obligation,
    PolicyEngine,
    Prepared,
    Unchecked,
)
from weighbridge.policy.engines.cross_check import CrossCheck
from weighbridge.policy.engines.opa_go import OpaGoEngine
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicySet
from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.verifier.acceptance import NOT_OF_THE_HOST

PolicyOf = Callable[[str], PolicySet]


def denial(code: str) -> Denial:
    return Denial(code, 3, None, None, None, None, code)


ALLOW = Decision(
    outcome="allow",
    denials=(),
    warnings=(Advice("W", "w"), Advice("V", "v")),
    unchecked=(Unchecked("check", "reason"),),
    obligations=(Obligation("spot_check", None, "because"),),
    trust_claims=MappingProxyType({"tpm0": MappingProxyType({"hardware": 2})}),
    policy_digest=b"p",
    reference_digest=b"r",
    input_digest=b"i",
    engine="one",
    engine_version="1",
)
A, B = denial("A"), denial("B")
DENY = replace(ALLOW, outcome="deny", denials=(A,))


@dataclass
class Scripted:
    """An engine, and a prepared policy, that gives one decision."""

    decision: Decision
    name: str = "one"
    version: str = "1"
    closed: list[str] = field(default_factory=list)
    fault: Exception | None = None

    def check(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> tuple[CheckerFinding, ...]:
        del policy, limits
        both = CheckerFinding("m.rego", 2, 1, "syntax", "of both", "")
        return both, CheckerFinding("m.rego", 1, 1, "syntax", f"of {self.name}", "")

    def load(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> Self:
        del policy, limits
        if self.fault is not None:
            raise self.fault
        return self

    def decide(self, document: doc.PolicyInput) -> Decision:
        del document
        return replace(self.decision, engine=self.name, engine_version=self.version)

    def close(self) -> None:
        self.closed.append(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cross(first: Decision, second: Decision, good: doc.PolicyInput) -> Decision:
    engine = CrossCheck(Scripted(first), Scripted(second, "two", "2"))
    with engine.load(cast("PolicySet", None)) as prepared:
        return prepared.decide(good)


@pytest.mark.parametrize(
    "decision",
    [
        ALLOW,
        DENY,
        replace(DENY, denials=(A, B)),
        replace(DENY, outcome="error", detail="x"),
        replace(DENY, outcome="timeout"),
    ],
)
def test_where_both_say_the_same_it_is_the_firsts_decision(decision: Decision, good: doc.PolicyInput) -> None:
    other = replace(
        decision, denials=decision.denials[::-1], warnings=decision.warnings[::-1], detail="the same in other words"
    )
    assert cross(decision, other, good) == replace(decision, engine="cross:one,two", engine_version="1; 2")


@pytest.mark.parametrize(
    ("first", "second", "detail"),
    [
        (ALLOW, DENY, "one: allow; two: deny, alone in denying A"),
        (DENY, ALLOW, "one: deny, alone in denying A; two: allow"),
        (DENY, replace(DENY, denials=(B,)), "one: deny, alone in denying A; two: deny, alone in denying B"),
        (DENY, replace(DENY, denials=(A, B)), "one: deny; two: deny, alone in denying B"),
        (DENY, replace(DENY, denials=(replace(A, device="gpu"),)), "alone in denying A; two: deny, alone in denying A"),
        (ALLOW, replace(ALLOW, outcome="timeout", denials=(B,), detail="slow"), "timeout (slow), alone in denying B"),
        (ALLOW, replace(ALLOW, outcome="undefined"), "one: allow; two: undefined"),
        (ALLOW, replace(ALLOW, obligations=()), "they differ in claims, obligations, warnings"),
        (ALLOW, replace(ALLOW, trust_claims={"tpm0": {"hardware": 96}}), "they differ in claims"),
        (ALLOW, replace(ALLOW, unchecked=()), "they differ in claims"),
        (ALLOW, replace(ALLOW, warnings=ALLOW.warnings[:1]), "they differ in claims"),
        (DENY, replace(DENY, denials=tuple(denial(name) for name in "ABCDEFG")), "B, C, D, E and 2 more"),
    ],
)  # fmt: skip
def test_where_they_differ_nothing_is_admitted(
    first: Decision, second: Decision, detail: str, good: doc.PolicyInput
) -> None:
    decision = cross(first, second, good)
    assert decision.outcome == "disagree"
    assert not decision.allowed
    assert decision.denials[0].code == Code.POLICY_DISAGREE
    assert detail in decision.detail
    assert decision.obligations == ()
    assert set(decision.denials[1:]) == set(first.denials) & set(second.denials)


def test_a_difference_says_nothing_of_the_host_but_what_both_deny_does(good: doc.PolicyInput) -> None:
    assert Code.POLICY_DISAGREE in NOT_OF_THE_HOST
    differ = cross(ALLOW, replace(DENY, denials=(denial(Code.WEIGHTS_MISMATCH),)), good)
    assert {item.code for item in differ.denials} <= NOT_OF_THE_HOST
    both = replace(DENY, denials=(denial(Code.WEIGHTS_MISMATCH),))
    agree = cross(both, replace(both, denials=(*both.denials, B)), good)
    assert {item.code for item in agree.denials} - NOT_OF_THE_HOST == {Code.WEIGHTS_MISMATCH}


def test_findings_of_both(good: doc.PolicyInput) -> None:
    engine: PolicyEngine = CrossCheck(Scripted(ALLOW), Scripted(ALLOW, "two"))
    found = engine.check(cast("PolicySet", None))
    assert [finding.message for finding in found] == ["of one", "of two", "of both"]
    assert good.gpus


def test_both_are_closed_and_the_first_where_the_second_does_not_load() -> None:
    one, two = Scripted(ALLOW), Scripted(ALLOW, "two")
    prepared: Prepared = CrossCheck(one, two).load(cast("PolicySet", None))
    prepared.close()
    assert (one.closed, two.closed) == (["one"], ["two"])
    two.fault = PolicyDenied(Code.POLICY_INVALID, "no")
    with pytest.raises(PolicyDenied):
        _ = CrossCheck(one, two).load(cast("PolicySet", None))
    assert (one.closed, two.closed) == (["one", "one"], ["two"])


TENANTS = (("abc", "allow", ""), ("ab", "deny", ""), ("é😀", "disagree", "regorus: allow; opa-go: deny"))


@pytest.mark.peer
def test_two_real_engines_agree_and_are_seen_to_differ(
    opa_library: Path, policy_of: PolicyOf, head: str, good: doc.PolicyInput
) -> None:
    """The one difference that the checker lets pass: neither is wrong, and each counts letters its own way."""
    engine = CrossCheck(RegorusEngine(), OpaGoEngine(opa_library))
    policy = policy_of(head + "allow if count(input.session.tenant) == 3\n")
    with engine.load(policy) as prepared:
        for tenant, outcome, detail in TENANTS:
            decision = prepared.decide(replace(good, session=replace(good.session, tenant=tenant)))
            assert decision.outcome == outcome, tenant
            assert decision.engine == "cross:regorus,opa-go"
            assert decision.detail.startswith(detail)
