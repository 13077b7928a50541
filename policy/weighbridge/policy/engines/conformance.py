"""Runs the conformance cases on an engine: whether it reads Rego as the checker and the policies take it to.

An engine that fails a case is not one to decide with. All cases are loaded at once, past the checker, each in a package
of its own; nothing of them decides anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from weighbridge.policy.engine import DEFAULT_LIMITS, Limits
from weighbridge.policy.engines.conformance_cases import CASES, DATA, ERROR, NOW_NS, Case, Failure
from weighbridge.policy.engines.process import WorkerFault, WorkerRefused
from weighbridge.policy.engines.workbench import UNDEFINED, Undefined, read_value
from weighbridge.policy.policy_set import PolicyModule
from weighbridge.proto import strict
from weighbridge.proto.errors import MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.policy.engines.prepared import Evaluator

__all__ = ["CASES", "BenchEngine", "CaseResult", "run"]

_HEAD = "package conformance.case{}\n\nimport rego.v1\n\n{}\n"


class BenchEngine(Protocol):
    """An engine whose answers can be looked at, before any decision is read from them."""

    @property
    def name(self) -> str:
        """The engine's name."""
        ...

    @property
    def version(self) -> str:
        """The engine's exact version."""
        ...

    def bench(self, modules: Sequence[PolicyModule], data: strict.JsonObject, limits: Limits) -> Evaluator:
        """``modules`` and ``data`` loaded, past the checker: for tools only.

        Raises:
            WorkerFault: they do not load.
            EnvironmentFault: no process can be started.
        """
        ...


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of one case: ``got`` in words where that is not what is expected, else empty."""

    case: Case
    got: str

    @property
    def passed(self) -> bool:
        """Whether the engine gave the expected answer."""
        return not self.got


def run(engine: BenchEngine, cases: Sequence[Case] = CASES, limits: Limits = DEFAULT_LIMITS) -> tuple[CaseResult, ...]:
    """The result of every case.

    Raises:
        WorkerFault: the cases do not load at all.
        EnvironmentFault: no process can be started.
    """
    modules = [
        PolicyModule(f"case{number}.rego", _HEAD.format(number, case.rules).encode())
        for number, case in enumerate(cases)
    ]
    bench = engine.bench(modules, DATA, limits)
    try:
        return tuple(_result(bench, number, case) for number, case in enumerate(cases))
    finally:
        bench.close()


def _result(bench: Evaluator, number: int, case: Case) -> CaseResult:
    query = case.query or f"data.conformance.case{number}.answer"
    try:
        answer = bench.evaluate(query.encode(), strict.json_encode(case.document), now_ns=NOW_NS)
        got = read_value(answer)
    except WorkerRefused as refused:
        return CaseResult(case, "" if case.expected is ERROR else f"an error: {refused}")
    except (WorkerFault, MalformedEvidence) as fault:
        return CaseResult(case, str(fault))
    return CaseResult(case, "" if _same(got, case.expected) else _words(got))


def _same(got: strict.JsonValue | Undefined, expected: strict.JsonValue | Undefined | Failure) -> bool:
    """Whether both are one value. ``True`` is not 1, which Python takes it for."""
    if isinstance(got, Undefined) or isinstance(expected, (Undefined, Failure)):
        return got is expected
    return _comparable(got) == _comparable(expected)


def _comparable(value: strict.JsonValue) -> object:
    match value:
        case bool() | None | str():
            return (type(value).__name__, value)
        case int() | float():
            return ("number", value)
        case list():
            return [_comparable(item) for item in value]
        case _:
            return {key: _comparable(item) for key, item in value.items()}


def _words(got: strict.JsonValue | Undefined) -> str:
    return "undefined" if got is UNDEFINED else strict.json_encode(got).decode()[:200]
