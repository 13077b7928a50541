"""The verdict, first: in one word, in one sentence, and what it does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, Indeterminate
from weighbridge.verifier.report.markup import Child, Markup, element
from weighbridge.verifier.report.parts import facts, hexadecimal, icon, reasons, utc
from weighbridge.verifier.report.scale import span_text
from weighbridge.verifier.report.words import (
    EMULATED_ANSWERED,
    FAILED,
    HEADINGS,
    IN_SHORT,
    INCOMPLETE,
    LATER,
    OUTCOMES,
    PLAIN,
    UNCLOSED,
    WHO_ANSWERED,
    joined_with_and,
    plural,
    why_it_holds,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.verifier.report.view import Failure, Row, SessionView, Standing
    from weighbridge.verifier.report.words import Said, Tone

__all__ = ["failed", "failed_word", "heading", "in_plain_words"]

_REASONS_MAX: Final = 2
_LOOKS: Final[Mapping[Tone, Standing]] = {"bad": "denied", "held": "withheld", "wait": "indeterminate"}
_LINKS: Final = (
    ("where", "What ran where"),
    ("timeline", "Window by window"),
    ("physical", "Power, heat and clocks"),
    ("checks", "Every check"),
    ("limits", "What this does not prove"),
    ("again", "Check it yourself"),
    ("words", "Words"),
)


def heading(view: SessionView) -> Markup:
    """The page's head: the verdict on the session."""
    said = HEADINGS[view.standing]
    so_far = view.standing == "admitted" and not view.closed
    title = element("h1", icon(said.tone), said.word + (" so far" if so_far else ""))
    on_fakes = element("b", "On emulated hardware. ") if view.emulated else None
    lead = element("p", on_fakes, said.meaning, class_="lead")
    unclosed = element("p", element("b", "Not closed. "), UNCLOSED) if so_far else None
    verdict = element("div", title, lead, unclosed, *_because(view), _left_out(view), class_=f"verdict {view.standing}")
    links = element("ul", *(element("li", element("a", text, href=f"#{name}")) for name, text in _LINKS))
    return element(
        "header",
        _kicker("Session report", view.session),
        verdict,
        _emulated() if view.emulated else None,
        element("p", element("b", "In short, what it is not: "), IN_SHORT, class_="limits-short"),
        element("nav", links, aria_label="Parts of this report"),
    )


def failed(failure: Failure) -> Markup:
    """The whole of the page where the bundle was not verified: why, and nothing that the bundle says."""
    error = failure.error
    said = failed_word(failure)
    look = _LOOKS[said.tone]
    where = element("code", error.where) if error.where else None
    return element(
        "header",
        _kicker("Session report", ""),
        element(
            "div",
            element("h1", icon(said.tone), said.word),
            element("p", said.meaning, class_="lead"),
            element("p", element("code", error.code.value), ": ", error.message),
            facts(
                [
                    ("Where", where),
                    ("Expected", _value(error.expected)),
                    ("Found", _value(error.got)),
                    ("What to do", error.hint or None),
                    ("Digest of the file", hexadecimal(failure.again.bundle)),
                ]
            ),
            class_=f"verdict {look}",
        ),
    )


def failed_word(failure: Failure) -> Said:
    """What is said of the file as a whole."""
    if failure.error.code is Code.BUNDLE_FUTURE:
        return LATER
    return INCOMPLETE if isinstance(failure.error, Indeterminate) else FAILED


def in_plain_words(view: SessionView) -> Markup:
    """What any of this is, to somebody who has never heard of it."""
    again = sum(row.outcome != "recorded" for row in view.rows)
    said = (
        *PLAIN,
        ("Who answered", EMULATED_ANSWERED if view.emulated else WHO_ANSWERED),
        ("Why it still holds", why_it_holds(windows=len(view.rows), again=again)),
    )
    items = [element("li", element("b", title), text) for title, text in said]
    return element(
        "section",
        element("h2", "In plain words", id="plain-title"),
        element("ul", *items, class_="plain"),
        id="plain",
        aria_labelledby="plain-title",
    )


def _kicker(title: str, session: str) -> Markup:
    name = element("span", element("strong", "Weighbridge"), f" · {title}")
    return element("p", name, element("span", "session ", hexadecimal(session)) if session else None, class_="kicker")


def _emulated() -> Markup:
    text = (
        "The security chip or the GPUs of this session are emulated in software (insecure-emulated). The report shows "
        "how Weighbridge works; it proves nothing about any hardware."
    )
    return element("p", element("b", "Emulated devices. "), text, class_="note")


def _left_out(view: SessionView) -> Markup | None:
    """How many checks policies left out, and where they are told."""
    names = {check for check, _ in view.unchecked}
    told = f"{plural(len(names), 'check was', 'checks were')} left out"
    return element("p", element("a", told, href="#limits"), ".") if names else None


def _because(view: SessionView) -> list[Child]:
    """In numbers, and for a refusal its first reasons."""
    told = joined_with_and([f"{count:,} {OUTCOMES[outcome].word}" for outcome, count in view.counts] or [""])
    model = view.model_name or "the declared model"
    if not view.rows:
        return [element("p", f"The host was enrolled on {utc(view.began)}, and no window of it is here.")]
    lines: list[Child] = [
        element(
            "p",
            element("b", model),
            f" on {plural(len(view.gpus), 'GPU')}, {utc(view.began)}, for {span_text(view.seconds)}: "
            f"{plural(len(view.rows), 'window')}, {told}.",
        )
    ]
    speaks = _speaking(view)
    if speaks is not None:
        what = "first refused" if speaks.outcome == "denied" else f"the last, {OUTCOMES[speaks.outcome].word}"
        lines += [element("p", f"Window {speaks.seq}, {what}:"), reasons(speaks.reasons, most=_REASONS_MAX)]
    return lines


def _speaking(view: SessionView) -> Row | None:
    """The window for whose sake the session is not admitted."""
    if view.standing == "admitted":
        return None
    denied = next((row for row in view.rows if row.outcome == "denied"), None)
    last = view.rows[-1]
    return denied or (last if last.reasons else None)


def _value(value: str | None) -> Child:
    return None if value is None else hexadecimal(value)
