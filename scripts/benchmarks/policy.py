"""What a decision costs: production on a window of one GPU and of eight, the document's building included.

The floor of a decision is the same document, encoded and judged by a policy of two lines on the same engine in the
same kind of process: reading the input and the pipe, which no policy saves. The peer is OPA (in Go, as a library, in a
worker of its own) on the same policy and documents, where `scripts/setup --peers` has installed it. Steps, floor and
peer are measured in turns.

The floor of a load is what reading the same reference values as JSON costs; that of a worker's start, an interpreter
that imports nothing and ends.

`--quick` repeats too little for the figures to mean anything: it shows that the benchmark runs.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _figures import Figure, main
from _timing import in_turns
from _windows import Case, Line

from weighbridge.policy import policy_set
from weighbridge.policy.engine import DEFAULT_LIMITS
from weighbridge.policy.engines.opa_go import OpaGoEngine
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.engines.workbench import load_request, spawn
from weighbridge.policy.policy_set import PolicyModule
from weighbridge.proto import strict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Prepared
    from weighbridge.policy.values.reference import Reference

_ROOT: Final = Path(__file__).resolve().parents[2]
_OPA: Final = _ROOT / ".peers" / "opa"
_GPUS: Final = {"one": 1, "eight": 8}
_MODELS: Final = 50_000
_MS: Final = "ms"
# As windows of a fleet come to one verifier: one decision behind the other.
_REPEATS: Final = 25
_US: Final = "µs"
_TRIVIAL: Final = b"""package weighbridge.policy

import rego.v1

default allow := false

allow if {
	count(deny) == 0
	input.window.freshness == "fresh"
}

deny contains d if {
	input.window.freshness == "held"
	d := {"code": "WINDOW_HELD"}
}
"""


@dataclass(frozen=True, slots=True)
class _Effort:
    """How often things are repeated, and how many reference values are loaded."""

    decisions: int
    loads: int
    starts: int
    models: int


_FULL: Final = _Effort(decisions=20, loads=5, starts=20, models=_MODELS)
_QUICK: Final = _Effort(decisions=2, loads=1, starts=1, models=100)


def measure(effort: _Effort, directory: Path) -> Iterator[Figure]:
    """All figures; ``directory`` is empty."""
    yield Figure("policies: processors", os.cpu_count() or 0, "cores")
    yield Figure("policies: load before", os.getloadavg()[0], "processes")
    for word, gpus in _GPUS.items():
        line = Line.open(directory / word, gpus=gpus)
        try:
            case = line.case(report=True)
            yield from _decisions(word, case, rounds=effort.decisions)
            if word == "one":
                yield _load(case.world.reference, effort)
        finally:
            line.close()
    yield _start(effort.starts)
    yield Figure("policies: load after", os.getloadavg()[0], "processes")


def _decisions(word: str, case: Case, *, rounds: int) -> Iterator[Figure]:
    verified = case.verify()
    document, layout = case.asked(verified), case.layout(verified)
    reference = case.world.reference
    with ExitStack() as stack:
        production = stack.enter_context(RegorusEngine().load(policy_set.shipped("production", reference=reference)))
        trivial = stack.enter_context(_trivial(reference))
        work = {
            "whole": lambda: (layout(), production.decide(document)),
            "compared": lambda: case.asked(verified),
            "built": layout,
            "encoded": document.to_json,
            "decided": lambda: production.decide(document),
            "floor": lambda: trivial.decide(document),
        }
        if _OPA.is_dir():
            opa = stack.enter_context(OpaGoEngine(_OPA).load(policy_set.shipped("production", reference=reference)))
            _require_allowed(opa, document)
            work["peer"] = lambda: opa.decide(document)
        _require_allowed(production, document)
        costs = {name: cost.wall / 1000 for name, cost in in_turns(work, rounds=rounds, repeats=_REPEATS).items()}
    yield Figure(f"policy, {word}: document", len(document.to_json()), "bytes")
    yield Figure(f"policy, {word}: everything compared, document built", 1000 * costs["compared"], _US)
    yield Figure(f"policy, {word}: document built", 1000 * costs["built"], _US)
    yield Figure(f"policy, {word}: document encoded", 1000 * costs["encoded"], _US)
    yield Figure(f"policy, {word}: a policy of two lines decided", 1000 * costs["floor"], _US)
    yield Figure(
        f"policy, {word}: production decided, encoding included", 1000 * costs["decided"], _US, 1000 * costs["floor"]
    )
    if "peer" in costs:
        yield Figure(f"policy, {word}: the same by OPA's library", 1000 * costs["peer"], _US, 1000 * costs["floor"])
    yield Figure(f"production_{word}_gpu_ms_p50", costs["whole"], _MS, costs["floor"], costs.get("peer"))


def _trivial(reference: Reference) -> Prepared:
    shipped = policy_set.shipped("production", reference=reference)
    library = tuple(module for module in shipped.modules if not module.name.endswith("production.rego"))
    modules = (*library, PolicyModule("trivial.rego", _TRIVIAL))
    return RegorusEngine().load(policy_set.PolicySet(modules, reference))


def _require_allowed(prepared: Prepared, document: PolicyInput) -> None:
    """A refusal costs something else."""
    decision = prepared.decide(document)
    if not decision.allowed:
        raise RuntimeError(f"production denies the benchmark's window: {decision.denials or decision.detail}")


def _load(reference: Reference, effort: _Effort) -> Figure:
    """Production with as many reference models, until it can decide."""
    models = {f"{number:064x}": f"model {number}" for number in range(effort.models)}
    many = policy_set.shipped("production", reference=replace(reference, models=models))
    text = strict.json_encode(many.document())
    loads: list[float] = []
    floors: list[float] = []
    for _ in range(effort.loads):
        started = time.perf_counter()
        loaded = RegorusEngine().load(many)
        loads.append(time.perf_counter() - started)
        loaded.close()
        started = time.perf_counter()
        json.loads(text)
        floors.append(time.perf_counter() - started)
    return Figure("reference_load_s", statistics.median(loads), "s", statistics.median(floors))


def _start(rounds: int) -> Figure:
    """From nothing to a worker that has answered."""
    request = load_request([PolicyModule("trivial.rego", _TRIVIAL)], {})
    starts: list[float] = []
    floors: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        worker = spawn(DEFAULT_LIMITS)
        worker.exchange(request, seconds=10, reply_max=DEFAULT_LIMITS.syntax_max)
        starts.append(time.perf_counter() - started)
        worker.close()
        started = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-B", "-c", ""], check=True)
        floors.append(time.perf_counter() - started)
    return Figure("worker_start_ms", statistics.median(starts) * 1000, _MS, statistics.median(floors) * 1000)


def _run() -> int:
    arguments = sys.argv[1:]
    effort = _FULL
    if "--quick" in arguments:
        arguments.remove("--quick")
        effort = _QUICK
    directory = Path(tempfile.mkdtemp(prefix="weighbridge-bench-"))
    try:
        return main(lambda: measure(effort, directory), arguments)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(_run())
