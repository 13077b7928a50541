"""What a boot's own logs lead to: firmware's events first, then systemd's, as one log.

Both parties compute it: the attester to know whether its measurement log may begin where the register stands, the
verifier to replay that log from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.eventlog import events as event_logs
from weighbridge.proto.eventlog import systemd, tcg2
from weighbridge.proto.eventlog.events import Binding, Event, EventLog, Format, Register, RegisterKind
from weighbridge.proto.tpm.constants import HashAlgorithm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.proto.boot import BootLogs

__all__ = ["baseline", "joined", "numbered", "replayed", "value_of"]


def baseline(logs: BootLogs, pcr: int, bank: HashAlgorithm) -> bytes:
    """What a boot's own events lead to in ``pcr``: the value from which a measurement log in it starts.

    It is compared with nothing here: it is right if the measurement log leads from it to a quoted value.

    Every event of that register must be one of systemd's whose text is what was measured. A record of a measurement log
    is no text (CBOR, of which the first byte begins no UTF-8 character): so none that was extended before can be passed
    off as the boot's, and the load that it tells of be hidden. Firmware measures nothing there.

    Args:
        logs: untrusted.
        pcr: the register of the measurement log.
        bank: not SHA-1.

    Raises:
        MalformedEvidence: ``LOG_SHA1_ONLY``, ``LOG_DIGEST``, ``LOG_EVENT``, or another decoding code.
        NotAuthentic: ``BOOT_LOG`` for an event without a digest for the bank, or of which the log does not show what
            was measured.
        ValueError: for the SHA-1 bank.
    """
    if bank is HashAlgorithm.SHA1:
        raise ValueError("no verdict rests on the SHA-1 bank")
    firmware_log = tcg2.to_log(tcg2.parse(logs.firmware)) if logs.firmware else EventLog(Format.TCG2, ())
    whole = joined(firmware_log, systemd.to_log(systemd.parse(logs.userspace or b"")))
    register = Register.pcr(pcr)
    of_it = tuple(event for event in whole.events if event.register == register)
    measured = sum(event.extends and event.register == register for event in firmware_log.events)
    for number, event in enumerate(of_it):
        if number < measured or event.binding is not Binding.CONTENT:
            raise NotAuthentic(
                Code.BOOT_LOG,
                "what was measured before the measurement log began is not shown",
                where=f"{register}: {event.kind} {event.text}",
                hint="keep the measurement log in a register that nobody else measures keys into: --log-pcr",
            )
    only = EventLog(Format.TCG2, numbered(of_it), whole.locality)
    return value_of(replayed(only, bank), register, bank, whole.locality)


def joined(firmware: EventLog, userspace: EventLog) -> EventLog:
    """One log: systemd extends what firmware has extended before it. What extends no PCR is left out."""
    events = [*firmware.events, *userspace.events]
    kept = [event for event in events if event.extends and event.register.kind is RegisterKind.PCR]
    return EventLog(Format.TCG2, numbered(kept), firmware.locality)


def numbered(events: Iterable[Event]) -> tuple[Event, ...]:
    """``events`` as a log of their own."""
    return tuple(
        Event(number, event.register, event.digests, event.binding, event.kind, event.text)
        for number, event in enumerate(events)
    )


def replayed(log: EventLog, bank: HashAlgorithm) -> dict[Register, bytes]:
    """The values to which ``log`` leads.

    Raises:
        NotAuthentic: ``BOOT_LOG`` for an event without a digest for the bank.
    """
    try:
        return event_logs.replay(log, bank)
    except NotAuthentic as error:
        raise NotAuthentic(
            Code.BOOT_LOG,
            "an event of the boot has no digest for the quoted bank",
            where=error.where,
            expected=bank.name.lower(),
            hint="quote a bank that firmware and systemd both extend: `weighbridge inspect log` names them",
        ) from error


def value_of(values: Mapping[Register, bytes], register: Register, bank: HashAlgorithm, locality: int) -> bytes:
    """What ``register`` holds where ``values`` does not say: what a reset leaves."""
    found = values.get(register)
    return event_logs.start_value(register, bank, locality=locality) if found is None else found
