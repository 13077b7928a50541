"""A shape as JSON Schema, for editors, OPA's type checker and everything else that reads one.

Draft 07, since that is what OPA reads. ``null`` stands in an ``anyOf``, since of two types in one list OPA takes the
first that it knows and then calls a comparison with ``null`` a mistake.
"""

from __future__ import annotations

from typing import Final

from weighbridge.policy.document.shape import Shape
from weighbridge.proto.strict import JsonObject, JsonValue

__all__ = ["json_schema"]

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_INT_MAX: Final = 2**53 - 1


def json_schema(shape: Shape, *, title: str) -> JsonObject:
    """The schema of a document. What two members must say alike, as the two times of receipt, no schema can say."""
    return {"$schema": _DRAFT, "title": title, **_place(shape)}


def _place(shape: Shape) -> JsonObject:
    doc: JsonObject = {"description": shape.doc} if shape.doc else {}
    found = _type(shape)
    return {**doc, "anyOf": [found, {"type": "null"}]} if shape.optional else {**doc, **found}


def _type(shape: Shape) -> JsonObject:
    match shape.kind:
        case "text":
            words: list[JsonValue] = list(shape.words)
            return {"type": "string", "enum": words} if words else {"type": "string"}
        case "integer":
            return {"type": "integer", "minimum": -_INT_MAX, "maximum": _INT_MAX}
        case "boolean":
            return {"type": "boolean"}
        case "list":
            return {"type": "array", "items": _inner(shape)}
        case "map":
            names: JsonObject = {"propertyNames": {"enum": list(shape.words)}} if shape.words else {}
            return {"type": "object", **names, "additionalProperties": _inner(shape)}
        case "object":
            return {
                "type": "object",
                "properties": {name: _place(inner) for name, inner in shape.members.items()},
                "required": list(shape.members),
                "additionalProperties": False,
            }


def _inner(shape: Shape) -> JsonObject:
    if shape.element is None:
        raise TypeError(f"a {shape.kind} without a shape of what is in it")
    return _place(shape.element)
