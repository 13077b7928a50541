"""Where the elements of a set come from: a clause of a set, or a comprehension in a rule that a clause asks.

``deny contains d if …`` is the first kind. ``deny contains d if some d in lib.unproven_denials(unchecked)`` asks a
function whose value is a comprehension: the second kind, which is called as its caller calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.policy.authoring.clauses import Written, statements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.policy.checker.syntax import Module, Node, Rule

__all__ = ["Caller", "Source", "allowing", "collected", "source_of"]


@dataclass(frozen=True, slots=True)
class Caller:
    """The clause that asks for a comprehension: its statements before it does, and the arguments that it gives."""

    module: Module
    before: tuple[Node, ...]
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """What makes elements of a set: ``key`` is the element, made wherever all of ``statements`` hold.

    A clause of ``allow`` has none, and is taken for one that makes ``true``.
    """

    module: Module
    rule: Rule
    line: int
    key: Node | None
    statements: tuple[Node, ...]
    params: tuple[Node, ...] = ()
    caller: Caller | None = None

    @property
    def asked_in(self) -> Module:
        """The module in which the generated rule without arguments stands."""
        return self.module if self.caller is None else self.caller.module

    @property
    def element(self) -> str:
        """The element as written; ``true`` of what makes none."""
        return "true" if self.key is None else self.module.source(self.key.span)

    @property
    def given(self) -> str:
        """The parameters of what is generated in :attr:`module`."""
        listed = ", ".join(self.module.source(param.span) for param in self.params)
        return f"({listed})" if listed else ""

    @property
    def body(self) -> str:
        """The statements as written."""
        return "\n".join(self.module.source(item.span) for item in self.statements) or "true"

    def listed(self, name: str, prefix: str) -> list[Written]:
        """A rule ``name`` that lists the element for every way in which the statements hold."""
        return self.called(name, f"[{self.element} |\n{self.body}\n]", prefix)

    def called(self, name: str, value: str, prefix: str) -> list[Written]:
        """A rule ``name`` with the list ``value``, in which parameters may stand; called as it is."""
        if self.caller is None:
            return [Written(self.module, name, f"{name} := {value}")]
        inner, x = f"{name}_c", f"{prefix}x"
        before = "".join(f"{self.caller.module.source(item.span)}\n" for item in self.caller.before)
        args = f"({', '.join(self.caller.args)})" if self.caller.args else ""
        call = f"data.{self.module.package}.{inner}{args}"
        return [
            Written(self.module, inner, f"{inner}{self.given} := {value}"),
            Written(self.caller.module, name, f"{name} := [{x} |\n{before}some {x} in {call}\n]"),
        ]


def source_of(module: Module, rule: Rule) -> Source:
    """A clause of a set."""
    if rule.key is None:  # pragma: no cover - the parser gives every clause of a set one
        raise ValueError("a clause of a set without an element")
    found = tuple(item for body in rule.bodies for item in statements(body))
    return Source(module, rule, rule.line, rule.key, found)


def allowing(module: Module, rule: Rule) -> Source:
    """A clause of ``allow``."""
    found = tuple(item for body in rule.bodies[:1] for item in statements(body))
    return Source(module, rule, rule.line, None, found)


def collected(module: Module, rule: Rule, caller: Caller) -> Iterator[Source]:
    """The comprehensions that are the value of a rule, and the elements that it writes out."""
    for body in rule.bodies or (None,):
        other = None if body is None else body.part("value")
        value = other or (rule.value if body in (None, *rule.bodies[:1]) else None)
        line = rule.line if body is None or body is rule.bodies[0] else body.line
        if value is None:
            continue
        if value.kind == "Set":
            for key in value.all("items"):
                yield Source(module, rule, line, key, statements(body), rule.args, caller)
        term, query = value.part("term"), value.part("query")
        if value.kind == "SetCompr" and term is not None:
            yield Source(module, rule, line, term, (*statements(body), *statements(query)), rule.args, caller)
