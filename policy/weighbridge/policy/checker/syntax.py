"""The syntax tree of a policy, as the engine gives it in JSON, read into one kind of node.

Nothing here trusts the tree to be of a known shape: a node that is not in the table is refused, so that a new engine
cannot slip a construct past the checker.

Spans are byte offsets, start and end, into the module's text (:attr:`Module.text`), with quotes and brackets. The
engine's own leave out quotes, begin objects too late, and end ``set()`` after the word that follows: here they hold
everything inside, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, cast

from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.proto.strict import JsonObject, JsonValue

__all__ = ["Module", "Node", "Rule", "Span", "parse"]

Span = tuple[int, int]
"""First byte, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Node:
    """An expression, a statement or a query. ``text`` is a name, a literal or an operator; parts have roles."""

    kind: str
    line: int
    text: str
    parts: tuple[tuple[str, Node], ...]
    span: Span = (0, 0)

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
    """One clause of a rule. ``kind``: ``default``, ``complete``, ``set``, ``object`` or ``function``.

    Bodies after the first are ``else`` branches; their value is the part ``value``. ``span`` is the whole clause.
    """

    kind: str
    name: str
    line: int
    args: tuple[Node, ...]
    key: Node | None
    value: Node | None
    bodies: tuple[Node, ...]
    span: Span = (0, 0)

    def walk(self) -> Iterator[Node]:
        """Every node of the clause."""
        for node in (*self.args, self.key, self.value, *self.bodies):
            if node is not None:
                yield from node.walk()


