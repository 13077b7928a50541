"""Runs an author's tests: rules named ``test_…`` of test modules, and golden inputs.

A test passes when its value is exactly ``true``. Undefined, ``false`` and anything else fail, and so does an engine
that ends in an error, takes too long or dies; the next test then has another. Two clauses of one name would hide each
other's failure and are a failure themselves. The present, in tests, is when the examples were received. A golden input
passes when the decision is as it says; the present is then when it was received.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.policy.authoring.coverage import Coverage, coverage_of
from weighbridge.policy.authoring.explain import Explainer
from weighbridge.policy.authoring.sides import Question, ask, question
from weighbridge.policy.authoring.telling import sentence
from weighbridge.policy.authoring.trial import NOW_NS, Fault, Trial
from weighbridge.policy.checker.check import AUTHOR_PACKAGE
from weighbridge.policy.checker.entries import TEST_PACKAGE
from weighbridge.policy.engine import DEFAULT_LIMITS, Limits
from weighbridge.policy.engines.workbench import Undefined
from weighbridge.proto import strict
from weighbridge.proto.errors import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from weighbridge.policy.authoring.golden import Golden
    from weighbridge.policy.checker.syntax import Module, Node, Rule
    from weighbridge.policy.engine import Decision
    from weighbridge.policy.engines.workbench import Lines
    from weighbridge.policy.policy_set import PolicyModule, PolicySet

__all__ = ["Report", "Result", "Suite", "run"]

_PREFIX: Final = "test_"
_VALUE_MAX: Final = 200
_EXPLAINED_MAX: Final = 20
_NOTHING: Final[strict.JsonObject] = {}


@dataclass(frozen=True, slots=True)
class Suite:
    """What is tested by what. Golden inputs have the names of their files."""

    policy: PolicySet
    tests: tuple[PolicyModule, ...] = ()
    golden: tuple[tuple[str, Golden], ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one test.

    ``failure`` has the lines that say what is wrong, and none where it passed. ``because`` says of a golden input that
    failed, in sentences, why the policy decides as it does.
    """

    kind: Literal["rule", "golden"]
    file: str
    line: int | None
    name: str
    failure: tuple[str, ...]
    prints: tuple[str, ...]
    seconds: float
    because: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it is as it should be."""
        return not self.failure


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all, in order of files and lines."""

    results: tuple[Result, ...]
    coverage: Coverage

    @property
    def failed(self) -> tuple[Result, ...]:
        """Those that failed."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def passed(self) -> bool:
        """Whether there were tests, and every one passed."""
        return bool(self.results) and not self.failed


def run(
    suite: Suite,
    *,
    selected: Callable[[str], bool] = lambda _: True,
    covering: Collection[str] = (AUTHOR_PACKAGE,),
    limits: Limits = DEFAULT_LIMITS,
) -> Report:
    """Run the tests.

    Args:
        suite: a policy and its tests; the checker is asked first.
        selected: which tests to run, by their names; golden inputs by the names of their files, or their titles.
        covering: the packages of the policy whose lines are counted: not the library's, for most.
        limits: of each evaluation, as for decisions.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: a module does not parse, or the checker finds an error in the policy or in a
            test module.
        EnvironmentFault: no worker can be started.
    """
    reports: list[Mapping[str, Lines]] = []
    results: list[Result] = []
    with Trial(suite.policy, beside=suite.tests, limits=limits, coverage=True) as trial:
        trial.refuse_errors()
        results += _explained(suite, _rules(trial, _test_modules(trial.syntax, suite.tests), selected))
        counted = {module.name for module in trial.syntax if module.package in covering}
        reports.append(trial.coverage())
    groups: defaultdict[tuple[bytes, bytes], list[tuple[str, Golden]]] = defaultdict(list)
    for name, golden in suite.golden:
        if selected(name) or selected(golden.title):
            groups[golden.reference.digest, strict.json_encode(golden.author)].append((name, golden))
    found: dict[str, Result] = {}
    for group in groups.values():
        policy = group[0][1].policy(suite.policy)
        with Trial(policy, limits=limits, coverage=True) as trial:
            ran = [(golden, *_golden(trial, name, golden)) for name, golden in group]
            reports.append(trial.coverage())
            found.update((result.file, result) for result in _with_reasons(policy, trial, ran, limits))
    results += [found[name] for name, _ in suite.golden if name in found]
    covered = coverage_of((module for module in suite.policy.modules if module.name in counted), reports)
    return Report(tuple(results), covered)


def _test_modules(syntax: Sequence[Module], tests: Sequence[PolicyModule]) -> list[Module]:
    names = {module.name for module in tests}
    return [module for module in syntax if module.name in names]


def _explained(suite: Suite, ran: Iterable[tuple[Result, Question | None]]) -> Iterator[Result]:
    """The results, and of those that failed what they saw."""
    listed = list(ran)
    questions = [asked for _, asked in listed if asked is not None]
    seen = ask(suite.policy, suite.tests, questions)
    for result, asked in listed:
        lines = () if asked is None else tuple(seen.get(asked.test, ()))
        yield replace(result, failure=result.failure + lines) if lines else result


def _rules(
    trial: Trial, modules: Sequence[Module], selected: Callable[[str], bool]
) -> Iterator[tuple[Result, Question | None]]:
    clauses: defaultdict[str, list[tuple[Module, Rule]]] = defaultdict(list)
    for module in modules:
        for rule in module.rules:
            if rule.name.startswith(_PREFIX) and selected(rule.name):
                clauses[rule.name].append((module, rule))
    for name, listed in clauses.items():
        (module, rule), *others = listed
        began = time.perf_counter()
        prints: tuple[str, ...] = ()
        asked: Question | None = None
        if others:
            again, second = others[0]
            failure: tuple[str, ...] = (
                f"{name} stands twice, again at {again.name}:{second.line}: one would hide that the other fails",
            )
        elif rule.kind != "complete":
            failure = (f"it is a {rule.kind}, and not a test: write {name} if {{ … }}",)
        else:
            failure, prints, asked = _rule(trial, module, rule)
        seconds = time.perf_counter() - began
        yield Result("rule", module.name, rule.line, name, failure, prints, seconds), asked


def _rule(trial: Trial, module: Module, rule: Rule) -> tuple[tuple[str, ...], tuple[str, ...], Question | None]:
    """Why it failed, what it printed, and what to ask about where it ended."""
    found = trial.evaluate(f"data.{TEST_PACKAGE}.{rule.name}", strict.json_encode(_NOTHING), now_ns=NOW_NS)
    if isinstance(found, Fault):
        return (_fault(found),), (), None
    if found.value is True:
        return (), found.prints, None
    if not isinstance(found.value, Undefined):
        shown = shorten(strict.json_encode(found.value).decode(), _VALUE_MAX)
        return (f"it is {shown}, not true",), found.prints, None
    stop = _stop(rule, trial.coverage()[module.name].covered)
    if stop is None:
        return ("it is undefined",), found.prints, None
    text = module.source(stop.span).split("\n")
    where = [f"{number:>6}  {line.strip()}" for number, line in enumerate(text, stop.line)]
    return ("this does not hold:", *where), found.prints, question(module, rule, stop)


def _stop(rule: Rule, reached: frozenset[int]) -> Node | None:
    """The last statement that was looked at: what the body came to nothing at."""
    statements = [statement for body in rule.bodies for statement in body.all("statement")]
    return max((item for item in statements if item.line in reached), key=lambda item: item.line, default=None)


def _golden(trial: Trial, name: str, golden: Golden) -> tuple[Result, Decision]:
    began = time.perf_counter()
    tried = trial.decide(golden.input)
    differences = golden.expect.differences(tried.decision)
    if differences and tried.decision.detail:
        differences += (tried.decision.detail,)
    seconds = time.perf_counter() - began
    return Result("golden", name, None, golden.title, differences, tried.prints, seconds), tried.decision


def _with_reasons(
    policy: PolicySet, trial: Trial, ran: Sequence[tuple[Golden, Result, Decision]], limits: Limits
) -> Iterator[Result]:
    """The results, and of the first few that failed, why the policy decides as it does."""
    failed = [result.file for _, result, _ in ran if not result.passed][:_EXPLAINED_MAX]
    if not failed:
        yield from (result for _, result, _ in ran)
        return
    with Explainer(policy, trial.prepared, limits) as explainer:
        for golden, result, decision in ran:
            if result.file not in failed:
                yield result
                continue
            explained = explainer.of(golden.input, decision)
            yield replace(result, because=tuple(sentence(reason, golden.input) for reason in explained.reasons))


def _fault(fault: Fault) -> str:
    said = {
        "error": "the policy ends in an error",
        "timeout": "the policy takes too long",
        "crashed": "the policy engine died",
    }
    return f"{said.get(fault.outcome, fault.outcome)}: {fault.text}"
