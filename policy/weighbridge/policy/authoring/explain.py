"""Why a policy decides as it does about one document: which rule, which line, the compared values on both sides.

The decision itself is made as always, by the engine; an explanation is then read from the same engine, beside it, by
rules written about the policy's own (:mod:`.tracing`). It can say less than it might (where the engine gives no answer,
or a rule is too long), and never says something else than the decision: every denial of that stands in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy.authoring.attribution import Heads, Made, is_denial, open_bench
from weighbridge.policy.authoring.clauses import Clause, Clauses, modules_of, one_line
from weighbridge.policy.authoring.origins import allowing
from weighbridge.policy.authoring.plans import Fired
from weighbridge.policy.authoring.reasons import Binding, Statement, Way
from weighbridge.policy.authoring.tracing import Tracer
from weighbridge.policy.engine import DEFAULT_LIMITS, Decision, Denial, Limits
from weighbridge.policy.engines.output import invariants
from weighbridge.policy.engines.process import WorkerFault
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.engines.workbench import UNDEFINED, Undefined
from weighbridge.proto import strict
from weighbridge.proto.errors import MalformedEvidence, PolicyDenied

if TYPE_CHECKING:
    from types import TracebackType

    from weighbridge.policy.checker.syntax import Module
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Prepared
    from weighbridge.policy.engines.workbench import Workbench
    from weighbridge.policy.policy_set import PolicySet

__all__ = ["Explainer", "Explanation", "Failed", "Grounds", "Reason"]

ALLOW: Final = "weighbridge.policy.allow"
_ENTRIES: Final = ("deny", "allow", "unchecked", "warn", "trust_claims", "obligations")
_PLACE: Final = re.compile(r"([^\s:]+):([0-9]+)")
# Of the clauses that hold together, each is looked at alone once one of them could not be.
_RETRIES_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Grounds:
    """A clause that holds: what its names stand for, and what its statements see."""

    clause: Clause
    bindings: tuple[Binding, ...]
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """One denial explained.

    Attributes:
        denial: as decided.
        made_by: the clauses of ``deny`` that make it; none for an invariant, for a failure of the engine, and for what
            a policy of another verifier says beside this one.
        grounds: of each clause that says it in the first place, why it holds; none where it could not be looked into.
        invariant: no rule makes it; it stands above every policy.
    """

    denial: Denial
    made_by: tuple[Made, ...] = ()
    grounds: tuple[Grounds, ...] = ()
    invariant: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """Where a policy ended without an answer: the clause, its source on one line, what happened there."""

    clause: Clause | None
    source: str
    what: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, and why.

    Attributes:
        decision: the engine's.
        reasons: one for each denial, in the decision's order.
        allow: the clauses of ``allow`` that hold.
        refused: where nothing is denied and ``allow`` is still not true: its clauses, as far as each came.
        examined: the clauses that could have denied, and did not.
        failed: where the policy ended, if it gave no answer.
        note: what could not be looked into, in words; empty if nothing.
    """

    decision: Decision
    reasons: tuple[Reason, ...]
    allow: tuple[Grounds, ...] = ()
    refused: tuple[Way, ...] = ()
    examined: tuple[Clause, ...] = ()
    failed: Failed | None = None
    note: str = ""


@dataclass(slots=True)
class _Found:
    """What clauses that hold see, by the generated name of each."""

    answers: dict[str, strict.JsonValue] = field(default_factory=dict)
    note: str = ""
    invariants: tuple[Denial, ...] = ()


