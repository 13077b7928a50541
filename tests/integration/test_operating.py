"""docs/operating.md is true: its commands, run one after the other in an empty directory, lead where it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

_BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HERE: Final = re.compile(r"<<'(\w+)'")
_LIMIT_S: Final = 300


def commands(document: str) -> list[str]:
    """What follows each ``$``, with its continued lines and its here-document."""
    found: list[str] = []
    for block in _BLOCK.findall(document):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                continue
            taken = [line[2:]]
            while taken[-1].endswith(("\\", "|")):
                taken.append(next(lines))
            if here := _HERE.search(line):
                while taken[-1] != here[1]:
                    taken.append(next(lines))
            found.append("\n".join(taken))
    return found


def test_commands_are_taken_whole() -> None:
    document = "```console\n$ a \\\n  b\nsaid\n$ c |\n  d\n$ cat <<'END'\n$ e\nEND\n```\n```sh\nf\n```\n"
    assert commands(document) == ["a \\\n  b", "c |\n  d", "cat <<'END'\n$ e\nEND"]


def test_a_session_by_hand(root: Path, tmp_path: Path) -> None:
    given = commands((root / "docs" / "operating.md").read_text(encoding="utf-8"))
    # However it ends, its jobs end with it: a shell that stops half-way leaves no verifier and no TPM behind.
    script = "set -eu -o pipefail -m\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(given) + "\n"
    environment = {**os.environ, "CHECKOUT": str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"not done after {_LIMIT_S} s: {late.stdout!r} {late.stderr!r}")
    assert done.returncode == 0, done.stdout + done.stderr
    serving = re.search(r"^serving key  ([0-9a-f]{64})", done.stdout, re.MULTILINE)
    assert serving is not None
    for said in (
        f"  cnf      {serving[1]} ",
        f"{serving[1]}  -",
        "closed: 6 windows, 6 affirmed, 0 held, 0 lost",
        "    16 left       4 spent  all-MiniLM-L6-v2",
        "ADMITTED: session ",
        "extends the checkpoint of 8",
        "in the ledger: entry 1 of 8 in ledger.example/windows",
        "VERIFIED: signed by Acme Models",
        "closed: 2 windows, 2 affirmed, 0 held, 0 lost",
        "MODEL_REVOKED: Acme Models has revoked the model: weights leaked",
        "exit 5\n",
        "stopped; the ledger has 14 entries",
    ):
        assert said in done.stdout
