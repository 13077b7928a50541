"""`weighbridge policy engines`, and `--engine`: which engines there are, and by which one something is judged."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weighbridge.policy.engines import conformance
from weighbridge.policy.engines.conformance_cases import Case
from weighbridge.proto import strict
from weighbridge.verifier.cli import main
from weighbridge.verifier.commands import engines
from weighbridge.verifier.commands.engines import EngineChoice

Run = Callable[..., tuple[int, str, str]]
REGORUS = "regorus  gordon-to-regorus 0.13.0: 94 of 94 cases, conforms\n"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The verb, where no `opa` is on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["policy", "engines", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


def document_of(out: str) -> dict[str, Any]:
    value = strict.json_decode(out.encode(), what="it")
    assert isinstance(value, dict)
    return value


def test_the_engine_that_decides_conforms(run: Run) -> None:
    assert run() == (0, REGORUS + "opa      not installed: no opa here\n", "")


def test_one_document(run: Run) -> None:
    status, out, _ = run("--json")
    assert status == 0
    assert document_of(out) == {
        "schema": "weighbridge/policy-engines/v1",
        "outcome": "conforms",
        "engines": [
            {"engine": "regorus", "version": "gordon-to-regorus 0.13.0", "cases": 94, "passed": 94, "failed": []},
            {"engine": "opa", "version": None, "cases": 0, "passed": 0, "failed": []},
        ],
    }


@pytest.mark.peer
def test_an_engine_that_is_named(run: Run, opa_library: Path) -> None:
    status, out, _ = run("--engine", f"opa-go:{opa_library}")
    assert status == 0
    assert "opa-go   opa-golib-python-bindings 0.4.4 (OPA 1.20.2): 94 of 94 cases, conforms\n" in out


def test_one_that_does_not_conform_is_said_and_exits_5(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tuple(Case("text", f"wrong {n}", f"answer := {n}", -1) for n in range(12))
    monkeypatch.setattr(conformance, "CASES", wrong)
    status, out, _ = run()
    assert status == 5
    first, *lines, _ = out.splitlines()
    assert first == "regorus  gordon-to-regorus 0.13.0: 0 of 12 cases, DOES NOT CONFORM: decide nothing with it"
    assert lines == [*(f"           text: wrong {n}: got {n}" for n in range(10)), "           and 2 more"]
    status, out, _ = run("--json")
    assert status == 5
    found = document_of(out)
    assert found["outcome"] == "differs"
    assert found["engines"][0]["failed"][3] == {"about": "text", "case": "wrong 3", "got": "3"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--engine", "opa"), 8, "no opa here"),
        (("--engine", "opa:/nonexistent/opa"), 8, "no /nonexistent/opa here"),
        (("--engine", "opa-go:/nonexistent"), 8, "no opa-golib-python-bindings of a version that is known here"),
        (("--engine", "cross:regorus,opa"), 2, "name each engine by itself"),
        (("--engine", "rego"), 2, "'rego' is no engine: regorus, opa-go:DIR, opa, opa:PROGRAM, or cross:ENGINE,ENGINE"),
    ],
)
def test_what_is_not_there_is_said_with_what_to_do(
    run: Run, arguments: tuple[str, ...], status: int, message: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (status, "")
    assert message in err
    assert "\nhint: " in err


# -- names of engines

OPA = EngineChoice("opa", "opa")
REGO = EngineChoice("regorus")
GO = EngineChoice("opa-go", "a/b")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("regorus", REGO),
        ("opa-go:a/b", GO),
        ("opa", OPA),
        ("opa:/usr/bin/opa", EngineChoice("opa", "/usr/bin/opa")),
        ("cross:regorus,opa-go:a/b", EngineChoice("cross", both=(REGO, GO))),
        ("cross:opa,regorus", EngineChoice("cross", both=(OPA, REGO))),
    ],
)
def test_a_name_is_an_engine_and_comes_back(text: str, choice: EngineChoice) -> None:
    assert engines.engine(text) == choice
    assert str(choice) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "Regorus", "regorus:", "regorus:x", "opa-go", "opa-go:", "opa:", "go", "cross", "cross:", "cross:regorus",
        "cross:regorus,regorus", "cross:regorus,opa,opa-go:x", "cross:cross:regorus,opa", "cross:regorus,", "a,b",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        engines.engine(text)


def test_engines_are_opened_by_their_names(opa_library: Path) -> None:
    assert REGO.open().name == "regorus"
    assert (
        EngineChoice("cross", both=(REGO, EngineChoice("opa-go", str(opa_library)))).open().name
        == "cross:regorus,opa-go"
    )
    with pytest.raises(ValueError, match="two"):
        _ = EngineChoice("cross", both=(REGO, GO)).single()
