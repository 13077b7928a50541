"""Event logs of the field, read strictly and replayed: the log itself says nothing until a quote agrees.

=============  =======================================================================
``cel``        TCG's Canonical Event Log, TLV: Confidential Space, and our own exports
``tcg2``       firmware's boot log, crypto-agile
``ima``        what the Linux kernel measured
``systemd``    what systemd measured after the firmware
``records``    our own records as CEL TLV, and back
``reading``    any of them, by name or by how it begins
``events``     what they have in common, and the values that they lead to
``uefi``       structures inside the events of firmware
``boot_order`` whether firmware's log tells of a whole boot
``reader``     the bounded reader under all of them
=============  =======================================================================
"""

from __future__ import annotations

from weighbridge.proto.eventlog.boot_order import require_whole_boot
from weighbridge.proto.eventlog.events import Binding, Event, EventLog, Format, Register, RegisterKind, replay, require
from weighbridge.proto.eventlog.ima import Rule
from weighbridge.proto.eventlog.reading import detect, read

__all__ = [
    "Binding",
    "Event",
    "EventLog",
    "Format",
    "Register",
    "RegisterKind",
    "Rule",
    "detect",
    "read",
    "replay",
    "require",
    "require_whole_boot",
]
