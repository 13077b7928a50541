"""Evaluates any query over a policy, with coverage and prints: what the tools of policy authors are made of.

Decides nothing: verdicts come from :class:`weighbridge.policy.engine.Prepared` alone. The same worker process with the
same limits stands behind both, so that what a tool shows is what the engine does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy.checker.syntax import Module, parse
from weighbridge.policy.engine import DEFAULT_LIMITS, Limits
from weighbridge.policy.engines.process import Program, Worker
from weighbridge.policy.policy_set import COLUMNS_MAX, LINES_MAX, MODULES_MAX, SOURCE_MAX, PolicyModule
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = ["UNDEFINED", "Evaluation", "Lines", "Undefined", "Workbench", "read_value"]


@final
class Undefined:
    """The one value of :data:`UNDEFINED`."""

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Final = Undefined()
"""What a query gives that has no value: not ``null``, which is one."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A query's value, and what the policy printed meanwhile: lines such as ``file.rego:3: text``."""

    value: strict.JsonValue | Undefined
    prints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """Of one module since it was loaded, or since the last :meth:`Workbench.coverage`: lines as counted from 1."""

    covered: frozenset[int]
    not_covered: frozenset[int]


@final
class Workbench:
    """Modules and data in a worker of their own. Not for two threads at once. Close it after use.

    Args:
        modules: any modules that parse; the checker is not asked.
        data: the whole of ``data`` beside the modules, such as ``{"reference": …}``.
        limits: as for decisions.
        coverage: keep account of lines; costs next to nothing.
        syntax: have the syntax trees; of much generated text they are large, and take longer than all the rest.

    Raises:
        WorkerFault: the modules do not load; :class:`~weighbridge.policy.engines.process.WorkerRefused` has the
            engine's own words.
        PolicyDenied: ``POLICY_INVALID``: the syntax trees hold what is not known here.
        EnvironmentFault: no worker can be started.
    """

    def __init__(
        self,
        modules: Sequence[PolicyModule],
        data: strict.JsonObject,
        *,
        limits: Limits = DEFAULT_LIMITS,
        coverage: bool = False,
        syntax: bool = True,
    ) -> None:
        self._limits: Limits = limits
        self._worker: Worker = spawn(limits)
        request = load_request(modules, data, coverage=coverage, syntax=syntax)
        try:
            tree = self._exchange(request, self._limits.load_seconds)
            self.syntax: tuple[Module, ...] = _read(tree) if syntax else ()
        except BaseException:
            self.close()
            raise

    def evaluate(self, query: str, document: bytes, *, now_ns: int) -> Evaluation:
        """The value of one expression.

        Args:
            query: an expression, such as ``data.weighbridge.policy.deny``; at most 65,535 bytes.
            document: the input, JSON.
            now_ns: what ``time.now_ns()`` gives.

        Raises:
            WorkerFault: an error, a timeout or a crash; the workbench is of no more use.
        """
        text = query.encode()
        request = b"D" + now_ns.to_bytes(8, "big") + len(text).to_bytes(2, "big") + text + document
        answer = self._exchange(request, self._limits.decide_seconds)
        prints = strict.json_decode(self._exchange(b"P", self._limits.decide_seconds), what="prints")
        lines = prints if isinstance(prints, list) else []
        return Evaluation(read_value(answer), tuple(str(line) for line in lines))

    def coverage(self) -> Mapping[str, Lines]:
        """Lines by module, and begin to count anew. Every line is not covered unless the bench keeps account.

        Raises:
            WorkerFault: as :meth:`evaluate`.
        """
        report = strict.json_decode(self._exchange(b"C", self._limits.decide_seconds), what="coverage")
        files = report.get("files") if isinstance(report, dict) else None
        found: dict[str, Lines] = {}
        for item in files if isinstance(files, list) else []:
            if isinstance(item, dict):
                found[str(item["path"])] = Lines(_numbers(item.get("covered")), _numbers(item.get("not_covered")))
        return found

    def close(self) -> None:
        """End the worker. May be called again."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, request: bytes, seconds: float) -> bytes:
        return self._worker.exchange(request, seconds=seconds, reply_max=self._limits.syntax_max)


# Author's tools load one policy several times over, as it is and beside tests, and to read a tree takes a while. What
# a worker says of a policy is remembered for the very same bytes alone: no worker can speak of another's policy.
@lru_cache(maxsize=4)
def _read(tree: bytes) -> tuple[Module, ...]:
    return parse(tree)


def spawn(limits: Limits, program: Program | None = None) -> Worker:
    """A worker with nothing loaded; of regorus when no program is named.

    Raises:
        EnvironmentFault: as :class:`~weighbridge.policy.engines.process.Worker`.
    """
    seconds = max(limits.load_seconds, limits.decide_seconds)
    return Worker(
        memory=limits.memory,
        cpu_seconds=math.ceil(seconds) + 1,
        request_max=limits.input_max + MODULES_MAX * SOURCE_MAX,
        program=program,
    )


def load_request(
    modules: Sequence[PolicyModule],
    data: strict.JsonObject,
    *,
    coverage: bool = False,
    syntax: bool = True,
    queries: Sequence[bytes] = (),
    v0: bool = False,
    values: strict.JsonObject | None = None,
) -> bytes:
    """What loads ``modules`` and ``data`` into a worker, which answers with the syntax tree if that is asked for.

    ``queries`` will be asked often: an engine that compiles them may do so at once.
    ``v0``: read them as Rego was before OPA 1.0. ``values``: what ``query_reference_value`` gives, to foreign ones.
    """
    said = strict.json_encode(
        {
            "modules": [[module.name, module.text.decode()] for module in modules],
            "columns": COLUMNS_MAX + 1,
            "lines": LINES_MAX + 1,
            "bytes": SOURCE_MAX,
            "coverage": coverage,
            "syntax": syntax,
            "queries": [query.decode() for query in queries],
            "v0": v0,
            "values": values or {},
        }
    )
    return b"".join((b"L", len(said).to_bytes(4, "big"), said, strict.json_encode(data)))


def read_value(answer: bytes) -> strict.JsonValue | Undefined:
    """The value of the only expression of a query.

    Raises:
        MalformedEvidence: ``POLICY_OUTPUT``, or as :func:`weighbridge.proto.strict.json_decode`: not what an engine
            answers.
    """
    match strict.json_decode(answer, what="answer"):
        case {"result": [{"expressions": [{"value": value, **_others}]}]}:
            return value
        case empty if empty == {}:
            return UNDEFINED
        case _:
            raise MalformedEvidence(Code.POLICY_OUTPUT, "the engine answers out of form", where="answer")


def _numbers(value: strict.JsonValue) -> frozenset[int]:
    return frozenset(item for item in value if isinstance(item, int)) if isinstance(value, list) else frozenset()
