"""What the checker knows of documents is what documents hold: the input's, the reference values' and the examples'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.checker.shapes import (
    BOOLEAN,
    NUMBER,
    TEXT,
    UNKNOWN,
    Place,
    Type,
    data_place,
    element,
    input_place,
    list_of,
    member,
    union,
    words_of,
)
from weighbridge.policy.checker.spelling import listed, nearest
from weighbridge.proto import strict

if TYPE_CHECKING:
    from collections.abc import Iterator


def wrong(value: strict.JsonValue, shape: Type, path: str) -> Iterator[str]:
    """Where ``value`` is not of ``shape``."""
    if value is None:
        if not shape.optional:
            yield f"{path}: null"
        return
    kinds: dict[type, str] = {str: "text", bool: "boolean", int: "number"}
    if isinstance(value, dict):
        if shape.kind == "object" and value.keys() != shape.members.keys():
            yield f"{path}: {sorted(value.keys() ^ shape.members.keys())}"
        for name, inner in value.items():
            below = shape.members.get(name) if shape.kind == "object" else shape.element
            yield from wrong(inner, below or UNKNOWN, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from wrong(inner, shape.element or UNKNOWN, f"{path}[]")
        if shape.kind != "list":
            yield f"{path}: a list"
    elif kinds.get(type(value)) != shape.kind or (shape.words and value not in shape.words):
        yield f"{path}: {value!r} is not {shape}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_of_the_shapes_that_the_checker_knows(name: str) -> None:
    example = EXAMPLES[name]
    document = strict.json_decode(example.input.to_json(), what="it")
    assert list(wrong(document, input_place().type, "input")) == []
    reference = data_place(frozenset()).type.members["reference"]
    assert list(wrong(example.reference.data(), reference, "data.reference")) == []


def test_a_place_is_sure_only_where_the_document_always_has_it() -> None:
    gpus = member(input_place(), "gpus")
    assert (gpus.path, gpus.sure) == ("input.gpus", True)
    assert element(gpus).sure
    assert not member(gpus, None).sure
    models = member(member(data_place(frozenset()), "reference"), "models")
    assert models.sure
    assert not member(models, "a").sure


def test_examples_are_seen_by_tests_alone() -> None:
    assert "examples" not in data_place(frozenset()).type.members
    good = member(member(data_place(frozenset({"good"})), "examples"), "good")
    assert member(good, "input").type == input_place().type


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (TEXT, TEXT, TEXT),
        (TEXT, Type("null"), Type("text", optional=True)),
        (Type("null"), NUMBER, Type("number", optional=True)),
        (Type("null"), UNKNOWN, UNKNOWN),
        (words_of("a"), words_of("b"), words_of("a", "b")),
        (words_of("a"), TEXT, TEXT),
        (list_of(TEXT), Type("list"), list_of(TEXT)),
        (Type("set"), list_of(TEXT, "set"), list_of(TEXT, "set")),
        (list_of(TEXT), list_of(NUMBER), UNKNOWN),
        (TEXT, NUMBER, UNKNOWN),
        (BOOLEAN, BOOLEAN, BOOLEAN),
    ],
)
def test_what_may_be_one_type_or_another(one: Type, other: Type, both: Type) -> None:
    assert union(one, other) == both


@pytest.mark.parametrize("kind", ["text", "number", "boolean", "null"])
def test_nothing_is_inside_a_scalar(kind: str) -> None:
    place = Place(Type(kind), "input.x", sure=True)  # type: ignore[arg-type]
    assert "nothing inside" in member(place, "y").wrong
    assert "no elements" in element(place).wrong


def test_what_is_not_known_leads_anywhere() -> None:
    assert member(Place(), "y").wrong == ""
    assert element(Place()).wrong == ""


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("revokation", ["revocation", "reference"], "revocation"),
        ("attester-code", ["attester_code"], "attester_code"),
        ("Proven", ["proven", "unproven"], "proven"),
        ("xyz", ["abc"], ""),
        ("a" * 65, ["a" * 65], ""),
        ("a", [], ""),
    ],
)
def test_the_nearest_name(name: str, known: list[str], meant: str) -> None:
    assert nearest(name, known) == meant


def test_long_lists_end() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(20)]).endswith("10, 11, …")
