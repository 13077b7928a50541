"""The builtin functions that policies may call: numbers of arguments, and what they give.

Everything else is refused by absence: what is not repeatable (``rand.*``, ``uuid.*``), what reaches outside
(``http.send``, ``net.*``, ``opa.runtime``), what makes much out of little (``numbers.range``, ``bits.lsh``,
``strings.replace_n``), and what the engine lacks (``crypto.*``, ``io.jwt.*``). ``time.now_ns`` is the window's
receipt time. Tests may change documents beside (:data:`TESTS`), and ``print`` with any number of arguments.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALLOWED", "BUILTINS", "FORBIDDEN", "GIVES", "MEANT", "PRINT", "TESTS"]

PRINT: Final = "print"

ALLOWED: Final[dict[str, int]] = {
    "abs": 1,
    "array.concat": 2,
    "array.reverse": 1,
    "array.slice": 3,
    "ceil": 1,
    "concat": 2,
    "contains": 2,
    "count": 1,
    "endswith": 2,
    "floor": 1,
    "format_int": 2,
    "indexof": 2,
    "intersection": 1,
    "is_array": 1,
    "is_boolean": 1,
    "is_null": 1,
    "is_number": 1,
    "is_object": 1,
    "is_set": 1,
    "is_string": 1,
    "json.marshal": 1,
    "lower": 1,
    "max": 1,
    "min": 1,
    "object.filter": 2,
    "object.get": 3,
    "object.keys": 1,
    "object.remove": 2,
    "object.union": 2,
    "regex.match": 2,
    "replace": 3,
    "round": 1,
    "semver.compare": 2,
    "semver.is_valid": 1,
    "sort": 1,
    "split": 2,
    "sprintf": 2,
    "startswith": 2,
    "substring": 3,
    "sum": 1,
    "time.now_ns": 0,
    "time.parse_rfc3339_ns": 1,
    "to_number": 1,
    "trim": 2,
    "trim_prefix": 2,
    "trim_space": 1,
    "trim_suffix": 2,
    "type_name": 1,
    "union": 1,
    "upper": 1,
}

BUILTINS: Final = frozenset(name.split(".")[0] for name in ALLOWED)
"""The first names of builtins: no rule and no import may take one."""

TESTS: Final[dict[str, int]] = {"json.filter": 2, "json.patch": 2, "json.remove": 2}
"""What test modules may call beside: they make one document out of another."""

_TEXT: Final = (
    "concat", "format_int", "json.marshal", "lower", "replace", "sprintf", "substring", "trim", "trim_prefix",
    "trim_space", "trim_suffix", "type_name", "upper",
)  # fmt: skip
_NUMBER: Final = (
    "abs", "ceil", "count", "floor", "indexof", "round", "semver.compare", "time.now_ns", "time.parse_rfc3339_ns",
    "to_number",
)  # fmt: skip
_BOOLEAN: Final = (
    "contains", "endswith", "is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string",
    "regex.match", "semver.is_valid", "startswith",
)  # fmt: skip
GIVES: Final[dict[str, str]] = {
    **dict.fromkeys(_TEXT, "text"),
    **dict.fromkeys(_NUMBER, "number"),
    **dict.fromkeys(_BOOLEAN, "boolean"),
}
"""The type of what a builtin gives, where it is always the same."""

FORBIDDEN: Final[dict[str, str]] = {
    "http.": "reaches outside, and a verdict would hang on who answers",
    "net.": "reaches outside, or is missing in the engine",
    "opa.": "depends on the machine",
    "rand.": "is not repeatable",
    "uuid.": "is not repeatable",
    "time.": "is not among the few functions of time that are repeatable on every engine",
    "numbers.range": "makes much out of little",
    "bits.lsh": "makes much out of little",
    "strings.replace_n": "makes much out of little",
    "strings.count": "ends the engine for an empty text",
    "walk": "makes much out of little, and hides which path is read",
    "crypto.": "is missing in the engine; digests are in the document",
    "io.jwt.": "is missing in the engine; signatures are verified before any policy is asked",
    "trace": "is for debugging",
}
"""How a name begins that is a builtin elsewhere, and why policies may not call it."""

MEANT: Final[dict[str, str]] = {
    "all": "every x in xs { … }",
    "any": "some x in xs",
    "filter": "[x | some x in xs; …]",
    "format": "sprintf",
    "has": "x in xs",
    "includes": "x in xs",
    "int": "to_number",
    "isnull": "is_null",
    "join": "concat",
    "keys": "object.keys",
    "len": "count",
    "length": "count",
    "map": "[f(x) | some x in xs]",
    "match": "regex.match",
    "now": "time.now_ns",
    "printf": "sprintf",
    "re_match": "regex.match",
    "size": "count",
    "starts_with": "startswith",
    "str": "sprintf",
    "strip": "trim_space",
    "to_lower": "lower",
    "to_upper": "upper",
    "tolower": "lower",
    "toupper": "upper",
}
"""Names that other languages have, and how Rego spells what they mean."""
