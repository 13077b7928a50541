"""What engines read otherwise than authors mean, in one clause of a rule: names, calls, ``not``, ``!=``, ``every``."""

from __future__ import annotations

from typing import Final

from weighbridge.policy.checker.bindings import REFERENCES, bound_in_body, dotted, unbound
from weighbridge.policy.checker.calls import check_call
from weighbridge.policy.checker.findings import CheckerFinding
from weighbridge.policy.checker.functions import BUILTINS
from weighbridge.policy.checker.hoisted import hoisted, missing
from weighbridge.policy.checker.names import Scope, index_of
from weighbridge.policy.checker.notes import Notes, shown
from weighbridge.policy.checker.shapes import NOTHING, element
from weighbridge.policy.checker.spelling import nearest
from weighbridge.policy.checker.syntax import Node

__all__ = ["check_clause", "guarded"]

_LITERALS: Final = frozenset({"String", "RawString", "Number", "Bool", "Null", "Array", "Set", "Object"})
_DENIAL: Final = "weighbridge.lib.denial"
_MADE: Final = ("concat", "json.marshal", "sprintf")
_REPLACED: Final = ("input", "data.reference", "data.author", "data.examples")


def check_clause(scope: Scope, *, test: bool) -> list[CheckerFinding]:
    """What there is against one clause, of a test module or of a policy."""
    return _Clause(scope, test=test).findings()


