"""What is told of long work: where to, when, and that an error stands alone."""

from __future__ import annotations

import io
import os
import shutil
import time

import pytest

from weighbridge.attester.commands.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    columns(monkeypatch, 80)
    return now


def columns(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda fallback=(80, 24): os.terminal_size((count, fallback[1])))


def test_terminal_shows_one_line_with_bar_rate_and_time_left(now: list[float]) -> None:
    stream = Terminal()
    with Progress(stream, "measured") as progress:
        progress(0, 4_000_000_000)
        now[0] += 10
        progress(1_000_000_000, 4_000_000_000)
        progress(1_000_000_001, 4_000_000_000)
    assert stream.getvalue().split("\r\x1b[K") == [
        "",
        "[=====               ] measured 1000 of 4000 MB, 0.10 GB/s, 30 s left",
        "measured 1000 MB in 10.0 s, 0.10 GB/s\n",
    ]


def test_log_has_a_line_every_few_seconds(now: list[float]) -> None:
    stream = io.StringIO()
    with Progress(stream, "made", "challenges") as progress:
        for number in range(1, 13):
            now[0] += 1
            progress(number, 12)
    assert stream.getvalue().splitlines() == [
        "made 5 of 12 challenges, 1 a second, 7 s left",
        "made 10 of 12 challenges, 1 a second, 2 s left",
        "made 12 challenges in 12.0 s, 1 a second",
    ]


@pytest.mark.parametrize(("after", "left"), [(1, " 99 s left"), (2, " 3 min left"), (100, " 2 h 45 min left")])
def test_long_times_are_told_in_their_units(now: list[float], after: int, left: str) -> None:
    stream = Terminal()
    progress = Progress(stream, "measured")
    now[0] += after
    progress(1_000_000, 100_000_000)
    assert stream.getvalue().endswith(left)


def test_line_is_never_wider_than_the_terminal(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that wraps could not be rewritten."""
    columns(monkeypatch, 40)
    stream = Terminal()
    progress = Progress(stream, "measured")
    now[0] += 1
    progress(1_000_000, 100_000_000)
    assert len(stream.getvalue()) == len("\r\x1b[K") + 39


def test_quick_work_is_not_mentioned() -> None:
    stream = Terminal()
    with Progress(stream, "measured") as progress:
        progress(1, 1)
    assert stream.getvalue() == ""


def test_what_fails_leaves_an_empty_line(now: list[float]) -> None:
    stream = Terminal()

    def fail() -> None:
        with Progress(stream, "measured") as progress:
            now[0] += 10
            progress(1, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert stream.getvalue().endswith("left\r\x1b[K")
