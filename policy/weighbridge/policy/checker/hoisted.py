"""What OPA computes before it looks at ``not``: where that is undefined, the line is, and a denial never comes.

More is computed apart than the arguments of calls: both sides of an order, of arithmetic, the items of literals, an
index, and a call that is not the whole line. Left in their place are the two sides of the outermost ``==``, and a
reference or a call by itself. Regorus leaves everything in its place (open-policy-agent/opa#8387).

Arguments of calls and memberships are not looked at here: :mod:`.safety` asks more of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weighbridge.policy.checker.bindings import COMPREHENSIONS, REFERENCES
from weighbridge.policy.checker.functions import ALLOWED
from weighbridge.policy.checker.names import Scope
from weighbridge.policy.checker.syntax import Node, Rule

__all__ = ["hoisted", "missing"]

_COMPUTED: Final = frozenset({"ArithExpr", "BinExpr", "BoolExpr", "Array", "Set", "Object", "UnaryExpr"})
# Of what is empty they give nothing.
_PARTIAL: Final = frozenset({"max", "min"})


def hoisted(scope: Scope, expr: Node) -> Node | None:
    """What may be undefined of all that is computed before the ``not`` of which ``expr`` is the expression."""
    equal = expr.kind == "BoolExpr" and expr.text == "Eq"
    parts = [part for _, part in expr.parts] if equal else [expr]
    return next((loose for part in parts for loose in _loose(scope, part, whole=not equal)), None)


def missing(scope: Scope, node: Node, *, inside: bool = False) -> Iterator[Node]:
    """What may be undefined of an expression, and leaves the whole line without a value.

    ``inside``: of a rule's value, where no further rules are followed: they may fan out without end.
    """
    if node.kind in COMPREHENSIONS or scope.total(node):
        return
    if node.kind in REFERENCES or node.kind == "Var":
        if not scope.place(node).sure and (inside or not _given(scope, node)):
            yield node
        return
    if node.kind == "Call" and not _settled(scope, node):
        yield node
        return
    for role, part in node.parts:
        if role != "fcn":
            yield from missing(scope, part, inside=inside)


def _loose(scope: Scope, node: Node, *, whole: bool) -> Iterator[Node]:
    if node.kind in COMPREHENSIONS or node.kind == "Membership":
        return
    if node.kind == "Call":
        if not whole and not _settled(scope, node):
            yield node
        return
    for role, part in node.parts:
        if node.kind not in _COMPUTED and role != "index":
            yield from _loose(scope, part, whole=False)
        elif not _settled(scope, part):
            yield part


def _settled(scope: Scope, node: Node) -> bool:
    """Whether it has a value in every evaluation in which its arguments have one."""
    if scope.total(node) or scope.place(node).sure:
        return True
    match node.kind:
        case "Call":
            name = scope.full_name(node.part("fcn"))
            return (name in ALLOWED and name not in _PARTIAL) or _total_function(scope, name)
        case "Membership":
            return True
        case kind:
            return kind in _COMPUTED and all(_settled(scope, part) for _, part in node.parts)


def _given(scope: Scope, node: Node) -> bool:
    """Whether the reference is a rule that has one value without condition, and all of that is there."""
    clauses = scope.packages.rules.get(scope.full_name(node), []) if scope.outside(node) else []
    if len(clauses) != 1 or clauses[0][1].bodies or (value := clauses[0][1].value) is None:
        return False
    return next(missing(scope.packages.scopes[id(clauses[0][1])], value, inside=True), None) is None


def _total_function(scope: Scope, name: str) -> bool:
    """Whether one clause of the function holds for all arguments, or says what it gives for all others."""
    clauses = [rule for _, rule in scope.packages.rules.get(name, []) if rule.args]
    return any(rule.kind == "default" or _unconditional(scope, rule) for rule in clauses)


def _unconditional(scope: Scope, rule: Rule) -> bool:
    names = [arg.text for arg in rule.args if arg.kind == "Var"]
    last = rule.bodies[-1] if rule.bodies else None
    if len(names) < len(rule.args) or len(set(names) - {"_"}) < len([name for name in names if name != "_"]):
        return False
    if last is None:
        value = rule.value
    elif last.all("statement"):
        return False
    else:
        value = last.part("value") or rule.value
    inside = scope.packages.scopes[id(rule)]
    return value is None or inside.total(value) or (value.kind == "Call" and _builtin(inside, value))


def _builtin(scope: Scope, call: Node) -> bool:
    """Whether the call is of a builtin that always gives something, of what is always there."""
    name = scope.full_name(call.part("fcn"))
    return name in ALLOWED and name not in _PARTIAL and all(map(scope.total, call.all("params")))
