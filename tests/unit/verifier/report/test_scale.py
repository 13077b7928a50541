"""Axes that people can read, and times in words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.verifier.report.scale import axis, elapsed, number, span_text, ticks

_FINITE = st.floats(-1e12, 1e12)


@given(_FINITE, _FINITE)
def test_an_axis_shows_all_of_its_range(one: float, other: float) -> None:
    low, high = sorted((one, other))
    made = axis(low, high)
    assert made.low < made.high
    for value in (low, high):
        assert made.place(value) == pytest.approx((value - made.low) / (made.high - made.low), abs=1e-6)
    assert (made.place(made.low - 1), made.place(made.high + 1)) == (0, 1)
    assert 2 <= len(made.ticks) <= 6
    assert list(made.ticks) == sorted(made.ticks)
    assert made.ticks[0] == pytest.approx(made.low)
    assert made.ticks[-1] == pytest.approx(made.high)


@pytest.mark.parametrize(("low", "high"), [(math.nan, 1), (0, math.inf), (2, 1)])
def test_what_is_no_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="no range"):
        axis(low, high)


@given(st.floats(1e-3, 1e8))
def test_ticks_are_few_and_within(seconds: float) -> None:
    made = ticks(seconds)
    assert made[0] == 0
    assert made[-1] <= seconds
    assert len(made) <= 7


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-1e-9, "0"), (3, "3"), (2.5, "2.5"), (-0.7333, "-0.733"), (434.4, "434"), (1234567, "1,234,567")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (0, "0", "less than a second"),
        (1, "1 s", "1 second"),
        (90, "1 min 30", "1 minute 30 seconds"),
        (3600, "1 h", "1 hour"),
        (5430, "1 h 30", "1 hour 30 minutes"),
        (86400 * 2 + 3600 * 4, "2 d 4 h", "2 days 4 hours"),
    ],
)
def test_times(seconds: float, short: str, long: str) -> None:
    assert (elapsed(seconds), span_text(seconds)) == (short, long)
