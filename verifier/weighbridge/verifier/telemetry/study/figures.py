"""Figures for people: a baseline with the runs it was made of, and a session against it. SVG or PNG.

The same data give the same bytes, with the same version of matplotlib: no date, and names in SVG files by a fixed salt.
Verdicts have a shape and a hatching beside their colour, so that the figures read in greyscale and by any eye; colours
are those of Okabe and Ito (2008). matplotlib is met here and nowhere else, and only where a figure is asked for.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["FORMATS", "BaselineFigure", "RunOfFigure", "SessionFigure", "baseline_figure", "session_figure"]

FORMATS: Final = ("svg", "png")
_PNG_DPI: Final = 144
_WIDTH: Final = 10.0
_MARGIN: Final = 0.012
_TICKS: Final = 16
_SETTINGS: Final[Mapping[str, object]] = {
    "svg.hashsalt": "weighbridge",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": "#333333",
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
}
_BLUE: Final = "#0072b2"
_VERMILION: Final = "#d55e00"
_GREY: Final = "#767676"
_BLACK: Final = "#222222"
_BAND: Final = "#cfe3f1"


@dataclass(frozen=True, slots=True)
class _Look:
    """How the units of one verdict are drawn."""

    label: str
    colour: str
    marker: str
    hatch: str
    fill: str


_LOOKS: Final[Mapping[str, _Look]] = {
    "in_baseline": _Look("in baseline", _BLUE, "o", "", "none"),
    "out_of_baseline": _Look("out of baseline", _VERMILION, "s", "////", "#fbe3d4"),
    "implausible": _Look("implausible", _BLACK, "D", "xxxx", "#dddddd"),
    "unusable": _Look("unusable", _GREY, "x", "....", "#f2f2f2"),
    "no_baseline": _Look("no baseline", _GREY, "+", "", "#f7f7f7"),
}


@dataclass(frozen=True, slots=True)
class RunOfFigure:
    """One run, unit by unit, W; ``held_out``: the thresholds had not seen it."""

    label: str
    explained: Floats
    measured: Floats
    held_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFigure:
    """A baseline and its runs.

    Attributes:
        title: owner, name and number.
        subtitle: device and scope.
        runs: those it was fitted to, then those it was checked on.
        deviation: W; the smallest sustained change of mean power that would have been flagged.
    """

    title: str
    subtitle: str
    runs: tuple[RunOfFigure, ...]
    deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFigure:
    """A session, or a run, against a baseline. Times are seconds from its start.

    Attributes:
        title: what it is.
        subtitle: device and baseline.
        sampled: when each sample was taken.
        power: W, of each sample.
        begins: of each unit.
        ends: of each unit.
        explained: W, of each unit; not a number where nothing was scored.
        residual: W.
        uncertainty: W, of the residual: one standard deviation of a whole run.
        deviation: W; the smallest sustained change of mean power that would have been flagged; 0 for none.
        verdicts: of each unit, the word.
        evidence: log10 of the e-process after each unit.
        alarm: log10 at which it alarms.
        alarmed: when it did, or its other bound; ``None`` for never.
    """

    title: str
    subtitle: str
    sampled: Floats
    power: Floats
    begins: Floats
    ends: Floats
    explained: Floats
    residual: Floats
    uncertainty: Floats
    deviation: float
    verdicts: tuple[str, ...]
    evidence: Floats
    alarm: float
    alarmed: float | None


def baseline_figure(data: BaselineFigure, *, form: str) -> bytes:
    """``data`` drawn: explained against measured power, and the residual of each run.

    Raises:
        EnvironmentFault: ``TOOL_MISSING``: matplotlib.
    """

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
        _explained_and_measured(left, data.runs)
        _residual_of_runs(right, data)

    return _drawn(paint, data.title, data.subtitle, height=4.8, form=form)


def session_figure(data: SessionFigure, *, form: str) -> bytes:
    """``data`` drawn: power and what explains it, the residual with its band, the evidence.

    Raises:
        EnvironmentFault: ``TOOL_MISSING``: matplotlib.
    """

    def paint(figure: Figure) -> None:
        power, residual, evidence = figure.subplots(3, 1, sharex=True, height_ratios=(1.3, 1.2, 0.8))
        for axes in (power, residual, evidence):
            _shade(axes, data)
            if data.alarmed is not None:
                axes.axvline(data.alarmed, color=_VERMILION, linewidth=1.4)
        _power(power, data)
        _residual(residual, data)
        _evidence(evidence, data)
        evidence.set_xlabel("seconds from the start")
        evidence.set_xlim(float(data.begins.min()), float(data.ends.max()))

    return _drawn(paint, data.title, data.subtitle, height=7.6, form=form)


def _drawn(paint: Callable[[Figure], None], title: str, subtitle: str, *, height: float, form: str) -> bytes:
    """One figure with our settings, which are nobody else's afterwards."""
    if form not in FORMATS:
        raise ValueError(f"no such format: {form}")
    try:
        import matplotlib as mpl  # noqa: PLC0415 - heavy, optional, and only where a figure is asked for
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415
    except ImportError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING,
            "figures need matplotlib, which is not installed",
            where="--figure",
            hint="install it: pip install 'weighbridge[figures]'",
        ) from error
    out = io.BytesIO()
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # Names come from files: a letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure = Figure((_WIDTH, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.66 / height)))
        head = {"va": "top", "parse_math": False}
        figure.text(_MARGIN, 1 - 0.14 / height, title, fontsize=12, fontweight="bold", color=_BLACK, **head)
        figure.text(_MARGIN, 1 - 0.40 / height, subtitle, color=_GREY, **head)
        paint(figure)
        meta: dict[str, str | None] = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(out, format=form, dpi=_PNG_DPI, metadata=meta)
    return out.getvalue()


