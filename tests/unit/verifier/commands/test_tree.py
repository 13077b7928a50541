"""Trees are as wide as people can read, and no wider than their terminal."""

from __future__ import annotations

import sys

import pytest

from weighbridge.verifier.commands.tree import Branch, render, width

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
