"""`weighbridge policy eval`: decisions and queries, on documents, golden inputs and recorded windows."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from support.recorded import LENIENT, record
from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.authoring.golden import Golden
from weighbridge.policy.authoring.scaffold import SCENARIOS, files
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.recorded import Recorded
    from support.world import Engines

    Run = Callable[..., tuple[int, str, str]]

EXAMPLE: Final = EXAMPLES["emulated"]


@pytest.fixture(scope="module")
def made(quick_dir: Path, engines: Engines) -> Iterator[Recorded]:
    directory = quick_dir / "evaluated"
    directory.mkdir()
    recorded = record(directory, engines)
    yield recorded
    recorded.world.close()
    shutil.rmtree(directory)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["policy", "eval", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A policy as `policy init` writes it."""
    directory = tmp_path / "mine"
    for name, content in files(SCENARIOS["development"]).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "document.json"
    path.write_bytes(EXAMPLE.input.to_json())
    return path


def changed(path: Path, **members: Any) -> Path:  # noqa: ANN401 - of JSON
    """The file with other members of its sessions'."""
    value = json.loads(path.read_bytes())
    value["session"].update(members)
    path.write_text(json.dumps(value))
    return path


def test_what_is_allowed_is_said_with_everything_left_out(run: Run, mine: Path, document: Path) -> None:
    status, out, err = run(mine, "--input", document)
    assert (status, err) == (ExitCode.AFFIRMED, "")
    first, *rest = out.splitlines()
    session = EXAMPLE.input.session.id
    assert first == f"ALLOWED: window 3 of session {session}, received {EXAMPLE.input.received_at}"
    assert "│  ├─ platform: insecure: a policy for development admits emulated platforms" in rest
    assert any(line.startswith("   ├─ policy ") for line in rest)
    assert "because" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_what_is_denied_says_why(run: Run, mine: Path, document: Path) -> None:
    status, out, err = run(mine, "--input", changed(document, tenant="other"))
    assert (status, err) == (ExitCode.DENIED, "")
    assert out.splitlines()[:5] == [
        f"DENIED: window 3 of session {EXAMPLE.input.session.id}, received {EXAMPLE.input.received_at}",
        "├─ because",
        "│  └─ NOT_DEVELOPMENT: this policy is for development, and the session is another tenant's",
        "│     ├─ expected acme, got other",
        "│     └─ hint: name your own tenant in data.json",
    ]


def test_the_document_for_programs(run: Run, mine: Path, document: Path) -> None:
    status, out, err = run(mine, "--input", changed(document, tenant="other"), "--json")
    assert (status, err) == (ExitCode.DENIED, "")
    found: dict[str, Any] = json.loads(out)
    assert found["schema"] == "weighbridge/policy-eval/v1"
    assert found["decision"]["outcome"] == "deny"
    assert [denial["code"] for denial in found["decision"]["denials"]] == ["NOT_DEVELOPMENT"]
    assert found["decision"].keys() >= {"warn", "unchecked", "obligations", "trust_claims", "policy", "reference"}
    assert found["recorded"] is None


def test_a_device_is_named(run: Run, mine: Path, tmp_path: Path) -> None:
    gpu = replace(EXAMPLE.input.gpus[0], revocation="revoked")
    (tmp_path / "x.json").write_bytes(replace(EXAMPLE.input, gpus=(gpu,)).to_json())
    _, out, _ = run(mine, "--input", tmp_path / "x.json")
    assert f"│     ├─ device {gpu.identity[:16]}…" in out.splitlines()


def test_a_shipped_policy_by_its_name(run: Run, document: Path, mine: Path) -> None:
    status, out, _ = run("production", "--input", document, "--reference", mine / "reference.json")
    assert status == ExitCode.DENIED
    assert "PLATFORM_EMULATED" in out
    status, out, _ = run("insecure_development", "--input", document, "--reference", mine / "reference.json")
    assert status == ExitCode.AFFIRMED


def test_without_reference_values_nothing_is_admitted(run: Run, mine: Path, document: Path) -> None:
    (mine / "reference.json").unlink()
    status, out, _ = run(mine, "--input", document)
    assert status == ExitCode.DENIED
    assert "REFERENCE_ABSENT" in out


def test_standard_input(run: Run, mine: Path, document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(document.read_bytes())))
    assert run(mine, "--input", "-")[0] == ExitCode.AFFIRMED


def test_other_data_and_another_time(run: Run, mine: Path, document: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"tenant": "other"}')
    status, out, _ = run(mine, "--input", document, "--data", tmp_path / "other.json")
    assert status == ExitCode.DENIED
    assert "expected other, got acme" in out
    _, out, _ = run(mine, "--input", document, "--at", "2030-01-02T03:04:05Z")
    assert "received 2030-01-02T03:04:05Z" in out
    _, out, _ = run(mine, "--input", document, "--at", "2030-01-02T03:04:05Z", "--query", "time.now_ns()")
    assert out == "1893553445000000000\n"


