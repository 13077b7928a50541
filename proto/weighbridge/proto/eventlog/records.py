"""Our own measurement log as CEL TLV, and back: nothing is lost either way.

The content of a TLV record is of the private type 87, "W", and its value is the byte string at key 87 of the CBOR
record, exactly as it was hashed. So record numbers, registers, digests and content are the same bytes in both; the
CBOR record is deterministic, so it can be made again, and with it the log's head.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog import cel
from weighbridge.proto.eventlog.events import Binding, Event, EventLog, Format, Register, RegisterKind
from weighbridge.proto.measurement_log import Record, parse_record

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["from_cel", "is_ours", "to_cel", "to_log"]

# Keys of a CBOR record: TCG CEL v1.0 for the first three, private for the last (docs/protocol.md §6.5).
_RECNUM, _PCR, _DIGESTS, _CONTENT = 0, 1, 3, 87
_PREFIX: Final = "weighbridge/v1/"


def to_cel(records: Iterable[Record]) -> bytes:
    """``records`` as CEL TLV. Where the log began is not in it: the register's value before the first record."""
    return b"".join(
        cel.encode_record(
            record.recnum, Register.pcr(record.pcr), record.digests, cel.Content.WEIGHBRIDGE, _content(record)
        )
        for record in records
    )


def is_ours(records: Iterable[cel.CelRecord]) -> bool:
    """Whether every one of ``records`` holds a content of ours."""
    return all(record.content_type == cel.Content.WEIGHBRIDGE for record in records)


def from_cel(records: Iterable[cel.CelRecord]) -> tuple[Record, ...]:
    """The records of ours that were exported as ``records``. Their order and completeness are not checked.

    Raises:
        MalformedEvidence: ``FIELD_TYPE`` for somebody else's content, or a register that is no PCR; ``TOO_LARGE`` for
            more records than a log of ours has; otherwise as :func:`weighbridge.proto.measurement_log.parse_record`.
    """
    imported: list[Record] = []
    for record in records:
        where = f"log[{record.recnum}]"
        if record.content_type != cel.Content.WEIGHBRIDGE or record.register.kind is not RegisterKind.PCR:
            raise MalformedEvidence(
                Code.FIELD_TYPE,
                "no record of a measurement log of ours",
                where=where,
                expected=f"content {cel.Content.WEIGHBRIDGE.value} of a PCR",
                got=f"content {record.content_type} of {record.register}",
            )
        if len(imported) >= limits.LOG_RECORDS_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE, "too many records", where="log", expected=f"<= {limits.LOG_RECORDS_MAX}"
            )
        imported.append(
            parse_record(
                cbor.encode(
                    {
                        _RECNUM: record.recnum,
                        _PCR: record.register.index,
                        _DIGESTS: dict(record.digests),
                        _CONTENT: record.content,
                    }
                )
            )
        )
    return tuple(imported)


def to_log(records: Iterable[Record], form: Format = Format.WEIGHBRIDGE) -> EventLog:
    """``records`` as any log, for their replay."""
    return EventLog(form, tuple(_common(record) for record in records))


def _common(record: Record) -> Event:
    said = ((field.name, getattr(record.event, field.name)) for field in fields(record.event))
    return Event(
        number=record.recnum,
        register=Register.pcr(record.pcr),
        digests=tuple((bank.value, value) for bank, value in record.digests),
        binding=Binding.CONTENT,
        kind=_kind(record),
        text=" ".join(f"{name}={_shown(value)}" for name, value in said if value not in (None, "")),
    )


def _content(record: Record) -> bytes:
    decoded = cbor.read_map(cbor.decode(record.raw, limit=limits.LOG_RECORD_MAX, what="record"), where="record")
    return decoded.octets(_CONTENT)


def _kind(record: Record) -> str:
    content = cbor.decode(_content(record), limit=limits.LOG_RECORD_MAX, what="record.content")
    return str(cbor.read_array(content, where="record.content", limit=2)[0]).removeprefix(_PREFIX)


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
