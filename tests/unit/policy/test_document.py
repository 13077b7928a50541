"""The input document is total, typed, deterministic, and refuses what an engine would read differently."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import cast

import pytest

from weighbridge.policy import document as doc
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
                if new is None or "Literal" in str(inner.type) or str(inner.type) == "Proof":
                    continue
                changed = replace(good, **{field.name: replace(value, **{inner.name: new})})  # type: ignore[arg-type]
                digests.add(changed.input_digest)
                changes += 1
    assert changes > 10
    assert len(digests) == changes + 1


def test_the_schema_is_that_of_the_bytes(good: doc.PolicyInput) -> None:
    """What the checker believes of the input is what the input is."""

    def same(shape: doc.Schema, value: object) -> None:
        if isinstance(shape, dict):
            assert isinstance(value, dict)
            members = cast("dict[str, object]", value)
            assert shape.keys() == members.keys()
            for name, inner in shape.items():
                same(inner, members[name])
        elif isinstance(shape, tuple):
            assert isinstance(value, list)
            for item in cast("list[object]", value):
                same(shape[0], item)
        else:
            assert not isinstance(value, dict | list)

    same(doc.schema(), json.loads(good.to_json()))
