"""What is not proven, how to verify all of it again, and what the words mean."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.report.markup import Child, Markup, element, joined
from weighbridge.verifier.report.parts import facts, hexadecimal, section
from weighbridge.verifier.report.words import GLOSSARY, OPEN_ENDS, plural

if TYPE_CHECKING:
    from weighbridge.verifier.report.view import Again, SessionView

__all__ = ["again", "limits", "verify_again", "words"]

_SAME: Final = (
    "It says the same as this page, or the page is not of this bundle. Exit status: 0 admitted, 3 malformed, 4 not "
    "authentic, 5 denied, 6 not decided, 7 the ledger contradicts itself."
)
_TOLD: Final = (
    "It judges nothing again: it says what the verifier recorded, by the verifier's word, once that is shown to be in "
    "the ledger. Exit status: 0 recorded as admitted, 3 malformed, 4 not authentic, 5 recorded as denied, 6 not "
    "decided or not all of it told, 7 the ledger contradicts itself."
)


def limits(view: SessionView) -> Markup:
    """What this does not prove."""
    lines = [element("li", _plainly(line), element("span", line, class_="soft")) for line in view.not_proven]
    reasons: dict[str, list[str]] = {}
    for check, reason in view.unchecked:
        reasons.setdefault(reason, []).append(check)
    left_out = [
        element("li", element("b", f"Left out: {', '.join(checks)}. "), f"The reason that was written for it: {reason}")
        for reason, checks in reasons.items()
    ]
    return section(
        "limits",
        "What this does not prove",
        element("p", "A yes is worth as much as one knows its limits. These hold for this session:"),
        element("ul", *left_out, *lines, class_="open-ends"),
        element("h3", "What still rests on the verifier's word"),
        element("p", view.rests_on),
    )


def again(view: SessionView) -> Markup:
    """How to verify all of it again."""
    judged = [
        joined([hexadecimal(digest), element("br"), name]) if name else hexadecimal(digest)
        for digest, name in view.policies
    ]
    rows: list[tuple[str, Child]] = [
        *_of_file(view.again),
        ("Session", hexadecimal(view.session)),
        ("Model", hexadecimal(view.model)),
        ("Judged by", ", ".join(view.judged_by)),
        *(("Policy", item) for item in judged),
        *(("Reference values", hexadecimal(digest)) for digest in view.references),
    ]
    return section(
        "again",
        "Check it yourself",
        element(
            "p",
            "This page is a summary, and a page can be edited. The bundle cannot: whoever has it and the trust anchors "
            "makes every verdict again, with no network, in seconds, or years from now.",
        ),
        verify_again(view.again),
        facts(rows),
        element("h3", "The ledger's checkpoint"),
        element(
            "p",
            f"Signed by the ledger{_witnesses(view)}. Whoever kept an earlier or a later one can demand that it fits.",
        ),
        element("pre", *_lines(view.checkpoint), tabindex=0),
    )


def verify_again(of: Again) -> Markup:
    """The command, and what it must say."""
    text = _TOLD if of.records_only else _SAME
    return joined([element("pre", element("code", shlex.join(of.command)), tabindex=0), element("p", text)])


def words() -> Markup:
    """The glossary."""
    pairs: list[Child] = []
    for word, meaning in GLOSSARY:
        pairs += [element("dt", word), element("dd", meaning)]
    return section("words", "Words", element("dl", *pairs, class_="words"))


def _of_file(of: Again) -> list[tuple[str, Child]]:
    return [
        ("Digest of the file", hexadecimal(of.bundle)),
        ("Size of the file", plural(of.size, "byte")),
        ("Made by", f"weighbridge {of.version}"),
    ]


def _witnesses(view: SessionView) -> str:
    return f", and cosigned by its witnesses {', '.join(view.witnesses)}" if view.witnesses else ""


def _lines(text: str) -> list[Child]:
    """The lines of ``text``: a line break is the one character that is kept unseen."""
    return [item for line in text.splitlines() for item in (line, element("br"))]


def _plainly(line: str) -> Child:
    """What a line of the product means, before the line itself; nothing for one that has no plainer words."""
    for beginning, plain in OPEN_ENDS:
        if line.startswith(beginning):
            return joined([plain, element("br")])
    return None
