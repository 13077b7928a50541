r"""systemd's log of what it measured after the firmware: ``/run/log/systemd/tpm2-measure.log``.

A JSON text sequence (RFC 7464): each record is the byte 1E, a JSON object, and a line feed. Its fields follow TCG's
Canonical Event Log in JSON, without record numbers (systemd ``docs/TPM2_PCR_MEASUREMENTS.md``, v259)::

    \x1e{"pcr":11,"digests":[{"hashAlg":"sha256","digest":"…"}],"content_type":"systemd",
         "content":{"eventType":"phase","string":"sysinit","bootId":"…","timestamp":…}}\n

``nv_index`` stands in place of ``pcr`` for the registers that systemd keeps in NV indices. A digest is of the string as
UTF-8 without a final zero where the string is what was measured; of a volume's key the log holds a name only. For the
types of :data:`HASHED` it must fit, unless the string was escaped or cut for the log.

Not vouched for by any digest: the type, the boot, the time, and every other field of the content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog.events import Binding, Event, EventLog, Format, Register, RegisterKind
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size

__all__ = ["HASHED", "SEPARATOR", "Record", "parse", "to_log"]

# RFC 7464 §2.
SEPARATOR: Final = b"\x1e"
_END: Final = b"\n"

# Types whose string is what is hashed. Of others (volume-key, and what later versions add) it may be.
HASHED: Final = frozenset({"phase", "machine-id", "filesystem"})
# systemd v259 src/pcrextend/pcrextend.c, escape_and_truncate_data: what was measured is not in the log then.
_ESCAPE: Final = "\\"
_CUT: Final = "..."

_CONTENT_TYPE: Final = "systemd"
_FIELDS: Final = frozenset({"digests", "content_type", "content"})
_REGISTERS: Final = {"pcr": RegisterKind.PCR, "nv_index": RegisterKind.NV}
_NV_MAX: Final = 0xFFFFFFFF
_BANKS: Final = {bank.name.lower(): bank for bank in HashAlgorithm}


@final
@dataclass(frozen=True, slots=True)
class Record:
    """One well-formed record. ``kind`` and ``text`` are empty where the record has none; ``nv_name`` is NV indices'."""

    register: Register
    digests: tuple[tuple[HashAlgorithm, bytes], ...]
    kind: str
    text: str
    nv_name: str

    @property
    def binding(self) -> Binding:
        """Whether the digests are those of the text."""
        fits = bool(self.text) and all(digest(bank, self.text.encode()) == value for bank, value in self.digests)
        return Binding.CONTENT if fits else Binding.OPAQUE


def parse(data: bytes) -> tuple[Record, ...]:
    """Parse the log that fills ``data``; none at all is one without records.

    Raises:
        MalformedEvidence: ``LOG_DIGEST`` naming the record whose digest is not that of its string, though it has to be;
            or a decoding code.
    """
    if len(data) > limits.EVENT_LOG_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "log is too large",
            where="log",
            expected=f"<= {limits.EVENT_LOG_MAX} bytes",
            got=f"{len(data)} bytes",
        )
    if not data:
        return ()
    # In a string of JSON the byte would be escaped: it separates records and is nothing else.
    first, *texts = data.split(SEPARATOR, limits.EVENT_LOG_EVENTS_MAX + 1)
    if len(texts) > limits.EVENT_LOG_EVENTS_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "too many records", where="log", expected=f"<= {limits.EVENT_LOG_EVENTS_MAX}"
        )
    if first:
        raise MalformedEvidence(
            Code.NOT_JSON, "no record begins here", where="log[0]", expected="1e", got=first[:16], clause="RFC 7464 §2"
        )
    return tuple(_record(text, f"log[{number}]") for number, text in enumerate(texts))


