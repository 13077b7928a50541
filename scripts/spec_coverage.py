"""Writes SPEC_COVERAGE.md: which attack is shown refused by which case of the corpus, and which is not yet.

    .venv/bin/python scripts/spec_coverage.py            write it
    .venv/bin/python scripts/spec_coverage.py --check    say what is out of date, and exit 1 if anything is

The attacks are in tests/vectors/rows.txt, the cases in the manifests beside it. Tests that name an attack in their text
(A01) are listed with it.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "SPEC_COVERAGE.md"
# What has landed; the rows of other issues wait for them.
LANDED = frozenset({"SESSION", "WEIGHTS", "TPM", "GPU", "TELEMETRY", "POLICY", "LEDGER", "SERVICE"})
# What no case can show, and what stands in its place.
OUT_OF_SCOPE = {
    "A83": "nothing here releases a key: there is no blob that could be opened again. What a refusal takes away is the "
    "token, and it is not given back: a session that failed judges no window, is not resumed and is not remembered "
    "otherwise after a restart (session/011-window-after-a-failure, session/012-resumed-after-a-failure, "
    "session/013-window-after-a-failure-and-a-restart), and its last token ends by itself (token/008-expired)",
}

_ROW = re.compile(r"(A[0-9]{2}) \| ([A-Z, ]+) \| (.+)")
_NAMED = re.compile(r"\bA[0-8][0-9]\b")
# How the clause of a case begins that is admitted because nothing tells it from the truth.
_CEILING = "documents a ceiling; "
_HEAD = """\
# What is shown to be refused

Attacks on the evidence, the session and the verifier, and where the repository shows that they fail. A *case* is a
folder under `tests/vectors/`: its manifest says what is wrong, whether every signature is good all the same, and which
code has to come of it; `tests/conformance/test_corpus.py` judges all of them. *Tests* are files that show the attack
otherwise: by properties, by faults, on one parser. A case that is *a ceiling* is admitted: it shows where an attack
ends that nothing here tells from the truth. *Portable* is how many of a row's cases are in the corpus by which any
verifier can be tested ([`docs/conformance.md`](docs/conformance.md)); which are not, and why, is at the end. Written by
`scripts/spec_coverage.py` and held to it by a test.

"""


@dataclass(frozen=True)
class Row:
    """One attack: its number, the issues that land it, what it is."""

    number: str
    issues: tuple[str, ...]
    attack: str


def rows() -> list[Row]:
    """The attacks, in order."""
    found: list[Row] = []
    for line in (ROOT / "tests" / "vectors" / "rows.txt").read_text(encoding="utf-8").splitlines():
        match = _ROW.fullmatch(line)
        if match is None:
            raise ValueError(f"rows.txt: not a row: {line!r}")
        found.append(Row(match[1], tuple(match[2].split(", ")), match[3]))
    return found


def cases() -> dict[str, list[str]]:
    """Row to the ids of the cases that show it."""
    found: dict[str, list[str]] = defaultdict(list)
    for fields in _manifests():
        for row in _NAMED.findall(fields["rows"]):
            found[row].append(fields["id"])
    return found


def tests() -> dict[str, list[str]]:
    """Row to the test files that name it."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder in ("unit", "integration", "conformance"):
        for path in sorted((ROOT / "tests" / folder).rglob("test_*.py")):
            if path.name == "test_spec_coverage.py":
                continue
            for row in sorted(set(_NAMED.findall(path.read_text(encoding="utf-8")))):
                found[row].append(str(path.relative_to(ROOT / "tests")))
    return found


def accepted() -> list[str]:
    """The ids of the cases that have to be accepted: nothing is wrong in them."""
    return [
        fields["id"] for fields in _manifests() if fields["exit"] == "0" and not fields["clause"].startswith(_CEILING)
    ]


