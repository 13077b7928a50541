"""What an explanation is made of: values, statements, clauses that were tried. Words for it are in :mod:`.telling`.

Everything here was read from the engine after a decision, by the same policy on the same document. It decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from weighbridge.policy.authoring.clauses import Clause
    from weighbridge.proto import strict

__all__ = ["Binding", "Failure", "Kind", "Statement", "Term", "Value", "Way"]

Kind = Literal["compare", "member", "ask", "call", "assign", "some", "every", "value"]
"""How a statement is put: ``ask`` asks a rule of the policy, ``call`` a builtin, ``value`` is an expression alone."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value as the engine has it.

    Attributes:
        kind: ``null``, ``boolean``, ``number``, ``string``, ``array``, ``set`` or ``object``.
        content: the value itself; of a long text, list, set or object the beginning, where what is nested deeper is an
            object of ``is`` (its kind) and ``n`` (its size).
        size: characters or elements, ``None`` of what has no size.
    """

    kind: str
    content: strict.JsonValue
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """A name in a clause, and what it stood for."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class Term:
    """One side of a comparison, an argument, or an expression alone.

    Attributes:
        text: as written.
        literal: it is written out, and was not evaluated.
        values: what it came to: nothing when it is undefined, several when it is looked for in several places.
        missing: in words, what it lacks to have a value; empty where that is not known.
        parts: what it is computed from.
    """

    text: str
    literal: bool = False
    values: tuple[Value, ...] = ()
    missing: str = ""
    parts: tuple[Term, ...] = ()

    @property
    def undefined(self) -> bool:
        """Whether it was evaluated and has no value."""
        return not self.literal and not self.values


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a clause, and why it holds or does not.

    Attributes:
        module, line: where it stands.
        text: as written, on one line.
        kind: how it is put.
        negated: it begins with ``not``.
        holds: whether it is true where it was looked at.
        terms: its sides, or its arguments; for ``some`` and ``every``, the collection.
        operator: of a comparison, such as ``==``.
        asks: the rule that it asks, as its author names it; empty where it asks none.
        ways: each clause of that rule, tried and found not to hold; for ``every``, the elements that fail.
    """

    module: str
    line: int
    text: str
    kind: Kind
    negated: bool
    holds: bool
    terms: tuple[Term, ...] = ()
    operator: str = ""
    asks: str = ""
    ways: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Where a clause ends: the first statement that does not hold, and what names stood for there."""

    bindings: tuple[Binding, ...]
    statement: Statement


@dataclass(frozen=True, slots=True)
class Way:
    """A clause that would have made a rule hold, as far as it came.

    Attributes:
        clause: which.
        held: how many of its statements hold, from the first on.
        of: how many there are.
        failures: where it ends, once for each of the first few ways through it; none where it was not looked into, or
            its arguments do not fit.
    """

    clause: Clause
    held: int
    of: int
    failures: tuple[Failure, ...]
