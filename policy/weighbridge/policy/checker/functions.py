"""The builtin functions that policies may call, with the numbers of arguments that they take.

Everything else is refused by absence: what is not repeatable (``rand.*``, ``uuid.*``), what reaches outside
(``http.send``, ``net.*``, ``opa.runtime``), what makes much out of little (``numbers.range``, ``bits.lsh``,
``strings.replace_n``), what the engine lacks (``crypto.*``, ``io.jwt.*``), and ``print``. ``time.now_ns`` is the
window's receipt time.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALLOWED"]

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
