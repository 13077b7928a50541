"""Lines for the operator of a long-running command, bounded: whoever can cause one can cause a thousand a second."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Notices", "note", "warn"]

_EVERY_S: Final = 60.0
_KINDS_MAX: Final = 256


@final
class Notices:
    """Says the first line of a kind at once, and of those that follow within a minute only how many there were.

    Args:
        say: takes a line.
        now: seconds, steady.
    """

    __slots__ = ("_kinds", "_now", "_say")

    def __init__(self, say: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        # When a line of a kind was said last, which, and how many were not since.
        self._kinds: dict[Hashable, tuple[float, str, int]] = {}

    def say(self, kind: Hashable, line: str) -> None:
        """Say ``line``, unless one of its kind was said lately. All that cannot be told apart are of one kind."""
        now = self._now()
        if kind not in self._kinds and len(self._kinds) >= _KINDS_MAX:
            kind = None
        said, before, unsaid = self._kinds.get(kind, (now - _EVERY_S, line, 0))
        if now - said < _EVERY_S:
            self._kinds[kind] = said, before, unsaid + 1
            return
        self._kinds[kind] = now, line, 0
        self._say(f"{line} (and {unsaid} more of the kind)" if unsaid else line)

    def flush(self) -> None:
        """Say of each kind how many lines were not said. For the end."""
        for _, line, unsaid in self._kinds.values():
            if unsaid:
                self._say(f"{unsaid} more of the kind: {line}")
        self._kinds.clear()


def warn(line: str) -> None:
    """Tell the operator, on standard error."""
    note(f"weighbridge: warning: {line}")


def note(line: str) -> None:
    """Put ``line`` on standard error. Where that is closed or full nobody is told, and what goes on goes on."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - the log of a long-running command
