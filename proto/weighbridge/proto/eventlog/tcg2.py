"""The boot log of UEFI firmware: TCG's crypto-agile binary log, as Linux shows it in ``binary_bios_measurements``.

Layout (PC Client Platform Firmware Profile 1.06 §10.2), little-endian: first one event of the old format that carries
``TCG_EfiSpecIdEvent`` ("Spec ID Event03", the banks and the lengths of their digests), then
``TCG_PCR_EVENT2``: PCR, type, one digest per bank, data. ``EV_NO_ACTION`` extends nothing; ``StartupLocality`` among
these sets the value that PCR 0 starts from.

What is not proven: of most types the digest is of something that the log does not hold (a loaded image, a variable's
content), so their data are only claimed. For the types of :data:`HASHED` the digest must be that of the data. No digest
covers the type: data that mean something else under another type can be shown as that.

Narrower than the profile: one digest per bank in every event, no padding after the last one. The old format, which has
SHA-1 digests only, is refused with its own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog.events import Binding, Event, EventLog, Format, Register
from weighbridge.proto.eventlog.reader import LogReader
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "HASHED",
    "SIGNATURE",
    "BootEvent",
    "BootLog",
    "check_content",
    "describe",
    "parse",
    "start_locality",
    "to_log",
    "type_name",
]

SIGNATURE: Final = b"Spec ID Event03\0"
_CLAUSE: Final = "PC Client Platform Firmware Profile 1.06 §10.4.5.1"

_NO_ACTION: Final = 0x00000003
_SEPARATOR: Final = 0x00000004
_VARIABLE_DRIVER_CONFIG: Final = 0x80000001
_VARIABLE_BOOT: Final = 0x80000002
_GPT_EVENT: Final = 0x80000006
_ACTION: Final = 0x80000007
_VARIABLE_BOOT2: Final = 0x8000000C
_VARIABLE_AUTHORITY: Final = 0x800000E0

# The same profile, §10.4.1, table 27: names of the event types.
_TYPES: Final = {
    0x00000000: "EV_PREBOOT_CERT",
    0x00000001: "EV_POST_CODE",
    _NO_ACTION: "EV_NO_ACTION",
    _SEPARATOR: "EV_SEPARATOR",
    0x00000005: "EV_ACTION",
    0x00000006: "EV_EVENT_TAG",
    0x00000007: "EV_S_CRTM_CONTENTS",
    0x00000008: "EV_S_CRTM_VERSION",
    0x00000009: "EV_CPU_MICROCODE",
    0x0000000A: "EV_PLATFORM_CONFIG_FLAGS",
    0x0000000B: "EV_TABLE_OF_DEVICES",
    0x0000000C: "EV_COMPACT_HASH",
    0x0000000D: "EV_IPL",
    0x0000000E: "EV_IPL_PARTITION_DATA",
    0x0000000F: "EV_NONHOST_CODE",
    0x00000010: "EV_NONHOST_CONFIG",
    0x00000011: "EV_NONHOST_INFO",
    0x00000012: "EV_OMIT_BOOT_DEVICE_EVENTS",
    0x00000013: "EV_POST_CODE2",
    _VARIABLE_DRIVER_CONFIG: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    _VARIABLE_BOOT: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    _GPT_EVENT: "EV_EFI_GPT_EVENT",
    _ACTION: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    _VARIABLE_BOOT2: "EV_EFI_VARIABLE_BOOT2",
    0x8000000D: "EV_EFI_GPT_EVENT2",
    0x80000010: "EV_EFI_HCRTM_EVENT",
    _VARIABLE_AUTHORITY: "EV_EFI_VARIABLE_AUTHORITY",
    0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
    0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}

# Types whose digest is that of the event's data in every log that was seen. A separator whose digest is another says
# that the boot went wrong (§10.4.1), and is refused like the rest. EV_S_CRTM_VERSION and the other variables ought
# to be here too, but firmware in the field hashes other bytes.
HASHED: Final = frozenset({_SEPARATOR, _VARIABLE_DRIVER_CONFIG, _GPT_EVENT, _ACTION})

_VARIABLES: Final = frozenset({_VARIABLE_DRIVER_CONFIG, _VARIABLE_BOOT, _VARIABLE_BOOT2, _VARIABLE_AUTHORITY})
_LOCALITY: Final = b"StartupLocality\0"
_LOCALITIES: Final = frozenset({0, 3, 4})
_OLD_DIGEST_SIZE: Final = 20
# HASH_COUNT of the TPM's reference implementation is below this.
_BANKS_MAX: Final = 16
_BANK_SIZE_MAX: Final = 64
_VERSION: Final = (0, 2)  # minor, major, as on the wire
_TEXT_MAX: Final = 120


@final
@dataclass(frozen=True, slots=True)
class BootEvent:
    """One TCG_PCR_EVENT2. ``digests`` pairs TPM_ALG_IDs with digests, in the order of the log.

    ``data`` is what firmware says of it; ``binding`` whether the digests vouch for that.
    """

    pcr: int
    type: int
    digests: tuple[tuple[int, bytes], ...]
    data: bytes
    binding: Binding


@final
@dataclass(frozen=True, slots=True)
class BootLog:
    """A well-formed boot log. ``banks`` is what its header announces; ``locality`` where the boot began."""

    banks: tuple[int, ...]
    events: tuple[BootEvent, ...]
    locality: int


def parse(data: bytes) -> BootLog:
    """Parse a crypto-agile boot log that fills ``data``, and recompute the digests that can be.

    Raises:
        MalformedEvidence: ``LOG_SHA1_ONLY`` for the old format; ``LOG_DIGEST`` naming the event whose digest is not
            that of its data; ``LOG_EVENT`` for a start locality that is not one, comes late or twice;
            ``VERSION_UNSUPPORTED``, or a decoding code.
    """
    reader = LogReader(data, "log")
    sizes = _header(reader)
    events: list[BootEvent] = []
    while reader.more:
        if len(events) >= limits.EVENT_LOG_EVENTS_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE, "too many events", where="log", expected=f"<= {limits.EVENT_LOG_EVENTS_MAX}"
            )
        events.append(_event(reader, sizes, len(events)))
    locality = start_locality((event.pcr, event.type, event.data) for event in events)
    return BootLog(tuple(sizes), tuple(events), locality)


def to_log(boot: BootLog) -> EventLog:
    """``boot`` as any log, for its replay."""
    return EventLog(
        Format.TCG2, tuple(_common(number, event) for number, event in enumerate(boot.events)), boot.locality
    )


def start_locality(events: Iterable[tuple[int, int, bytes]]) -> int:
    """The locality at which the boot began: 0 unless a ``StartupLocality`` among ``events`` says 3 or 4.

    Args:
        events: PCR, type and data of each, in order.

    Raises:
        MalformedEvidence: ``LOG_EVENT`` for a start locality that is not one, comes late or twice.
    """
    locality = 0
    begun = False
    for number, (pcr, event_type, data) in enumerate(events):
        if pcr != 0:
            continue
        if event_type == _NO_ACTION and data.startswith(_LOCALITY):
            stated = data[len(_LOCALITY) :]
            if begun or len(stated) != 1 or stated[0] not in _LOCALITIES:
                raise MalformedEvidence(
                    Code.LOG_EVENT,
                    "start locality is not one, comes late or twice",
                    where=f"log[{number}]",
                    expected="0, 3 or 4, once, before PCR 0 is extended",
                    got=stated,
                    clause="PC Client Platform Firmware Profile 1.06 §10.4.5.3",
                )
            locality = stated[0]
            begun = True
        begun = begun or event_type != _NO_ACTION
    return locality


def type_name(event_type: int) -> str:
    """Such as ``EV_SEPARATOR``; a type that the profile does not name is shown by number."""
    return _TYPES.get(event_type, f"EV_{event_type:#010x}")


def check_content(event_type: int, data: bytes, digests: tuple[tuple[int, bytes], ...], *, number: int) -> Binding:
    """Whether the digests are those of the data; for the types of :data:`HASHED` they must be.

    Args:
        event_type: the event's type; ``EV_NO_ACTION`` is never extended, so its digests mean nothing.
        data: the event's data.
        digests: as in the event; those of algorithms that are not ours are not compared.
        number: the record's, for the message.

    Raises:
        MalformedEvidence: ``LOG_DIGEST``.
    """
    if event_type == _NO_ACTION:
        return Binding.NONE
    known = [(HashAlgorithm(bank), value) for bank, value in digests if bank in _OURS]
    wrong = next(((bank, value) for bank, value in known if digest(bank, data) != value), None)
    if wrong is None:
        return Binding.CONTENT if known else Binding.OPAQUE
    if event_type in HASHED:
        bank, value = wrong
        raise MalformedEvidence(
            Code.LOG_DIGEST,
            f"digest of {type_name(event_type)} is not that of its data",
            where=f"log[{number}].{bank.name.lower()}",
            expected=digest(bank, data),
            got=value,
            hint="" if event_type != _SEPARATOR else "firmware says so too when a boot went wrong",
        )
    return Binding.OPAQUE


def describe(event_type: int, data: bytes) -> str:
    """What an event's data say of it, for people: a variable's name, a text, or how long they are."""
    if event_type == _NO_ACTION and data.startswith(_LOCALITY):
        return f"StartupLocality {data[len(_LOCALITY) :].hex()}"
    if event_type in _VARIABLES:
        name = _variable_name(data)
        if name is not None:
            return name
    for encoding in ("utf-8", "utf-16-le"):
        try:
            text = data.decode(encoding).rstrip("\0\n")
        except UnicodeDecodeError:
            continue
        if text and text.isascii() and text.isprintable():
            return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}… ({len(data)} bytes)"
    return f"{len(data)} bytes"


_OURS: Final = frozenset(HashAlgorithm)


def _header(reader: LogReader) -> dict[int, int]:
    """The banks that the first event announces, each with the length of its digests."""
    where = reader.place
    pcr, event_type = reader.le32(), reader.le32()
    old = reader.take(_OLD_DIGEST_SIZE)
    size = reader.le32()
    part = reader.part(size)
    if pcr >= limits.PCRS_MAX:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "no PCR", where=where, expected=f"< {limits.PCRS_MAX}", got=pcr, clause=_CLAUSE
        )
    signature = part.take(min(size, len(SIGNATURE)))
    if pcr != 0 or event_type != _NO_ACTION or any(old) or signature != SIGNATURE:
        raise MalformedEvidence(
            Code.LOG_SHA1_ONLY,
            "the log has the old format, with SHA-1 digests only",
            where=where,
            expected="Spec ID Event03",
            got=type_name(event_type),
            clause=_CLAUSE,
            hint="firmware writes the crypto-agile log for a TPM 2.0; SHA-1 alone is not relied upon",
        )
    return _banks(part)


def _banks(part: LogReader) -> dict[int, int]:
    part.le32()  # platformClass: 0 client, 1 server; says nothing here
    where = part.place
    version = (part.u8(), part.u8())
    if version != _VERSION:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED,
            "unknown version of the boot log",
            where=where,
            expected="2.0",
            got=f"{version[1]}.{version[0]}",
            clause=_CLAUSE,
        )
    part.take(2)  # errata and uintnSize: no field here depends on them
    where = part.place
    count = part.le32()
    if not 1 <= count <= _BANKS_MAX:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "number of banks", where=where, expected=f"1..{_BANKS_MAX}", got=count, clause=_CLAUSE
        )
    sizes: dict[int, int] = {}
    for _ in range(count):
        where = part.place
        bank, size = part.le16(), part.le16()
        expected = digest_size(HashAlgorithm(bank)) if bank in _OURS else size
        if bank in sizes or size != expected or not 1 <= size <= _BANK_SIZE_MAX:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "a bank is announced twice, or with a wrong length",
                where=where,
                got=f"{bank:#06x}, {size} bytes",
                clause=_CLAUSE,
            )
        sizes[bank] = size
    part.take(part.u8())  # vendorInfo
    part.end()
    return sizes


def _event(reader: LogReader, sizes: dict[int, int], number: int) -> BootEvent:
    where = reader.place
    pcr, event_type, count = reader.le32(), reader.le32(), reader.le32()
    if event_type != _NO_ACTION and pcr >= limits.PCRS_MAX:
        raise MalformedEvidence(Code.FIELD_RANGE, "no PCR", where=where, expected=f"< {limits.PCRS_MAX}", got=pcr)
    if count != len(sizes):
        raise MalformedEvidence(
            Code.FIELD_RANGE, "event has not one digest per bank", where=where, expected=len(sizes), got=count
        )
    digests: dict[int, bytes] = {}
    for _ in range(count):
        place = reader.place
        bank = reader.le16()
        if bank not in sizes or bank in digests:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "digest of a bank that was not announced, or twice", where=place, got=f"{bank:#06x}"
            )
        digests[bank] = reader.take(sizes[bank])
    data = reader.sized()
    pairs = tuple(digests.items())
    return BootEvent(pcr, event_type, pairs, data, check_content(event_type, data, pairs, number=number))


def _common(number: int, event: BootEvent) -> Event:
    return Event(
        number=number,
        register=Register.pcr(event.pcr),
        digests=() if event.binding is Binding.NONE else event.digests,
        binding=event.binding,
        kind=type_name(event.type),
        text=describe(event.type, event.data),
    )


def _variable_name(data: bytes) -> str | None:
    """The name in a UEFI_VARIABLE_DATA, where the data are one."""
    try:
        reader = LogReader(data, "variable")
        reader.take(16)  # vendor GUID
        units, size = reader.le64(), reader.le64()
        name = reader.take(2 * units).decode("utf-16-le")
        reader.take(size)
    except (MalformedEvidence, UnicodeDecodeError):
        return None
    return f"{name}, {size} bytes" if name.isascii() and name.isprintable() and name else None
