"""How far a long piece of work is: one line on standard error, for a person at a terminal and for nobody else."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Self, TextIO, final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Progress"]

_EVERY_SECONDS: Final = 0.2
_BAR: Final = 20
_FIRST_SECONDS: Final = 1.0
_HOUR: Final = 3600


@final
class Progress:
    """A line that is written over and over, and gone in the end.

    Args:
        unit: what is counted, in the plural.
        total: how many there are, as far as is known; may be changed while it runs.
        shown: no line is written where this is false, or standard error is no terminal.
        out: instead of standard error.
        clock: seconds.
    """

    def __init__(
        self,
        unit: str,
        total: int,
        *,
        shown: bool,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total: int = total
        self.note: str = ""
        self._unit: str = unit
        self._done: int = 0
        self._out: TextIO = out or sys.stderr
        self._shown: bool = shown and self._out.isatty()
        self._clock: Callable[[], float] = clock
        self._began: float = clock()
        self._written: float = self._began

    def advance(self, count: int) -> None:
        """``count`` more are done."""
        self._done += count
        now = self._clock()
        if self._shown and now - self._written >= _EVERY_SECONDS:
            self._written = now
            _ = self._out.write(f"\r{self.line()}\x1b[K")
            self._out.flush()

    def line(self) -> str:
        """What is shown now."""
        seconds = self._clock() - self._began
        total = max(self.total, self._done)
        filled = _BAR * self._done // total if total else 0
        parts = [f"{'█' * filled}{'░' * (_BAR - filled)} {self._done:,} of {total:,} {self._unit}"]
        if seconds >= _FIRST_SECONDS and self._done:
            parts.append(f"{self._done / seconds:,.0f}/s")
            parts.append(f"{_duration((total - self._done) * seconds / self._done)} left")
        return "  ".join([*parts, *([self.note] if self.note else [])])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            _ = self._out.write("\r\x1b[K")
            self._out.flush()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if whole >= _HOUR else f"{minutes}:{whole % 60:02}"
