"""Rego that says why rules hold or do not: written about each clause, evaluated beside the policy, read back.

Of a clause that is true, one generated rule lists what its names stand for and what its statements see. Of a clause
that is not, there is one for each statement: it has a value where everything before that statement holds and the
statement itself does not, so that the last one with a value shows where the clause ends. Rules that a statement asks
are called the same way, with the same arguments, inside the engine: no value is ever written into source text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.policy.authoring.clauses import Clause, Clauses, Written, one_line, statements, variables
from weighbridge.policy.authoring.origins import Source
from weighbridge.policy.authoring.plans import About, Asked, Fired, ReadStatement, WayPlan, reader
from weighbridge.policy.authoring.reasons import Kind, Way
from weighbridge.policy.authoring.terms import (
    FAILURES_MAX,
    LITERALS,
    Answers,
    Slots,
    Terms,
    first,
    items,
    unpacked,
)

if TYPE_CHECKING:
    from weighbridge.policy.checker.syntax import Module, Node, Rule

__all__ = ["Tracer"]

_STATEMENTS_MAX: Final = 32
_SOLUTIONS_MAX: Final = 64
_DEPTH_MAX: Final = 12
_CHAIN_MAX: Final = 4
_OPERATORS: Final = {"Eq": "==", "Ne": "!=", "Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">="}


@dataclass(frozen=True, slots=True)
class _Step:
    """A statement of a way: source text, and what reads why it fails, given the names that it can see."""

    source: str
    binds: tuple[str, ...]
    plan: Callable[[Slots, Sequence[str]], ReadStatement]


@final
class Tracer:
    """Writes the rules that explain clauses of a policy. Each rule is written once, however often it is asked."""

    def __init__(self, clauses: Clauses) -> None:
        self._clauses: Clauses = clauses
        self._terms: Terms = Terms(clauses)
        self._p: str = clauses.prefix
        self._ways: dict[tuple[str, bool], tuple[WayPlan, ...]] = {}
        self._depth: int = 0
        self._number: int = 0
        self.written: list[Written] = []

    def fired(self, source: Source) -> Fired:
        """What explains a clause that holds."""
        module, p = source.module, self._p
        slots = Slots()
        params = [name for param in source.params for name in _names(param) if name != "_"]
        names = [name for item in source.statements for name in variables(item)]
        scope = (*params, *names)
        reads = tuple(self._statement(module, item, slots, scope, holds=True) for item in source.statements)
        name = self._name("f")
        solutions = f"[{', '.join([f'[{source.element}]', *names])}]"
        found = f"array.slice([{solutions} |\n{source.body}\n], 0, {_SOLUTIONS_MAX})"
        self._write(module, f"{name}_b{source.given} := {found}")
        taken = "".join(f"\n\t{each} := {p}s[{number}]" for number, each in enumerate(names, 1))
        shown = ", ".join(self._show(each) for each in scope)
        result = f"[{p}s[0][0], {p}n, {slots.listed(p)}]"
        seen = f"some {p}s in {name}_b{source.given}{taken}\n\t{p}n := [{shown}]{slots.assigned(p)}"
        self.written += source.called(name, f"[{result} |\n\t{seen}\n]", p)
        return Fired(f"data.{source.asked_in.package}.{name}", scope, reads)

    def ways(self, name: str) -> tuple[WayPlan, ...]:
        """Every clause of the rule of this full name, each as a way in which it could hold."""
        return self._planned(name, lambda: self._rule_ways(name), member=False)

    def member_ways(self, name: str) -> tuple[WayPlan, ...]:
        """Every clause of a set that could put an element into it; each is called with that element."""
        return self._planned(name, lambda: self._set_ways(name), member=True)

    def _planned(self, name: str, make: Callable[[], list[WayPlan]], *, member: bool) -> tuple[WayPlan, ...]:
        key = (name, member)
        if key not in self._ways:
            # No rule depends on itself in a policy that the checker accepts; were it otherwise, this ends it.
            self._ways[key] = ()
            if self._depth < _DEPTH_MAX:
                self._depth += 1
                self._ways[key] = tuple(make())
                self._depth -= 1
        return self._ways[key]

    def _rule_ways(self, name: str) -> list[WayPlan]:
        plans: list[WayPlan] = []
        for module, rule in self._clauses.of(name, "complete", "function"):
            for body in rule.bodies or (None,):
                steps = [self._step(module, item) for item in statements(body)]
                other = None if body is None else body.part("value")
                value = rule.value if other is None and body in (None, *rule.bodies[:1]) else other
                if value is not None and not (value.kind == "Bool" and value.text == "true"):
                    steps.append(self._value_step(module, value))
                plans.append(self._way(module, self._clause(module, rule, body), rule.args, steps))
        return plans

    def _set_ways(self, name: str) -> list[WayPlan]:
        plans: list[WayPlan] = []
        asked = f"{self._p}x"
        for module, rule in self._clauses.of(name, "set"):
            if rule.key is None:
                continue
            written = rule.key.kind in LITERALS
            for body in rule.bodies or (None,):
                steps = [self._step(module, item) for item in statements(body)]
                guard = self._guard_step(module, rule.key, asked)
                steps = [guard, *steps] if written else [*steps, guard]
                plans.append(self._way(module, self._clause(module, rule, body), (asked,), steps, guarded=written))
        return plans

    def _way(
        self,
        module: Module,
        clause: Clause,
        args: Sequence[Node | str],
        steps: list[_Step],
        *,
        guarded: bool = False,
    ) -> WayPlan:
        """Write the rules of one clause: ``name(args)`` lists for each statement where the clause ends at it."""
        name = self._name("w")
        params = [self._param(module, arg, number) for number, arg in enumerate(args)]
        call = f"data.{module.package}.{name}"
        if len(steps) > _STATEMENTS_MAX or any("_" in _names(arg) and not _is_any(arg) for arg in args):
            self._write(module, f"{name}{_listed(f'{self._p}q{n}' for n in range(len(args)))} := []")
            return WayPlan(clause, call, len(args), (), guarded=guarded)
        bound = [each for number, arg in enumerate(args) for each in _names(arg) or [params[number]] if each != "_"]
        bound = [each for each in dict.fromkeys(bound) if not each.startswith(self._p)]
        reads: list[tuple[tuple[str, ...], ReadStatement]] = []
        local: list[str] = []
        given = _listed(params)
        for number, step in enumerate(steps):
            slots = Slots()
            read = step.plan(slots, (*bound, *local))
            part = f"{name}_{number}"
            before = "".join(f"{each.source}\n" for each in steps[:number])
            ends = f"[[{', '.join(['0', *local])}] |\n{before}count([1 |\n{step.source}\n]) == 0\n]"
            self._write(module, f"{part}_b{given} := array.slice({ends}, 0, {FAILURES_MAX})")
            taken = "".join(f"\n\t{each} := {self._p}s[{place}]" for place, each in enumerate(local, 1))
            shown = ", ".join(self._show(each) for each in (*bound, *local))
            seen = f"some {self._p}s in {part}_b{given}{taken}\n\t{self._p}n := [{shown}]{slots.assigned(self._p)}"
            result = f"[{self._p}n, {slots.listed(self._p)}]"
            self._write(module, f"{part}{given} := [{result} |\n\t{seen}\n]")
            reads.append(((*bound, *local), read))
            local += step.binds
        asked = _listed(f"{self._p}q{number}" for number in range(len(args)))
        listed = "".join(f"\n\t[{self._p}v | {self._p}v := {name}_{number}{asked}]," for number in range(len(steps)))
        self._write(module, f"{name}{asked} := [{listed}\n]")
        return WayPlan(clause, call, len(args), tuple(reads), guarded=guarded)

    # ---------- statements

    def _step(self, module: Module, statement: Node) -> _Step:
        def plan(slots: Slots, scope: Sequence[str]) -> ReadStatement:
            return self._statement(module, statement, slots, scope, holds=False)

        return _Step(module.source(statement.span), tuple(variables(statement)), plan)

    def _value_step(self, module: Module, value: Node) -> _Step:
        """The value of a rule as its last statement: the rule does not hold where that is false or undefined."""
        about = About(value.line, one_line(module, value.span), holds=False)

        def plan(slots: Slots, _: Sequence[str]) -> ReadStatement:
            return self._expression(module, value, slots, about)

        return _Step(module.source(value.span), (), plan)

    def _guard_step(self, module: Module, key: Node, asked: str) -> _Step:
        text = f"{one_line(module, key.span)} is what is asked for"

        def plan(slots: Slots, _: Sequence[str]) -> ReadStatement:
            terms = (
                self._terms.term(module, key, slots),
                self._terms.shown("the element that is asked for", asked, slots),
            )
            return reader(module, About(key.line, text, holds=False), "compare", terms)

        return _Step(f"{module.source(key.span)} == {asked}", (), plan)

    def _statement(
        self, module: Module, statement: Node, slots: Slots, scope: Sequence[str], *, holds: bool
    ) -> ReadStatement:
        negated = statement.kind == "NotExpr"
        about = About(statement.line, _text(module, statement), holds, negated, tuple(scope))
        expr = statement.part("expr")
        if expr is not None:
            return self._expression(module, expr, slots, about)
        return (self._every if statement.kind == "Every" else self._some)(module, statement, slots, about)

    def _expression(self, module: Module, expr: Node, slots: Slots, about: About) -> ReadStatement:
        """Why an expression is true, or is not. Rules that it asks are looked into only where they do not hold."""
        asked: Asked | None = None
        kind: Kind = "value"
        terms: Sequence[Node] = (expr,)
        match expr.kind:
            case "BoolExpr":
                kind, terms = "compare", (*expr.all("lhs"), *expr.all("rhs"))
            case "Membership":
                kind, terms = "member", (*expr.all("key"), *expr.all("value"), *expr.all("collection"))
                if about.looks_into:
                    asked = self._member(module, expr.part("collection"), expr.part("value"), slots)
            case "AssignExpr":
                kind, terms = "assign", expr.all("rhs")
            case "Call":
                kind, terms = "call", expr.all("params")
                if self._clauses.full_name(module, expr.part("fcn")):
                    kind, asked = "ask", self._asked(module, expr, slots) if about.looks_into else None
            case "Var" | "RefDot" | "RefBrack":
                asked = self._asked(module, expr, slots) if about.looks_into else None
                kind, terms = ("value", (expr,)) if asked is None else ("ask", ())
            case _:
                pass
        if asked is None and about.looks_into:
            asked = self._undefined(module, terms, slots)
        read = tuple(self._terms.term(module, term, slots) for term in terms)
        return reader(module, about, kind, read, asked, operator=_OPERATORS.get(expr.text, ""))

    def _some(self, module: Module, statement: Node, slots: Slots, about: About) -> ReadStatement:
        collection, value = statement.part("collection"), statement.part("value")
        if collection is None:
            return reader(module, about, "some", ())
        asked: Asked | None = None
        if not about.holds:
            asked = self._undefined(module, (collection,), slots)
        elif value is not None and value.kind == "Var":
            place = self._lacking_from(module, collection, _CHAIN_MAX)
            asked = None if place is None else self._member(*place, value, slots)
        return reader(module, about, "some", (self._terms.term(module, collection, slots),), asked)

    def _lacking_from(self, module: Module, node: Node, depth: int) -> tuple[Module, Node] | None:
        """Of a set of what another one lacks, ``all - other``: that other one, and the module that says so."""
        if node.kind == "ArithExpr" and node.text == "Sub":
            left, right = node.part("lhs"), node.part("rhs")
            if left is None or right is None or self._clauses.of(self._clauses.full_name(module, right), "set"):
                return None if right is None else (module, right)
            return self._lacking_from(module, left, depth - 1) if depth else None
        found = self._clauses.of(self._clauses.full_name(module, node), "complete")
        if len(found) != 1 or not depth:
            return None
        other, rule = found[0]
        return None if rule.value is None else self._lacking_from(other, rule.value, depth - 1)

    def _every(self, module: Module, statement: Node, slots: Slots, about: About) -> ReadStatement:
        """For what elements it fails. Its body is a clause of its own, called with everything that it can see."""
        domain, query = statement.part("domain"), statement.part("query")
        if domain is None or query is None:  # pragma: no cover - the parser gives both
            raise ValueError("an every without a domain or a body")
        read = (self._terms.term(module, domain, slots),)
        if about.holds:
            return reader(module, about, "every", read)
        p = self._p
        names = [node.text for node in (*statement.all("key"), *statement.all("value"))]
        inner = [name for name in names if name != "_"]
        steps = [self._step(module, item) for item in statements(query)]
        plan = self._way(module, Clause(module.name, about.line, "every"), (*about.scope, *inner), steps)
        body = "\n".join(module.source(item.span) for item in statements(query))
        ends = f"[[{', '.join(['0', *inner])}] | some {', '.join(names)} in ({module.source(domain.span)}); "
        ends = f"array.slice({ends}count([1 |\n{body}\n]) == 0], 0, {FAILURES_MAX})"
        given = _listed([*about.scope, *(f"{p}e[{number}]" for number in range(1, len(inner) + 1))])
        place = slots.add(f"[{p}lib.packed({p}v) | some {p}e in {ends}; {p}v := {plan.call}{given}]")

        def ways(answers: Answers) -> tuple[Way, ...]:
            found = (plan.read(unpacked(item)) for item in items(answers[place]))
            return tuple(way for way in found if way is not None)

        return reader(module, about, "every", read, Asked("", ways))

    # ---------- rules that are asked

    def _asked(self, module: Module, expr: Node, slots: Slots, *, guard: str = "") -> Asked | None:
        """The ways of the rule that ``expr`` asks, if it asks one; with ``guard``, statements that must hold before."""
        if expr.kind == "RefBrack":
            return self._member(module, expr.part("refr"), expr.part("index"), slots)
        node = expr.part("fcn") if expr.kind == "Call" else expr
        name = self._clauses.full_name(module, node)
        if not self._clauses.of(name, "complete", "function"):
            return None
        args = [module.source(param.span) for param in expr.all("params")]
        return self._calls(name, self.ways(name), args, slots, guard)

    def _member(self, module: Module, collection: Node | None, element: Node | None, slots: Slots) -> Asked | None:
        """The ways into the set that ``collection`` names, if it names one, for the element."""
        name = self._clauses.full_name(module, collection)
        if element is None or not self._clauses.of(name, "set"):
            return None
        # NOTE: an element is only ever a name or an expression of the statement's own module.
        text = element.text if element.kind == "Var" else module.source(element.span)
        return self._calls(name, self.member_ways(name), [text], slots, "")

    def _calls(
        self, name: str, plans: tuple[WayPlan, ...], args: Sequence[str], slots: Slots, guard: str
    ) -> Asked | None:
        p = self._p
        places: list[tuple[WayPlan, int]] = []
        for plan in plans:
            if plan.takes == len(args):
                call = f"{plan.call}({', '.join(args)})" if args else plan.call
                places.append((plan, slots.add(f"[{p}lib.packed({p}v) | {guard}{p}v := {call}]")))

        def ways(answers: Answers) -> tuple[Way, ...]:
            found = (plan.read(unpacked(first(answers[place]))) for plan, place in places if answers[place])
            return tuple(way for way in found if way is not None)

        module, rule = self._clauses.of(name)[0]
        return Asked(self._clauses.clause(module, rule).name, ways)

    def _undefined(self, module: Module, terms: Sequence[Node], slots: Slots) -> Asked | None:
        """The ways of the first of ``terms`` that asks a rule; to be looked into where that has no value."""
        for term in terms:
            if term.kind in ("Call", "Var", "RefDot"):
                guard = f"count([1 | {self._p}u := ({module.source(term.span)})]) == 0; "
                asked = self._asked(module, term, slots, guard=guard)
                if asked is not None:
                    return asked
        return None

    # ---------- writing

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{self._p}{kind}{self._number}"

    def _write(self, module: Module, text: str) -> None:
        self.written.append(Written(module, "", text))

    def _show(self, name: str) -> str:
        return f"{self._p}lib.show({name})"

    def _param(self, module: Module, arg: Node | str, number: int) -> str:
        if isinstance(arg, str):
            return arg
        return f"{self._p}a{number}" if _is_any(arg) else module.source(arg.span)

    def _clause(self, module: Module, rule: Rule, body: Node | None) -> Clause:
        """The clause; of an ``else``, at the line of that."""
        clause = self._clauses.clause(module, rule)
        is_else = body is not None and body is not rule.bodies[0]
        return Clause(clause.module, body.line, clause.name) if is_else and body is not None else clause


def _text(module: Module, statement: Node) -> str:
    """The statement as written, on one line; a block's own statements with semicolons between them."""
    query = statement.part("query")
    if query is None:
        return one_line(module, statement.span)
    inside = "; ".join(_text(module, item) for item in statements(query))
    return f"{one_line(module, (statement.span[0], query.span[0]))} {{ {inside} }}"


def _names(arg: Node | str) -> list[str]:
    return [] if isinstance(arg, str) else [node.text for node in arg.walk() if node.kind == "Var"]


def _is_any(arg: Node | str) -> bool:
    """An argument that is not looked at."""
    return not isinstance(arg, str) and arg.kind == "Var" and arg.text == "_"


def _listed(names: Iterable[str]) -> str:
    """Arguments in brackets; nothing for none."""
    joined = ", ".join(names)
    return f"({joined})" if joined else ""