@final
class Explainer:
    """Explains decisions of one policy. Not for two threads at once; close it.

    Args:
        policy: the set.
        prepared: the same set as loaded to decide; by default it is loaded here.
        limits: as for decisions; each question about a document has that much time.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: it does not load, or the checker refuses it.
        EnvironmentFault: no worker can be started.
    """

    def __init__(self, policy: PolicySet, prepared: Prepared | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        self._policy: PolicySet = policy
        self._limits: Limits = limits
        self._own: Prepared | None = RegorusEngine().load(policy, limits) if prepared is None else None
        self._bench: Workbench | None = None
        try:
            with open_bench(policy, limits) as plain:
                self._clauses: Clauses = Clauses(plain.syntax)
        except BaseException:
            self.close()
            raise
        self._prepared: Prepared | None = prepared
        self._heads: Heads = Heads(self._clauses)
        tracer = Tracer(self._clauses)
        self._fired: dict[str, Fired] = {head.generated: tracer.fired(head.source) for head in self._heads.all()}
        self._allow: list[tuple[Clause, Fired]] = [
            (self._clauses.clause(module, rule), tracer.fired(allowing(module, rule)))
            for module, rule in self._clauses.of(ALLOW, "complete")
        ]
        self._refused = tracer.ways(ALLOW)
        self._generated = {
            True: modules_of([*self._heads.written, *tracer.written], self._clauses.prefix),
            False: modules_of(self._heads.written, self._clauses.prefix),
        }

    def explain(self, document: PolicyInput) -> Explanation:
        """The decision on ``document``, and why. Never raises for what the policy does.

        Raises:
            MalformedEvidence: the document holds a value that evidence must not have.
            EnvironmentFault: no worker can be started.
        """
        return self.of(document, self.decide(document))

    def decide(self, document: PolicyInput) -> Decision:
        """The decision alone: what :meth:`of` explains.

        Raises:
            MalformedEvidence, EnvironmentFault: as :meth:`explain`.
        """
        prepared = self._prepared or self._own
        if prepared is None:
            raise RuntimeError("the explainer is closed")
        return prepared.decide(document)

    def of(self, document: PolicyInput, decision: Decision) -> Explanation:
        """Why ``decision`` is as it is, which was made on ``document`` under this policy.

        Raises:
            MalformedEvidence, EnvironmentFault: as :meth:`explain`.
        """
        asked = _Asked(document.to_json(), strict.decimal(document.received_ns, what="received_ns"))
        if decision.outcome not in ("allow", "deny"):
            return Explanation(
                decision, tuple(Reason(item) for item in decision.denials), failed=self._failure(decision, asked)
            )
        try:
            answer = self._evaluate(self._heads.query, asked, traced=True)
        except (WorkerFault, MalformedEvidence, PolicyDenied) as error:
            reasons = tuple(Reason(item) for item in decision.denials)
            return Explanation(decision, reasons, note=f"the rules could not be looked into: {_brief(error)}")
        made = {item: self._heads.made(item, answer) for item in decision.denials}
        holding = self._heads.holding(answer)
        found = self._look(asked, [self._fired[name].query for name in sorted(holding)])
        found.invariants = invariants(document)
        reasons = tuple(self._reason(item, made[item], found, holding) for item in decision.denials)
        examined = tuple(
            head.clause for head in self._heads.all() if head.generated not in holding and not head.passes_on
        )
        allow, refused = self._allowed(decision, asked, found)
        return Explanation(decision, reasons, allow, refused, examined, note=found.note)

    def close(self) -> None:
        """End the workers. May be called again."""
        self._close_bench()
        if self._own is not None:
            self._own.close()
            self._own = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reason(self, denial: Denial, made: tuple[Made, ...], found: _Found, holding: set[str]) -> Reason:
        sources = {source for item in made for source in item.sources}
        grounds: list[Grounds] = []
        for head in self._heads.all():
            if head.clause in sources and head.generated in holding:
                fired = self._fired[head.generated]
                ways = fired.read(found.answers.get(fired.query))
                grounds += [
                    Grounds(head.clause, names, seen) for value, names, seen in ways if is_denial(value, denial)
                ][:1]
        return Reason(denial, made, tuple(grounds), invariant=not made and denial in found.invariants)

    def _allowed(self, decision: Decision, asked: _Asked, found: _Found) -> tuple[tuple[Grounds, ...], tuple[Way, ...]]:
        if decision.outcome == "allow":
            seen = self._look(asked, [fired.query for _, fired in self._allow])
            found.note = found.note or seen.note
            return tuple(
                Grounds(clause, names, statements)
                for clause, fired in self._allow
                for _, names, statements in fired.read(seen.answers.get(fired.query))[:1]
            ), ()
        if any(denial.code != "POLICY_DENIED" for denial in decision.denials):
            return (), ()
        seen = self._look(asked, [plan.call for plan in self._refused])
        found.note = found.note or seen.note
        ways = (plan.read(seen.answers.get(plan.call)) for plan in self._refused)
        return (), tuple(way for way in ways if way is not None)

    def _look(self, asked: _Asked, queries: list[str]) -> _Found:
        """Several questions at once; where that fails, one by one, so that one of them spoils no other."""
        found = _Found()
        try:
            answers = self._evaluate(f"[{', '.join(queries)}]", asked, traced=True) if queries else []
            found.answers = dict(zip(queries, answers if isinstance(answers, list) else [], strict=False))
        except (WorkerFault, MalformedEvidence, PolicyDenied):
            faults = 0
            for query in queries:
                try:
                    found.answers[query] = self._evaluate(query, asked, traced=True)
                except (WorkerFault, MalformedEvidence, PolicyDenied) as error:
                    faults += 1
                    found.note = f"a rule could not be looked into: {_brief(error)}"
                    if faults == _RETRIES_MAX:
                        break
        return found

    def _evaluate(self, query: str, asked: _Asked, *, traced: bool) -> strict.JsonValue:
        if self._bench is None:
            self._bench = open_bench(self._policy, self._limits, self._generated[traced])
        try:
            value = self._bench.evaluate(query, asked.document, now_ns=asked.now_ns).value
        except (WorkerFault, MalformedEvidence):
            self._bench.close()
            self._bench = None
            raise
        return None if isinstance(value, Undefined) else value

    def _failure(self, decision: Decision, asked: _Asked) -> Failed | None:
        """Where the policy ended: the place that the engine names, or the first clause that ends alike by itself."""
        place = _PLACE.match(decision.detail)
        if place is not None:
            line = strict.decimal(place.group(2), what="line")
            for module in self._clauses.modules:
                if module.name == place.group(1):
                    source = module.text.decode().split("\n")[line - 1 : line]
                    return Failed(self._at(module, line), " ".join(source).strip(), decision.detail[place.end() + 2 :])
        words = {"timeout": "it takes too long", "crashed": "the engine dies", "undefined": "it has no value"}
        self._close_bench()
        names = [(head.source.asked_in, head.source.line, head.generated) for head in self._heads.all()]
        entries = [item for name in _ENTRIES for item in self._clauses.of(f"weighbridge.policy.{name}")[:1]]
        names += [(module, rule.line, rule.name) for module, rule in entries]
        for module, line, name in names:
            try:
                bench = self._bench or open_bench(self._policy, self._limits, self._generated[False])
                self._bench = bench
                value = bench.evaluate(f"data.{module.package}.{name}", asked.document, now_ns=asked.now_ns).value
            except (WorkerFault, MalformedEvidence, PolicyDenied) as error:
                self._bench = None
                return Failed(self._at(module, line), _line(module, line), words.get(decision.outcome, _brief(error)))
            if value is UNDEFINED and decision.outcome == "undefined":
                return Failed(self._at(module, line), _line(module, line), words["undefined"])
        self._close_bench()
        return None

    def _close_bench(self) -> None:
        if self._bench is not None:
            self._bench.close()
            self._bench = None

    def _at(self, module: Module, line: int) -> Clause | None:
        """The clause in which a line is."""
        before = [rule for rule in module.rules if rule.line <= line]
        return self._clauses.clause(module, max(before, key=lambda rule: rule.line)) if before else None


@dataclass(frozen=True, slots=True)
class _Asked:
    """The document as the engine sees it, and the time that it is told."""

    document: bytes
    now_ns: int


def _line(module: Module, line: int) -> str:
    rule = next((rule for rule in module.rules if rule.line == line), None)
    return "" if rule is None else one_line(module, rule.span)


def _brief(error: Exception) -> str:
    """The engine's own words, without the picture that it draws."""
    text = str(error)
    return text.rsplit("error: ", 1)[-1].strip()[:200]
