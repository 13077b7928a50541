"""Numbers, sizes and times as people read them in this host's messages.

>>> counted(1, "entry", "entries"), counted(51, "entry", "entries"), counted(0, "window")
('1 entry', '51 entries', '0 windows')
>>> size_of(536_870_912), size_of(1_047_000), lasting(5_400 * 10**9), lasting(30 * 3_600 * 10**9)
('512 MiB', '1022 KiB', '1.5 h', '1.2 days')
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from weighbridge.proto import strict

__all__ = ["counted", "lasting", "moment", "size_of"]

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_SECOND_NS: Final = 1_000_000_000
# Up to this many of one unit, then the next.
_SECONDS, _MINUTES, _HOURS = 120, 60, 24


def counted(number: int, what: str, many: str = "") -> str:
    """``1 window``, ``2 windows``; ``many`` of several, where that is not ``what`` and an ``s``."""
    return f"{number} {what if number == 1 else many or f'{what}s'}"


def size_of(size: int) -> str:
    """``size`` bytes in a unit that fits."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << power:
            return f"{_short(size / (1 << power))} {unit}"
    return f"{size} B"


def lasting(duration_ns: int) -> str:
    """A duration in a unit that fits."""
    seconds = duration_ns / _SECOND_NS
    if seconds < _SECONDS:
        return f"{_short(seconds)} s"
    if seconds < _MINUTES * 60:
        return f"{_short(seconds / 60)} min"
    hours = seconds / 3600
    return f"{_short(hours)} h" if hours < _HOURS else f"{_short(hours / 24)} days"


def moment(wall_ns: int) -> str:
    """A time of the host's wall clock, nanoseconds since 1970, to the second."""
    return strict.time_encode(_EPOCH + timedelta(seconds=wall_ns // _SECOND_NS))


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0")  # noqa: PLR2004 - three digits
