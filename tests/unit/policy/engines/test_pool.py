"""Workers in turns: as many at once as there are, and whatever dies is replaced before it is missed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.engine import Limits
from weighbridge.policy.engines import regorus
from weighbridge.policy.engines.loading import loaded
from weighbridge.policy.engines.pool import Pool
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.process import Worker, WorkerCrashed, WorkerRefused, WorkerTimeout
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.engines.workbench import load_request, spawn
from weighbridge.policy.policy_set import PolicySet
from weighbridge.proto.errors import Code, EnvironmentFault, PolicyDenied

Standing = Callable[..., tuple[int, ...]]
LIMITS = Limits(decide_seconds=0.4)
ONE = b'{"result":[{"expressions":[{"value":1'
SLOW = b"count([1 | some a in numbers.range(1, 2000); some b in numbers.range(1, 2000)])"


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class Starts:
    """Starts workers, and knows which."""

    def __init__(self) -> None:
        self.made: list[Worker] = []
        self.fault: Exception | None = None

    def __call__(self) -> Worker:
        if self.fault is not None:
            raise self.fault
        self.made.append(loaded(spawn(LIMITS), load_request((), {}, syntax=False), LIMITS))
        return self.made[-1]


@pytest.fixture
def starts() -> Starts:
    return Starts()


@pytest.fixture
def pool(starts: Starts) -> Iterator[Pool]:
    """One worker and one spare."""
    made = Pool(starts, (starts(),), spares=1, limits=LIMITS)
    yield made
    made.close()


def ask(pool: Pool, query: bytes = b"1") -> bytes:
    return b"".join(pool.evaluate(query, b"{}", now_ns=0).split())


def ready(pool: Pool, count: int) -> tuple[int, ...]:
    until = time.monotonic() + 15
    while len(pool.pids) != count and time.monotonic() < until:
        time.sleep(0.005)
    assert len(pool.pids) == count
    return pool.pids


def test_a_spare_stands_loaded_and_the_same_worker_is_asked_again(pool: Pool, starts: Starts) -> None:
    both = ready(pool, 2)
    assert both[-1] == starts.made[0].pid
    for _ in range(3):
        assert ask(pool).startswith(ONE)
        assert pool.pids == both


@pytest.mark.parametrize(
    ("query", "fault"),
    [(SLOW, WorkerTimeout), (b"1 +", WorkerRefused), (b"numbers.range(1, 1000000000)", WorkerCrashed)],
)
def test_after_a_failure_the_next_answer_costs_no_start(
    pool: Pool, starts: Starts, query: bytes, fault: type[Exception]
) -> None:
    spare, first = ready(pool, 2)
    starts.fault = EnvironmentFault(Code.COMMAND_FAILED, "no more processes")
    with pytest.raises(fault):
        _ = ask(pool, query)
    assert not runs(first)
    assert ask(pool).startswith(ONE), "nothing could be started, and nothing had to be"
    assert pool.pids == (spare,)


def test_what_is_missing_is_started_in_the_background(pool: Pool, starts: Starts) -> None:
    before = ready(pool, 2)
    with pytest.raises(WorkerRefused):
        _ = ask(pool, b"1 +")
    after = ready(pool, 2)
    assert after[-1] == before[0]
    assert len(starts.made) == 3


def test_a_killed_spare_is_noticed_at_the_next_answer(pool: Pool) -> None:
    spare, first = ready(pool, 2)
    os.kill(spare, 9)
    while Path(f"/proc/{spare}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.005)
    assert ask(pool).startswith(ONE)
    again = ready(pool, 2)
    assert again[-1] == first
    assert spare not in again
    assert not runs(spare), "its entry in the process table is gone, too"


def test_all_killed_is_noticed_before_anything_is_asked(pool: Pool) -> None:
    for pid in ready(pool, 2):
        os.kill(pid, 9)
    time.sleep(0.1)
    assert ask(pool).startswith(ONE)
    _ = ready(pool, 2)


def test_where_none_can_be_started_the_answer_says_why_and_comes_back_with_the_machine(
    pool: Pool, starts: Starts
) -> None:
    _ = ready(pool, 2)
    starts.fault = EnvironmentFault(Code.COMMAND_FAILED, "no more processes")
    for _ in range(2):
        with pytest.raises(WorkerRefused):
            _ = ask(pool, b"1 +")
    for _ in range(2):
        with pytest.raises(EnvironmentFault, match="no more processes"):
            _ = ask(pool)
    starts.fault = None
    assert ask(pool).startswith(ONE)
    _ = ready(pool, 2)


def test_as_many_answers_at_once_as_there_are_workers(starts: Starts) -> None:
    """Each takes its deadline: four, two at a time, take two deadlines; never more than two processes are asked."""
    pool = Pool(starts, (starts(), starts()), spares=0, limits=LIMITS)
    outcomes: list[str] = []

    def slow() -> None:
        with pytest.raises(WorkerTimeout):
            _ = ask(pool, SLOW)
        outcomes.append("timeout")

    begun = time.monotonic()
    threads = [threading.Thread(target=slow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["timeout"] * 4
    assert 2 * LIMITS.decide_seconds <= time.monotonic() - begun < 3.9 * LIMITS.decide_seconds + 1.5
    pool.close()
    assert not any(runs(worker.pid) for worker in starts.made)


def test_closing_waits_for_the_answer_and_for_what_is_being_started(starts: Starts) -> None:
    pool = Pool(starts, (starts(),), spares=2, limits=LIMITS)
    caught: list[str] = []

    def ask_slowly() -> None:
        with pytest.raises(WorkerTimeout):
            _ = ask(pool, SLOW)
        caught.append("timeout")

    thread = threading.Thread(target=ask_slowly)
    thread.start()
    time.sleep(0.1)
    pool.close()
    assert caught == ["timeout"]
    thread.join()
    assert not any(runs(worker.pid) for worker in starts.made)
    assert pool.pids == ()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        _ = ask(pool)


# -- through the engine


@pytest.fixture
def policy(policy_of: Callable[[str], PolicySet], head: str) -> PolicySet:
    return policy_of(head + "allow if input.window.seq == 3\n")


def test_an_engine_loads_as_many_workers_as_are_asked_for(
    policy: PolicySet, good: doc.PolicyInput, standing: Standing
) -> None:
    with RegorusEngine().load(policy, workers=3, spares=1) as prepared:
        pids = standing(prepared, 4)
        assert len(pids) == 4
        assert prepared.decide(good).outcome == "allow"
    assert not any(runs(pid) for pid in pids)


@pytest.mark.parametrize(("workers", "spares"), [(0, 1), (1, -1)])
def test_no_worker_is_a_mistake(policy: PolicySet, workers: int, spares: int) -> None:
    with pytest.raises(ValueError, match="worker"):
        _ = RegorusEngine().load(policy, workers=workers, spares=spares)


def test_a_policy_that_does_not_load_leaves_no_process(
    policy_of: Callable[[str], PolicySet], head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Worker] = []

    def noted(*given: object) -> Worker:
        made.append(spawn(*given))  # type: ignore[arg-type] # whatever it is called with
        return made[-1]

    monkeypatch.setattr(regorus, "spawn", noted)
    for rules in ("allow if {\n", "allow if nothing\n"):
        with pytest.raises(PolicyDenied) as caught:
            _ = RegorusEngine().load(policy_of(head + rules), workers=3)
        assert caught.value.code is Code.POLICY_INVALID
    assert len(made) == 4
    assert not any(runs(worker.pid) for worker in made)


def test_one_of_several_workers_that_does_not_load_is_the_policys_refusal(
    policy: PolicySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(worker: Worker, _request: bytes, _limits: Limits) -> Worker:
        worker.close()
        raise WorkerTimeout("no answer before the deadline")

    monkeypatch.setattr(regorus, "loaded", refused)
    with pytest.raises(PolicyDenied, match="deadline"):
        _ = RegorusEngine().load(policy, workers=2)


def test_decisions_go_on_while_workers_are_killed(policy: PolicySet, good: doc.PolicyInput, standing: Standing) -> None:
    """A decision whose worker is killed in it is a crash; every other one is as ever."""
    with RegorusEngine().load(policy) as prepared:
        outcomes: list[str] = []
        for turn in range(12):
            if turn % 4 == 3:
                os.kill(standing(prepared)[-1], 9)
            outcomes.append(prepared.decide(good).outcome)
        assert set(outcomes) <= {"allow", "crashed"}
        assert outcomes.count("allow") >= 9
        assert isinstance(prepared, PreparedPolicy)
