"""Names in a policy: which are variables of a clause, which are rules, imports or paths into the document.

The shape of a path is what the document's dataclasses say is there: a dict of members, a list of one shape, a scalar,
or unknown for everything that does not lead into the document.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from weighbridge.policy.checker.syntax import Module, Node, Rule
from weighbridge.policy.document import Schema, schema

__all__ = ["REFERENCES", "UNKNOWN", "Packages", "Scope", "Unknown", "bound_in_body", "dotted", "follow", "step"]

REFERENCES: Final = frozenset({"RefDot", "RefBrack"})


@final
class Unknown:
    """The shape of what does not come from the document."""


UNKNOWN: Final = Unknown()


class Packages:
    """All rules by full name, so that a name in one module is known in another of the same package."""

    def __init__(self, modules: tuple[Module, ...]) -> None:
        self.rules: dict[str, list[tuple[Module, Rule]]] = {}
        for module in modules:
            for rule in module.rules:
                self.rules.setdefault(f"{module.package}.{rule.name}", []).append((module, rule))

    def names(self, package: str) -> frozenset[str]:
        """The first names of the rules of ``package``."""
        prefix = f"{package}."
        return frozenset(name.removeprefix(prefix).split(".")[0] for name in self.rules if name.startswith(prefix))

    def arity(self, name: str) -> int | None:
        """How many arguments the function takes; ``None`` where there is no such function."""
        return next((len(rule.args) for _, rule in self.rules.get(name, []) if rule.args), None)

    def below(self, path: str) -> set[str]:
        """The rules that a reference to ``path`` reads: itself, those inside it, or the one it leads into."""
        inside = {name for name in self.rules if name == path or name.startswith(f"{path}.")}
        return inside or {name for name in self.rules if path.startswith(f"{name}.")}


class Scope:
    """The names of one clause. Variables are known by name, which is exact because shadowing is refused."""

    def __init__(self, packages: Packages, module: Module, rule: Rule) -> None:
        self.packages: Packages = packages
        self.module: Module = module
        self.names: frozenset[str] = packages.names(module.package)
        self.locals: dict[str, Schema | Unknown] = dict.fromkeys(_bound(rule), UNKNOWN)
        bindings = [part.text for node in rule.walk() for part in _pattern_variables(node)]
        for node in rule.walk():
            for target, source, element in _aliases(node):
                # A name that is bound in two places has no one shape.
                if bindings.count(target) == 1:
                    shape = self.shape(source)
                    self.locals[target] = step(shape, None) if element else shape

    def total(self, node: Node) -> bool:
        """Whether this node alone always has a value: a literal, an operator or a variable."""
        return node.kind not in (*REFERENCES, "Call", "Membership") and (node.kind != "Var" or node.text in self.locals)

    def full_name(self, node: Node | None) -> str:
        """The dotted name of a reference, with imports resolved and without ``data.``; empty if computed."""
        parts = dotted(node)
        if not parts:
            return ""
        head = parts[0]
        if head in self.module.imports:
            return ".".join([self.module.imports[head], *parts[1:]]).removeprefix("data.")
        if head in self.names:
            return ".".join([self.module.package, *parts])
        return ".".join(parts).removeprefix("data.")

    def shape(self, node: Node) -> Schema | Unknown:
        """The document's shape at ``node``."""
        if node.kind == "Var":
            if node.text == "input":
                return schema()
            path = self.module.imports.get(node.text, "").split(".")
            return follow(path[1:]) if path[0] == "input" else self.locals.get(node.text, UNKNOWN)
        refr = node.part("refr")
        if node.kind not in REFERENCES or refr is None:
            return UNKNOWN
        return step(self.shape(refr), member(node))


def member(node: Node) -> str | None:
    """The fixed name by which a reference takes a member; ``None`` for a computed or numeric index."""
    if node.kind == "RefDot":
        return node.text
    index = node.part("index")
    return index.text if index is not None and index.kind in ("String", "RawString") else None


def step(shape: Schema | Unknown, name: str | None) -> Schema | Unknown:
    """The shape one step further: a member by its name, or an element of a list."""
    if isinstance(shape, dict) and name is not None:
        return shape.get(name, UNKNOWN)
    if isinstance(shape, tuple) and name is None:
        return shape[0]
    return UNKNOWN


def follow(path: Iterable[str]) -> Schema | Unknown:
    """The shape at the end of a fixed path into the document."""
    shape: Schema | Unknown = schema()
    for name in path:
        shape = step(shape, name)
    return shape


def dotted(node: Node | None) -> list[str]:
    """The names of a reference written with fixed names; empty for any other node."""
    match node:
        case Node(kind="Var"):
            return [node.text]
        case Node(kind="RefDot"):
            inner = dotted(node.part("refr"))
            return [*inner, node.text] if inner else []
        case _:
            return []


def bound_in_body(query: Node | None) -> set[str]:
    """What a body itself binds by ``:=`` or ``some … in``, so that it has a value when the head is built."""
    names: set[str] = set()
    for statement in () if query is None else query.all("statement"):
        if statement.kind == "SomeIn":
            names |= {part.text for part in _pattern_variables(statement)}
        elif statement.kind == "Expr" and (assign := statement.part("expr")) is not None:
            names |= {part.text for part in _pattern_variables(assign)}
    return names - {"_"}


def _bound(rule: Rule) -> set[str]:
    names = {part.text for arg in rule.args for part in arg.walk() if part.kind == "Var"}
    names |= {part.text for node in rule.walk() for part in _pattern_variables(node)}
    return names - {"_"}


def _pattern_variables(node: Node) -> list[Node]:
    """The variables that this statement or expression binds itself."""
    patterns: tuple[Node, ...] = ()
    if node.kind in ("SomeIn", "SomeVars", "Every"):
        patterns = (*node.all("key"), *node.all("value"))
    elif node.kind == "AssignExpr" and node.text == "ColEq":
        patterns = node.all("lhs")
    return [part for pattern in patterns for part in pattern.walk() if part.kind == "Var"]


def _aliases(node: Node) -> list[tuple[str, Node, bool]]:
    """Names that stand for a path: the name, the path, and whether for its elements."""
    if node.kind == "AssignExpr" and node.text == "ColEq":
        target, source, element = node.part("lhs"), node.part("rhs"), False
    elif node.kind in ("SomeIn", "Every"):
        target, source, element = node.part("value"), node.part("collection") or node.part("domain"), True
    else:
        return []
    return (
        [(target.text, source, element)] if target is not None and target.kind == "Var" and source is not None else []
    )
