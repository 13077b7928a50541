"""TCG's Canonical Event Log in its TLV encoding, the one in which implementations interoperate.

A TLV is an 8-bit type, a 32-bit big-endian length, and that many bytes. A record is four of them::

    0 recnum     1 pcr | 2 nv_index | 108 CCMR     3 digests {TPM_ALG_ID: digest}     content type: content

Which bytes a digest covers is the content type's affair, and is checked for these:

==  ============  =========================================================================================
 4  cel           the log's own bookkeeping: extends nothing
 5  pcclient_std  as in firmware's own log: of the data, for the event types whose digest is that
 7  ima_template  the template data
80  cos           the whole content, its type and length with it (Confidential Space)
87  weighbridge   the value of the content, exactly the bytes at key 87 of the CBOR record (:mod:`.records`)
==  ============  =========================================================================================

Any other content is kept as it is, and its digests are only as good as the replay.

Accepted because implementations differ: recnum of 1 to 8 bytes, register of 1 to 4, digests in any order. Written is
one form: recnum of 8 bytes, register of 1 (PCR, CCMR) or 4 (NV index), digests ascending, as google/go-eventlog does.
After TCG CEL v1.0 as the implementations read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog import ima, tcg2
from weighbridge.proto.eventlog.events import Binding, Event, EventLog, Format, Register, RegisterKind
from weighbridge.proto.eventlog.reader import LogReader
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CelRecord", "Content", "encode_record", "parse", "to_log"]

_CLAUSE: Final = "TCG CEL v1.0"
_RECNUM: Final = 0
_DIGESTS: Final = 3
_REGISTERS: Final = {1: RegisterKind.PCR, 2: RegisterKind.NV, 108: RegisterKind.CCMR}
_REGISTER_TYPES: Final = {kind: number for number, kind in _REGISTERS.items()}
_NO_CONTENT: Final = frozenset({_RECNUM, _DIGESTS, *_REGISTERS})
_RECNUM_SIZE: Final = 8
_REGISTER_SIZE_MAX: Final = 4
_REGISTER_SIZES: Final = {RegisterKind.PCR: 1, RegisterKind.NV: 4, RegisterKind.CCMR: 1}
_CCMRS_MAX: Final = 4
_DIGEST_SIZE_MAX: Final = 64
_BANKS_MAX: Final = 16
_TEXT_MAX: Final = 120


class Content(IntEnum):
    """Content types. The numbers below 10 are TCG's; 80 and 87 are private."""

    CEL = 4
    PCCLIENT_STD = 5
    IMA_TEMPLATE = 7
    IMA_TLV = 8
    COS = 80
    WEIGHBRIDGE = 87


# Confidential Space's launcher (google/go-tpm-tools `launcher`): what a content of type 80 holds.
_COS_TYPES: Final = (
    "image_reference",
    "image_digest",
    "restart_policy",
    "image_id",
    "argument",
    "environment",
    "override_argument",
    "override_environment",
    "launch_separator",
    "memory_monitor",
    "gpu_cc_mode",
)
# Two spellings of the last two numbers are in use: read as decimal and as hexadecimal.
_CEL_TYPES: Final = {
    1: "version",
    2: "firmware_end",
    80: "timestamp",
    81: "state_transition",
    0x80: "timestamp",
    0x81: "state_transition",
}


@final
@dataclass(frozen=True, slots=True)
class CelRecord:
    """A well-formed record whose digests fit its content where that can be recomputed.

    ``content`` is the exact value of the content's TLV, of type ``content_type``. ``raw`` is the record's exact bytes;
    it is not compared, since one record has several spellings.
    """

    recnum: int
    register: Register
    digests: tuple[tuple[int, bytes], ...]
    content_type: int
    content: bytes
    binding: Binding
    raw: bytes


def parse(data: bytes) -> tuple[CelRecord, ...]:
    """Parse the records that fill ``data``. Their order and completeness are not checked: a replay does.

    Raises:
        MalformedEvidence: ``LOG_DIGEST`` naming the record whose digest is not that of its content, or a decoding
            code.
    """
    reader = LogReader(data, "log")
    records: list[CelRecord] = []
    while reader.more:
        if len(records) >= limits.EVENT_LOG_EVENTS_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE, "too many records", where="log", expected=f"<= {limits.EVENT_LOG_EVENTS_MAX}"
            )
        records.append(_record(reader))
    return tuple(records)