def test_print_works(run: Run, mine: Path, document: Path) -> None:
    policy = mine / "policy.rego"
    policy.write_text(
        policy.read_text().replace(
            "\tnot development\n", '\tprint("tenant", input.session.tenant)\n\tnot development\n'
        )
    )
    status, out, _ = run(mine, "--input", document)
    assert status == ExitCode.AFFIRMED
    assert "│  └─ policy.rego:24: tenant acme" in out.splitlines()


# -- queries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("allow", True),
        ("deny", []),
        ("lib.fresh", True),
        ("data.weighbridge.lib.schema", "weighbridge/policy-input/v1"),
        ("input.work.requests * 2", 24),
        ("data.author", {"tenant": "acme"}),
        ("count(data.reference.models)", 1),
        ("null", None),
        ("false", False),
    ],
)
def test_the_value_of_a_query(run: Run, mine: Path, document: Path, query: str, value: object) -> None:
    status, out, err = run(mine, "--input", document, "--query", query)
    assert (status, err) == (ExitCode.AFFIRMED, "")
    assert json.loads(out) == value


@pytest.mark.parametrize(("query", "value"), [("deny", []), ("input.work.requests * 2", 24), ("null", None)])
def test_the_value_of_a_query_in_a_document(run: Run, mine: Path, document: Path, query: str, value: object) -> None:
    _, out, _ = run(mine, "--input", document, "--query", query, "--json")
    found = json.loads(out)
    assert (found["schema"], found["defined"], found["value"]) == ("weighbridge/policy-query/v1", True, value)


def test_what_has_no_value_is_not_null(run: Run, mine: Path, document: Path) -> None:
    status, out, _ = run(mine, "--input", document, "--query", "input.gpus[7]")
    assert (status, out) == (ExitCode.DENIED, "undefined\n")
    _, out, _ = run(mine, "--input", document, "--query", "input.gpus[7]", "--json")
    assert (json.loads(out)["defined"], json.loads(out)["value"]) == (False, None)


@pytest.mark.parametrize("query", ["nonsense(", 'to_number("x")', "absent", ""])
def test_a_query_that_is_none_says_so(run: Run, mine: Path, document: Path, query: str) -> None:
    status, out, err = run(mine, "--input", document, "--query", query)
    assert (status, out) == (ExitCode.DENIED, "")
    assert f"{Code.POLICY_ERROR.value}: the query has no value" in err
    assert "hint: rules are named by their paths" in err


# -- golden inputs -----------------------------------------------------------------------------------------------------


def test_a_golden_input_brings_values_and_data(run: Run, mine: Path) -> None:
    (mine / "reference.json").unlink()
    (mine / "data.json").write_text('{"tenant": "other"}')
    status, out, _ = run(mine, "--input", mine / "golden" / "admitted.golden.json")
    assert status == ExitCode.AFFIRMED, out


