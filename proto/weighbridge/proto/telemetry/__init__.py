"""Telemetry evidence: samples of what sensors read during one window, in integers.

CBOR map ``{0: version, 1: session, 2: seq, 3: size, 4: content}``: the sources are deterministic CBOR, compressed to
one zstd frame, and ``size`` is theirs before that. Offsets and values are typed arrays of *differences*, so that
nothing is rounded and no sequence has two encodings; what a device refuses to report is ``null``, and a reading that
failed is named in an array beside. Byte layout: ``docs/protocol.md`` §6.4.

*The host says so*: no reading is signed by a sensor. Readings can contradict and corroborate, never vouch.

>>> read = {"power": Channel("mW", (417_900, None, 418_300), window_ns=10**9)}
>>> source = Source(device=None, name="x", start_wall_ns=0, period_ns=10, offsets=(0, 10, 20), channels=read)
>>> telemetry = Telemetry(session=bytes(16), seq=0, sources=(source,))
>>> Telemetry.parse(telemetry.encode()) == telemetry
True
"""

from __future__ import annotations

from weighbridge.proto.telemetry.channels import UNITS, VALUE_MAX, WINDOWS_NS, Channel, Event, EventKind
from weighbridge.proto.telemetry.differences import Packed
from weighbridge.proto.telemetry.message import VERSION, Source, Telemetry

__all__ = [
    "UNITS",
    "VALUE_MAX",
    "VERSION",
    "WINDOWS_NS",
    "Channel",
    "Event",
    "EventKind",
    "Packed",
    "Source",
    "Telemetry",
]
