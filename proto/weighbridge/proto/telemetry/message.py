"""The sources of one window, and the message that carries them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, limits, zstd
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.telemetry.channels import Channel, Event
from weighbridge.proto.telemetry.differences import VALUE_MAX, Budget, ascends, pack, unpack
from weighbridge.proto.telemetry.names import NAME_MAX, check_name, is_name

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VERSION", "Source", "Telemetry"]

VERSION: Final = "weighbridge/v1/telemetry"
_SESSION_SIZE: Final = 16
_SEQ_MAX: Final = 2**53


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
        events: in their order (:attr:`Event.order`), each once; :meth:`to_cbor` brings them into it.
    """

    device: bytes | None
    name: str
    start_wall_ns: int
    period_ns: int
    offsets: tuple[int, ...]
    channels: Mapping[str, Channel]
    events: tuple[Event, ...] = ()

    def to_cbor(self) -> dict[int | str, cbor.CborValue]:
        """The source as it is sent, uncompressed.

        Raises:
            ValueError: for a value or an offset beyond ``VALUE_MAX``, and for what is no name or unit.
        """
        for name in (self.name, *self.channels):
            if not is_name(name):
                raise ValueError(f"not the name of a source or a channel: {name!a}")
        channels: dict[int | str, cbor.CborValue] = {name: channel.to_cbor() for name, channel in self.channels.items()}
        return {
            0: self.device,
            1: self.name,
            2: self.start_wall_ns,
            3: self.period_ns,
            4: pack(self.offsets),
            5: channels,
            6: [event.to_cbor() for event in sorted(set(self.events), key=lambda event: event.order)],
        }

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, budget: Budget, where: str) -> Self:
        """Read a source.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` for offsets that do not ascend, for channels of another length, for
                events out of order, for what is no name or unit, and for a named channel in another unit; a decoding
                code.
        """
        fields = cbor.read_map(value, where=where)
        device = fields.optional_digest(0)
        name = fields.text(1, limit=NAME_MAX)
        check_name(name, where=fields.path(1))
        start = fields.uint(2, limit=VALUE_MAX)
        period = fields.integer(3, low=1, high=VALUE_MAX)
        offsets = _offsets(fields.take(4), budget=budget, where=f"{where}.offsets")
        table = fields.table(5)
        events = _events(fields.array(6, limit=limits.TELEMETRY_EVENTS_MAX), where=f"{where}.events")
        fields.end()
        names = table.keys()
        if len(names) > limits.TELEMETRY_CHANNELS_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE,
                "too many channels",
                where=where,
                expected=f"<= {limits.TELEMETRY_CHANNELS_MAX}",
                got=len(names),
            )
        channels: dict[str, Channel] = {}
        every, size = f"{where}.channels", len(offsets)
        for key in names:
            if not isinstance(key, str) or not 0 < len(key.encode()) <= NAME_MAX:
                raise MalformedEvidence(Code.FIELD_TYPE, "a channel's name is a short text", where=f"{where}.{key!a}")
            check_name(key, where=every)
            place = f"{where}.{key}"
            channels[key] = Channel.from_cbor(table.take(key), name=key, size=size, budget=budget, where=place)
        return cls(
            device=device,
            name=name,
            start_wall_ns=start,
            period_ns=period,
            offsets=offsets,
            channels=channels,
            events=events,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """The telemetry of one window: session (16 bytes), sequence number, sources, each device and name once."""

    session: bytes
    seq: int
    sources: tuple[Source, ...]

    def encode(self) -> bytes:
        """Bytes to send; the window's header carries the SHA-256 of those that were sent.

        Raises:
            ValueError: for a value or an offset beyond ``VALUE_MAX``.
        """
        content = self.content()
        return cbor.encode({0: VERSION, 1: self.session, 2: self.seq, 3: len(content), 4: zstd.compress(content)})

    def content(self) -> bytes:
        """The sources, before they are compressed.

        Raises:
            ValueError: for a value or an offset beyond ``VALUE_MAX``.
        """
        return cbor.encode([source.to_cbor() for source in self.sources])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse telemetry evidence, in time and memory that follow from its bounds.

        Not checked: that session and sequence number are the window's, that devices are enrolled, that any reading is
        plausible. Nor that the content was compressed as :meth:`encode` does it: many frames have one content.

        Raises:
            MalformedEvidence: for any content that :meth:`encode` would not have written, and for sizes out of bounds.
        """
        fields = cbor.read_versioned(data, version=VERSION, limit=limits.TELEMETRY_MAX, what="telemetry")
        session = fields.octets(1, size=_SESSION_SIZE)
        seq = fields.uint(2, limit=_SEQ_MAX)
        size = fields.uint(3)
        frame = fields.octets(4)
        fields.end()
        if size > limits.TELEMETRY_CONTENT_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE,
                "the content is too large",
                where="telemetry",
                expected=f"<= {limits.TELEMETRY_CONTENT_MAX} bytes",
                got=f"{size} bytes",
            )
        content = cbor.decode(
            zstd.decompress(frame, size=size, what="telemetry"),
            limit=limits.TELEMETRY_CONTENT_MAX,
            what="telemetry.content",
            items=limits.TELEMETRY_ITEMS_MAX,
            typed_arrays=True,
        )
        items = cbor.read_array(content, where="telemetry.sources", limit=limits.TELEMETRY_SOURCES_MAX)
        budget = Budget(limits.TELEMETRY_VALUES_MAX)
        sources = tuple(
            Source.from_cbor(item, budget=budget, where=f"telemetry.source[{number}]")
            for number, item in enumerate(items)
        )
        if len({(source.device, source.name) for source in sources}) != len(sources):
            raise MalformedEvidence(Code.DUPLICATE_KEY, "a device has two sources of one name", where="telemetry")
        return cls(session=session, seq=seq, sources=sources)


def _offsets(packed: cbor.CborValue, *, budget: Budget, where: str) -> tuple[int, ...]:
    offsets = unpack(packed, budget=budget, where=where)
    if len(offsets) > limits.TELEMETRY_SAMPLES_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "too many samples", where=where, expected=f"<= {limits.TELEMETRY_SAMPLES_MAX}"
        )
    if not ascends(offsets):
        raise MalformedEvidence(Code.FIELD_RANGE, "offsets do not ascend from zero", where=where)
    return offsets.values


def _events(items: list[cbor.CborValue], *, where: str) -> tuple[Event, ...]:
    events = tuple(Event.from_cbor(item, where=f"{where}[{number}]") for number, item in enumerate(items))
    orders = [event.order for event in events]
    if any(later <= earlier for earlier, later in pairwise(orders)):
        raise MalformedEvidence(Code.FIELD_RANGE, "events are out of order", where=where)
    return events
