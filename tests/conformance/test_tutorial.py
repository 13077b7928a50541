"""docs/policy-tutorial.md does what it says: its files are written, its commands run, their output compared.

In what a command prints, `…` stands for anything in a line, and for any lines where it stands alone. A command that
ends with another status than 0 says so: `# exit 5`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from corpus.bundle import believed, export
from support.world import World, requirements
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from support.world import Engines

TUTORIAL: Final = "policy-tutorial.md"
# What is written into a file, and blocks of commands.
_PART: Final = re.compile(
    r"<!-- write: (?P<file>\S+) -->\n```\w+\n(?P<content>.*?)```\n|```console\n(?P<console>.*?)```\n", re.DOTALL
)
_COMMAND: Final = re.compile(r"^\$ ((?:.*\\\n)*.*)\n", re.MULTILINE)
_STATUS: Final = re.compile(r"# exit ([0-9])$")
WINDOWS: Final = 3


@dataclass(frozen=True)
class Step:
    """A file to write, or a command with what it prints."""

    file: str = ""
    content: str = ""
    command: str = ""
    expected: str = ""

    @property
    def status(self) -> int:
        found = _STATUS.search(self.command)
        return int(found.group(1)) if found else 0


def steps(text: str) -> list[Step]:
    found: list[Step] = []
    for part in _PART.finditer(text):
        if part["file"]:
            found.append(Step(file=part["file"], content=part["content"]))
            continue
        first, *pieces = _COMMAND.split(part["console"])
        assert first == "", f"output without a command: {first}"
        found += [Step(command=pieces[at], expected=pieces[at + 1]) for at in range(0, len(pieces), 2)]
    return found


def pattern(expected: str) -> re.Pattern[str]:
    lines = [
        "(?:.*\n)*?" if line == "…\n" else ".*?".join(re.escape(piece) for piece in line.split("…"))
        for line in expected.splitlines(keepends=True)
    ]
    return re.compile("".join(lines))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engines: Engines) -> Path:
    """A directory in which the demonstration has left what the tutorial looks at."""
    (tmp_path / "demo-out" / "verifier").mkdir(parents=True)
    wanted = requirements(tenant="demo-tenant", audience="demo-gate")
    world = World.make(tmp_path / "demo-out" / "verifier", engines=engines, wanted=wanted)
    world.host.tenant, world.host.audience = "demo-tenant", "demo-gate"
    world.open_session()
    for _ in range(WINDOWS):
        assert world.window().verdict.opens
    world.verifier.close(world.host.session, peer=world.host.peer)
    (tmp_path / "demo-out" / "session.wb").write_bytes(export(world).encode())
    (tmp_path / "demo-out" / "anchors.json").write_bytes(believed(world).encode())
    (tmp_path / "demo-out" / "reference.json").write_bytes(world.reference.to_json())
    world.close()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The command's status and everything that it prints. Ours run in this process: a third of the time."""
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    if words[0] == "weighbridge":
        status = main(words[1:])
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}
        status = subprocess.run(["sh", "-c", command], check=False, env=environment, timeout=60).returncode
    out, err = capfd.readouterr()
    return status, out + err


def test_the_tutorial_does_what_it_says(root: Path, desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = (root / "docs" / TUTORIAL).read_text(encoding="utf-8")
    done = 0
    for step in steps(text):
        if step.file:
            (desk / step.file).write_text(step.content, encoding="utf-8")
            continue
        status, printed = run(step.command, capfd)
        assert status == step.status, f"$ {step.command}\n{printed}"
        assert pattern(step.expected).fullmatch(printed), f"$ {step.command}\n{printed}"
        done += 1
    assert done >= 20
    for verb in ("init", "check", "test", "eval", "docs", "explain", "replay", "key", "bundle sign", "bundle verify"):
        assert f"$ weighbridge policy {verb} " in text


def test_links_of_the_tutorial_lead_somewhere(root: Path) -> None:
    text = (root / "docs" / TUTORIAL).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert all((root / "docs" / link).is_file() for link in links)


@pytest.mark.parametrize(
    ("expected", "printed", "matches"),
    [
        ("a b\n", "a b\n", True),
        ("a b\n", "a c\n", False),
        ("a … c\n", "a bb c\n", True),
        ("a … c\n", "a bb\nc\n", False),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n…\nc\n", "a\nc\n", True),
        ("a\n…\nc\n", "a\nb\nd\n", False),
        ("a\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_only_what_is_marked_is_left_out(expected: str, printed: str, *, matches: bool) -> None:
    assert bool(pattern(expected).fullmatch(printed)) == matches
