"""The library's rules about owners and statements: what an author can demand of a model, and what does not pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicyModule, PolicySet
from weighbridge.policy.values.owner_sets import ModelValue, OwnerSet, StatementValue
from weighbridge.policy.values.reference import Reference

# As in conftest: the model of the document, and when it was received.
MODEL: Final = "aa" * 32
RECEIVED: Final = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
DAY: Final = timedelta(days=1)
TYPE: Final = "https://example/shutdown"
DEMAND: Final = """package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

allow if count(deny) == 0

deny contains d if {
	some model in input.weights.declared
	not RULE
	d := lib.denial("NOT_DEMANDED", null, "the demand is not met", null, null, null)
}
"""


def accepted(*statements: StatementValue, **changes: datetime) -> OwnerSet:
    times = {"not_before": RECEIVED - DAY, "not_after": RECEIVED + DAY, **changes}
    return OwnerSet(
        owner="Acme", number=1, digest="11" * 32, models=(ModelValue(MODEL, "m", statements),), revoked=(), **times
    )


def said(issuer: str = "Lab", type_: str = TYPE, date: str | None = "2026-11-21T12:00:00Z") -> StatementValue:
    return StatementValue("01" * 32, issuer, type_, date)


Allows = Callable[[str, OwnerSet | None], bool]


@pytest.fixture
def allows(policy_of: Callable[[str], PolicySet], good: doc.PolicyInput) -> Iterator[Allows]:
    """Whether a policy that demands ``rule`` of every declared model allows the good document."""
    made: list[PreparedPolicy] = []

    def decide(rule: str, owner_set: OwnerSet | None) -> bool:
        reference = Reference({MODEL: "m"}, {}, {}).with_sets([] if owner_set is None else [owner_set])
        library = policy_of(DEMAND.replace("RULE", rule)).modules[0]
        policy = PolicySet((library, PolicyModule("own.rego", DEMAND.replace("RULE", rule).encode())), reference)
        prepared = RegorusEngine().load(policy)
        assert isinstance(prepared, PreparedPolicy)
        made.append(prepared)
        return made[-1].decide(replace(good)).allowed

    yield decide
    for policy in made:
        policy.close()


@pytest.mark.parametrize(
    ("owner_set", "expected"),
    [
        (accepted(said()), True),
        (accepted(said(issuer="Somebody")), False),
        (accepted(said(type_="https://example/other")), False),
        # The right issuer of one statement does not vouch for the type of another.
        (accepted(said(issuer="Somebody"), said(type_="https://example/other")), False),
        (accepted(said(date=None)), True),
        (accepted(), False),
        (None, False),
    ],
)
def test_a_statement_of_a_type_by_an_issuer(allows: Allows, owner_set: OwnerSet | None, *, expected: bool) -> None:
    assert allows(f'lib.statement(model, "{TYPE}", "Lab")', owner_set) is expected


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2026-11-22T12:00:00.250000Z", True),
        ("2026-10-23T12:00:00.250000Z", True),
        ("2026-10-23T12:00:00.249999Z", False),
        ("2026-11-22T12:00:00.250001Z", False),
        (None, False),
    ],
)
def test_a_statement_that_is_not_too_old(allows: Allows, date: str | None, *, expected: bool) -> None:
    """To the microsecond; one from the future is not young, and one without a date is not dated."""
    assert allows(f'lib.statement_within(model, "{TYPE}", "Lab", 30)', accepted(said(date=date))) is expected


@pytest.mark.parametrize(
    ("owner_set", "expected"),
    [
        (accepted(), True),
        (replace(accepted(), owner="Beta"), False),
        (accepted(not_after=RECEIVED), True),
        (accepted(not_after=RECEIVED - timedelta(microseconds=1)), False),
        (accepted(not_before=RECEIVED + timedelta(microseconds=1)), False),
        (None, False),
    ],
)
def test_a_model_of_an_owner(allows: Allows, owner_set: OwnerSet | None, *, expected: bool) -> None:
    assert allows('lib.owned(model, "Acme")', owner_set) is expected


@pytest.mark.parametrize(("status", "expected"), [("passed", True), ("not_due", True), ("not_issued", False)])
def test_a_spot_check_that_was_due_and_not_asked(
    policy_of: Callable[[str], PolicySet],
    good: doc.PolicyInput,
    status: Literal["passed", "not_due", "not_issued"],
    *,
    expected: bool,
) -> None:
    rule = DEMAND.replace("RULE", "lib.spot_answered")
    weights = replace(good.weights, spot_check=doc.SpotCheck(status, None))
    policy = PolicySet((policy_of(rule).modules[0], PolicyModule("own.rego", rule.encode())), Reference({}, {}, {}))
    with RegorusEngine().load(policy) as prepared:
        assert prepared.decide(replace(good, weights=weights)).allowed is expected
