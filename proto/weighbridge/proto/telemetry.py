"""Telemetry evidence: samples of what sensors read during one window, in integers.

CBOR map ``{0: version, 1: session, 2: seq, 3: [source, …]}``; a source is ``{0: device identity or null for the host,
1: source name, 2: wall clock at the start in ns, 3: nominal period in ns, 4: offsets, 5: {channel: [unit, values]}}``.
Offsets and values are arrays of signed 64-bit big-endian integers in byte strings, so that nothing is rounded and
nothing has two encodings. ``null`` for values says that the device refuses to report the channel. Byte layout:
``docs/protocol.md`` §6.

*The host says so*: no reading is signed by a sensor. Readings can contradict and corroborate, never vouch.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["UNITS", "VERSION", "Channel", "Source", "Telemetry"]

VERSION: Final = "weighbridge/v1/telemetry"
# Units of the channels that are named here; a source may add others under other names. Temperatures are Celsius.
UNITS: Final[Mapping[str, str]] = {
    "power": "mW",  # mean over the second before the sample
    "power_instant": "mW",  # mean over 25 ms before the sample
    "energy": "mJ",  # counter since the driver was loaded
    "temperature": "m°C",
    "memory_temperature": "m°C",
    "sm_clock": "MHz",
    "memory_clock": "MHz",
    "utilisation": "‰",
    "memory_utilisation": "‰",
    "clock_reasons": "bits",
}
_NAME_MAX: Final = 64
_WORD: Final = 8
_SESSION_SIZE: Final = 16
_SEQ_MAX: Final = 2**53
_CHANNEL_PARTS: Final = 2


@dataclass(frozen=True, slots=True)
class Channel:
    """One quantity: its unit and a value per offset of the source, or ``None`` where the device reports none."""

    unit: str
    values: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one sensor path read in one window. Claimed by the host; only its form is checked.

    Attributes:
        device: identity of the GPU, 32 bytes, or ``None`` for the host itself.
        name: of the path, such as ``emulated`` or ``nvml``.
        start_wall_ns: host's wall clock at offset 0, nanoseconds since 1970.
        period_ns: nominal time between samples.
        offsets: of each sample from the start, ns, strictly ascending; gaps are visible here.
        channels: by name; each has as many values as there are offsets.
    """

    device: bytes | None
    name: str
    start_wall_ns: int
    period_ns: int
    offsets: tuple[int, ...]
    channels: Mapping[str, Channel]

    def to_cbor(self) -> dict[int | str, cbor.CborValue]:
        """The source as it is sent."""
        channels: dict[int | str, cbor.CborValue] = {
            name: [channel.unit, None if channel.values is None else _pack(channel.values)]
            for name, channel in self.channels.items()
        }
        return {
            0: self.device,
            1: self.name,
            2: self.start_wall_ns,
            3: self.period_ns,
            4: _pack(self.offsets),
            5: channels,
        }

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self:
        """Read a source.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` for offsets that do not ascend, for channels of another length and for
                a named channel in another unit; a decoding code.
        """
        fields = cbor.read_map(value, where=where)
        device = fields.optional_digest(0)
        name = fields.text(1, limit=_NAME_MAX)
        start = fields.uint(2)
        period = fields.integer(3, low=1, high=2**63 - 1)
        packed = fields.octets(4, limit=limits.TELEMETRY_SAMPLES_MAX * _WORD)
        offsets = _unpack(packed, where=f"{where}.offsets")
        table = fields.table(5)
        fields.end()
        if offsets != tuple(sorted(set(offsets))) or (offsets and offsets[0] < 0):
            raise MalformedEvidence(Code.FIELD_RANGE, "offsets do not ascend from zero", where=f"{where}.offsets")
        names = table.keys()
        if len(names) > limits.TELEMETRY_CHANNELS_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE,
                "too many channels",
                where=where,
                expected=f"<= {limits.TELEMETRY_CHANNELS_MAX}",
                got=len(names),
            )
        channels = dict(_channel(table, key, size=len(packed), where=where) for key in names)
        return cls(device=device, name=name, start_wall_ns=start, period_ns=period, offsets=offsets, channels=channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """The telemetry of one window: session (16 bytes), sequence number, sources, each device and name once."""

    session: bytes
    seq: int
    sources: tuple[Source, ...]

    def encode(self) -> bytes:
        """The bytes that are sent, and whose SHA-256 the window's header carries."""
        return cbor.encode({0: VERSION, 1: self.session, 2: self.seq, 3: [source.to_cbor() for source in self.sources]})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse telemetry evidence.

        Not checked: that session and sequence number are the window's, that devices are enrolled, that any reading is
        plausible.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written, and for sizes out of bounds.
        """
        fields = cbor.read_map(cbor.decode(data, limit=limits.TELEMETRY_MAX, what="telemetry"), where="telemetry")
        version = fields.text(0)
        if version != VERSION:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "unknown version", where="telemetry", expected=VERSION, got=version
            )
        session = fields.octets(1, size=_SESSION_SIZE)
        seq = fields.uint(2, limit=_SEQ_MAX)
        items = fields.array(3, limit=limits.TELEMETRY_SOURCES_MAX)
        fields.end()
        sources = tuple(
            Source.from_cbor(item, where=f"telemetry.source[{number}]") for number, item in enumerate(items)
        )
        if len({(source.device, source.name) for source in sources}) != len(sources):
            raise MalformedEvidence(Code.DUPLICATE_KEY, "a device has two sources of one name", where="telemetry")
        return cls(session=session, seq=seq, sources=sources)


def _channel(table: cbor.Reader, key: int | str, *, size: int, where: str) -> tuple[str, Channel]:
    """A channel whose packed values have ``size`` bytes."""
    place = f"{where}.{key}"
    if not isinstance(key, str) or not key or len(key.encode()) > _NAME_MAX:
        raise MalformedEvidence(Code.FIELD_TYPE, "a channel's name is a short text", where=place)
    unit, packed = cbor.read_array(table.take(key), where=place, limit=_CHANNEL_PARTS, size=_CHANNEL_PARTS)
    if not isinstance(unit, str) or len(unit.encode()) > _NAME_MAX:
        raise MalformedEvidence(Code.FIELD_TYPE, "a channel's unit is a short text", where=place)
    if unit != UNITS.get(key, unit):
        raise MalformedEvidence(Code.FIELD_RANGE, "wrong unit", where=place, expected=UNITS[key], got=unit)
    if packed is None:
        return key, Channel(unit, None)
    if not isinstance(packed, bytes):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=place, expected="byte string")
    if len(packed) != size:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "not one value per offset",
            where=place,
            expected=f"{size} bytes",
            got=f"{len(packed)} bytes",
        )
    return key, Channel(unit, _unpack(packed, where=place))


def _pack(values: tuple[int, ...]) -> bytes:
    return struct.pack(f">{len(values)}q", *values)


def _unpack(data: bytes, *, where: str) -> tuple[int, ...]:
    if len(data) % _WORD:
        raise MalformedEvidence(Code.FIELD_RANGE, "not a whole number of 64-bit integers", where=where, got=len(data))
    return strict.unpack(f">{len(data) // _WORD}q", data, what=where)
