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
# The verifier denies a window that ends 5 s in its future: stop before that.
_AHEAD_NS: Final = 3 * _SECOND_NS
# It denies samples that lie 1 s outside of their window, which is as long as the samples by the monotonic clock.
_BACK_NS: Final = 900_000_000
# Two good clocks drift apart by less than one part in this many.
_DRIFT: Final = 10_000


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
    """Consecutive, never overlapping intervals of wall time that the verifier will not take for the future.

    Args:
        clock: the host's.
        verifier_ns: the verifier's clock now, as the terms say it.
    """

    __slots__ = ("_clock", "_cut_at", "_end", "_heard_at", "_verifier")

    def __init__(self, clock: Clock, *, verifier_ns: int) -> None:
        self._clock = clock
        self._end = clock.wall_ns()
        self._verifier = verifier_ns
        self._cut_at = self._heard_at = clock.monotonic_ns()

    def heard(self, verifier_ns: int) -> None:
        """The verifier's clock now, as an answer says it."""
        self._verifier = verifier_ns
        self._heard_at = self._clock.monotonic_ns()

    def behind_ns(self) -> int:
        """By how much the host's clock lags behind the verifier's, nanoseconds, at least; negative where it leads.

        What an answer took on its way is counted in favour of the host's clock: how far one leads is not known by this.
        """
        elapsed = self._clock.monotonic_ns() - self._heard_at
        return self._verifier + elapsed - self._clock.wall_ns()

    def cut(self) -> tuple[int, int]:
        """The interval from the last cut to now, nanoseconds since 1970.

        A clock that was set forward makes it longer: it is what the host's clock said.

        Raises:
            EnvironmentFault: ``CLOCK_STEPPED`` when it is now earlier than the last cut: every label would lie in a
                window that was sealed already; or was set back since, so that the window would be shorter than its
                samples; or is so far ahead of the verifier's clock. The verifier would have to deny the window, for
                which a host is remembered.
        """
        start, now = self._end, self._clock.wall_ns()
        if now <= start:
            raise _stepped("set back behind the last window", expected=f"> {start} ns", off=(start - now, "behind it"))
        monotonic = self._clock.monotonic_ns()
        if (back := start + monotonic - self._cut_at - now) > _BACK_NS:
            least = now + back - _BACK_NS
            raise _stepped("set back within a window", expected=f">= {least} ns", off=(back, "less than was measured"))
        elapsed = monotonic - self._heard_at
        latest = self._verifier + elapsed + _AHEAD_NS + elapsed // _DRIFT
        if now > latest:
            ahead = now - self._verifier - elapsed
            raise _stepped("set ahead of the verifier's", expected=f"<= {latest} ns", off=(ahead, "ahead of it"))
        self._end, self._cut_at = now, monotonic
        return start, now


def _stepped(how: str, *, expected: str, off: tuple[int, str]) -> EnvironmentFault:
    return EnvironmentFault(
        Code.CLOCK_STEPPED,
        f"the host's clock was {how}; nothing more is sealed in this session",
        where="wall clock",
        expected=expected,
        got=f"{off[0] / _SECOND_NS:.3f} s {off[1]}",
        hint="check this host's time service, then start again: what was sealed is kept and will be delivered",
    )