@dataclass(frozen=True, slots=True)
class Module:
    """One module: its package as a dotted path, its imports by alias, its rules, the exact bytes."""

    name: str
    package: str
    imports: dict[str, str]
    rules: tuple[Rule, ...]
    text: bytes = b""
    import_spans: tuple[Span, ...] = ()
    """In the order of ``imports``."""

    def source(self, span: Span) -> str:
        """The text of ``span``."""
        return self.text[span[0] : span[1]].decode()

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of a byte, both from 1; columns in characters."""
        before = self.text[:offset]
        start = before.rfind(b"\n") + 1
        return before.count(b"\n") + 1, len(before[start:].decode()) + 1


_BETWEEN: Final = re.compile(rb"(?:\s|#[^\n]*\n)*")

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
# Those that may end with a bracket of their own.
_CLOSED: Final = frozenset(
    {"Array", "ArrayCompr", "Call", "Every", "Object", "ObjectCompr", "RefBrack", "Set", "SetCompr"}
)
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
        # Where the engine ends an empty set, and everything that it closes: where that begins and really ends.
        self.late: dict[int, Span] = {}

    def module(self, value: JsonValue) -> Module:
        tree = _member(value, "ast")
        package = self.path(self.expression(_member(_member(tree, "package"), "refr")))
        imports: dict[str, str] = {}
        spans: dict[str, Span] = {}
        for item in _list(_member(tree, "imports")):
            path = self.path(self.expression(_member(item, "refr")))
            alias = _dict(item).get("as")
            name = path.rsplit(".", 1)[-1] if alias is None else self.text(alias)
            if name in imports:
                raise PolicyDenied(
                    Code.POLICY_INVALID,
                    f"two imports are called {name}",
                    where=f"{self.name}:{self.line(item)}",
                    hint=f"call one of them something else: import {path} as {name}_",
                )
            imports[name], spans[name] = path, self.span(item)
        rules = tuple(self.rule(rule) for rule in _list(_member(tree, "rules")))
        return Module(self.name, package, imports, rules, self.source, tuple(spans.values()))

    def rule(self, value: JsonValue) -> Rule:
        kind, body = _only(value)
        match kind:
            case "Default":
                return self.default(body)
            case "Spec":
                return self.clause(body)
            case _:
                raise self.unknown(kind, body)

    def default(self, body: JsonValue) -> Rule:
        args = tuple(self.expression(arg) for arg in _list(_member(body, "args")))
        name, value = self.expression(_member(body, "refr")), self.expression(_member(body, "value"))
        span = _widen(self.span(body), (name, value))
        return Rule("default", self.path(name), name.line, args, None, value, (), span)

    def clause(self, body: JsonValue) -> Rule:
        form, head = _only(_member(body, "head"))
        bodies = tuple(self.body(item) for item in _list(_member(body, "bodies")))
        refr = self.expression(_member(head, "refr"))
        assigned = None if form == "Set" else _dict(head).get("assign")
        value = None if assigned is None else self.expression(_member(assigned, "value"))
        args = tuple(self.expression(arg) for arg in _list(_member(head, "args"))) if form == "Func" else ()
        kinds = {"Set": "set", "Func": "function", "Compr": "object" if refr.kind == "RefBrack" else "complete"}
        if form not in kinds:
            raise self.unknown(form, head)
        kind = kinds[form]
        named = refr.part("refr") if kind == "object" else refr
        key = self.optional(_dict(head).get("key")) if kind == "set" else refr.part("index")
        inside = [node for node in (refr, key, value, *bodies) if node is not None]
        span = _widen(self.span(body), inside)
        return Rule(kind, self.path(named), refr.line, args, key, value, bodies, span)

    def body(self, value: JsonValue) -> Node:
        """One body as a query; the value of an ``else`` is its part ``value``."""
        query = self.query(_member(value, "query"))
        assigned = _dict(value).get("assign")
        if assigned is None:
            return query
        other = self.expression(_member(assigned, "value"))
        return Node(
            query.kind, query.line, "", (*query.parts, ("value", other)), _widen(self.span(value), (query, other))
        )

    def query(self, value: JsonValue) -> Node:
        statements = tuple(("statement", self.statement(item)) for item in _list(_member(value, "stmts")))
        return self.node("Query", value, "", statements)

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
        for item in _list(_dict(value).get("with_mods", [])):
            inside = tuple(
                (role, self.expression(_member(item, name))) for role, name in (("target", "refr"), ("value", "as"))
            )
            parts.append(("with", self.node("With", item, "", inside)))
        return self.node(kind, value, "", tuple(parts))

    def node(self, kind: str, value: JsonValue, text: str, parts: tuple[tuple[str, Node], ...]) -> Node:
        span = self.span(value, closed=kind in _CLOSED)
        if kind in ("String", "RawString"):
            span = (span[0] - 1, span[1] + 1)
        elif kind == "Set" and not parts:
            start, end = span
            span = self.late[end] = (start, self.source.find(b")", start, end) + 1)
        span = _widen(span, [part for _, part in parts])
        if kind == "Object" and parts:
            span = (self.opened(min(part.span[0] for _, part in parts)), span[1])
        return Node(kind, self.line(value), text, parts, span)

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
        return self.node(kind, body, _shown(text), tuple(parts))

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

    def opened(self, first: int) -> int:
        """Where the object opens of which ``first`` is the first key: before it are only blanks and comments."""
        found = at = self.source.rfind(b"{", 0, first)
        while at >= 0 and _BETWEEN.fullmatch(self.source, at + 1, first):
            found, at = at, self.source.rfind(b"{", 0, at)
        return max(found, 0)

    def optional(self, value: JsonValue) -> Node | None:
        return None if value is None else self.expression(value)

    def variable(self, span: JsonValue) -> Node:
        line = _dict(span).get("line")
        return Node("Var", line if isinstance(line, int) else 0, self.text(span), (), self.bounds(span))

    def text(self, span: JsonValue) -> str:
        start, end = self.bounds(span)
        return self.source[start:end].decode()

    def span(self, value: JsonValue, *, closed: bool = True) -> Span:
        """Of what is in it, the spans are known by now; ``closed`` is what may end with a bracket of its own."""
        start, end = self.bounds(_member(value, "span"))
        inner = self.late.get(end)
        if inner is None or start > inner[0] or (closed and self.source[end - 1 : end] in (b")", b"]", b"}")):
            return start, end
        return start, inner[1]

    def bounds(self, span: JsonValue) -> Span:
        start, end = _member(span, "start"), _member(span, "end")
        if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start <= end <= len(self.source):
            raise ValueError("a span has no bounds")
        return start, end

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


def _widen(span: Span, parts: Iterable[Node]) -> Span:
    """``span`` with all of ``parts`` in it."""
    spans = [span, *(part.span for part in parts)]
    return min(start for start, _ in spans), max(end for _, end in spans)


def _shown(value: JsonValue) -> str:
    """A literal as text; empty where ``value`` is a node of its own."""
    if isinstance(value, (dict, list)):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


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
