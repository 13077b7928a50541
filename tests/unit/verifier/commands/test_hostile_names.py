"""What a file's author wrote into it says nothing to a terminal, ends no line of ours, and is no markup."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from corpus.bundle import believed, export
from support.logs import KEY, Host, honest, write
from support.pages import Page
from weighbridge.verifier.cli import main
from weighbridge.verifier.commands.text import line, obeyed

if TYPE_CHECKING:
    from pathlib import Path

    from corpus.arena import Arena
    from weighbridge.policy.values.reference import Reference

HOSTILE: Final = "<script>x</script>\x1b[2J\u202e\nPASS all good"


@pytest.fixture
def files(arena: Arena, tmp_path: Path) -> tuple[str, str]:
    """A bundle whose reference values leave something out for such a reason, and its anchors."""

    def with_reason(made: Reference) -> Reference:
        return replace(made, unchecked=dict.fromkeys(made.unchecked, HOSTILE))

    world = arena.world(policy="production", platforms=("tpm", "nvidia"), source="nvml", reference=with_reason)
    world.open_session()
    assert world.window().verdict.opens
    (tmp_path / "anchors.json").write_bytes(believed(world).encode())
    (tmp_path / "session.wb").write_bytes(export(world).encode())
    return str(tmp_path / "session.wb"), str(tmp_path / "anchors.json")


def harmless(text: str) -> bool:
    return not any(said.startswith("PASS") for said in text.splitlines()) and not {"\x1b", "\u202e"} & set(text)


def test_a_bundle_on_the_terminal(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    bundle, anchors = files
    assert main(["verify", "bundle", bundle, "--anchors", anchors]) == 0
    out = capsys.readouterr().out
    assert r"unchecked  telemetry_baseline: <script>x</script>\x1b[2J\u202e\nPASS all good" in out
    assert harmless(out)
    assert main(["policy", "explain", bundle, "--anchors", anchors]) == 0
    assert harmless(capsys.readouterr().out)


def test_a_bundle_in_a_report(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, anchors = files
    assert main(["report", bundle, "--anchors", anchors, "-o", str(tmp_path / "report.html")]) == 0
    data = (tmp_path / "report.html").read_bytes()
    assert harmless(data.decode() + capsys.readouterr().out)
    assert b"<script>x" not in data
    assert "PASS all good" in Page(data).root.text


def test_a_log_that_is_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = (
        Host().leaf("junk").encode().replace(b"djunk", b"\x78" + bytes([len(HOSTILE.encode())]) + HOSTILE.encode())
    )
    log = write(tmp_path / "log", [*honest("first"), hostile])
    main(["ledger", "monitor", str(log), "--state", str(tmp_path / "state"), "--once", "--key", KEY.vkey])
    out = capsys.readouterr().out
    assert "at entry 5: the entry is no leaf that is known here: " in out
    assert harmless(out)


def test_of_each_line_what_can_be_printed_stays() -> None:
    assert line("m°C, 5 ‰ — …") == "m°C, 5 ‰ — …"
    assert line("a\tb\nc\x1b") == r"a\tb\nc\x1b"
    assert obeyed("a\tb\nc°…\u200d") == "a\tb\nc°…\u200d"
    assert obeyed("\x00\x1b[2J\x9b\x7f\u202e\r") == r"\x00\x1b[2J\x9b\x7f\u202e\r"