def encode_record(
    recnum: int, register: Register, digests: Iterable[tuple[int, bytes]], content_type: int, content: bytes
) -> bytes:
    """One record. Nothing is checked: what a parser would refuse is written all the same."""
    size = _REGISTER_SIZES[register.kind]
    return b"".join(
        (
            _tlv(_RECNUM, recnum.to_bytes(_RECNUM_SIZE)),
            _tlv(_REGISTER_TYPES[register.kind], register.index.to_bytes(size)),
            _tlv(_DIGESTS, b"".join(_tlv(bank, value) for bank, value in sorted(digests))),
            _tlv(content_type, content),
        )
    )


def to_log(records: Iterable[CelRecord]) -> EventLog:
    """``records`` as any log, for their replay.

    Raises:
        MalformedEvidence: ``LOG_EVENT`` for a start locality that is not one, comes late or twice.
    """
    kept = tuple(records)
    standard = (
        (record.register.index, *_standard_event(record.content, f"log[{record.recnum}]"))
        for record in kept
        if record.content_type == Content.PCCLIENT_STD and record.register.kind is RegisterKind.PCR
    )
    return EventLog(Format.CEL, tuple(_common(record) for record in kept), tcg2.start_locality(standard))


def _record(reader: LogReader) -> CelRecord:
    start = reader.offset
    recnum = _number(reader, _RECNUM_SIZE, "recnum", {_RECNUM})[1]
    kind, index = _number(reader, _REGISTER_SIZE_MAX, "register", _REGISTERS)
    register = Register(_REGISTERS[kind], index)
    _check_index(register, reader.place)
    digests = _digests(reader)
    content_type, content = reader.u8(), reader.take(reader.be32())
    return CelRecord(
        recnum=recnum,
        register=register,
        digests=digests,
        content_type=content_type,
        content=content,
        binding=_check_content(recnum, content_type, content, digests),
        raw=reader.since(start),
    )


def _number(reader: LogReader, size_max: int, what: str, types: Iterable[int]) -> tuple[int, int]:
    """The type and value of a TLV that holds an integer."""
    where = reader.place
    kind, size = reader.u8(), reader.be32()
    if kind not in types:
        raise MalformedEvidence(
            Code.FIELD_TYPE, f"no {what} where a record has one", where=where, got=f"type {kind}", clause=_CLAUSE
        )
    if not 1 <= size <= size_max:
        raise MalformedEvidence(
            Code.FIELD_RANGE, f"{what} has a wrong length", where=where, expected=f"1..{size_max} bytes", got=size
        )
    return kind, int.from_bytes(reader.take(size))


def _check_index(register: Register, where: str) -> None:
    bad = (register.kind is RegisterKind.PCR and register.index >= limits.PCRS_MAX) or (
        register.kind is RegisterKind.CCMR and register.index > _CCMRS_MAX
    )
    if bad:
        raise MalformedEvidence(Code.FIELD_RANGE, "no such register", where=where, got=str(register))


def _digests(reader: LogReader) -> tuple[tuple[int, bytes], ...]:
    where = reader.place
    kind, size = reader.u8(), reader.be32()
    if kind != _DIGESTS:
        raise MalformedEvidence(
            Code.FIELD_TYPE, "no digests where a record has them", where=where, got=f"type {kind}", clause=_CLAUSE
        )
    part = reader.part(size)
    digests: dict[int, bytes] = {}
    while part.more and len(digests) < _BANKS_MAX:
        where = part.place
        bank, length = part.u8(), part.be32()
        expected = digest_size(HashAlgorithm(bank)) if bank in _OURS else length
        if length != expected or not 1 <= length <= _DIGEST_SIZE_MAX:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "digest has a wrong length",
                where=where,
                expected=f"{expected} bytes" if bank in _OURS else f"1..{_DIGEST_SIZE_MAX} bytes",
                got=f"{bank:#06x}, {length} bytes",
            )
        if bank in digests:
            raise MalformedEvidence(Code.DUPLICATE_KEY, "record has two digests of one bank", where=where, got=bank)
        digests[bank] = part.take(length)
    part.end()
    if not digests:
        raise MalformedEvidence(Code.FIELD_MISSING, "record has no digest", where=where)
    return tuple(sorted(digests.items()))


