"""SPEC_COVERAGE.md says what the corpus shows: no row of this release without a case, no case without a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import spec_coverage

if TYPE_CHECKING:
    from pathlib import Path


def test_document_is_up_to_date(root: Path) -> None:
    assert spec_coverage.problems((root / "SPEC_COVERAGE.md").read_text(encoding="utf-8")) == []


def test_there_are_84_rows_numbered_from_1() -> None:
    assert [row.number for row in spec_coverage.rows()] == [f"A{number:02}" for number in range(1, 85)]


def test_every_row_is_shown_or_says_why_it_cannot_be() -> None:
    shown = spec_coverage.cases()
    numbers = [row.number for row in spec_coverage.rows()]
    assert [number for number in numbers if not shown.get(number)] == list(spec_coverage.OUT_OF_SCOPE)


def test_at_least_twenty_cases_are_accepted() -> None:
    """In every exported corpus as well: a verifier that refuses everything passes nothing of these."""
    accepted, apart = spec_coverage.accepted(), spec_coverage.left_out()
    assert len([name for name in accepted if name not in apart]) >= 20


def test_what_is_admitted_for_want_of_better_is_told_from_what_has_to_be(root: Path) -> None:
    missed = spec_coverage.ceilings()
    assert missed
    assert not set(missed) & set(spec_coverage.accepted())
    _, _, told = (root / "SPEC_COVERAGE.md").read_text(encoding="utf-8").partition("nothing tells it from the truth")
    assert all(f"- {name}: {why}" in told for name, why in missed.items())


def test_stale_document_is_noticed(root: Path) -> None:
    text = (root / "SPEC_COVERAGE.md").read_text(encoding="utf-8")
    (case, *_) = spec_coverage.cases()["A01"]
    assert spec_coverage.problems(text.replace(case, "freshness/099-none"))
    (file, *_) = spec_coverage.tests()["A13"]
    assert spec_coverage.problems(text.replace(f"`{file}`", "`unit/test_none.py`", 1))
