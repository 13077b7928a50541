"""What `run` prints of a window: with a drawing of its power on a terminal, without anywhere else."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from weighbridge.attester.commands.run import _Printer
from weighbridge.attester.refusal import DenialNotice
from weighbridge.attester.report import Notice, WindowReport
from weighbridge.attester.telemetry import sparkline
from weighbridge.attester.telemetry.power_seen import PowerSeen
from weighbridge.proto.workload import WorkSummary

REPORT = WindowReport(
    session=bytes(16),
    seq=7,
    status="affirmed",
    work=WorkSummary(root=bytes([1]) * 32, requests=2, tokens_in=20, tokens_out=10, batch_max=1),
    denials=(),
    token_expires=None,
    backlog=0,
    verdict=None,
    power=(PowerSeen(bytes([0x3F]) * 32, 417.6, (117.0, 400.0, 418.5, None, 418.0)),),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(out: io.StringIO, *, as_json: bool = False) -> str:
    _Printer(out, io.StringIO(), as_json=as_json).window(REPORT)
    return out.getvalue()


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_a_terminal_shows_the_power(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkline, "levels", lambda: sparkline.BLOCKS)
    first, second = printed(Terminal()).splitlines()
    assert first.startswith("window     7  affirmed")
    assert second == "    power ▁██ █  418 W"


def test_a_terminal_that_cannot_draw_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkline, "levels", lambda: sparkline.ASCII)
    assert printed(Terminal()).isascii()


def test_a_log_does_not() -> None:
    assert len(printed(io.StringIO()).splitlines()) == 1


def test_nor_do_documents() -> None:
    (line,) = printed(Terminal(), as_json=True).splitlines()
    assert "power" not in json.loads(line)


def test_why_nothing_is_said_of_a_window() -> None:
    out = io.StringIO()
    why = DenialNotice("TELEMETRY_UNUSABLE", "4.0 of 10 s sampled", None, None, "wait for a unit")
    gpu = replace(why, device="3f" * 32)
    _Printer(out, io.StringIO(), as_json=False).window(replace(REPORT, status="indeterminate", denials=(why, gpu)))
    assert out.getvalue().splitlines() == [
        "window     7  indeterminate  2 requests, 20+10 tokens",
        "    TELEMETRY_UNUSABLE: 4.0 of 10 s sampled",
        "    hint: wait for a unit",
        "    TELEMETRY_UNUSABLE: GPU 3f3f3f3f3f3f3f3f…: 4.0 of 10 s sampled",
        "    hint: wait for a unit",
    ]


def test_what_a_policys_author_wrote_steers_no_terminal() -> None:
    out, err = io.StringIO(), io.StringIO()
    why = DenialNotice("MINE", "no\x1b[2K\nwindow     8  affirmed", None, None, "so\r\x1b[8m")
    printer = _Printer(out, err, as_json=False)
    printer.window(replace(REPORT, status="denied", denials=(why,)))
    assert out.getvalue().splitlines()[1:] == [
        "    MINE: no\\x1b[2K\\nwindow     8  affirmed",
        "    hint: so\\r\\x1b[8m",
    ]
    printer.notice(Notice("unheard", "MINE: no\n\x1b[2K"))
    assert err.getvalue() == "unheard: MINE: no\\n\\x1b[2K\n"
