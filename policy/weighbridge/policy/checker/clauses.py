"""The checks C2 to C8 on one clause of a rule; :mod:`weighbridge.policy.checker` says what each is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weighbridge.policy.checker.functions import ALLOWED
from weighbridge.policy.checker.scope import Packages, Scope, Unknown, bound_in_body, dotted, member, step
from weighbridge.policy.checker.syntax import Module, Node, Rule

__all__ = ["CheckerFinding", "check_clause", "data_path"]

_REFERENCE_MEMBERS: Final = frozenset({"schema", "models", "gpu_measurements", "unchecked", "hosts"})
_LITERALS: Final = frozenset({"String", "RawString", "Number", "Bool", "Null", "Array", "Set", "Object"})
_NAMESPACES: Final = frozenset(name.split(".")[0] for name in ALLOWED)
_NOT_EMPTY: Final = frozenset({("Gt", "0"), ("Ge", "1")})


@dataclass(frozen=True, slots=True, order=True)
class CheckerFinding:
    """Why a policy is not accepted, where, and what to write instead."""

    module: str
    line: int
    check: str
    message: str
    hint: str


def check_clause(packages: Packages, module: Module, rule: Rule) -> list[CheckerFinding]:
    """What there is against one clause."""
    return _Clause(packages, module, rule).findings()


def data_path(packages: Packages, path: str) -> str:
    """Why ``data.<path>`` leads nowhere; empty if it does lead somewhere."""
    first, *rest = path.split(".")
    if first == "author":
        return ""
    if first == "reference":
        known = not rest or rest[0] in _REFERENCE_MEMBERS
        return "" if known else f"the reference values have no {rest[0]}"
    return "" if packages.below(path) else f"data.{path} does not exist"


class _Clause:
    def __init__(self, packages: Packages, module: Module, rule: Rule) -> None:
        self.packages: Packages = packages
        self.module: Module = module
        self.rule: Rule = rule
        self.scope: Scope = Scope(packages, module, rule)
        self.found: list[CheckerFinding] = []

    def findings(self) -> list[CheckerFinding]:
        taken = self.scope.names | self.module.imports.keys() | {"input", "data"}
        for name in sorted(self.scope.locals.keys() & taken):
            self.add(
                self.rule, "C8", f"{name} is a rule or an import as well as a variable", hint="choose another name"
            )
        if self.rule.name.split(".")[0] in _NAMESPACES | {"input", "data"} | self.module.imports.keys():
            self.add(self.rule, "C8", f"{self.rule.name} has another meaning already", hint="choose another name")
        for node in self.rule.walk():
            self.node(node)
        self.head()
        return self.found

    def add(self, at: Node | Rule, number: str, message: str, *, hint: str = "") -> None:
        self.found.append(CheckerFinding(self.module.name, at.line, number, message, hint))

    def node(self, node: Node) -> None:
        match node.kind:
            case "Call":
                self.call(node)
            case "NotExpr":
                self.negation(node)
            case "BoolExpr" if node.text == "Ne":
                self.unequal(node)
            case "AssignExpr" if node.text != "ColEq":
                self.add(node, "C8", "= both compares and binds", hint="write == or :=")
            case "Query":
                self.every(node)
            case "With":
                self.add(node, "C8", "with replaces input or data", hint="keep it to tests")
            case "SomeVars":
                self.add(node, "C8", "some without in binds nothing", hint="write some x in …, or some i, _ in …")
            case "Var":
                self.variable(node)
            case "RefDot" | "RefBrack":
                self.path(node)
            case _:
                pass

    def variable(self, node: Node) -> None:
        known = (self.scope.locals, self.scope.names, self.module.imports, ("input", "data", "_"), _NAMESPACES)
        if not any(node.text in names for names in known):
            self.add(node, "C7", f"{node.text} is not bound anywhere", hint="bind it with := or some … in")

    def call(self, node: Node) -> None:
        name = self.scope.full_name(node.part("fcn"))
        arity = ALLOWED[name] if name in ALLOWED else self.packages.arity(name)
        given = len(node.all("params"))
        if arity is None:
            self.add(
                node,
                "C2",
                f"{name or 'this'} is not a function here",
                hint="call an allowed builtin or a function of yours",
            )
        elif arity != given:
            self.add(node, "C2", f"{name} takes {arity} arguments, not {given}")
        elif name == "object.get":
            self.lookup(node)

    def lookup(self, call: Node) -> None:
        """``object.get`` has a default, which would hide a member that never exists."""
        holder, key, _ = call.all("params")
        shape = self.scope.shape(holder)
        for name in key.all("items") if key.kind == "Array" else (key,):
            if isinstance(shape, dict) and name.kind in ("String", "RawString") and name.text not in shape:
                self.add(call, "C7", f"the input has no {name.text} here", hint=f"one of: {', '.join(shape)}")
            shape = step(shape, name.text if name.kind in ("String", "RawString") else None)

    def negation(self, node: Node) -> None:
        for inner in node.walk():
            if inner.kind == "Var" and inner.text == "_":
                self.add(node, "C3", "an index without a name under not", hint="say which: some x in …; not f(x)")
            if inner.kind not in ("Call", "Membership"):
                continue
            args = [part for role, part in inner.parts if role != "fcn"]
            if not all(self.scope.total(part) for arg in args for part in arg.walk()):
                self.add(
                    node,
                    "C3",
                    f"a {inner.kind.lower()} under not takes something that may be undefined",
                    hint="bind it before: x := …; not f(x)",
                )

    def unequal(self, node: Node) -> None:
        for side in (node.part("lhs"), node.part("rhs")):
            if side is None or not isinstance(self.scope.shape(side), Unknown):
                continue
            if not all(self.scope.total(part) for part in side.walk()):
                self.add(
                    node, "C5", "an operand of != may be undefined, and != is then not true", hint="write not a == b"
                )

    def every(self, query: Node) -> None:
        guards = [_shown(guard) for guard in map(_count_guard, query.all("statement")) if guard is not None]
        for statement in query.all("statement"):
            domain = statement.part("domain")
            if domain is None or (domain.kind in ("Array", "Set") and domain.parts):
                continue
            if _shown(domain) not in guards:
                self.add(
                    statement,
                    "C6",
                    "every holds for an empty collection",
                    hint="write before it: count(collection) > 0",
                )

    def head(self) -> None:
        if self.rule.kind not in ("set", "object"):
            return
        for body in self.rule.bodies or (None,):
            bound = bound_in_body(body)
            nodes = [node for head in (self.rule.key, self.rule.value) if head is not None for node in head.walk()]
            if not all(node.kind in _LITERALS or (node.kind == "Var" and node.text in bound) for node in nodes):
                self.add(
                    self.rule,
                    "C4",
                    f"the head of {self.rule.name} is neither a literal nor bound in the body",
                    hint="bind it in the body: x := …, and write x in the head",
                )

    def path(self, node: Node) -> None:
        refr = node.part("refr")
        shape = None if refr is None else self.scope.shape(refr)
        name = member(node)
        if isinstance(shape, dict):
            if name is None:
                self.add(node, "C7", "the input's members have fixed names", hint=f"one of: {', '.join(shape)}")
            elif name not in shape:
                self.add(node, "C7", f"the input has no {name} here", hint=f"one of: {', '.join(shape)}")
        elif shape is None or (isinstance(shape, tuple) and name is not None):
            self.add(node, "C7", f"the input has no {name or 'element'} inside a {'list' if shape else 'scalar'}")
        parts = dotted(node)
        full = self.scope.full_name(node)
        if parts and parts[0] not in self.scope.locals and (parts[0] == "data" or parts[0] in self.module.imports):
            wrong = "" if full.startswith("input.") else data_path(self.packages, full)
            if wrong:
                self.add(node, "C7", wrong, hint="reference values are under data.reference")
        elif parts and parts[0] in self.scope.names and not self.packages.below(full):
            self.add(node, "C7", f"{full} does not exist")


def _count_guard(statement: Node) -> Node | None:
    """The collection of a statement ``count(collection) > 0`` or ``>= 1``."""
    expr = statement.part("expr") if statement.kind == "Expr" else None
    if expr is None or expr.kind != "BoolExpr":
        return None
    left, right = expr.part("lhs"), expr.part("rhs")
    if left is None or right is None or left.kind != "Call" or dotted(left.part("fcn")) != ["count"]:
        return None
    return left.part("params") if right.kind == "Number" and (expr.text, right.text) in _NOT_EMPTY else None


def _shown(node: Node) -> tuple[object, ...]:
    """The node without its place, for comparing two expressions."""
    return (node.kind, node.text, tuple((role, _shown(part)) for role, part in node.parts))
