"""The physical record: what each GPU drew, how warm and how fast it was, against what its owner recorded before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.verifier.report.charts import (
    Band,
    Chart,
    Filled,
    Level,
    Line,
    Mark,
    Step,
    Swatch,
    chart,
    legend_item,
    strip,
)
from weighbridge.verifier.report.markup import Child, Markup, element
from weighbridge.verifier.report.parts import facts, hexadecimal, section, shortened, table, tag
from weighbridge.verifier.report.scale import COLUMNS, Axis, axis, number
from weighbridge.verifier.report.timeline import columns
from weighbridge.verifier.report.words import RECORD, plural, sentence
from weighbridge.verifier.telemetry.state import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.report.charts import Style
    from weighbridge.verifier.report.view import Gpu, SessionView, Trace, Unit
    from weighbridge.verifier.telemetry.state import Word

__all__ = ["physical"]

_NOTHING: Final = "\N{EN DASH}"
_MINUS: Final = "\N{MINUS SIGN}"
_STRIP: Final = 16
_ROOM: Final = 1.5
_EVIDENCE_LEAST: Final = -2.0
"""How far down the evidence is drawn: below that, readings speak for the baseline, and how much is no matter."""


def physical(view: SessionView) -> Markup:
    """The section."""
    intro: tuple[Markup, ...] = (
        element(
            "p",
            "A computation draws power and gives off heat, whatever the software says. Where a GPU's owner has "
            "recorded beforehand what declared work draws (a baseline), the session is compared with it, unit by unit.",
        ),
        element(
            "p",
            "The readings are the host's word: no sensor signs them. They can contradict and corroborate; they can "
            "never vouch for weights. The baseline is of power alone: temperature and clocks are held against physics "
            "only, and drawn beside it.",
        ),
    )
    if missing := sum(not row.shown for row in view.rows):
        text = (
            f"The samples of {plural(missing, 'window')} are not in this bundle, or were refused: they are not drawn."
        )
        intro = (*intro, element("p", text, class_="note"))
    if not view.gpus:
        return section("physical", "Power, heat and clocks", *intro, element("p", "No GPU has a record here."))
    overview = table(
        "Each GPU at the end of the session",
        ("GPU", "Physical record", "Power, W", "Residual, W", "Would have been seen, W"),
        (_overview(place, gpu) for place, gpu in enumerate(view.gpus, start=1)),
        numbers=frozenset({2, 3, 4}),
    )
    shown = [_gpu(place, gpu, view.seconds, opened=_opened(place, gpu)) for place, gpu in enumerate(view.gpus, start=1)]
    return section("physical", "Power, heat and clocks", *intro, overview, *shown)


def _opened(place: int, gpu: Gpu) -> bool:
    """The first GPU's charts are shown at once, and those of each that contradicts its baseline or physics."""
    return place == 1 or (bool(gpu.words) and gpu.words[-1][2] in {"implausible", "out_of_baseline"})


def _overview(place: int, gpu: Gpu) -> tuple[Child, ...]:
    power = gpu.traces.get("power")
    last = gpu.units[-1] if gpu.units else None
    return (
        element("span", f"GPU {place} ", element("code", shortened(gpu.identity))),
        tag(RECORD[gpu.words[-1][2]]) if gpu.words else "withheld",
        _NOTHING if power is None else number(power.mean),
        _NOTHING if last is None else _signed(last.residual),
        _NOTHING if last is None or last.reach is None else f"± {number(last.reach)}",
    )


def _gpu(place: int, gpu: Gpu, seconds: float, *, opened: bool) -> Markup:
    said = tag(RECORD[gpu.words[-1][2]]) if gpu.words else None
    summary = element(
        "summary",
        element("span", f"GPU {place}"),
        element("span", shortened(gpu.identity), class_="hex soft"),
        said,
    )
    rows: list[tuple[str, Child]] = [
        ("Record", _sentence(gpu)),
        ("Identity", hexadecimal(gpu.identity)),
        ("Baseline", None if gpu.baseline is None else hexadecimal(gpu.baseline)),
        ("Sensors", gpu.source),
    ]
    drawn = [
        _words(gpu, seconds),
        _power(gpu, seconds),
        _evidence(gpu, seconds),
        _temperature(gpu, seconds),
        _clock(gpu, seconds),
        _findings(gpu),
    ]
    # `open` is an attribute without a value that matters.
    return element("details", summary, facts(rows), *drawn, class_="gpu", open="" if opened else None)


def _sentence(gpu: Gpu) -> str:
    if not gpu.words:
        return "withheld"
    word = gpu.words[-1][2]
    emulated = " The baseline is of an emulated GPU." if gpu.emulated else ""
    last = gpu.units[-1] if gpu.units else None
    if word == "in_baseline" and last is not None and last.reach is not None:
        return (
            f"Consistent with its baseline; a sustained change of {number(last.reach)} W or more would have been seen."
            f"{emulated}"
        )
    why = f": {gpu.why}" if gpu.why else ""
    return f"{sentence(RECORD[word].meaning)}{why}.{emulated}"


