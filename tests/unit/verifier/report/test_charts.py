"""Charts draw what was measured: nothing between samples that are missing, and the loudest of what shares a column."""

from __future__ import annotations

import re

import numpy as np

from support.pages import Page
from weighbridge.verifier.report.charts import Band, Cell, Chart, Filled, Level, Line, Step, chart, strip
from weighbridge.verifier.report.scale import COLUMNS, Envelope, axis
from weighbridge.verifier.report.timeline import columns
from weighbridge.verifier.report.view import Trace

AXIS = axis(0, 100)


def filled(known: list[int], *, reach: int = 1) -> str:
    """The path of samples in these columns, all of one value."""
    values = np.full(COLUMNS, np.nan)
    values[known] = 50.0
    mark = Filled(Trace(Envelope(values, values), reach, 50, 50, 50), "measured", "measured")
    made = chart(Chart(title="Power", unit="W", told="as it was", seconds=60, axis=AXIS, marks=(mark,)))
    plot = Page(made.html.encode()).one("svg", role="img")
    return plot.one("path", **{"class": "m-measured"}).attributes["d"]


def test_samples_that_are_missing_break_the_line() -> None:
    assert filled([0, 1, 2, 100, 101]).count("M") == 2
    assert filled([0, 50, 100]).count("M") == 3
    assert filled([0, 50, 100], reach=50).count("M") == 1


def test_every_mark_stays_within_the_plot() -> None:
    marks = (
        Band(((-5, 30, -1000, 1000), (30, 70, 20, 80)), "band"),
        Line(((0, 90, 500.0),), "mean", "mean"),
        Step(((10, -3.0), (20, 40.0)), "evidence", "evidence"),
        Level(60, "alarm"),
    )
    made = chart(Chart(title="Power", unit="", told="as it was", seconds=60, axis=AXIS, marks=marks, height=100))
    page = Page(made.html.encode())
    for path in page.one("svg", role="img").all("path"):
        for letter, x, y in re.findall(r"([MLHV])(-?[\d.]+)(?: (-?[\d.]+))?", path.attributes["d"]):
            across, down = (None, x) if letter == "V" else (x, y or None)
            assert across is None or 0 <= float(across) <= 1000
            assert down is None or 0 <= float(down) <= 100
    assert page.one("svg", role="img").attributes["aria-label"] == "Power. as it was"
    legend = [item.text for item in page.all("li")]
    assert legend == ["band", "mean", "evidence", "alarm"]


def test_of_several_in_one_column_the_loudest_is_drawn() -> None:
    pieces = [(float(n), n + 1.0, "denied" if n == 777 else "affirmed") for n in range(3600)]
    cells = columns(pieces, ("denied", "affirmed"), 3600.0)
    assert len(cells) == COLUMNS
    assert [n for n, cell in enumerate(cells) if cell.kind == "denied"] == [77]


def test_a_gap_between_windows_stays_one() -> None:
    drawn = strip([Cell(0, 10, "affirmed"), Cell(50, 60, "affirmed")], seconds=60, height=40, told="two")
    path = Page(drawn.html.encode()).one("path", **{"class": "c-affirmed"}).attributes["d"]
    assert [float(x) for x in re.findall(r"M([\d.]+)", path)] == [0, 833.3]
