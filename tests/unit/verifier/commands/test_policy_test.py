"""`weighbridge policy test` as authors and continuous integration see it: text, documents, reports, exit codes."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any, Final

import pytest

from weighbridge.policy.authoring.scaffold import SCENARIOS, files
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

FAILING: Final = """package weighbridge.policy_test

import rego.v1

test_wrong if {
	print("seen", 3)
	count([1]) == 2 - 0
}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["policy", "test", *map(str, arguments)])
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


def test_tests_that_pass_are_one_line(run: Run, mine: Path) -> None:
    assert run(mine) == (ExitCode.AFFIRMED, "8 tests passed; 100 % of the policy's lines reached\n", "")


def test_verbose_lists_them(run: Run, mine: Path) -> None:
    _, out, _ = run(mine, "-v")
    assert out.splitlines()[0] == "ok   policy_test.rego:29 test_admits_an_emulated_host"
    assert f"ok   {mine}/golden/admitted.golden.json everything as it should be" in out.splitlines()


def test_one_that_fails_shows_where_both_sides_and_what_it_printed(run: Run, mine: Path) -> None:
    (mine / "wrong_test.rego").write_text(FAILING)
    status, out, err = run(mine)
    assert (status, err) == (ExitCode.DENIED, "")
    assert out == (
        "FAIL wrong_test.rego:5 test_wrong\n"
        "       this does not hold:\n"
        "            7  count([1]) == 2 - 0\n"
        "               left   1\n"
        "               right  2\n"
        "       printed:\n"
        "         wrong_test.rego:6: seen 3\n"
        "9 tests: 8 passed, 1 failed; 100 % of the policy's lines reached\n"
    )


def test_a_golden_input_that_differs_shows_what_and_why(run: Run, mine: Path) -> None:
    path = mine / "golden" / "admitted.golden.json"
    path.write_text(path.read_text().replace('"tenant": "acme"\n  }', '"tenant": "other"\n  }', 1))
    changed = json.loads(path.read_text())
    changed["author"]["tenant"] = "other"
    path.write_text(json.dumps(changed))
    status, out, _ = run(mine)
    assert status == ExitCode.DENIED
    first, expected, new, *because = out.splitlines()
    assert first == f"FAIL {path} everything as it should be"
    assert (expected.strip(), new.strip().split(":")[0]) == ("expected allow, got deny", "+ deny NOT_DEVELOPMENT")
    assert "policy.rego line 23 denies it" in because[0]
    assert max(map(len, out.splitlines()[1:])) <= 110


def test_only_what_is_named_runs(run: Run, mine: Path) -> None:
    _, out, _ = run(mine, "--run", "test_refuses_*", "-v")
    assert [line.split()[2] for line in out.splitlines()[:-1]] == [
        "test_refuses_other_weights",
        "test_refuses_another_tenant",
    ]
    _, out, _ = run(mine, "--run", "tenant", "-v")
    assert len(out.splitlines()) == 3, "a test and a golden input"
    _, out, _ = run(mine / "golden" / "admitted.golden.json", "-v")
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize("arguments", [("--run", "absent"), ("--run", "*absent*", "--json")])
def test_no_test_is_not_passed(run: Run, mine: Path, arguments: tuple[str, ...]) -> None:
    status, _, err = run(mine, *arguments)
    assert status == ExitCode.DENIED
    assert f"{Code.POLICY_INVALID.value}: no test has such a name" in err
    status, _, err = run(mine / "policy.rego")
    assert status == ExitCode.DENIED
    assert "there is no test" in err
    assert "hint: write a rule test_…" in err


def test_coverage_below_the_threshold_fails(run: Run, mine: Path) -> None:
    status, out, _ = run(mine, "--run", "admits", "--threshold", "90")
    assert status == ExitCode.DENIED
    assert "not reached in policy.rego:" in out
    assert "     25  d := lib.denial(" in out
    assert out.splitlines()[-1].startswith("FAIL coverage: ")
    assert out.splitlines()[-1].endswith(" %, and 90 % is demanded")
    status, out, _ = run(mine, "--run", "admits", "--threshold", "10")
    assert status == ExitCode.AFFIRMED
    status, out, _ = run(mine, "--run", "admits", "--coverage")
    assert status == ExitCode.AFFIRMED
    assert "not reached in policy.rego:" in out


def test_long_lists_of_lines_are_cut(run: Run, mine: Path) -> None:
    rules = "\n\n".join(f"rule_{number} if input.window.seq == {number}" for number in range(30))
    used = "\n\n".join(
        f'warn contains w if {{\n\trule_{number}\n\tw := {{"code": "A", "message": "b"}}\n}}' for number in range(30)
    )
    (mine / "more.rego").write_text(f"package weighbridge.policy\n\nimport rego.v1\n\n{rules}\n\n{used}\n")
    _, out, _ = run(mine, "--coverage")
    assert "more lines: -v" in out
    _, out, _ = run(mine, "--coverage", "-v")
    assert "more lines: -v" not in out


