"""The static checker in front of the engine: what it refuses is not loaded; what it reads is the engine's own tree."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.checked import PACKAGE, WHOLE, checked, importing, of_check
from weighbridge.policy.checker.check import check
from weighbridge.policy.checker.findings import CHECKS, errors
from weighbridge.policy.checker.functions import ALLOWED
from weighbridge.policy.checker.syntax import parse
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.engines.workbench import Workbench
from weighbridge.policy.policy_set import LIBRARY, PolicyModule, PolicySet, shipped
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code, PolicyDenied

Build = Callable[[str], PolicySet]


@pytest.mark.parametrize("name", ["production", "insecure_development"])
def test_the_shipped_policies_have_no_findings(name: str, reference: Callable[..., Reference]) -> None:
    assert RegorusEngine().check(shipped(name, reference=reference())) == ()  # type: ignore[arg-type]


def test_findings_refuse_the_policy_with_place_and_hint(policy_of: Build) -> None:
    with pytest.raises(PolicyDenied) as caught:
        RegorusEngine().load(policy_of(WHOLE + "x if nothing\n\ny if http.send({})\n"))
    error = caught.value
    assert (error.code, error.where, error.clause) == (Code.POLICY_INVALID, "test.rego:10", "checker unbound")
    assert error.message == "nothing is not bound anywhere (1 more)"
    assert error.hint == "bind it with := or some … in"


def test_warnings_do_not_keep_a_policy_from_being_loaded(policy_of: Build) -> None:
    policy = policy_of(WHOLE)
    assert {finding.check for finding in RegorusEngine().check(policy)} == {"after-false", "deny-without-library"}
    RegorusEngine().load(policy).close()


def test_every_allowed_builtin_exists_in_the_engine(prepare: Callable[..., PreparedPolicy], good: object) -> None:
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
    assert errors(RegorusEngine().check(two)) == ()
    assert [finding.check for finding in errors(RegorusEngine().check(one))] == ["function-unknown"]


def test_two_modules_with_a_default_each(policy_of: Build) -> None:
    one = policy_of(WHOLE)
    two = PolicySet(
        (*one.modules, PolicyModule("b.rego", (PACKAGE + "default allow := false\n").encode())), one.reference
    )
    assert {finding.check for finding in errors(RegorusEngine().check(two))} == {"default-twice"}


def test_two_imports_of_one_name_are_refused(policy_of: Build) -> None:
    """Regorus takes one of the two, in silence; OPA refuses."""
    imports = "import data.weighbridge.lib.always\nimport data.author.always\n\n"
    with pytest.raises(PolicyDenied, match="two imports are called always"):
        RegorusEngine().check(policy_of(PACKAGE + imports + WHOLE.removeprefix(PACKAGE)))


def test_a_policy_does_not_keep_the_checker_busy() -> None:
    """Seconds of work for a machine that is slow: each took the square or a power of the size once."""
    every = "\n".join(f"every y{i} in input.findings {{ y{i} == {i} }}" for i in range(1000))
    rules = "\n".join(f"rule_number_{i}_is := {i}" for i in range(600))
    typos = "\n".join(f"x{i} := rule_numbr_{i}_si" for i in range(200))
    fan = "\n".join(f"r{i} := r{i + 1} | r{i + 1}" for i in range(60)) + "\nr60 contains 1\n"
    denial = 'deny contains d if { d := lib.denial("A", null, "m", r0, null, null) }\n'
    texts = {
        "every": WHOLE + f"x if {{\n{every}\n}}\n",
        "typos": WHOLE + f"{rules}\n{typos}\n",
        "fan": importing("import data.weighbridge.lib") + fan + denial,
    }
    begun = time.process_time()
    found = checked(texts)
    assert time.process_time() - begun < 30
    assert len(of_check(found["every"], "every-maybe-empty")) == 1000
    assert len(of_check(found["typos"], "unbound")) == 200
    assert len(of_check(found["fan"], "denial-maybe-undefined")) == 1


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
    assert [rule.span for rule in module.rules] == [(0, 1), (0, 1)]
    assert check((module,), LIBRARY) != ()


SPANS = """package weighbridge.policy

