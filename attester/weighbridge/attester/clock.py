"""The host's clocks as the session sees them: wall time for what is said, monotonic time for when to act.

Windows are cut by the monotonic clock at fixed boundaries; the wall clock only labels them. So a clock that is set
moves a label, never a boundary, and :class:`WallTimeline` refuses a label that would lie in an earlier window.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol, final

from weighbridge.proto.errors import Code, EnvironmentFault

__all__ = ["Clock", "SystemClock", "WallTimeline"]

_SECOND_NS: Final = 1_000_000_000


class Clock(Protocol):
    """A source of time, and the one way in which a session waits."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 by the host's wall clock, which may be set at any time."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary moment; never goes back."""
        ...

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Return at ``monotonic_ns`` or soon after; at once when that has passed."""
        ...


@final
class SystemClock:
    """The system's clocks."""

    __slots__ = ()

    def wall_ns(self) -> int:
        """See :meth:`Clock.wall_ns`."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """See :meth:`Clock.monotonic_ns`."""
        return time.monotonic_ns()

    async def sleep_until(self, monotonic_ns: int) -> None:
        """See :meth:`Clock.sleep_until`."""
        await asyncio.sleep(max(0, monotonic_ns - time.monotonic_ns()) / _SECOND_NS)


@final
class WallTimeline:
    """Consecutive, never overlapping intervals of wall time."""

    __slots__ = ("_clock", "_end")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end = clock.wall_ns()

    @property
    def end_ns(self) -> int:
        """Where the next interval starts."""
        return self._end

    def cut(self) -> tuple[int, int]:
        """The interval from the last cut to now.

        A clock that was set back by less than the interval's length makes it short; one that was set forward makes it
        long. Both are what the host's clock said.

        Raises:
            EnvironmentFault: ``CLOCK_STEPPED`` when it is now earlier than the last cut: every label would lie in a
                window that was sealed already.
        """
        start, now = self._end, self._clock.wall_ns()
        if now <= start:
            raise EnvironmentFault(
                Code.CLOCK_STEPPED,
                "the host's clock was set back behind the last window; nothing more is sealed in this session",
                where="wall clock",
                expected=f"> {start} ns",
                got=f"{now} ns ({(start - now) / _SECOND_NS:.3f} s earlier)",
                hint="check this host's time service, then start again: what was sealed is kept and will be delivered",
            )
        self._end = now
        return start, now