# -- a baseline -------------------------------------------------------------------------------------------------------


def _explained_and_measured(axes: Axes, runs: Sequence[RunOfFigure]) -> None:
    every = np.concatenate([values for run in runs for values in (run.explained, run.measured)])
    low, high = float(every.min()), float(every.max())
    room = max(1.0, 0.04 * (high - low))
    axes.plot([low - room, high + room], [low - room, high + room], color=_GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(
        "measured = explained",
        (high, high),
        xytext=(-6, 4),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        color=_GREY,
    )
    for held_out in (False, True):
        chosen = [run for run in runs if run.held_out == held_out]
        if chosen:
            axes.plot(
                np.concatenate([run.explained for run in chosen]),
                np.concatenate([run.measured for run in chosen]),
                linestyle="none",
                **_point(held_out=held_out),
            )
    axes.set_xlabel("explained by declared work, W")
    axes.set_ylabel("measured, W")
    axes.set_title("power of each unit", loc="left", fontsize=9.5, color=_BLACK)


def _residual_of_runs(axes: Axes, data: BaselineFigure) -> None:
    axes.axhspan(-data.deviation, data.deviation, color=_BAND, linewidth=0, zorder=0)
    axes.axhline(0, color=_GREY, linewidth=0.8)
    for number, run in enumerate(data.runs, start=1):
        residual = run.measured - run.explained
        spread = number + np.linspace(-0.22, 0.22, residual.size) if residual.size > 1 else np.asarray([float(number)])
        axes.plot(spread, residual, linestyle="none", **_point(held_out=run.held_out))
        axes.plot([number - 0.34, number + 0.34], [residual.mean()] * 2, color=_BLACK, linewidth=1.6)
    axes.set_xlim(0.3, len(data.runs) + 0.7)
    axes.set_xticks(range(1, len(data.runs) + 1, max(1, len(data.runs) // _TICKS)))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("run")
    axes.set_ylabel("sovereignty residual, W")
    axes.set_title("measured less explained, by run", loc="left", fontsize=9.5, color=_BLACK)
    handles = [
        axes.plot([], [], linestyle="none", label="unit of a run that was fitted", **_point(held_out=False))[0],
        axes.plot([], [], color=_BLACK, linewidth=1.6, label="mean of the run")[0],
        axes.fill_between(
            [], [], [], color=_BAND, label=f"a sustained change of less than {data.deviation:.1f} W: unseen"
        ),
    ]
    if any(run.held_out for run in data.runs):
        point = axes.plot([], [], linestyle="none", label="unit of a held-out run", **_point(held_out=True))
        handles.insert(1, point[0])
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=8)


def _point(*, held_out: bool) -> dict[str, object]:
    return {
        "marker": "s" if held_out else "o",
        "markersize": 3.4,
        "markerfacecolor": "white" if held_out else _BLUE,
        "markeredgecolor": _VERMILION if held_out else _BLUE,
        "markeredgewidth": 0.8,
        "alpha": 0.75,
    }


# -- a session --------------------------------------------------------------------------------------------------------


def _shade(axes: Axes, data: SessionFigure) -> None:
    """The background of each unit: its verdict."""
    for begin, end, verdict in zip(data.begins, data.ends, data.verdicts, strict=True):
        look = _LOOKS[verdict]
        if look.fill != "none":
            axes.axvspan(begin, end, facecolor=look.fill, edgecolor="#c8c8c8", hatch=look.hatch, linewidth=0, zorder=0)


def _power(axes: Axes, data: SessionFigure) -> None:
    axes.plot(data.sampled, data.power, color=_BLACK, linewidth=0.8, label="measured")
    known = ~np.isnan(data.explained)
    axes.hlines(
        data.explained[known],
        data.begins[known],
        data.ends[known],
        color=_BLUE,
        linewidth=2.2,
        label="explained by declared work",
    )
    axes.set_ylabel("power, W")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False, fontsize=8, borderaxespad=0.2)


def _residual(axes: Axes, data: SessionFigure) -> None:
    known = ~np.isnan(data.residual)
    middle = (data.begins + data.ends) / 2
    for number in np.flatnonzero(known):
        reach = data.uncertainty[number]
        axes.fill_between([data.begins[number], data.ends[number]], -reach, reach, color=_BAND, linewidth=0, zorder=1)
    axes.axhline(0, color=_GREY, linewidth=0.8)
    axes.vlines(middle[known], 0, data.residual[known], color=_GREY, linewidth=0.8)
    verdicts = np.asarray(data.verdicts)
    for verdict, look in _LOOKS.items():
        chosen = (verdicts == verdict) & known
        if not chosen.any():
            continue
        axes.plot(
            middle[chosen],
            data.residual[chosen],
            linestyle="none",
            marker=look.marker,
            markersize=5,
            color=look.colour,
            label=look.label,
        )
    axes.fill_between([], [], [], color=_BAND, label="one standard deviation of a run")
    if data.deviation:
        for at, label in ((data.deviation, "smallest sustained change that is seen"), (-data.deviation, None)):
            axes.axhline(at, color=_BLUE, linewidth=0.9, linestyle=(0, (1, 2)), label=label)
    axes.set_ylabel("sovereignty\nresidual, W")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=6, frameon=False, fontsize=8, borderaxespad=0.2)


def _evidence(axes: Axes, data: SessionFigure) -> None:
    axes.axhline(data.alarm, color=_VERMILION, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.annotate(
        f"alarm at {data.alarm:.3g} (10^{data.alarm:.3g} = {10**data.alarm:,.0f})",
        (1, data.alarm),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        color=_VERMILION,
    )
    known = ~np.isnan(data.evidence)
    axes.step(data.ends[known], data.evidence[known], where="post", color=_BLACK, linewidth=1.2)
    axes.plot(data.ends[known], data.evidence[known], linestyle="none", marker="o", markersize=3, color=_BLACK)
    axes.set_ylabel("evidence against\nthe baseline, log10")
    top = max(data.alarm, *(data.evidence[known].tolist() or [0.0]))
    axes.set_ylim(top=top + max(0.4, 0.12 * abs(top)))
