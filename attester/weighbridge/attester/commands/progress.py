"""How far long work is: for standard error, where somebody waits or a log is kept; never part of a result."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TextIO

__all__ = ["Progress"]

_TTY_INTERVAL_S: Final = 0.1
_LOG_INTERVAL_S: Final = 5.0
# What takes less needs no word about how fast it was.
_RATE_FROM_S: Final = 1.0
_MEGABYTE: Final = 1_000_000
_GIGABYTE: Final = 1_000_000_000
_MINUTES_FROM_S: Final = 120
_BAR: Final = 20
_CLEAR: Final = "\r\x1b[K"


class Progress:
    """On a terminal one line with a bar, rewritten; elsewhere a line every few seconds. Nothing for what is quick.

    Call it with what is done and what there is in all. Left without an error it says how fast it was; with one it only
    removes its line, so that the error stands alone.

    >>> import sys
    >>> with Progress(sys.stderr, "hashed") as progress:
    ...     progress(1_000_000, 1_000_000)
    """

    def __init__(self, stream: TextIO, verb: str, items: str = "") -> None:
        """Begin now.

        Args:
            stream: where to write.
            verb: what is being done, in the past tense.
            items: what is counted; bytes when empty.
        """
        self._stream = stream
        self._verb = verb
        self._items = items
        self._tty = stream.isatty()
        self._interval = _TTY_INTERVAL_S if self._tty else _LOG_INTERVAL_S
        self._start = self._last = time.monotonic()
        self._done = 0
        self._shown = False

    def __enter__(self) -> Self:
        """Do nothing: the work began when this was made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the line; say how fast it was, where it succeeded and was long enough to tell."""
        if self._tty and self._shown:
            self._stream.write(_CLEAR)
            self._stream.flush()
        took = time.monotonic() - self._start
        if error is None and self._done and took >= _RATE_FROM_S:
            self._stream.write(f"{self._verb} {self._amount(self._done)} in {took:.1f} s, {self._rate(took)}\n")

    def __call__(self, done: int, total: int) -> None:
        """Take note of ``done`` of ``total``, and show it if the last time was long enough ago."""
        now = time.monotonic()
        self._done = done
        if now - self._last < self._interval or not done:
            return
        self._last = now
        took = now - self._start
        left = _time_left((total - done) * took / done)
        text = f"{self._verb} {self._amount(done, total)}, {self._rate(took)}, {left} left"
        self._shown = True
        self._stream.write(f"{_CLEAR}{_barred(done, total, text)}" if self._tty else f"{text}\n")
        self._stream.flush()

    def _amount(self, *amounts: int) -> str:
        if self._items:
            return f"{' of '.join(str(amount) for amount in amounts)} {self._items}"
        return f"{' of '.join(f'{amount / _MEGABYTE:.0f}' for amount in amounts)} MB"

    def _rate(self, took: float) -> str:
        if self._items:
            return f"{self._done / took:.0f} a second"
        return f"{self._done / took / _GIGABYTE:.2f} GB/s"


def _barred(done: int, total: int, text: str) -> str:
    """The line, one column narrower than the terminal: a longer one would wrap, and could not be rewritten."""
    filled = _BAR * done // total
    return f"[{'=' * filled}{' ' * (_BAR - filled)}] {text}"[: shutil.get_terminal_size().columns - 1]


def _time_left(seconds: float) -> str:
    if seconds < _MINUTES_FROM_S:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
