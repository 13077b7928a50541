"""Fails on every skipped test that tests/allowed-skips.txt does not name with a reason.

A skip is a hole in what a green run says. In continuous integration nothing is skipped unless it is written down.

Usage:
    check_skips.py REPORT.xml     compare a JUnit report with the list
    check_skips.py --lint         only check that the list is well-formed

Each line of the list is `pattern | reason`: a shell pattern over the test's node id
(`tests/unit/test_x.py::test_y[case]`), a bar, and why that skip is acceptable. `#` begins a comment.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "allowed-skips.txt"
_SHORTEST_REASON = 12


class MalformedListError(ValueError):
    """The list holds a line that is not `pattern | reason`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Allowed:
    """One line of the list."""

    pattern: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Skip:
    """One skipped test of a report."""

    node: str
    reason: str


def parse_list(text: str) -> list[Allowed]:
    """The entries of the list.

    Raises:
        MalformedListError: A line lacks its reason, or its pattern would allow everything.
    """
    entries: list[Allowed] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        pattern, bar, reason = (part.strip() for part in stripped.partition(" | "))
        if not bar or len(reason) < _SHORTEST_REASON:
            raise MalformedListError(f"line {number}: expected `pattern | reason`, got {stripped!r}")
        if not pattern.startswith("tests/") or "::" not in pattern:
            raise MalformedListError(f"line {number}: the pattern names no test: {pattern!r}")
        entries.append(Allowed(pattern, reason))
    return entries


def skips_in(report: Path) -> list[Skip]:
    """The skipped tests of a JUnit report written by pytest; an expected failure is none."""
    # The report is our own pytest's output, not data from outside.
    tree = ET.parse(report)  # noqa: S314
    found: list[Skip] = []
    for case in tree.iter("testcase"):
        for mark in case.findall("skipped"):
            if mark.get("type") == "pytest.xfail":
                continue
            found.append(Skip(_node(case), mark.get("message", "")))
    return found


def not_allowed(skips: list[Skip], allowed: list[Allowed]) -> list[Skip]:
    """The skips that no entry names."""
    return [skip for skip in skips if not any(fnmatch.fnmatchcase(skip.node, entry.pattern) for entry in allowed)]


def _node(case: ET.Element) -> str:
    """`tests.unit.test_x.TestY` and `test_z[case]` as pytest's node id; a whole skipped module has no class name."""
    parts = case.get("classname", "").split(".")
    name = case.get("name", "")
    if parts == [""]:
        return f"{name.replace('.', '/')}.py::*"
    index = next((i for i, part in enumerate(parts) if part.startswith("test_")), len(parts) - 1)
    path = "/".join(parts[: index + 1]) + ".py"
    return "::".join([path, *parts[index + 1 :], name])


def main(arguments: list[str]) -> int:
    """Prints what is not allowed. Returns the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        allowed = parse_list(LIST.read_text(encoding="utf-8"))
    except (MalformedListError, OSError) as error:
        print(f"{LIST.relative_to(ROOT)}: {error}")
        return 1
    if arguments == ["--lint"]:
        return 0
    skips = skips_in(Path(arguments[0]))
    found = not_allowed(skips, allowed)
    for skip in found:
        print(f"skipped, and not in {LIST.relative_to(ROOT)}: {skip.node}: {skip.reason}")
    print(f"skips: {len(skips)} in all, {len(found)} not allowed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
