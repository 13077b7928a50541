r"""A table of somebody's measurements (CSV), to a trace: columns and their units are named by whoever imports it.

Strict: a table that does not say what it is said to say is refused, with its line. What stands for "no reading" (an
empty cell, ``nan``, ``N/A``) is a missing reading; a number that cannot be sent (infinite, 1e30) is a missing reading
and a *sentinel*. Nothing is filled in, sorted or averaged.

>>> trace = parse(b"t_s,watts\n0,117.5\n0.1,\n0.2,418\n", [Column.parse("power=watts:W")])
>>> trace.channels["power"].values, trace.period_ns
((117500, None, 418000), 100000000)
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from itertools import islice, pairwise
from statistics import median_low
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.attester.telemetry.trace import Trace
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.telemetry import UNITS, VALUE_MAX, WINDOWS_NS, Channel, Event, EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["BYTES_MAX", "ROWS_MAX", "TIME", "Column", "parse", "time_column"]

BYTES_MAX: Final = 256 * 1024 * 1024
# Twenty-seven hours at 10 Hz; and a table may hold as much of each of eight devices, of which one is picked.
ROWS_MAX: Final = 1_000_000
_LINES_MAX: Final = 8 * ROWS_MAX
_SPLIT: Final = "split the table: one recording is one run"
_COLUMNS_MAX: Final = 64
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?")
_NO_READING: Final = frozenset({"", "nan", "-nan", "n/a", "[n/a]", "na", "null", "none", "[not supported]"})
_INFINITE: Final = frozenset({"inf", "+inf", "-inf", "infinity", "-infinity"})
# What a cell's unit is kept as, and how many of that it is.
_KEPT: Final[Mapping[str, tuple[str, float]]] = {
    "kW": ("mW", 1e6),
    "W": ("mW", 1e3),
    "mW": ("mW", 1.0),
    "kWh": ("mJ", 3.6e9),
    "Wh": ("mJ", 3.6e6),
    "kJ": ("mJ", 1e6),
    "J": ("mJ", 1e3),
    "mJ": ("mJ", 1.0),
    "C": ("m°C", 1e3),
    "GHz": ("MHz", 1e3),
    "MHz": ("MHz", 1.0),
    "%": ("‰", 10.0),
    "share": ("‰", 1e3),
    "permille": ("‰", 1.0),
    "V": ("mV", 1e3),
    "A": ("mA", 1e3),
    "bits": ("bits", 1.0),
    "B": ("B", 1.0),
    "KiB": ("B", 1024.0),
    "MiB": ("B", 1048576.0),
    "count": ("1", 1.0),
    "rpm": ("rpm", 1.0),
    "h": ("ns", 3.6e12),
    "s": ("ns", 1e9),
    "ms": ("ns", 1e6),
    "us": ("ns", 1e3),
    "ns": ("ns", 1.0),
}


@final
@dataclass(frozen=True, slots=True)
class Column:
    """Where a channel's readings stand: ``channel=column:unit``, the column by its heading."""

    channel: str
    heading: str
    unit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``channel=column:unit``.

        Raises:
            ValueError: it is nothing of the kind, or a unit that this channel is not measured in.
        """
        channel, equals, rest = text.partition("=")
        heading, colon, unit = rest.rpartition(":")
        if not equals or not colon or not heading or not _NAME.fullmatch(channel):
            raise ValueError(f"must be CHANNEL=COLUMN:UNIT, such as power=watts:W, not {text!r}")
        if unit not in _KEPT:
            raise ValueError(f"unknown unit {unit!r}: known are {', '.join(_KEPT)}")
        wanted = UNITS.get(channel, _KEPT[unit][0])
        if _KEPT[unit][0] != wanted:
            fitting = ", ".join(name for name, (kept, _) in _KEPT.items() if kept == wanted)
            raise ValueError(f"{channel} is not measured in {unit}, but in {fitting or wanted}")
        return cls(channel, heading, unit)


def time_column(text: str) -> Column:
    """Read ``column:unit`` of the times of samples.

    Raises:
        ValueError: it is nothing of the kind, or the unit is none of time.
    """
    heading, colon, unit = text.rpartition(":")
    if not colon or not heading or _KEPT.get(unit, ("",))[0] != "ns":
        raise ValueError(f"must be COLUMN:UNIT with a unit of h, s, ms, us, ns, not {text!r}")
    return Column("time", heading, unit)


TIME: Final = Column("time", "t_s", "s")


def parse(
    data: bytes,
    columns: Sequence[Column],
    *,
    time: Column = TIME,
    only: Mapping[str, str] | None = None,
    device: bytes | None = None,
    period_ns: int | None = None,
) -> Trace:
    """The trace in a table with headings, separated by commas.

    Args:
        data: the file.
        columns: at least one, each channel once.
        time: of the samples: nanoseconds since 1970 or since the beginning, in its unit.
        only: rows in which these columns, by heading, hold this text, such as the number of one GPU among several.
        device: whose samples they are said to be.
        period_ns: nominal time between samples; the median of what it was by default.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``NOT_UTF8``; ``FIELD_MISSING`` for a column that is not there, or not a row;
            ``FIELD_RANGE`` for times that do not ascend or rows of another length; ``NOT_A_NUMBER``.
        ValueError: no column, or one channel twice.
    """
    names = [column.channel for column in columns]
    if not names or len(set(names)) != len(names) or len(names) > _COLUMNS_MAX:
        raise ValueError(f"1 to {_COLUMNS_MAX} columns, each channel once")
    if len(data) > BYTES_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "the table is too large", where="table", expected=f"<= {BYTES_MAX} bytes"
        )
    lines = _LINES_MAX if only else ROWS_MAX
    # Before anything is made of them.
    if data.count(b"\n") > lines + 1:
        raise MalformedEvidence(
            Code.TOO_LARGE, "the table has too many lines", where="table", expected=f"<= {lines}", hint=_SPLIT
        )
    reader = _Rows(data)
    picked = reader.places([time.heading, *(column.heading for column in columns)])
    wanted = dict(zip(reader.places(list(only or {})), (only or {}).values(), strict=True))
    times: list[int] = []
    values: list[list[int | None]] = [[] for _ in columns]
    sentinels: list[tuple[int, str]] = []
    for row in reader:
        if any(row[place].strip() != text for place, text in wanted.items()):
            continue
        at = reader.time(row[picked[0]], _KEPT[time.unit][1], after=times[-1] if times else -1)
        if len(times) == ROWS_MAX:
            raise reader.wrong(Code.TOO_LARGE, "more rows than are taken", expected=f"<= {ROWS_MAX}", hint=_SPLIT)
        times.append(at)
        for column, place, series in zip(columns, picked[1:], values, strict=True):
            value, cannot_be_sent = reader.reading(row[place], _KEPT[column.unit][1])
            series.append(value)
            if cannot_be_sent:
                sentinels.append((at, column.channel))
    if not times:
        raise MalformedEvidence(Code.FIELD_MISSING, "there is no row with samples", where="table")
    start = times[0]
    return Trace(
        device=device,
        start_ns=start,
        period_ns=period_ns or _period(times),
        times=[at - start for at in times],
        channels={
            column.channel: Channel(_KEPT[column.unit][0], tuple(series), WINDOWS_NS.get(column.channel))
            for column, series in zip(columns, values, strict=True)
        },
        events=tuple(Event(at - start, EventKind.SENTINEL, channel) for at, channel in sentinels),
    )


def _period(times: Sequence[int]) -> int:
    return median_low([later - earlier for earlier, later in pairwise(times)]) if len(times) > 1 else 1


@final
class _Rows:
    """The rows behind the headings, with what stands in a cell."""

    def __init__(self, data: bytes) -> None:
        try:
            text = data.removeprefix(b"\xef\xbb\xbf").decode()
        except UnicodeDecodeError as error:
            raise MalformedEvidence(Code.NOT_UTF8, "the table is not UTF-8", where=f"table[{error.start}]") from error
        self._reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        self._headings = [heading.strip() for row in islice(self._cells(), 1) for heading in row]
        if len(set(self._headings)) != len(self._headings):
            raise self.wrong(Code.DUPLICATE_KEY, "two columns have one heading")

    def __iter__(self) -> Iterator[list[str]]:
        for row in self._cells():
            if not row:
                continue
            if len(row) != len(self._headings):
                raise self.wrong(
                    Code.FIELD_RANGE, "not one cell per heading", expected=str(len(self._headings)), got=str(len(row))
                )
            yield row

    def places(self, headings: Sequence[str]) -> list[int]:
        """Where the columns with these headings stand."""
        for heading in headings:
            if heading not in self._headings:
                known = ", ".join(self._headings) or "none"
                raise self.wrong(Code.FIELD_MISSING, "there is no such column", expected=heading, got=known)
        return [self._headings.index(heading) for heading in headings]

    def time(self, cell: str, factor: float, *, after: int) -> int:
        """Nanoseconds, later than ``after``."""
        value = self._number(cell) * factor
        if not 0 <= value <= VALUE_MAX:
            raise self.wrong(Code.FIELD_RANGE, "no time of a sample", expected="0 or later", got=cell)
        at = round(value)
        if at <= after:
            raise self.wrong(
                Code.FIELD_RANGE,
                "times do not ascend" if at < after else "two samples have one time",
                got=cell,
                hint="sort the rows; pick the rows of one device where the table holds several",
            )
        return at

    def reading(self, cell: str, factor: float) -> tuple[int | None, bool]:
        """The reading, ``None`` where there is none; and whether there was a number that cannot be sent."""
        word = cell.strip().lower()
        if word in _NO_READING:
            return None, False
        if word in _INFINITE:
            return None, True
        value = self._number(cell) * factor
        return (None, True) if abs(value) > VALUE_MAX else (round(value), False)

    def wrong(
        self, code: Code, text: str, *, expected: str | None = None, got: str | None = None, hint: str = ""
    ) -> MalformedEvidence:
        """The error about the current line."""
        return MalformedEvidence(
            code, text, where=f"line {self._reader.line_num}", expected=expected, got=got, hint=hint
        )

    def _number(self, cell: str) -> float:
        text = cell.strip()
        if not _NUMBER.fullmatch(text):
            raise self.wrong(
                Code.NOT_A_NUMBER,
                "not a decimal number",
                got=text,
                hint="cells hold numbers alone (nvidia-smi: --format=csv,nounits), and a point before decimals",
            )
        value = float(text)
        return value if math.isfinite(value) else math.copysign(1e300, value)

    def _cells(self) -> Iterator[list[str]]:
        try:
            yield from self._reader
        except csv.Error as error:
            raise self.wrong(Code.NOT_A_NUMBER, f"not a table: {error}") from error
