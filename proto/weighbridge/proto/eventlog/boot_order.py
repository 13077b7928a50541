"""Whether firmware's log tells of a whole boot: what is measured before the operating system, and what cannot be.

Firmware closes each of PCR 0 to 7 with one ``EV_SEPARATOR`` before it offers the machine to anything else, and says in
PCR 5 that boot services have ended (PC Client Platform Firmware Profile 1.06, on both events). A log in which a
separator is missing or comes twice leads to a genuine value only if somebody else extended the register; one that ends
before boot services did says nothing of what ran after it.

Not checked: what lies between, and whether any of it is good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, Indeterminate, NotAuthentic
from weighbridge.proto.eventlog.events import Register, RegisterKind

if TYPE_CHECKING:
    from collections.abc import Collection

    from weighbridge.proto.eventlog.events import EventLog

__all__ = ["require_whole_boot"]

_SEPARATED: Final = range(8)
_SEPARATOR: Final = "EV_SEPARATOR"
_ACTION: Final = "EV_EFI_ACTION"
# The profile's words for it.
_EXITED: Final = "Exit Boot Services Returned with Success"


def require_whole_boot(log: EventLog, registers: Collection[Register]) -> None:
    """Require that ``log``, of firmware, closes each of ``registers`` once and ends behind the boot services.

    Args:
        log: in the format of firmware; replayed by the caller.
        registers: those that a verdict rests on. Others than PCR 0 to 7 are firmware's business no more.

    Raises:
        NotAuthentic: ``LOG_EVENT`` for a separator that is missing or there twice.
        Indeterminate: ``LOG_EVENT`` when boot services did not end.
    """
    firmware = sorted(item for item in registers if item.kind is RegisterKind.PCR and item.index in _SEPARATED)
    for register in firmware:
        found = [event.number for event in log.events if event.register == register and event.kind == _SEPARATOR]
        if len(found) != 1:
            raise NotAuthentic(
                Code.LOG_EVENT,
                f"{register} is closed by {len(found)} separators",
                where=f"log[{found[1]}]" if found else "log",
                expected="one before the operating system is loaded",
                clause="PC Client Platform Firmware Profile 1.06",
                hint="events were left out, or somebody else extended the register and wrote them himself",
            )
    if firmware and not any(event.kind == _ACTION and event.text == _EXITED for event in log.events):
        raise Indeterminate(
            Code.LOG_EVENT,
            "the log ends before the boot services did",
            where="log",
            expected=_EXITED,
            clause="PC Client Platform Firmware Profile 1.06",
            hint="read it after the system is up; some loaders leave no such event: then nothing vouches for the rest",
        )