def test_what_is_decided_is_recorded_and_tested(
    run: Run, mine: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = mine / "golden" / "mine.golden.json"
    status, out, _ = run(mine, "--input", changed(document, tenant="other"), "--record", target)
    assert status == ExitCode.DENIED
    assert out.splitlines()[-1] == f"recorded: {target}"
    golden = Golden.parse(target.read_bytes())
    assert golden.input.session.tenant == "other"
    assert [denial.code for denial in golden.expect.denials] == ["NOT_DEVELOPMENT"]
    assert main(["policy", "test", str(target)]) == ExitCode.AFFIRMED
    (mine / "data.json").write_text('{"tenant": "other"}')
    assert main(["policy", "test", str(target)]) == ExitCode.DENIED
    assert "- deny NOT_DEVELOPMENT" in capsys.readouterr().out


def test_recording_a_golden_input_again_keeps_its_title(run: Run, mine: Path) -> None:
    target = mine / "golden" / "other-tenant.golden.json"
    run(mine, "--input", target, "--record", target)
    assert Golden.parse(target.read_bytes()).title == "another tenant's session"


# -- recorded windows --------------------------------------------------------------------------------------------------


def evidence(made: Recorded, kind: str, window: int) -> list[object]:
    return ["--bundle", made.bundle(kind), "--anchors", made.state / "anchors.json", "--window", window]


def test_a_recorded_window(run: Run, made: Recorded, tmp_path: Path) -> None:
    (tmp_path / "lenient.rego").write_text(LENIENT)
    status, out, err = run(tmp_path / "lenient.rego", *evidence(made, "affirmed", 1))
    assert (status, err) == (ExitCode.AFFIRMED, "")
    assert out.startswith(f"ALLOWED: window 1 of session {made.sessions['affirmed'].hex()}, ")
    (tmp_path / "none.json").write_text(
        '{"schema": "weighbridge/reference/v1", "models": {}, "gpu_measurements": {}, "unchecked": {}}'
    )
    status, out, _ = run(
        tmp_path / "lenient.rego", *evidence(made, "affirmed", 1), "--reference", tmp_path / "none.json"
    )
    assert status == ExitCode.DENIED
    assert "REFERENCE_ABSENT" in out


def test_a_window_that_no_policy_was_asked_about(run: Run, made: Recorded) -> None:
    status, out, err = run("production", *evidence(made, "refused", 1))
    assert (status, out) == (ExitCode.DENIED, "")
    assert "at window 1" in err
    assert "hint: it was refused before any policy is asked" in err


def test_a_window_that_is_not_there(run: Run, made: Recorded) -> None:
    status, _, err = run("production", *evidence(made, "affirmed", 9))
    assert status == ExitCode.ENVIRONMENT
    assert "expected 0 to 2, got 9" in err


def test_evidence_is_verified_first(run: Run, made: Recorded) -> None:
    status, _, err = run("production", "--bundle", made.bundle("affirmed"), "--window", 1)
    assert status == ExitCode.NOT_AUTHENTIC, err


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "one of the arguments --input --bundle is required"),
        (("--input", "a", "--bundle", "b"), "not allowed with"),
        (("--bundle", "b"), "--bundle and --window belong together"),
        (("--input", "a", "--window", "1"), "--bundle and --window belong together"),
        (("--input", "a", "--anchors", "b"), "--anchors is for a bundle"),
        (("--input", "a", "--query", "b", "--record", "c.golden.json"), "leave out --query"),
        (("--input", "a", "--record", "c.json"), "must end in .golden.json"),
        (("--bundle", "a", "--window", "-1"), "--window"),
        (("--input", "a", "--at", "yesterday"), "--at"),
    ],
)
def test_mistakes_in_the_command(run: Run, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = run("production", *arguments)
    assert (status, out) == (ExitCode.USAGE, "")
    assert said in err


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", Code.NOT_JSON),
        (b"[]", Code.FIELD_TYPE),
        (b"{}", Code.FIELD_MISSING),
        (b'{"schema": "weighbridge/policy-golden/v1"}', Code.FIELD_MISSING),
    ],
)
def test_what_is_no_document_is_refused(run: Run, tmp_path: Path, content: bytes, code: Code) -> None:
    (tmp_path / "x.json").write_bytes(content)
    status, out, err = run("production", "--input", tmp_path / "x.json")
    assert (status, out) == (ExitCode.MALFORMED, "")
    assert f"{code.value}: not a policy's input" in err
    assert "hint: " in err


def test_what_the_checker_refuses_is_not_evaluated(run: Run, mine: Path, document: Path) -> None:
    policy = mine / "policy.rego"
    policy.write_text(policy.read_text().replace("input.session.tenant ==", "input.session.tenannt =="))
    status, out, err = run(mine, "--input", document)
    assert (status, out) == (ExitCode.DENIED, "")
    assert f"{Code.POLICY_INVALID.value}: input.session has no tenannt" in err
    assert "did you mean tenant?" in err


def test_an_evaluation_that_does_not_end_says_so(run: Run, mine: Path, document: Path) -> None:
    many = f'split("{"," * 29}", ",")'
    slow = "; ".join(f"some {name} in {many}" for name in "abcdef")
    (mine / "slow.rego").write_text(
        f"package weighbridge.policy\n\nimport rego.v1\n\ndevelopment if count([1 | {slow}]) == 1\n"
    )
    status, out, _ = run(mine, "--input", document)
    assert status == ExitCode.DENIED
    assert out.startswith("NOT ALLOWED: the policy takes too long: window 3")
    assert "├─ the engine says" in out.splitlines()


def test_a_policy_for_another_verifier_is_asked_beside(run: Run, mine: Path, document: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.rego"
    theirs.write_text("package policy\n\nimport rego.v1\n\ndefault nv_match := false\n")
    status, out, _ = run(mine, "--input", document, "--foreign", f"nvidia:{theirs}", "--json")
    assert status == ExitCode.DENIED
    assert [item["code"] for item in json.loads(out)["decision"]["denials"]] == ["POLICY_FOREIGN"]
    theirs.write_text("package policy\n\nnv_match { true }\n")
    status, _, err = run(mine, "--input", document, "--foreign", f"nvidia:{theirs}")
    assert (status, "--foreign-v0" in err) == (ExitCode.DENIED, True)
    status, _, err = run(mine, "--input", document, "--foreign-v0", f"nvidia:{theirs}")
    assert (status, err) == (ExitCode.AFFIRMED, "")


def test_a_name_that_is_no_policy_is_told_the_shipped_ones(run: Run, document: Path) -> None:
    status, _, err = run("prodution", "--input", document)
    assert status == ExitCode.ENVIRONMENT
    assert "one of: production, " in err
