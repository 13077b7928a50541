"""Only an exact ``true`` beside an empty set, in the one known form, is an admission."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy import document as doc
from weighbridge.policy.claims import not_better, trust_claims
from weighbridge.policy.engine import Advice, Denial, Obligation, Unchecked
from weighbridge.policy.engines.output import invariants, read_answer
from weighbridge.proto.errors import Code

NAMES = ("unchecked", "warn")
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


def test_a_warning_may_name_its_device(good: doc.PolicyInput) -> None:
    output = read_answer(answer(True, [], [{"code": "W", "message": "m", "device": "aa"}]), ("warn",), good)
    assert output.warnings == (Advice("W", "m", "aa"),)


def test_obligations_are_carried(good: doc.PolicyInput) -> None:
    given = [{"kind": "spot_check", "reason": "r"}, {"kind": "reattest", "seconds": 30, "reason": "s"}]
    output = read_answer(answer(True, [], given), ("obligations",), good)
    assert output.outcome == "allow"
    assert output.obligations == (Obligation("spot_check", None, "r"), Obligation("reattest", 30, "s"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "other", "reason": "r"},
        {"kind": "spot_check", "seconds": 1, "reason": "r"},
        {"kind": "spot_check", "reason": ""},
        {"kind": "spot_check"},
        {"kind": "reattest", "reason": "r"},
        {"kind": "reattest", "seconds": 0, "reason": "r"},
        {"kind": "reattest", "seconds": 121, "reason": "r"},
        {"kind": "reattest", "seconds": True, "reason": "r"},
        {"kind": "reattest", "seconds": 5, "reason": "r", "more": 1},
        "spot_check",
    ],
)
def test_an_obligation_that_is_not_understood_admits_nothing(good: doc.PolicyInput, wrong: object) -> None:
    output = read_answer(answer(True, [], [wrong]), ("obligations",), good)
    assert output.outcome == "error"
    assert output.denials[0].code == Code.POLICY_OUTPUT


def test_claims_are_what_was_shown_or_worse(good: doc.PolicyInput) -> None:
    output = read_answer(
        answer(True, [], {"gpu0": {"hardware": 32}, "tpm0": {"file-system": 97}}), ("trust_claims",), good
    )
    assert output.claims is not None
    shown = trust_claims(good)
    assert shown["gpu0"]["hardware"] == 2
    assert output.claims["gpu0"] == {**shown["gpu0"], "hardware": 32}
    assert output.claims["tpm0"] == {**shown["tpm0"], "file-system": 97}
    assert output.claims["weights0"] == shown["weights0"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights0": {"executables": 2}},
        {"weights0": {"executables": 0}},
        {"tpm0": {"file-system": 2}},
        {"gpu9": {"hardware": 97}},
        {"gpu0": {"hardwear": 97}},
        {"gpu0": {"hardware": 128}},
        {"gpu0": {"hardware": True}},
        {"gpu0": {"hardware": "97"}},
        {"gpu0": 97},
        [],
        None,
    ],
)
def test_claims_better_than_shown_or_not_of_ar4si_admit_nothing(good: doc.PolicyInput, wrong: object) -> None:
    """Weights under a measuring code that is not proven are shown as a warning (32)."""
    output = read_answer(answer(True, [], wrong), ("trust_claims",), good)
    assert output.outcome == "error"
    assert output.denials[0].code == Code.POLICY_OUTPUT


@pytest.mark.parametrize(
    ("value", "shown", "expected"),
    [
        (2, 2, True), (0, 2, True), (2, 0, False), (1, 0, True), (31, 2, True), (32, 31, True), (31, 32, False),
        (97, 96, True), (32, 96, False), (-128, 96, True), (-2, 0, False), (-33, 32, True),
        (-1, 2, True), (-32, 32, False),
    ],
)  # fmt: skip
def test_tiers_of_claims(value: int, shown: int, expected: bool) -> None:
    assert not_better(value, shown) is expected


def test_a_denial_stands_above_allow(good: doc.PolicyInput) -> None:
    output = read_answer(answer(True, [DENIAL]), (), good)
    assert output.outcome == "deny"
    without = {key: value for key, value in DENIAL.items() if key != "message"} | {"window": None}
    assert read_answer(answer(True, [without]), (), good).denials[0].message == "MY_CODE"


def test_a_denial_may_say_nothing_against_the_host(good: doc.PolicyInput) -> None:
    plain, passing = {**DENIAL, "code": "AA"}, {**DENIAL, "code": "BB", "sticks": False}
    output = read_answer(answer(False, [plain, passing]), (), good)
    assert [(denial.code, denial.sticks) for denial in output.denials] == [("AA", True), ("BB", False)]
    assert read_answer(answer(False, [{**DENIAL, "sticks": 0}]), (), good).outcome == "error"


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
    """A10: no policy can switch these off, whatever it answers."""
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


def test_a_policy_does_not_forgive_what_an_invariant_refuses(good: doc.PolicyInput) -> None:
    """Of one code there are two denials then, and the one that sticks counts."""
    said = {**DENIAL, "code": "WEIGHTS_MISMATCH", "sticks": False}
    difference = doc.WeightDifference("f", "t", "tensor", "a", "b")
    document = replace(good, weights=replace(good.weights, differences=(difference,)))
    output = read_answer(answer(False, [said]), (), document)
    assert {(denial.code, denial.sticks) for denial in output.denials} == {
        ("WEIGHTS_MISMATCH", False),
        ("WEIGHTS_MISMATCH", True),
    }


def test_what_one_answer_says_of_two_windows_is_of_each(good: doc.PolicyInput) -> None:
    same, held = answer(True, [], [], []), replace(good, window=replace(good.window, freshness="held"))
    said = [read_answer(same, NAMES, document) for document in (good, held, good)]
    assert [item.outcome for item in said] == ["allow", "deny", "allow"]
    assert said[1].denials[0].code == Code.WINDOW_HELD
    assert said[1].claims == trust_claims(held)


def test_a_denial_is_of_the_window_that_it_names_however_often_it_is_read(good: doc.PolicyInput) -> None:
    other = replace(good, window=replace(good.window, seq=good.window.seq + 1))
    said = [read_answer(answer(False, [DENIAL], [], []), NAMES, document) for document in (good, other, good)]
    assert [item.outcome for item in said] == ["deny", "error", "deny"]
