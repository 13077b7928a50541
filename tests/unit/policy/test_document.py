"""The input document is total, typed, deterministic, and refuses what an engine would read differently."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Literal, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weighbridge.policy import document as doc
from weighbridge.policy.document import encoding
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence


def test_every_field_is_present_and_the_bytes_are_repeatable(good: doc.PolicyInput) -> None:
    value = json.loads(good.to_json())
    assert set(value) == {field.name for field in fields(good)}
    assert value["schema"] == "weighbridge/policy-input/v1"
    assert value["gpus"][0]["cc_mode_host_claim"] is None
    assert set(value["gpus"][0]) == {field.name for field in fields(doc.Gpu)}
    assert good.to_json() == replace(good).to_json()
    assert value["received_ns"] == "1795348800250000000"


def test_text_beyond_ascii_is_sent_as_it_is(good: doc.PolicyInput) -> None:
    """facts §2.3-4: an engine that does not decode escapes would see other text."""
    changed = replace(good, session=replace(good.session, tenant="é😀"))
    assert "é😀".encode() in changed.to_json()


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**64])
def test_integers_that_an_engine_may_round_are_refused(good: doc.PolicyInput, number: int) -> None:
    """facts §2.3-5: 18446744073709551616 == 18446744073709551617 may hold."""
    with pytest.raises(MalformedEvidence) as caught:
        replace(good, work=replace(good.work, tokens_in=number)).to_json()
    assert caught.value.code is Code.FIELD_RANGE
    assert caught.value.where == "input.work.tokens_in"


def test_lone_surrogates_are_refused(good: doc.PolicyInput) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        replace(good, session=replace(good.session, tenant="\ud800")).to_json()
    assert caught.value.code is Code.NOT_UTF8


WRONG: dict[str, Callable[[doc.PolicyInput], doc.PolicyInput]] = {
    "bool for int": lambda d: replace(d, work=replace(d.work, requests=True)),
    "int for bool": lambda d: replace(d, gpus=(replace(d.gpus[0], reported_in_window=1),)),  # type: ignore[arg-type]
    "float for int": lambda d: replace(d, work=replace(d.work, requests=1.0)),  # type: ignore[arg-type]
    "none for text": lambda d: replace(d, session=replace(d.session, tenant=None)),  # type: ignore[arg-type]
    "list for tuple": lambda d: replace(d, gpus=list(d.gpus)),  # type: ignore[arg-type]
    "unknown word": lambda d: replace(d, window=replace(d.window, freshness="new")),  # type: ignore[arg-type]
    "number for word": lambda d: replace(d, window=replace(d.window, freshness=1)),  # type: ignore[arg-type]
    "other dataclass": lambda d: replace(d, gap=d.work),  # type: ignore[arg-type]
    "object for text": lambda d: replace(d, session=replace(d.session, tenant=d.gap)),  # type: ignore[arg-type]
    "dict for dataclass": lambda d: replace(d, gap={}),  # type: ignore[arg-type]
    "element of another type": lambda d: replace(d, gpus=("x",)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_the_annotations_are_enforced(
    good: doc.PolicyInput, change: Callable[[doc.PolicyInput], doc.PolicyInput]
) -> None:
    with pytest.raises(TypeError, match="input"):
        change(good).to_json()


def test_the_two_times_are_one(good: doc.PolicyInput) -> None:
    with pytest.raises(ValueError, match="differ"):
        replace(good, received_ns="1795348800250000001")
    with pytest.raises(ValueError, match="naive"):
        doc.instant(datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused
    assert doc.instant(datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC)) == ("1970-01-01T00:00:01.000001Z", "1000001000")


def test_the_digest_changes_with_every_field(good: doc.PolicyInput) -> None:
    digests = {good.input_digest}
    changes = 0
    for field in fields(good):
        value = getattr(good, field.name)
        if is_dataclass(value):
            assert not isinstance(value, type)
            for inner in fields(value):
                old = getattr(value, inner.name)
                new = (
                    not old
                    if isinstance(old, bool)
                    else old + 1
                    if isinstance(old, int)
                    else f"{old}x"
                    if isinstance(old, str)
                    else None
                )
                if new is None or doc.shape().members[field.name].members[inner.name].words:
                    continue
                changed = replace(good, **{field.name: replace(value, **{inner.name: new})})  # type: ignore[arg-type]
                digests.add(changed.input_digest)
                changes += 1
    assert changes > 10
    assert len(digests) == changes + 1


def test_the_shape_is_that_of_the_bytes(good: doc.PolicyInput) -> None:
    """What the checker believes of the input is what the input is."""

    def same(shape: doc.Shape, value: object) -> None:
        if shape.members:
            assert isinstance(value, dict)
            members = cast("dict[str, object]", value)
            assert shape.members.keys() == members.keys()
            for name, inner in shape.members.items():
                same(inner, members[name])
        elif shape.element is not None:
            assert isinstance(value, list)
            for item in cast("list[object]", value):
                same(shape.element, item)
        else:
            assert not isinstance(value, dict | list)

    same(doc.shape(), json.loads(good.to_json()))


# ---- what the declarations say


def places(shape: doc.Shape, where: str = "input") -> Iterator[tuple[str, doc.Shape]]:
    """Every place of the document with its shape."""
    yield where, shape
    if shape.element is not None:
        yield from places(shape.element, f"{where}[]")
    for name, inner in shape.members.items():
        yield from places(inner, f"{where}.{name}")


def test_every_member_says_what_it_is() -> None:
    """A line for people, and no sentence: tools put it into tables and trees."""
    for where, shape in places(doc.shape()):
        if not where.endswith("[]") or shape.members:
            assert shape.doc, where
            assert "\n" not in shape.doc, where
            assert not shape.doc.endswith("."), where


def test_lists_have_elements_of_one_shape_that_is_never_null() -> None:
    for where, shape in places(doc.shape()):
        assert shape.element is None or not shape.element.optional, where
        assert (shape.kind == "object") == bool(shape.members), where
        assert shape.kind != "map", where


@pytest.mark.parametrize("hint", [float, bytes, list, dict, object, Literal], ids=str)
def test_other_types_have_no_place_in_a_document(hint: Hashable) -> None:
    with pytest.raises(TypeError, match="no place"):
        doc.shape_of(hint)


# ---- encoding


def texts() -> st.SearchStrategy[str]:
    """What UTF-8 can say, including what JSON escapes."""
    return st.text(st.characters(codec="utf-8"), max_size=12)


def values(shape: doc.Shape) -> st.SearchStrategy[object]:
    """Whatever may stand at a place."""
    if shape.optional:
        return st.none() | values(dataclasses.replace(shape, optional=False))
    if shape.words:
        return st.sampled_from(shape.words)
    if shape.element is not None:
        return st.lists(values(shape.element), max_size=2).map(tuple)
    if shape.members:
        made = {name: values(inner) for name, inner in shape.members.items()}
        return st.builds(shape.type, **made)
    scalars: dict[doc.Kind, st.SearchStrategy[object]] = {
        "text": texts(),
        "boolean": st.booleans(),
        "integer": st.integers(-(2**53) + 1, 2**53 - 1),
    }
    return scalars[shape.kind]


MEMBERS = {name: shape for name, shape in doc.shape().members.items() if name not in ("received_at", "received_ns")}
DOCUMENTS = st.builds(
    lambda moment, **members: doc.PolicyInput(*doc.instant(moment), **members),
    st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - aware by then
    **{name: values(shape) for name, shape in MEMBERS.items()},
)


@given(DOCUMENTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_document_is_read_as_it_was_written_and_written_as_the_slow_way_does(document: doc.PolicyInput) -> None:
    data = document.to_json()
    assert data == strict.json_encode(encoding.plain(document, doc.shape(), "input"))
    assert doc.PolicyInput.parse(data) == document


class Likeness(str):
    """Text that is no plain text."""

    __slots__ = ()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: replace(d, session=replace(d.session, tenant=Likeness("tenant"))),
        lambda d: replace(d, session=replace(d.session, window_period_ns=IntEnum("N", "one").one)),  # type: ignore[attr-defined]
        lambda d: replace(d, window=replace(d.window, freshness=Likeness("fresh"))),
        lambda d: replace(d, telemetry=replace(d.telemetry, sources=({},))),
        lambda d: replace(d, attester_code=replace(d.attester_code, missing=(Likeness("tpm"),))),
        lambda d: replace(d, window=replace(d.window, freshness=[])),
    ],
    ids=["text", "integer", "word", "element", "text element", "unhashable"],
)
def test_what_only_looks_like_a_declared_type_is_refused(
    good: doc.PolicyInput, change: Callable[[doc.PolicyInput], doc.PolicyInput]
) -> None:
    with pytest.raises(TypeError, match=r"^input"):
        change(good).to_json()


# ---- parsing

Change = Callable[[dict[str, Any]], object]
NO: dict[str, tuple[Change, Code, str]] = {
    "missing": (lambda d: d["gap"].pop("since"), Code.FIELD_MISSING, "input.gap.since"),
    "missing in a list": (lambda d: d["gpus"][1].pop("fwid"), Code.FIELD_MISSING, "input.gpus[1].fwid"),
    "unknown": (lambda d: d["gpus"][1].update(revocaton="good"), Code.FIELD_UNKNOWN, "input.gpus[1].revocaton"),
    "unknown at the top": (lambda d: d.update(extra=1), Code.FIELD_UNKNOWN, "input.extra"),
    "null": (lambda d: d["session"].update(tenant=None), Code.FIELD_TYPE, "input.session.tenant"),
    "true for a number": (lambda d: d["work"].update(requests=True), Code.FIELD_TYPE, "input.work.requests"),
    "1 for true": (
        lambda d: d["gpus"][0].update(reported_in_window=1),
        Code.FIELD_TYPE,
        "input.gpus[0].reported_in_window",
    ),
    "1.0 for 1": (lambda d: d["work"].update(requests=1.0), Code.FIELD_TYPE, "input.work.requests"),
    "object for a list": (lambda d: d.update(gpus={}), Code.FIELD_TYPE, "input.gpus"),
    "list for an object": (lambda d: d.update(gap=[]), Code.FIELD_TYPE, "input.gap"),
    "text in a list of objects": (lambda d: d["gpus"].append("x"), Code.FIELD_TYPE, "input.gpus[2]"),
    "another word": (lambda d: d["gpus"][1].update(revocation="goood"), Code.FIELD_RANGE, "input.gpus[1].revocation"),
    "beyond 53 bits": (lambda d: d["work"].update(tokens_in=2**53), Code.FIELD_RANGE, "input.work.tokens_in"),
    "below 53 bits": (lambda d: d["work"].update(tokens_in=-(2**53)), Code.FIELD_RANGE, "input.work.tokens_in"),
    "two times": (lambda d: d.update(received_ns="1"), Code.FIELD_RANGE, "input.received_ns"),
    "no time": (lambda d: d.update(received_at="noon"), Code.NOT_A_TIME, "input.received_at"),
    "another schema": (
        lambda d: d.update(schema="weighbridge/policy-input/v2", more=1),
        Code.VERSION_UNSUPPORTED,
        "input.schema",
    ),
    "no schema": (lambda d: d.pop("schema"), Code.FIELD_MISSING, "input.schema"),
    "a number for the schema": (lambda d: d.update(schema=1), Code.FIELD_TYPE, "input.schema"),
}


@pytest.mark.parametrize(("change", "code", "where"), NO.values(), ids=NO)
def test_what_is_not_as_declared_is_refused_with_its_place(
    good: doc.PolicyInput, change: Change, code: Code, where: str
) -> None:
    value = json.loads(good.to_json())
    change(value)
    with pytest.raises(MalformedEvidence) as caught:
        doc.PolicyInput.parse(json.dumps(value).encode())
    assert (caught.value.code, caught.value.where) == (code, where)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda d: d["gpus"][1].update(revocaton="good"), "did you mean revocation?"),
        (lambda d: d["gpus"][1].update(revocation="goood"), "did you mean good?"),
        (lambda d: d.update(zzz=1), ""),
    ],
)
def test_a_misspelt_name_is_answered_with_the_one_that_was_meant(
    good: doc.PolicyInput, change: Change, hint: str
) -> None:
    value = json.loads(good.to_json())
    change(value)
    with pytest.raises(MalformedEvidence) as caught:
        doc.PolicyInput.parse(json.dumps(value).encode())
    assert caught.value.hint == hint


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"1", b'"x"', b"\xff", b'{"gpus":[],"gpus":[]}', b"NaN"])
def test_other_json_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        doc.PolicyInput.parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


@given(st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused_as_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        doc.PolicyInput.parse(data)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_one_place_changed_is_read_or_refused_as_malformed(good: doc.PolicyInput, data: st.DataObject) -> None:
    """What is read of a document that somebody edited writes the same bytes again: nothing is ignored."""
    value = json.loads(good.to_json())
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    edited = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    with contextlib.suppress(MalformedEvidence):
        read = doc.PolicyInput.parse(edited)
        assert json.loads(read.to_json()) == value
