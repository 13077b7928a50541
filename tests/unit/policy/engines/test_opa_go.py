"""OPA's own evaluator as an engine: found, checked, loaded, asked, contained."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.engine import Limits, PolicyEngine, Prepared
from weighbridge.policy.engines import opa_go, opa_worker
from weighbridge.policy.engines.opa_go import RESERVE, OpaGoEngine
from weighbridge.policy.engines.prepared import PreparedPolicy, place_and_error
from weighbridge.policy.engines.process import Program, Worker
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.engines.workbench import UNDEFINED, read_value, spawn
from weighbridge.policy.policy_set import PolicySet
from weighbridge.proto.errors import Code, EnvironmentFault, PolicyDenied

PolicyOf = Callable[[str], PolicySet]
PastChecker = Callable[..., PreparedPolicy]
Standing = Callable[..., tuple[int, ...]]
RULES = """allow if {
	count(deny) == 0
	input.window.seq == 3
}

deny contains d if {
	some gpu in input.gpus
	not gpu.architecture == "HOPPER"
	d := {
		"code": "NOT_A_HOPPER",
		"window": input.window.seq,
		"device": gpu.identity,
		"expected": null,
		"got": null,
		"hint": null,
		"message": "é",
	}
}
"""


@pytest.mark.peer
def test_it_decides_as_regorus_does_and_says_who_decided(
    opa_library: Path, policy_of: PolicyOf, head: str, good: doc.PolicyInput
) -> None:
    engine: PolicyEngine = OpaGoEngine(opa_library)
    policy = policy_of(head + RULES)
    other_gpu = replace(good, gpus=(replace(good.gpus[0], architecture="BLACKWELL"), *good.gpus[1:]))
    prepared: Prepared
    with engine.load(policy) as prepared, RegorusEngine().load(policy) as regorus:
        for document in (good, other_gpu, replace(good, window=replace(good.window, seq=4))):
            decision, other = prepared.decide(document), regorus.decide(document)
            assert decision.engine == engine.name == "opa-go"
            assert decision.engine_version == engine.version == "opa-golib-python-bindings 0.4.4 (OPA 1.20.2)"
            assert replace(decision, engine=other.engine, engine_version=other.engine_version) == other
        assert prepared.decide(good).outcome == "allow"


@pytest.mark.peer
def test_the_process_has_no_more_than_its_library_needs(
    opa_library: Path, past_checker: PastChecker, standing: Standing
) -> None:
    limits = Limits(memory=256 * 1024 * 1024)
    prepared = past_checker(OpaGoEngine(opa_library), "", limits)
    here = Path(f"/proc/{standing(prepared)[-1]}")
    assert (here / "environ").read_bytes().split(b"\0") == [b"GOMAXPROCS=2", b"GOGC=400", b"GOMEMLIMIT=256MiB", b""]
    assert (here / "cwd").readlink() == Path("/")
    # Go reads its share of the processors when it starts, and keeps the file open; it has no socket.
    kept = [str(entry.readlink()) for entry in (here / "fd").iterdir() if entry.name not in {"0", "1", "2"}]
    assert [name for name in kept if not name.startswith(("anon_inode:", "/sys/fs/cgroup/"))] == []
    bounds = {line[:25].strip(): line[25:].split()[:2] for line in (here / "limits").read_text().splitlines()}
    assert bounds["Max open files"] == ["3", "3"]
    assert bounds["Max file size"] == ["0", "0"]
    assert bounds["Max core file size"] == ["0", "0"]
    assert bounds["Max address space"] == [str(limits.memory + RESERVE)] * 2


@pytest.mark.peer
def test_an_error_names_file_and_line(opa_library: Path, past_checker: PastChecker, good: doc.PolicyInput) -> None:
    decision = past_checker(OpaGoEngine(opa_library), "allow if to_number(`x`) == 1\n").decide(good)
    assert decision.outcome == "error"
    assert [denial.code for denial in decision.denials] == [Code.POLICY_ERROR]
    assert decision.detail.startswith("test.rego:12: eval_builtin_error: to_number: ")
    assert "weighbridge_engine" not in decision.detail


@pytest.mark.peer
def test_undefined_and_odd_answers_admit_nothing(
    opa_library: Path, past_checker: PastChecker, good: doc.PolicyInput
) -> None:
    prepared = past_checker(OpaGoEngine(opa_library), "allow if true\n")
    assert prepared.decide(good).outcome == "allow"
    prepared._query = b"[data.weighbridge.policy.none, data.weighbridge.policy.deny]"
    assert prepared.decide(good).outcome == "undefined"
    prepared._query = b"[1, data.weighbridge.policy.deny]"
    assert [denial.code for denial in prepared.decide(good).denials] == [Code.POLICY_OUTPUT]


@pytest.mark.peer
def test_values_come_as_regorus_gives_them(opa_library: Path) -> None:
    """Undefined, text beyond ASCII, large numbers, prints."""
    bench = OpaGoEngine(opa_library).bench((), {})
    for query, value in (
        (b"input.x", UNDEFINED),
        (b'"\xc3\xa9"', "é"),
        (b"18446744073709551615", 2**64 - 1),
        (b"{2, 1}", [1, 2]),
        (b"input.n", None),
    ):
        assert read_value(bench.evaluate(query, b'{"n": null}', now_ns=1)) == value
    bench.close()


@pytest.mark.peer
def test_the_checker_stands_before_it_and_its_compiler_behind(
    opa_library: Path, policy_of: PolicyOf, head: str
) -> None:
    engine = OpaGoEngine(opa_library)
    good = policy_of(head + RULES)
    assert engine.check(good) == RegorusEngine().check(good)
    bad = policy_of(head + RULES + "\nx := count(1, 2)\n")
    found = {(finding.check, finding.module, finding.line) for finding in engine.check(bad)}
    assert {item for item in found if item[0] == "opa-compiler"} == {("opa-compiler", "test.rego", 31)}
    assert {finding.check for finding in RegorusEngine().check(bad)} < {item[0] for item in found}
    with pytest.raises(PolicyDenied) as caught:
        engine.load(bad)
    assert caught.value.clause == "checker arity", "our own words come first"


@pytest.mark.peer
def test_what_only_opa_refuses_is_not_loaded(opa_library: Path, policy_of: PolicyOf, head: str) -> None:
    policy = policy_of(head + RULES + "\ny := to_number([])\n\nallow if y == 1\n")
    RegorusEngine().load(policy).close()
    with pytest.raises(PolicyDenied, match="rego_type_error") as caught:
        OpaGoEngine(opa_library).load(policy)
    assert (caught.value.code, caught.value.where) == (Code.POLICY_INVALID, "test.rego:31")


@pytest.mark.peer
def test_a_policy_that_opa_takes_too_long_to_compile_is_refused(
    opa_library: Path, policy_of: PolicyOf, head: str
) -> None:
    chain = "".join(f"f{i}(x) := f{i + 1}(x)\n\n" for i in range(1500)) + "f1500(x) := x\n\nallow if f0(1) == 2\n"
    engine, policy = OpaGoEngine(opa_library), policy_of(head + chain)
    for refused in (engine.load, engine.check):
        with pytest.raises(PolicyDenied) as caught:
            _ = refused(policy, Limits(load_seconds=0.6))
        assert caught.value.code is Code.POLICY_INVALID


@pytest.mark.peer
def test_where_the_second_of_two_workers_cannot_be_started_the_first_is_ended(
    opa_library: Path, policy_of: PolicyOf, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Worker] = []
    lock = threading.Lock()

    def spawned(limits: Limits, program: Program | None = None) -> Worker:
        with lock:
            if made:
                raise EnvironmentFault(Code.COMMAND_FAILED, "no more processes")
            made.append(spawn(limits, program))
            return made[0]

    monkeypatch.setattr(opa_go, "spawn", spawned)
    with pytest.raises(EnvironmentFault, match="no more processes"):
        OpaGoEngine(opa_library).load(policy_of(head + RULES), workers=2)
    assert not made[0].alive


@pytest.mark.peer
def test_several_workers_and_no_worker(opa_library: Path, policy_of: PolicyOf, head: str, standing: Standing) -> None:
    engine, policy = OpaGoEngine(opa_library), policy_of(head + RULES)
    with engine.load(policy, workers=2, spares=1) as prepared:
        pids = standing(prepared, 3)
        assert len(pids) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(ValueError, match="worker"):
        _ = engine.load(policy, workers=0)


def test_what_is_not_the_library_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        OpaGoEngine(tmp_path)
    assert caught.value.code is Code.TOOL_MISSING
    assert "requirements/peers/opa.lock" in caught.value.hint
    (tmp_path / "opa_golib_python_bindings-0.4.3.dist-info").mkdir()
    with pytest.raises(EnvironmentFault, match="version") as caught:
        OpaGoEngine(tmp_path)
    assert (caught.value.expected, caught.value.got) == ("0.4.4", "0.4.3")
    shutil.rmtree(tmp_path / "opa_golib_python_bindings-0.4.3.dist-info")
    (tmp_path / "opa_golib_python_bindings-0.4.4.dist-info").mkdir()
    with pytest.raises(EnvironmentFault):
        OpaGoEngine(tmp_path)


def test_the_worker_imports_nothing_of_ours_but_its_neighbour() -> None:
    source = Path(opa_worker.__file__).read_text().split('"""', 2)[2]
    assert source.count("weighbridge.") == 1, "for type checkers"
    assert "from weighbridge.policy.engines import worker\nelse:" in source


@pytest.mark.parametrize(
    ("message", "place", "error"),
    [
        ("\n--> a.rego:3:5\n  |\nerror: it is wrong", "a.rego:3", "it is wrong"),
        ("error: it is wrong", "", "it is wrong"),
        ("eval_error: my a.rego:3: eval_builtin_error: x: bad", "my a.rego:3", "eval_builtin_error: x: bad"),
        (
            "prepare_error: bundle activation failed: 1 error occurred: a.rego:16: x\n\thave: 1",
            "a.rego:16",
            "x have: 1",
        ),
        ("prepare_error: 2 errors occurred:\na.rego:1:2: x\nb.rego:2: y", "a.rego:1", "x b.rego:2: y"),
        ("no place", "", "no place"),
        ("", "", ""),
    ],
)
def test_of_an_engines_message_place_and_error_are_told(message: str, place: str, error: str) -> None:
    assert place_and_error(message) == (place, error)
