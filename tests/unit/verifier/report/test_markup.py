"""Text is text: whatever it is, a page shows it and nothing becomes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.pages import Page
from weighbridge.verifier.report.markup import Markup, element, escape, joined, trusted


def seen(text: str) -> str:
    """What is to be seen of ``text``: the rest is shown by number."""
    return "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in text)


@given(st.text(st.characters()))
def test_any_text_is_shown_and_nothing_else(text: str) -> None:
    page = Page(element("p", text, title=text).html.encode())
    assert [item.name for item in page.all()] == ["p"]
    assert page.one("p").text == seen(text)
    assert page.one("p").attributes == {"title": seen(text)}


def test_what_turns_a_line_around_is_shown_by_its_number() -> None:
    assert escape("a\N{RIGHT-TO-LEFT OVERRIDE}b\N{NULL}\n") == "a\\u{202e}b\\u{0}\\u{a}"
    assert escape("<&>\"'") == "&lt;&amp;&gt;&quot;&#39;"


def test_elements_nest() -> None:
    inside = joined(["a", element("b", "c"), None], between="&")
    made = element("p", inside, element("br"), class_="x", aria_label="y", title=None, width=3)
    assert made.html == '<p class="x" aria-label="y" width="3">a&amp;<b>c</b>&amp;<br></p>'
    assert element("style", trusted("a>b")).html == "<style>a>b</style>"


@pytest.mark.parametrize("name", ["", "a b", "a>", "1a", "é"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        element(name)
    with pytest.raises(ValueError, match="no name"):
        element("p", **{name: "x"})


def test_what_has_no_content_takes_none() -> None:
    with pytest.raises(ValueError, match="no content"):
        element("br", "x")


def test_markup_is_no_text() -> None:
    with pytest.raises(TypeError, match="no text"):
        f"{Markup('<b>')}"
