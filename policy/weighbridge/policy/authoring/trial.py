"""A policy tried on documents: the decision, with what it printed and which lines took part.

The engine, its limits and the reading of its answer are those of :mod:`weighbridge.policy.engines.regorus`, so that a
decision here is the verifier's; two things differ. ``print`` may stand in a policy that is tried, and test modules,
examples and other data are loaded beside it. A trial survives whatever a policy does: a worker that died is replaced.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.checker.check import AUTHOR_PACKAGE, OPTIONAL_RULES
from weighbridge.policy.claims import trust_claims
from weighbridge.policy.engine import DEFAULT_LIMITS, Decision, Limits, Outcome
from weighbridge.policy.engines.output import failure, read_answer
from weighbridge.policy.engines.process import WorkerCrashed, WorkerFault, WorkerRefused, WorkerTimeout
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.engines.workbench import UNDEFINED, Evaluation, Lines, Workbench
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from weighbridge.policy.checker.syntax import Module
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.policy_set import PolicyModule, PolicySet

__all__ = ["Fault", "Trial", "Tried", "examples"]

_ENGINE: Final = RegorusEngine()


@dataclass(frozen=True, slots=True)
class Tried:
    """A decision, and the lines that the policy printed on its way."""

    decision: Decision
    prints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """An evaluation that gave no value: the outcome that this is of a decision, and the engine's words."""

    outcome: Outcome
    text: str


@final
class Trial:
    """A policy in a workbench. Close it after use.

    Args:
        policy: it is not checked here: see :func:`weighbridge.policy.authoring.checking.refuse_errors`.
        beside: modules to load beside the policy: of tests.
        limits: as for decisions.
        coverage: keep account of lines.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: the engine cannot parse a module, or not within the limits.
        EnvironmentFault: no worker can be started.
    """

    def __init__(
        self,
        policy: PolicySet,
        *,
        beside: Sequence[PolicyModule] = (),
        limits: Limits = DEFAULT_LIMITS,
        coverage: bool = False,
    ) -> None:
        self._policy: PolicySet = policy
        self._modules: tuple[PolicyModule, ...] = (*policy.modules, *beside)
        self._data: strict.JsonObject = {**policy.document(), **({"examples": examples()} if beside else {})}
        self._limits: Limits = limits
        self._coverage: bool = coverage
        self._covered: defaultdict[str, set[int]] = defaultdict(set)
        self._lines: defaultdict[str, set[int]] = defaultdict(set)
        self._bench: Workbench | None = self._load()
        self.syntax: tuple[Module, ...] = self._bench.syntax
        author = {rule.name for module in self.syntax if module.package == AUTHOR_PACKAGE for rule in module.rules}
        self._optional: tuple[str, ...] = tuple(name for name in OPTIONAL_RULES if name in author)
        names = (f"data.{AUTHOR_PACKAGE}.{name}" for name in ("allow", "deny", *self._optional))
        self._query: str = f"[{', '.join(names)}]"

    def decide(self, document: PolicyInput) -> Tried:
        """The decision on one window. Whatever the policy does ends in an outcome, not an exception.

        Raises:
            MalformedEvidence: the document holds a value that evidence must not have (see ``to_json``).
            EnvironmentFault: a worker had to be replaced, and none can be started.
        """
        data = document.to_json()
        found = self.evaluate(self._query, data, now_ns=strict.decimal(document.received_ns, what="received_ns"))
        if isinstance(found, Fault):
            output = failure(found.outcome, found.text, document.window.seq)
        else:
            output = read_answer(_answer(found), self._optional, document)
        decision = Decision(
            outcome=output.outcome,
            denials=output.denials,
            warnings=output.warnings,
            unchecked=output.unchecked,
            obligations=output.obligations,
            trust_claims=output.claims or trust_claims(document),
            policy_digest=self._policy.digest,
            reference_digest=self._policy.reference_digest,
            input_digest=sha256(data),
            engine=_ENGINE.name,
            engine_version=_ENGINE.version,
            detail=output.detail,
        )
        return Tried(decision, () if isinstance(found, Fault) else found.prints)

    def evaluate(self, query: str, document: bytes, *, now_ns: int) -> Evaluation | Fault:
        """The value of any expression; see :meth:`Workbench.evaluate`.

        Raises:
            EnvironmentFault: a worker had to be replaced, and none can be started.
        """
        if self._bench is None:
            self._bench = self._load()
        try:
            found = self._bench.evaluate(query, document, now_ns=now_ns)
            if self._coverage:
                self._count(self._bench.coverage())
        except WorkerFault as fault:
            self._bench.close()
            self._bench = None
            return fault_of(fault)
        return found

    def coverage(self) -> Mapping[str, Lines]:
        """Lines by module since the beginning. What an evaluation that ended in a fault took part in is not counted."""
        return {
            name: Lines(frozenset(self._covered[name]), frozenset(lines - self._covered[name]))
            for name, lines in self._lines.items()
        }

    def close(self) -> None:
        """End the worker. May be called again."""
        if self._bench is not None:
            self._bench.close()
            self._bench = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self) -> Workbench:
        try:
            return Workbench(self._modules, self._data, limits=self._limits, coverage=self._coverage)
        except WorkerFault as fault:
            found = fault_of(fault)
            place, _, text = found.text.rpartition(": ")
            raise PolicyDenied(Code.POLICY_INVALID, f"it does not load: {text}", where=place) from fault

    def _count(self, report: Mapping[str, Lines]) -> None:
        for name, lines in report.items():
            self._covered[name] |= lines.covered
            self._lines[name] |= lines.covered | lines.not_covered


def examples() -> strict.JsonObject:
    """What test modules read as ``data.examples``."""
    return {
        name: {
            "input": strict.json_decode(example.input.to_json(), what="example"),
            "reference": example.reference.data(),
        }
        for name, example in EXAMPLES.items()
    }


def fault_of(fault: WorkerFault) -> Fault:
    """What has become of an evaluation; an engine's words, shortened to the place and the error."""
    match fault:
        case WorkerTimeout():
            return Fault("timeout", str(fault))
        case WorkerRefused():
            return Fault("error", _words(str(fault)))
        case WorkerCrashed():
            return Fault("crashed", str(fault))
        case _:  # pragma: no cover - there are no other kinds
            raise fault


def _words(text: str) -> str:
    """``file:line: error`` of the engine's message, which draws the source."""
    lines = text.split("\n")
    place = next((line.partition("--> ")[2] for line in lines if "--> " in line), "")
    error = next((line.partition("error: ")[2] for line in reversed(lines) if "error: " in line), lines[0][:200])
    return f"{place.rpartition(':')[0]}: {error}" if place else error


def _answer(found: Evaluation) -> bytes:
    """The engine's answer once more, for the same reader that decisions have."""
    if found.value is UNDEFINED:
        return b"{}"
    return strict.json_encode({"result": [{"expressions": [{"value": found.value, "text": "", "location": {}}]}]})
