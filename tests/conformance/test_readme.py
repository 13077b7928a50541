"""What README.md shows is what happens: help texts, the recorded demonstration, commands that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
import readme_demo
import readme_help

from support.site import here

if TYPE_CHECKING:
    from pathlib import Path

README: Final = readme_help.README.read_text(encoding="utf-8")
_COMMAND: Final = re.compile(r"^\$ (weighbridge(?:-attester)?) ((?:.*\\\n)*.*)$", re.MULTILINE)
# Commands whose verb is followed by another one.
_GROUPS: Final = {
    "weighbridge": {"inspect", "verify", "ledger", "model", "reference", "anchors", "spot", "policy"},
    "weighbridge-attester": {"model", "verity", "log"},
}
# What stands between a command's words: options, places, and the part behind `--`, which is somebody else's.
_WORD: Final = re.compile(r"[a-z]+(?:-[a-z]+)*")


def test_help_is_what_the_commands_print() -> None:
    assert readme_help.fill(README) == README, "README.md is stale: run scripts/readme_help.py"


def test_first_screen_has_the_two_commands(root: Path) -> None:
    first = README.partition("<!-- demo:begin -->")[0]
    assert len(first.splitlines()) <= 40
    for command in ("scripts/demo", "scripts/test"):
        assert f"$ ./{command}" in first
        assert (root / command).stat().st_mode & 0o100


def _commands() -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for program, rest in _COMMAND.findall(README):
        line = rest.replace("\\\n", " ").partition(" #")[0].partition(" -- ")[0].partition(" > ")[0]
        if line != "--help":
            found.append((program, line.split()))
    return found


def test_there_are_commands_for_every_role() -> None:
    assert len(_commands()) >= 12


@pytest.mark.parametrize(
    ("program", "words"), _commands(), ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_commands_and_options_exist(program: str, words: list[str]) -> None:
    """Each verb and each option in an example is one that the command's own help names."""
    verbs: list[str] = []
    for word in words:
        if not _WORD.fullmatch(word) or len(verbs) == _depth(program, words[0]):
            break
        verbs.append(word)
    done = here(program, *verbs, "--help")
    assert done.status == 0, done.err
    known = set(re.findall(r"(?<![\w-])-{1,2}[a-z][a-z-]*", done.out))
    assert {word for word in words if word.startswith("-")} <= known


def _depth(program: str, verb: str) -> int:
    return 2 if verb in _GROUPS[program] else 1


GOOD: Final = "act 1: an honest session\n\nact what happened  outcome\n1   an honest session  admitted\n"


def test_demonstration_is_recorded_or_said_not_to_be() -> None:
    recording = readme_demo.recorded(README)
    body = readme_demo.NOT_RECORDED if recording is None else readme_demo.block(recording)
    assert readme_demo.fill(README, body) == README


def test_a_recording_is_filled_in_and_read_back() -> None:
    blank = readme_demo.fill(README, readme_demo.NOT_RECORDED)
    assert readme_demo.recorded(blank) is None
    filled = readme_demo.fill(blank, readme_demo.block(GOOD + f"written to {readme_demo.ROOT}/demo-out\n\n"))
    assert readme_demo.recorded(filled) == GOOD + "written to demo-out\n"


@pytest.mark.parametrize(
    "recording",
    [
        "",
        "\n \n",
        "no table",
        GOOD + "act 1\x1b[32m admitted",
        GOOD + "wrote /home/somebody/demo-out/session.wb",
        GOOD + "wrote /tmp/x",
        GOOD + "act 2: FAILED",
        GOOD + "Traceback (most recent call last):",
        GOOD + "```",
    ],
)
def test_an_unfit_recording_is_refused(recording: str) -> None:
    with pytest.raises(readme_demo.UnfitRecordingError):
        readme_demo.block(recording)


def test_without_its_place_nothing_is_filled_in() -> None:
    for text in ("", README + README):
        with pytest.raises(readme_demo.UnfitRecordingError):
            readme_demo.fill(text, readme_demo.NOT_RECORDED)
    with pytest.raises(readme_demo.UnfitRecordingError):
        readme_demo.recorded("")


def test_scripts_say_how_they_are_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert readme_demo.main([]) == 2
    assert readme_help.main(["--wrong"]) == 2
    assert readme_demo.main([str(tmp_path / "absent")]) == 1
    assert "readme_demo: error:" in capsys.readouterr().err
