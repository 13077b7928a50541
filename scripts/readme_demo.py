"""Puts the recorded output of the demonstration into README.md: its table, and all of it folded away.

Usage:
    ./scripts/demo | tee demo.txt && scripts/readme_demo.py demo.txt

The output goes in as it is, but for the path of this checkout, which is cut off. What would not mean the same to a
reader elsewhere is refused: an empty recording, terminal escapes, another path of this machine, a demonstration that
did not end well.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
NOT_RECORDED: Final = "The demonstration's output is not recorded here yet.\n"

_BLOCK: Final = re.compile(r"(<!-- demo:begin -->\n)(?P<body>.*?)(<!-- demo:end -->\n)", re.DOTALL)
_HOME_PATH: Final = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|var|opt|srv|mnt|builds?)/\S*")
_FAILED: Final = re.compile(r"\b(Traceback|FAILED|did not end as it should)")
_TABLE: Final = re.compile(r"^act +what happened .*$", re.MULTILINE)
_ALL: Final = re.compile(r"</summary>\n\n```text\n(?P<text>.*?)```\n", re.DOTALL)


class UnfitRecordingError(ValueError):
    """The recording cannot stand in the README."""


def block(recording: str) -> str:
    """What stands between the marks for ``recording``.

    Raises:
        UnfitRecordingError: it says why.
    """
    lines = recording.replace(f"{ROOT}/", "").splitlines()
    text = "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"
    if not text.strip():
        raise UnfitRecordingError("the recording is empty")
    if any(ord(letter) < ord(" ") and letter != "\n" for letter in text):
        raise UnfitRecordingError("the recording holds terminal escapes: record it through a pipe")
    if found := _HOME_PATH.search(text):
        raise UnfitRecordingError(f"the recording names a path of this machine: {found[0]}")
    if found := _FAILED.search(text):
        raise UnfitRecordingError(f"the recording is of a demonstration that did not end well: {found[0]}")
    if "```" in text:
        raise UnfitRecordingError("the recording would end its own block")
    table = _TABLE.search(text)
    if table is None:
        raise UnfitRecordingError("the recording has no table at its end")
    shown = f"```console\n$ ./scripts/demo\n…\n{text[table.start() :]}```\n"
    return f"{shown}\n<details><summary>All that it prints</summary>\n\n```text\n{text}```\n\n</details>\n"


def fill(readme: str, body: str) -> str:
    """``readme`` with ``body`` between the marks, which are there once."""
    filled, count = _BLOCK.subn(lambda match: match[1] + body + match[3], readme)
    if count != 1:
        raise UnfitRecordingError(f"README.md has {count} places for the demonstration's output")
    return filled


def recorded(readme: str) -> str | None:
    """The recording that stands in ``readme``, or nothing while there is none."""
    match = _BLOCK.search(readme)
    if match is None:
        raise UnfitRecordingError("README.md has no place for the demonstration's output")
    found = _ALL.search(match["body"])
    return None if found is None else found["text"]


def main(arguments: list[str]) -> int:
    """Fill it in; returns the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        made = block(Path(arguments[0]).read_text(encoding="utf-8"))
        README.write_text(fill(README.read_text(encoding="utf-8"), made), encoding="utf-8")
    except (OSError, UnfitRecordingError) as error:
        print(f"readme_demo: error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {README.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
