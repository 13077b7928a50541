"""``weighbridge report``: the exit status of ``verify bundle``, and a page that says the same."""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import pytest

from corpus.bundle import believed, export, redacted
from corpus.weights import OTHER
from support.pages import Page
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main
from weighbridge.verifier.commands import report
from weighbridge.verifier.commands.bundle import configure_judging

if TYPE_CHECKING:
    from pathlib import Path

    from corpus.arena import Arena
    from weighbridge.verifier.bundle import Bundle


@dataclass
class Desk:
    """A directory with a bundle and its anchors, and what was printed."""

    path: Path
    bundle: Bundle
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str, anchors: bool = True) -> int:
        (self.path / "session.wb").write_bytes(self.bundle.encode())
        believe = ["--anchors", str(self.path / "anchors.json")] if anchors else []
        return main(["report", str(self.path / "session.wb"), *believe, "-o", str(self.output), *arguments])

    @property
    def output(self) -> Path:
        return self.path / "report.html"

    @property
    def page(self) -> Page:
        return Page(self.output.read_bytes())

    def again(self) -> int:
        """What the command says that the page names."""
        command = shlex.split(self.page.one("section", id="again").all("pre")[0].text)
        assert command[:3] == ["weighbridge", "verify", "bundle"]
        return main(command[1:])


