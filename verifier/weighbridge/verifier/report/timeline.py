"""Window by window: the strip of verdicts, and what each stretch of like windows was told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.report.charts import Cell, Swatch, legend_item, strip
from weighbridge.verifier.report.markup import Markup, element
from weighbridge.verifier.report.parts import reasons, section, tag
from weighbridge.verifier.report.scale import COLUMNS, elapsed
from weighbridge.verifier.report.words import OUTCOMES, joined_with_and, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.report.view import Row, SessionView, Shown

__all__ = ["columns", "timeline"]

_SPANS_MAX: Final = 200
_HEIGHT: Final = 44
_REASONS_MAX: Final = 5
# Of several windows in one column the one that speaks loudest is drawn.
_LOUDEST: Final[tuple[Shown, ...]] = ("denied", "recorded", "indeterminate", "held", "affirmed")


def timeline(view: SessionView) -> Markup:
    """The section."""
    missing = None
    if view.withheld:
        are = "is" if view.withheld == 1 else "are"
        text = (
            f"{plural(view.withheld, 'judgement')} of this session {are} withheld: not in this bundle, and not shown."
        )
        missing = element("p", text, class_="note")
    if not view.rows:
        none = element("p", "No window of this session is in the bundle.")
        return section("timeline", "Window by window", none, missing)
    present = view.counts
    told = f"Verdicts of {plural(len(view.rows), 'window')}: " + joined_with_and(
        [f"{count:,} {OUTCOMES[outcome].word}" for outcome, count in present]
    )
    legend = element(
        "ul",
        *(
            legend_item(Swatch(outcome, f"{OUTCOMES[outcome].word}, {count:,}: {OUTCOMES[outcome].meaning}"))
            for outcome, count in present
        ),
        class_="legend",
    )
    cells = [Cell(start, end, outcome) for start, end, outcome in _cells(view)]
    figure = element(
        "figure",
        element("figcaption", "Verdicts", legend),
        strip(cells, seconds=view.seconds, height=_HEIGHT, told=told),
    )
    spans = _spans(view.rows)
    left = len(spans) - _SPANS_MAX
    return section(
        "timeline",
        "Window by window",
        element("p", "The taller the bar, the louder the verdict speaks: a refusal fills the strip."),
        missing,
        figure,
        element("h3", "What was said"),
        element("p", "In order; windows that were told the same stand together.", class_="soft small"),
        element("ol", *(_span(span) for span in spans[:_SPANS_MAX]), class_="spans"),
        element("p", f"… and {plural(left, 'more line')}: weighbridge verify bundle --json has all", class_="soft")
        if left > 0
        else None,
    )


def columns(pieces: Sequence[tuple[float, float, str]], loudest: Sequence[str], seconds: float) -> list[Cell]:
    """``pieces`` of time as cells, no more than a chart has columns: of several in one column, the loudest word."""
    if len(pieces) <= COLUMNS:
        return [Cell(start, end, word) for start, end, word in pieces]
    rank = {word: place for place, word in enumerate(loudest)}
    found: dict[int, str] = {}
    for start, end, word in pieces:
        first = min(COLUMNS - 1, max(0, math.floor(start / seconds * COLUMNS)))
        # What ends where a column begins is not in that column.
        last = min(COLUMNS - 1, max(first, math.ceil(end / seconds * COLUMNS) - 1))
        for column in range(first, last + 1):
            if column not in found or rank[word] < rank[found[column]]:
                found[column] = word
    width = seconds / COLUMNS
    return [Cell(column * width, (column + 1) * width, word) for column, word in sorted(found.items())]


def _cells(view: SessionView) -> list[tuple[float, float, str]]:
    pieces = [(row.start, row.end, row.outcome) for row in view.rows]
    return [(cell.start, cell.end, cell.kind) for cell in columns(pieces, _LOUDEST, view.seconds)]


def _spans(rows: Sequence[Row]) -> list[list[Row]]:
    """Stretches of windows in order that were told the same."""
    spans: list[list[Row]] = []
    for row in rows:
        if spans and _key(spans[-1][-1]) == _key(row) and spans[-1][-1].seq + 1 == row.seq:
            spans[-1].append(row)
        else:
            spans.append([row])
    return spans


def _key(row: Row) -> tuple[str, frozenset[tuple[str, str | None]]]:
    return row.outcome, frozenset((reason.code, reason.device) for reason in row.reasons)


def _span(span: Sequence[Row]) -> Markup:
    """A stretch, with the reasons of its last window."""
    first, last = span[0], span[-1]
    numbers = f"window {first.seq}" if first is last else f"windows {first.seq} to {last.seq}"
    said = OUTCOMES[first.outcome]
    why = reasons(last.reasons, most=_REASONS_MAX) if last.reasons else element("div", said.meaning, class_="soft")
    line = element("div", tag(said), element("b", numbers), f", {elapsed(first.start)} to {elapsed(last.end)}")
    return element("li", line, why)
