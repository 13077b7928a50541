"""Engines, and policies that are loaded into them past the checker."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from weighbridge.policy.engine import Limits
from weighbridge.policy.engines.conformance import BenchEngine
from weighbridge.policy.engines.opa_go import OpaGoEngine
from weighbridge.policy.engines.pool import Pool
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicySet

QUICK = Limits(load_seconds=3.0, decide_seconds=0.5, memory=256 * 1024 * 1024)
PastChecker = Callable[..., PreparedPolicy]


@pytest.fixture(
    params=[pytest.param("regorus"), pytest.param("opa-go", marks=pytest.mark.peer)],
)
def engine(request: pytest.FixtureRequest) -> BenchEngine:
    """Each engine that runs in workers."""
    if request.param == "regorus":
        return RegorusEngine()
    folder: Path = request.getfixturevalue("opa_library")
    return OpaGoEngine(folder)


@pytest.fixture
def past_checker(policy_of: Callable[[str], PolicySet], head: str) -> Iterator[PastChecker]:
    """Load rules that the checker would refuse: what an engine's process holds even if the checker has a hole."""
    made: list[PreparedPolicy] = []

    def build(engine: BenchEngine, rules: str, limits: Limits = QUICK) -> PreparedPolicy:
        policy = policy_of(head + rules)
        evaluator = engine.bench(policy.modules, policy.document(), limits)
        names = engine.name, engine.version
        made.append(PreparedPolicy(evaluator, policy=policy, limits=limits, optional=(), engine=names))
        return made[-1]

    yield build
    for prepared in made:
        prepared.close()


@pytest.fixture
def stand_in(opa_library: Path, root: Path, tmp_path: Path) -> Path:
    """A program that answers as `opa` does on the command line."""
    program = tmp_path / "opa"
    script = root / "tests" / "support" / "opa_stand_in.py"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {script} {opa_library} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def standing() -> Callable[[PreparedPolicy, int], tuple[int, ...]]:
    """The processes of the workers that stand ready, once there are as many."""

    def wait(prepared: PreparedPolicy, count: int = 2) -> tuple[int, ...]:
        pool = prepared._evaluator
        assert isinstance(pool, Pool)
        until = time.monotonic() + 15
        while len(pool.pids) != count and time.monotonic() < until:
            time.sleep(0.01)
        return pool.pids

    return wait