def to_log(records: tuple[Record, ...]) -> EventLog:
    """``records`` as any log, for their replay; systemd does not number them."""
    return EventLog(
        Format.SYSTEMD,
        tuple(
            Event(
                number=number,
                register=record.register,
                digests=record.digests,
                binding=record.binding,
                kind=record.kind or "systemd",
                text=_shown(record),
            )
            for number, record in enumerate(records)
        ),
    )


def _record(text: bytes, where: str) -> Record:
    if not text.endswith(_END):
        raise MalformedEvidence(
            Code.TRUNCATED,
            "record has no end",
            where=where,
            expected="a line feed",
            clause="RFC 7464 §2.2",
            hint="read the log again: systemd was writing it",
        )
    fields = _object(strict.json_decode(text[: -len(_END)], what=where), where)
    named = [name for name in _REGISTERS if name in fields]
    unknown = sorted(set(fields) - _FIELDS - set(_REGISTERS))
    if unknown:
        raise MalformedEvidence(Code.FIELD_UNKNOWN, "unknown field", where=where, got=unknown[0])
    if len(named) != 1:
        raise MalformedEvidence(
            Code.FIELD_MISSING, "record does not name one register", where=where, expected=" or ".join(_REGISTERS)
        )
    register = _register(fields, named[0], where)
    if _text(fields, "content_type", where) != _CONTENT_TYPE:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED,
            "content of another type",
            where=f"{where}.content_type",
            expected=_CONTENT_TYPE,
            got=fields["content_type"],
        )
    content = _object(fields.get("content"), f"{where}.content")
    kind, said, nv_name = (
        _text(content, name, f"{where}.content") if name in content else ""
        for name in ("eventType", "string", "nvIndexName")
    )
    record = Record(register, _digests(fields.get("digests"), f"{where}.digests"), kind, said, nv_name)
    whole = _ESCAPE not in said and not said.endswith(_CUT)
    if kind in HASHED and whole and record.binding is not Binding.CONTENT:
        raise MalformedEvidence(
            Code.LOG_DIGEST,
            f"digest of {kind} is not that of its string",
            where=where,
            expected=digest(record.digests[0][0], said.encode()),
            got=record.digests[0][1],
        )
    return record


def _register(fields: strict.JsonObject, name: str, where: str) -> Register:
    kind = _REGISTERS[name]
    limit = limits.PCRS_MAX - 1 if kind is RegisterKind.PCR else _NV_MAX
    index = fields[name]
    if isinstance(index, bool) or not isinstance(index, int):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"{where}.{name}", expected="integer")
    if not 0 <= index <= limit:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "no register", where=f"{where}.{name}", expected=f"0..{limit}", got=index
        )
    return Register(kind, index)


def _digests(value: strict.JsonValue, where: str) -> tuple[tuple[HashAlgorithm, bytes], ...]:
    if not isinstance(value, list):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="array")
    found: dict[HashAlgorithm, bytes] = {}
    for number, item in enumerate(value):
        place = f"{where}[{number}]"
        fields = _object(item, place)
        if set(fields) != {"hashAlg", "digest"}:
            raise MalformedEvidence(
                Code.FIELD_MISSING, "not a digest", where=place, expected="hashAlg and digest, nothing else"
            )
        bank = _BANKS.get(_text(fields, "hashAlg", place))
        if bank is None or bank in found:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "a hash that is not known, or twice",
                where=place,
                expected=", ".join(_BANKS),
                got=fields["hashAlg"],
            )
        text = _text(fields, "digest", place)
        found[bank] = strict.hex_decode(text, what=f"{place}.digest", size=digest_size(bank))
    if not found:
        raise MalformedEvidence(Code.FIELD_RANGE, "record has no digest", where=where)
    return tuple(sorted(found.items()))


def _object(value: strict.JsonValue, where: str) -> strict.JsonObject:
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="object")
    return value


def _text(fields: strict.JsonObject, name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"{where}.{name}", expected="text")
    return value


def _shown(record: Record) -> str:
    text = f"{record.nv_name}: {record.text}" if record.nv_name else record.text
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
