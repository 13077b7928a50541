"""What `policy init` writes works as it is: accepted without a warning, tested, every line reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.authoring.golden import Golden
from weighbridge.policy.authoring.scaffold import SCENARIOS, files
from weighbridge.policy.authoring.sources import collect
from weighbridge.policy.authoring.testing import Suite, run
from weighbridge.policy.authoring.trial import Trial
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import PolicyModule, authored
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import PolicyDenied


def test_there_is_a_scenario_for_everybody() -> None:
    assert set(SCENARIOS) == {
        "model-gate",
        "cloud-tenant",
        "bare-metal",
        "evaluated-model",
        "audit-only",
        "development",
    }
    assert all(scenario.name == name for name, scenario in SCENARIOS.items())


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_what_is_written_works_as_it_is(tmp_path: Path, name: str) -> None:
    for file, content in files(SCENARIOS[name]).items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content)
    found = collect([tmp_path])
    assert found.reference is not None
    policy = found.policy(Reference.parse(found.reference.read_bytes()))
    with Trial(policy, beside=found.test_modules()) as trial:
        assert trial.findings() == ()
    RegorusEngine().load(policy).close()
    golden = tuple((path.name, Golden.parse(path.read_bytes())) for path in found.golden)
    report = run(Suite(policy, found.test_modules(), golden))
    assert report.failed == ()
    assert report.coverage.reaches(100), report.coverage.modules
    assert len(golden) >= 2
    outcomes = {item.expect.outcome for _, item in golden}
    assert outcomes == ({"deny"} if name == "audit-only" else {"allow", "deny"})


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_tests_go_on_when_an_author_writes_down_what_is_his(name: str) -> None:
    scenario = SCENARIOS[name]
    written = files(scenario)
    modules = [(file, content) for file, content in written.items() if file == "policy.rego"]
    policy = authored(modules, reference=scenario.example.reference)
    golden = tuple((file, Golden.parse(content)) for file, content in written.items() if file.endswith(".golden.json"))
    report = run(Suite(policy, (PolicyModule("policy_test.rego", written["policy_test.rego"]),), golden))
    assert [(result.name, result.failure) for result in report.failed] == []


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_comments_come_first_and_say_whom_it_is_for(name: str) -> None:
    written = files(SCENARIOS[name])
    assert written["policy.rego"].startswith(b"# ")
    assert SCENARIOS[name].title in written["README.md"].decode()
    lines = [line for content in written.values() for line in content.decode().split("\n") if not line.startswith("|")]
    assert max(map(len, lines)) <= 200
    assert all(
        len(line) <= 120 for file in ("policy.rego", "policy_test.rego") for line in written[file].decode().split("\n")
    )


def test_an_audit_says_so_and_development_that_it_is_insecure() -> None:
    assert b"admits none" in files(SCENARIOS["audit-only"])["policy.rego"]
    assert files(SCENARIOS["development"])["policy.rego"].startswith(b"# INSECURE")


@pytest.mark.parametrize("name", ["model-gate", "bare-metal", "evaluated-model", "development"])
def test_without_the_authors_data_nothing_is_admitted(name: str) -> None:
    """Data that are missing do not take the denial with them; empty ones are refused before anything is decided."""
    written = files(SCENARIOS[name])
    rego = next(content for file, content in written.items() if file.endswith("policy.rego"))
    example = EXAMPLES["bare_metal_tpm_h100"]
    empty = authored([("policy.rego", rego), ("data.json", b"{}")], reference=example.reference)
    with pytest.raises(PolicyDenied, match=r"data\.author has no"):
        RegorusEngine().load(empty).close()
    policy = authored([("policy.rego", rego)], reference=example.reference)
    with RegorusEngine().load(policy) as prepared:
        decision = prepared.decide(example.input)
    assert decision.outcome == "deny"
    assert {denial.code for denial in decision.denials} & {
        "NOT_OUR_TENANT",
        "MODEL_NOT_RELEASED",
        "GPUS_INCOMPLETE",
        "MODEL_NOT_OWNED",
        "NOT_DEVELOPMENT",
    }
