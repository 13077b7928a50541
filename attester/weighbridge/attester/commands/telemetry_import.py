"""``weighbridge-attester telemetry import``: somebody's table of measurements, as a recording."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from weighbridge.attester.commands import telemetry_common as common
from weighbridge.attester.commands import telemetry_scope
from weighbridge.attester.durable import read_file
from weighbridge.attester.telemetry import csv_trace
from weighbridge.attester.telemetry.recorder import window_of
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import ExitCode, MalformedEvidence
from weighbridge.proto.options import UsageFault
from weighbridge.proto.recording import Recording
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weighbridge.attester.telemetry.trace import Trace
    from weighbridge.proto.recording import RecordedWindow

__all__ = ["configure", "run"]

_T = TypeVar("_T")
_NAME: Final = "imported"
_SECOND_NS: Final = 1_000_000_000
_MS_NS: Final = 1_000_000
_WINDOW_MAX_S: Final = 60
_PERIOD_MAX_MS: Final = 3_600_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``telemetry import`` to ``parser``."""
    parser.add_argument(
        "--csv", metavar="FILE", type=Path, required=True, help="the table: commas, and headings in its first line"
    )
    parser.add_argument(
        "--column",
        metavar="CHANNEL=COLUMN:UNIT",
        type=_read(csv_trace.Column.parse),
        action="append",
        required=True,
        help="where a channel stands, such as power=watts:W or temperature=gpu_temp:C (several times)",
    )
    parser.add_argument(
        "--time",
        metavar="COLUMN:UNIT",
        type=_read(csv_trace.time_column),
        default=csv_trace.TIME,
        help="where the times of samples stand, in h, s, ms, us or ns since 1970 or the beginning (default: t_s:s)",
    )
    parser.add_argument(
        "--only",
        metavar="COLUMN=TEXT",
        type=_read(_pair),
        action="append",
        default=[],
        help="take the rows in which this column holds this text, such as index=0 for one GPU of several",
    )
    parser.add_argument(
        "--device",
        metavar="HEX",
        type=_read(_identity),
        help="whose readings they are: a GPU's identity (default: none)",
    )
    parser.add_argument(
        "--period",
        metavar="MS",
        type=common.number(1, _PERIOD_MAX_MS),
        help="nominal milliseconds between samples (default: the median of what it was)",
    )
    parser.add_argument(
        "--window",
        metavar="S",
        type=common.number(1, _WINDOW_MAX_S),
        default=10,
        help="seconds of a window that the table is cut into (default: 10)",
    )
    telemetry_scope.add_scope(parser)


def run(args: argparse.Namespace) -> int:
    """Read the table, write the recording, print what was written.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``, ``DISK_FULL``, ``FILE_UNWRITABLE``.
        MalformedEvidence: the table is not what the options say; ``TOO_LARGE``.
    """
    channels = [column.channel for column in args.column]
    twice = sorted({channel for channel in channels if channels.count(channel) > 1})
    mistake = f"--column names {twice[0]} twice" if twice else telemetry_scope.misuse(args, {})
    if len(dict(args.only)) != len(args.only):
        mistake = "--only names a column twice"
    if mistake is not None:
        raise UsageFault(mistake)
    scope = telemetry_scope.read_scope(args, {})
    data = read_file(args.csv, limit=csv_trace.BYTES_MAX, what="table of measurements")
    try:
        trace = csv_trace.parse(
            data,
            args.column,
            time=args.time,
            only=dict(args.only),
            device=args.device,
            period_ns=None if args.period is None else args.period * _MS_NS,
        )
    except MalformedEvidence as error:
        raise error.in_file(args.csv, what="such a table", hint="name its columns as its first line does") from error
    windows = tuple(_windows(trace, args.window * _SECOND_NS))
    recording = Recording(origin="imported", label=args.label, scope=scope, windows=windows)
    telemetry_scope.say([telemetry_scope.write(args.out, recording)], as_json=args.json)
    return ExitCode.AFFIRMED


def _windows(trace: Trace, window_ns: int) -> Iterator[RecordedWindow]:
    """The windows in which there are samples. Nobody says what was served in them."""
    for number, place in enumerate(sorted({time // window_ns for time in trace.times})):
        begin = place * window_ns
        start = trace.start_ns + begin
        piece = trace.piece(begin, begin + window_ns, name=_NAME, start_wall_ns=start, device=trace.device)
        yield window_of(number, [piece], work=WorkSummary.empty(), start_ns=start, end_ns=start + window_ns)


def _read(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """``parse`` as argparse wants it."""

    def read(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _pair(text: str) -> tuple[str, str]:
    heading, equals, value = text.partition("=")
    if not equals or not heading:
        raise ValueError(f"must be COLUMN=TEXT, not {text!r}")
    return heading, value


def _identity(text: str) -> bytes:
    try:
        return strict.hex_decode(text, what="identity", size=limits.DIGEST_SIZE)
    except MalformedEvidence as error:
        raise ValueError(f"must be {limits.DIGEST_SIZE} bytes in lower-case hexadecimal, not {text!r}") from error
