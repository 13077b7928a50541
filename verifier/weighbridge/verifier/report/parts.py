"""Pieces that several sections use: a word with its mark, lists of facts, tables, times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.verifier.report.markup import Child, Markup, element
from weighbridge.verifier.report.words import BY_CODE, plural, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from weighbridge.verifier.report.view import Reason
    from weighbridge.verifier.report.words import Said, Tone

__all__ = ["Cells", "facts", "hexadecimal", "icon", "reasons", "section", "shortened", "table", "tag", "utc"]

# A mark for each tone, so that no colour is needed to tell them apart.
_ICONS: Final[dict[Tone, str]] = {
    "good": "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Zm3.7 5.2-4.4 5a1 1 0 0 1-1.5 0L3.9 9.2l1.5-1.3 1.2 1.3 3.6-4.2Z",
    "bad": "M5 1h6l4 4v6l-4 4H5l-4-4V5Zm.7 3.3L4.3 5.7 6.6 8l-2.3 2.3 1.4 1.4L8 9.4l2.3 2.3 1.4-1.4L9.4 8l2.3-2.3-1.4"
    "-1.4L8 6.6Z",
    "wait": "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1ZM7 4h2v3.6l2.6 1.5-1 1.7L7 8.8Z",
    "held": "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1ZM5.5 5H7v6H5.5ZM9 5h1.5v6H9Z",
    "none": "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Zm0 2a5 5 0 1 1 0 10A5 5 0 0 1 8 3ZM5 7h6v2H5Z",
}
_SHORT: Final = 12

Cells = tuple[Child, ...]


def icon(tone: Tone) -> Markup:
    """The mark of ``tone``; the word beside it says the same."""
    path = element("path", d=_ICONS[tone], fill="currentColor", fill_rule="evenodd")
    return element("svg", path, viewBox="0 0 16 16", width=16, height=16, aria_hidden="true", focusable="false")


def tag(said: Said) -> Markup:
    """A word with its mark, in its colour."""
    return element("span", icon(said.tone), said.word, class_=f"tag t-{said.tone}", title=said.meaning)


def section(name: str, title: str, *children: Child) -> Markup:
    """A section of the page, which its heading names."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *children, id=name, aria_labelledby=f"{name}-title")


def facts(rows: Iterable[tuple[str, Child]]) -> Markup:
    """Names and what they are; rows without a value are left out."""
    parts: list[Child] = []
    for name, value in rows:
        if value is not None and value != "":
            parts += [element("dt", name), element("dd", value)]
    return element("dl", *parts, class_="facts")


def table(caption: str, head: Sequence[str], rows: Iterable[Cells], *, numbers: frozenset[int] = frozenset()) -> Markup:
    """A table, which scrolls by itself where the screen is narrow; ``numbers`` are the columns of numbers."""

    def classed(column: int) -> str | None:
        return "number" if column in numbers else None

    top = element("tr", *(element("th", text, scope="col", class_=classed(n)) for n, text in enumerate(head)))
    body = [element("tr", *(element("td", cell, class_=classed(n)) for n, cell in enumerate(row))) for row in rows]
    inner = element("table", element("caption", caption), element("thead", top), element("tbody", *body))
    # Whoever has no mouse scrolls it by keyboard, so it can have the focus.
    return element("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def hexadecimal(text: str) -> Markup:
    """A digest or another number that people compare, in full."""
    return element("code", text, class_="hex")


def shortened(text: str) -> str:
    """A digest by its first digits."""
    return f"{text[:_SHORT]}…" if len(text) > _SHORT else text


def utc(at: datetime) -> str:
    """A time as people read it."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def reasons(found: Sequence[Reason], *, most: int) -> Markup:
    """Why something was not affirmed: by what it comes to, each once, with what was said of it and what to do."""
    by_code: dict[str, list[Reason]] = {}
    for reason in found:
        by_code.setdefault(reason.code, []).append(reason)
    items: list[Child] = []
    told = 0
    for code, alike in by_code.items():
        shown = alike[: max(0, most - told)]
        told += len(shown)
        if not shown:
            continue
        plain = BY_CODE.get(code)
        lines = [element("div", _told(reason)) for reason in shown]
        hints = dict.fromkeys(reason.hint for reason in shown if reason.hint)
        items.append(
            element(
                "li",
                element("b", plain, " ") if plain else None,
                element("code", code, class_="soft"),
                element("div", *lines, class_="said"),
                *(element("div", sentence(hint), class_="soft small") for hint in hints),
            )
        )
    left = len(found) - told
    more = element("li", f"and {plural(left, 'other reason')}") if left else None
    return element("ul", *items, more, class_="reasons")


def _told(reason: Reason) -> str:
    return sentence(reason.message) if reason.device is None else f"GPU {shortened(reason.device)}: {reason.message}"
