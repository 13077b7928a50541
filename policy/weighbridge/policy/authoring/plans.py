"""Clauses of a policy as generated rules tell of them: how each is called, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.policy.authoring.reasons import Binding, Failure, Kind, Statement, Way
from weighbridge.policy.authoring.terms import Answers, ReadTerm, first, items, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.policy.authoring.clauses import Clause
    from weighbridge.policy.checker.syntax import Module
    from weighbridge.proto import strict

__all__ = ["About", "Asked", "Fired", "ReadStatement", "ReadWays", "WayPlan", "reader"]

ReadWays = Callable[[Answers], tuple[Way, ...]]
ReadStatement = Callable[[Answers], Statement]


@dataclass(frozen=True, slots=True)
class WayPlan:
    """A clause as far as it holds: how to call the generated rule, and how to read what it gives."""

    clause: Clause
    call: str
    takes: int
    reads: tuple[tuple[tuple[str, ...], ReadStatement], ...]
    guarded: bool = False

    def read(self, answer: strict.JsonValue) -> Way | None:
        """The clause as tried; ``None`` for one that was not about what was asked."""
        steps = answer if isinstance(answer, list) else []
        ends = [number for number, step in enumerate(steps) if items(first(step))]
        if not ends:
            return None if self.guarded else Way(self.clause, 0, len(self.reads), ())
        if self.guarded and ends[-1] == 0:
            return None
        names, read = self.reads[ends[-1]]
        failures = tuple(
            Failure(_bindings(names, items(shown)), read(items(slots)))
            for shown, slots in (items(found) for found in items(first(steps[ends[-1]])))
        )
        asked = 1 if self.guarded else 0
        return Way(self.clause, ends[-1] - asked, len(self.reads) - asked, failures)


@dataclass(frozen=True, slots=True)
class Fired:
    """A clause that holds: the generated rule that says with which values, and how to read what it gives."""

    query: str
    names: tuple[str, ...]
    reads: tuple[ReadStatement, ...]

    def read(
        self, answer: strict.JsonValue
    ) -> list[tuple[strict.JsonValue, tuple[Binding, ...], tuple[Statement, ...]]]:
        """Of each way through the clause: its head, what its names stand for, its statements."""
        found: list[tuple[strict.JsonValue, tuple[Binding, ...], tuple[Statement, ...]]] = []
        for item in items(answer):
            head, shown, slots = items(item)
            found.append((head, _bindings(self.names, items(shown)), tuple(read(items(slots)) for read in self.reads)))
        return found


def _bindings(names: Sequence[str], shown: Sequence[strict.JsonValue]) -> tuple[Binding, ...]:
    return tuple(Binding(name, value_of(item)) for name, item in zip(names, shown, strict=False))


@dataclass(frozen=True, slots=True)
class About:
    """A statement that is looked at: where, as what it reads, whether it holds there, which names it can see."""

    line: int
    text: str
    holds: bool
    negated: bool = False
    scope: tuple[str, ...] = ()

    @property
    def looks_into(self) -> bool:
        """Whether the expression in it is not true: then the rules that it asks are worth looking into."""
        return self.holds == self.negated


@dataclass(frozen=True, slots=True)
class Asked:
    """A rule that a statement asks, by the name that its author gives it, and what reads how it fails."""

    rule: str
    ways: ReadWays


def reader(
    module: Module,
    about: About,
    kind: Kind,
    terms: Sequence[ReadTerm],
    asked: Asked | None = None,
    *,
    operator: str = "",
) -> ReadStatement:
    """What reads a statement of this kind, with the terms and the rule that it asks."""

    def read(answers: Answers) -> Statement:
        ways = () if asked is None else asked.ways(answers)
        return Statement(
            module=module.name,
            line=about.line,
            text=about.text,
            kind=kind,
            negated=about.negated,
            holds=about.holds,
            terms=tuple(term(answers) for term in terms),
            operator=operator,
            asks=asked.rule if asked is not None and ways else "",
            ways=ways,
        )

    return read
