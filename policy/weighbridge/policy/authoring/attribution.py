"""Which clauses make which denial: a policy's own ``deny contains …``, and the library's behind it.

Beside the policy a generated module is loaded with one comprehension for each clause, so that one question gives what
each of them contributes; a denial is then known by its value. Where an author's clause only passes on what another set
holds (``deny contains d if some d in lib.always``), the clauses of that set are named behind it.

Decides nothing: the denials are those of a decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy.authoring.clauses import (
    HELPERS,
    HELPERS_NAME,
    Clause,
    Clauses,
    Written,
    modules_of,
)
from weighbridge.policy.authoring.origins import Caller, Source, collected, source_of
from weighbridge.policy.engine import DEFAULT_LIMITS, Denial, Limits
from weighbridge.policy.engines.process import WorkerFault
from weighbridge.policy.engines.workbench import Undefined, Workbench
from weighbridge.policy.policy_set import PolicyModule
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence, PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from weighbridge.policy.checker.syntax import Module, Node
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.policy_set import PolicySet

__all__ = ["DENY", "Attributed", "Attributor", "Head", "Heads", "Made", "is_denial", "open_bench"]

DENY: Final = "weighbridge.policy.deny"

_MEMBERS: Final = ("code", "window", "device", "expected", "got", "hint")


@dataclass(frozen=True, slots=True)
class Made:
    """A clause of a set, and the clauses of another set behind it, from which it takes what it holds."""

    clause: Clause
    behind: tuple[Made, ...] = ()

    @property
    def sources(self) -> tuple[Clause, ...]:
        """The clauses that say it in the first place: the innermost."""
        return tuple(source for made in self.behind for source in made.sources) or (self.clause,)


@dataclass(frozen=True, slots=True)
class Attributed:
    """A denial and the clauses of ``deny`` that make it: none for an invariant's, or one of the engine's failures."""

    denial: Denial
    made_by: tuple[Made, ...]

    @property
    def sources(self) -> tuple[Clause, ...]:
        """The clauses that say it in the first place, in order, each once."""
        return tuple(sorted({source for made in self.made_by for source in made.sources}))


@dataclass(frozen=True, slots=True)
class Head:
    """A clause that leads to ``deny``: its generated rule, and the sets that it only passes on, if any."""

    source: Source
    clause: Clause
    generated: str
    passes_on: tuple[str, ...]


@final
class Heads:
    """What each clause contributes to ``deny``: the generated rules that list it, and how to read their answer.

    Attributes:
        written: the generated rules.
        query: gives what :meth:`made` reads.
    """

    def __init__(self, clauses: Clauses) -> None:
        self._clauses: Clauses = clauses
        self._heads: dict[str, list[Head]] = {}
        self.written: list[Written] = []
        self._add(DENY, [source_of(module, rule) for module, rule in clauses.of(DENY, "set")])
        self.query: str = self._collect()

    def all(self) -> Iterator[Head]:
        """Every clause that leads to ``deny``."""
        for heads in self._heads.values():
            yield from heads

    def holding(self, answer: strict.JsonValue | Undefined) -> set[str]:
        """The generated names of the clauses that hold, by the answer to :attr:`query`."""
        return {
            name
            for part in (answer if isinstance(answer, list) else [])
            for name, values in (part.items() if isinstance(part, dict) else ())
            if values
        }

    def made(self, denial: Denial, answer: strict.JsonValue | Undefined) -> tuple[Made, ...]:
        """The clauses of ``deny`` that make ``denial``, by the answer to :attr:`query`."""
        lists: dict[str, list[strict.JsonValue]] = {}
        for part in answer if isinstance(answer, list) else []:
            for name, values in part.items() if isinstance(part, dict) else ():
                lists[name] = values if isinstance(values, list) else []
        holding = {name for name, values in lists.items() if any(is_denial(value, denial) for value in values)}
        return self._of(DENY, holding)

    def _of(self, name: str, holding: set[str]) -> tuple[Made, ...]:
        return tuple(
            Made(head.clause, tuple(made for other in head.passes_on for made in self._of(other, holding)))
            for head in self._heads[name]
            if head.generated in holding
        )

    def _add(self, name: str, sources: list[Source]) -> None:
        if name not in self._heads:
            self._heads[name] = []
            self._heads[name] = [self._head(source) for source in sources]

    def _head(self, source: Source) -> Head:
        generated = f"{self._clauses.prefix}h{len(self.written)}"
        self.written += source.listed(generated, self._clauses.prefix)
        clause = self._clauses.clause(source.module, source.rule)
        clause = Clause(clause.module, source.line, clause.name)
        return Head(source, clause, generated, self._passes_on(source))

    def _passes_on(self, source: Source) -> tuple[str, ...]:
        """The sets of which the clause holds the elements themselves."""
        if source.key is None or source.key.kind != "Var" or source.caller is not None:
            return ()
        for number, statement in enumerate(source.statements):
            value = statement.part("value")
            if statement.kind == "SomeIn" and value is not None and value.text == source.key.text:
                before = source.statements[:number]
                return tuple(self._sets(source.module, statement.part("collection"), before))
        return ()

    def _sets(self, module: Module, node: Node | None, before: tuple[Node, ...]) -> Iterator[str]:
        """The sets that ``node`` is made of, as far as rules of the policy fill them; none if any is computed."""
        if node is None:
            return
        if node.kind == "BinExpr" and node.text in ("Or", "Union"):
            sides = [list(self._sets(module, side, before)) for side in (*node.all("lhs"), *node.all("rhs"))]
            yield from (name for names in sides for name in names if all(sides))
            return
        name = self._clauses.full_name(module, node.part("fcn") if node.kind == "Call" else node)
        if found := self._clauses.of(name, "set"):
            self._add(name, [source_of(other, rule) for other, rule in found])
            yield name
            return
        caller = Caller(module, before, tuple(module.source(param.span) for param in node.all("params")))
        made = [
            source
            for other, rule in self._clauses.of(name, "complete", "function")
            for source in collected(other, rule, caller)
        ]
        if made:
            key = f"{name} {len(self.written)}"
            self._add(key, made)
            yield key

    def _collect(self) -> str:
        """One rule in each package that gathers its own; the query for all of them."""
        gathered = f"{self._clauses.prefix}heads"
        packages: dict[str, list[tuple[Module, str]]] = {}
        for head in self.all():
            module = head.source.asked_in
            packages.setdefault(module.package, []).append((module, head.generated))
        for items in packages.values():
            members = "".join(f'\t"{name}": {name},\n' for _, name in items)
            self.written.append(Written(items[0][0], gathered, f"{gathered} := {{\n{members}}}"))
        return f"[{', '.join(f'data.{package}.{gathered}' for package in packages)}]"


def is_denial(value: strict.JsonValue, denial: Denial) -> bool:
    """Whether a policy's object is read as ``denial``."""
    if not isinstance(value, dict):
        return False
    shown = (denial.code, denial.window, denial.device, denial.expected, denial.got, denial.hint)
    return (*(value.get(name) for name in _MEMBERS), value.get("message") or value.get("code")) == (
        *shown,
        denial.message,
    )


