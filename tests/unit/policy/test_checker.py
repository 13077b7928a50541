"""The static checker names what engines read otherwise than authors mean, and accepts what is written well.

Numbers such as §2.3-1 are those of the measured differences between engines.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from weighbridge.policy.checker.check import check
from weighbridge.policy.checker.functions import ALLOWED
from weighbridge.policy.checker.syntax import parse
from weighbridge.policy.engines.regorus import RegorusEngine, RegorusPrepared
from weighbridge.policy.policy_set import LIBRARY, PolicyModule, PolicySet, shipped
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code, PolicyDenied

Build = Callable[[str], PolicySet]
PACKAGE = "package weighbridge.policy\n\n"
WHOLE = PACKAGE + "default allow := false\n\ndeny contains d if {\n\tfalse\n\td := {}\n}\n\n"


@pytest.mark.parametrize("name", ["production", "insecure_development"])
def test_the_shipped_policies_have_no_findings(name: str, reference: Callable[..., Reference]) -> None:
    assert RegorusEngine().check(shipped(name, reference=reference())) == ()  # type: ignore[arg-type]


REFUSED = {
    # -- C1: entry points
    "another package": ("C1", "package other\n\ndefault allow := false\n", "not the author"),
    "the library's package": ("C1", "package weighbridge.lib\n\nx := 1\n", "not the author"),
    "a package inside the reference values": ("C1", "package reference\n\nmodels := {}\n", "not the author"),
    "a package inside the author's": ("C1", "package weighbridge.policy.sub\n\nx := 1\n", "not the author"),
    "no default (A63)": ("C1", PACKAGE + "allow if true\ndeny contains 1 if false\n", "default allow"),
    "default true": ("C1", PACKAGE + "default allow := true\ndeny contains 1 if false\n", "default allow"),
    "default null": ("C1", PACKAGE + "default allow := null\ndeny contains 1 if false\n", "default allow"),
    "default zero": ("C1", PACKAGE + "default allow := 0\ndeny contains 1 if false\n", "default allow"),
    "two defaults (§2.2)": ("C1", WHOLE + "default allow := true\n", "stands twice"),
    "two defaults of another rule": ("C1", WHOLE + "default x := 1\ndefault x := 2\n", "stands twice"),
    "a default for deny": ("C1", WHOLE + "default deny := {1}\n", "has a default"),
    "no deny": ("C1", PACKAGE + "default allow := false\n", "no deny"),
    "deny is a list": ("C1", PACKAGE + "default allow := false\ndeny := []\n", "not a set"),
    "deny is an object": ("C1", PACKAGE + 'default allow := false\ndeny["x"] := 1\n', "not a set"),
    "deny is a function": ("C1", PACKAGE + "default allow := false\ndeny(x) := x\n", "not a set"),
    "unchecked is a list": ("C1", WHOLE + "unchecked := []\n", "not a set"),
    "allow is a set": ("C1", WHOLE + "allow contains 1\n", "not a complete"),
    "allow is a function": ("C1", WHOLE + "allow(x) if x\n", "not a complete"),
    "allow is text": ("C1", WHOLE + 'allow := "yes"\n', "another value"),
    "allow is computed": ("C1", WHOLE + "allow := input.gap.since\n", "another value"),
    "allow else text": ("C1", WHOLE + 'allow if false else := "yes"\n', "another value"),
    # -- C2: functions
    "unknown function (§2.2)": ("C2", WHOLE + "allow if check(1)\n", "check is not"),
    "unknown function in a rule that is not reached": ("C2", WHOLE + "x if check(1)\n", "check is not"),
    "a rule is no function": ("C2", WHOLE + "x := 1\ny := x(1)\n", "not a function"),
    "builtin with too few arguments (§2.2)": ("C2", WHOLE + "x := startswith(`a`)\n", "takes 2"),
    "function with too many arguments": ("C2", WHOLE + "f(a) := a\n\nx := f(1, 2)\n", "takes 1"),
    "the network": ("C2", WHOLE + "x := http.send({})\n", "http.send"),
    "names on the network": ("C2", WHOLE + "x := net.lookup_ip_addr(`a`)\n", "net.lookup_ip_addr"),
    "the process": ("C2", WHOLE + "x := opa.runtime()\n", "opa.runtime"),
    "chance": ("C2", WHOLE + "x := rand.intn(`a`, 2)\n", "rand.intn"),
    "unique identifiers": ("C2", WHOLE + "x := uuid.rfc4122(`a`)\n", "uuid.rfc4122"),
    "unimplemented builtin (§2.3-3)": ("C2", WHOLE + "x if not net.cidr_contains(`a`, `b`)\n", "net.cidr_contains"),
    "much out of little": ("C2", WHOLE + "x := numbers.range(1, 1000000000)\n", "numbers.range"),
    "print": ("C2", WHOLE + "x if print(1)\n", "print"),
    "a panic of the engine": ("C2", WHOLE + "x := strings.count(``, ``)\n", "strings.count"),
    # -- C3: not
    "not with a call of a reference (§2.3-1)": (
        "C3",
        WHOLE + "x if not startswith(input.gap.since, `a`)\n",
        "undefined",
    ),
    "not with a comparison of a call": ("C3", WHOLE + "x if not count(input.gpus) > 0\n", "undefined"),
    "not with membership of a reference": ("C3", WHOLE + "x if not input.gap.since in {`a`}\n", "undefined"),
    "not with membership in a reference": ("C3", WHOLE + "x if not `a` in data.reference.models\n", "undefined"),
    "not with keyed membership": ("C3", WHOLE + "x if not input.gap.since, 1 in {`a`}\n", "undefined"),
    "not with a call in a call": ("C3", WHOLE + "x if { y := `a`; not count(split(y, `,`)) > 0 }\n", "undefined"),
    "not with a call of a rule": ("C3", WHOLE + "r if false\n\nx if not is_boolean(r)\n", "undefined"),
    "not in a comprehension": ("C3", WHOLE + "x := [1 | not is_null(input.gap.since)]\n", "undefined"),
    "not with a wildcard": ("C3", WHOLE + "x if not input.gpus[_].reported_in_window\n", "without a name"),
    # -- C4: heads
    "reference in the head of a set (§2.3-2)": (
        "C4",
        WHOLE + "x contains g.fwid if some g in input.gpus\n",
        "head of x",
    ),
    "call in the head of a set": ("C4", WHOLE + "x contains upper(g) if { some g in [`a`] }\n", "head of x"),
    "rule in the head of a set": ("C4", WHOLE + "r := 1 if false\n\nx contains r if true\n", "head of x"),
    "reference inside an object in the head": (
        "C4",
        WHOLE + "x contains {`a`: g.fwid} if some g in input.gpus\n",
        "head",
    ),
    "reference as a key of an object rule": ("C4", WHOLE + "x[g.fwid] := 1 if some g in input.gpus\n", "head of x"),
    "reference as a value of an object rule": ("C4", WHOLE + "x[`a`] := g.fwid if some g in input.gpus\n", "head of x"),
    "name bound only inside a comprehension": (
        "C4",
        WHOLE + "x contains g if { y := [g | some g in [1]]; y == y }\n",
        "head of x",
    ),
    "name bound by search": (
        "C4",
        WHOLE + "x contains i if { some i; input.gpus[i].fwid == `matches` }\n",
        "head of x",
    ),
    "deny itself": ("C4", WHOLE + "deny contains {`code`: g.fwid} if some g in input.gpus\n", "head of deny"),
    "one body of two": (
        "C4",
        WHOLE + "x contains y if { y := 1 }\n\nx contains y if { some z in [1]; z == z }\n",
        "head of x",
    ),
    # -- C5: unequal
    "unequal reference (§2.3-8)": ("C5", WHOLE + "x if data.reference.models.a.name != `b`\n", "!="),
    "unequal member of an argument": ("C5", WHOLE + "f(g) if g.fwid != `matches`\n", "!="),
    "unequal call": ("C5", WHOLE + "x if to_number(`a`) != 1\n", "!="),
    "unequal rule": ("C5", WHOLE + "r := 1 if false\n\nx if r != 2\n", "!="),
    # -- C6: every
    "every over a reference (§2.3-7, A10)": (
        "C6",
        WHOLE + "x if every g in input.gpus { g.fwid == `matches` }\n",
        "empty",
    ),
    "every with the count of something else": (
        "C6",
        WHOLE + "x if { count(input.findings) > 0; every g in input.gpus { g.fwid == `matches` } }\n",
        "empty",
    ),
    "every with a count that says nothing": (
        "C6",
        WHOLE + "x if { count(input.gpus) >= 0; every g in input.gpus { g.fwid == `matches` } }\n",
        "empty",
    ),
    "every over an empty literal": ("C6", WHOLE + "x if every y in [] { y }\n", "empty"),
    # -- C7: paths and names
    "an input that does not exist": ("C7", WHOLE + "x if input.gpu\n", "no gpu"),
    "under not": ("C7", WHOLE + "x if not input.window.hold\n", "no hold"),
    "with another spelling (trustee#1323)": ("C7", WHOLE + "x if input[`attester-code`]\n", "no attester-code"),
    "of an element": ("C7", WHOLE + "x if { some g in input.gpus; g.revokation == `good` }\n", "no revokation"),
    "of an element by index": ("C7", WHOLE + "x if input.gpus[0].revokation == `good`\n", "no revokation"),
    "of an element of every": (
        "C7",
        WHOLE + "x if { count(input.gpus) > 0; every g in input.gpus { g.revokation == `good` } }\n",
        "no revokation",
    ),
    "through a variable": ("C7", WHOLE + "x if { w := input.window; w.late }\n", "no late"),
    "through an import": (
        "C7",
        PACKAGE + "import input.window as w\n\n" + WHOLE[len(PACKAGE) :] + "x if w.late\n",
        "no late",
    ),
    "inside a scalar": ("C7", WHOLE + "x if input.schema.version\n", "scalar"),
    "an element of a scalar": ("C7", WHOLE + "x if input.schema[0]\n", "scalar"),
    "a member of a list": ("C7", WHOLE + "x if input.gpus.fwid\n", "list"),
    "a computed member": ("C7", WHOLE + "x if { some n in [`a`]; input[n] }\n", "fixed names"),
    "an import that does not exist": ("C7", PACKAGE + "import input.gpu\n\n" + WHOLE[len(PACKAGE) :], "no input.gpu"),
    "an import of data that does not exist": (
        "C7",
        PACKAGE + "import data.other\n\n" + WHOLE[len(PACKAGE) :],
        "data.other",
    ),
    "an import of another language": (
        "C7",
        PACKAGE + "import future.keywords.in\n\n" + WHOLE[len(PACKAGE) :],
        "future",
    ),
    "data that does not exist": ("C7", WHOLE + "x if data.other.x\n", "data.other"),
    "reference values that do not exist": ("C7", WHOLE + "x if not data.reference.model\n", "have no model"),
    "reference values through an import": (
        "C7",
        PACKAGE + "import data.reference\n\n" + WHOLE[len(PACKAGE) :] + "x if reference.model\n",
        "have no model",
    ),
    "a part of a name that does not exist": ("C7", WHOLE + "a.b := 1\n\nx if not a.c\n", "a.c does not"),
    "a rule of the library that does not exist": (
        "C7",
        PACKAGE + "import data.weighbridge.lib\n\n" + WHOLE[len(PACKAGE) :] + "x if not lib.frehs\n",
        "frehs",
    ),
    "a member with a default": ("C7", WHOLE + "x if object.get(input.window, `hold`, false) == false\n", "no hold"),
    "a path with a default": ("C7", WHOLE + "x if object.get(input, [`window`, `hold`], false) == false\n", "no hold"),
    "a variable that nothing binds under not": (
        "C7",
        WHOLE + "x if not input.gpus[i].reported_in_window\n",
        "i is not bound",
    ),
    "a variable that nothing binds (§2.2)": ("C7", WHOLE + "x if nothing == 1\n", "not bound"),
    # -- C8: one meaning
    "a variable named as a rule": ("C8", WHOLE + "y := 1\n\nx if { y := 2; y == 2 }\n", "as well as"),
    "a variable named as an import": (
        "C8",
        PACKAGE + "import input.gpus\n\n" + WHOLE[len(PACKAGE) :] + "x := [1 | some gpus in [1]]\n",
        "as well as",
    ),
    "an argument named input (§2.2)": ("C8", WHOLE + "f(input) := input\n", "as well as"),
    "a variable that is only named": ("C8", WHOLE + "x if { some i; not input.gpus[i].reported_in_window }\n", "some"),
    "a function named as a builtin": ("C8", WHOLE + "startswith(a, b) := a == b\n", "another meaning"),
    "a rule named as a namespace": ("C8", WHOLE + "object.get(a) := a\n", "another meaning"),
    "a rule named as an import": (
        "C8",
        PACKAGE + "import input.window\n\n" + WHOLE[len(PACKAGE) :] + "window := 1\n",
        "another meaning",
    ),
    "an import named input": (
        "C8",
        PACKAGE + "import data.reference as input\n\n" + WHOLE[len(PACKAGE) :],
        "another meaning",
    ),
    "an import named as a builtin": (
        "C8",
        PACKAGE + "import data.reference as count\n\n" + WHOLE[len(PACKAGE) :],
        "another meaning",
    ),
    "binding by =": ("C8", WHOLE + "x if { y = 1; y == 1 }\n", "binds"),
    "with": ("C8", WHOLE + "x if allow with input as {}\n", "with"),
    "a rule that depends on itself": ("C8", WHOLE + "x if y\n\ny if x\n", "depends on itself"),
    "a function that calls itself": ("C8", WHOLE + "f(n) := f(n)\n", "depends on itself"),
    "a circle through the package": ("C8", WHOLE + "x if data.weighbridge.policy.x\n", "depends on itself"),
    "a circle through the whole package": ("C8", WHOLE + "x := count(data.weighbridge.policy)\n", "depends on itself"),
}


@pytest.mark.parametrize(("number", "text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_engines_read_otherwise_is_refused(policy_of: Build, number: str, text: str, message: str) -> None:
    findings = RegorusEngine().check(policy_of(text))
    found = [finding for finding in findings if finding.check == number and message in finding.message]
    assert found, findings
    assert found[0].module == "test.rego"
    assert found[0].line >= 1


def test_findings_refuse_the_policy_with_place_and_hint(policy_of: Build) -> None:
    with pytest.raises(PolicyDenied) as caught:
        RegorusEngine().load(policy_of(WHOLE + "x if nothing\n\ny if http.send({})\n"))
    error = caught.value
    assert (error.code, error.where, error.clause) == (Code.POLICY_INVALID, "test.rego:10", "checker C7")
    assert error.message == "nothing is not bound anywhere (2 more)"
    assert error.hint == "bind it with := or some … in"


ACCEPTED = {
    "bound before not": "x if { g := input.gap.since; not is_null(g) }\n",
    "not of a comparison": "x if not input.window.freshness == `fresh`\n",
    "not of a rule": "r if false\n\nx if not r\n",
    "not of a function of a variable": "f(g) if g.fwid == `matches`\n\nx if { some g in input.gpus; not f(g) }\n",
    "not of membership of a variable": "x if { v := 1; w := {2}; not v in w }\n",
    "literal heads": "x contains 1\n\nx contains [2, {`a`: null}] if true\n\ny[`a`] := 1 if true\n",
    "bound heads": "x contains [k, v] if some k, v in {`a`: 1}\n\ny[k] := v if some k, v in {`a`: 1}\n",
    "a bound object in the head": "x contains {`f`: f} if { some g in input.gpus; f := g.fwid }\n",
    "unequal to what is always there": "x if input.window.freshness != `fresh`\n",
    "unequal of an element that is always there": "x if { some g in input.gpus; g.fwid != `matches` }\n",
    "unequal variables": "x if { some a in [1]; some b in [2]; a != b }\n",
    "guarded every": "x if { count(input.gpus) > 0; every g in input.gpus { g.fwid == `matches` } }\n",
    "guarded every of another form": "x if { count(input.gpus) >= 1; every i, g in input.gpus { g.fwid == i } }\n",
    "every of a literal": "x if every y in [1, 2] { y > 0 }\n",
    "reference values": "x if data.reference.models[`a`].name == `b`\n",
    "a circle that is none": "x if y\n\ny if z\n\nz if w\n\nx if w\n\nw := 1\n",
    "comprehensions": "x := {g.identity: g.fwid | some g in input.gpus}\n\ny := [i | some i, _ in input.gpus]\n",
    "else": "f(x) := 1 if { x == 1 } else := 2 if { x == 2 } else := 3\n",
    "names inside names": "a.b.c := 1\n\nx if a.b.c == 1\n",
    "a default for a function": "default f(_) := 1\n\nf(x) := 2 if x == 1\n",
    "arithmetic": "x := -(1 + 2) * 3 if { input.work.requests - 1 > 0 }\n",
    "sets": "x := {1} | {2}\n\ny := x & {1}\n",
    "a name beyond ascii in a comment": "# é😀\nx := [`é😀` | some name in [1]; name == 1]\n",
    "a name bound twice": "x if { y := [z | some z in input.gpus]; w := [z | some z in [1]]; y != w }\n",
    "a pattern": "x if { [a, b] := [1, 2]; a < b }\n",
    "a member with a default that exists": "x if object.get(input, [`gpus`, 0, `fwid`], ``) == `matches`\n",
    "a wildcard": "x if input.gpus[_].fwid == `matches`\n",
    "an index": "x if { some i, _ in input.gpus; input.gpus[i].fwid == `matches` }\n",
}


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_written_well_is_accepted(prepare: Callable[..., RegorusPrepared], text: str) -> None:
    prepare(text)


def test_every_allowed_builtin_exists_in_the_engine(prepare: Callable[..., RegorusPrepared], good: object) -> None:
    """An allowed builtin that the engine lacks would be an error at the worst moment."""
    values = {1: "`1`", 2: "`1`, `1`", 3: "`1`, `1`, `1`", 0: ""}
    special = {
        "abs": "1", "array.concat": "[], []", "array.reverse": "[]", "array.slice": "[], 0, 0", "ceil": "1",
        "concat": "``, []", "count": "[]", "floor": "1", "format_int": "1, 10", "intersection": "{{1}}", "max": "[1]",
        "min": "[1]", "object.filter": "{}, []", "object.get": "{}, `a`, 1", "object.keys": "{}",
        "object.remove": "{}, []", "object.union": "{}, {}", "round": "1", "semver.compare": "`1.0.0`, `1.0.0`",
        "sort": "[]", "sprintf": "`a`, []", "substring": "`a`, 0, 1", "sum": "[]", "union": "{{1}}",
        "time.parse_rfc3339_ns": "`2026-01-01T00:00:00Z`",
    }  # fmt: skip
    rules = "".join(
        f"x{i} := [{name}({special.get(name, values[arity])})]\n\n" for i, (name, arity) in enumerate(ALLOWED.items())
    )
    names = ", ".join(f"x{i}" for i in range(len(ALLOWED)))
    decision = prepare(rules + f"allow if count([{names}]) == {len(ALLOWED)}\n").decide(good)  # type: ignore[arg-type]
    assert decision.outcome == "allow", decision.detail


def test_modules_of_one_package_know_each_other(policy_of: Build) -> None:
    one = policy_of(WHOLE + "x if helper(1)\n")
    two = PolicySet((*one.modules, PolicyModule("b.rego", (PACKAGE + "helper(n) if n == 1\n").encode())), one.reference)
    assert RegorusEngine().check(two) == ()
    assert [finding.check for finding in RegorusEngine().check(one)] == ["C2", "C7"]


def test_two_modules_with_a_default_each(policy_of: Build) -> None:
    one = policy_of(WHOLE)
    two = PolicySet(
        (*one.modules, PolicyModule("b.rego", (PACKAGE + "default allow := false\n").encode())), one.reference
    )
    assert {finding.check for finding in RegorusEngine().check(two)} == {"C1"}


def test_deep_chains_are_refused_and_not_fallen_through(policy_of: Build) -> None:
    """3,000 rules that depend on each other end the engine's process; here they end in a refusal."""
    chain = "".join(f"r{i} if r{i + 1}\n" for i in range(1500)) + "r1500 := 1\n"
    with pytest.raises(PolicyDenied, match="deeply"):
        RegorusEngine().load(policy_of(WHOLE + chain))
    with pytest.raises(PolicyDenied, match=r"deeply|does not load"):
        RegorusEngine().load(policy_of(WHOLE + "x := 1" + "\n+ 1" * 1200 + "\n"))


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (WHOLE + "x := = 1\n", "test.rego:10", "expecting"),
        (PACKAGE + "allow { true }\n", "test.rego:3", "load"),
        (WHOLE + "x := 1 if {\n", "test.rego:", "load"),
        ("", "", "load"),
        (WHOLE + "x := $`a`\n", "test.rego:10", "load"),
        (WHOLE + "x := input.gpus[0](1)\n", "test.rego:10", "load"),
        (WHOLE + "x[input.schema].y := 1\n", "test.rego:10", "fixed"),
    ],
)
def test_what_does_not_parse_is_refused_with_its_line(policy_of: Build, text: str, where: str, message: str) -> None:
    with pytest.raises(PolicyDenied, match=message) as caught:
        RegorusEngine().load(policy_of(text))
    assert caught.value.code is Code.POLICY_INVALID
    assert caught.value.where.startswith(where)
    assert "backtrace" not in str(caught.value)


