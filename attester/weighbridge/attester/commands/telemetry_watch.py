"""``weighbridge-attester telemetry watch``: readings as they come. Decides nothing, keeps nothing."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import threading
from collections import deque
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TextIO, final

from weighbridge.attester.commands import telemetry_common as common
from weighbridge.attester.telemetry import sparkline
from weighbridge.attester.telemetry.registry import open_sources
from weighbridge.attester.telemetry.sampler import SystemSampleClock
from weighbridge.attester.wording import counted
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.options import UsageFault

if TYPE_CHECKING:
    from weighbridge.attester.telemetry.interface import TelemetrySource
    from weighbridge.attester.telemetry.sampler import SampleClock
    from weighbridge.proto.telemetry import Channel, Source

__all__ = ["configure", "run", "watch"]

_SCHEMA: Final = "weighbridge/telemetry-sample/v1"
_SECOND_NS: Final = 1_000_000_000
_SECONDS_MAX: Final = 10**9
_KEPT: Final = 600
_DRAWN: Final = 40
# What a line in a log shows: enough to see that a sensor lives.
_MAIN: Final = ("power", "power_instant", "temperature", "sm_clock", "utilisation", "mean", "rms", "tokens_out")
_MAIN_MAX: Final = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``telemetry watch`` to ``parser``."""
    common.add_sources(parser)
    common.add_load(parser)
    parser.add_argument(
        "--seconds", metavar="N", type=common.number(1, _SECONDS_MAX), help="end after N seconds (default: go on)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document per source and second")


def run(args: argparse.Namespace) -> int:
    """Show readings every second, until the time is over or somebody interrupts.

    Raises:
        WeighbridgeError: as :func:`weighbridge.attester.telemetry.registry.open_sources`, or as a source does.
    """
    mistake = common.misuse(args)
    if mistake is not None:
        raise UsageFault(mistake)
    with ExitStack() as stack:
        source = open_sources(common.choices_of(args), common.host_of(args, stack))
        stack.callback(source.close)
        try:
            watch(source, args, out=sys.stdout, clock=SystemSampleClock())
        except KeyboardInterrupt:
            sys.stdout.write("\n")
    return ExitCode.AFFIRMED


def watch(source: TelemetrySource, args: argparse.Namespace, *, out: TextIO, clock: SampleClock) -> None:
    """Show what ``source`` reads, second by second."""
    show = _Json(out) if args.json else _Table(out) if out.isatty() else _Lines(out)
    rng, stop = random.Random(args.seed), threading.Event()  # noqa: S311 - emulated work, not a secret
    boundary, left = clock.monotonic_ns(), args.seconds
    while left is None or left > 0:
        start = clock.wall_ns()
        boundary += _SECOND_NS
        while clock.monotonic_ns() < boundary:
            clock.wait_until(boundary, stop)
        work = args.load.draw(rng, _SECOND_NS)
        show.second(clock.wall_ns(), source.window(start_wall_ns=start, duration_ns=_SECOND_NS, work=work))
        left = None if left is None else left - 1


@final
class _Json:
    """One document per source and second."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def second(self, wall_ns: int, sources: list[Source]) -> None:
        for source in sources:
            document = {
                "schema": _SCHEMA,
                "time": _time(wall_ns),
                "source": source.name,
                "device": None if source.device is None else source.device.hex(),
                "samples": len(source.offsets),
                "channels": {
                    name: {"unit": channel.unit, "last": _last(channel), "reported": channel.values is not None}
                    for name, channel in source.channels.items()
                },
                "events": common.counted(source.events),
            }
            self._out.write(strict.json_encode(document).decode() + "\n")
        self._out.flush()


@final
class _Lines:
    """One line per source and second, for logs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def second(self, wall_ns: int, sources: list[Source]) -> None:
        for source in sources:
            names = [name for name in _MAIN if name in source.channels] or sorted(source.channels)
            parts = [f"{name} {_shown(source.channels[name])}" for name in names[:_MAIN_MAX]]
            events = "".join(f"  {kind} {count}" for kind, count in common.counted(source.events).items())
            clock = datetime.fromtimestamp(wall_ns // _SECOND_NS, UTC).strftime("%H:%M:%S")
            self._out.write(f"{clock} {source.name} {common.device_name(source.device)}  {', '.join(parts)}{events}\n")
        self._out.flush()


@final
class _Table:
    """A table that is rewritten in place, with a drawing of the last minute."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._past: dict[tuple[bytes | None, str, str], deque[int | None]] = {}
        self._height = 0

    def second(self, wall_ns: int, sources: list[Source]) -> None:
        columns, rows = shutil.get_terminal_size()
        _ = wall_ns
        lines: list[str] = []
        for source in sources:
            events = "".join(f"  {kind} {count}" for kind, count in common.counted(source.events).items())
            lines.append(
                f"{source.name} {common.device_name(source.device)}  {counted(len(source.offsets), 'sample')}{events}"
            )
            lines += [self._row(source, name, channel, columns) for name, channel in source.channels.items()]
        left_out = len(lines) - max(1, rows - 2)
        if left_out > 0:
            lines = [*lines[: -left_out - 1], f"… and {left_out + 1} more lines"]
        back = f"\x1b[{self._height}F\x1b[J" if self._height else ""
        self._out.write(back + "".join(line[: columns - 1] + "\n" for line in lines))
        self._out.flush()
        self._height = len(lines)

    def _row(self, source: Source, name: str, channel: Channel, columns: int) -> str:
        if channel.values is None:
            return f"  {name:<24} not reported"
        past = self._past.setdefault((source.device, source.name, name), deque(maxlen=_KEPT))
        past.extend(channel.values)
        figure = common.reading(_last(channel), channel.unit)
        row = f"  {name:<24} {figure:>14}  "
        width = min(_DRAWN, columns - len(row) - 1)
        return row if width < 1 else row + sparkline.sparkline(list(past), width, levels=sparkline.levels())


def _last(channel: Channel) -> int | None:
    return channel.values[-1] if channel.values else None


def _shown(channel: Channel) -> str:
    return "not reported" if channel.values is None else common.reading(_last(channel), channel.unit)


def _time(wall_ns: int) -> str:
    return strict.time_encode(datetime.fromtimestamp(wall_ns / _SECOND_NS, UTC))