def _words(gpu: Gpu, seconds: float) -> Markup | None:
    """The word behind each window."""
    if not gpu.words:
        return None
    present: list[Word] = [word for word in WORDS if any(item[2] == word for item in gpu.words)]
    legend = element("ul", *(legend_item(Swatch(word, RECORD[word].word)) for word in present), class_="legend")
    told = "Physical record, window by window: " + ", ".join(
        f"{RECORD[word].word} in {sum(item[2] == word for item in gpu.words)}" for word in present
    )
    cells = columns(gpu.words, WORDS, seconds)
    drawn = strip(cells, seconds=seconds, height=_STRIP, told=told, axis=False)
    return element("figure", element("figcaption", "Record, window by window", legend), drawn, class_="inset")


def _power(gpu: Gpu, seconds: float) -> Markup | None:
    power = gpu.traces.get("power")
    if power is None:
        return element("p", "This GPU reports no power, or its samples are withheld.", class_="soft")
    marks: list[Mark] = [Filled(power, "measured", "measured")]
    told = f"From {number(power.least)} to {number(power.most)} W, {number(power.mean)} W in the mean."
    low, high = power.least, power.most
    units = _thinned(gpu.units)
    if units:
        band = _band(units)
        marks.insert(0, band)
        marks.append(
            Line(tuple((u.start, u.end, u.explained + u.residual) for u in units), "mean", "mean of each unit")
        )
        bottom, top = min(low for _, _, low, _ in band.pieces), max(high for _, _, _, high in band.pieces)
        told += f" The band around what declared work explains goes from {number(bottom)} to {number(top)} W."
        # The first units' bands are wide, as little can be told by then: drawn in full they would flatten the rest.
        reach = _ROOM * min((u.reach for u in units if u.reach is not None), default=0.0)
        low = min(low, *(u.explained - reach for u in units))
        high = max(high, *(u.explained + reach for u in units))
    return chart(
        Chart(title="Power", unit="W", told=told, seconds=seconds, axis=axis(low, high), marks=tuple(marks), height=168)
    )


def _band(units: Sequence[Unit]) -> Band:
    return Band(
        tuple((u.start, u.end, u.explained - (u.reach or 0.0), u.explained + (u.reach or 0.0)) for u in units),
        "explained by declared work ± the smallest sustained change that is seen",
    )


def _thinned(units: Sequence[Unit]) -> Sequence[Unit]:
    """No more units than there are columns: of several, the one whose residual is largest."""
    if len(units) <= COLUMNS:
        return units
    size = -(-len(units) // COLUMNS)
    groups = [units[place : place + size] for place in range(0, len(units), size)]
    return [max(group, key=lambda unit: abs(unit.residual)) for group in groups]


def _evidence(gpu: Gpu, seconds: float) -> Markup | None:
    points = [(unit.end, unit.evidence) for unit in gpu.units if unit.evidence is not None]
    if gpu.alarm is None or not points:
        return None
    most = max(value for _, value in points)
    size = -(-len(points) // (2 * COLUMNS))
    drawn = [max(points[place : place + size], key=lambda point: point[1]) for place in range(0, len(points), size)]
    told = (
        f"It ends at 10 to the power of {number(points[-1][1])}, and was {number(most)} at most; it alarms at "
        f"{number(gpu.alarm)}."
    )
    marks = (
        Level(gpu.alarm, f"alarm: one genuine GPU in {number(10**gpu.alarm)} ever comes here"),
        Step(tuple(drawn), "evidence", "evidence behind each unit"),
    )
    low = max(_EVIDENCE_LEAST, min(0.0, *(value for _, value in drawn)))
    scale: Axis = axis(low, max(gpu.alarm, most) * 1.08)
    return chart(
        Chart(
            title="Evidence against the baseline",
            unit="powers of ten",
            told=told,
            seconds=seconds,
            axis=scale,
            marks=marks,
        )
    )


def _temperature(gpu: Gpu, seconds: float) -> Markup | None:
    chip, memory = gpu.traces.get("temperature"), gpu.traces.get("memory_temperature")
    there = [trace for trace in (chip, memory) if trace is not None]
    if not there:
        return None
    marks: list[Mark] = []
    told: list[str] = []
    drawn: tuple[tuple[Trace | None, Style, str], ...] = ((chip, "measured", "GPU"), (memory, "second", "its memory"))
    for trace, style, label in drawn:
        if trace is not None:
            marks.append(Filled(trace, style, label))
            told.append(f"{label}: from {number(trace.least)} to {number(trace.most)} °C.")
    scale = axis(min(trace.least for trace in there), max(trace.most for trace in there))
    return chart(
        Chart(
            title="Temperature",
            unit="°C",
            told=" ".join(told),
            seconds=seconds,
            axis=scale,
            marks=tuple(marks),
            height=96,
        )
    )


def _clock(gpu: Gpu, seconds: float) -> Markup | None:
    clock = gpu.traces.get("sm_clock")
    if clock is None:
        return None
    told = f"From {number(clock.least)} to {number(clock.most)} MHz."
    marks = (Filled(clock, "measured", "of the multiprocessors"),)
    return chart(
        Chart(
            title="Clock",
            unit="MHz",
            told=told,
            seconds=seconds,
            axis=axis(clock.least, clock.most),
            marks=marks,
            height=96,
        )
    )


def _findings(gpu: Gpu) -> Markup | None:
    if not gpu.findings:
        return None
    return table(
        "What checks of physics found last",
        ("Check", "Channel", "Expected", "Read"),
        ((item.check, item.channel, item.expected, item.got) for item in gpu.findings),
    )


def _signed(value: float) -> str:
    text = number(abs(value))
    return text if text == "0" else ("+" if value > 0 else _MINUS) + text
