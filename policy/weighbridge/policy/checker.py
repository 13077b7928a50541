"""Static checks on a policy: what an engine would accept and then read differently from what its author means.

Every check here closes a way in which a policy can be *more* permissive than it reads:

====  ==================================================================================================================
C1    the package is ``weighbridge.policy`` (the library's: ``weighbridge.lib``); ``default allow := false`` stands exactly once,
      ``allow`` is a complete rule and ``deny`` a set: a policy without them has no safe answer
C2    every function called is a rule of this policy, of the library, or an allowed builtin, with the right number of
      arguments: engines notice an unknown one only when they reach it
C3    under ``not`` no call and no membership takes a reference that may be undefined: OPA then calls the whole expression
      undefined, regorus calls it true (open-policy-agent/opa#8387)
C4    the key of a partial set or object is made of literals and of names bound before by ``:=`` or ``some … in``:
      regorus loses the *whole* set when the head is undefined for the last element
C5    ``!=`` has no operand that may be undefined: it is then not true
C6    ``every`` stands beside ``count(…) > 0`` of the same collection: it holds for an empty one
C7    ``input.…`` and ``data.…`` lead to something that exists; every variable is bound
C8    no name is given twice meanings (rule, import, local), no ``with``, no ``=``, no recursion
====  ==================================================================================================================

Not checked: types of values, references through function arguments, whether the rules are wise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from weighbridge.policy.functions import ALLOWED
from weighbridge.policy.document import Schema, schema
from weighbridge.policy.syntax import Module, Node, Rule

__all__ = ["AUTHOR_PACKAGE", "LIBRARY_PACKAGE", "OPTIONAL_RULES", "CheckerFinding", "check", "rule_names"]

AUTHOR_PACKAGE: Final = "weighbridge.policy"
LIBRARY_PACKAGE: Final = "weighbridge.lib"
OPTIONAL_RULES: Final = ("unchecked", "warnings")
"""Sets that a policy may define beside ``deny``, and that the decision then carries."""

_REFERENCE: Final = frozenset({"schema", "models", "gpu_measurements", "unchecked"})
_REFS: Final = frozenset({"RefDot", "RefBrack"})
_ENTRY: Final = {"allow": "complete", "deny": "set", "unchecked": "set", "warnings": "set"}


@dataclass(frozen=True, slots=True, order=True)
class CheckerFinding:
    """Why a policy is not accepted, where, and what to write instead."""

    module: str
    line: int
    check: str
    message: str
    hint: str


def check(modules: tuple[Module, ...], library: str) -> tuple[CheckerFinding, ...]:
    """Every finding, in order of module and line; empty for a policy that may be loaded.

    Args:
        modules: the whole set.
        library: the name of the module that is the shipped library.
    """
    packages = _Packages(modules)
    found = list(_entry_points(modules, library))
    for module in modules:
        for rule in module.rules:
            found += _RuleCheck(packages, module, rule).findings()
    found += _recursion(packages)
    return tuple(sorted(set(found)))


def rule_names(modules: tuple[Module, ...]) -> frozenset[str]:
    """The names of the author's rules."""
    return frozenset(rule.name for module in modules if module.package == AUTHOR_PACKAGE for rule in module.rules)


class _Packages:
    """All rules by full name, so that a name in one module is known in another of the same package."""

    def __init__(self, modules: tuple[Module, ...]) -> None:
        self.modules: tuple[Module, ...] = modules
        self.rules: dict[str, list[tuple[Module, Rule]]] = {}
        for module in modules:
            for rule in module.rules:
                self.rules.setdefault(f"{module.package}.{rule.name}", []).append((module, rule))

    def names(self, package: str) -> frozenset[str]:
        prefix = f"{package}."
        return frozenset(name.removeprefix(prefix).split(".")[0] for name in self.rules if name.startswith(prefix))

    def arity(self, name: str) -> int | None:
        for _, rule in self.rules.get(name, []):
            if rule.args:
                return len(rule.args)
        return None


