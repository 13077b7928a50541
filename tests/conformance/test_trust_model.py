"""Each claim of docs/trust-model.md stands beside what shows it, and all of that is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROVEN: Final = "| **Proven.** | **Shown by** |"
ASSUMED: Final = "\N{EN DASH} (an assumption, not a claim)"
_TEST: Final = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
_CASE: Final = re.compile(r"[a-z]+/[0-9]{3}-[a-z0-9-]+")


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "docs" / "trust-model.md").read_text(encoding="utf-8")


def tables(text: str, header: str) -> list[list[list[str]]]:
    """The rows, cell by cell, of each table with this header."""
    found: list[list[list[str]]] = []
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if line == header:
            rows: list[list[str]] = []
            for row in lines[at + 2 :]:
                if not row.startswith("| "):
                    break
                rows.append([cell.strip() for cell in row.strip("|").split("|")])
            found.append(rows)
    return found


def shown(root: Path, cell: str) -> list[str]:
    """The tests and cases that a cell names; each has to be there."""
    names = re.findall(r"`([^`]+)`", cell)
    for name in names:
        if found := _TEST.fullmatch(name):
            source = (root / found[1]).read_text(encoding="utf-8")
            assert re.search(rf"^(?:async )?def {found[2]}\(", source, re.MULTILINE), name
        elif _CASE.fullmatch(name):
            assert (root / "tests" / "vectors" / name / "manifest.yaml").is_file(), name
    return [name for name in names if _TEST.fullmatch(name) or _CASE.fullmatch(name)]


def test_every_claim_names_what_shows_it(root: Path, text: str) -> None:
    """Seven sections, what stands beside them, what is emulated; nothing is called proven outside of their tables."""
    found = tables(text, PROVEN)
    assert len(found) == 9 == text.count("**Proven.**")
    for rows in found:
        assert rows
        for claim, cell in rows:
            assert shown(root, cell), claim


def test_every_adversary_is_held_by_something_that_is_shown(root: Path, text: str) -> None:
    (rows,) = tables(text, "| who | can | is held by | shown by |")
    for who, _, _, cell in rows:
        assert shown(root, cell) or cell == ASSUMED, who


def test_what_it_cannot_show_is_admitted_in_the_corpus(root: Path, text: str) -> None:
    """A limit is shown as well: the case is there, and it is admitted."""
    section = text.partition("**What it cannot show**")[2].partition("\n### ")[0]
    names = shown(root, section)
    assert len(names) == 3
    for name in names:
        manifest = (root / "tests" / "vectors" / name / "manifest.yaml").read_text(encoding="utf-8")
        assert "\nexit: 0\n" in manifest, name