@final
class Attributor:
    """Names clauses for documents, one exchange with a worker for each. Not for two threads at once; close it.

    Args:
        policy: a set that the checker accepts.
        limits: as for decisions.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: it does not load.
        EnvironmentFault: no worker can be started.
    """

    def __init__(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> None:
        self._policy: PolicySet = policy
        self._limits: Limits = limits
        with open_bench(policy, limits) as plain:
            clauses = Clauses(plain.syntax)
        self._heads: Heads = Heads(clauses)
        self._generated: tuple[PolicyModule, ...] = modules_of(self._heads.written, clauses.prefix)
        self._bench: Workbench | None = None

    def rules_of(self, document: PolicyInput, denials: Iterable[Denial]) -> tuple[Attributed, ...]:
        """``denials`` of the decision on ``document``, each with its clauses.

        Where the policy does not answer in time, or ends in an error, no clause is named.

        Raises:
            EnvironmentFault: a worker had to be replaced, and none can be started.
        """
        wanted = tuple(denials)
        try:
            if self._bench is None:
                self._bench = open_bench(self._policy, self._limits, self._generated)
            now = strict.decimal(document.received_ns, what="received_ns")
            answer = self._bench.evaluate(self._heads.query, document.to_json(), now_ns=now).value
        except (WorkerFault, MalformedEvidence, PolicyDenied):
            self.close()
            return tuple(Attributed(denial, ()) for denial in wanted)
        return tuple(Attributed(denial, self._heads.made(denial, answer)) for denial in wanted)

    def close(self) -> None:
        """End the worker. May be called again; asked once more, it starts another."""
        if self._bench is not None:
            self._bench.close()
            self._bench = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_bench(policy: PolicySet, limits: Limits, generated: Iterable[PolicyModule] | None = None) -> Workbench:
    """A bench with ``policy`` and modules generated for it; without any, one that has the syntax trees.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: they do not load.
        EnvironmentFault: no worker can be started.
    """
    modules = policy.modules
    if generated is not None:
        modules = (*modules, PolicyModule(HELPERS_NAME, HELPERS.encode()), *generated)
    try:
        return Workbench(modules, policy.document(), limits=limits, syntax=generated is None)
    except WorkerFault as fault:
        raise PolicyDenied(Code.POLICY_INVALID, f"the policy does not load: {fault}") from fault