def _entry_points(modules: tuple[Module, ...], library: str) -> Iterator[CheckerFinding]:
    for module in modules:
        wanted = LIBRARY_PACKAGE if module.name == library else AUTHOR_PACKAGE
        if module.package != wanted:
            yield CheckerFinding(module.name, 1, "C1", f"package {module.package} is not the author's", f"write: package {wanted}")
    author = [(module, rule) for module in modules if module.package == AUTHOR_PACKAGE for rule in module.rules]
    first = next((module.name for module in modules if module.name != library), library)
    for module, rule in author:
        kind = _ENTRY.get(rule.name)
        if kind is not None and rule.kind not in (kind, "default"):
            hint = "write: allow if { … }" if rule.name == "allow" else f"write: {rule.name} contains x if {{ …; x := … }}"
            yield CheckerFinding(module.name, rule.line, "C1", f"{rule.name} is not a {kind} rule", hint)
        if rule.name == "allow" and rule.kind != "default" and not _only_true(rule):
            yield CheckerFinding(module.name, rule.line, "C1", "allow has another value than true", "write: allow if { … }")
    defaults = [rule for _, rule in author if rule.kind == "default" and rule.name == "allow"]
    if len(defaults) != 1 or not _is_false(defaults[0].value):
        yield CheckerFinding(first, 1, "C1", "default allow := false is missing or not alone", "write it once: default allow := false")
    if not any(rule.name == "deny" and rule.kind == "set" for _, rule in author):
        yield CheckerFinding(first, 1, "C1", "there is no deny", "write: deny contains denial if { …; denial := lib.denial(…) }")
    for module in modules:
        names = [rule.name for rule in module.rules if rule.kind == "default"]
        for rule in module.rules:
            if rule.kind == "default" and names.count(rule.name) > 1:
                yield CheckerFinding(module.name, rule.line, "C1", f"default {rule.name} stands twice", "keep one")


def _is_false(node: Node | None) -> bool:
    return node is not None and node.kind == "Bool" and node.text == "false"


def _only_true(rule: Rule) -> bool:
    values = [rule.value, *(value for body in rule.bodies for value in body.all("value"))]
    return all(value is None or (value.kind == "Bool" and value.text == "true") for value in values)


