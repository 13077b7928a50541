"""The page: its sections in their order, its style, and the rule by which a browser loads and runs nothing else."""

from __future__ import annotations

import base64
from importlib import resources
from typing import TYPE_CHECKING, Final

from weighbridge.proto.digest import sha256
from weighbridge.verifier.report import head, physical, place, proof, timeline, tree
from weighbridge.verifier.report.markup import Markup, element, joined, trusted
from weighbridge.verifier.report.parts import section
from weighbridge.verifier.report.words import HEADINGS

if TYPE_CHECKING:
    from weighbridge.verifier.report.view import Failure, SessionView

__all__ = ["render", "render_failure"]

_HERE: Final = "weighbridge.verifier.report"
_STYLE: Final = "page.css"
_DOCTYPE: Final = "<!DOCTYPE html>\n"


def render(view: SessionView) -> bytes:
    """The report of a session as the bytes of an HTML file."""
    body = joined(
        [
            element("a", "To the verdict", href="#top", class_="skip"),
            element("div", head.heading(view), id="top"),
            element(
                "main",
                head.in_plain_words(view),
                place.where(view),
                timeline.timeline(view),
                physical.physical(view),
                tree.checks(view.checks),
                proof.limits(view),
                proof.again(view),
                proof.words(),
            ),
            _footer(view.again.version),
        ]
    )
    on_fakes = " (insecure-emulated hardware)" if view.emulated else ""
    return _page(f"{HEADINGS[view.standing].word}: session {view.session[:12]}{on_fakes}", body)


def render_failure(failure: Failure) -> bytes:
    """The page of a bundle that was not verified: that, and nothing that the bundle says."""
    body = joined(
        [
            element("div", head.failed(failure), id="top"),
            element(
                "main",
                tree.checks(failure.checks, title="How far it came"),
                section("again", "Check it yourself", proof.verify_again(failure.again)),
            ),
            _footer(failure.again.version),
        ]
    )
    return _page(head.failed_word(failure).word, body)


def _page(title: str, body: Markup) -> bytes:
    style = resources.files(_HERE).joinpath(_STYLE).read_text(encoding="utf-8")
    # Nothing may be loaded or run, and no style but this one: whatever a bundle might smuggle in stays text.
    policy = (
        f"default-src 'none'; style-src 'sha256-{base64.b64encode(sha256(style.encode())).decode()}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name_="referrer", content="no-referrer"),
            element("title", f"{title} · Weighbridge"),
            element("style", trusted(style)),
        ),
        element("body", body),
        lang="en",
    )
    return (_DOCTYPE + page.html + "\n").encode()


def _footer(version: str) -> Markup:
    text = f"Made by weighbridge {version} from the bundle alone. This page loads nothing and runs nothing."
    return element("footer", element("p", text))