def ceilings() -> dict[str, str]:
    """The ids of the cases that are admitted though something is wrong, and why."""
    return {
        fields["id"]: f"{fields['deviation']}: {fields['clause'].removeprefix(_CEILING)}"
        for fields in _manifests()
        if fields["clause"].startswith(_CEILING)
    }


def left_out() -> dict[str, str]:
    """The ids of the cases that are in no exported corpus, and why."""
    lines = (ROOT / "tests" / "vectors" / "left-out.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("  ", 1) for line in lines)


def _manifests() -> list[dict[str, str]]:
    paths = sorted((ROOT / "tests" / "vectors").glob("*/*/manifest.yaml"))
    return [dict(line.split(": ", 1) for line in path.read_text(encoding="utf-8").splitlines()) for path in paths]


def render(shown: dict[str, list[str]], named: dict[str, list[str]], admitted: list[str]) -> str:
    """The document."""
    missed = ceilings()
    table = ["| row | attack | shown | portable | cases | tests |", "|---|---|---|---|---|---|"]
    apart = left_out()
    for row in rows():
        files = [f"`{name}`" for name in named.get(row.number, [])]
        landed = "yes" if LANDED & set(row.issues) else "out of scope"
        listed = shown.get(row.number, [])
        ids = (f"{name} (a ceiling)" if name in missed else name for name in listed)
        portable = f"{len([name for name in listed if name not in apart])} of {len(listed)}"
        cells = (row.number, row.attack, landed, portable, ", ".join(ids), ", ".join(files))
        table.append(f"| {' | '.join(cells)} |")
    apart_of: dict[str, list[str]] = defaultdict(list)
    for name, why in apart.items():
        apart_of[why].append(name)
    parts = [
        *table,
        "",
        "## Not shown, and why",
        "",
        *(f"- {number}: {why}." for number, why in OUT_OF_SCOPE.items()),
        "",
        "## What has to be accepted",
        "",
        *(f"- {name}" for name in admitted),
        "",
        "## What is admitted because nothing tells it from the truth",
        "",
        "Each verdict says so, under `not_proven`.",
        "",
        *(f"- {name}: {why}" for name, why in missed.items()),
        "",
        "## Cases that only this project's tests can judge",
        "",
        "They are in no exported corpus, because what they show is not told to a verifier in steps.",
        "",
        *(f"- {why} ({len(names)}): {', '.join(names)}" for why, names in sorted(apart_of.items())),
    ]
    return _HEAD + "\n".join(parts) + "\n"


def problems(text: str) -> list[str]:
    """What in ``text`` is out of date, one sentence each; tests that it does not list yet are no problem."""
    shown, named, admitted = cases(), tests(), accepted()
    found: list[str] = []
    listed: dict[str, list[str]] = {}
    for line in text.splitlines():
        if _NAMED.match(line.removeprefix("| ")):
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            listed[cells[0]] = re.findall(r"`([^`]+)`", cells[-1])
    for number, files in listed.items():
        found += [f"{number}: {file} does not name it" for file in files if file not in named.get(number, [])]
    if not found and render(shown, {key: files for key, files in listed.items() if files}, admitted) != text:
        found.append("rows, cases or their order are not those of tests/vectors")
    for row in rows():
        if row.number not in OUT_OF_SCOPE and not set(shown.get(row.number, [])) - set(ceilings()):
            found.append(f"{row.number}: {', '.join(row.issues)} has landed, and no case shows it")
    known = {row.number for row in rows()}
    found += [f"{number}: a case names it, and there is no such row" for number in sorted(set(shown) - known)]
    return found


def main() -> int:
    """Writes or checks the document. Returns the exit status."""
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(render(cases(), tests(), accepted()), encoding="utf-8")
        return 0
    found = problems(TARGET.read_text(encoding="utf-8"))
    for problem in found:
        print(f"SPEC_COVERAGE.md: {problem}")
    if found:
        print("hint: run scripts/spec_coverage.py and commit what it writes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
