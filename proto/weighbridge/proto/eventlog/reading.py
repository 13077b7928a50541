"""Reading a log of whichever dialect it is in."""

from __future__ import annotations

from typing import Final, assert_never

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog import cel, ima, records, systemd, tcg2
from weighbridge.proto.eventlog.events import EventLog, Format
from weighbridge.proto.measurement_log import parse_records

__all__ = ["detect", "read"]

# RFC 8949 §3: the first byte of an array.
_CBOR_ARRAY: Final = range(0x80, 0xA0)
_TLV_REGISTERS: Final = (1, 2, 108)
_TLV_RECNUM_MAX: Final = 8
_TLV_REGISTER_MAX: Final = 4
# A PCR, 20 bytes of digest, and the length of a template's name come before the name.
_IMA_NAME: Final = 28
_IMA_NAMES: Final = (b"ima", b"evm-")
_TCG2_HEADER: Final = 32


def detect(data: bytes) -> Format:
    """The dialect that ``data`` begins like. A guess: what it is not, its parser refuses.

    Raises:
        MalformedEvidence: ``VERSION_UNSUPPORTED`` when it begins like none.
    """
    if data and data[0] in _CBOR_ARRAY:
        return Format.WEIGHBRIDGE
    if data.startswith(systemd.SEPARATOR):
        return Format.SYSTEMD
    if _begins_like_cel(data):
        return Format.CEL
    if len(data) > _TCG2_HEADER and int.from_bytes(data[:4], "little") < limits.PCRS_MAX:
        return Format.IMA if data[_IMA_NAME:].startswith(_IMA_NAMES) else Format.TCG2
    raise MalformedEvidence(
        Code.VERSION_UNSUPPORTED,
        "begins like no event log that is read",
        where="log[0]",
        expected=", ".join(Format),
        got=data[:16],
        hint="name its format; text (ASCII, base64) has to be made binary first",
    )


def read(data: bytes, form: Format | None = None, *, rule: ima.Rule = ima.Rule.REHASHED) -> EventLog:
    """The log that fills ``data``, well-formed: digests that can be recomputed from their content are that content's.

    Order and completeness are not checked here, and nothing is replayed.

    Args:
        data: untrusted.
        form: the dialect; guessed when ``None``.
        rule: what the kernel extends for an entry of IMA's list.

    Raises:
        MalformedEvidence: as the dialect's ``parse``.
    """
    form = detect(data) if form is None else form
    match form:
        case Format.WEIGHBRIDGE:
            return records.to_log(parse_records(data))
        case Format.CEL:
            parsed = cel.parse(data)
            if parsed and records.is_ours(parsed):
                return records.to_log(records.from_cel(parsed), Format.CEL)
            return cel.to_log(parsed)
        case Format.TCG2:
            return tcg2.to_log(tcg2.parse(data))
        case Format.IMA:
            return ima.to_log(ima.parse(data), rule)
        case Format.SYSTEMD:
            return systemd.to_log(systemd.parse(data))
        case _:
            assert_never(form)


def _begins_like_cel(data: bytes) -> bool:
    size = int.from_bytes(data[1:5])
    after = data[5 + size : 10 + size] if size <= _TLV_RECNUM_MAX else b""
    return (
        data[:1] == b"\0"
        and size >= 1
        and after[:1] != b""
        and after[0] in _TLV_REGISTERS
        and 1 <= int.from_bytes(after[1:]) <= _TLV_REGISTER_MAX
    )