import data.weighbridge.lib as l

default allow := "x"

a if "é" == "ü"

b contains "x" if {
\tc := {"a": 1, `b`: {}}  # {
\tnot c["a"] in [2] with input as "i"
}

f(x) := {\t# {
\t"k": "v"} if x
else := "y"
"""


def test_spans_hold_quotes_and_brackets(policy_of: Build) -> None:
    with Workbench(policy_of(SPANS).modules[1:], {}) as bench:
        (module,) = bench.syntax
    assert [module.source(span) for span in module.import_spans] == ["import data.weighbridge.lib as l"]
    assert module.imports == {"l": "data.weighbridge.lib"}
    default, equal, member, function = module.rules
    assert module.source(default.span) == 'default allow := "x"'
    assert module.source(equal.span) == 'a if "é" == "ü"'
    assert module.source(member.span) == SPANS[SPANS.index("b contains") : SPANS.index("\n\nf(x)")]
    assert module.source(function.span) == SPANS[SPANS.index("f(x)") : -1]
    shown = [module.source(node.span) for node in member.walk()]
    assert shown[0] == '"x"'
    assert {'{"a": 1, `b`: {}}', "`b`", "{}", 'not c["a"] in [2] with input as "i"', 'with input as "i"'} <= set(shown)
    assert [module.source(body.span) for body in function.bodies] == ["x", 'else := "y"']
    assert function.value is not None
    assert module.source(function.value.span) == '{\t# {\n\t"k": "v"}'
    assert module.place(equal.span[0]) == (7, 1)
    assert module.place(equal.span[1]) == (7, 16)


EMPTY_SETS = """package weighbridge.policy

a if f(1) == set()

b if {
	x := set()
	count(set()) == 0
	[set()] == [ set( ) ] with input as set()
	x == set()
}

f(x) := set()
"""


def test_spans_of_empty_sets_end_where_they_end(policy_of: Build) -> None:
    """The engine ends them after the next word, and everything that ends with them."""
    with Workbench(policy_of(EMPTY_SETS).modules[1:], {}) as bench:
        (module,) = bench.syntax
    first, second, third = module.rules
    assert [module.source(rule.span) for rule in module.rules] == [
        "a if f(1) == set()",
        EMPTY_SETS[EMPTY_SETS.index("b if") : EMPTY_SETS.index("\n\nf(x)")],
        "f(x) := set()",
    ]
    assert [module.source(statement.span) for statement in first.bodies[0].all("statement")] == ["f(1) == set()"]
    assert [module.source(statement.span) for statement in second.bodies[0].all("statement")] == [
        "x := set()",
        "count(set()) == 0",
        "[set()] == [ set( ) ] with input as set()",
        "x == set()",
    ]
    sets = {module.source(node.span) for rule in module.rules for node in rule.walk() if node.kind == "Set"}
    assert sets == {"set()", "set( )"}
    calls = [module.source(node.span) for node in second.walk() if node.kind in ("Call", "Array")]
    assert calls == ["count(set())", "[set()]", "[ set( ) ]"]
    assert third.value is not None
    assert module.source(third.value.span) == "set()"


def test_the_guide_lists_every_check_as_it_is() -> None:
    """``docs/policy-checker.md``."""
    guide = (Path(__file__).parents[3] / "docs" / "policy-checker.md").read_text(encoding="utf-8")
    cells = ((f"`{check.id}`", check.severity, check.title, check.why, check.safe) for check in CHECKS.values())
    rows = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
    table = guide.partition("## Every check\n\n")[2].partition("\n\n")[0]
    assert table.splitlines()[2:] == rows
