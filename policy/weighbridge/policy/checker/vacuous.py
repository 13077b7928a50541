"""``count([x | some x in xs; …]) == 0``: none of them is bad, and it holds where there is none at all.

Only lists of what is judged are looked at: that no *difference* and no *finding* is there is what such a line is for.
"""

from __future__ import annotations

from typing import Final

from weighbridge.policy.checker.bindings import COMPREHENSIONS, dotted
from weighbridge.policy.checker.names import Scope
from weighbridge.policy.checker.notes import Notes
from weighbridge.policy.checker.safety import guarded
from weighbridge.policy.checker.syntax import Node

__all__ = ["check_none"]

# The library denies that there is no GPU and no declared model.
_GUARDED_BY_LIBRARY: Final = frozenset({"input.gpus", "input.weights.declared"})
_JUDGED: Final = _GUARDED_BY_LIBRARY | {
    "input.gpus[].manifests",
    "input.platform.boot_pcrs",
    "input.telemetry.devices",
    "input.telemetry.sources",
    "input.weights.loaded",
}


def check_none(scope: Scope, notes: Notes, query: Node, *, library: bool) -> None:
    """Note every line of a body that says so of a list that may be empty.

    Args:
        scope: where the body stands.
        notes: where to put what is found.
        query: the body.
        library: whether the policy has the denials that every policy has.
    """
    statements = query.all("statement")
    for statement in statements:
        comprehension = _counted_to_none(scope, statement)
        inner = None if comprehension is None else comprehension.part("query")
        lines = () if inner is None else inner.all("statement")
        if len(lines) < len(("some x in xs", "what is bad of it")):
            continue
        for line in lines:
            collection = line.part("collection") if line.kind == "SomeIn" else None
            path = "" if collection is None else scope.place(collection).path
            free = path in _JUDGED and not (library and path in _GUARDED_BY_LIBRARY)
            if collection is not None and free and not guarded(collection, statements):
                text = notes.text(collection)
                message = f"it holds where {text} is empty"
                notes.add(statement, "all-maybe-empty", message, hint=f"count({text}) > 0 in a line beside it")


def _counted_to_none(scope: Scope, statement: Node) -> Node | None:
    """The comprehension of which the line says that nothing is in it."""
    expr = statement.part("expr") if statement.kind == "Expr" else None
    if expr is None or expr.kind != "BoolExpr" or expr.text != "Eq":
        return None
    left, right = expr.part("lhs"), expr.part("rhs")
    zero = right is not None and right.kind == "Number" and right.text == "0"
    nothing = right is not None and right.kind == "Array" and not right.parts
    if zero and left is not None and left.kind == "Call" and dotted(left.part("fcn")) == ["count"]:
        left, nothing = left.part("params"), True
    source = scope.source(left) if nothing and left is not None else None
    return None if source is None or source.kind not in COMPREHENSIONS else source
