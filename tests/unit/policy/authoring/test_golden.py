"""Golden inputs: read strictly, written as they are read, compared by code and by device."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.authoring.golden import Expectation, ExpectedDenial, Golden
from weighbridge.policy.engine import Advice, Decision, Denial, Obligation, Outcome, Unchecked
from weighbridge.policy.policy_set import AuthorData, PolicySet
from weighbridge.proto.errors import Code, MalformedEvidence

EXAMPLE: Final = EXAMPLES["azure_snp_h100"]
GPU: Final = "60" * 32


def denial(code: str, device: str | None = None) -> Denial:
    return Denial(code, 3, device, None, None, None, f"about {code}")


def decision(outcome: Outcome, *denials: Denial, warn: tuple[str, ...] = ()) -> Decision:
    return Decision(
        outcome=outcome,
        denials=denials,
        warnings=tuple(Advice(code, "") for code in warn),
        unchecked=(Unchecked("secure_boot", "a reason"),),
        obligations=(Obligation("spot_check", None, "a reason"),),
        trust_claims={},
        policy_digest=b"",
        reference_digest=b"",
        input_digest=b"",
        engine="",
        engine_version="",
    )


def golden(*denials: ExpectedDenial, **extras: tuple[str, ...]) -> Golden:
    expect = Expectation("deny" if denials else "allow", denials, extras)
    return Golden("a title", EXAMPLE.input, EXAMPLE.reference, expect)


def document(**changed: object) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(golden(ExpectedDenial("GPU_REVOKED")).to_json())
    return {**made, **changed}


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "made",
    [
        golden(),
        golden(ExpectedDenial("A"), ExpectedDenial("B", GPU, any_device=False), ExpectedDenial("C", any_device=False)),
        golden(warn=("A", "B"), unchecked=(), obligations=("spot_check",)),
        replace(golden(), title=""),
        replace(golden(), author={"tenant": "acme", "models": [1, None]}),
    ],
)
def test_what_is_written_is_read_back(made: Golden) -> None:
    assert Golden.parse(made.to_json()) == made


def test_another_time_is_that_of_the_document() -> None:
    made = Golden.parse(encoded(document(at="2027-01-02T03:04:05Z")))
    assert (made.input.received_at, made.input.received_ns) == ("2027-01-02T03:04:05Z", "1798859045000000000")


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        Golden.parse(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_any_expectation_is_read_or_refused(value: object) -> None:
    with pytest.raises(MalformedEvidence):
        Golden.parse(encoded(document(expect=value)))
    with pytest.raises(MalformedEvidence):
        Golden.parse(encoded(document(expect={"outcome": value, "denials": value})))


EXPECT: Final[dict[str, Any]] = {"outcome": "deny", "denials": ["A"]}


@pytest.mark.parametrize(
    ("changed", "code", "where"),
    [
        ({"schema": "weighbridge/policy-golden/v2"}, Code.VERSION_UNSUPPORTED, "golden.schema"),
        ({"extra": 1}, Code.FIELD_UNKNOWN, "golden"),
        ({"title": 3}, Code.FIELD_TYPE, "golden.title"),
        ({"title": "two\nlines"}, Code.FIELD_RANGE, "golden.title"),
        ({"at": "yesterday"}, Code.NOT_A_TIME, "golden.at"),
        ({"author": []}, Code.FIELD_TYPE, "golden.author"),
        ({"input": {}}, Code.FIELD_MISSING, "input.received_at"),
        ({"reference": {}}, Code.VERSION_UNSUPPORTED, "reference.schema"),
        ({"expect": []}, Code.FIELD_TYPE, "golden.expect"),
        ({"expect": {"outcome": "deny"}}, Code.FIELD_MISSING, "golden.expect"),
        ({"expect": {**EXPECT, "warnings": []}}, Code.FIELD_UNKNOWN, "golden.expect"),
        ({"expect": {**EXPECT, "outcome": "admit"}}, Code.FIELD_RANGE, "golden.expect.outcome"),
        ({"expect": {**EXPECT, "outcome": "allow"}}, Code.FIELD_RANGE, "golden.expect.denials"),
        ({"expect": {**EXPECT, "denials": []}}, Code.FIELD_RANGE, "golden.expect.denials"),
        ({"expect": {**EXPECT, "denials": [3]}}, Code.FIELD_TYPE, "golden.expect.denials[0]"),
        ({"expect": {**EXPECT, "denials": [{"code": "A"}]}}, Code.FIELD_MISSING, "golden.expect.denials[0]"),
        ({"expect": {**EXPECT, "denials": "A"}}, Code.FIELD_TYPE, "golden.expect.denials"),
        ({"expect": {**EXPECT, "denials": ["A"] * 5000}}, Code.TOO_LARGE, "golden.expect.denials"),
        ({"expect": {**EXPECT, "warn": [None]}}, Code.FIELD_TYPE, "golden.expect.warn[0]"),
    ],
)
def test_what_is_not_of_the_form_is_refused(changed: dict[str, Any], code: Code, where: str) -> None:
    with pytest.raises(MalformedEvidence) as refused:
        Golden.parse(encoded(document(**changed)))
    assert (refused.value.code, refused.value.where) == (code, where)


@pytest.mark.parametrize("member", ["input", "reference", "expect"])
def test_every_member_is_needed(member: str) -> None:
    made = document()
    del made[member]
    with pytest.raises(MalformedEvidence) as refused:
        Golden.parse(encoded(made))
    assert (refused.value.code, refused.value.where) == (Code.FIELD_MISSING, "golden")


def expecting(*denials: ExpectedDenial, **extras: tuple[str, ...]) -> Callable[[Decision], tuple[str, ...]]:
    return Expectation("deny" if denials else "allow", denials, extras).differences


def test_what_is_as_expected_differs_in_nothing() -> None:
    by_code = expecting(ExpectedDenial("A"))
    assert by_code(decision("deny", denial("A", GPU), denial("A"))) == ()
    by_device = expecting(ExpectedDenial("A", GPU, any_device=False))
    assert by_device(decision("deny", denial("A", GPU))) == ()
    assert expecting()(decision("allow", warn=("W",))) == ()
    assert expecting(warn=("W",), unchecked=("secure_boot",))(decision("allow", warn=("W", "W"))) == ()


def test_each_difference_is_a_line() -> None:
    assert expecting(ExpectedDenial("A"))(decision("allow")) == ("expected deny, got allow", "- deny A")
    assert expecting()(decision("deny", denial("A", GPU))) == (
        "expected allow, got deny",
        "+ deny A of 6060606060606060…: about A",
    )
    by_device = expecting(ExpectedDenial("A", GPU, any_device=False))
    assert by_device(decision("deny", denial("A", "gpu1"))) == (
        "- deny A of 6060606060606060…",
        "+ deny A of gpu1: about A",
    )
    assert expecting(warn=("V",), obligations=())(decision("allow", warn=("W",))) == (
        "- warn V",
        "+ warn W",
        "+ obligations spot_check",
    )
    assert expecting(ExpectedDenial("A"))(decision("error", denial("A"))) == ("expected deny, got error",)


def test_what_a_decision_was_is_what_is_expected() -> None:
    made = decision("deny", denial("A", GPU), denial("A", "other"), denial("B"), warn=("W",))
    expected = Expectation.of(made)
    assert expected.differences(made) == ()
    assert expected.document() == {
        "outcome": "deny",
        "denials": [{"code": "A", "device": GPU}, {"code": "A", "device": "other"}, "B"],
        "warn": ["W"],
        "unchecked": ["secure_boot"],
        "obligations": ["spot_check"],
    }
    assert expected.differences(decision("deny", denial("A", GPU), denial("B"), warn=("W",))) != ()


def test_what_it_says_of_the_authors_data_counts(policy_of: Callable[[str], PolicySet]) -> None:
    policy = replace(policy_of("package weighbridge.policy\n"), data=AuthorData(b'{"a": 1, "b": 2}'))
    assert golden().policy(policy) == replace(policy, reference=EXAMPLE.reference)
    changed = replace(golden(), author={"b": 3, "c": 4}).policy(policy)
    assert changed.document()["author"] == {"a": 1, "b": 3, "c": 4}
    without = replace(golden(), author={"b": 3}).policy(replace(policy, data=None))
    assert without.document()["author"] == {"b": 3}