class _RuleCheck:
    """The checks of one clause. Locals are known by name, which is exact because C8 refuses shadowing."""

    def __init__(self, packages: _Packages, module: Module, rule: Rule) -> None:
        self.packages: _Packages = packages
        self.module: Module = module
        self.rule: Rule = rule
        self.names: frozenset[str] = packages.names(module.package)
        self.locals: dict[str, Schema | _Unknown] = {name: UNKNOWN for name in _bound(rule)}
        self.found: list[CheckerFinding] = []

    def findings(self) -> list[CheckerFinding]:
        self._check_names()
        for node in self.rule.walk():
            if node.kind == "Query":
                self._infer(node)
        for node in self.rule.walk():
            self._check_node(node)
        for node in (*self.rule.args, self.rule.key, self.rule.value, *self.rule.bodies):
            if node is not None:
                self._check_paths(node)
        self._check_head()
        return self.found

    def _add(self, line: int, number: str, message: str, hint: str) -> None:
        self.found.append(CheckerFinding(self.module.name, line, number, message, hint))

    def _check_names(self) -> None:
        taken = self.names | self.module.imports.keys() | {"input", "data"}
        for name in sorted(self.locals.keys() & taken):
            self._add(self.rule.line, "C8", f"{name} is a rule or an import as well as a variable", "give the variable another name")

    def _check_node(self, node: Node) -> None:
        match node.kind:
            case "Call":
                self._check_call(node)
            case "NotExpr":
                self._check_not(node)
            case "BoolExpr" if node.text == "Ne":
                for side in ("lhs", "rhs"):
                    self._check_unequal(node, node.part(side))
            case "AssignExpr" if node.text != "ColEq":
                self._add(node.line, "C8", "= both compares and binds", "write == or :=")
            case "Query":
                self._check_every(node)
            case "With":
                self._add(node.line, "C8", "with replaces input or data", "keep it to tests")
            case "Var" if not self._known(node.text):
                self._add(node.line, "C7", f"{node.text} is not bound anywhere", "bind it with := or some … in")
            case _:
                pass

    def _known(self, name: str) -> bool:
        return name in self.locals or name in self.names or name in self.module.imports or name in ("input", "data", "_") or (
            # The function's name in a call; C2 looks at it.
            name.split(".")[0] in {builtin.split(".")[0] for builtin in ALLOWED}
        )

    def _check_call(self, call: Node) -> None:
        name = self._full_name(call.part("fcn"))
        given = len(call.all("params"))
        arity = ALLOWED.get(name) if name in ALLOWED else self.packages.arity(name)
        if arity is None:
            self._add(call.line, "C2", f"{name} is not a function here", "see the list of allowed builtins in docs/policy.md")
        elif arity != given:
            self._add(call.line, "C2", f"{name} takes {arity} arguments, not {given}", "")

    def _full_name(self, node: Node | None) -> str:
        """The dotted name of a reference, with the import resolved and the package added; ``data.`` is left out."""
        parts = _dotted(node)
        if not parts:
            return "(computed)"
        head = parts[0]
        if head in self.module.imports:
            return ".".join([self.module.imports[head], *parts[1:]]).removeprefix("data.")
        if head in self.names:
            return ".".join([self.module.package, *parts])
        return ".".join(parts).removeprefix("data.")

    def _check_not(self, node: Node) -> None:
        for inner in node.walk():
            if inner.kind == "Call":
                args = inner.all("params")
            elif inner.kind == "Membership":
                args = (*inner.all("key"), *inner.all("value"), *inner.all("collection"))
            else:
                continue
            if any(not self._total(part) for arg in args for part in arg.walk()):
                self._add(
                    node.line,
                    "C3",
                    f"a {inner.kind.lower()} under not takes a reference that may be undefined",
                    "bind it before: x := …; not f(x)",
                )
                return

    def _total(self, node: Node) -> bool:
        """Whether evaluating this node alone cannot be undefined: a literal or a local variable."""
        return node.kind not in (*_REFS, "Call", "Membership") and (node.kind != "Var" or node.text in self.locals)

    def _check_unequal(self, node: Node, side: Node | None) -> None:
        if side is None or self._shape(side) is None:
            return
        if any(part.kind in (*_REFS, "Call") or (part.kind == "Var" and part.text not in self.locals) for part in side.walk()):
            self._add(node.line, "C5", "an operand of != may be undefined", "write not a == b")

    def _check_every(self, query: Node) -> None:
        guarded = [_shown(node) for node in map(_count_guard, query.all("statement")) if node is not None]
        for statement in query.all("statement"):
            domain = statement.part("domain")
            if statement.kind != "Every" or domain is None or (domain.kind in ("Array", "Set") and domain.parts):
                continue
            if _shown(domain) not in guarded:
                self._add(statement.line, "C6", "every holds for an empty collection", "write beside it: count(collection) > 0")

    def _check_head(self) -> None:
        if self.rule.kind not in ("set", "object"):
            return
        for body in self.rule.bodies or (None,):
            bound = _bound_here(body)
            for head in (self.rule.key, self.rule.value):
                if head is None:
                    continue
                for node in head.walk():
                    plain = node.kind in ("String", "RawString", "Number", "Bool", "Null", "Array", "Set", "Object")
                    if not plain and not (node.kind == "Var" and node.text in bound):
                        self._add(
                            self.rule.line,
                            "C4",
                            f"the head of {self.rule.name} is neither a literal nor bound in the body",
                            "bind it in the body: x := …, and write x in the head",
                        )
                        return

    # ---- paths (C7)

    def _infer(self, query: Node) -> None:
        """Follow ``x := input.…`` and ``some x in input.…`` so that paths through ``x`` are checked as well."""
        for statement in query.all("statement"):
            target, source, element = statement.part("value"), statement.part("collection"), True
            if statement.kind == "Every":
                source = statement.part("domain")
            elif statement.kind == "Expr" and (assign := statement.part("expr")) is not None and assign.kind == "AssignExpr":
                target, source, element = assign.part("lhs"), assign.part("rhs"), False
            if target is None or source is None or target.kind != "Var":
                continue
            shape = self._shape(source)
            if element:
                shape = shape[0] if isinstance(shape, tuple) else UNKNOWN
            if self._ambiguous(target.text):
                shape = UNKNOWN
            self.locals[target.text] = shape

    def _ambiguous(self, name: str) -> bool:
        """Whether ``name`` is bound in more than one place of this clause, so that one shape would not do."""
        places = 0
        for node in self.rule.walk():
            places += sum(1 for pattern in _patterns(node) for part in pattern.walk() if part.kind == "Var" and part.text == name)
        return places > 1

    def _shape(self, node: Node) -> Schema | _Unknown:
        """The document's shape at ``node``; unknown for what does not lead into it. A missing path is unknown too."""
        if node.kind == "Var":
            if node.text == "input":
                return schema()
            path = self.module.imports.get(node.text, "")
            if path.split(".")[0] == "input":
                return _descend(path.split(".")[1:])
            return self.locals.get(node.text, UNKNOWN)
        refr = node.part("refr")
        if refr is None:
            return UNKNOWN
        shape = self._shape(refr)
        index = node.part("index")
        name = node.text if node.kind == "RefDot" else index.text if index is not None and index.kind == "String" else None
        if isinstance(shape, dict):
            return shape.get(name, UNKNOWN) if name is not None else UNKNOWN
        return UNKNOWN

    def _check_paths(self, node: Node) -> None:
        if node.kind in _REFS:
            self._check_path(node)
        for _, part in node.parts:
            self._check_paths(part)

    def _check_path(self, node: Node) -> None:
        refr, index = node.part("refr"), node.part("index")
        if refr is None:
            return
        shape = self._shape(refr)
        name = node.text if node.kind == "RefDot" else index.text if index is not None and index.kind == "String" else None
        if name is not None and isinstance(shape, dict) and name not in shape:
            self._add(node.line, "C7", f"the input has no {name} here", f"one of: {', '.join(shape)}")
        elif name is not None and not isinstance(shape, (dict, _Unknown)):
            self._add(node.line, "C7", f"the input has no {name} inside a {'list' if shape else 'scalar'}", "")
        parts = _dotted(node)
        if parts and (parts[0] == "data" or parts[0] in self.module.imports):
            self._check_data(node, self._full_name(node).split("."))

    def _check_data(self, node: Node, path: list[str]) -> None:
        if path[0] == "input":
            return
        if path[0] == "reference":
            if len(path) > 1 and path[1] not in _REFERENCE:
                self._add(node.line, "C7", f"the reference values have no {path[1]}", f"one of: {', '.join(sorted(_REFERENCE))}")
            return
        dotted = ".".join(path)
        if any(name == dotted or name.startswith(f"{dotted}.") or dotted.startswith(f"{name}.") for name in self.packages.rules):
            return
        self._add(node.line, "C7", f"data.{dotted} does not exist", "reference values are under data.reference")


