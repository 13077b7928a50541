"""Figures: the same data give the same file, names draw nothing but themselves, and without matplotlib one is told."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.telemetry.study.figures import (
    FORMATS,
    BaselineFigure,
    RunOfFigure,
    SessionFigure,
    baseline_figure,
    session_figure,
)

pytest.importorskip("matplotlib")

UNITS = 6
RNG = np.random.default_rng(3)


def run_of_figure(*, held_out: bool = False, units: int = UNITS) -> RunOfFigure:
    explained = 420 + 10 * np.arange(units)
    return RunOfFigure("run", explained.astype(float), explained + RNG.normal(0, 1, units), held_out)


BASELINE = BaselineFigure(
    title="Acme, gate, number 3",
    subtitle="GPU 01234567",
    runs=(*(run_of_figure() for _ in range(3)), run_of_figure(held_out=True)),
    deviation=5.0,
)
SESSION = SessionFigure(
    title="session 0123",
    subtitle="GPU 01234567 against Acme, gate, number 3",
    sampled=np.arange(60.0),
    power=RNG.normal(430, 2, 60),
    begins=np.arange(0.0, 60.0, 10.0),
    ends=np.arange(10.0, 70.0, 10.0),
    explained=np.array([np.nan, *[430.0] * (UNITS - 1)]),
    residual=np.array([np.nan, *[1.0] * (UNITS - 1)]),
    uncertainty=np.array([np.nan, *[2.0] * (UNITS - 1)]),
    deviation=5.0,
    verdicts=("unusable", "in_baseline", "in_baseline", "no_baseline", "out_of_baseline", "implausible"),
    evidence=np.array([np.nan, *np.linspace(0, 3, UNITS - 1)]),
    alarm=2.0,
    alarmed=50.0,
)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_data_give_the_same_file(form: str) -> None:
    beginning = {"svg": b"<?xml", "png": b"\x89PNG\r\n"}[form]
    for once, again in (
        (baseline_figure(BASELINE, form=form), baseline_figure(BASELINE, form=form)),
        (session_figure(SESSION, form=form), session_figure(SESSION, form=form)),
    ):
        assert once == again
        assert once.startswith(beginning)
        assert b"<dc:date>" not in once


def test_an_svg_is_well_formed_and_draws_each_unit() -> None:
    tree = ET.fromstring(session_figure(SESSION, form="svg"))  # noqa: S314 - our own
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    more = replace(SESSION, verdicts=("unusable", *["in_baseline"] * (UNITS - 1)))
    assert session_figure(more, form="svg") != session_figure(SESSION, form="svg")


@pytest.mark.parametrize("title", ["$x^2$ and $", "a\\b", "<b>&amp;", "日本", "_^{}"])
def test_names_are_no_formulas(title: str) -> None:
    assert baseline_figure(replace(BASELINE, title=title, subtitle=title), form="svg")


def test_a_single_run_of_a_single_unit_can_be_drawn() -> None:
    assert baseline_figure(replace(BASELINE, runs=(run_of_figure(units=1),)), form="png")


def test_nothing_scored_can_be_drawn() -> None:
    nothing = np.full(UNITS, np.nan)
    bare = replace(
        SESSION,
        explained=nothing,
        residual=nothing,
        uncertainty=nothing,
        evidence=nothing,
        deviation=0.0,
        alarmed=None,
        verdicts=("no_baseline",) * UNITS,
    )
    assert session_figure(bare, form="png")


def test_another_format_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="format"):
        _ = baseline_figure(BASELINE, form="pdf")


def test_without_matplotlib_one_is_told_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EnvironmentFault) as caught:
        _ = session_figure(SESSION, form="svg")
    assert caught.value.code is Code.TOOL_MISSING
    assert "weighbridge[figures]" in caught.value.hint
