"""A recorded series of one device, and any piece of it as a source: what replays and imports are made of."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.telemetry import Channel, Event, EventKind, Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Trace"]

# A sample that comes so many periods after the last one has left others out.
_GAP_PERIODS: Final = 2
_EVENTS_MAX: Final = limits.TELEMETRY_EVENTS_MAX // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Readings over time, as they were recorded. Not checked: that anything of it was ever measured.

    Attributes:
        device: identity of the GPU, 32 bytes, or ``None``.
        start_ns: wall clock of the first window's beginning or of the first sample, nanoseconds since 1970.
        period_ns: nominal time between samples.
        times: of each sample from ``start_ns``, ascending.
        channels: by name; each has as many values as there are times, or ``None`` for what is not reported.
        events: at nanoseconds from ``start_ns``.
    """

    device: bytes | None
    start_ns: int
    period_ns: int
    times: Sequence[int]
    channels: Mapping[str, Channel]
    events: tuple[Event, ...] = ()

    @property
    def duration_ns(self) -> int:
        """Up to a period after the last sample; 0 without one."""
        return self.times[-1] + self.period_ns if self.times else 0

    def piece(self, begin_ns: int, end_ns: int, *, name: str, start_wall_ns: int, device: bytes | None) -> Source:
        """What was recorded from ``begin_ns`` to ``end_ns`` after the start, as a source that begins at ``begin_ns``.

        Samples that are missing before or between those that are there are told as a *gap*. Of equal events the first
        is kept: the readings show the others.
        """
        low, high = bisect_left(self.times, begin_ns), bisect_left(self.times, end_ns)
        offsets = tuple(time - begin_ns for time in self.times[low:high])
        inside = [event for event in self.events if begin_ns <= event.offset_ns < end_ns]
        first: dict[tuple[EventKind, str | None], Event] = {}
        for event in sorted(inside, key=lambda event: event.order):
            first.setdefault((event.kind, event.channel), Event(event.offset_ns - begin_ns, event.kind, event.channel))
        gaps = _gaps((-self.period_ns, *offsets, end_ns - begin_ns), self.period_ns)
        events = {*first.values(), *(Event(max(0, at), EventKind.GAP, None) for at in gaps[:_EVENTS_MAX])}
        return Source(
            device=device,
            name=name,
            start_wall_ns=start_wall_ns,
            period_ns=self.period_ns,
            offsets=offsets,
            channels={
                key: Channel(
                    channel.unit,
                    None if channel.values is None else channel.values[low:high],
                    channel.window_ns,
                )
                for key, channel in self.channels.items()
            },
            events=tuple(sorted(events, key=lambda event: event.order)),
        )


def _gaps(times: Sequence[int], period_ns: int) -> list[int]:
    """When a sample was due that did not come: a period after the last one before it."""
    return [before + period_ns for before, after in pairwise(times) if after - before >= _GAP_PERIODS * period_ns]
