"""`weighbridge policy check`: on a screen, as JSON, by its exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from weighbridge.policy.checker.findings import CHECKS
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

GOOD = """package weighbridge.policy

import data.weighbridge.lib

default allow := false

allow if count(deny) == 0

deny contains d if some d in lib.always
"""
WARNED = GOOD + "\nhelper := 1\n"
DANGEROUS = (
    GOOD
    + """
deny contains d if {
	some gpu in input.gpus
	gpu.revokation == "revoked"
	d := lib.denial("GPU", gpu.identity, "revoked", null, null, null)
}
"""
)
TEST = """package weighbridge.policy_test

import data.examples
import data.weighbridge.policy

test_admits if {
	policy.allow with input as examples.emulated.input with data.reference as examples.emulated.reference
}
"""
SHOWN = """\
{path}:13:2: error[path-unknown]: input.gpus[] has no revokation
  13 |     gpu.revokation == "revoked"
     |     ^
  why:  what does not exist is undefined: a denial that looks at it never comes, and its not always
        holds
  safe: did you mean revocation?

1 module: 1 error; no verifier loads it
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["policy", "check", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


@pytest.fixture
def policy(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "gate.rego") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def document_of(out: str) -> dict[str, Any]:
    value = strict.json_decode(out.encode(), what="it")
    assert isinstance(value, dict)
    return value


def test_an_error_is_shown_with_its_line_and_the_safe_way(run: Run, policy: Callable[..., Path]) -> None:
    path = policy(DANGEROUS)
    status, out, err = run(path)
    # Where the path is long, the first line is wrapped.
    assert " ".join(out.split()) == " ".join(SHOWN.format(path=path).split())
    assert out.endswith(SHOWN.partition("\n")[2])
    assert (status, err) == (ExitCode.DENIED, "")


def test_nothing_is_found(run: Run, policy: Callable[..., Path]) -> None:
    policy(TEST, "gate_test.rego")
    assert run(policy(GOOD).parent) == (ExitCode.AFFIRMED, "2 modules: nothing found\n", "")


def test_a_warning_fails_only_where_that_is_asked_for(run: Run, policy: Callable[..., Path]) -> None:
    path = policy(WARNED)
    status, out, _ = run(path)
    assert status == ExitCode.AFFIRMED
    assert "warning[unused-rule]" in out
    assert out.endswith("1 module: 1 warning; a verifier loads it\n")
    status, out, _ = run(path, "--strict")
    assert status == ExitCode.DENIED
    assert out.endswith("--strict takes no warning\n")


def test_strict_passes_what_has_no_finding(run: Run, policy: Callable[..., Path]) -> None:
    assert run(policy(GOOD), "--strict")[0] == ExitCode.AFFIRMED


def test_a_finding_in_json(run: Run, policy: Callable[..., Path]) -> None:
    path = policy(DANGEROUS)
    status, out, err = run(path, "--json")
    document = document_of(out)
    assert (status, err) == (ExitCode.DENIED, "")
    assert document == {
        "schema": "weighbridge/policy-check/v1",
        "parsed": True,
        "loads": False,
        "errors": 1,
        "warnings": 0,
        "modules": [str(path)],
        "findings": [
            {
                "module": str(path),
                "line": 13,
                "column": 2,
                "id": "path-unknown",
                "severity": "error",
                "message": "input.gpus[] has no revokation",
                "why": CHECKS["path-unknown"].why,
                "safe": "did you mean revocation?",
                "source": '\tgpu.revokation == "revoked"',
            }
        ],
    }


@pytest.mark.parametrize(
    ("text", "place", "check"),
    [
        (GOOD + "\nx := = 1\n", ":11:6", "syntax"),
        (GOOD + "\ndeny contains d if {\n\td := := 1\n}\n", ":12:7", "syntax"),
        (GOOD + "\nx := `é` := 2\n", ":11:10", "syntax"),
        (GOOD + "\nx := {\n", ":", "syntax"),
        (GOOD + '\nx := $"a"\n', ":11:6", "syntax"),
        (GOOD + "\nx := " + "[" * 20 + "]" * 20 + "\n", ":11:1", "bounds"),
        (GOOD + '\nx := "\n', ":11:1", "bounds"),
        (GOOD + "\n# " + "a" * 600 + "\n", ":11:1", "bounds"),
        (GOOD + "\n" * 6000, ":", "bounds"),
        (GOOD.encode() + b"\n# \xff\n", ":11:1", "bounds"),
        (GOOD + "\nx[input.schema].y := 1\n", ":11:1", "syntax"),
        (GOOD + "\nx := 1" + "\n+ 1" * 1200 + "\n", ":", "syntax"),
    ],
)  # fmt: skip
def test_what_does_not_parse_is_malformed(
    run: Run, policy: Callable[..., Path], text: str | bytes, place: str, check: str
) -> None:
    path = policy(text)
    status, out, _ = run(path)
    assert status == ExitCode.MALFORMED
    assert f"{path}{place}" in out
    assert f"error[{check}]" in out
    assert "not parsed" in out
    assert "backtrace" not in out
    document = document_of(run(path, "--json")[1])
    assert (document["parsed"], document["loads"], document["errors"]) == (False, False, 1)


def test_a_test_module_that_does_not_parse_is_named(run: Run, policy: Callable[..., Path]) -> None:
    test = policy(TEST + "\nx := = 1\n", "gate_test.rego")
    status, out, _ = run(policy(GOOD).parent)
    assert status == ExitCode.MALFORMED
    assert f"{test}:10:6: error[syntax]" in " ".join(out.split())


def test_tests_are_checked_beside_the_policy(run: Run, policy: Callable[..., Path]) -> None:
    policy(GOOD)
    test = policy(TEST.replace("examples.emulated.input", "examples.emulatd.input"), "gate_test.rego")
    status, out, _ = run(test)
    assert status == ExitCode.DENIED
    assert f"{test}:7:29" in out
    assert "did you mean emulated?" in out


def test_what_cannot_be_printed_is_escaped(run: Run, policy: Callable[..., Path]) -> None:
    _, out, _ = run(policy(GOOD + "\nx := data.a[`\u2060`]\n"))
    assert "\u2060" not in out
    assert "\\u2060" in out


def test_long_lines_fit_the_screen(run: Run, policy: Callable[..., Path]) -> None:
    long = "\nx if " + " + ".join(f"input.window.sequence{n}" for n in range(15)) + " == 1\n"
    _, out, _ = run(policy(GOOD + long))
    assert all(len(line) <= 100 or "/gate.rego" in line for line in out.splitlines())
    assert "…" in out


def test_every_check_is_listed(run: Run) -> None:
    status, out, _ = run("--list")
    assert status == ExitCode.AFFIRMED
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == list(CHECKS)
    assert all(len(line) <= 100 for line in out.splitlines())
    document = document_of(run("--list", "--json")[1])
    assert document["schema"] == "weighbridge/policy-checks/v1"
    assert [check["id"] for check in document["checks"]] == list(CHECKS)


@pytest.mark.parametrize("arguments", [[], ["--list", "a.rego"], ["--list", "--strict"]])
def test_arguments_that_do_not_fit(run: Run, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (ExitCode.USAGE, "")
    assert "hint: `weighbridge policy check --help`" in err


def test_what_is_not_there(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "none.rego")[0] == ExitCode.ENVIRONMENT
    status, _, err = run(tmp_path)
    assert status == ExitCode.DENIED
    assert "there is no policy here" in err


def test_data_that_are_no_json_are_refused_as_they_are(run: Run, policy: Callable[..., Path]) -> None:
    policy("{", "data.json")
    status, out, err = run(policy(GOOD).parent)
    assert (status, out) == (ExitCode.DENIED, "")
    assert "data.json" in err
