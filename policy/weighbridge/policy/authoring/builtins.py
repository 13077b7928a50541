"""The types of the builtins that policies and their tests may call, and with them what OPA is told that there is.

``opa check --capabilities`` then refuses what Weighbridge's checker would refuse for its name alone. The form is that
of OPA's ``capabilities.json`` (``opa capabilities --current``). Which builtins there are is decided in
:mod:`weighbridge.policy.checker.functions`; here are only their types, each as OPA itself declares it.
"""

from __future__ import annotations

from typing import Final

from weighbridge.policy.checker.functions import ALLOWED, PRINT, TESTS
from weighbridge.proto.strict import JsonObject, JsonValue

__all__ = ["SIGNATURES", "capabilities"]

_Type = JsonObject
_Signature = tuple[tuple[_Type, ...], _Type]

_ANY: Final[_Type] = {"type": "any"}
_NULL: Final[_Type] = {"type": "null"}
_BOOLEAN: Final[_Type] = {"type": "boolean"}
_NUMBER: Final[_Type] = {"type": "number"}
_TEXT: Final[_Type] = {"type": "string"}
_OBJECT: Final[_Type] = {"type": "object", "dynamic": {"key": _ANY, "value": _ANY}}


def _array(inner: _Type) -> _Type:
    return {"type": "array", "dynamic": inner}


def _set(inner: _Type) -> _Type:
    return {"type": "set", "of": inner}


def _either(*types: _Type) -> _Type:
    return {"type": "any", "of": list[JsonValue](types)}


def _collection(inner: _Type) -> _Type:
    return _either(_array(inner), _set(inner))


_ARRAY: Final = _array(_ANY)
_SET: Final = _set(_ANY)
_KEYS: Final = _either(_ARRAY, _OBJECT, _SET)
_PATHS: Final = _collection(_either(_TEXT, _ARRAY))
_NUMBER_OR_SET: Final = _either(_NUMBER, _SET)
_PATCH: Final[_Type] = {
    "type": "object",
    "static": [{"key": "op", "value": _TEXT}, {"key": "path", "value": _ANY}],
    "dynamic": {"key": _ANY, "value": _ANY},
}