def test_the_document_has_everything(run: Run, mine: Path) -> None:
    (mine / "wrong_test.rego").write_text(FAILING)
    status, out, err = run(mine, "--json", "--threshold", "100")
    assert (status, err) == (ExitCode.DENIED, "")
    document: dict[str, Any] = json.loads(out)
    assert document["schema"] == "weighbridge/policy-test/v1"
    assert (document["passed"], document["tests"], document["failed"]) == (False, 9, 1)
    (failed,) = (result for result in document["results"] if not result["passed"])
    assert (failed["kind"], failed["file"], failed["line"], failed["name"]) == (
        "rule",
        "wrong_test.rego",
        5,
        "test_wrong",
    )
    assert failed["prints"] == ["wrong_test.rego:6: seen 3"]
    assert failed["failure"][0] == "this does not hold:"
    assert document["coverage"]["percent"] == 100.0
    assert document["coverage"]["modules"][0]["missed"] == []


def test_a_report_is_written(run: Run, mine: Path, tmp_path: Path) -> None:
    (mine / "wrong_test.rego").write_text(FAILING)
    status, _, _ = run(mine, "--junit", tmp_path / "report.xml")
    assert status == ExitCode.DENIED
    root = ET.parse(tmp_path / "report.xml").getroot()  # noqa: S314 - what we wrote ourselves
    assert (root.get("tests"), root.get("failures")) == ("9", "1")


def test_what_the_checker_refuses_is_not_run(run: Run, mine: Path) -> None:
    policy = mine / "policy.rego"
    policy.write_text(policy.read_text().replace("input.session.tenant ==", "input.session.tenannt =="))
    status, out, err = run(mine)
    assert (status, out) == (ExitCode.DENIED, "")
    assert f"{Code.POLICY_INVALID.value}: input.session has no tenannt" in err
    assert "policy.rego:31" in err
    (mine / "policy.rego").write_text("package weighbridge.policy\n\nx if {\n")
    status, _, err = run(mine)
    assert (status, Code.POLICY_INVALID.value in err) == (ExitCode.DENIED, True)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("golden/x.golden.json", "{", "not a golden input"),
        ("golden/x.golden.json", '{"schema": "other"}', "another schema"),
        ("reference.json", "[]", "not reference values"),
    ],
)
def test_malformed_files_are_named(run: Run, mine: Path, file: str, content: str, said: str) -> None:
    (mine / file).write_text(content)
    status, out, err = run(mine)
    assert (status, out) == (ExitCode.MALFORMED, "")
    assert said in err
    assert file in err
    assert "hint: " in err


def test_what_is_not_there_is_an_environments_fault(run: Run, tmp_path: Path) -> None:
    status, _, err = run(tmp_path / "absent")
    assert status == ExitCode.ENVIRONMENT
    assert Code.FILE_UNREADABLE.value in err


def test_reference_values_of_ones_own(run: Run, mine: Path, tmp_path: Path) -> None:
    reference = tmp_path / "mine.json"
    reference.write_bytes((mine / "reference.json").read_bytes())
    (mine / "reference.json").unlink()
    (mine / "reference_test.rego").write_text(
        "package weighbridge.policy_test\n\nimport rego.v1\n\ntest_models if count(data.reference.models) == 1\n"
    )
    assert run(mine)[0] == ExitCode.DENIED
    assert run(mine, "--reference", reference)[0] == ExitCode.AFFIRMED


@pytest.mark.parametrize("percent", ["101", "-1", "9.5", "all"])
def test_a_threshold_is_a_percentage(run: Run, mine: Path, percent: str) -> None:
    status, _, err = run(mine, "--threshold", percent)
    assert status == ExitCode.USAGE
    assert "--threshold" in err


# -- watching ----------------------------------------------------------------------------------------------------------


def watched(run: Run, monkeypatch: pytest.MonkeyPatch, mine: Path, *changes: Callable[[], object]) -> tuple[int, str]:
    """One change for each time that nothing is left to do; then Ctrl-C."""
    pending = list(changes)

    def rest(seconds: float) -> None:
        assert seconds > 0
        if not pending:
            raise KeyboardInterrupt
        pending.pop(0)()

    monkeypatch.setattr(time, "sleep", rest)
    status, out, err = run(mine, "--watch")
    assert err == ""
    return status, out


def test_watching_runs_again_after_a_change(run: Run, monkeypatch: pytest.MonkeyPatch, mine: Path) -> None:
    status, out = watched(
        run,
        monkeypatch,
        mine,
        lambda: None,
        lambda: (mine / "wrong_test.rego").write_text(FAILING),
        lambda: (mine / "README.md").write_text("no file of the policy's"),
    )
    assert status == ExitCode.DENIED
    assert out.count("waiting for a change; Ctrl-C ends") == 2
    assert "8 tests passed" in out
    assert "9 tests: 8 passed, 1 failed" in out


def test_watching_survives_what_is_broken_meanwhile(run: Run, monkeypatch: pytest.MonkeyPatch, mine: Path) -> None:
    policy = mine / "policy.rego"
    good = policy.read_bytes()
    status, out = watched(
        run,
        monkeypatch,
        mine,
        lambda: policy.write_text("package weighbridge.policy\n\nx if {\n"),
        policy.unlink,
        lambda: policy.write_bytes(good),
    )
    assert status == ExitCode.AFFIRMED
    assert f"error: {Code.POLICY_INVALID.value}: the policy does not load" in out
    assert f"error: {Code.POLICY_INVALID.value}: there is no policy here" in out
    assert out.count("8 tests passed") == 2


def test_watching_is_for_people(run: Run, mine: Path) -> None:
    status, out, err = run(mine, "--watch", "--json")
    assert status == ExitCode.USAGE
    assert json.loads(out)["message"].endswith("leave out --json")
    assert "leave out --json" in err