class _Clause:
    def __init__(self, scope: Scope, *, test: bool) -> None:
        self.scope: Scope = scope
        self.test: bool = test
        self.library: bool = scope.module.name == scope.packages.library
        self.notes: Notes = Notes(scope.module)
        nodes = scope.nodes
        called = [node.part("fcn") for node in nodes if node.kind == "Call"]
        # Of a path only the whole is looked at; a function's name is looked at with its call.
        self.functions: set[int] = {id(part) for fcn in called if fcn is not None for part in fcn.walk()}
        # What = may bind is said of the =.
        unified = [node for node in nodes if node.kind == "AssignExpr" and node.text != "ColEq"]
        self.unified: set[str] = {part.text for node in unified for part in node.walk() if part.kind == "Var"}
        self.inner: set[int] = {id(node.part("refr")) for node in nodes if node.kind == "RefDot" and dotted(node)}

    def findings(self) -> list[CheckerFinding]:
        rule = self.scope.rule
        self.taken()
        for node in self.scope.nodes:
            self.node(node)
        for node in unbound(rule, self.scope.nodes):
            hint = "bind it in the same body, by := or some … in"
            self.notes.add(node, "unbound", f"{node.text} is not bound here, only inside another expression", hint=hint)
        for body in rule.bodies:
            self.every(body, frozenset())
        self.head()
        return self.notes.found

    def taken(self) -> None:
        scope, rule = self.scope, self.scope.rule
        others = {"input", "data", *scope.module.imports}
        for name, found in scope.locals.items():
            if name in others or name in scope.names:
                what = (
                    "a rule" if name in scope.names else "an import" if name in scope.module.imports else "a document"
                )
                message = f"{name} is a variable here, and {what} as well"
                self.notes.add(found[0].at, "name-taken", message, hint=f"call the variable another name: {name}_")
        first = rule.name.split(".")[0]
        if first in BUILTINS or first in others:
            what = "a builtin" if first in BUILTINS else "an import" if first in scope.module.imports else "a document"
            message = f"the rule {rule.name} has the name of {what}"
            self.notes.add(rule.span, "name-taken", message, hint="call the rule another name")

    def node(self, node: Node) -> None:
        match node.kind:
            case "Call":
                check_call(self.scope, self.notes, node, test=self.test)
                self.denial(node)
            case "NotExpr":
                self.negation(node)
            case "BoolExpr" if node.text == "Ne":
                self.unequal(node)
            case "AssignExpr" if node.text != "ColEq":
                left, right = (self.notes.text(part) for _, part in node.parts)
                hint = f"{left} == {right} to compare, {left} := {right} to bind"
                self.notes.add(node, "unify", "= both compares and binds", hint=hint)
            case "With":
                self.replaced(node)
            case "SomeVars":
                names = ", ".join(part.text for part in node.all("value"))
                self.notes.add(node, "some-unbound", f"some {names} binds nothing", hint=f"some {names} in …")
            case "SomeIn" | "Every":
                self.elements(node)
            case "Var":
                self.variable(node)
            case "RefDot" | "RefBrack":
                self.path(node)
            case _:
                pass

    def denial(self, node: Node) -> None:
        if self.scope.full_name(node.part("fcn")) != _DENIAL or self.test or self.library:
            return
        params = [self.words(param) for param in node.all("params")]
        loose = next((part for param in params for part in missing(self.scope, param)), None)
        if loose is not None:
            message = f"the denial takes {self.notes.text(loose)}, which may be undefined"
            held, name = loose.part("refr"), index_of(loose) if loose.kind in REFERENCES else None
            hint = "" if held is None or name is None else f'object.get({self.notes.text(held)}, "{name}", null)'
            self.notes.add(node, "denial-maybe-undefined", message, hint=hint)

    def words(self, node: Node) -> Node:
        """The expression behind a name that is given to text in a line of its own, which is no condition."""
        source = self.scope.source(node)
        made = source.kind == "Call" and self.scope.full_name(source.part("fcn")) in _MADE
        return source if made else node

    def elements(self, node: Node) -> None:
        source = node.part("collection") or node.part("domain")
        place = element(self.scope.place(source)) if source is not None else NOTHING
        if source is not None and place.wrong:
            self.notes.add(source, "path-unknown", place.wrong, hint=place.hint)

    def variable(self, node: Node) -> None:
        scope = self.scope
        named = (scope.locals, scope.names, scope.module.imports, ("input", "data", "_"))
        if any(node.text in names for names in named):
            self.path(node)
        elif id(node) not in self.functions and node.text not in self.unified:
            meant = nearest(node.text, {name for names in named[:3] for name in names} | {"input", "data"})
            hint = f"did you mean {meant}?" if meant else "bind it with := or some … in"
            self.notes.add(node, "unbound", f"{node.text} is not bound anywhere", hint=hint)

    def path(self, node: Node) -> None:
        if id(node) in self.functions or id(node) in self.inner:
            return
        place = self.scope.place(node)
        if place.wrong:
            self.notes.add(node, "path-unknown", place.wrong, hint=place.hint)

    def replaced(self, node: Node) -> None:
        target = ".".join(dotted(node.part("target")))
        if not self.test:
            self.notes.add(node, "with", "with replaces what a policy judges by")
        elif not any(target == name or target.startswith(f"{name}.") for name in _REPLACED):
            self.notes.add(
                node, "with", f"with replaces {target or 'this'}", hint=f"replace one of: {', '.join(_REPLACED)}"
            )

    def negation(self, node: Node) -> None:
        expr = node.part("expr")
        for inner in () if expr is None else expr.walk():
            if inner.kind == "RefBrack" and (index := inner.part("index")) is not None and index.text == "_":
                listed = self.notes.text(inner).removesuffix("[_]")
                hint = f"some x in {listed}; {self.notes.text(node).replace(self.notes.text(inner), 'x')}"
                self.notes.add(node, "not-wildcard", "an index without a name stands under not", hint=hint)
            if inner.kind not in ("Call", "Membership"):
                continue
            args = [part for role, part in inner.parts if role != "fcn"]
            loose = next((arg for arg in args if not self.scope.total(arg)), None)
            if loose is not None:
                self.notes.add(node, *self.maybe_undefined(inner, loose), hint=self.bound_before(node, loose))
        loose = None if expr is None else hoisted(self.scope, expr)
        if loose is not None:
            self.notes.add(node, *self.maybe_undefined(None, loose), hint=self.bound_before(node, loose))

    def maybe_undefined(self, inner: Node | None, loose: Node) -> tuple[str, str]:
        fcn = None if inner is None else inner.part("fcn")
        other = "the expression" if inner is None else "the membership"
        what = f"the call of {self.notes.text(fcn)}" if fcn is not None else other
        return "not-maybe-undefined", f"{what} under not takes {self.notes.text(loose)}, which may be undefined"

    def bound_before(self, node: Node, loose: Node) -> str:
        """What to write: a name for what is always there; for anything else a rule that holds only where it is."""
        whole, part = self.notes.whole(node), self.notes.whole(loose)
        if not self.scope.place(loose).sure:
            names = dict.fromkeys(each.text for each in node.walk() if each.kind == "Var")
            given = ", ".join(name for name in names if name in self.scope.locals)
            rule = f"ok({given})" if given else "ok"
            return f"{rule} if {whole.removeprefix('not ')}, as a rule of its own; here: not {rule}"
        name = _name_for(loose, {*self.scope.locals, *self.scope.names, *self.scope.module.imports, *BUILTINS})
        rest = whole.replace(part, name, 1)
        return f"{name} := {part}; {rest}" if rest != whole else f"{name} := {part}; not …"

    def unequal(self, node: Node) -> None:
        for side, other in (("lhs", "rhs"), ("rhs", "lhs")):
            part, beside = node.part(side), node.part(other)
            if part is None or beside is None or self.scope.place(part).sure:
                continue
            if not self.scope.total(part):
                message = f"{self.notes.text(part)} may be undefined, and != is then not true"
                left, right = (part, beside) if side == "lhs" else (beside, part)
                self.notes.add(
                    node,
                    "unequal-maybe-undefined",
                    message,
                    hint=f"not {self.notes.whole(left)} == {self.notes.whole(right)}",
                )

    def every(self, query: Node, around: frozenset[tuple[object, ...]]) -> None:
        """``every`` in ``query`` and below it; ``around`` is what the bodies that it stands in say is not empty."""
        statements = query.all("statement")
        full = around | {_full(statement) for statement in statements}
        for statement in statements:
            domain = statement.part("domain")
            if domain is not None and not (domain.kind in ("Array", "Set") and domain.parts):
                text = self.notes.text(domain)
                if shown(domain) not in full:
                    message = f"every holds where {text} is empty"
                    self.notes.add(
                        statement, "every-maybe-empty", message, hint=f"count({text}) > 0 in a line before it"
                    )
            for inner in _queries(statement):
                self.every(inner, full)

    def head(self) -> None:
        rule = self.scope.rule
        if rule.kind not in ("set", "object"):
            return
        for body in rule.bodies or (None,):
            bound = bound_in_body(body)
            for part in (rule.key, rule.value):
                loose = None if part is None else _loose(part, bound)
                # A variable that is not bound is a finding of its own.
                if loose is None or (loose.kind == "Var" and not self.scope.outside(loose)):
                    continue
                name = _name_for(loose, {*self.scope.locals, *self.scope.names, *self.scope.module.imports, *BUILTINS})
                message = f"the head of {rule.name} takes {self.notes.text(loose)}, which the body does not bind"
                self.notes.add(
                    rule.span,
                    "head-unbound",
                    message,
                    hint=f"{name} := {self.notes.text(loose)} in the body, {name} in the head",
                )
                break