SIGNATURES: Final[dict[str, _Signature]] = {
    **dict.fromkeys(("abs", "ceil", "floor", "round"), ((_NUMBER,), _NUMBER)),
    "array.concat": ((_ARRAY, _ARRAY), _ARRAY),
    "array.reverse": ((_ARRAY,), _ARRAY),
    "array.slice": ((_ARRAY, _NUMBER, _NUMBER), _ARRAY),
    "concat": ((_TEXT, _collection(_TEXT)), _TEXT),
    **dict.fromkeys(("contains", "endswith", "regex.match", "startswith"), ((_TEXT, _TEXT), _BOOLEAN)),
    "count": ((_either(_TEXT, _ARRAY, _OBJECT, _SET),), _NUMBER),
    "format_int": ((_NUMBER, _NUMBER), _TEXT),
    "indexof": ((_TEXT, _TEXT), _NUMBER),
    **dict.fromkeys(("intersection", "union"), ((_set(_SET),), _SET)),
    **dict.fromkeys(
        ("is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "semver.is_valid"),
        ((_ANY,), _BOOLEAN),
    ),
    "json.marshal": ((_ANY,), _TEXT),
    **dict.fromkeys(("lower", "trim_space", "upper"), ((_TEXT,), _TEXT)),
    **dict.fromkeys(("max", "min"), ((_collection(_ANY),), _ANY)),
    **dict.fromkeys(("object.filter", "object.remove"), ((_OBJECT, _KEYS), _OBJECT)),
    "object.get": ((_OBJECT, _ANY, _ANY), _ANY),
    "object.keys": ((_OBJECT,), _SET),
    "object.union": ((_OBJECT, _OBJECT), _OBJECT),
    "replace": ((_TEXT, _TEXT, _TEXT), _TEXT),
    "semver.compare": ((_TEXT, _TEXT), _NUMBER),
    "sort": ((_collection(_ANY),), _ARRAY),
    "split": ((_TEXT, _TEXT), _array(_TEXT)),
    "sprintf": ((_TEXT, _ARRAY), _TEXT),
    "substring": ((_TEXT, _NUMBER, _NUMBER), _TEXT),
    "sum": ((_collection(_NUMBER),), _NUMBER),
    "time.now_ns": ((), _NUMBER),
    "time.parse_rfc3339_ns": ((_TEXT,), _NUMBER),
    "to_number": ((_either(_NULL, _BOOLEAN, _NUMBER, _TEXT),), _NUMBER),
    **dict.fromkeys(("trim", "trim_prefix", "trim_suffix"), ((_TEXT, _TEXT), _TEXT)),
    "type_name": ((_ANY,), _TEXT),
    # What tests may call beside.
    **dict.fromkeys(("json.filter", "json.remove"), ((_OBJECT, _PATHS), _OBJECT)),
    "json.patch": ((_ANY, _array(_PATCH)), _ANY),
}
"""Types of the arguments and of the result."""

# What OPA's compiler turns operators and `in` into.
_OPERATORS: Final[dict[str, tuple[str, _Signature]]] = {
    "and": ("&", ((_SET, _SET), _SET)),
    "assign": (":=", ((_ANY, _ANY), _BOOLEAN)),
    "div": ("/", ((_NUMBER, _NUMBER), _NUMBER)),
    "eq": ("=", ((_ANY, _ANY), _BOOLEAN)),
    "equal": ("==", ((_ANY, _ANY), _BOOLEAN)),
    "gt": (">", ((_ANY, _ANY), _BOOLEAN)),
    "gte": (">=", ((_ANY, _ANY), _BOOLEAN)),
    "internal.member_2": ("in", ((_ANY, _ANY), _BOOLEAN)),
    "internal.member_3": ("in", ((_ANY, _ANY, _ANY), _BOOLEAN)),
    "lt": ("<", ((_ANY, _ANY), _BOOLEAN)),
    "lte": ("<=", ((_ANY, _ANY), _BOOLEAN)),
    "minus": ("-", ((_NUMBER_OR_SET, _NUMBER_OR_SET), _NUMBER_OR_SET)),
    "mul": ("*", ((_NUMBER, _NUMBER), _NUMBER)),
    "neq": ("!=", ((_ANY, _ANY), _BOOLEAN)),
    "or": ("|", ((_SET, _SET), _SET)),
    "plus": ("+", ((_NUMBER, _NUMBER), _NUMBER)),
    "rem": ("%", ((_NUMBER, _NUMBER), _NUMBER)),
}
_PRINTS: Final[dict[str, JsonObject]] = {
    PRINT: {"name": PRINT, "decl": {"type": "function", "variadic": _ANY}},
    "internal.print": {"name": "internal.print", "decl": {"type": "function", "args": [_array(_SET)]}},
}


def capabilities() -> JsonObject:
    """The language as policies and their tests may use it, as OPA reads it."""
    named = {name: _builtin(name, SIGNATURES[name]) for name in (*ALLOWED, *TESTS)}
    named |= {name: {**_builtin(name, signature), "infix": infix} for name, (infix, signature) in _OPERATORS.items()}
    named |= _PRINTS
    return {
        "builtins": [named[name] for name in sorted(named)],
        "future_keywords": ["contains", "every", "if", "in"],
        "features": ["rego_v1", "rego_v1_import", "rule_head_ref_string_prefixes", "rule_head_refs"],
        # Nothing may be fetched, not even a schema.
        "allow_net": [],
    }


def _builtin(name: str, signature: _Signature) -> JsonObject:
    arguments, result = signature
    args: JsonObject = {"args": list[JsonValue](arguments)} if arguments else {}
    return {"name": name, "decl": {"type": "function", **args, "result": result}}