_OURS: Final = frozenset(HashAlgorithm)


def _check_content(recnum: int, content_type: int, content: bytes, digests: tuple[tuple[int, bytes], ...]) -> Binding:
    """What ties the content to the digests, after recomputing those that can be."""
    where = f"log[{recnum}]"
    match content_type:
        case Content.CEL:
            _inner(content, where)
            return Binding.NONE
        case Content.PCCLIENT_STD:
            event_type, data = _standard_event(content, where)
            return tcg2.check_content(event_type, data, digests, number=recnum)
        case kind if kind in _NO_CONTENT:
            raise MalformedEvidence(
                Code.FIELD_TYPE, "no content where a record has it", where=where, got=f"type {kind}", clause=_CLAUSE
            )
        case Content.IMA_TEMPLATE:
            hashed = ima.hashed_bytes(*_template(content, where))
        case Content.COS:
            _inner(content, where)
            hashed = _tlv(content_type, content)
        case Content.WEIGHBRIDGE:
            hashed = content
        case _:
            return Binding.OPAQUE
    compared = False
    for bank, value in digests:
        if bank in _OURS:
            compared = True
            expected = digest(HashAlgorithm(bank), hashed)
            if value != expected:
                raise MalformedEvidence(
                    Code.LOG_DIGEST,
                    "digest is not that of the content",
                    where=f"{where}.{HashAlgorithm(bank).name.lower()}",
                    expected=expected,
                    got=value,
                    clause=_CLAUSE,
                )
    return Binding.CONTENT if compared else Binding.OPAQUE


def _inner(content: bytes, where: str) -> tuple[int, bytes]:
    """The one TLV that a content of ours to read holds."""
    reader = LogReader(content, f"{where}.content")
    kind, value = reader.u8(), reader.take(reader.be32())
    reader.end()
    return kind, value


def _pair(content: bytes, where: str) -> tuple[bytes, bytes]:
    """The TLVs 0 and 1 that a content is made of."""
    reader = LogReader(content, f"{where}.content")
    values: list[bytes] = []
    for expected in (0, 1):
        place = reader.place
        kind = reader.u8()
        if kind != expected:
            raise MalformedEvidence(
                Code.FIELD_TYPE, "part of the content", where=place, expected=f"type {expected}", got=f"type {kind}"
            )
        values.append(reader.take(reader.be32()))
    reader.end()
    return values[0], values[1]


def _standard_event(content: bytes, where: str) -> tuple[int, bytes]:
    number, data = _pair(content, where)
    if not 1 <= len(number) <= _REGISTER_SIZE_MAX:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "event type has a wrong length", where=f"{where}.content", expected="1..4 bytes"
        )
    return int.from_bytes(number), data


def _template(content: bytes, where: str) -> tuple[str, bytes]:
    name, data = _pair(content, where)
    return ima.template_name(name, where=f"{where}.content"), data


def _common(record: CelRecord) -> Event:
    kind, text = _describe(record)
    return Event(
        number=record.recnum,
        register=record.register,
        digests=() if record.binding is Binding.NONE else record.digests,
        binding=record.binding,
        kind=kind,
        text=text,
    )


def _describe(record: CelRecord) -> tuple[str, str]:
    where = f"log[{record.recnum}]"
    match record.content_type:
        case Content.CEL:
            kind, value = _inner(record.content, where)
            return f"cel.{_CEL_TYPES.get(kind, kind)}", value.hex()[:_TEXT_MAX]
        case Content.PCCLIENT_STD:
            event_type, data = _standard_event(record.content, where)
            return tcg2.type_name(event_type), tcg2.describe(event_type, data)
        case Content.IMA_TEMPLATE:
            name, data = _template(record.content, where)
            return name, ima.describe(name, data, where=where)
        case Content.COS:
            kind, value = _inner(record.content, where)
            name = _COS_TYPES[kind] if kind < len(_COS_TYPES) else str(kind)
            return f"cos.{name}", tcg2.describe(0, value)
        case Content.WEIGHBRIDGE:
            return "weighbridge", f"{len(record.content)} bytes"
        case _:
            return f"content {record.content_type}", f"{len(record.content)} bytes"


def _tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(4) + value
