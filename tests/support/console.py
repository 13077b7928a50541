"""Documents whose commands are run: what is written into files, commands, and what they print.

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

from weighbridge.attester.cli import main as attester
from weighbridge.verifier.cli import main as verifier

if TYPE_CHECKING:
    import pytest

__all__ = ["Step", "follow", "pattern", "run", "steps"]

# What is written into a file, and blocks of commands.
_PART: Final = re.compile(
    r"<!-- write: (?P<file>\S+) -->\n```\w+\n(?P<content>.*?)```\n|```console\n(?P<console>.*?)```\n", re.DOTALL
)
_COMMAND: Final = re.compile(r"^\$ ((?:.*\\\n)*.*)\n", re.MULTILINE)
_STATUS: Final = re.compile(r"# exit ([0-9])$")
_OURS: Final = {"weighbridge": verifier, "weighbridge-attester": attester}


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


def run(command: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The command's status and everything that it prints. Ours run in this process: a third of the time."""
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    if words[0] in _OURS:
        status = _OURS[words[0]]([found for word in words[1:] for found in _expanded(word)])
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}
        status = subprocess.run(["sh", "-c", command], check=False, env=environment, timeout=60).returncode
    out, err = capfd.readouterr()
    return status, out + err


def _expanded(word: str) -> list[str]:
    """As a shell does: names of files below the present directory."""
    found = sorted(map(str, Path().glob(word))) if re.search(r"[*?]", word) else []
    return found or [word]


def follow(text: str, directory: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Write the files of ``text`` below ``directory``, the present one, and run its commands; those that were run."""
    done: list[str] = []
    for step in steps(text):
        if step.file:
            (directory / step.file).parent.mkdir(parents=True, exist_ok=True)
            (directory / step.file).write_text(step.content, encoding="utf-8")
            continue
        status, printed = run(step.command, capfd)
        assert status == step.status, f"$ {step.command}\n{printed}"
        assert pattern(step.expected).fullmatch(printed), f"$ {step.command}\n{printed}"
        done.append(step.command)
    return done
