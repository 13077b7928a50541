"""Charts as inline SVG: readable at any width without a script, and told in words to who cannot see them.

Across, a plot is stretched to the width that there is; its height, its lines and all its letters stay as they are. So
nothing is drawn whose shape a stretch would spoil. Colours come from the page's style, by class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.verifier.report.markup import Markup, element, joined
from weighbridge.verifier.report.scale import elapsed, number, ticks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.verifier.report.scale import Axis
    from weighbridge.verifier.report.view import Trace

__all__ = [
    "Band",
    "Cell",
    "Chart",
    "Filled",
    "Level",
    "Line",
    "Mark",
    "Step",
    "Style",
    "Swatch",
    "chart",
    "legend_item",
    "strip",
]

_WIDTH: Final = 1000
_TICKS: Final = 14

Style = Literal["measured", "second", "mean", "evidence"]


@dataclass(frozen=True, slots=True)
class Filled:
    """Samples in columns, from the smallest to the largest of each."""

    trace: Trace
    style: Style
    label: str


@dataclass(frozen=True, slots=True)
class Band:
    """Pieces from ``start`` to ``end`` and from ``low`` to ``high``."""

    pieces: tuple[tuple[float, float, float, float], ...]
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """Level pieces: from ``start`` to ``end`` at ``value``."""

    pieces: tuple[tuple[float, float, float], ...]
    style: Style
    label: str


@dataclass(frozen=True, slots=True)
class Step:
    """Points whose value holds from their time on, to the next one."""

    points: tuple[tuple[float, float], ...]
    style: Style
    label: str


@dataclass(frozen=True, slots=True)
class Level:
    """A dashed line from end to end."""

    value: float
    label: str


Mark = Filled | Band | Line | Step | Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What is drawn over one axis of time.

    Attributes:
        title: what it shows.
        unit: of the values; may be empty.
        told: the same in words.
        seconds: how long the axis is.
        axis: of the values.
        marks: from the back to the front.
        height: of the plot, px.
    """

    title: str
    unit: str
    told: str
    seconds: float
    axis: Axis
    marks: tuple[Mark, ...]
    height: int = 132


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of a strip: ``kind`` decides colour, height and pattern."""

    start: float
    end: float
    kind: str


@dataclass(frozen=True, slots=True)
class Swatch:
    """What a kind of mark or cell looks like, in a legend."""

    kind: str
    label: str


def chart(of: Chart) -> Markup:
    """``of`` as a figure: its title with a legend, the plot, its axes."""
    swatches = [_swatch(mark) for mark in of.marks]
    legend = element("ul", *(legend_item(swatch) for swatch in swatches), class_="legend")
    heading = element("span", of.title, element("span", f", {of.unit}", class_="unit") if of.unit else None)
    return element(
        "figure",
        element("figcaption", heading, legend),
        element("div", _values(of), _plot(of), _times(of.seconds), class_="plot"),
        class_="chart",
    )


def strip(cells: Sequence[Cell], *, seconds: float, height: int, told: str, axis: bool = True) -> Markup:
    """A row of cells over time; told in words by ``told``."""
    drawn: dict[str, list[str]] = {}
    for cell in cells:
        left, right = _across(cell.start, seconds), _across(cell.end, seconds)
        # Neighbours stay apart where there is room for it.
        gap = 1.5 if right - left > 8 else 0.0  # noqa: PLR2004 - thousandths of the width
        top = height * (1 - _HEIGHTS.get(cell.kind, 1.0))
        drawn.setdefault(cell.kind, []).append(
            f"M{_n(left)} {_n(top)}H{_n(max(left + 0.8, right - gap))}V{height}H{_n(left)}Z"
        )
    paths = [element("path", d="".join(pieces), class_=f"c-{kind}") for kind, pieces in sorted(drawn.items())]
    base = element("path", d=f"M0 {height - 0.5}H{_WIDTH}", class_="grid")
    row = _stretched(height, [base, *paths], told=told, class_="area strip")
    return element("div", row, _times(seconds) if axis else None, class_="plot bare")


def legend_item(swatch: Swatch) -> Markup:
    """One line of a legend: a sample of the mark, and its name."""
    height = _HEIGHTS.get(swatch.kind, 1.0)
    sample = element(
        "svg",
        element("rect", x=0, y=_n(12 * (1 - height)), width=16, height=_n(12 * height), class_=f"c-{swatch.kind}")
        if swatch.kind in _HEIGHTS
        else _sample(swatch.kind),
        width=16,
        height=12,
        aria_hidden="true",
        focusable="false",
    )
    return element("li", sample, swatch.label)


# A verdict is told by the height of its cell as well as by its colour; what is not here is a mark of a chart.
_HEIGHTS: Final = {
    "affirmed": 0.62,
    "held": 0.42,
    "indeterminate": 0.24,
    "denied": 1.0,
    "recorded": 0.12,
    "in_baseline": 0.62,
    "unusable": 0.24,
    "no_baseline": 0.12,
    "out_of_baseline": 1.0,
    "implausible": 1.0,
}


def _sample(kind: str) -> Markup:
    if kind == "band":
        edges = element("path", d="M0 1.5H16M0 10.5H16", class_="m-edge")
        return joined([element("rect", x=0, y=1, width=16, height=10, class_="m-band"), edges])
    if kind in {"measured", "second"}:
        return element("path", d="M0 9L4 4L8 8L12 3L16 7", class_=f"m-{kind}")
    return element("path", d="M0 6H16", class_=f"m-{kind}")


def _swatch(mark: Mark) -> Swatch:
    match mark:
        case Band():
            return Swatch("band", mark.label)
        case Level():
            return Swatch("level", mark.label)
        case Filled() | Line() | Step():
            return Swatch(mark.style, mark.label)


def _plot(of: Chart) -> Markup:
    grid = "".join(f"M0 {_n(_up(value, of))}H{_WIDTH}" for value in of.axis.ticks)
    upright = "".join(f"M{_n(_across(at, of.seconds))} 0V{of.height}" for at in ticks(of.seconds))
    inner = [element("path", d=grid + upright, class_="grid"), *(_drawn(mark, of) for mark in of.marks)]
    return _stretched(of.height, inner, told=f"{of.title}. {of.told}", class_="area")


def _stretched(height: int, inner: Iterable[Markup], *, told: str, class_: str) -> Markup:
    plot = element(
        "svg",
        *inner,
        viewBox=f"0 0 {_WIDTH} {height}",
        preserveAspectRatio="none",
        width="100%",
        height=height,
        x=0,
        y=0,
    )
    return element("svg", plot, width="100%", height=height, role="img", aria_label=told, class_=class_)


def _drawn(mark: Mark, of: Chart) -> Markup:
    match mark:
        case Filled():
            return element("path", d=_outline(mark.trace, of), class_=f"m-{mark.style}")
        case Band():
            return _band(mark, of)
        case Line():
            pieces = "".join(
                f"M{_n(_across(start, of.seconds))} {_n(_up(value, of))}H{_n(_across(end, of.seconds))}"
                for start, end, value in mark.pieces
            )
            return element("path", d=pieces, class_=f"m-{mark.style}")
        case Step():
            return element("path", d=_steps(mark, of), class_=f"m-{mark.style}")
        case Level():
            return element("path", d=f"M0 {_n(_up(mark.value, of))}H{_WIDTH}", class_="m-level")


def _band(mark: Band, of: Chart) -> Markup:
    """Its area, and its upper and lower edges."""
    areas: list[str] = []
    edges: list[str] = []
    for start, end, low, high in mark.pieces:
        left, right = _n(_across(start, of.seconds)), _n(_across(end, of.seconds))
        top, bottom = _n(_up(high, of)), _n(_up(low, of))
        areas.append(f"M{left} {top}H{right}V{bottom}H{left}Z")
        edges.append(f"M{left} {top}H{right}M{left} {bottom}H{right}")
    return joined(
        [element("path", d="".join(areas), class_="m-band"), element("path", d="".join(edges), class_="m-edge")]
    )


def _steps(mark: Step, of: Chart) -> str:
    path = ""
    for at, value in mark.points:
        x, y = _n(_across(at, of.seconds)), _n(_up(value, of))
        path += f"H{x}V{y}" if path else f"M{x} {y}"
    return path + f"H{_WIDTH}" if path else ""


def _outline(trace: Trace, of: Chart) -> str:
    """Each run of columns with samples, none missing between them: along the top, and back along the bottom."""
    low, high = trace.envelope.low.tolist(), trace.envelope.high.tolist()
    known = [column for column, there in enumerate(trace.envelope.known.tolist()) if there]
    runs: list[list[int]] = []
    for column in known:
        if runs and column - runs[-1][-1] <= trace.reach:
            runs[-1].append(column)
        else:
            runs.append([column])
    width = _WIDTH / len(low)
    path: list[str] = []
    for run in runs:
        over = [(column * width, column) for column in run]
        # The last one has a width as well: a single one would not be seen.
        over.append(((run[-1] + 1) * width, run[-1]))
        top = [f"{_n(x)} {_n(_up(high[column], of))}" for x, column in over]
        bottom = [f"{_n(x)} {_n(_up(low[column], of))}" for x, column in reversed(over)]
        path.append("M" + "L".join(top + bottom) + "Z")
    return "".join(path)


def _values(of: Chart) -> Markup:
    labels = [
        element("text", number(value), x="100%", y=_n(min(max(_up(value, of) + 4, 10), of.height - 1)), dx=-6)
        for value in of.axis.ticks
    ]
    return element("svg", *labels, width=48, height=of.height, class_="values", aria_hidden="true", focusable="false")


def _times(seconds: float) -> Markup:
    labels: list[Markup] = []
    for at in ticks(seconds):
        share = at / seconds
        anchor = "start" if share < 0.04 else "end" if share > 0.96 else "middle"  # noqa: PLR2004 - an end of the axis
        labels.append(element("text", elapsed(at), x=f"{100 * share:.2f}%", y=_TICKS - 2, text_anchor=anchor))
    return element(
        "svg", *labels, width="100%", height=_TICKS + 2, class_="times", aria_hidden="true", focusable="false"
    )


def _across(at: float, seconds: float) -> float:
    return _WIDTH * min(1.0, max(0.0, at / seconds))


def _up(value: float, of: Chart) -> float:
    return of.height * (1 - of.axis.place(value))


def _n(value: float) -> str:
    """As short as a tenth of a pixel allows."""
    return f"{value:.1f}".removesuffix(".0")
