"""Reports as readers see them: read strictly, and shown by each browser that is installed here."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import pytest

from support.browser import browsers, opened
from support.pages import Page
from support.views import hostile, session
from weighbridge.verifier.report.page import render

if TYPE_CHECKING:
    from pathlib import Path

    from support.browser import Browser

# Also without a browser: what a strict reader finds is what a browser must find.
READERS: Final = ("a strict reader", *browsers())
_PAGES: Final = (render(session(40, 8)), render(hostile()))
_HEADINGS: Final = "[...document.querySelectorAll('h1,h2')].map(item => item.textContent)"


_UNSEEN: Final = (
    "[...document.querySelectorAll('figure')].filter(item => item.getBoundingClientRect().height < 10).length"
)


@pytest.mark.parametrize("reader", READERS)
def test_a_page_is_shown_whole(reader: str, tmp_path: Path) -> None:
    shown = [(tmp_path / f"{number}.html", page) for number, page in enumerate(_PAGES)]
    for path, data in shown:
        path.write_bytes(data)
        headings = _headings(data)
        assert headings[0] in {"Admitted", "Denied"}
        assert "What this does not prove" in headings
    if reader in browsers():
        with opened(reader) as browser:
            for path, data in shown:
                _look(browser, path, _headings(data))


def _headings(data: bytes) -> list[str]:
    return [item.text for item in Page(data).all() if item.name in {"h1", "h2"}]


def _look(browser: Browser, path: Path, headings: list[str]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for width, scheme in ((360, "light"), (360, "dark"), (1280, "light")):
        browser.open(path, width=width, scheme=scheme)
        assert browser.of(_HEADINGS) == headings
        # It fits: nothing is cut off, and nobody scrolls sideways.
        assert browser.of("document.documentElement.scrollWidth") <= width
        assert browser.of("getComputedStyle(document.querySelector('section')).borderTopStyle") == "solid"
        seen[scheme] = browser.of(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        asked = [
            event["params"]["request"]["url"]
            for event in browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        assert asked == [path.as_uri()]
        # Also what a policy of the page refuses is told there.
        assert not [event for event in browser.events if event.get("method") == "Log.entryAdded"]
    assert seen["light"] != seen["dark"]
    _told(browser, headings)
    _by_keyboard(browser)
    browser.open(path, width=700, scheme="dark", media="print")
    assert browser.of("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.of(_UNSEEN) == 0
    printed = base64.b64decode(browser.ask("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF-")


def _told(browser: Browser, headings: list[str]) -> None:
    """What a screen reader is told: every heading, and of every chart its words."""
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    told = [(node["role"]["value"], node["name"]["value"]) for node in nodes if "name" in node and not node["ignored"]]
    names = {name for role, name in told if role == "heading"}
    # Names are told with their spaces made one.
    assert {" ".join(heading.split()) for heading in headings} <= names
    pictures = [name for role, name in told if role == "image"]
    assert pictures
    assert all(len(name) > 10 for name in pictures)


def _by_keyboard(browser: Browser) -> None:
    """Tab comes to what is folded, and Enter unfolds it; the focus is seen."""
    for _ in range(60):
        browser.press("Tab")
        if browser.of("document.activeElement.tagName") == "SUMMARY":
            break
    assert browser.of("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before = browser.of("document.activeElement.parentElement.open")
    browser.press("Enter")
    assert browser.of("document.activeElement.parentElement.open") is not before