@pytest.fixture
def desk(arena: Arena, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    world = arena.settled(3)
    (tmp_path / "anchors.json").write_bytes(believed(world).encode())
    return Desk(tmp_path, export(world), capsys)


def test_an_admitted_session(desk: Desk) -> None:
    assert desk.run() == ExitCode.AFFIRMED
    said = desk.capture.readouterr().out
    assert said.count("\n") == 1
    assert said.startswith("ADMITTED: session ")
    assert " (insecure-emulated hardware, 8 checks left out), so far: " in said
    page = desk.page
    assert page.one("h1").text == "Admitted so far"
    assert "The session was not closed in this file" in page.one("header").text
    text = page.one("body").text
    for told in ("tiny on 2 GPUs", "3 windows, 3 affirmed", "proves nothing about any hardware", "ledger.example/test"):
        assert told in text
    first = desk.output.read_bytes()
    assert desk.run("--json") == ExitCode.AFFIRMED
    document = json.loads(desk.capture.readouterr().out)
    assert (document["schema"], document["outcome"], document["size"]) == (
        "weighbridge/report/v1",
        "admitted",
        len(first),
    )
    assert desk.output.read_bytes() == first
    assert desk.again() == ExitCode.AFFIRMED


def test_a_session_that_is_denied_is_reported_all_the_same(desk: Desk) -> None:
    assert desk.run("--policy", "production") == ExitCode.DENIED
    assert desk.capture.readouterr().out.startswith("DENIED: ")
    assert desk.page.one("h1").text == "Denied"
    assert "Window 0, first refused" in desk.page.one("header").text
    assert desk.again() == ExitCode.DENIED


def test_a_session_that_failed(arena: Arena, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = arena.settled(1)
    world.host.log.load(OTHER)
    world.window()
    (tmp_path / "anchors.json").write_bytes(believed(world).encode())
    desk = Desk(tmp_path, export(world), capsys)
    assert desk.run() == ExitCode.DENIED
    head = desk.page.one("header").text
    assert "Window 1, first refused" in head
    assert "MODEL_UNDECLARED" in head


def test_a_look_from_before_it_was_recorded(desk: Desk) -> None:
    assert desk.run("--at", "2026-06-01T00:00:00Z") == ExitCode.INDETERMINATE
    assert desk.page.one("h1").text == "Recorded later"
    assert "Evidence withheld" not in desk.page.one("body").text
    assert desk.again() == ExitCode.INDETERMINATE


@pytest.mark.parametrize("stranger", [True, False])
def test_a_bundle_that_is_not_verified_shows_nothing(desk: Desk, stranger: bool) -> None:
    desk.output.write_text("of yesterday")
    if not stranger:
        first, second, *rest = desk.bundle.entries
        desk.bundle = replace(desk.bundle, entries=(first, replace(second, proof=second.proof[:-1]), *rest))
    status = desk.run(anchors=not stranger)
    assert status == (ExitCode.NOT_AUTHENTIC if stranger else ExitCode.LEDGER_INCONSISTENT)
    out, err = desk.capture.readouterr()
    code = "CHAIN_UNTRUSTED" if stranger else "LEDGER_PROOF"
    assert out.startswith(f"NOT VERIFIED: {code}; report in {desk.output} (")
    assert err.startswith(f"weighbridge: error: {code}: ")
    page = desk.page
    assert page.one("h1").text == "Not verified"
    assert "tiny" not in page.one("body").text
    assert page.one("section", id="checks").text.count("failed") == 2
    assert desk.run("--json", anchors=not stranger) == status
    out, err = desk.capture.readouterr()
    document = json.loads(out)
    assert (document["schema"], document["code"]) == ("weighbridge/error/v1", code)
    assert (document["exit"], document["report"]) == (status, str(desk.output))
    assert err.startswith(f"weighbridge: error: {code}: ")
    assert desk.again() == status


def test_part_of_a_session(arena: Arena, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = arena.settled(3)
    (tmp_path / "anchors.json").write_bytes(believed(world).encode())
    whole = export(world)
    desk = Desk(tmp_path, export(world, withhold=[whole.entries[1].index]), capsys)
    assert desk.run() == ExitCode.INDETERMINATE
    assert desk.page.one("h1").text == "Evidence withheld"
    assert "1 judgement of this session is withheld" in desk.page.one("section", id="timeline").text
    assert desk.again() == ExitCode.INDETERMINATE
    desk.bundle = redacted(world)
    assert desk.run() == ExitCode.INDETERMINATE
    assert desk.page.one("h1").text == "Evidence withheld"
    assert "tiny" not in desk.page.one("body").text
    tree = desk.page.one("section", id="checks").text
    assert ("failed" in tree, "the bundle is redacted" in tree) == (False, True)
    # What would be judged by is not in the command: nothing is.
    assert desk.run("--policy", "production", "--at", "2027-01-01T00:00:00Z") == ExitCode.INDETERMINATE
    assert "It judges nothing again" in desk.page.one("section", id="again").text
    desk.capture.readouterr()
    assert desk.again() == ExitCode.AFFIRMED
    assert desk.capture.readouterr().out.startswith("RECORDED AS ADMITTED: ")


def test_what_is_no_bundle(desk: Desk) -> None:
    (desk.path / "other").write_bytes(b"<script>")
    assert main(["report", str(desk.path / "other"), "-o", str(desk.output)]) == ExitCode.MALFORMED
    assert desk.page.one("h1").text == "Not verified"


def test_what_else_is_wrong_is_not_laid_to_the_bundle(desk: Desk) -> None:
    desk.output.write_text("of yesterday")
    (desk.path / "bad.json").write_text("{}")
    assert desk.run("--anchors", str(desk.path / "bad.json")) == ExitCode.MALFORMED
    assert desk.run("--anchors", str(desk.path / "absent.json")) == ExitCode.ENVIRONMENT
    assert main(["report", str(desk.path / "absent.wb"), "-o", str(desk.output)]) == ExitCode.ENVIRONMENT
    assert desk.run("--models", "set") == ExitCode.USAGE
    assert desk.output.read_text() == "of yesterday"
    assert desk.run("-o", str(desk.path / "no" / "where.html")) == ExitCode.USAGE


def test_the_bundle_is_not_written_over(desk: Desk) -> None:
    assert desk.run() == ExitCode.AFFIRMED
    before = (desk.path / "session.wb").read_bytes()
    (desk.path / "link.html").symlink_to(desk.path / "session.wb")
    assert main(["report", str(desk.path / "session.wb"), "-o", str(desk.path / "link.html")]) == ExitCode.USAGE
    assert "names the bundle itself" in desk.capture.readouterr().err
    assert (desk.path / "session.wb").read_bytes() == before


_EVERY: Final = (
    "session.wb --anchors one --anchors two --policy production --foreign nvidia:a --foreign-v0 nvidia:b "
    "--foreign-values c --engine opa:other --reference r --models m --hosts h --collateral store "
    "--at 2026-06-01T12:00:00Z"
)


def test_the_command_names_all_that_was_given() -> None:
    """What is left out of it would verify something else."""
    parser = argparse.ArgumentParser()
    configure_judging(parser)
    given = parser.parse_args(_EVERY.split())
    assert None not in vars(given).values()
    assert parser.parse_args(report.command_of(given)[3:]) == given
    assert report.command_of(parser.parse_args(["a.wb"])) == ("weighbridge", "verify", "bundle", "a.wb")
    told = "session.wb --records-only --anchors one --anchors two --at 2026-06-01T12:00:00Z"
    assert report.command_of(given, records_only=True)[3:] == tuple(told.split())
