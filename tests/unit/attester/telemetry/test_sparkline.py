"""Sparklines: the shape of any series, in any locale, never wider than asked."""

from __future__ import annotations

import locale
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.telemetry.sparkline import ASCII, BLOCKS, levels, sparkline


def test_shape() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BLOCKS
    assert sparkline([7, 0], 8) == "█▁"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, levels=ASCII) == ASCII


def test_a_constant_series_is_drawn_in_the_middle() -> None:
    assert sparkline([117.0] * 4, 10) == "▄▄▄▄"
    assert sparkline([0], 10) == "▄"
    assert sparkline([None, 5, None], 10) == " ▄ "


def test_gaps() -> None:
    assert sparkline([1, None, math.nan, math.inf, -math.inf, 2], 10) == "▁    █"
    assert sparkline([None, None], 10) == "  "
    assert sparkline([], 10) == ""


def test_long_series_are_averaged() -> None:
    assert sparkline([0, 0, 7, 7], 2) == "▁█"
    # One gap in a group does not hide it; a group of gaps is one.
    assert sparkline([0, None, None, None, 7, 7], 3) == "▁ █"
    assert len(sparkline([float(number % 7) for number in range(10_007)], 60)) == 60


def test_extremes_do_not_overflow() -> None:
    assert sparkline([-1.7e308, 1.7e308], 2) == "▁█"
    assert sparkline([1.7e308] * 10, 2) == "▄▄"
    assert sparkline([1e30, 1, 1], 3) == "█▁▁"


@given(
    st.lists(st.none() | st.floats() | st.integers(-(2**63), 2**63), max_size=200),
    st.integers(1, 100),
    st.sampled_from([ASCII, BLOCKS]),
)
def test_any_series(values: list[float | None], width: int, alphabet: str) -> None:
    drawn = sparkline(values, width, levels=alphabet)
    assert len(drawn) == min(len(values), width)
    assert set(drawn) <= {*alphabet, " "}


@pytest.mark.parametrize(("width", "alphabet"), [(0, BLOCKS), (-1, BLOCKS), (1, "")])
def test_nothing_to_draw_on_or_with(width: int, alphabet: str) -> None:
    with pytest.raises(ValueError, match="a column and a level"):
        sparkline([1], width, levels=alphabet)


@pytest.mark.parametrize(("codeset", "drawn"), [("UTF-8", BLOCKS), ("utf8", BLOCKS), ("ANSI_X3.4-1968", ASCII)])
def test_what_the_locale_can_say(monkeypatch: pytest.MonkeyPatch, codeset: str, drawn: str) -> None:
    monkeypatch.setattr(locale, "nl_langinfo", lambda _: codeset)
    assert levels() == drawn
