"""What policies rely on an engine for: small questions, and the one answer that is right.

Each case is a few rules, an expression, an input, and its value; :data:`~.conformance.UNDEFINED` where there is none,
:data:`~.conformance.ERROR` where evaluation must end. They are our own, of the subset of Rego that the checker lets
pass: what engines are known to read differently (docs/policy.md) is refused there, and stands nowhere here. The order
of sets in an answer is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.policy.engines.workbench import UNDEFINED

if TYPE_CHECKING:
    from weighbridge.policy.engines.workbench import Undefined
    from weighbridge.proto.strict import JsonValue

__all__ = ["CASES", "DATA", "ERROR", "NOW_NS", "Case", "Failure"]


class Failure:
    """The one value of :data:`ERROR`."""

    def __repr__(self) -> str:
        return "an error"


ERROR: Final = Failure()
"""What a query comes to that must not come to a value."""
NOW_NS: Final = 1_795_348_800_250_000_000
"""The receipt time of every case: 2026-11-22T12:00:00.25Z."""
DATA: Final[dict[str, JsonValue]] = {"reference": {"models": {"aa": {"name": "minilm"}}, "empty": {}}, "author": {}}


@dataclass(frozen=True, slots=True)
class Case:
    """One question. ``rules`` are in a package of their own, in which ``answer`` is asked for unless ``query`` is.

    Attributes:
        about: the part of the language.
        name: what is relied on, in words.
        rules: Rego, without package and imports.
        expected: the value.
        document: the input.
        query: an expression in place of ``answer``.
    """

    about: str
    name: str
    rules: str
    expected: JsonValue | Undefined | Failure
    document: JsonValue = None
    query: str = ""


_AB: Final[dict[str, JsonValue]] = {"a": 1, "b": {"c": [1, 2, 3]}, "n": None, "f": False, "s": "text"}
_BIG: Final = "18446744073709551617"

CASES: Final = (
    # -- what is not there
    Case("undefined", "a path that leads nowhere has no value", "answer := input.x.y", UNDEFINED, _AB),
    Case("undefined", "nor has an index beyond the end", "answer := input.b.c[3]", UNDEFINED, _AB),
    Case("undefined", "null is a value", "answer := input.n", None, _AB),
    Case(
        "undefined",
        "null equals null, and nothing equals what is not there",
        "answer := [input.n == null, [1 | input.x == null]]",
        [True, []],
        _AB,
    ),
    Case("undefined", "a comparison with what is not there does not hold", "answer if input.x != 1", UNDEFINED, _AB),
    Case("undefined", "a body that fails leaves the default", "default answer := 7\n\nanswer := 8 if input.f", 7, _AB),
    Case(
        "undefined",
        "a body with what is not there leaves the default",
        "default answer := false\n\nanswer if input.x == 1",
        False,
        _AB,
    ),
    Case(
        "undefined", "null in a body holds, false does not", "answer := [[1 | input.n], [1 | input.f]]", [[1], []], _AB
    ),
    # -- not
    Case("not", "not of what is not there holds", "answer if not input.x", True, _AB),
    Case("not", "not of false holds", "answer if not input.f", True, _AB),
    Case("not", "not of null does not", "answer if not input.n", UNDEFINED, _AB),
    Case("not", "not of a rule that is undefined holds", "p if input.x == 1\n\nanswer if not p", True, _AB),
    Case("not", "not of a comparison with what is not there holds", "answer if not input.x == 1", True, _AB),
    Case(
        "not",
        "not of a function that is given a name",
        "f(v) if v > 1\n\nanswer if { v := input.a; not f(v) }",
        True,
        _AB,
    ),
    Case("not", "not in", "answer if not input.a in {2, 3}", True, _AB),
    # -- every
    Case("every", "every holds where each holds", "answer if every x in input.b.c { x > 0 }", True, _AB),
    Case("every", "and does not where one does not", "answer if every x in input.b.c { x > 1 }", UNDEFINED, _AB),
    Case(
        "every",
        "it holds for nothing at all, which is why count stands beside it",
        "answer if every x in [] { x > 1 }",
        True,
    ),
    Case("every", "one without a value fails it", "answer if every x in input { x.ok }", UNDEFINED, [{"ok": True}, {}]),
    Case("every", "keys and values", "answer if every k, v in input { k == v }", True, {"a": "a", "b": "b"}),
    # -- sets and objects made of rules
    Case("partial", "a set of rules has each value once", "answer contains x if some x in input", [1, 2], [1, 2, 1]),
    Case(
        "partial",
        "several rules make one set",
        "answer contains 1\n\nanswer contains 2 if input\n\nanswer contains 3 if false",
        [1, 2],
        True,
    ),
    Case(
        "partial",
        "a set of nothing is empty, not undefined",
        "answer contains x if { some x in input; x > 5 }",
        [],
        [1],
    ),
    Case(
        "partial",
        "a name bound before the head keeps the rest of the set",
        "answer contains n if { some s in input; n := s.name }",
        ["a"],
        [{"name": "a"}, {}],
    ),
    Case(
        "partial",
        "the same in the other order",
        "answer contains n if { some s in input; n := s.name }",
        ["a"],
        [{}, {"name": "a"}],
    ),
    Case(
        "partial", "an object made of rules", "answer[k] := v if some k, v in input", {"x": 1, "y": 2}, {"x": 1, "y": 2}
    ),
    Case(
        "partial",
        "two values of one key are an error",
        "answer[k] := v if { some v in input; k := `x` }",
        ERROR,
        [1, 2],
    ),
    Case(
        "partial",
        "objects in a set are compared whole",
        'answer contains {"a": x.a} if some x in input',
        [{"a": 1}],
        [{"a": 1, "b": 1}, {"a": 1, "b": 2}],
    ),
    # -- one value
    Case(
        "complete",
        "two values of one rule are an error",
        "answer := 1 if input.a\n\nanswer := 2 if input.s",
        ERROR,
        _AB,
    ),
    Case("complete", "twice the same is none", "answer := 1 if input.a\n\nanswer := 1 if input.s", 1, _AB),
    Case("else", "the first branch that holds", "answer := 1 if input.x\n\nelse := 2 if input.a\n\nelse := 3", 2, _AB),
    Case("else", "no branch", "answer := 1 if input.x\n\nelse := 2 if input.f", UNDEFINED, _AB),
    # -- functions
    Case("function", "a value", "f(x) := x + 1\n\nanswer := f(input.a)", 2, _AB),
    Case("function", "undefined for what is not there", "f(x) := 1\n\nanswer := f(input.x)", UNDEFINED, _AB),
    Case("function", "one of several clauses", 'f("a") := 1\n\nf("b") := 2\n\nanswer := [f("a"), f("b")]', [1, 2]),
    Case("function", "no clause", 'f("a") := 1\n\nanswer := f(input.s)', UNDEFINED, _AB),
    Case(
        "function",
        "two values are an error",
        "f(x) := 1 if x > 0\n\nf(x) := 2 if x > 1\n\nanswer := f(input)",
        ERROR,
        5,
    ),
    Case("function", "null is an argument like any", "f(x) := type_name(x)\n\nanswer := f(input.n)", "null", _AB),
    # -- comprehensions, membership, iteration
    Case("comprehension", "a list keeps order and repetition", "answer := [x | some x in input]", [2, 1, 2], [2, 1, 2]),
    Case(
        "comprehension", "what has no value is left out", "answer := [x.a | some x in input]", [1], [{"a": 1}, {"b": 2}]
    ),
    Case("comprehension", "a set", "answer := count({x | some x in input})", 2, [2, 1, 2]),
    Case("comprehension", "an object", "answer := {k: v.n | some k, v in input}", {"a": 1}, {"a": {"n": 1}}),
    Case(
        "comprehension", "nothing is an empty one", "answer := [[x | some x in []], count({x | some x in []})]", [[], 0]
    ),
    Case(
        "in",
        "a list, a set, an object's values",
        'answer := [2 in input.b.c, 2 in {1, 2}, 1 in {"a": 1}, "a" in {"a": 1}]',
        [True, True, True, False],
        _AB,
    ),
    Case("in", "in nothing", "answer := 1 in []", False),
    Case("in", "index and value", "answer := [i | some i, x in input; x > 1]", [1, 2], [1, 2, 3]),
    Case("in", "an object as an element", 'answer := {"a": 1} in input', True, [{"a": 2}, {"a": 1}]),
    # -- texts
    Case("text", "an escape is the letter it stands for", 'answer := input == "\\u00e9"', True, "é"),
    Case(
        "text",
        "letters beyond ASCII are counted, cut and compared as letters",
        'answer := [count(input), substring(input, 1, 1), startswith(input, "ü")]',
        [3, "b", True],
        "übe",
    ),
    Case("text", "keys beyond ASCII", 'answer := input["ключ"]', 1, {"ключ": 1}),
    Case("text", "sprintf", 'answer := sprintf("%s %d %v %v", ["x", 5, [1, "a"], null])', 'x 5 [1, "a"] null'),
    Case("text", "concat of a set is sorted", 'answer := concat(",", {x | some x in input})', "a,b,c", ["c", "a", "b"]),
    Case(
        "text",
        "split, replace, trim",
        'answer := [split("a,b", ","), replace("aba", "a", "c"), trim_space(" x ")]',
        [["a", "b"], "cbc", "x"],
    ),
    Case(
        "text", "indexof says -1 of what is not there", 'answer := [indexof("abc", "c"), indexof("abc", "x")]', [2, -1]
    ),
    Case(
        "text",
        "lower, upper, prefix, suffix",
        'answer := [lower("AbC"), upper("AbC"), trim_prefix("0xab", "0x"), endswith("ab", "b")]',
        ["abc", "ABC", "ab", True],
    ),
    Case(
        "text",
        "a pattern is searched for unless it is anchored",
        'answer := [regex.match("b", "abc"), regex.match("^b$", "abc")]',
        [True, False],
    ),
    Case("text", "versions", 'answer := [semver.compare("1.10.0", "1.9.0"), semver.is_valid("1.2")]', [1, False]),
    Case(
        "text",
        "an object as text has its keys in order",
        "answer := json.marshal(input)",
        '{"a":1,"b":[true,null]}',
        {"b": [True, None], "a": 1},
    ),
    # -- numbers
    Case(
        "number",
        "whole numbers are exact up to 64 bits",
        "answer := [input == 18446744073709551615, input - 1]",
        [True, 18446744073709551614],
        18446744073709551615,
    ),
    Case(
        "number",
        "what lies beyond is sent as text, and compared as text",
        f'answer := input == "{_BIG}"',
        False,
        _BIG[:-1] + "6",
    ),
    Case("number", "1 is 1.0", "answer := input == 1", True, 1.0),
    Case("number", "arithmetic", "answer := [7 - 9, 2 * 3.5, 7 / 2, 7 % 4, 1 + 2 * 3]", [-2, 7, 3.5, 3, 7]),
    Case("number", "to divide by nothing is an error", "answer := 1 / input", ERROR, 0),
    Case("number", "of texts", 'answer := [to_number("12"), to_number("-0.5"), format_int(255, 16)]', [12, -0.5, "ff"]),
    Case("number", "a text that is none is an error", "answer := to_number(input)", ERROR, "x"),
    Case("number", "round, ceil, floor, abs", "answer := [round(2.5), ceil(2.1), floor(-2.1), abs(-3)]", [3, 3, -3, 3]),
    Case(
        "number",
        "sum, max, min of nothing and of something",
        "answer := [sum([]), sum([1, 2]), max([1, 3, 2]), min({3, 2})]",
        [0, 3, 3, 2],
    ),
    Case("number", "the largest of nothing has no value", "answer := max([])", UNDEFINED),
    Case(
        "order",
        "null, truth, numbers, texts, lists, objects, in this order",
        "answer := sort(input)",
        [None, False, True, 1, "1", [1], {"a": 1}],
        [{"a": 1}, [1], "1", 1, True, False, None],
    ),
    # -- collections
    Case(
        "collection",
        "union, intersection, difference",
        "answer := [{1, 2} | {9}, {1, 2} & {2, 3}, {1, 2} - {2}]",
        [[1, 2, 9], [2], [1]],
    ),
    Case(
        "collection",
        "sets and objects are equal whatever their order",
        'answer := [{1, 2} == {2, 1}, {"a": 1, "b": 2} == {"b": 2, "a": 1}]',
        [True, True],
    ),
    Case(
        "collection",
        "object.get with a default, at a path, and of null",
        'answer := [object.get(input, "x", 5), object.get(input, ["b", "c"], 5), object.get(input, "n", 5)]',
        [5, [1, 2, 3], None],
        _AB,
    ),
    Case(
        "collection",
        "keys, union, removal",
        'answer := [object.keys({"a": 1}), object.union({"a": 1}, {"a": 2}), object.remove({"a": 1}, ["a"])]',
        [["a"], {"a": 2}, {}],
    ),
    Case(
        "collection",
        "slices and reversal",
        "answer := [array.slice(input, 1, 3), array.reverse(input), array.concat(input, [9])]",
        [[2, 3], [3, 2, 1], [1, 2, 3, 9]],
        [1, 2, 3],
    ),
    Case("collection", "counts", 'answer := [count([]), count({"a": 1}), count({1, 1}), count("ab")]', [0, 1, 1, 2]),
    # -- a wrong type is an error, never a value and never merely undefined
    Case("type", "a text function of null", 'answer := startswith(input, "a")', ERROR),
    Case("type", "not of one", 'answer if { v := input; not startswith(v, "a") }', ERROR),
    Case("type", "the count of null", "answer := count(input)", ERROR),
    Case("type", "a number and a text", "answer := input + 1", ERROR, "1"),
    Case("type", "a text is not less than a number", "answer := input < 1", False, "0"),
    # -- data, with, time
    Case(
        "data",
        "reference values",
        "answer := [data.reference.models.aa.name, [1 | data.reference.models.bb]]",
        ["minilm", []],
    ),
    Case("data", "an empty object is there", "answer if data.reference.empty == {}", True),
    Case(
        "with", "another input, as tests use it", "p := input.a\n\nanswer := x if x := p with input as {`a`: 2}", 2, _AB
    ),
    Case(
        "with",
        "other reference values, as tests use them",
        "p := data.reference.x\n\nanswer := x if x := p with data.reference as {`x`: 2}",
        2,
    ),
    Case("time", "now is when the window was received", "answer := time.now_ns()", NOW_NS),
    Case("time", "now does not move", "answer if time.now_ns() == time.now_ns()", True),
    Case("time", "RFC 3339", 'answer := time.parse_rfc3339_ns("2026-11-22T12:00:00.25Z")', NOW_NS),
    Case("time", "what is no time is an error", "answer := time.parse_rfc3339_ns(input)", ERROR, "yesterday"),
    # -- what no policy may have
    Case("forbidden", "the network", "", ERROR, None, 'http.send({"method": "get", "url": "http://127.0.0.1:9/"})'),
    Case("forbidden", "names on the network", "", ERROR, None, 'net.lookup_ip_addr("localhost")'),
    Case(
        "forbidden",
        "a schema from the network",
        "",
        ERROR,
        None,
        'json.match_schema({}, {"$ref": "http://127.0.0.1:9/"})',
    ),
    Case("forbidden", "the process", "", ERROR, None, "opa.runtime()"),
    Case("forbidden", "chance", "", ERROR, None, 'rand.intn("a", 5)'),
    Case("forbidden", "unique identifiers", "", ERROR, None, 'uuid.rfc4122("a")'),
)
