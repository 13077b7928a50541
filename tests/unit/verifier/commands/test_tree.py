"""Trees are as wide as people can read, and no wider than their terminal."""

from __future__ import annotations

import sys

import pytest

from weighbridge.verifier.commands.tree import Branch, labelled, render, width

WORDS = Branch("top", (Branch("a " * 200),))


@pytest.mark.parametrize(("columns", "expected"), [("80", 80), ("200", 100), ("20", 60)])
def test_a_terminals_width(monkeypatch: pytest.MonkeyPatch, columns: str, expected: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    assert width() == expected
    assert expected - 1 <= max(map(len, render(WORDS))) <= expected


def test_what_is_no_terminal_gets_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    monkeypatch.setenv("COLUMNS", "80")
    assert width() == 100


def test_a_finding_of_a_list_is_wrapped_under_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    first, *rest = labelled("rests on", "the word " * 20 + "of\n" + "x" * 70)
    assert first.startswith("  rests on   the word the")
    assert {line[:13] for line in rest} == {" " * 13}
    assert rest[-1] == " " * 13 + "of\\n" + "x" * 70
    assert max(map(len, [first, *rest[:-1]])) <= 60