class _Unknown:
    """The shape of what does not come from the document."""


UNKNOWN: Final = _Unknown()


def _descend(path: Iterable[str]) -> Schema | _Unknown:
    shape: Schema | _Unknown = schema()
    for name in path:
        shape = shape.get(name, UNKNOWN) if isinstance(shape, dict) else UNKNOWN
    return shape


def _dotted(node: Node | None) -> list[str]:
    if node is None:
        return []
    if node.kind == "Var":
        return [node.text]
    if node.kind == "RefDot":
        inner = _dotted(node.part("refr"))
        return [*inner, node.text] if inner else []
    return []


def _patterns(node: Node) -> tuple[Node, ...]:
    """The nodes in which this statement or expression binds names."""
    if node.kind in ("SomeIn", "SomeVars"):
        return (*node.all("key"), *node.all("value"))
    if node.kind == "Every":
        return (*node.all("key"), *node.all("value"))
    if node.kind == "AssignExpr" and node.text == "ColEq":
        return node.all("lhs")
    return ()


def _variables(nodes: Iterable[Node]) -> set[str]:
    return {part.text for node in nodes for part in node.walk() if part.kind == "Var"}


def _bound(rule: Rule) -> set[str]:
    """Every name that this clause binds anywhere."""
    names = _variables(rule.args)
    for node in rule.walk():
        names |= _variables(_patterns(node))
    return names - {"_"}


def _bound_here(query: Node | None) -> set[str]:
    """The names that a body itself binds by ``:=`` or ``some … in``, so that they have a value when the head is built."""
    names: set[str] = set()
    for statement in () if query is None else query.all("statement"):
        if statement.kind == "SomeIn":
            names |= _variables(_patterns(statement))
        elif statement.kind == "Expr" and (assign := statement.part("expr")) is not None:
            names |= _variables(_patterns(assign))
    return names - {"_"}


def _count_guard(statement: Node) -> Node | None:
    """The collection of a statement ``count(collection) > 0`` (or ``>= 1``, ``!= 0``)."""
    expr = statement.part("expr") if statement.kind == "Expr" else None
    if expr is None or expr.kind != "BoolExpr":
        return None
    left, right = expr.part("lhs"), expr.part("rhs")
    if left is None or right is None or left.kind != "Call" or _dotted(left.part("fcn")) != ["count"]:
        return None
    if (expr.text, right.kind, right.text) not in (("Gt", "Number", "0"), ("Ge", "Number", "1"), ("Ne", "Number", "0")):
        return None
    return next(iter(left.all("params")), None)


def _shown(node: Node) -> tuple[object, ...]:
    """The node without its place, for comparing two expressions."""
    return (node.kind, node.text, tuple((role, _shown(part)) for role, part in node.parts))


def _recursion(packages: _Packages) -> Iterator[CheckerFinding]:
    """A rule that depends on itself ends the engine's process."""
    graph: dict[str, set[str]] = {}
    for name, clauses in packages.rules.items():
        graph[name] = set()
        for module, rule in clauses:
            scope = _RuleCheck(packages, module, rule)
            for node in rule.walk():
                if node.kind in ("Var", "RefDot") and (node.kind != "Var" or node.text not in scope.locals):
                    full = scope._full_name(node)
                    graph[name] |= {other for other in packages.rules if other == full or other.startswith(f"{full}.")}
    done: set[str] = set()
    for start in graph:
        trail: list[str] = []
        if _cycle(graph, start, trail, done):
            module, rule = packages.rules[trail[-1]][0]
            circle = " → ".join(trail[trail.index(trail[-1]) :])
            yield CheckerFinding(module.name, rule.line, "C8", f"the rule depends on itself: {circle}", "")
            return


def _cycle(graph: dict[str, set[str]], node: str, trail: list[str], done: set[str]) -> bool:
    if node in done:
        return False
    seen = node in trail
    trail.append(node)
    if seen:
        return True
    for other in sorted(graph[node]):
        if _cycle(graph, other, trail, done):
            return True
    _ = trail.pop()
    done.add(node)
    return False
