"""Only an exact ``true`` beside an empty set, in the one known form, is an admission."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy import document as doc
from weighbridge.policy.engine import Advice, Denial, Unchecked
from weighbridge.policy.engines.output import invariants, read_answer
from weighbridge.proto.errors import Code

NAMES = ("unchecked", "warnings")
DENIAL = {"code": "MY_CODE", "window": 3, "device": None, "expected": "a", "got": "b", "hint": "c", "message": "d"}


def answer(*values: object) -> bytes:
    expression = {"value": list(values), "text": "q", "location": {"row": 1, "col": 1}}
    return json.dumps({"result": [{"expressions": [expression]}]}).encode()


def test_an_admission(good: doc.PolicyInput) -> None:
    output = read_answer(answer(True, [], [], []), NAMES, good)
    assert (output.outcome, output.denials, output.unchecked, output.warnings) == ("allow", (), (), ())


def test_what_the_rules_say_is_carried(good: doc.PolicyInput) -> None:
    unchecked, warning = {"check": "x", "reason": "because"}, {"code": "W", "message": "m"}
    output = read_answer(answer(False, [DENIAL], [unchecked], [warning]), NAMES, good)
    assert output.outcome == "deny"
    assert output.denials == (Denial("MY_CODE", 3, None, "a", "b", "c", "d"),)
    assert output.unchecked == (Unchecked("x", "because"),)
    assert output.warnings == (Advice("W", "m"),)


def test_a_denial_stands_above_allow(good: doc.PolicyInput) -> None:
    output = read_answer(answer(True, [DENIAL]), (), good)
    assert output.outcome == "deny"
    without = {key: value for key, value in DENIAL.items() if key != "message"} | {"window": None}
    assert read_answer(answer(True, [without]), (), good).denials[0].message == "MY_CODE"


def test_no_reason_is_a_denial_with_a_code(good: doc.PolicyInput) -> None:
    output = read_answer(answer(False, []), (), good)
    assert output.outcome == "deny"
    assert [denial.code for denial in output.denials] == [Code.POLICY_DENIED]


def test_undefined(good: doc.PolicyInput) -> None:
    """facts §2.3-6: an undefined rule gives an empty object."""
    output = read_answer(b"{}", NAMES, good)
    assert output.outcome == "undefined"
    assert output.denials[0].code == Code.POLICY_UNDEFINED


@pytest.mark.parametrize("allow", [1, 1.0, "true", "<undefined>", None, {}, [], [True], {"allow": True}])
def test_what_is_not_exactly_true_does_not_allow(good: doc.PolicyInput, allow: object) -> None:
    output = read_answer(answer(allow, []), (), good)
    assert output.outcome == "error"
    assert output.denials[0].code == Code.POLICY_OUTPUT


STRANGE: dict[str, bytes] = {
    "not JSON": b"true",
    "nothing": b"",
    "null": b"null",
    "no result": b'{"result": []}',
    "two results": b'{"result": [{"expressions": []}, {"expressions": []}]}',
    "more than a result": b'{"result": [], "x": 1}',
    "no expression": b'{"result": [{"expressions": []}]}',
    "bindings": b'{"result": [{"expressions": [{"value": [true, []], "text": "", "location": {}}], "bindings": {}}]}',
    "no value": b'{"result": [{"expressions": [{"text": "", "location": {}}]}]}',
    "repeated key": answer(True, []).replace(b'"text"', b'"value": [true, []], "text"'),
    "not a list": b'{"result": [{"expressions": [{"value": true, "text": "", "location": {}}]}]}',
    "too few": answer(True),
    "too many": answer(True, [], []),
    "deny is an object": answer(True, {}),
    "deny is null": answer(True, None),
    "deny is false": answer(True, False),
    "deny is text": answer(True, ""),
    "a denial is text": answer(True, ["x"]),
    "a denial is null": answer(True, [None]),
    "a denial has no code": answer(True, [{key: value for key, value in DENIAL.items() if key != "code"}]),
    "a denial has more": answer(True, [{**DENIAL, "severity": 1}]),
    "a code is a sentence": answer(True, [{**DENIAL, "code": "not good"}]),
    "a code is a number": answer(True, [{**DENIAL, "code": 1}]),
    "another window": answer(True, [{**DENIAL, "window": 4}]),
    "a window as text": answer(True, [{**DENIAL, "window": "3"}]),
    "a window as a truth": answer(True, [{**DENIAL, "window": True}]),
    "a number where text is": answer(True, [{**DENIAL, "got": 1}]),
}


@pytest.mark.parametrize("data", STRANGE.values(), ids=STRANGE)
def test_what_is_not_understood_does_not_allow(good: doc.PolicyInput, data: bytes) -> None:
    output = read_answer(data, (), good)
    assert output.outcome == "error"
    assert [denial.code for denial in output.denials] == [Code.POLICY_OUTPUT]
    assert output.detail


EXTRAS: list[tuple[object, object]] = [
    ([], {}),
    ([{}], []),
    ([{"check": "x", "reason": ""}], []),
    ([{"check": "x", "reason": None}], []),
    ([{"check": 1, "reason": "x"}], []),
    ([], [{"code": "x"}]),
    ([], ["x"]),
]


@pytest.mark.parametrize("extra", EXTRAS)
def test_nor_do_malformed_extras(good: doc.PolicyInput, extra: tuple[object, object]) -> None:
    assert read_answer(answer(True, [], *extra), NAMES, good).outcome == "error"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(
    st.binary(max_size=80)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.lists(JSON, max_size=4).map(lambda v: answer(*v))
)
def test_any_answer_gives_an_output(data: bytes) -> None:
    output = read_answer(data, (), DOCUMENT[0])
    assert output.outcome != "allow" or data == answer(True, [])
    assert output.outcome == "allow" or output.denials


DOCUMENT: list[doc.PolicyInput] = []


@pytest.fixture(autouse=True)
def _document(good: doc.PolicyInput) -> None:
    DOCUMENT[:] = [good]


def test_invariants_stand_above_every_policy(good: doc.PolicyInput) -> None:
    """A10 and DESIGN §4.6: no policy can switch these off, whatever it answers."""
    weights = good.weights
    stranger = doc.LoadedModel("ee" * 32, "x", True, 2)
    cases = {
        Code.GPU_MISSING: replace(good, gpus=()),
        Code.WINDOW_HELD: replace(good, window=replace(good.window, freshness="held")),
        Code.WEIGHTS_MISMATCH: replace(
            good, weights=replace(weights, differences=(doc.WeightDifference("f", "t", "tensor", "a", "b"),))
        ),
    }
    assert invariants(good) == ()
    for code, document in cases.items():
        output = read_answer(answer(True, []), (), document)
        assert (output.outcome, [denial.code for denial in output.denials]) == ("deny", [code])
    for changed in (
        replace(weights, declared=()),
        replace(weights, loaded=(*weights.loaded, stranger)),
        replace(weights, loaded=(replace(weights.loaded[0], declared=False),)),
    ):
        output = read_answer(answer(True, []), (), replace(good, weights=changed))
        assert {denial.code for denial in output.denials} == {Code.MODEL_UNDECLARED}


def test_what_the_policy_says_better_is_not_repeated(good: doc.PolicyInput) -> None:
    said = {**DENIAL, "code": "WINDOW_HELD"}
    output = read_answer(answer(False, [said]), (), replace(good, window=replace(good.window, freshness="held")))
    assert [denial.hint for denial in output.denials] == ["c"]
