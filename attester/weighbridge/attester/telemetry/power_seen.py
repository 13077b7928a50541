"""The power of a window for whoever watches: how it went, and its mean, of each device. Not evidence.

>>> power_lines([PowerSeen(None, 409.2, (400.0, 418.5))], columns=100, levels="_#")
['host _#  409 W']
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.attester.telemetry.sparkline import sparkline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.proto.telemetry import Source

__all__ = ["PowerSeen", "power_lines", "power_seen"]

_CHANNELS: Final = ("power", "power_instant")
_POINTS: Final = 40
_DRAWN_LEAST: Final = 8
_GAP: Final = "   "
_MW_PER_W: Final = 1000


@dataclass(frozen=True, slots=True)
class PowerSeen:
    """One device's power in one window.

    Attributes:
        device: identity of the GPU, 32 bytes, or ``None`` for the host.
        watts: mean of what was read, ``None`` where nothing was.
        shape: watts over the window, at most 40 values, ``None`` where nothing was read.
    """

    device: bytes | None
    watts: float | None
    shape: tuple[float | None, ...]


def power_seen(sources: Iterable[Source]) -> tuple[PowerSeen, ...]:
    """Of each device the first source that reports power."""
    seen: dict[bytes | None, PowerSeen] = {}
    for source in sources:
        channel = next((found for name in _CHANNELS if (found := source.channels.get(name)) is not None), None)
        if channel is None or channel.values is None or source.device in seen:
            continue
        watts = [None if value is None else value / _MW_PER_W for value in channel.values]
        seen[source.device] = PowerSeen(source.device, _mean(watts), _grouped(watts))
    return tuple(seen.values())


def power_lines(seen: Sequence[PowerSeen], *, columns: int, levels: str) -> list[str]:
    """Lines of at most ``columns`` characters, several devices on each; none for none."""
    if not seen:
        return []
    labels = [_label(item.device, alone=len(seen) == 1) for item in seen]
    figures = ["  none" if item.watts is None else f"{item.watts:4.0f} W" for item in seen]
    # As many beside each other as leave a drawing that shows something.
    least = max(len(label) for label in labels) + max(len(figure) for figure in figures) + _DRAWN_LEAST + 2
    beside = min(len(seen), max(1, (columns + len(_GAP)) // (least + len(_GAP))))
    room = (columns + len(_GAP)) // beside - len(_GAP) - (least - _DRAWN_LEAST)
    width = max(1, min(room, _POINTS))
    parts = [
        f"{label} {sparkline(item.shape, width, levels=levels).ljust(min(width, len(item.shape)))} {figure}"
        for label, item, figure in zip(labels, seen, figures, strict=True)
    ]
    return [_GAP.join(parts[start : start + beside]).rstrip() for start in range(0, len(parts), beside)]


def _label(device: bytes | None, *, alone: bool) -> str:
    if device is None:
        return "host"
    return "power" if alone else device.hex()[:4]


def _grouped(watts: Sequence[float | None]) -> tuple[float | None, ...]:
    count = min(len(watts), _POINTS)
    return tuple(
        _mean(watts[index * len(watts) // count : (index + 1) * len(watts) // count]) for index in range(count)
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
