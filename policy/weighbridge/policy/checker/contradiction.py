"""Lines of one body that exclude each other: all lines of a body must hold, so that the rule never does."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from weighbridge.policy.checker.notes import Notes, shown
from weighbridge.policy.checker.syntax import Node

__all__ = ["check_body"]

_LITERALS: Final = frozenset({"String", "RawString", "Number", "Bool", "Null"})
_MIRRORED: Final = {"Lt": "Gt", "Le": "Ge", "Gt": "Lt", "Ge": "Le"}
_BELOW: Final = frozenset({"Lt", "Le"})
_ABOVE: Final = frozenset({"Gt", "Ge"})
_STRICT: Final = frozenset({"Lt", "Gt"})

Value = tuple[str, str]
"""A literal: its kind and its text."""


@dataclass(slots=True)
class _Known:
    """What the lines so far say of one expression; ``first`` is the line that said it."""

    among: frozenset[Value] | None = None
    excluded: frozenset[Value] = frozenset()
    lowest: tuple[Decimal, bool] | None = None
    highest: tuple[Decimal, bool] | None = None
    lines: list[Node] = field(default_factory=list)

    def possible(self) -> bool:
        if self.among is not None:
            return any(self._holds(value) for value in self.among)
        return self.lowest is None or self.highest is None or self._between()

    def _between(self) -> bool:
        (low, low_strict), (high, high_strict) = self.lowest or (Decimal(0), False), self.highest or (Decimal(0), False)
        return low < high or (low == high and not low_strict and not high_strict)

    def _holds(self, value: Value) -> bool:
        if value in self.excluded:
            return False
        if value[0] != "Number":
            # Ordered comparisons of other literals are no matter of numbers.
            return True
        number = Decimal(value[1])
        low, high = self.lowest, self.highest
        above = low is None or number > low[0] or (number == low[0] and not low[1])
        below = high is None or number < high[0] or (number == high[0] and not high[1])
        return above and below


def check_body(notes: Notes, query: Node) -> None:
    """Note lines of ``query`` that exclude one before them, and lines beside ``false``."""
    statements = query.all("statement")
    known: dict[tuple[object, ...], _Known] = {}
    for statement in statements:
        expr = statement.part("expr")
        if expr is None or statement.kind not in ("Expr", "NotExpr") or statement.part("with") is not None:
            continue
        negated = statement.kind == "NotExpr"
        if not negated and expr.kind == "Bool" and expr.text == "false" and len(statements) > 1:
            notes.add(statement, "after-false", "false stands in the body: nothing else in it matters")
        for about in _said(known, expr, negated=negated):
            about.lines.append(statement)
            if not about.possible():
                before = notes.text(about.lines[0])
                message = f"{notes.text(statement)} excludes {before} before it"
                notes.add(statement, "contradiction", message)
                return


def _said(known: dict[tuple[object, ...], _Known], expr: Node, *, negated: bool) -> list[_Known]:
    """Enter what the line says; of what it says something."""
    left, right, operator = expr.part("lhs"), expr.part("rhs"), expr.text
    if expr.kind == "Membership":
        return _among(known, expr, negated=negated)
    if expr.kind != "BoolExpr" or left is None or right is None:
        return []
    if left.kind in _LITERALS:
        left, right, operator = right, left, _MIRRORED.get(operator, operator)
    if right.kind not in _LITERALS or left.kind in _LITERALS or not _steady(left):
        return []
    about = known.setdefault(shown(left), _Known())
    value = _value(right)
    if operator in ("Eq", "Ne"):
        _narrow(about, frozenset({value}), excluded=(operator == "Ne") != negated)
        return [about]
    if negated or right.kind != "Number":
        return []
    bound = (Decimal(right.text), operator in _STRICT)
    if operator in _BELOW:
        about.highest = (
            bound if about.highest is None else min(about.highest, bound, key=lambda each: (each[0], not each[1]))
        )
    elif operator in _ABOVE:
        about.lowest = bound if about.lowest is None else max(about.lowest, bound)
    return [about]


def _among(known: dict[tuple[object, ...], _Known], expr: Node, *, negated: bool) -> list[_Known]:
    value, collection = expr.part("value"), expr.part("collection")
    if value is None or collection is None or expr.part("key") is not None or value.kind in _LITERALS:
        return []
    items = collection.all("items") if collection.kind in ("Array", "Set") else ()
    if not items or not all(item.kind in _LITERALS for item in items) or not _steady(value):
        return []
    about = known.setdefault(shown(value), _Known())
    _narrow(about, frozenset(map(_value, items)), excluded=negated)
    return [about]


def _narrow(about: _Known, values: frozenset[Value], *, excluded: bool) -> None:
    if excluded:
        about.excluded |= values
    else:
        about.among = values if about.among is None else about.among & values


def _value(node: Node) -> Value:
    return ("String" if node.kind == "RawString" else node.kind, node.text)


def _steady(node: Node) -> bool:
    """Whether the expression means the same in every line: an index without a name does not."""
    return not any(part.kind == "Var" and part.text == "_" for part in node.walk())
