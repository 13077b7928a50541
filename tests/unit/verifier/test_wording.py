"""Numbers of things, as people read them."""

from __future__ import annotations

import pytest

from weighbridge.verifier.wording import counted


@pytest.mark.parametrize(
    ("number", "words", "form", "told"),
    [
        (0, ("window",), "", "0 windows"),
        (1, ("window",), "", "1 window"),
        (2, ("entry", "entries"), "", "2 entries"),
        (1, ("entry", "entries"), "", "1 entry"),
        (1200, ("window",), ",", "1,200 windows"),
        (1, ("window",), "6", "     1 window"),
    ],
)
def test_one_is_not_many(number: int, words: tuple[str, ...], form: str, told: str) -> None:
    assert counted(number, *words, form=form) == told
