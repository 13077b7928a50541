"""An installed `opa` as an engine. There is none here: a stand-in answers as it does, by OPA's own library.

That it takes our command line as its documentation says is shown; that a real one does is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.engine import Limits, PolicyEngine
from weighbridge.policy.engines.conformance import run
from weighbridge.policy.engines.conformance_cases import CASES
from weighbridge.policy.engines.opa_binary import OpaBinaryEngine
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.process import WorkerCrashed, WorkerRefused, WorkerTimeout
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicySet
from weighbridge.proto.errors import Code, EnvironmentFault, PolicyDenied

PolicyOf = Callable[[str], PolicySet]
PastChecker = Callable[..., PreparedPolicy]
PATIENT = Limits(load_seconds=10.0, decide_seconds=10.0)
VERSION = 'if [ "$1" = version ]; then echo "Version: 1.20.2"; exit 0; fi\n'


def program(folder: Path, body: str) -> OpaBinaryEngine:
    """An engine on a program that says a version, and then does as it likes."""
    path = folder / "opa"
    path.write_text(f"#!/bin/sh\n{VERSION}{body}\n")
    path.chmod(0o755)
    return OpaBinaryEngine(str(path))


# -- by the stand-in


@pytest.mark.peer
def test_it_decides_as_regorus_does_and_says_who_decided(
    stand_in: Path, policy_of: PolicyOf, head: str, good: doc.PolicyInput
) -> None:
    engine: PolicyEngine = OpaBinaryEngine(str(stand_in))
    policy = policy_of(head + "allow if format_int(time.now_ns(), 10) == input.received_ns\n")
    with engine.load(policy, PATIENT) as prepared, RegorusEngine().load(policy) as regorus:
        for document in (good, replace(good, window=replace(good.window, freshness="held"))):
            decision, other = prepared.decide(document), regorus.decide(document)
            assert (decision.engine, decision.engine_version) == ("opa", "OPA 1.20.2") == (engine.name, engine.version)
            assert replace(decision, engine=other.engine, engine_version=other.engine_version) == other
        assert prepared.decide(good).outcome == "allow"


@pytest.mark.peer
def test_it_gives_answers_that_policies_rely_on(stand_in: Path) -> None:
    """A sample, since each takes a process; the last are what no policy may call."""
    results = run(OpaBinaryEngine(str(stand_in)), (*CASES[:-6:8], *CASES[-6:]), PATIENT)
    assert [(result.case.name, result.got) for result in results if not result.passed] == []


@pytest.mark.peer
def test_an_error_names_the_authors_file_and_line(
    stand_in: Path, past_checker: PastChecker, good: doc.PolicyInput
) -> None:
    engine = OpaBinaryEngine(str(stand_in))
    decision = past_checker(engine, "allow if to_number(`x`) == 1\n", PATIENT).decide(good)
    assert decision.outcome == "error"
    assert decision.detail.startswith("test.rego:12: eval_builtin")
    assert past_checker(engine, "default allow := 2\n", PATIENT).decide(good).outcome == "error"


@pytest.mark.peer
def test_what_is_no_builtin_of_policies_does_not_exist(
    stand_in: Path, past_checker: PastChecker, good: doc.PolicyInput
) -> None:
    for call in (
        "http.send({})",
        "rand.intn(`a`, 2)",
        "opa.runtime()",
        "json.match_schema({}, {})",
        "crypto.sha256(`a`)",
    ):
        decision = past_checker(OpaBinaryEngine(str(stand_in)), f"allow if {call}\n", PATIENT).decide(good)
        assert decision.outcome == "error", call
        assert "undefined function" in decision.detail


@pytest.mark.peer
def test_checker_and_compiler(stand_in: Path, policy_of: PolicyOf, head: str) -> None:
    engine = OpaBinaryEngine(str(stand_in))
    fine, only_opa = policy_of(head + "allow if true\n"), policy_of(head + "y := to_number([])\n\nallow if y == 1\n")
    assert engine.check(fine, PATIENT) == RegorusEngine().check(fine)
    assert {(finding.check, finding.line) for finding in engine.check(only_opa, PATIENT)} >= {("opa-compiler", 12)}
    with pytest.raises(PolicyDenied) as caught:
        engine.load(only_opa, PATIENT)
    assert (caught.value.code, caught.value.where) == (Code.POLICY_INVALID, "test.rego:12")


# -- programs that misbehave

ANSWER = 'echo \'{"result":[{"expressions":[{"value":[true,[]],"text":"","location":{"row":1,"col":1}}]}]}\''


@pytest.mark.parametrize(
    ("body", "outcome", "detail"),
    [
        (f"cat >/dev/null; {ANSWER}", "allow", ""),
        (f"exec <&-; {ANSWER}", "allow", ""),
        ("cat >/dev/null; echo '{}'", "undefined", ""),
        ("cat >/dev/null; echo garbage", "error", "not JSON"),
        ("cat >/dev/null", "error", "not JSON"),
        ('cat >/dev/null; echo \'{"result":[],"result":[]}\'', "error", "repeats"),
        (f"cat >/dev/null; {ANSWER}; exit 1", "crashed", "status 1"),
        (f"cat >/dev/null; {ANSWER}; exit 2", "crashed", "without an answer"),
        ('cat >/dev/null; echo \'{"errors":[{"message":"m"}]}\'; exit 2', "error", "m"),
        ("cat >/dev/null; echo '{\"errors\":[7]}'; exit 2", "error", "without words"),
        ("cat >/dev/null; echo garbage; exit 2", "crashed", "without an answer"),
        ("kill -9 $$", "crashed", "status -9"),
        ("sleep 9", "timeout", "deadline"),
        (f"cat >/dev/null; {ANSWER}; exec >&-; sleep 9", "timeout", "deadline"),
        ("yes | head -c 3000000; sleep 9", "crashed", "more than"),
        ("sleep 9 & sleep 9", "timeout", "deadline"),
    ],
)
def test_a_program_out_of_hand_admits_nothing_and_is_ended(
    tmp_path: Path, past_checker: PastChecker, good: doc.PolicyInput, body: str, outcome: str, detail: str
) -> None:
    engine = program(tmp_path, body)
    prepared = past_checker(engine, "", Limits(decide_seconds=0.8))
    large = replace(good, findings=tuple(doc.Finding("X", None, "m" * 500) for _ in range(400)))
    begun = time.monotonic()
    decision = prepared.decide(large)
    assert time.monotonic() - begun < 0.8 + 2.5
    assert decision.outcome == outcome, decision
    assert detail in decision.detail + "".join(denial.message for denial in decision.denials)


def test_what_it_started_ends_with_it(tmp_path: Path, past_checker: PastChecker) -> None:
    engine = program(tmp_path, "sleep 3217 & sleep 3217")
    evaluator = past_checker(engine, "", Limits(decide_seconds=0.5))._evaluator
    with pytest.raises(WorkerTimeout):
        _ = evaluator.evaluate(b"1", b"{}", now_ns=0)
    time.sleep(0.1)
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _content(path) == b"sleep\x003217\x00"]
    assert left == []


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


SURROUNDINGS = """
cat >/dev/null
found="$(ulimit -f) $(ulimit -c) $(ls | tr '\\n' ' ') $(env | grep -v -e PWD -e SHLVL -e _=)"
echo "{\\"errors\\":[{\\"message\\":\\"$found\\"}]}"
exit 2
"""


def test_limits_and_surroundings(tmp_path: Path, past_checker: PastChecker) -> None:
    engine = program(tmp_path, SURROUNDINGS)
    with pytest.raises(WorkerRefused) as caught:
        past_checker(engine, "")._evaluator.evaluate(b"1", b"{}", now_ns=0)
    assert str(caught.value).split() == ["0", "0", "capabilities.json", "data.json", "module0.rego", "module1.rego"]


def test_the_directory_goes_with_the_policy(
    tmp_path: Path, policy_of: PolicyOf, head: str, good: doc.PolicyInput
) -> None:
    engine = program(tmp_path, 'cat >/dev/null; echo "{\\"errors\\":[{\\"message\\":\\"$(pwd)\\"}]}"; exit 2')
    bench = engine.bench(policy_of(head).modules, {})
    with pytest.raises(WorkerRefused) as caught:
        bench.evaluate(b"1", b"{}", now_ns=0)
    folder = Path(str(caught.value))
    assert folder.stat().st_mode & 0o777 == 0o700
    bench.close()
    assert not folder.exists()
    bench.close()
    with pytest.raises(RuntimeError, match="closed"):
        bench.evaluate(b"1", b"{}", now_ns=0)
    # One that is not loaded leaves none behind either.
    with pytest.raises(PolicyDenied, match=str(folder.parent)) as refused:
        engine.load(policy_of(head + "allow if true\n"))
    assert not Path(str(refused.value.message).rpartition(" ")[2]).exists()
    assert good.gpus, "the document is not looked at"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo 'Version: 0.70.0'", Code.TOOL_MISSING),
        ("echo 'Version: 1.2'", Code.COMMAND_FAILED),
        ("echo 'Version: 1.20.2-dev'", Code.COMMAND_FAILED),
        ("echo 'Version: 1.20.2'; exit 1", Code.COMMAND_FAILED),
        ("yes", Code.COMMAND_FAILED),
        ("exit 1", Code.COMMAND_FAILED),
    ],
)
def test_what_is_no_opa_of_today_is_refused(tmp_path: Path, script: str, code: Code) -> None:
    path = tmp_path / "opa"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    with pytest.raises(EnvironmentFault) as caught:
        OpaBinaryEngine(str(path))
    assert caught.value.code is code


def test_none_at_all_and_one_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="no opa here") as caught:
        OpaBinaryEngine()
    assert caught.value.code is Code.TOOL_MISSING
    (tmp_path / "opa").write_bytes(b"\x7fELF")
    (tmp_path / "opa").chmod(0o755)
    with pytest.raises(EnvironmentFault, match="cannot start") as caught:
        OpaBinaryEngine()
    assert caught.value.code is Code.COMMAND_FAILED


def test_the_outcome_of_a_program_that_is_gone_is_an_environment_fault(
    tmp_path: Path, past_checker: PastChecker
) -> None:
    engine = program(tmp_path, "exit 1")
    evaluator = past_checker(engine, "")._evaluator
    with pytest.raises(WorkerCrashed, match="status 1"):
        evaluator.evaluate(b"1", b"{}", now_ns=0)
    (tmp_path / "opa").unlink()
    with pytest.raises(EnvironmentFault):
        evaluator.evaluate(b"1", b"{}", now_ns=0)


def test_a_policy_that_takes_too_long_or_cannot_be_laid_out_is_not_loaded(
    tmp_path: Path, policy_of: PolicyOf, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, policy = program(tmp_path, "sleep 9"), policy_of(head + "allow if true\n")
    for refused in (engine.load, engine.check):
        with pytest.raises(PolicyDenied, match="deadline"):
            _ = refused(policy, Limits(load_seconds=1.0))
    folders = tmp_path / "folders"
    folders.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folders))
    (tmp_path / "opa").unlink()
    with pytest.raises(EnvironmentFault, match="cannot start"):
        _ = engine.load(policy)
    assert list(folders.iterdir()) == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(EnvironmentFault, match="cannot lay the policy out"):
        _ = engine.load(policy)
