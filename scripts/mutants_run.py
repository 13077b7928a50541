"""Judges the changes of each module in ``tests/mutants.toml`` and prints what became of them: see ``scripts/mutants``.

What was judged is kept in ``.reports/mutants``, by the sources of the module and its tests and the names of cases, so
that a long run can be made in pieces.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mutants_judging import Change, Fate, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
MODULES: Final = ROOT / "tests" / "mutants.toml"
KEPT: Final = ROOT / ".reports" / "mutants"
COSMIC_RAY: Final = ROOT / ".peers" / "cosmic-ray" / "bin" / "python"


@dataclass(slots=True)
class Module:
    """A module, the tests that are to notice its changes, and why some changes that survive are none."""

    path: str
    tests: list[str]
    stages: list[str] = field(default_factory=list)
    explained: list[dict[str, str]] = field(default_factory=list)

    def why(self, change: Change) -> str | None:
        """Why a change makes no difference that a test could see, if somebody said so."""
        for item in self.explained:
            if item.get("operator", change.operator) != change.operator:
                continue
            if item.get("in", change.definition) == change.definition and item["line"] in (change.before, change.after):
                return item["why"]
        return None


@dataclass(slots=True)
class Judged:
    """What became of a module's changes, by their number in the list; those not judged yet are absent."""

    module: Module
    changes: list[Change]
    left_out: dict[str, int]
    fates: dict[int, Fate]

    def numbers(self) -> dict[str, int]:
        """How many of each fate, and how many of the survivors are explained."""
        counted = Counter(self.fates.values())
        survivors = self.survivors()
        explained = sum(self.module.why(change) is not None for change in survivors)
        return {
            "changes": len(self.changes), "judged": len(self.fates), "killed": counted["killed"] + counted["hangs"],
            "survived": len(survivors), "explained": explained,
        }  # fmt: skip

    def survivors(self) -> list[Change]:
        """What nothing noticed."""
        return [self.changes[n] for n, fate in sorted(self.fates.items()) if fate in ("survived", "unreached")]


def modules() -> list[Module]:
    """What ``tests/mutants.toml`` names, in its order."""
    document: dict[str, Any] = tomllib.loads(MODULES.read_text(encoding="utf-8"))
    return [
        Module(item["path"], item["tests"], item.get("stages", []), item.get("explained", []))
        for item in document["module"]
    ]


def changes_of(path: Path) -> tuple[list[Change], dict[str, int]]:
    """Every change of a module, and how many more were left out, by reason."""
    done = subprocess.run(
        [COSMIC_RAY, "-I", Path(__file__).with_name("mutants_listing.py"), path],
        check=True,
        capture_output=True,
        text=True,
    )
    *found, last = [json.loads(line) for line in done.stdout.splitlines()]
    names = Change.__slots__
    return [Change(**{name: item[name] for name in names}) for item in found], last["left_out"]


def run(module: Module, *, until: float, fresh: bool = False, survivors: bool = False) -> Judged:
    """Judge what is not judged yet of one module, until that time of the monotonic clock.

    With ``survivors``, what the last run killed counts as killed: tests were only added since.
    """
    path = ROOT / module.path
    tests = [*((ROOT / test).read_bytes() for test in module.tests), *(stage.encode() for stage in module.stages)]
    stem = f"{path.stem}-{_digest(path.read_bytes())}"
    kept = KEPT / f"{stem}-{_digest(*tests)}.json"
    changes, left_out = changes_of(path)
    before: dict[str, Fate] = json.loads(kept.read_text()) if kept.exists() and not fresh else {}
    if survivors:
        last = max(KEPT.glob(f"{stem}-*.json"), key=lambda file: file.stat().st_mtime, default=None)
        told_last: dict[str, Fate] = {} if last is None else json.loads(last.read_text())
        before = {number: fate for number, fate in told_last.items() if fate in ("killed", "hangs")}
    judged = Judged(module, changes, left_out, {int(number): fate for number, fate in before.items()})
    number_of = {id(change): number for number, change in enumerate(changes)}

    def told(change: Change, fate: Fate) -> bool:
        judged.fates[number_of[id(change)]] = fate
        return time.monotonic() < until

    left = [change for number, change in enumerate(changes) if number not in judged.fates]
    if left and time.monotonic() < until:
        print(f"mutants: {module.path}: judging {len(left)} of {len(changes)} changes", file=sys.stderr)
        try:
            judge(path, module.tests, module.stages, left, told)
        finally:
            KEPT.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(judged.fates))
    return judged


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def shown(judged: Iterable[Judged]) -> str:
    """A table for people, and below it what survived without an explanation."""
    lines = [f"{'module':52} changes judged killed survived explained"]
    unexplained: list[str] = []
    for item in judged:
        said = item.numbers()
        columns = (said["changes"], said["judged"], said["killed"], said["survived"], said["explained"])
        lines.append(
            f"{item.module.path:52} {columns[0]:7} {columns[1]:6} {columns[2]:6} {columns[3]:8} {columns[4]:9}"
        )
        unexplained += [
            f"{item.module.path}:{change.line} {change.operator} in {change.definition}\n"
            f"  - {change.before}\n  + {change.after}"
            for change in item.survivors()
            if item.module.why(change) is None
        ]
    return "\n".join([*lines, *(["", "survived, and nobody says why:", *unexplained] if unexplained else [])])


def document(judged: Iterable[Judged]) -> dict[str, object]:
    """The same for programs."""
    return {
        "schema": "weighbridge/mutants/v1",
        "modules": [
            {
                "path": item.module.path, **item.numbers(), "left_out": item.left_out,
                "survivors": [
                    {"line": change.line, "operator": change.operator, "before": change.before, "after": change.after,
                     "why": item.module.why(change)}
                    for change in item.survivors()
                ],
            }
            for item in judged
        ],
    }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Judge and print; 1 where something survived that nobody explains, or is not judged yet."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__, allow_abbrev=False)
    parser.add_argument("--module", action="append", metavar="NAME", help="only modules whose path ends with NAME")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop then; the next run goes on")
    parser.add_argument("--fresh", action="store_true", help="judge again what earlier runs have judged")
    parser.add_argument("--survivors", action="store_true", help="judge only what survived last: tests were added")
    parser.add_argument("--json", action="store_true", help="print one document")
    wanted = parser.parse_args(arguments)
    chosen = [item for item in modules() if not wanted.module or item.path.endswith(tuple(wanted.module))]
    if not chosen:
        parser.error("tests/mutants.toml names no such module")
    os.chdir(ROOT)
    os.environ["HYPOTHESIS_PROFILE"] = "ci"
    until = time.monotonic() + 60 * wanted.minutes
    judged = [run(item, until=until, fresh=wanted.fresh, survivors=wanted.survivors) for item in chosen]
    print(json.dumps(document(judged), indent=1) if wanted.json else shown(judged))
    numbers = [item.numbers() for item in judged]
    return int(any(said["survived"] > said["explained"] or said["judged"] < said["changes"] for said in numbers))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("mutants: interrupted; what was judged is kept, and the next run goes on from it", file=sys.stderr)
        sys.exit(130)  # as a shell has it
