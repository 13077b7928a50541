"""The syntax tree of a policy, as the engine gives it in JSON, read into one kind of node.

Nothing here trusts the tree to be of a known shape: a node that is not in the table is refused, so that a new engine
cannot slip a construct past the checker.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.proto.strict import JsonObject, JsonValue

__all__ = ["Module", "Node", "Rule", "parse"]


@dataclass(frozen=True, slots=True)
class Node:
    """An expression, a statement or a query. ``text`` is a name, a literal or an operator; parts have roles."""

    kind: str
    line: int
    text: str
    parts: tuple[tuple[str, Node], ...]

    def part(self, role: str) -> Node | None:
        """The part in ``role``, if there is one."""
        return next((node for name, node in self.parts if name == role), None)

    def all(self, role: str) -> tuple[Node, ...]:
        """Every part in ``role``."""
        return tuple(node for name, node in self.parts if name == role)

    def walk(self) -> Iterator[Node]:
        """This node and every node below it."""
        yield self
        for _, node in self.parts:
            yield from node.walk()


@dataclass(frozen=True, slots=True)
class Rule:
    """One clause of a rule. ``kind``: ``default``, ``complete``, ``set``, ``object`` or ``function``."""

    kind: str
    name: str
    line: int
    args: tuple[Node, ...]
    key: Node | None
    value: Node | None
    bodies: tuple[Node, ...]

    def walk(self) -> Iterator[Node]:
        """Every node of the clause."""
        for node in (*self.args, self.key, self.value, *self.bodies):
            if node is not None:
                yield from node.walk()


@dataclass(frozen=True, slots=True)
class Module:
    """One module: its package as a dotted path, its imports by alias, its rules."""

    name: str
    package: str
    imports: dict[str, str]
    rules: tuple[Rule, ...]


# Kind to the members that hold nodes; lists of nodes are spelt with a star.
_EXPRESSIONS: Final[dict[str, tuple[str, ...]]] = {
    "String": (),
    "RawString": (),
    "Number": (),
    "Bool": (),
    "Null": (),
    "Var": (),
    "Array": ("items*",),
    "Set": ("items*",),
    "Object": (),
    "ArrayCompr": ("term", "query"),
    "SetCompr": ("term", "query"),
    "ObjectCompr": ("key", "value", "query"),
    "Call": ("fcn", "params*"),
    "UnaryExpr": ("expr",),
    "RefDot": ("refr",),
    "RefBrack": ("refr", "index"),
    "BinExpr": ("lhs", "rhs"),
    "BoolExpr": ("lhs", "rhs"),
    "ArithExpr": ("lhs", "rhs"),
    "AssignExpr": ("lhs", "rhs"),
    "Membership": ("key", "value", "collection"),
}
_STATEMENTS: Final[dict[str, tuple[str, ...]]] = {
    "SomeIn": ("key", "value", "collection"),
    "Expr": ("expr",),
    "NotExpr": ("expr",),
    "Every": ("domain", "query"),
    "SomeVars": (),
}


def parse(tree: bytes) -> tuple[Module, ...]:
    """The modules of the engine's tree.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: nested too deeply, or of a shape that is not known here.
    """
    try:
        modules = cast("JsonValue", json.loads(tree))  # noqa: TID251 - the engine's own tree, deeper than strict allows
        return tuple(_Reader(_member(module, "source")).module(module) for module in _list(modules))
    except RecursionError as error:
        raise PolicyDenied(
            Code.POLICY_INVALID, "the policy is nested too deeply", hint="split long expressions"
        ) from error
    except (ValueError, LookupError) as error:
        raise PolicyDenied(Code.POLICY_INVALID, f"the engine gives no readable syntax tree: {error}") from error


class _Reader:
    """Reads one module; keeps its source, since the tree gives some names as spans only."""

    def __init__(self, source: JsonValue) -> None:
        self.name: str = _str(_member(source, "file"))
        self.source: bytes = _str(_member(source, "contents")).encode()

    def module(self, value: JsonValue) -> Module:
        tree = _member(value, "ast")
        package = self.path(self.expression(_member(_member(tree, "package"), "refr")))
        imports: dict[str, str] = {}
        for item in _list(_member(tree, "imports")):
            path = self.path(self.expression(_member(item, "refr")))
            alias = _dict(item).get("as")
            imports[path.rsplit(".", 1)[-1] if alias is None else self.span(alias)] = path
        rules = tuple(self.rule(rule) for rule in _list(_member(tree, "rules")))
        return Module(self.name, package, imports, rules)

    def rule(self, value: JsonValue) -> Rule:
        kind, body = _only(value)
        if kind == "Default":
            args = tuple(self.expression(arg) for arg in _list(_member(body, "args")))
            name = self.expression(_member(body, "refr"))
            return Rule("default", self.path(name), name.line, args, None, self.expression(_member(body, "value")), ())
        if kind != "Spec":
            raise self.unknown(kind, body)
        form, head = _only(_member(body, "head"))
        bodies = tuple(self.body(item) for item in _list(_member(body, "bodies")))
        refr = self.expression(_member(head, "refr"))
        if form == "Set":
            return Rule("set", self.path(refr), refr.line, (), self.optional(_dict(head).get("key")), None, bodies)
        assigned = _dict(head).get("assign")
        value_node = None if assigned is None else self.expression(_member(assigned, "value"))
        if form == "Func":
            args = tuple(self.expression(arg) for arg in _list(_member(head, "args")))
            return Rule("function", self.path(refr), refr.line, args, None, value_node, bodies)
        if form != "Compr":
            raise self.unknown(form, head)
        if refr.kind == "RefBrack":
            inner = refr.part("refr")
            return Rule("object", self.path(inner), refr.line, (), refr.part("index"), value_node, bodies)
        return Rule("complete", self.path(refr), refr.line, (), None, value_node, bodies)

    def body(self, value: JsonValue) -> Node:
        """One body as a query; the value of an ``else`` is its part ``value``."""
        query = self.query(_member(value, "query"))
        assigned = _dict(value).get("assign")
        if assigned is None:
            return query
        return Node(query.kind, query.line, "", (*query.parts, ("value", self.expression(_member(assigned, "value")))))

    def query(self, value: JsonValue) -> Node:
        statements = tuple(("statement", self.statement(item)) for item in _list(_member(value, "stmts")))
        return Node("Query", self.line(value), "", statements)

    def statement(self, value: JsonValue) -> Node:
        kind, body = _only(_member(value, "literal"))
        if kind not in _STATEMENTS:
            raise self.unknown(kind, body)
        parts: list[tuple[str, Node]] = []
        if kind == "SomeVars":
            parts = [("value", self.variable(span)) for span in _list(_member(body, "vars"))]
        elif kind == "Every":
            names = [name for name in ("key", "value") if _dict(body).get(name) is not None]
            parts = [(name, self.variable(_member(body, name))) for name in names]
        parts += self.members(body, _STATEMENTS[kind])
        if _list(_dict(value).get("with_mods", [])):
            parts.append(("with", Node("With", self.line(value), "", ())))
        return Node(kind, self.line(value), "", tuple(parts))

    def expression(self, value: JsonValue) -> Node:
        kind, body = _only(value)
        if kind not in _EXPRESSIONS:
            raise self.unknown(kind, body)
        parts = self.members(body, _EXPRESSIONS[kind])
        text = _dict(body).get("value", _dict(body).get("op", ""))
        if kind == "Object":
            for _, key, item in (_list(field) for field in _list(_member(body, "fields"))):
                parts += [("key", self.expression(key)), ("item", self.expression(item))]
        elif kind == "RefDot":
            text = _list(_member(body, "field"))[1]
        return Node(kind, self.line(body), text if isinstance(text, str) else json.dumps(text), tuple(parts))

    def members(self, body: JsonValue, roles: tuple[str, ...]) -> list[tuple[str, Node]]:
        parts: list[tuple[str, Node]] = []
        for role in roles:
            name = role.rstrip("*")
            member = _member(body, name)
            if role != name:
                parts += [(name, self.expression(item)) for item in _list(member)]
            elif name == "query":
                parts.append((name, self.query(member)))
            elif member is not None:
                parts.append((name, self.expression(member)))
        return parts

    def optional(self, value: JsonValue) -> Node | None:
        return None if value is None else self.expression(value)

    def variable(self, span: JsonValue) -> Node:
        line = _dict(span).get("line")
        return Node("Var", line if isinstance(line, int) else 0, self.span(span), ())

    def span(self, value: JsonValue) -> str:
        start, end = _member(value, "start"), _member(value, "end")
        if not isinstance(start, int) or not isinstance(end, int):
            raise ValueError("a span has no bounds")  # noqa: TRY004 - read by parse(), not misuse
        return self.source[start:end].decode()

    def line(self, value: JsonValue) -> int:
        line = _member(_member(value, "span"), "line")
        return line if isinstance(line, int) else 0

    def path(self, node: Node | None) -> str:
        """A reference written with fixed names as a dotted path."""
        match node:
            case Node("Var"):
                return node.text
            case Node("RefDot"):
                return f"{self.path(node.part('refr'))}.{node.text}"
            case _:
                line = 0 if node is None else node.line
                raise PolicyDenied(
                    Code.POLICY_INVALID, "a rule's or package's name must be fixed", where=f"{self.name}:{line}"
                )

    def unknown(self, kind: str, body: JsonValue) -> PolicyDenied:
        where = f"{self.name}:{self.line(body)}"
        return PolicyDenied(Code.POLICY_INVALID, f"the construct {kind} is not known to the checker", where=where)


def _dict(value: JsonValue) -> JsonObject:
    if not isinstance(value, dict):
        raise ValueError("expected an object")  # noqa: TRY004 - read by parse(), not misuse
    return value


def _list(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list):
        raise ValueError("expected a list")  # noqa: TRY004 - read by parse(), not misuse
    return value


def _str(value: JsonValue) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")  # noqa: TRY004 - read by parse(), not misuse
    return value


def _member(value: JsonValue, name: str) -> JsonValue:
    return _dict(value).get(name)


def _only(value: JsonValue) -> tuple[str, JsonValue]:
    ((kind, body),) = _dict(value).items()
    return kind, body
