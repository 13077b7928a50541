"""A recording or a table of measurements, played as if it were read now: for tests and demonstrations.

Every source of it is called ``replay``, and no policy for genuine platforms takes a source of that name for a device's.
Plays from the beginning at nominal time: every window takes as much of the recording as it is long, however quickly it
is asked for. Behind the end there are no samples, and a *gap* says so, unless it is played over and over.

The recording's GPUs are played as those of the session, in the order of their identities; what the recording has of the
host itself stays the host's. Of several sources of one device the one with the most channels is played.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.durable import read_file
from weighbridge.attester.telemetry import csv_trace
from weighbridge.attester.telemetry.interface import Options
from weighbridge.attester.telemetry.trace import Trace
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.recording import SUFFIX, Recording
from weighbridge.proto.telemetry import Channel, Event, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from weighbridge.attester.telemetry.interface import HostFacts
    from weighbridge.proto.workload import WorkSummary

__all__ = ["NAME", "Replay", "open_replay", "traces_of"]

NAME: Final = "replay"
_WORDS: Final[Mapping[str, bool]] = {"yes": True, "no": False}


@final
class Replay:
    """A :class:`~weighbridge.attester.telemetry.interface.TelemetrySource` of what was recorded.

    Args:
        traces: what is played, and as whose.
        over_and_over: begin again at the end.
    """

    def __init__(self, traces: Sequence[tuple[bytes | None, Trace]], *, over_and_over: bool = False) -> None:
        if not traces or len({device for device, _ in traces}) != len(traces):
            raise ValueError("at least one trace, each device once")
        self._traces = tuple(traces)
        self._over_and_over = over_and_over
        self._length = max(trace.duration_ns for _, trace in traces)
        self._now = 0

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`TelemetrySource.window`; the next ``duration_ns`` of the recording."""
        _ = work
        if duration_ns <= 0:
            raise ValueError("a window has a duration")
        begin, self._now = self._now, self._now + duration_ns
        if self._over_and_over and self._now >= self._length:
            # The last window of a round ends where the recording does: nothing of two rounds is in one.
            self._now = 0
        return [
            trace.piece(begin, begin + duration_ns, name=NAME, start_wall_ns=start_wall_ns, device=device)
            for device, trace in self._traces
        ]

    def close(self) -> None:
        """See :meth:`TelemetrySource.close`: nothing to stop."""


def traces_of(recording: Recording) -> tuple[Trace, ...]:
    """One trace per device of the recording: of its sources that with the most channels.

    Raises:
        MalformedEvidence: a window's telemetry is none; ``FIELD_RANGE`` where windows or samples do not ascend.
    """
    pieces: dict[tuple[bytes | None, str], list[Source]] = {}
    for window in recording.windows:
        for source in window.readings().sources:
            pieces.setdefault((source.device, source.name), []).append(source)
    best: dict[bytes | None, list[Source]] = {}
    for (device, _), sources in pieces.items():
        if device not in best or _richness(sources) > _richness(best[device]):
            best[device] = sources
    # A window's samples may begin a little before it.
    start = min((source.start_wall_ns for sources in best.values() for source in sources), default=0)
    return tuple(_joined(device, best[device], start) for device in sorted(best, key=lambda device: device or b""))


def open_replay(options: Mapping[str, str], host: HostFacts) -> Replay:
    """The plug-in ``replay``.

    Options: ``file`` (a recording, or CSV); for CSV one ``CHANNEL=COLUMN:UNIT`` per channel, such as ``power=watts:W``,
    and ``time`` (``t_s:s``); ``loop`` (yes, no; no).

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE`` for options that will not do; ``FILE_UNREADABLE``.
        MalformedEvidence: the file is not what it should be.
    """
    given = Options(NAME, options)
    path = Path(given.text("file"))
    loop = given.text("loop", default="no")
    if loop not in _WORDS:
        raise given.refusal("loop must be yes or no", got=loop)
    if path.suffix == SUFFIX:
        given.end()
        traces = traces_of(_recording(path))
    else:
        traces = (_table(path, given, options),)
        given.end()
    return Replay(_as_the_sessions(traces, host, given), over_and_over=_WORDS[loop])


def _recording(path: Path) -> Recording:
    data = read_file(path, limit=limits.RECORDING_MAX, what="recording")
    try:
        return Recording.parse(data)
    except MalformedEvidence as error:
        raise error.in_file(
            path, what="a recording", hint="`weighbridge-attester telemetry record` makes one"
        ) from error


def _table(path: Path, given: Options, options: Mapping[str, str]) -> Trace:
    named = [key for key in options if key not in {"file", "loop", "time"}]
    try:
        columns = [csv_trace.Column.parse(f"{key}={given.text(key)}") for key in named]
        time = csv_trace.time_column(given.text("time", default="t_s:s"))
        if not columns:
            raise ValueError("a table needs a channel, such as power=watts:W")  # noqa: TRY301 - said as those above
    except ValueError as error:
        raise given.refusal(str(error), got=", ".join(f"{key}={options[key]}" for key in named) or "none") from error
    data = read_file(path, limit=csv_trace.BYTES_MAX, what="table of measurements")
    try:
        return csv_trace.parse(data, columns, time=time)
    except MalformedEvidence as error:
        raise error.in_file(
            path, what="a table of measurements", hint="name its columns as its first line does"
        ) from error


def _as_the_sessions(traces: Iterable[Trace], host: HostFacts, given: Options) -> list[tuple[bytes | None, Trace]]:
    """Whose each trace is to be: the session's GPUs', where there is a session."""
    recorded = [trace for trace in traces if trace.device is not None]
    hosts = [trace for trace in traces if trace.device is None]
    if not recorded and not hosts:
        raise given.refusal("there is no sample in the recording", got="no source")
    if not host.devices:
        return [(trace.device, trace) for trace in (*recorded, *hosts)]
    # A table of one device says nothing of whose it is: the first GPU's.
    played = recorded or hosts[:1]
    mapped: list[tuple[bytes | None, Trace]] = list(zip(host.devices, played, strict=False))
    return mapped + [(None, trace) for trace in hosts if recorded]


def _richness(sources: Sequence[Source]) -> tuple[int, int]:
    reported = sum(channel.values is not None for channel in sources[0].channels.values())
    return reported, sum(len(source.offsets) for source in sources)


def _joined(device: bytes | None, sources: Sequence[Source], start: int) -> Trace:
    """The samples of all windows in a row."""
    times: list[int] = []
    events: list[Event] = []
    for source in sources:
        ahead = source.start_wall_ns - start
        times += [ahead + offset for offset in source.offsets]
        events += [Event(ahead + event.offset_ns, event.kind, event.channel) for event in source.events]
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise MalformedEvidence(Code.FIELD_RANGE, "samples of the windows do not ascend", where="recording")
    units = {name: channel for source in sources for name, channel in source.channels.items()}
    return Trace(
        device=device,
        start_ns=start,
        period_ns=sources[0].period_ns,
        times=times,
        channels={
            name: Channel(channel.unit, _values(name, sources), channel.window_ns) for name, channel in units.items()
        },
        events=tuple(events),
    )


def _values(name: str, sources: Sequence[Source]) -> tuple[int | None, ...] | None:
    """Of a channel, in all windows; ``None`` where no window reports it."""
    found: list[int | None] = []
    reported = False
    for source in sources:
        channel = source.channels.get(name)
        values = None if channel is None else channel.values
        reported = reported or values is not None
        found += [None] * len(source.offsets) if values is None else values
    return tuple(found) if reported else None
