"""Two clocks at once: a wall clock can be set, a steady one cannot, and sees no sleep of the machine that hosts it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, final

from weighbridge.verifier.clock import moment

__all__ = ["Clocks", "Instant", "SystemClocks"]


@dataclass(frozen=True, slots=True)
class Instant:
    """One time by both clocks, in nanoseconds: ``wall_ns`` since 1970, ``steady_ns`` since some fixed time."""

    wall_ns: int
    steady_ns: int

    @property
    def wall(self) -> datetime:
        """By the wall clock, aware, UTC."""
        return moment(self.wall_ns)

    @property
    def offset_ns(self) -> int:
        """How far the wall clock is ahead of the steady one: it changes only when the wall clock is set."""
        return self.wall_ns - self.steady_ns


class Clocks(Protocol):
    """A source of instants."""

    def now(self) -> Instant:
        """The present."""
        ...


@final
class SystemClocks:
    """Those of this machine. The steady one goes on while the machine is suspended, and while we are stopped."""

    __slots__ = ()

    def now(self) -> Instant:
        """The present."""
        return Instant(time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))