def tree(rules: list[object]) -> bytes:
    span = {"line": 1, "col": 1, "start": 0, "end": 1}
    package = {"Var": {"span": span, "value": "p"}}
    ast = {"package": {"span": span, "refr": package}, "imports": [], "rules": rules}
    return json.dumps([{"source": {"file": "f", "contents": "p"}, "ast": ast}]).encode()


SPAN = {"span": {"line": 7, "start": 0, "end": 1}}
NAME = {"Var": {**SPAN, "value": "r"}}


def spec(form: str, **more: object) -> dict[str, object]:
    return {"Spec": {**SPAN, "head": {form: {**SPAN, "refr": NAME, **more}}, "bodies": []}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[1]",
        b"[" * 5000,
        tree([{"New": SPAN}]),
        tree([{}]),
        tree([{"Spec": {}, "Default": {}}]),
        tree([spec("New")]),
        tree([spec("Set", key={"New": SPAN})]),
        tree([spec("Compr", assign={"value": {"SetOfSets": SPAN}})]),
        tree(
            [
                {
                    "Spec": {
                        **SPAN,
                        "head": {"Compr": {**SPAN, "refr": NAME}},
                        "bodies": [{"query": {**SPAN, "stmts": [{**SPAN, "literal": {"New": SPAN}}]}}],
                    }
                }
            ]
        ),
        tree(
            [
                {
                    "Spec": {
                        **SPAN,
                        "head": {"Compr": {**SPAN, "refr": NAME}},
                        "bodies": [
                            {"query": {**SPAN, "stmts": [{**SPAN, "literal": {"SomeVars": {**SPAN, "vars": [{}]}}}]}}
                        ],
                    }
                }
            ]
        ),
        tree([spec("Compr", assign={"value": {"Object": {**SPAN, "fields": [1]}}})]),
        tree([spec("Compr", assign={"value": {"RefDot": {**SPAN, "refr": NAME, "field": []}}})]),
        json.dumps([{"source": {"file": 1, "contents": ""}, "ast": {}}]).encode(),
    ],
)
def test_a_tree_of_another_shape_is_refused(data: bytes) -> None:
    """A new engine cannot slip a construct past the checker."""
    with pytest.raises(PolicyDenied) as caught:
        parse(data)
    assert caught.value.code is Code.POLICY_INVALID


def test_a_known_tree_is_read() -> None:
    (module,) = parse(
        tree(
            [
                spec("Set", key=NAME),
                {"Default": {**SPAN, "refr": NAME, "args": [], "value": {"Bool": {**SPAN, "value": False}}}},
            ]
        )
    )
    assert (module.name, module.package) == ("f", "p")
    assert [(rule.kind, rule.name, rule.line) for rule in module.rules] == [("set", "r", 7), ("default", "r", 7)]
    assert check((module,), LIBRARY) != ()
