"""Profiles and sets of them: one spelling, whole numbers, nothing that contradicts itself; else malformed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.baseline_owners import BaselineOwner, made_up
from support.mutations import check_total
from weighbridge.proto import limits, strict
from weighbridge.proto.baseline import BaselineSet, SignedBaselineSet
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.profile import FEATURES, Bound, CalibrationRun, Checked, Deviation, Profile

if TYPE_CHECKING:
    from collections.abc import Callable

OWNER = BaselineOwner()
PROFILE = replace(
    made_up(),
    bounds=(
        Bound("runs", 1_900, 76_924, 12, "sessions-like-runs"),
        Bound("pooled", 7_344, 10_000, 396, "devices-alike"),
    ),
    checked=Checked(runs=30, alarms=0, low_ppm=0, high_ppm=116_000, widened=False),
)
VALID = PROFILE.encode()
CONTENT = OWNER.content([PROFILE])
SET = CONTENT.encode()
Document = dict[str, Any]


def code_of(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        Profile.parse(data)
    return refusal.value.code


def changed(**values: object) -> bytes:
    return strict.json_encode({**cast("Document", json.loads(VALID)), **values})


def inside(name: str, **values: object) -> bytes:
    document = cast("Document", json.loads(VALID))
    return strict.json_encode({**document, name: {**document[name], **values}})


def test_what_is_encoded_is_parsed_to_the_same() -> None:
    assert Profile.parse(VALID) == PROFILE
    bare = replace(PROFILE, device=None, checked=None, deviations=(Deviation(1, None),), bounds=PROFILE.bounds[:1])
    assert Profile.parse(bare.encode()) == bare
    assert BaselineSet.parse(SET) == CONTENT
    signed = SignedBaselineSet.parse(OWNER.sign(CONTENT))
    assert signed.claimed == CONTENT


def test_a_profile_of_twelve_runs_is_small() -> None:
    scores = tuple(range(20_000, 40_000, 1000))
    runs = tuple(replace(run, scores=scores) for run in PROFILE.runs)
    assert len(replace(PROFILE, runs=runs).encode()) < 12_000


@given(
    st.one_of(st.binary(max_size=300), st.integers(0, len(VALID) - 1).map(lambda at: VALID[:at] + b"9" + VALID[at:]))
)
def test_any_bytes_are_a_profile_or_malformed(data: bytes) -> None:
    check_total(Profile.parse, lambda profile: profile.encode(), data)  # type: ignore[attr-defined]


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


@given(st.sampled_from(sorted(json.loads(VALID))), JSON)
def test_any_value_in_any_field_is_a_profile_or_malformed(name: str, value: object) -> None:
    check_total(Profile.parse, lambda profile: profile.encode(), changed(**{name: value}))  # type: ignore[attr-defined]


@given(st.sampled_from(["scope", "explained", "checked"]), st.data())
def test_any_value_inside_is_a_profile_or_malformed(name: str, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(json.loads(VALID)[name])))
    check_total(Profile.parse, None, inside(name, **{field: data.draw(JSON)}))


@given(st.sampled_from(sorted(json.loads(SET))), JSON)
def test_any_value_in_a_set_is_a_set_or_malformed(name: str, value: object) -> None:
    data = strict.json_encode({**json.loads(SET), name: value})
    check_total(BaselineSet.parse, lambda content: content.encode(), data)  # type: ignore[attr-defined]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_signed_set_or_malformed(data: bytes) -> None:
    check_total(SignedBaselineSet.parse, None, data)
    signed = OWNER.sign(CONTENT)
    check_total(SignedBaselineSet.parse, None, signed[: len(signed) - len(data)] + data)


@pytest.mark.parametrize("name", sorted(json.loads(VALID)))
def test_every_field_is_required_and_no_other_taken(name: str) -> None:
    document = cast("Document", json.loads(VALID))
    document["else"] = document.pop(name)
    assert code_of(strict.json_encode(document)) in {Code.FIELD_MISSING, Code.FIELD_UNKNOWN}
    assert code_of(changed(more=1)) is Code.FIELD_UNKNOWN


RUN = ["00" * 32, 30_000, [1, 2]]
BOUND = ["runs", 1_900, 76_924, 12, "a"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("type", "weighbridge/v2/profile", Code.VERSION_UNSUPPORTED),
        ("features", "power-33/1", Code.VERSION_UNSUPPORTED),
        ("device", "00" * 31, Code.FIELD_RANGE),
        ("device", "0x", Code.NOT_HEX),
        ("origin", "measured", Code.FIELD_RANGE),
        ("channel", "", Code.FIELD_RANGE),
        ("source", "", Code.FIELD_RANGE),
        ("source", None, Code.FIELD_TYPE),
        ("unit_ns", 0, Code.FIELD_RANGE),
        ("unit_ns", 10_000_000_001, Code.FIELD_RANGE),
        ("unit_ns", 1_000_000_000, Code.FIELD_RANGE),
        ("unit_ns", 1e10, Code.FIELD_TYPE),
        ("period_ns", 0, Code.FIELD_RANGE),
        ("period_ns", 1, Code.FIELD_RANGE),
        ("centre", [0] * (FEATURES - 1), Code.FIELD_RANGE),
        ("centre", [0] * (FEATURES + 1), Code.TOO_LARGE),
        ("centre", [10**15 + 1] * FEATURES, Code.FIELD_RANGE),
        ("centre", [0.5] * FEATURES, Code.FIELD_TYPE),
        ("centre", [True] * FEATURES, Code.FIELD_TYPE),
        ("scale", [0] * FEATURES, Code.FIELD_RANGE),
        ("scale", [10**30] * FEATURES, Code.FIELD_RANGE),
        ("precision", [0] * 528, Code.FIELD_RANGE),
        ("precision", [1] * 528, Code.FIELD_RANGE),
        ("precision", [-1_000_000] * 528, Code.FIELD_RANGE),
        ("precision", [1] * 527, Code.FIELD_RANGE),
        ("precision", [10**13] * 528, Code.FIELD_RANGE),
        ("runs", [], Code.FIELD_RANGE),
        ("runs", [["00" * 32, 1, []]], Code.FIELD_RANGE),
        ("runs", [RUN, RUN], Code.NOT_DETERMINISTIC),
        ("runs", [[1, 1, [1]]], Code.FIELD_TYPE),
        ("runs", [["00" * 32, -1, [1]]], Code.FIELD_RANGE),
        ("runs", [["00" * 32, 1, [1.5]]], Code.FIELD_TYPE),
        ("runs", [["00" * 32, 1]], Code.FIELD_RANGE),
        ("bounds", [], Code.FIELD_RANGE),
        ("bounds", [["pooled", 1, 1, 12, "a"]], Code.FIELD_RANGE),
        ("bounds", [["runs", 1, 1, 11, "a"]], Code.FIELD_RANGE),
        ("bounds", [["luck", 1, 1, 12, "a"]], Code.FIELD_RANGE),
        ("bounds", [["runs", 0, 1, 12, "a"]], Code.FIELD_RANGE),
        ("bounds", [["runs", 1, 0, 12, "a"]], Code.FIELD_RANGE),
        ("bounds", [["runs", 1, 1, 12, 7]], Code.FIELD_TYPE),
        ("bounds", [BOUND, BOUND], Code.FIELD_RANGE),
        ("evidence_ppm", 0, Code.FIELD_RANGE),
        ("evidence_ppm", 1_000_000, Code.FIELD_RANGE),
        ("delta_ppm", 0, Code.FIELD_RANGE),
        ("gross", [[570, 370], 140, 1, 396, "a"], Code.FIELD_RANGE),
        ("gross", [[570, 370, 0], 140, 1, 396, "a"], Code.FIELD_RANGE),
        ("gross", [[570, 370, 180], 140, 0, 396, "a"], Code.FIELD_RANGE),
        ("gross", [[570, 370, 180], 140, 1, 396, ""], Code.FIELD_RANGE),
        ("gross", [[570, 370, 180], 140, 1, 396, 7], Code.FIELD_TYPE),
        ("gross", [[570, 370, 180.5], 140, 1, 396, "a"], Code.FIELD_TYPE),
        ("gross", [[570, 370, 180], 0, 1, 396, "a"], Code.FIELD_RANGE),
        ("gross", [[570, 370, 180], None, 1, 396, "a"], Code.FIELD_TYPE),
        ("gross", [[570, 370, 180], 1, 396, "a"], Code.FIELD_RANGE),
        ("gross", [], Code.FIELD_RANGE),
        ("gross", None, Code.FIELD_TYPE),
        ("deviations", [], Code.FIELD_RANGE),
        ("deviations", [[2, 1]], Code.FIELD_RANGE),
        ("deviations", [[1, 0]], Code.FIELD_RANGE),
        ("deviations", [[1, True]], Code.FIELD_TYPE),
        ("deviations", [[1, 9], [1, 8]], Code.FIELD_RANGE),
        ("deviations", [[1, 9], [2, 10]], Code.FIELD_RANGE),
        ("deviations", [[1, 9], [2, None]], Code.FIELD_RANGE),
        ("deviations", [[1, None], [3, 1]], Code.FIELD_RANGE),
        ("deviations", [[1, None]] * 33, Code.TOO_LARGE),
        ("channels", [], Code.FIELD_RANGE),
        ("channels", [["energy", None, 100]], Code.FIELD_RANGE),
        ("channels", [["power", None, 0]], Code.FIELD_RANGE),
        ("channels", [["power", None, 101]], Code.FIELD_RANGE),
        ("channels", [["power", 0, 100]], Code.FIELD_RANGE),
        ("channels", [["power", True, 100]], Code.FIELD_TYPE),
        ("channels", [["power", None]], Code.FIELD_RANGE),
        ("channels", [[7, None, 100]], Code.FIELD_TYPE),
        ("channels", [["power", None, 100], ["energy", None, 100]], Code.NOT_DETERMINISTIC),
        ("channels", [["power", None, 100]] * 2, Code.NOT_DETERMINISTIC),
        ("channels", [["power", None, 100]] * 65, Code.TOO_LARGE),
        ("explained", {"base_mw": 0, "uncertainty_mw": 0, "terms": []}, Code.FIELD_RANGE),
        ("explained", {"base_mw": 0, "uncertainty_mw": 0, "terms": [["busy", 0, 0, 0]] * 5}, Code.FIELD_RANGE),
        ("checked", {"runs": 1, "alarms": 2, "low_ppm": 0, "high_ppm": 1, "widened": False}, Code.FIELD_RANGE),
        ("checked", {"runs": 1, "alarms": 1, "low_ppm": 2, "high_ppm": 1, "widened": False}, Code.FIELD_RANGE),
        ("checked", {"runs": 0, "alarms": 0, "low_ppm": 0, "high_ppm": 1, "widened": False}, Code.FIELD_RANGE),
    ],
)
def test_fields_out_of_range_are_refused(name: str, value: object, code: Code) -> None:
    assert code_of(changed(**{name: value})) is code


@pytest.mark.parametrize("term", [["busy", -1, 0, 1], ["busy", 0, 2, 1], ["busy", 0, 0], ["busy", 0, 0, 1.0]])
def test_terms_out_of_range_are_refused(term: list[object]) -> None:
    document = cast("Document", json.loads(VALID))
    document["explained"]["terms"][0] = term
    assert code_of(strict.json_encode(document)) in {Code.FIELD_RANGE, Code.FIELD_TYPE}


def test_numbers_have_one_spelling() -> None:
    spaced = json.dumps(json.loads(VALID)).encode()
    assert code_of(spaced) is Code.NOT_DETERMINISTIC
    assert code_of(VALID + b" ") is Code.NOT_DETERMINISTIC
    assert code_of(VALID.replace(b'"delta_ppm":100000', b'"delta_ppm":NaN')) is Code.NOT_JSON
    assert code_of(VALID.replace(b'"delta_ppm":100000', b'"delta_ppm":1' + b"0" * 5000)) is Code.NOT_JSON
    assert code_of(VALID.replace(b'"delta_ppm":100000', b'"delta_ppm":1,"delta_ppm":2')) is Code.DUPLICATE_KEY


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROFILE_RUNS_MAX", 11)
    assert code_of(VALID) is Code.TOO_LARGE
    monkeypatch.setattr(limits, "PROFILE_MAX", len(VALID) - 1)
    assert code_of(VALID) is Code.TOO_LARGE


def test_a_direction_in_which_distance_shrinks_is_refused() -> None:
    triangle = list(PROFILE.precision)
    triangle[1] = 2_000_000
    assert code_of(replace(PROFILE, precision=tuple(triangle)).encode()) is Code.FIELD_RANGE


def set_code(content: BaselineSet) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        BaselineSet.parse(content.encode())
    return refusal.value.code


def test_sets_that_contradict_themselves_are_refused() -> None:
    other = replace(PROFILE, delta_ppm=50_000)
    first, second = sorted((PROFILE, other), key=lambda profile: profile.digest)
    assert set_code(replace(CONTENT, profiles=())) is Code.FIELD_RANGE
    assert set_code(replace(CONTENT, profiles=(PROFILE, PROFILE))) is Code.NOT_DETERMINISTIC
    assert set_code(replace(CONTENT, profiles=(second, first))) is Code.NOT_DETERMINISTIC
    assert set_code(replace(CONTENT, profiles=(first, second))) is Code.DUPLICATE_KEY
    assert set_code(replace(CONTENT, not_before_ns=CONTENT.not_after_ns + 1)) is Code.FIELD_RANGE
    assert set_code(replace(CONTENT, number=0)) is Code.FIELD_RANGE
    assert set_code(replace(CONTENT, owner="")) is Code.FIELD_RANGE
    assert set_code(replace(CONTENT, note="a\nb")) is Code.FIELD_RANGE
    with pytest.raises(MalformedEvidence):
        OWNER.sign(replace(CONTENT, profiles=()))


def test_a_set_has_one_spelling() -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        BaselineSet.parse(SET + b"\n")
    assert refusal.value.code is Code.NOT_DETERMINISTIC
    with pytest.raises(MalformedEvidence) as refusal:
        BaselineSet.parse(SET.replace(b"v1/baseline-set", b"v2/baseline-set"))
    assert refusal.value.code is Code.VERSION_UNSUPPORTED


def test_a_run_counts_once() -> None:
    runs = (CalibrationRun(bytes(32), 1, (1,)),) * 2
    assert code_of(replace(PROFILE, runs=runs).encode()) is Code.NOT_DETERMINISTIC


Path = tuple[str | int, ...]


def _places(value: object, path: Path = ()) -> list[Path]:
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner += cast("Document", value).items()
    elif isinstance(value, list):
        inner += enumerate(cast("list[object]", value))
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


def _with(value: object, path: Path, new: object) -> object:
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        return {name: _with(item, tuple(rest), new) if name == key else item for name, item in value.items()}
    items = enumerate(cast("list[object]", value))
    return [_with(item, tuple(rest), new) if place == key else item for place, item in items]


@pytest.mark.parametrize(("valid", "parse"), [(VALID, Profile.parse), (SET, BaselineSet.parse)], ids=["profile", "set"])
@given(data=st.data())
def test_any_value_anywhere_is_one_or_malformed(
    valid: bytes, parse: Callable[[bytes], Profile | BaselineSet], data: st.DataObject
) -> None:
    """In what it has of lists in lists as well: calibration runs, bounds, terms, deviations."""
    document = json.loads(valid)
    place = data.draw(st.sampled_from(_places(document)))
    other = json.dumps(_with(document, place, data.draw(JSON)), sort_keys=True, separators=(",", ":")).encode()
    check_total(parse, lambda made: made.encode(), other)  # type: ignore[attr-defined] # of a profile or a set