def guarded(collection: Node, statements: tuple[Node, ...]) -> bool:
    """Whether one of the statements says that ``collection`` is not empty."""
    wanted = shown(collection)
    return any(_full(statement) == wanted for statement in statements)


def _full(statement: Node) -> tuple[object, ...]:
    """What the statement says is not empty, as :func:`shown` has it; nothing where it says so of nothing."""
    if statement.kind == "SomeIn":
        source = statement.part("collection")
        return () if source is None else shown(source)
    expr = statement.part("expr") if statement.kind == "Expr" else None
    if expr is None or expr.kind != "BoolExpr":
        return ()
    left, right, operator = expr.part("lhs"), expr.part("rhs"), expr.text
    if left is not None and left.kind == "Number":
        left, right, operator = right, left, {"Lt": "Gt", "Le": "Ge"}.get(operator, operator)
    if left is None or right is None or right.kind != "Number" or right.text.startswith("-"):
        return ()
    counted = left.part("params") if left.kind == "Call" and dotted(left.part("fcn")) == ["count"] else None
    if counted is None or operator not in (("Gt", "Ne") if right.text == "0" else ("Gt", "Ge", "Eq")):
        return ()
    return shown(counted)


def _queries(node: Node) -> list[Node]:
    """The bodies directly inside ``node``: of ``every`` and of comprehensions."""
    found: list[Node] = []
    for _, part in node.parts:
        found += [part] if part.kind == "Query" else _queries(part)
    return found


def _loose(head: Node, bound: set[str]) -> Node | None:
    """The first expression in a head that is neither a literal nor bound."""
    if head.kind == "Var":
        return None if head.text in bound else head
    if head.kind not in _LITERALS:
        return head
    return next((loose for _, part in head.parts if (loose := _loose(part, bound)) is not None), None)


def _name_for(node: Node, taken: set[str]) -> str:
    """A variable's name for what ``node`` gives."""
    while node.kind in ("Call", "RefBrack"):
        inner = node.part("params") or node.part("refr")
        if inner is None:
            break
        node = inner
    name = node.text.lower() if node.kind in (*REFERENCES, "Var") and node.text.isidentifier() else "value"
    return name if name not in taken else f"{name}_"
