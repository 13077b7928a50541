"""What a source read, held to the window that it is said in: whatever stood still, no sample of another time is sealed.

A verifier denies a window whose samples lie over a second outside of its interval (``TELEMETRY_TIME``), and that sticks
to TPM and GPUs. A process that was stopped, or a TPM that took seconds to tell its clock, is no lie: what does not
belong to the window is left out and told as a *gap*, never moved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from weighbridge.proto.telemetry import Event, EventKind

if TYPE_CHECKING:
    from weighbridge.proto.telemetry import Source

__all__ = ["ADJACENT_NS", "within"]

ADJACENT_NS: Final = 1_000_000_000
"""How far outside of its window's interval the verifier takes a sample."""


def within(source: Source, *, start_wall_ns: int, end_wall_ns: int) -> Source:
    """``source`` without the samples that the verifier would take for another time's; itself where there are none.

    Where something is left out before, the source begins with the window.

    Args:
        source: as it was read.
        start_wall_ns: host's wall clock when the window began.
        end_wall_ns: the same when it ended, as its interval says.
    """
    begin = source.start_wall_ns
    early = not start_wall_ns - ADJACENT_NS <= begin <= end_wall_ns + ADJACENT_NS
    first = start_wall_ns if early else begin
    kept = [
        place for place, offset in enumerate(source.offsets) if first <= begin + offset <= end_wall_ns + ADJACENT_NS
    ]
    if not early and len(kept) == len(source.offsets):
        return source
    low, high = (kept[0], kept[-1] + 1) if kept else (0, 0)
    moved = begin - first
    offsets = tuple([moved + offset for offset in source.offsets[low:high]])
    events = [replace(event, offset_ns=max(0, event.offset_ns + moved)) for event in source.events]
    if low or not kept:
        events.append(Event(0, EventKind.GAP, None))
    if high < len(source.offsets) and kept:
        events.append(Event(offsets[-1], EventKind.GAP, None))
    return replace(
        source,
        start_wall_ns=first,
        offsets=offsets,
        channels={
            name: channel if channel.values is None else replace(channel, values=channel.values[low:high])
            for name, channel in source.channels.items()
        },
        events=tuple(sorted(set(events), key=lambda event: event.order)),
    )
