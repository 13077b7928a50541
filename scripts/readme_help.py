"""Puts what the commands say with `--help` into README.md, between its marks; a test compares them.

Usage:
    readme_help.py            write README.md
    readme_help.py --check    write nothing; exit 1 if README.md is stale
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
PROGRAMS: Final = ("weighbridge", "weighbridge-attester")
COLUMNS: Final = "100"


def help_of(program: str) -> str:
    """What ``program --help`` prints, 100 columns wide."""
    command = [str(Path(sys.executable).with_name(program)), "--help"]
    environment = {**os.environ, "COLUMNS": COLUMNS, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


def fill(readme: str) -> str:
    """``readme`` with each program's help in its place."""
    for program in PROGRAMS:
        begin, end = f"<!-- help:{program} -->\n", "<!-- help:end -->\n"
        count = readme.count(begin)
        before, _, rest = readme.partition(begin)
        _, _, after = rest.partition(end)
        readme = f"{before}{begin}```console\n$ {program} --help\n{help_of(program)}```\n{end}{after}"
        if count != 1:
            raise ValueError(f"README.md has {count} places for the help of {program}")
    return readme


def main(arguments: list[str]) -> int:
    """Write or compare; returns the exit status."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    before = README.read_text(encoding="utf-8")
    after = fill(before)
    if arguments:
        return 1 if before != after else 0
    README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
