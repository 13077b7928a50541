"""The line that says how far it is: right, short, and only where somebody sees it."""

from __future__ import annotations

import io

from weighbridge.verifier.commands.progress import Progress


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Time as told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_line_says_how_far_how_fast_and_how_long() -> None:
    clock = Clock()
    progress = Progress("windows", 100_000, shown=True, out=Terminal(), clock=clock)
    progress.advance(10)
    assert progress.line() == f"{'░' * 20} 10 of 100,000 windows"
    clock.now += 10
    progress.advance(24_990)
    assert progress.line() == f"{'█' * 5}{'░' * 15} 25,000 of 100,000 windows  2,500/s  0:30 left"
    progress.note = "3 would change"
    assert progress.line().endswith("0:30 left  3 would change")
    assert len(progress.line()) < 100
    clock.now += 40_000
    assert "33:20:30 left" in progress.line().replace(",", "")
    progress.total = 0
    assert progress.line().startswith(f"{'█' * 20} 25,000 of 25,000 windows")


def test_a_terminal_is_left_as_it_was() -> None:
    clock, out = Clock(), Terminal()
    with Progress("windows", 10, shown=True, out=out, clock=clock) as progress:
        progress.advance(1)
        assert out.getvalue() == ""  # it would only flicker
        clock.now += 1
        progress.advance(4)
    lines = out.getvalue().split("\r")
    assert lines[1].startswith(f"{'█' * 10}{'░' * 10} 5 of 10 windows")
    assert lines[-1] == "\x1b[K"


def test_nobody_else_is_told_anything() -> None:
    clock = Clock()
    for out, shown in ((io.StringIO(), True), (Terminal(), False)):
        with Progress("windows", 10, shown=shown, out=out, clock=clock) as progress:
            clock.now += 1
            progress.advance(5)
        assert out.getvalue() == ""


def test_nothing_may_be_to_do() -> None:
    assert Progress("windows", 0, shown=False, out=Terminal()).line() == f"{'░' * 20} 0 of 0 windows"
