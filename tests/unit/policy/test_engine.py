"""The engine in its worker: decisions, hostile policies, and what becomes of the process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.engine import Decision, Limits, PolicyEngine, Prepared
from weighbridge.policy.engines import process, worker
from weighbridge.policy.engines.loading import loaded as load_worker
from weighbridge.policy.engines.pool import Pool
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.process import Worker, WorkerCrashed, WorkerRefused, WorkerTimeout
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.engines.workbench import load_request, spawn
from weighbridge.policy.policy_set import PolicySet
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, PolicyDenied

Prepare = Callable[..., PreparedPolicy]
Unchecked = Callable[..., PreparedPolicy]
QUICK = Limits(load_seconds=2.0, decide_seconds=0.5, memory=256 * 1024 * 1024)
MARGIN = 2.0  # seconds that a loaded machine may add to a deadline


@pytest.fixture
def loaded(policy_of: Callable[[str], PolicySet], head: str) -> Iterator[Unchecked]:
    """Load rules that the checker would refuse: what the worker holds even if the checker has a hole."""
    made: list[PreparedPolicy] = []

    def build(rules: str, limits: Limits = QUICK) -> PreparedPolicy:
        policy = policy_of(head + rules)
        request = load_request(policy.modules, policy.document())

        def start() -> Worker:
            return load_worker(spawn(limits), request, limits)

        prepared = PreparedPolicy(
            Pool(start, (start(),), spares=1, limits=limits),
            policy=policy,
            limits=limits,
            optional=(),
            engine=("regorus", "test"),
        )
        made.append(prepared)
        return prepared

    yield build
    for policy in made:
        policy.close()


def standing(prepared: PreparedPolicy, count: int = 2) -> tuple[int, ...]:
    """The processes of the workers that stand ready, once there are ``count`` of them."""
    pool = prepared._evaluator
    assert isinstance(pool, Pool)
    until = time.monotonic() + 10
    while len(pool.pids) < count and time.monotonic() < until:
        time.sleep(0.01)
    return pool.pids


# ---------- decisions


def test_a_decision_has_no_truth_value(prepare: Prepare, good: doc.PolicyInput) -> None:
    decision = prepare("allow if true\n").decide(good)
    with pytest.raises(TypeError, match="truth"):
        bool(decision)
    assert decision.allowed is True


def test_a_decision_says_what_it_was_made_of(prepare: Prepare, good: doc.PolicyInput) -> None:
    prepared = prepare("allow if true\n")
    decision = prepared.decide(good)
    assert decision.outcome == "allow"
    assert decision.policy_digest == prepared._policy.digest
    assert decision.reference_digest == prepared._policy.reference_digest
    assert decision.input_digest == good.input_digest
    assert (decision.engine, decision.engine_version) == ("regorus", "gordon-to-regorus 0.13.0")
    assert set(decision.trust_claims) >= {"tpm0", "gpu0", "weights0", "telemetry0"}
    assert prepared.decide(good) == decision


def test_the_protocols_are_kept(prepare: Prepare) -> None:
    engine: PolicyEngine = RegorusEngine()
    prepared: Prepared = prepare("allow if true\n")
    assert engine.name == "regorus"
    with prepared as same:
        assert same is prepared


@pytest.mark.parametrize(
    ("rules", "outcome", "code"),
    [
        ("", "deny", Code.POLICY_DENIED),
        ("allow if input.window.seq == 4\n", "deny", Code.POLICY_DENIED),
        ("allow if true\n\ndeny contains d if d := input.window.seq\n", "error", Code.POLICY_OUTPUT),
        ("allow if true\n\ndeny contains d if d := object.union({}, {})\n", "error", Code.POLICY_OUTPUT),
        ("x := 1\n\nx := 2 if input.gap\n\nallow if x == 1\n", "error", Code.POLICY_ERROR),
        ("allow if to_number(`x`) == 1\n", "error", Code.POLICY_ERROR),
    ],
)
def test_what_is_not_an_exact_allow(
    prepare: Prepare, good: doc.PolicyInput, rules: str, outcome: str, code: Code
) -> None:
    """A63: undefined, errors and strange answers do not admit."""
    decision = prepare(rules).decide(good)
    assert decision.outcome == outcome, decision
    assert {denial.code for denial in decision.denials} == {code}
    assert not decision.allowed


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        # The engine parses these, the checker refuses them, and the reader of answers refuses them again.
        ("allow := 1\n", "error"),
        ("allow := {}\n", "error"),
        ("allow := null\n", "error"),
        ('allow := "true"\n', "error"),
        ("allow := [true]\n", "error"),
        ("allow if unheard_of(1)\n", "error"),
        ("allow if nothing\n", "error"),
    ],
)
def test_what_the_checker_refuses_does_not_admit_either(
    loaded: Unchecked, good: doc.PolicyInput, rules: str, outcome: str
) -> None:
    decision = loaded(rules).decide(good)
    assert decision.outcome == outcome
    assert decision.denials


def test_an_undefined_answer_is_an_outcome_of_its_own(loaded: Unchecked, good: doc.PolicyInput) -> None:
    """facts §2.3-6: without a default, the query has no value."""
    prepared = loaded("")
    prepared._query = b"[data.weighbridge.policy.none, data.weighbridge.policy.deny]"
    decision = prepared.decide(good)
    assert decision.outcome == "undefined"
    assert [denial.code for denial in decision.denials] == [Code.POLICY_UNDEFINED]


def test_an_error_names_file_and_line(prepare: Prepare, good: doc.PolicyInput) -> None:
    decision = prepare("allow if to_number(`x`) == 1\n").decide(good)
    assert decision.detail.startswith("test.rego:12: ")
    assert "\n" not in decision.detail


def test_time_is_the_receipt_time(prepare: Prepare, good: doc.PolicyInput) -> None:
    prepared = prepare("allow if format_int(time.now_ns(), 10) == input.received_ns\n")
    assert prepared.decide(good).outcome == "allow"
    at, ns = "2027-01-01T00:00:00Z", "1798761600000000000"
    assert prepared.decide(replace(good, received_at=at, received_ns=ns)).outcome == "allow"


def test_unchecked_and_warnings_are_asked_for_where_they_are_defined(prepare: Prepare, good: doc.PolicyInput) -> None:
    rules = """
    allow if true
    unchecked contains e if { e := {"check": "x", "reason": "because"} }
    warn contains w if { w := {"code": "W", "message": "m"} }
    """
    decision = prepare(textwrap.dedent(rules)).decide(good)
    assert [entry.check for entry in decision.unchecked] == ["x"]
    assert [advice.code for advice in decision.warnings] == ["W"]


def test_input_beyond_the_bound_is_not_sent(prepare: Prepare, good: doc.PolicyInput) -> None:
    decision = prepare("allow if true\n", Limits(input_max=100)).decide(good)
    assert decision.outcome == "error"
    assert "100" in decision.detail


def test_evidence_that_the_document_refuses_is_malformed(prepare: Prepare, good: doc.PolicyInput) -> None:
    with pytest.raises(MalformedEvidence):
        prepare("allow if true\n").decide(replace(good, work=replace(good.work, requests=2**60)))


# ---------- hostile policies

ITEMS = "[" + ", ".join(str(number) for number in range(100)) + "]"

FOUR = "; ".join(f"some {name} in items" for name in "abcd")
CPU = f"items := {ITEMS}\n\nallow if count([1 | {FOUR}]) > 1\n"
DOUBLING = 'x0 := "0123456789abcdef"\n\n' + "".join(
    f"x{i} := concat(x{i - 1}, [x{i - 1}, x{i - 1}])\n\n" for i in range(1, 22)
)

HOSTILE: dict[str, tuple[str, set[str]]] = {
    "CPU": (CPU, {"timeout"}),
    "memory": ("allow if count(numbers.range(1, 1000000000)) > 1\n", {"crashed", "timeout"}),
    "doubling text": (DOUBLING + "allow if count(x21) > 1\n", {"crashed", "timeout", "error"}),
    "a function that calls itself": ("f(x) := f(x + 1)\n\nallow if f(1)\n", {"crashed"}),
    "a rule that depends on itself": ("x if y\n\ny if x\n\nallow if x\n", {"error", "crashed"}),
    "3,000 rules in a row": (
        "".join(f"r{i} if r{i + 1}\n\n" for i in range(2000)) + "r2000 := 1\n\nallow if r0\n",
        {"crashed", "error"},
    ),
    "the network": ('allow if http.send({"method": "get", "url": "http://127.0.0.1/"})\n', {"error"}),
    "names on the network": ("allow if net.lookup_ip_addr(`localhost`)\n", {"error"}),
    "the process": ("allow if opa.runtime()\n", {"error"}),
    "chance": ("allow if rand.intn(`a`, 2) >= 0\n", {"error"}),
    "unique identifiers": ("allow if uuid.rfc4122(`a`)\n", {"error"}),
    "a panic of the engine": ("allow if strings.count(``, ``) == 0\n", {"error"}),
    "a long answer": (
        'deny contains y if { some i in numbers.range(1, 200000); y := sprintf("%d %s", [i, "0123456789abcdef"]) }\n',
        {"crashed", "timeout"},
    ),
}


@pytest.mark.parametrize(("rules", "outcomes"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_policy_ends_and_the_next_decision_works(
    loaded: Unchecked, good: doc.PolicyInput, rules: str, outcomes: set[str]
) -> None:
    """Loaded past the checker. Each decision ends within the deadline, refuses, and another can be asked for."""
    prepared = loaded(rules)
    for _ in range(2):
        start = time.monotonic()
        decision = prepared.decide(good)
        assert time.monotonic() - start < QUICK.decide_seconds + MARGIN
        assert decision.outcome in outcomes, decision
        assert decision.denials
    prepared._query = b"[data.weighbridge.policy.allow2, data.weighbridge.policy.none]"
    assert prepared.decide(good).outcome == "undefined"


def test_the_checker_lets_a_busy_policy_pass_and_the_deadline_holds_it(prepare: Prepare, good: doc.PolicyInput) -> None:
    prepared = prepare(CPU, QUICK)
    start = time.monotonic()
    assert prepared.decide(good).outcome == "timeout"
    assert time.monotonic() - start < QUICK.decide_seconds + MARGIN


def test_a_parser_bomb_ends_at_the_load_deadline() -> None:
    """Literals nested deeper than a module may nest them, sent past the bound."""
    text = "package weighbridge.policy\n\nx := " + "[" * 40 + "]" * 40 + "\n"
    request = b'{"modules": [["m", "%s"]], "columns": 1000, "lines": 1000, "bytes": 100000}'
    said = request.replace(b"%s", text.replace("\n", "\\n").encode())
    data = b"L" + len(said).to_bytes(4, "big") + said + b"{}"
    bomb = Worker(memory=QUICK.memory, cpu_seconds=2, request_max=1 << 20)
    start = time.monotonic()
    with pytest.raises(WorkerTimeout):
        bomb.exchange(data, seconds=0.5, reply_max=1 << 20)
    assert time.monotonic() - start < 0.5 + MARGIN
    assert not bomb.alive


def test_a_policy_that_takes_too_long_to_load_is_refused(policy_of: Callable[[str], PolicySet], head: str) -> None:
    many = "".join(f"x{i} := " + "[" * 11 + "]" * 11 + "\n" for i in range(2000))
    with pytest.raises(PolicyDenied, match="deadline") as caught:
        RegorusEngine().load(policy_of(head + many), replace(QUICK, load_seconds=0.3))
    assert caught.value.code is Code.POLICY_INVALID


# ---------- the process


def test_the_worker_has_nothing(loaded: Unchecked) -> None:
    """Empty environment, no open files but its pipes, no right to make any."""
    prepared = loaded("")
    here = Path(f"/proc/{standing(prepared)[-1]}")
    assert (here / "environ").read_bytes() == b""
    assert {int(entry.name) for entry in (here / "fd").iterdir()} == {0, 1, 2}
    assert (here / "cwd").readlink() == Path("/")
    bounds = (here / "limits").read_text()
    for name, value in (("Max open files", 3), ("Max file size", 0), ("Max processes", 0), ("Max core file size", 0)):
        line = next(line for line in bounds.splitlines() if line.startswith(name))
        assert line.removeprefix(name).split()[:2] == [str(value), str(value)]
    line = next(line for line in bounds.splitlines() if line.startswith("Max address space"))
    assert line.split()[3] == str(QUICK.memory)


def test_a_worker_that_dies_between_decisions_is_replaced(prepare: Prepare, good: doc.PolicyInput) -> None:
    prepared = prepare("allow if true\n")
    first = standing(prepared)[-1]
    os.kill(first, 9)
    time.sleep(0.1)
    assert prepared.decide(good).outcome == "allow"
    assert first not in standing(prepared)


def test_close_ends_the_worker(prepare: Prepare, good: doc.PolicyInput) -> None:
    with prepare("allow if true\n") as prepared:
        pids = standing(prepared)
        assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    prepared.close()
    with pytest.raises(RuntimeError, match="closed"):
        prepared.decide(good)


def test_threads_take_turns(prepare: Prepare, good: doc.PolicyInput) -> None:
    prepared = prepare("allow if input.window.seq == 3\n")
    outcomes: list[Decision] = []
    threads = [
        threading.Thread(target=lambda: outcomes.extend(prepared.decide(good) for _ in range(20))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [decision.outcome for decision in outcomes] == ["allow"] * 80


ORPHAN = """
import os, sys, threading, time
from weighbridge.policy.engines.process import Worker
worker = Worker(memory=1 << 28, cpu_seconds=1, request_max=1 << 20)
text = "package p\\\\n\\\\nx := " + "[" * 40 + "]" * 40 if sys.argv[1] == "busy" else "package p"
request = ('L{"modules": [["m", "%s"]], "data": "{}", "columns": 999, "lines": 99, "bytes": 9999}' % text).encode()
wait = {"seconds": 60, "reply_max": 9999}
threading.Thread(target=worker.exchange, args=(request,), kwargs=wait, daemon=True).start()
time.sleep(0.3)
print(worker.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_the_worker_does_not_outlive_its_parent(state: str) -> None:
    """Killed outright, the parent has no chance to clean up: the pipe's end or the CPU limit does."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.run(
        [sys.executable, "-c", ORPHAN, state], env=env, capture_output=True, check=False, timeout=60
    )
    pid = int(parent.stdout)
    until = time.monotonic() + 10
    while time.monotonic() < until and _runs(pid):
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _impostor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> Worker:
    """A worker that runs ``body`` in place of ours: an engine that has been taken over."""
    script = tmp_path / "worker.py"
    script.write_text(f"import os, sys, time\n{body}\n")
    monkeypatch.setattr(process, "_SCRIPT", script)
    return Worker(memory=1 << 28, cpu_seconds=2, request_max=1 << 20)


@pytest.mark.parametrize(
    ("body", "fault", "message"),
    [
        ("os.write(1, b'\\xff\\xff\\xff\\xff'); time.sleep(9)", WorkerCrashed, "more than"),
        ("os.write(1, b'\\0\\0\\0\\0'); time.sleep(9)", WorkerCrashed, "more than"),
        ("os.write(1, b'\\0\\0\\0\\2Xx'); time.sleep(9)", WorkerCrashed, "out of form"),
        ("os.write(1, b'\\0\\0\\0\\2Ex'); time.sleep(9)", WorkerRefused, "x"),
        ("os.write(1, b'\\0\\0\\0\\5Rx'); time.sleep(9)", WorkerTimeout, "deadline"),
        ("os.write(1, b'\\0\\0\\0\\5Rx')", WorkerCrashed, "status 0"),
        ("os.close(1); time.sleep(9)", WorkerCrashed, "closed its pipe"),
        ("time.sleep(9)", WorkerTimeout, "deadline"),
        ("sys.exit(7)", WorkerCrashed, "status 7"),
        ("os.close(0); time.sleep(9)", WorkerCrashed, "closed its pipe"),
    ],
)
def test_an_engine_out_of_hand_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, fault: type[Exception], message: str
) -> None:
    taken = _impostor(monkeypatch, tmp_path, body)
    with pytest.raises(fault, match=message):
        # More than a pipe holds, so that the writing end notices as well.
        taken.exchange(b"x" * (1 << 20 if "close(0)" in body else 1), seconds=0.7, reply_max=100)
    assert not taken.alive


def test_a_bounded_answer_in_form_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken = _impostor(monkeypatch, tmp_path, "os.write(1, b'\\0\\0\\0\\2Rx'); time.sleep(9)")
    assert taken.exchange(b"x", seconds=5, reply_max=100) == b"x"
    taken.close()


def test_a_large_request_arrives_whole(loaded: Unchecked, good: doc.PolicyInput) -> None:
    """More than a pipe holds."""
    document = replace(good, findings=tuple(doc.Finding("X", None, "m" * 500) for _ in range(2000)))
    assert loaded("allow if count(input.findings) == 2000\n", replace(QUICK, decide_seconds=5)).decide(document).allowed


def _nothing(_name: str) -> None:
    """Nothing is installed."""


def test_no_engine_and_no_process_are_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_spec", _nothing)
    with pytest.raises(EnvironmentFault) as caught:
        Worker(memory=1, cpu_seconds=1, request_max=1)
    assert caught.value.code is Code.TOOL_MISSING
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(EnvironmentFault) as caught:
        Worker(memory=1, cpu_seconds=1, request_max=1)
    assert caught.value.code is Code.COMMAND_FAILED


def test_a_request_beyond_the_bound_ends_the_worker() -> None:
    small = Worker(memory=1 << 28, cpu_seconds=2, request_max=10)
    with pytest.raises(WorkerCrashed, match="status 1"):
        small.exchange(b"x" * 11, seconds=5, reply_max=100)


def test_the_worker_imports_nothing_of_ours() -> None:
    """It runs where there are no site-packages and no checkout."""
    source = Path(worker.__file__).read_text()
    assert "weighbridge" not in source.split('"""', 2)[2]
