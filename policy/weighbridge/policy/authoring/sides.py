"""What a test that failed saw: the values on both sides of the statement at which it ends.

A rule is written beside the test that repeats what holds before that statement and then names its parts: source text
of the test's own module, under the same imports. What cannot be shown is left out: the test has failed either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.policy.authoring.trial import NOW_NS, Fault, Trial
from weighbridge.policy.checker.check import AUTHOR_PACKAGE
from weighbridge.policy.engines.workbench import Undefined
from weighbridge.policy.policy_set import PolicyModule
from weighbridge.proto import strict
from weighbridge.proto.errors import PolicyDenied, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.policy.checker.syntax import Module, Node, Rule
    from weighbridge.policy.policy_set import PolicySet

__all__ = ["Question", "ask", "question"]

_PREFIX: Final = "sides_of_"
_FAILED_MAX: Final = 20
_SOLUTIONS_MAX: Final = 3
_VALUE_MAX: Final = 400
_EMPTY: Final[strict.JsonObject] = {}


@dataclass(frozen=True, slots=True)
class Question:
    """Of one test: what its parts are called, and the body of a rule that gives their values."""

    module: Module
    test: str
    labels: tuple[str, ...]
    body: str


def question(module: Module, rule: Rule, stop: Node) -> Question | None:
    """What to ask about the statement ``stop`` of a test; ``None`` where it has no parts worth showing."""
    parts = _parts(module, stop)
    if not parts or len(rule.bodies) != 1:
        return None
    first = rule.bodies[0].all("statement")[0]
    before = module.source((first.span[0], stop.span[0]))
    under = "".join(f" {module.source(node.span)}" for node in stop.all("with"))
    lines = [f"\t{_PREFIX}{number} := {text}{under}" for number, (_, text) in enumerate(parts)]
    return Question(module, rule.name, tuple(label for label, _ in parts), "\n".join([f"\t{before}", *lines]))


def ask(policy: PolicySet, tests: Sequence[PolicyModule], questions: Sequence[Question]) -> Mapping[str, list[str]]:
    """Lines for people by the names of tests; of the first few, and of none where they cannot be had."""
    asked = questions[:_FAILED_MAX]
    if not asked:
        return {}
    try:
        generated = [_module(number, item) for number, item in enumerate(asked)]
        with Trial(policy, beside=(*tests, *generated)) as trial:
            return {item.test: _lines(trial, item) for item in asked}
    except PolicyDenied:
        return {}


def _parts(module: Module, stop: Node) -> list[tuple[str, str]]:
    expr = stop.part("expr")
    if expr is None:
        return []
    if expr.kind == "RefDot" and _is_allow(module, expr):
        refr = expr.part("refr")
        rules = "" if refr is None else module.source(refr.span)
        return [("denied", f"{{{_PREFIX}d.code | some {_PREFIX}d in {rules}.deny}}")]
    if stop.kind != "Expr":
        return []
    roles = {"BoolExpr": {"lhs": "left", "rhs": "right"}, "Membership": {"value": "value", "collection": "in"}}
    named = ((label, expr.part(role)) for role, label in roles.get(expr.kind, {}).items())
    return [(label, module.source(node.span)) for label, node in named if node is not None]


def _is_allow(module: Module, expr: Node) -> bool:
    refr = expr.part("refr")
    path = "" if refr is None else module.source(refr.span)
    return expr.text == "allow" and module.imports.get(path, path) == f"data.{AUTHOR_PACKAGE}"


def _module(number: int, item: Question) -> PolicyModule:
    imports = "".join(f"{item.module.source(span)}\n" for span in item.module.import_spans)
    values = ", ".join(f"{_PREFIX}{part}" for part in range(len(item.labels)))
    # For each solution of what is before: `some` may have several.
    text = f"package {item.module.package}\n\n{imports}\n{_PREFIX}{item.test} := [[{values}] |\n{item.body}\n]\n"
    return PolicyModule(f"{_PREFIX}{number}.rego", text.encode())


def _lines(trial: Trial, item: Question) -> list[str]:
    found = trial.evaluate(
        f"data.{item.module.package}.{_PREFIX}{item.test}", strict.json_encode(_EMPTY), now_ns=NOW_NS
    )
    if isinstance(found, Fault) or isinstance(found.value, Undefined) or not isinstance(found.value, list):
        return []
    width = max(len(label) for label in item.labels)
    return [
        f"        {label:<{width}}  {shorten(strict.json_encode(value).decode(), _VALUE_MAX)}"
        for values in found.value[:_SOLUTIONS_MAX]
        if isinstance(values, list)
        for label, value in zip(item.labels, values, strict=True)
    ]
