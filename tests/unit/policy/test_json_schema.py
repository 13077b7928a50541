"""The schemas say what is enforced: what they admit is what the strict parser reads, place by place."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.authoring.editor import input_schema, reference_schema
from weighbridge.policy.document.json_schema import json_schema
from weighbridge.policy.document.shape import Shape
from weighbridge.policy.values.host_sets import HostSet
from weighbridge.policy.values.owner_sets import ModelValue, OwnerSet, StatementValue
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import MalformedEvidence

Json = Any
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
KEYWORDS = {
    "$schema",
    "title",
    "description",
    "type",
    "enum",
    "minimum",
    "maximum",
    "items",
    "anyOf",
    "properties",
    "required",
    "additionalProperties",
    "propertyNames",
}


def admits(schema: Json, value: Json) -> bool:
    """JSON Schema, draft 07, as far as we write it."""
    assert schema.keys() <= KEYWORDS
    if "anyOf" in schema:
        return any(admits(one, value) for one in schema["anyOf"])
    if ("type" in schema and type(value) not in TYPES[schema["type"]]) or value not in schema.get("enum", [value]):
        return False
    if "minimum" in schema:
        return bool(schema["minimum"] <= value <= schema["maximum"])
    if isinstance(value, list):
        return all(admits(schema["items"], item) for item in value)
    if isinstance(value, dict) and "type" in schema:
        return _admits_members(schema, value)
    return True


def _admits_members(schema: Json, value: dict[str, Json]) -> bool:
    known, other = schema.get("properties", {}), schema["additionalProperties"]
    if not set(schema.get("required", ())) <= value.keys():
        return False
    if not all(admits(schema.get("propertyNames", {}), name) for name in value):
        return False
    if other is False and not value.keys() <= known.keys():
        return False
    return all(admits(known.get(name, other), item) for name, item in value.items())


def places(value: Json) -> Iterator[tuple[Json, Json]]:
    """Each container with each key into it, depth first."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


@pytest.fixture(scope="session")
def full(good: doc.PolicyInput) -> dict[str, Json]:
    """A document of which no list is empty."""

    def filled(shape: Shape, value: Json) -> Json:
        if shape.element is not None:
            return [filled(shape.element, item) for item in value or [None]]
        if shape.members:
            return {name: filled(inner, (value or {}).get(name)) for name, inner in shape.members.items()}
        if value is not None or shape.optional:
            return value
        return {"text": "x", "integer": 1, "boolean": True}[shape.kind] if not shape.words else shape.words[0]

    value = filled(doc.shape(), json.loads(good.to_json()))
    assert isinstance(value, dict)
    return value


def test_the_schema_admits_the_document(good: doc.PolicyInput, full: dict[str, Json]) -> None:
    assert admits(input_schema(), json.loads(good.to_json()))
    assert admits(input_schema(), full)
    assert doc.PolicyInput.parse(json.dumps(full).encode()).gpus[0].differences


OTHERS: tuple[Json, ...] = (None, True, 2**53, "x", [], {"x": 1})


def test_schema_and_parser_agree_on_every_place_that_is_changed(full: dict[str, Json]) -> None:
    """Each place of a document with another value, without it, and with one beside it."""
    schema, whole, seen = input_schema(), copy.deepcopy(full), 0
    for container, key in list(places(whole)):
        if key in ("received_at", "received_ns"):
            continue
        before = copy.copy(container)
        for other in OTHERS:
            container[key] = other
            assert admits(schema, whole) == parses(whole), (key, other)
            container[key] = before[key]
        if isinstance(container, dict):
            container["another"] = 1
            assert [admits(schema, whole), parses(whole)] == [False, False], key
            del container["another"], container[key]
            assert [admits(schema, whole), parses(whole)] == [False, False], key
            container.clear()
            container.update(before)
        seen += 1
    assert whole == full
    assert seen > 100


def parses(value: Json) -> bool:
    try:
        doc.PolicyInput.parse(json.dumps(value).encode())
    except MalformedEvidence:
        return False
    return True


def test_every_object_is_closed_and_total() -> None:
    def check(schema: Json) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False
            assert set(schema["required"]) == set(schema["properties"])
        inside = [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
        for inner in (*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *inside):
            check(inner)

    for schema in (input_schema(), reference_schema()):
        assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
        check(schema)


def test_null_stands_in_an_any_of() -> None:
    """Of two types in one list OPA takes one, and then calls a comparison with null a mistake."""
    made = json_schema(doc.shape(), title="x")
    text = json.dumps(made)
    assert '"type": [' not in text
    driver = made["properties"]["gpus"]["items"]["properties"]["driver"]  # type: ignore[index, call-overload]
    assert driver["anyOf"] == [{"type": "string"}, {"type": "null"}]  # type: ignore[index, call-overload]


def test_a_list_without_elements_is_misuse() -> None:
    with pytest.raises(TypeError, match="without a shape"):
        json_schema(Shape("list", tuple), title="x")


# ---- data.reference


@pytest.fixture(scope="session")
def values(reference: Callable[..., Reference]) -> Reference:
    """Reference values with something of everything."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    statement = StatementValue("dd" * 32, "lab", "type", None)
    owned = OwnerSet(
        owner="owner",
        number=1,
        digest="ee" * 32,
        not_before=at,
        not_after=at,
        models=(ModelValue("ff" * 32, "theirs", (statement,)),),
        revoked=(),
    )
    host = HostSet(
        owner="owner",
        name="host",
        number=1,
        digest="ee" * 32,
        not_before=at,
        not_after=at,
        pcrs={0: (bytes(32),)},
        firmware=None,
        files=frozenset(),
        attester=frozenset(),
    )
    return reference().with_sets([owned]).with_hosts([host])


def test_the_schema_of_reference_values_admits_them(values: Reference) -> None:
    data = values.data()
    assert data["hosts"]
    assert data["unchecked"]
    assert len(data["models"]) == 2  # type: ignore[arg-type]
    assert admits(reference_schema(), json.loads(json.dumps(data)))


def test_the_schema_of_reference_values_admits_nothing_else(values: Reference) -> None:
    whole = json.loads(json.dumps(values.data()))
    for number in range(len(list(places(whole)))):
        changed = copy.deepcopy(whole)
        container, key = list(places(changed))[number]
        container[key] = 1.5
        assert not admits(reference_schema(), changed), key
    for name in whole:
        assert not admits(reference_schema(), {key: value for key, value in whole.items() if key != name})
    assert not admits(reference_schema(), {**whole, "unchecked": {"weights": "never may be left out"}})
