"""`weighbridge policy docs`: what there is to write rules about, on a screen, as Markdown, as JSON Schema, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., tuple[int, str, str]]

WINDOW = """\
input.window: object: the window under judgement
├─ seq          integer  its number in the session, counted from 0
├─ freshness    word     fresh | held: held where it arrived under an old challenge: such a window
│                        never opens a gate
└─ interval_ns  integer  how long it is by the host's wall clock, nanoseconds
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["policy", "docs", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


def document_of(out: str) -> dict[str, Any]:
    value = strict.json_decode(out.encode(), what="it")
    assert isinstance(value, dict)
    return value


def test_a_part_is_a_tree(run: Run) -> None:
    assert run("input.window") == (0, WINDOW, "")
    assert run("window") == (0, WINDOW, "")


def test_without_a_path_all_of_the_input_is_shown_and_what_else_there_is(run: Run) -> None:
    status, out, _ = run()
    assert status == 0
    assert out.startswith("input: object: Everything that a policy sees of one window\n")
    assert "│  ├─ signed_feature         word or null" in out
    assert out.endswith("\nalso: weighbridge policy docs data.reference, weighbridge policy docs lib\n")
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("path", ["data.reference", "lib", "input.gpus", "input.gpus[].identity"])
def test_a_screen_takes_it(run: Run, path: str) -> None:
    status, out, _ = run(path)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100


def test_a_rule_of_the_library(run: Run) -> None:
    status, out, _ = run("lib.statement_within")
    assert status == 0
    assert "lib.statement_within(model, type, issuer, days): " in out
    assert len(out.splitlines()) < 6
    document = document_of(run("lib.statement_within", "--json")[1])
    assert document["schema"] == "weighbridge/policy-library/v1"
    assert [rule["name"] for rule in document["rules"]] == ["statement_within"]


def test_json_is_json_schema(run: Run) -> None:
    document = document_of(run("--json")[1])
    assert document["schema"] == "weighbridge/policy-docs/v1"
    assert document["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert "gpus" in document["required"]
    part = document_of(run("gpus[].kind", "--json")[1])
    assert (part["title"], part["enum"]) == ("input.gpus[].kind", ["gpu", "switch"])


def test_markdown_is_the_shipped_document(run: Run) -> None:
    shipped = Path(__file__).parents[4] / "docs" / "policy-input.md"
    assert run("--markdown") == (0, shipped.read_text(), "")
    assert run("input.window", "--markdown")[1].startswith("### `input.window`\n")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("input.gpus.revocaton", "input.gpus[] has no revocaton; did you mean input.gpus[].revocation?"),
        ("lib.denail", "the library has no documented denail; did you mean lib.denial?"),
        ("zzz", "there is no zzz; there are input, data.reference, data.author, lib"),
        ("input.gpus.identity.x", "there is nothing inside input.gpus[].identity: it is text"),
        ("data.author.x", "data.author is whatever stands in your data.json"),
        ("input..x", "input..x is no path; write it as in a rule, such as input.gpus[].identity"),
    ],
)
def test_a_wrong_path_is_a_mistake_in_the_command(run: Run, path: str, said: str) -> None:
    status, out, err = run(path)
    assert (status, out) == (ExitCode.USAGE, "")
    assert err.splitlines()[0] == f"weighbridge: error: argument PATH: {said}"


def test_files_for_editors(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("--editor", tmp_path)
    assert status == 0
    assert out.endswith(f"how to use them: {tmp_path}/.weighbridge/README.md\n")
    assert (tmp_path / ".weighbridge" / "schemas" / "input.json").exists()
    assert run("--editor", tmp_path / ".weighbridge" / "README.md")[0] == ExitCode.ENVIRONMENT


def test_one_form_at_a_time(run: Run) -> None:
    assert run("--json", "--markdown")[0] == ExitCode.USAGE
