"""Expressions of a policy, written so that the engine lists their values, and read back as terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from weighbridge.policy.authoring.clauses import dotted, one_line
from weighbridge.policy.authoring.reasons import Term, Value
from weighbridge.proto import strict

if TYPE_CHECKING:
    from weighbridge.policy.authoring.clauses import Clauses
    from weighbridge.policy.checker.syntax import Module, Node

__all__ = [
    "FAILURES_MAX",
    "LITERALS",
    "Answers",
    "ReadTerm",
    "Slots",
    "Terms",
    "first",
    "is_literal",
    "items",
    "unpacked",
    "value_of",
]

FAILURES_MAX: Final = 3
"""Of places where one thing is so, how many are told."""
LITERALS: Final = frozenset({"String", "RawString", "Number", "Bool", "Null"})
_COLLECTIONS: Final = frozenset({"Array", "Set", "Object"})
_REFERENCES: Final = frozenset({"RefDot", "RefBrack"})

Answers = list[strict.JsonValue]
"""What the expressions of some slots came to, in their order."""
ReadTerm = Callable[[Answers], Term]


@dataclass(slots=True)
class Slots:
    """Expressions whose values one explanation needs; the place of each among the answers."""

    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> int:
        """One more expression; where its value will stand."""
        self.texts.append(text)
        return len(self.texts) - 1

    def assigned(self, prefix: str) -> str:
        """Statements that give each a name of its own: engines take time exponential in nested brackets to parse."""
        return "".join(f"\n\t{prefix}t{number} := {text}" for number, text in enumerate(self.texts))

    def listed(self, prefix: str) -> str:
        """The list of those names."""
        return f"[{', '.join(f'{prefix}t{number}' for number in range(len(self.texts)))}]"


@final
class Terms:
    """Writes and reads the expressions of one policy's modules."""

    def __init__(self, clauses: Clauses) -> None:
        self._clauses: Clauses = clauses
        self._p: str = clauses.prefix

    def term(self, module: Module, node: Node, slots: Slots, depth: int = 1) -> ReadTerm:
        """The value of an expression; to a ``depth``, also those of the expressions in it."""
        text = one_line(module, node.span)
        if is_literal(node):
            return lambda _: Term(text, literal=True)
        shown = self.shown(text, f"({module.source(node.span)})", slots)
        missing = self._missing(module, node, slots)
        parts: list[ReadTerm] = []
        if depth and node.kind in ("Call", "ArithExpr", "BinExpr"):
            inside = (*node.all("params"), *node.all("lhs"), *node.all("rhs"))
            parts = [self.term(module, part, slots, depth - 1) for part in inside if not is_literal(part)]

        def read(answers: Answers) -> Term:
            term = shown(answers)
            lacks = "" if term.values else missing(answers)
            return Term(text, values=term.values, missing=lacks, parts=tuple(part(answers) for part in parts))

        return read

    def shown(self, text: str, source: str, slots: Slots) -> ReadTerm:
        """The values of ``source``, which is called ``text``."""
        v = f"{self._p}v"
        place = slots.add(f"array.slice([{self._p}lib.show({v}) | {v} := {source}], 0, {FAILURES_MAX + 1})")
        return lambda answers: Term(text, values=tuple(value_of(item) for item in items(answers[place])))

    def _missing(self, module: Module, node: Node, slots: Slots) -> Callable[[Answers], str]:
        """In words, which member a reference without a value lacks."""
        v = f"{self._p}v"
        links: list[tuple[str, str, int, int | None]] = []
        while node.kind in _REFERENCES:
            inner, index = node.part("refr"), node.part("index")
            if inner is None:
                break
            name = node.text if node.kind == "RefDot" else "" if index is None else one_line(module, index.span)
            value = None
            if index is not None and not is_literal(index) and index.text != "_":
                value = slots.add(f"[{self._p}lib.show({v}) | {v} := ({module.source(index.span)})]")
            there = -1
            if self._may_be_looked_at(module, inner):
                there = slots.add(f"count([1 | {v} := ({module.source(inner.span)})])")
            links.append((one_line(module, inner.span), name.strip('"`'), there, value))
            node = inner

        def read(answers: Answers) -> str:
            for holder, name, there, value in links:
                if there < 0 or answers[there]:
                    named = name if value is None else _word(answers[value], name)
                    return f"{holder} has no {named}"
            return ""

        return read

    def _may_be_looked_at(self, module: Module, node: Node) -> bool:
        """Not the whole input, nor a package: that is every rule in it."""
        first, *rest = dotted(node) or ["", ""]
        path = [*module.imports.get(first, first).split("."), *rest]
        if path[0] == "data" and path[1:2] not in (["reference"], ["author"]):
            return any(".".join(path[1:size]) in self._clauses.by_name for size in range(2, len(path) + 1))
        return len(path) > 1 or path[0] not in ("input", "data")


def is_literal(node: Node) -> bool:
    """Whether it is written out, down to its last part."""
    if node.kind in _COLLECTIONS:
        return all(is_literal(part) for _, part in node.parts)
    return node.kind in LITERALS


def items(value: strict.JsonValue) -> list[strict.JsonValue]:
    """The elements of a list; none of what is no list."""
    return value if isinstance(value, list) else []


def first(value: strict.JsonValue) -> strict.JsonValue:
    """The first element, or null."""
    found = items(value)
    return found[0] if found else None


def unpacked(value: strict.JsonValue) -> strict.JsonValue:
    """What :func:`packed` of the helpers made."""
    if not isinstance(value, str):
        return None
    return strict.json_decode(strict.base64_decode(value, what="explanation"), what="explanation")


def value_of(item: strict.JsonValue) -> Value:
    """What :func:`show` of the helpers made."""
    if not isinstance(item, dict):
        return Value("null", None)
    size = item.get("n")
    return Value(str(item.get("is")), item.get("v"), size if isinstance(size, int) else None)


def _word(shown: strict.JsonValue, name: str) -> str:
    value = value_of(first(shown))
    return f'"{value.content}"' if value.kind == "string" else name
