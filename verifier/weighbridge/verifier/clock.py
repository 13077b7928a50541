"""The verifier's receipt time. Checks of validity use it, so judging stops when it steps back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, final

from weighbridge.proto.errors import Code, EnvironmentFault

__all__ = ["SOURCE", "Clock", "SystemClock", "moment", "nanoseconds", "require_after"]

# What every verdict names as the source of its receipt time.
SOURCE: Final = "the verifier's system clock"
# NTP slews below this; a larger step back could make an expired certificate or a revoked key look good again.
_TOLERANCE: Final = timedelta(seconds=1)
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Clock(Protocol):
    """A source of receipt times."""

    def now(self) -> datetime:
        """The present, aware, UTC.

        Raises:
            EnvironmentFault: ``CLOCK_STEPPED`` when the clock ran backwards.
        """
        ...


@final
class SystemClock:
    """The system's clock. Remembers the latest time it has told; refuses to tell an earlier one.

    What is not checked: that the time is right. Run a time service; every verdict states the source.
    """

    __slots__ = ("_latest",)

    def __init__(self, not_before: datetime | None = None) -> None:
        self._latest = not_before or _EPOCH

    def now(self) -> datetime:
        """The present, never earlier than any time told before, by more than a slew's tolerance."""
        present = moment(time.time_ns())
        require_after(present, self._latest)
        self._latest = max(self._latest, present)
        return present


def require_after(present: datetime, latest: datetime) -> None:
    """Require that ``present`` is not before ``latest``, a time that was told before, but for a slew's tolerance.

    Raises:
        EnvironmentFault: ``CLOCK_STEPPED``.
    """
    if present < latest - _TOLERANCE:
        raise EnvironmentFault(
            Code.CLOCK_STEPPED,
            "the verifier's clock stepped back; nothing is judged until it has caught up",
            expected=f">= {latest.isoformat()}",
            got=present.isoformat(),
            hint="check the time service of this machine; restart is not needed",
        )


def moment(nanoseconds: int) -> datetime:
    """Nanoseconds since 1970 as an aware UTC time, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def nanoseconds(at: datetime) -> int:
    """An aware time as nanoseconds since 1970; the inverse of :func:`moment`."""
    return (at - _EPOCH) // _MICROSECOND * 1000
