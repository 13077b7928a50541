"""A policy tried on documents: the decision, with what it printed and which lines took part.

The engine, its limits and the reading of its answer are those of :mod:`weighbridge.policy.engines.regorus`, so that a
decision here is the verifier's; two things differ. ``print`` may stand in a policy that is tried, and test modules,
examples and other data are loaded beside it. A trial survives whatever a policy does: a worker that died is replaced.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy.adapters.beside import beside as with_foreign
from weighbridge.policy.authoring.aliases import unaliased
from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.checker.check import check_tests
from weighbridge.policy.checker.findings import errors
from weighbridge.policy.engine import DEFAULT_LIMITS, Decision, Limits, Outcome, Prepared
from weighbridge.policy.engines.loading import not_loaded, optional_rules
from weighbridge.policy.engines.prepared import PreparedPolicy, place_and_error
from weighbridge.policy.engines.process import WorkerFault, WorkerRefused, WorkerTimeout
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.engines.workbench import UNDEFINED, Evaluation, Lines, Workbench
from weighbridge.policy.policy_set import LIBRARY
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from weighbridge.policy.checker.findings import CheckerFinding
    from weighbridge.policy.checker.syntax import Module
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.policy_set import AuthorData, PolicyModule, PolicySet

__all__ = ["NOW_NS", "Fault", "Trial", "Tried", "examples"]

_ENGINE: Final = RegorusEngine()
_PRINT: Final = "print-in-policy"
NOW_NS: Final = max(strict.decimal(example.input.received_ns, what="received_ns") for example in EXAMPLES.values())
"""What ``time.now_ns()`` gives in tests: when the examples were received."""


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
    """A policy in a workbench. Not for two threads at once. Close it after use.

    Args:
        policy: it is not checked here: see :meth:`refuse_errors`.
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
        self._modules: tuple[PolicyModule, ...] = (*policy.modules, *beside)
        self._data: strict.JsonObject = {**policy.document(), **({"examples": examples()} if beside else {})}
        self._author: AuthorData | None = policy.data
        self._limits: Limits = limits
        self._coverage: bool = coverage
        self._covered: defaultdict[str, set[int]] = defaultdict(set)
        self._lines: defaultdict[str, set[int]] = defaultdict(set)
        self._tests: frozenset[str] = frozenset(module.name for module in beside)
        self._bench: Workbench | None = self._load()
        self.syntax: tuple[Module, ...] = self._bench.syntax
        self._spell_out(policy, beside)
        self._printed: list[str] = []
        own = PreparedPolicy(
            _Evaluator(self.run, self._printed),
            policy=policy,
            limits=limits,
            optional=optional_rules(self.syntax),
            engine=(_ENGINE.name, _ENGINE.version),
        )
        try:
            self.prepared: Prepared = with_foreign(own, policy, limits)
        except BaseException:
            self._bench.close()
            raise

    def findings(self) -> tuple[CheckerFinding, ...]:
        """Everything that the checker has against the policy and the test modules beside it.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: it is nested too deeply to be looked at.
        """
        author = None if self._author is None else self._author.content()
        return check_tests(self.syntax, LIBRARY, tests=self._tests, examples=frozenset(EXAMPLES), author=author)

    def refuse_errors(self) -> None:
        """Ask the checker; ``print`` is what it lets pass here, and what it refuses in a policy that is loaded.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: the first error that it finds.
        """
        found = [item for item in errors(self.findings()) if item.check != _PRINT]
        if found:
            first, *others = found
            raise PolicyDenied(
                Code.POLICY_INVALID,
                f"{first.message}{f' ({len(others)} more)' if others else ''}",
                where=f"{first.module}:{first.line}",
                clause=f"checker {first.check}",
                hint=f"{first.safe}; `weighbridge policy check` says why",
            )

    def decide(self, document: PolicyInput) -> Tried:
        """The decision on one window. Whatever the policy does ends in an outcome, not an exception.

        Raises:
            MalformedEvidence: the document holds a value that evidence must not have (see ``to_json``).
            EnvironmentFault: a worker had to be replaced, and none can be started.
        """
        self._printed.clear()
        decision = self.prepared.decide(document)
        return Tried(decision, tuple(self._printed))

    def evaluate(self, query: str, document: bytes, *, now_ns: int) -> Evaluation | Fault:
        """The value of any expression; see :meth:`Workbench.evaluate`.

        Raises:
            EnvironmentFault: a worker had to be replaced, and none can be started.
        """
        try:
            return self.run(query, document, now_ns=now_ns)
        except WorkerTimeout as fault:
            return Fault("timeout", str(fault))
        except WorkerRefused as fault:
            place, error = place_and_error(str(fault))
            return Fault("error", f"{place}: {error}" if place else error)
        except WorkerFault as fault:
            return Fault("crashed", str(fault))

    def run(self, query: str, document: bytes, *, now_ns: int) -> Evaluation:
        """As :meth:`evaluate`, for whoever reads faults itself.

        Raises:
            WorkerFault: an error, a timeout or a crash.
            EnvironmentFault: as :meth:`evaluate`.
        """
        if self._bench is None:
            self._bench = self._load()
        try:
            found = self._bench.evaluate(query, document, now_ns=now_ns)
            if self._coverage:
                self._count(self._bench.coverage())
        except WorkerFault:
            self._bench.close()
            self._bench = None
            raise
        return found

    def coverage(self) -> Mapping[str, Lines]:
        """Lines by module since the beginning. What an evaluation that ended in a fault took part in is not counted."""
        return {
            name: Lines(frozenset(self._covered[name]), frozenset(lines - self._covered[name]))
            for name, lines in self._lines.items()
        }

    def close(self) -> None:
        """End the workers. May be called again."""
        self.prepared.close()
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
            raise not_loaded(fault) from fault

    def _spell_out(self, policy: PolicySet, beside: Sequence[PolicyModule]) -> None:
        """Load once more with full paths in the modules beside the policy, where aliases would lose something."""
        spelt = unaliased(beside, self.syntax)
        if spelt != tuple(beside):
            if self._bench is not None:
                self._bench.close()
            self._modules = (*policy.modules, *spelt)
            self._bench = self._load()

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


@final
class _Evaluator:
    """A trial as what decisions are read from; keeps what was printed."""

    def __init__(self, run: Callable[..., Evaluation], printed: list[str]) -> None:
        self._run: Callable[..., Evaluation] = run
        self._printed: list[str] = printed

    def evaluate(self, query: bytes, document: bytes, *, now_ns: int) -> bytes:
        """See :class:`weighbridge.policy.engines.prepared.Evaluator`."""
        found = self._run(query.decode(), document, now_ns=now_ns)
        self._printed.extend(found.prints)
        return _answer(found)

    def close(self) -> None:
        """The trial stays open: whoever made it closes it."""


def _answer(found: Evaluation) -> bytes:
    """The engine's answer once more, for the same reader that decisions have."""
    if found.value is UNDEFINED:
        return b"{}"
    return strict.json_encode({"result": [{"expressions": [{"value": found.value, "text": "", "location": {}}]}]})
