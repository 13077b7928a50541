"""Makes the windows of a recording outside of a session: in real time, or in nominal time where all is emulated.

Nothing of it is signed, and no challenge dates it: a recording is as good as the word of who made it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.recording import RecordedWindow
from weighbridge.proto.telemetry import Telemetry
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from weighbridge.attester.telemetry.interface import TelemetrySource
    from weighbridge.attester.telemetry.sampler import SampleClock
    from weighbridge.proto.telemetry import Source

__all__ = ["EngineWork", "Plan", "recorded_live", "recorded_nominally", "window_of"]

# Recordings have no session.
_NO_SESSION: Final = bytes(16)
_ENGINE: Final = "engine"


@dataclass(frozen=True, slots=True)
class Plan:
    """How many windows of which length; ``work`` is what is declared of each before it is read.

    ``parts``: how that lies within the window, in stretches of equal length, where sensors compute what they read; by
    default it lies evenly.
    """

    windows: int
    window_ns: int
    work: Callable[[int], WorkSummary]
    parts: Callable[[WorkSummary], Sequence[WorkSummary]] = lambda work: (work,)


def recorded_nominally(source: TelemetrySource, plan: Plan, *, start_ns: int) -> Iterator[RecordedWindow]:
    """Windows one after the other as if they had been waited for. For sources that compute what they read."""
    for number in range(plan.windows):
        start = start_ns + number * plan.window_ns
        work = plan.work(number)
        parts = plan.parts(work)
        length = plan.window_ns // len(parts)
        read = [
            source.window(start_wall_ns=start + place * length, duration_ns=length, work=part)
            for place, part in enumerate(parts)
        ]
        sources = [_joined(pieces) for pieces in zip(*read, strict=True)]
        yield window_of(number, sources, work=work, start_ns=start, end_ns=start + plan.window_ns)


def recorded_live(source: TelemetrySource, plan: Plan, *, clock: SampleClock) -> Iterator[RecordedWindow]:
    """Windows as they pass, cut on a grid of the monotonic clock from now on.

    Where an inference server's counters are among the sources, they say what was served; else it is what the plan says.

    Raises:
        EnvironmentFault: ``CLOCK_STEPPED``: the wall clock was set back, so that windows cannot follow each other.
    """
    engine, stop = EngineWork(), threading.Event()
    began, start = clock.monotonic_ns(), clock.wall_ns()
    for number in range(plan.windows):
        boundary = began + (number + 1) * plan.window_ns
        while clock.monotonic_ns() < boundary:
            clock.wait_until(boundary, stop)
        end = clock.wall_ns()
        if end <= start:
            raise EnvironmentFault(
                Code.CLOCK_STEPPED,
                "the host's clock was set back while recording",
                where="wall clock",
                hint="check this host's time service; what was recorded before is kept",
            )
        declared = plan.work(number)
        read = source.window(start_wall_ns=start, duration_ns=plan.window_ns, work=declared)
        yield window_of(number, read, work=engine.of(read) or declared, start_ns=start, end_ns=end)
        start = end


def window_of(
    number: int, sources: Sequence[Source], *, work: WorkSummary, start_ns: int, end_ns: int
) -> RecordedWindow:
    """The window ``number`` of a recording."""
    telemetry = Telemetry(session=_NO_SESSION, seq=number, sources=tuple(sources))
    return RecordedWindow(telemetry=telemetry.encode(), work=work, start_ns=start_ns, end_ns=end_ns)


@final
class EngineWork:
    """What an inference server's counters say was served between one window and the next.

    A request counts where it ends, tokens where they are made: a window with tokens in which none ended counts one.
    The root is made up, since there are no commitments.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def of(self, sources: Sequence[Source]) -> WorkSummary | None:
        """The work of the window with these sources; ``None`` where no server is among them."""
        engine = next((source for source in sources if source.name == _ENGINE), None)
        if engine is None:
            return None
        requests, tokens_in, tokens_out, prefill, decode = (
            self._gained(engine, name)
            for name in ("requests", "tokens_in", "tokens_out", "prefill_time", "decode_time")
        )
        if not any((requests, tokens_in, tokens_out, prefill, decode)):
            return WorkSummary.empty()
        running = _read(engine, "requests_running")
        return WorkSummary(
            root=sha256(b"weighbridge/engine-work/%d/%d/%d" % (requests, tokens_in, tokens_out)),
            requests=max(1, requests),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            batch_max=max(1, *running) if running else 1,
            prefill_ns=prefill,
            decode_ns=decode,
        )

    def _gained(self, source: Source, name: str) -> int:
        """By how much a counter grew since it was last read. One that fell began anew, at zero."""
        values = _read(source, name)
        if not values:
            return 0
        known = [self._last.get(name, values[0]), *values]
        self._last[name] = values[-1]
        return sum(later - earlier if later >= earlier else later for earlier, later in pairwise(known))


def _joined(pieces: Sequence[Source]) -> Source:
    """One sensor path's samples of stretches that follow each other, as those of one window."""
    first = pieces[0]
    later = [(piece.start_wall_ns - first.start_wall_ns, piece) for piece in pieces]
    return replace(
        first,
        offsets=tuple(offset + by for by, piece in later for offset in piece.offsets),
        channels={
            name: replace(
                channel,
                values=None
                if channel.values is None
                else tuple(value for piece in pieces for value in piece.channels[name].values or ()),
            )
            for name, channel in first.channels.items()
        },
        events=tuple(replace(event, offset_ns=event.offset_ns + by) for by, piece in later for event in piece.events),
    )


def _read(source: Source, name: str) -> list[int]:
    channel = source.channels.get(name)
    values = () if channel is None or channel.values is None else channel.values
    return [value for value in values if value is not None]
