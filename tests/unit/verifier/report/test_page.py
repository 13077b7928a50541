"""The page: its words, its structure, and that nothing of a bundle is ever more than text in it."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Final, get_args

import pytest

from support.pages import Element, Page
from support.views import AGAIN, HOSTILE, gpu, hostile, row, session
from weighbridge.proto.errors import Code, Indeterminate, NotAuthentic
from weighbridge.verifier.appraisal import NOT_PROVEN, not_proven
from weighbridge.verifier.check_tree import RESULTS, Check
from weighbridge.verifier.report import tree
from weighbridge.verifier.report.page import render, render_failure
from weighbridge.verifier.report.view import SHOWN, Failure, Reason, SessionView, Standing
from weighbridge.verifier.report.words import BY_CODE, HEADINGS, OPEN_ENDS, OUTCOMES, PROVENANCES, RECORD, sentence
from weighbridge.verifier.telemetry.state import WORDS
from weighbridge.verifier.tpm.ak import Provenance

if TYPE_CHECKING:
    from collections.abc import Callable

STYLE: Final = resources.files("weighbridge.verifier.report").joinpath("page.css").read_text(encoding="utf-8")
REASON: Final = Reason("WEIGHTS_MISMATCH", "tensor changed in model.safetensors", "measure again", None)


def denied() -> SessionView:
    return replace(
        session(4), standing="denied", rows=(row(0), row(1, "held"), row(2, "indeterminate"), row(3, "denied", REASON))
    )


def withheld() -> SessionView:
    return replace(
        session(1), standing="withheld", withheld=2, rows=(row(0, "recorded"),), gpus=(replace(gpu(0, 0), traces={}),)
    )


def undecided() -> SessionView:
    return replace(session(1), standing="indeterminate", rows=(row(0, "indeterminate", REASON),))


def without_windows() -> SessionView:
    return replace(session(0), standing="indeterminate", seconds=10, gpus=(), devices=(), model_name="", adapters=())


def contradicted() -> SessionView:
    return replace(session(4), gpus=(gpu(0, 4), gpu(1, 4, "out_of_baseline")), emulated=True, detail="")


def failure() -> Failure:
    error = NotAuthentic(
        Code.CHAIN_UNTRUSTED, "the ledger is not trusted", where="checkpoint", got=HOSTILE[0], hint="do"
    )
    return Failure(error=error, checks=(Check("ledger", "failed", "CHAIN_UNTRUSTED"),), again=AGAIN)


def incomplete() -> Failure:
    error = Indeterminate(Code.EVIDENCE_ABSENT, "the bundle is redacted", where="bundle")
    return replace(failure(), error=error)


PAGES: Final[dict[str, Callable[[], bytes]]] = {
    "admitted": lambda: render(session()),
    "denied": lambda: render(denied()),
    "undecided": lambda: render(undecided()),
    "withheld": lambda: render(withheld()),
    "no windows": lambda: render(without_windows()),
    "contradicted": lambda: render(contradicted()),
    "hostile": lambda: render(hostile()),
    "failed": lambda: render_failure(failure()),
    "incomplete": lambda: render_failure(incomplete()),
}


@pytest.fixture(params=PAGES, scope="module")
def page(request: pytest.FixtureRequest) -> Page:
    return Page(PAGES[request.param]())


def test_nothing_is_loaded_and_nothing_runs(page: Page) -> None:
    names = {item.name for item in page.all()}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "audio", "video", "use"}
    for item in page.all():
        assert not [name for name in item.attributes if name.startswith("on") or name in {"style", "src", "srcset"}]
        if "href" in item.attributes:
            assert item.attributes["href"].startswith("#")
    style = page.one("style").text
    assert style == STYLE
    assert not re.search(r"url\(|@import|https?:|<", style)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    # Whatever stands before a policy is not held to it.
    first, second, *_ = page.all("meta")
    assert first.attributes == {"charset": "utf-8"}
    assert second.attributes["http-equiv"] == "Content-Security-Policy"


def test_everybody_can_find_their_way(page: Page) -> None:
    assert page.one("html").attributes == {"lang": "en"}
    assert page.one("meta", name="viewport").attributes["content"] == "width=device-width, initial-scale=1"
    levels = [int(item.name[1]) for item in page.all() if re.fullmatch("h[1-6]", item.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.all("main")) == 1
    ids = [item.attributes["id"] for item in page.all() if "id" in item.attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.attributes["href"][1:] in ids
    for item in page.all("section"):
        assert item.attributes["aria-labelledby"] in ids
    for item in page.all("table"):
        assert item.all("caption")
        assert {cell.attributes["scope"] for cell in item.all("th")} == {"col"}
        assert item.parent is not None
        assert item.parent.attributes["tabindex"] == "0"


def test_every_picture_is_told_in_words(page: Page) -> None:
    for item in page.all("svg"):
        if item.parent is not None and item.parent.name == "svg":
            continue
        hidden = item.attributes.get("aria-hidden") == "true"
        assert hidden != (item.attributes.get("role") == "img")
        if not hidden:
            assert len(item.attributes["aria-label"]) > 10


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (session, "Admitted"),
        (denied, "Denied"),
        (undecided, "Not decided"),
        (withheld, "Evidence withheld"),
        (without_windows, "Not decided"),
        (hostile, "Denied"),
    ],
)
def test_the_verdict_comes_first(made: Callable[[], SessionView], word: str) -> None:
    shown = Page(render(made()))
    assert shown.one("h1").text == word
    assert shown.one("title").text.startswith(f"{word}: session ")
    # Before it only the link for keyboards, and which session it is about.
    before = shown.one("body").text.partition(word)[0]
    assert before.startswith("To the verdictWeighbridge · Session reportsession ")
    assert shown.all("code")[0].text == before.rpartition("reportsession ")[2]


def test_a_denial_says_why_and_what_to_do() -> None:
    head = Page(render(denied())).one("header").text
    assert "Window 3, first refused" in head
    assert BY_CODE["WEIGHTS_MISMATCH"] in head
    assert "Tensor changed in model.safetensors" in head
    assert "Measure again" in head
    assert "1 affirmed, 1 held, 1 not decided and 1 denied" in head


def test_of_a_bundle_that_failed_nothing_is_shown() -> None:
    shown = Page(render_failure(failure()))
    assert shown.one("h1").text == "Not verified"
    assert shown.one("title").text.startswith("Not verified")
    text = shown.one("body").text
    for said in ("CHAIN_UNTRUSTED", "the ledger is not trusted", AGAIN.bundle, "weighbridge verify bundle 'a b.wb'"):
        assert said in text
    assert {item.attributes.get("id") for item in shown.all("section")} == {"checks", "again"}


def test_where_evidence_is_withheld_it_says_so() -> None:
    shown = Page(render_failure(incomplete()))
    assert shown.one("h1").text == "Evidence withheld"
    assert "--records-only" in shown.one("header").text
    page = Page(render(withheld()))
    assert "2 judgements of this session are withheld" in page.one("section", id="timeline").text
    assert "not judged again" in page.one("ol").text
    recorded = replace(withheld(), rows=(row(0, "recorded", Reason("recorded", "recorded as held", "", None)),))
    assert "Window 0, the last, not judged again:" in Page(render(recorded)).one("header").text


def test_what_was_recorded_later_is_not_called_withheld() -> None:
    error = Indeterminate(Code.BUNDLE_FUTURE, "recorded after the time from which you look", where="bundle.entries")
    shown = Page(render_failure(replace(failure(), error=error)))
    assert shown.one("h1").text == "Recorded later"
    assert shown.one("title").text.startswith("Recorded later")
    assert "--records-only" not in shown.one("header").text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prove it; or, if you accept that, write it", "Prove it; or, if you accept that, write it"),
        ("gpu_revocation is not proven", "gpu_revocation is not proven"),
        ("model.safetensors: changed", "model.safetensors: changed"),
        ("weighbridge collateral fetch gets it", "weighbridge collateral fetch gets it"),
        ("unused", "Unused"),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_and_a_name_as_it_is(text: str, told: str) -> None:
    assert sentence(text) == told


def test_names_stay_names() -> None:
    data = render(hostile())
    shown = Page(data)
    text = shown.one("body").text
    for name in HOSTILE:
        visible = "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in name)
        assert visible in text
    for char in ("\N{RIGHT-TO-LEFT OVERRIDE}", "\N{NULL}", "\N{ESCAPE}"):
        assert char not in data.decode()


def test_the_same_session_is_the_same_page() -> None:
    assert render(session()) == render(session())


def test_an_hour_of_eight_gpus_is_a_small_page() -> None:
    data = render(session(360, 8))
    assert len(data) < 2_000_000
    many = [replace(row(seq), outcome="held" if seq % 2 else "affirmed") for seq in range(8_640)]
    day = replace(session(360, 8), seconds=86_400, rows=tuple(many), gpus=tuple([gpu(0, 8_640)] * 8))
    assert len(render(day)) < 2_000_000


def test_what_is_alike_is_told_once() -> None:
    shown = Page(render(denied()))
    spans = [item.text for item in shown.one("ol").children if isinstance(item, Element)]
    assert len(spans) == 4
    assert len(Page(render(session(50))).one("ol").children) == 1
    assert "windows 0 to 49" in Page(render(session(50))).one("ol").text


def test_emulated_devices_are_called_so() -> None:
    fakes = Page(render(contradicted()))
    assert "proves nothing about any hardware" in fakes.one("header").text
    assert "AdmittedOn emulated hardware. " in fakes.one("header").text
    assert " (insecure-emulated hardware)" in fakes.one("title").text
    assert "emulated" not in Page(render(session())).one("header").text


def test_how_many_checks_were_left_out_is_told_beside_the_verdict() -> None:
    two = (("host_binding", "not this year"), ("host_binding", "nor the next"), ("secure_boot", "an old board"))
    assert "2 checks were left out." in Page(render(replace(session(), unchecked=two))).one("header").text
    assert "1 check was left out." in Page(render(replace(session(), unchecked=two[:1]))).one("header").text
    assert "left out" not in Page(render(replace(session(), unchecked=()))).one("header").text


def test_who_contradicts_a_baseline_is_opened() -> None:
    def opened(view: SessionView) -> list[bool]:
        return ["open" in item.attributes for item in Page(render(view)).one("section", id="physical").all("details")]

    assert opened(session(4, 3)) == [True, False, False]
    assert opened(replace(session(4, 3), gpus=(gpu(0, 4), gpu(1, 4), gpu(2, 4, "implausible")))) == [True, False, True]


def test_a_failed_check_is_opened() -> None:
    inner = Check("inner", "passed", "", "", (Check("leaf", "failed", "no"),))
    drawn = tree.checks(
        (Check("outer", "passed", "", "", (inner,)), Check("good", "passed", "", "", (Check("x", "passed", ""),)))
    )
    details = Page(drawn.html.encode()).all("details")
    assert ["open" in item.attributes for item in details] == [True, True, False]


def test_there_are_words_for_all_that_can_be_said() -> None:
    assert set(HEADINGS) == set(get_args(Standing))
    assert set(OUTCOMES) == set(SHOWN)
    assert set(RECORD) == set(WORDS)
    assert set(PROVENANCES) == set(get_args(Provenance))
    assert set(BY_CODE) <= {code.value for code in Code}
    every = [Check(result, result, "") for result in RESULTS]
    assert tree.checks(every).html


def test_every_limit_has_its_plain_words() -> None:
    class Key:
        unproven = "its own"

    lines = [*NOT_PROVEN, not_proven(Key(), None)[1]]  # type: ignore[arg-type] # only that word is read
    for line in lines:
        assert len([plain for beginning, plain in OPEN_ENDS if line.startswith(beginning)]) == 1
    assert len(lines) == len(OPEN_ENDS)
    assert "they can contradict and corroborate; they can never vouch for weights" in render(session()).decode()


def colours(part: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6,8})", part))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_every_text_can_be_read(scheme: str) -> None:
    """WCAG 2.2 §1.4.3 (texts) and §1.4.11 (marks)."""
    blocks = re.findall(r":root \{(.*?)\n *\}", STYLE, re.DOTALL)
    assert len(blocks) == 3
    found = colours(blocks[["light", "dark", "print"].index(scheme)])

    def ratio(one: str, other: str) -> float:
        low, high = sorted((luminance(found[one]), luminance(found[other])))
        return (high + 0.05) / (low + 0.05)

    for ground in ("ground", "paper"):
        for ink in ("ink", "soft", "good", "bad", "wait", "held", "link"):
            assert ratio(ink, ground) >= 4.5, (ink, ground)
    for tone in ("good", "bad", "wait"):
        for ink in (tone, "ink", "soft"):
            assert ratio(ink, f"{tone}-tint") >= 4.5, (ink, tone)
    for mark in ("data", "second", "bad"):
        assert ratio(mark, "paper") >= 3


def test_plain_words_claim_no_more_than_was_judged_again_and_no_makers_for_emulated_keys() -> None:
    def text(view: SessionView) -> str:
        return Page(render(view)).one("body").text

    assert "every one of them again" in text(session(4))
    assert "every one of them again" not in text(withheld())
    assert "the other verdicts are the verifier's word" in text(withheld())
    assert "makers vouch" in text(session(4))
    emulated = text(replace(session(4), platform="insecure-emulated", provenance="ek-credential", emulated=True))
    assert "makers vouch" not in emulated
    assert "manufacturer certified" not in emulated
    assert "a software TPM, certified by a test authority" in emulated
