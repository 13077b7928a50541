"""What a source of telemetry reports: channels of readings, and events that no reading shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.telemetry.differences import VALUE_MAX, Budget, Packed, ascends, pack, unpack
from weighbridge.proto.telemetry.names import NAME_MAX, check_name, check_unit, is_name, is_unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["UNITS", "VALUE_MAX", "WINDOWS_NS", "Channel", "Event", "EventKind"]

# Units of the channels that are named here; a source may add others under other names. Temperatures are Celsius, "1"
# is a number of things, and a counter never falls but where its device or its server began anew.
UNITS: Final[Mapping[str, str]] = {
    "power": "mW",
    "power_instant": "mW",
    "power_limit": "mW",
    "energy": "mJ",  # counter since the driver was loaded
    "energy_at": "ns",  # when that was read, from its sample's offset
    "temperature": "m°C",
    "memory_temperature": "m°C",
    "sm_clock": "MHz",
    "memory_clock": "MHz",
    "utilisation": "‰",
    "memory_utilisation": "‰",
    "clock_reasons": "bits",
    "pcie_tx": "B",  # counters
    "pcie_rx": "B",
    "gpm_graphics": "ppm",  # of GPM (nvml.h, nvmlGpmMetricId_t): share of time or of the peak
    "gpm_sm": "ppm",
    "gpm_sm_occupancy": "ppm",
    "gpm_integer": "ppm",
    "gpm_tensor": "ppm",
    "gpm_dram": "ppm",
    "gpm_fp64": "ppm",
    "gpm_fp32": "ppm",
    "gpm_fp16": "ppm",
    "read_at": "ns",  # the driver's own timestamp, from the source's start
    "tokens_in": "1",  # counters of an inference server
    "tokens_out": "1",
    "requests": "1",
    "requests_running": "1",  # at the moment of the sample
    "requests_waiting": "1",
    "prefill_time": "ns",  # counters, summed over requests
    "decode_time": "ns",
}
# What a sensor's value is the mean of, where that is known: the time before the sample.
WINDOWS_NS: Final[Mapping[str, int]] = {"power": 1_000_000_000, "power_instant": 25_000_000}
_PARTS: Final = 4


@dataclass(frozen=True, slots=True)
class Channel:
    """One quantity of a source.

    Attributes:
        unit: of the values; that of :data:`UNITS` where the channel is named there.
        values: one per offset of the source, none beyond :data:`VALUE_MAX` either way: a tuple, or as they came
            (:class:`.differences.Packed`). ``None`` for all of them: the device does not report this quantity. ``None``
            for one: that reading failed.
        window_ns: time before the sample over which the sensor took the mean, ``None`` where it is not known.
    """

    unit: str
    values: Sequence[int | None] | None
    window_ns: int | None = None

    def to_cbor(self) -> list[cbor.CborValue]:
        """``[unit, differences or null, indices of missing readings or null, window or null]``.

        Raises:
            ValueError: for a value beyond :data:`VALUE_MAX`, and for what is no unit.
        """
        if not is_unit(self.unit):
            raise ValueError(f"not a unit: {self.unit!a}")
        if self.values is None:
            return [self.unit, None, None, self.window_ns]
        missing = [index for index, value in enumerate(self.values) if value is None]
        values: list[int] = []
        last = 0
        for value in self.values:
            last = last if value is None else value
            values.append(last)
        return [self.unit, pack(values), pack(missing) if missing else None, self.window_ns]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, name: str, size: int, budget: Budget, where: str) -> Self:
        """Read the channel ``name`` of a source with ``size`` offsets.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` for another number of values, for what is no unit, and for a named
                channel in another unit; a decoding code.
        """
        unit, packed, missing, window = cbor.read_array(value, where=where, limit=_PARTS, size=_PARTS)
        if not isinstance(unit, str) or len(unit.encode()) > NAME_MAX:
            raise MalformedEvidence(Code.FIELD_TYPE, "a channel's unit is a short text", where=where)
        check_unit(unit, where=where)
        if unit != UNITS.get(name, unit):
            raise MalformedEvidence(Code.FIELD_RANGE, "wrong unit", where=where, expected=UNITS[name], got=unit)
        if window is not None:
            window = cbor.Reader({3: window}, where).integer(3, low=1, high=VALUE_MAX)
        if packed is None and missing is None:
            return cls(unit, None, window)
        values = unpack(packed, budget=budget, where=where)
        if len(values) != size:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "not one value per offset", where=where, expected=size, got=len(values)
            )
        if missing is None:
            return cls(unit, values, window)
        return cls(unit, _without(values, missing, budget=budget, where=f"{where}.missing"), window)


class EventKind(StrEnum):
    """What happened to a source that its readings do not show."""

    GAP = "gap"  # samples were due and were not taken
    STALL = "stall"  # the device or server answered late, or the same value for longer than it may
    SENTINEL = "sentinel"  # a value that stands for "none" was read, and left out
    WRAP = "wrap"  # a counter began anew
    CLOCK_STEP = "clock_step"  # the wall clock was set
    FAULT = "fault"  # the device, driver or server answered with an error, or not at all


@dataclass(frozen=True, slots=True)
class Event:
    """At ``offset_ns`` from the source's start; of one channel, or of the whole source where that is ``None``."""

    offset_ns: int
    kind: EventKind
    channel: str | None

    def to_cbor(self) -> list[cbor.CborValue]:
        """``[offset, kind, channel or null]``.

        Raises:
            ValueError: for what is no channel's name.
        """
        if self.channel is not None and not is_name(self.channel):
            raise ValueError(f"not a channel's name: {self.channel!a}")
        return [self.offset_ns, self.kind.value, self.channel]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self:
        """Read an event.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` for a kind that is not known, and for what is no name; a decoding code.
        """
        parts = cbor.read_array(value, where=where, limit=3, size=3)
        fields = cbor.Reader(dict(enumerate(parts)), where)
        offset, kind = fields.uint(0, limit=VALUE_MAX), fields.text(1, limit=NAME_MAX)
        channel = fields.optional_text(2, limit=NAME_MAX)
        if channel is not None:
            check_name(channel, where=where)
        if kind not in set(EventKind):
            raise MalformedEvidence(Code.FIELD_RANGE, "unknown kind of event", where=where, got=kind)
        return cls(offset, EventKind(kind), channel)

    @property
    def order(self) -> tuple[int, str, str]:
        """Events of a source are sent in this order, each once."""
        return self.offset_ns, self.kind.value, self.channel or ""


def _without(values: Packed, missing: cbor.CborValue, *, budget: Budget, where: str) -> tuple[int | None, ...]:
    """The values with ``None`` where a reading failed; what stands there repeats the value before it, or is zero."""
    indices = unpack(missing, budget=budget, where=where)
    if not indices:
        raise MalformedEvidence(Code.NOT_DETERMINISTIC, "no missing reading is null", where=where)
    if not ascends(indices) or indices[-1] >= len(values):
        raise MalformedEvidence(
            Code.FIELD_RANGE, "indices do not ascend within the values", where=where, expected=f"< {len(values)}"
        )
    differences = values.differences.integers(where=where)
    wrong = next(filter(differences.__getitem__, indices), None)
    if wrong is not None:
        raise MalformedEvidence(
            Code.NOT_DETERMINISTIC, "a missing reading has a value", where=where, got=f"index {wrong}"
        )
    read: list[int | None] = list(values)
    for index in indices:
        read[index] = None
    return tuple(read)
