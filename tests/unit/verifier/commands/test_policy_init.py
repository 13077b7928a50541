"""`weighbridge policy init`: what it writes, and that it never overwrites anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from weighbridge.policy.authoring.scaffold import SCENARIOS
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["policy", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_scenarios_are_listed(run: Run) -> None:
    status, out, err = run("init", "--list")
    assert (status, err) == (ExitCode.AFFIRMED, "")
    assert [line.split()[0] for line in out.splitlines()] == ["scenario", *SCENARIOS]
    assert max(map(len, out.splitlines())) <= 120
    _, out, _ = run("init", "--list", "--json")
    assert json.loads(out)["scenarios"][0].keys() == {"name", "title"}


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_policy_is_written_and_works_at_once(run: Run, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "mine" / "policy"
    status, out, err = run("init", directory, "--scenario", name)
    assert (status, err) == (ExitCode.AFFIRMED, "")
    assert f"  weighbridge policy test {directory}" in out.splitlines()
    written = files_in(directory)
    assert {"policy.rego", "policy_test.rego", "reference.json", "README.md", ".regal/config.yaml"} <= written.keys()
    assert ".weighbridge/schemas/input.json" in written
    status, out, _ = run("check", directory, "--strict")
    assert status == ExitCode.AFFIRMED, out
    status, out, _ = run("test", directory, "--threshold", "100")
    assert status == ExitCode.AFFIRMED, out


def test_the_document_names_what_was_written(run: Run, tmp_path: Path) -> None:
    status, out, err = run("init", tmp_path / "p", "--scenario", "development", "--json")
    assert (status, err) == (ExitCode.AFFIRMED, "")
    document: dict[str, Any] = json.loads(out)
    assert document["schema"] == "weighbridge/policy-init/v1"
    assert set(document["files"]) == files_in(tmp_path / "p").keys()


def test_beside_files_of_other_names_it_is_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    status, _, _ = run("init", tmp_path, "--scenario", "development")
    assert status == ExitCode.AFFIRMED
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["policy.rego", "README.md", "reference.json", "policy_test.rego"])
@pytest.mark.parametrize("as_link", [False, True])
def test_nothing_is_overwritten(run: Run, tmp_path: Path, name: str, *, as_link: bool) -> None:
    directory = tmp_path / "p"
    directory.mkdir()
    if as_link:
        (directory / name).symlink_to(tmp_path / "elsewhere")
    else:
        (directory / name).write_text("mine")
    status, out, err = run("init", directory, "--scenario", "development")
    assert (status, out) == (ExitCode.ENVIRONMENT, "")
    assert err.startswith(f"weighbridge: error: {Code.FILE_UNWRITABLE.value}: it exists already")
    assert "hint: name another directory" in err
    assert [path.name for path in directory.iterdir()] == [name]
    assert not (tmp_path / "elsewhere").exists()


def test_where_nothing_can_be_written_it_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    status, _, err = run("init", tmp_path / "file" / "p", "--scenario", "development")
    assert status == ExitCode.ENVIRONMENT
    assert Code.FILE_UNWRITABLE.value in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a directory and a scenario"),
        (("p",), "name a directory and a scenario"),
        (("--scenario", "development"), "name a directory and a scenario"),
        (("p", "--scenario", "prodution"), "there is no scenario 'prodution': model-gate, "),
        (("p", "--list"), "--list stands alone"),
        (("--list", "--scenario", "development"), "--list stands alone"),
    ],
)
def test_mistakes_in_the_command_touch_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run("init", *arguments)
    assert (status, out) == (ExitCode.USAGE, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []
