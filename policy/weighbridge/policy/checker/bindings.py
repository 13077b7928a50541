"""Which names a clause binds, and where: by ``:=``, ``some … in``, ``every`` and as arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from weighbridge.policy.checker.syntax import Node, Rule

__all__ = ["COMPREHENSIONS", "REFERENCES", "Binding", "bindings", "bound_by", "bound_in_body", "dotted", "unbound"]

REFERENCES: Final = frozenset({"RefDot", "RefBrack"})
COMPREHENSIONS: Final = frozenset({"ArrayCompr", "SetCompr", "ObjectCompr"})


@dataclass(frozen=True, slots=True)
class Binding:
    """A name, where it stands, and what it stands for.

    ``how``: ``value`` of ``source`` by ``:=``; an ``element`` or a ``key`` of ``source``; an ``argument`` (``index``);
    ``part`` of a pattern, of which nothing more is known.
    """

    name: str
    at: Node
    how: Literal["value", "element", "key", "argument", "part"]
    source: Node | None = None
    index: int = 0


def bindings(rule: Rule, nodes: tuple[Node, ...]) -> tuple[Binding, ...]:
    """Every binding of the clause, arguments first; ``_`` binds nothing. ``nodes`` are all of the clause's."""
    return tuple(binding for binding in _bindings(rule, nodes) if binding.name != "_")


def bound_by(node: Node) -> Iterator[Binding]:
    """What a statement or an expression binds itself."""
    if node.kind == "AssignExpr" and node.text == "ColEq":
        yield from _pattern(node.all("lhs"), "value", node.part("rhs"))
    elif node.kind in ("SomeIn", "SomeVars", "Every"):
        source = node.part("collection") or node.part("domain")
        yield from _pattern(node.all("key"), "key", source)
        yield from _pattern(node.all("value"), "element", source)


def bound_in_body(query: Node | None) -> set[str]:
    """What a body itself binds by ``:=`` or ``some … in``, so that it has a value when the head is built."""
    names: set[str] = set()
    for statement in () if query is None else query.all("statement"):
        if statement.kind == "SomeIn":
            names |= {binding.name for binding in bound_by(statement)}
        elif statement.kind == "Expr" and (assign := statement.part("expr")) is not None:
            names |= {binding.name for binding in bound_by(assign)}
    return names - {"_"}


def unbound(rule: Rule, nodes: tuple[Node, ...]) -> Iterator[Node]:
    """Variables of the clause that are bound somewhere in it, but not where they are used."""
    # A name that `some` alone declares is said to be bound by nothing; that is enough.
    every = {binding.name for binding in bindings(rule, nodes)} - {
        part.text for node in nodes if node.kind == "SomeVars" for part in node.all("value")
    }
    arguments = {part.text for arg in rule.args for part in arg.walk() if part.kind == "Var"}
    for argument in rule.args:
        yield from _loose(argument, arguments, every)
    first = bound_in_body(rule.bodies[0]) if rule.bodies else set[str]()
    for node in (rule.key, rule.value):
        if node is not None:
            yield from _loose(node, arguments | first, every)
    for body in rule.bodies:
        yield from _loose(body, arguments, every)


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


def _bindings(rule: Rule, nodes: tuple[Node, ...]) -> Iterator[Binding]:
    for index, argument in enumerate(rule.args):
        for part in argument.walk():
            if part.kind == "Var":
                yield Binding(part.text, part, "argument" if part is argument else "part", None, index)
    for node in nodes:
        yield from bound_by(node)


def _pattern(
    patterns: tuple[Node, ...], how: Literal["value", "element", "key"], source: Node | None
) -> Iterator[Binding]:
    for pattern in patterns:
        for part in pattern.walk():
            if part.kind == "Var":
                yield Binding(part.text, part, how if part is pattern else "part", source)


def _loose(node: Node, bound: set[str], every: set[str]) -> Iterator[Node]:
    """Variables below ``node`` that ``every`` names and neither ``bound`` nor anything on the way there binds."""
    if node.kind == "Var":
        if node.text in every and node.text not in bound:
            yield node
        return
    if node.kind in COMPREHENSIONS:
        bound = bound | bound_in_body(node.part("query"))
    elif node.kind == "Query":
        bound = bound | bound_in_body(node)
    elif node.kind in ("Every", "NotExpr", "SomeVars"):
        inner = node.part("expr") if node.kind == "NotExpr" else node
        bound = bound | {binding.name for binding in bound_by(inner)} if inner is not None else bound
    for role, part in node.parts:
        if node.kind == "Every" and role == "domain":
            yield from _loose(part, bound - {binding.name for binding in bound_by(node)}, every)
        elif not (node.kind == "Call" and role == "fcn" and part.kind == "Var"):
            yield from _loose(part, bound, every)
