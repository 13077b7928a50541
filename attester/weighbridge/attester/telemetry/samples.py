"""The samples of one window as a sampler gives them out, and what makes sources of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto.telemetry import UNITS, WINDOWS_NS, Channel, Event, Source

if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection, Sequence

    from weighbridge.proto.telemetry import EventKind

__all__ = ["MISSING", "Samples"]

# Stands for a reading that there is none of, in a row. Beyond what may be sent.
MISSING: Final = -(2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Rows of one window, oldest first; each is its monotonic time and a value per column.

    Attributes:
        start_wall_ns: host's wall clock at offset 0.
        period_ns: nominal time between rows.
        begin_ns: monotonic time at offset 0.
        rows: one after the other.
        width: of a row: its time and its columns.
        events: monotonic time, kind, and the column or ``None`` for all of them.
    """

    start_wall_ns: int
    period_ns: int
    begin_ns: int
    rows: array[int]
    width: int
    events: tuple[tuple[int, EventKind, int | None], ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Of each row, nanoseconds from the beginning."""
        begin = self.begin_ns
        return tuple([at - begin for at in self.rows[:: self.width]])

    def column(self, number: int, *, minus: int = 0) -> tuple[int | None, ...]:
        """The values of a column, less ``minus``; ``None`` for a reading that there is none of."""
        values = self.rows[1 + number :: self.width]
        if not minus and MISSING not in values:
            return tuple(values)
        return tuple([None if value == MISSING else value - minus for value in values])

    def source(
        self,
        *,
        device: bytes | None,
        name: str,
        columns: Sequence[str],
        first: int = 0,
        units: Sequence[str] | None = None,
        absent: Collection[str] = (),
        moments: Collection[str] = (),
    ) -> Source:
        """The source whose channels are adjacent columns.

        Args:
            device: identity of the GPU, 32 bytes, or ``None`` for the host.
            name: of the source.
            columns: the channels' names, in the order of the columns.
            first: the column of the first of them.
            units: of the channels; by default those that the protocol gives to channels of these names.
            absent: channels that the device does not report.
            moments: channels whose values are times by the wall clock, to be told from the source's start.
        """
        units = [UNITS[channel] for channel in columns] if units is None else units
        channels = {
            channel: Channel(
                unit,
                None
                if channel in absent
                else self.column(first + number, minus=self.start_wall_ns if channel in moments else 0),
                WINDOWS_NS.get(channel),
            )
            for number, (channel, unit) in enumerate(zip(columns, units, strict=True))
        }
        events: list[Event] = []
        for at, kind, column in self.events:
            if column is not None and not first <= column < first + len(columns):
                continue
            channel = None if column is None else columns[column - first]
            events.append(Event(max(0, at - self.begin_ns), kind, channel))
        return Source(
            device=device,
            name=name,
            start_wall_ns=self.start_wall_ns,
            period_ns=self.period_ns,
            offsets=self.offsets,
            channels=channels,
            events=tuple(sorted(set(events), key=lambda event: event.order)),
        )
