"""IMA's list of what the kernel measured: ``binary_runtime_measurements``, little-endian.

An entry is PCR, SHA-1 template hash, the template's name, and its data: fields, each with its length before it. The
original template ``ima`` differs: no length of the data, a digest without length, a name without its final zero.

Into each bank the kernel extends a digest of the template data (:class:`Rule`). The template hash must be that of
the data, so every entry's description is bound to what was extended. An entry whose template hash is all zeros is a
*violation*: the file was open for writing, or changed while it was read. Then the kernel extends ones, and nobody
knows what was measured; such entries are kept, counted and shown.

Not proven: the template's name, which is not hashed; the path, a hint beside the digest of the content, which counts;
that everything was measured, which is the kernel's policy. An entry is as good as the boot that led to this kernel.
"""

from __future__ import annotations

import hashlib
import struct
from enum import StrEnum
from typing import Final, NamedTuple

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog.events import Binding, Event, EventLog, Format, Register
from weighbridge.proto.eventlog.reader import LogReader
from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size

__all__ = ["Entry", "Rule", "describe", "hashed_bytes", "parse", "template_name", "to_log"]

_LEGACY: Final = "ima"
_LEGACY_DIGEST_SIZE: Final = 20
# Linux security/integrity/ima/ima.h, IMA_EVENT_NAME_LEN_MAX and TCG_EVENT_NAME_LEN_MAX.
_LEGACY_NAME_MAX: Final = 255
_TEMPLATE_NAME_MAX: Final = 255
_SHA1_SIZE: Final = 20
_DIGEST_SIZE_MAX: Final = 64

# Linux security/integrity/ima/ima_template.c: the templates and the fields that they stand for.
_TEMPLATES: Final = {
    "ima-ng": ("d-ng", "n-ng"),
    "ima-sig": ("d-ng", "n-ng", "sig"),
    "ima-ngv2": ("d-ngv2", "n-ng"),
    "ima-sigv2": ("d-ngv2", "n-ng", "sig"),
    "ima-buf": ("d-ng", "n-ng", "buf"),
    "ima-modsig": ("d-ng", "n-ng", "sig", "d-modsig", "modsig"),
    "evm-sig": ("d-ng", "n-ng", "evmsig", "xattrnames", "xattrlengths", "xattrvalues", "iuid", "igid", "imode"),
}

_HEAD: Final = struct.Struct("<I20sI")  # PCR, template hash, length of the template's name


class Rule(StrEnum):
    """What the kernel extends into the banks other than SHA-1. Not in the list: it has to be stated.

    ``REHASHED``: each bank's own hash of the template data, since Linux 5.8. ``PADDED``: the SHA-1 template hash,
    followed by zeros; a value that rests on SHA-1 in every bank.
    """

    REHASHED = "rehashed"
    PADDED = "padded"


class Entry(NamedTuple):
    """A well-formed entry whose template hash, where it is no violation, is that of its data.

    A tuple and no dataclass, since a list has thousands and a dataclass takes four times as long to make.
    ``algorithm`` and ``content_digest`` say which digest of the file's content the kernel computed; in a violation
    they mean nothing. ``path`` is a hint, with what is not UTF-8 or cannot be printed escaped.
    """

    pcr: int
    template_hash: bytes
    template: str
    data: bytes
    algorithm: str
    content_digest: bytes
    path: str

    @property
    def violation(self) -> bool:
        """Whether the kernel could not say what it measured."""
        return not any(self.template_hash)


def parse(data: bytes) -> tuple[Entry, ...]:
    """Parse the list that fills ``data``, with SHA-1 template hashes, as the kernel shows it by default.

    Raises:
        MalformedEvidence: ``LOG_DIGEST`` naming the entry whose template hash is not that of its data;
            ``VERSION_UNSUPPORTED`` for a template that is not known; or a decoding code.
    """
    reader = LogReader(data, "log")
    entries: list[Entry] = []
    offset = 0
    while offset < len(data):
        if len(entries) >= limits.EVENT_LOG_EVENTS_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE, "too many entries", where="log", expected=f"<= {limits.EVENT_LOG_EVENTS_MAX}"
            )
        usual = _usual_entry(data, offset)
        if usual is None:
            reader.take(offset - reader.offset)
            entry = _entry(reader, len(entries))
            offset = reader.offset
        else:
            entry, offset = usual
        entries.append(entry)
    return tuple(entries)


def to_log(entries: tuple[Entry, ...], rule: Rule = Rule.REHASHED) -> EventLog:
    """``entries`` as any log, for their replay under the stated rule."""
    return EventLog(Format.IMA, tuple(_common(number, entry, rule) for number, entry in enumerate(entries)))


def hashed_bytes(template: str, data: bytes) -> bytes:
    """The bytes that a template hash covers: the data, but for the original template a name of 256 bytes."""
    if template != _LEGACY:
        return data
    name = data[_LEGACY_DIGEST_SIZE + 4 :]
    return data[:_LEGACY_DIGEST_SIZE] + name.ljust(_LEGACY_NAME_MAX + 1, b"\0")


def template_name(raw: bytes, *, where: str) -> str:
    """A template's name, if it is a known one.

    Raises:
        MalformedEvidence: ``VERSION_UNSUPPORTED``.
    """
    name = raw.decode("ascii", "backslashreplace")
    if name != _LEGACY and name not in _TEMPLATES:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED,
            "unknown IMA template",
            where=where,
            expected=", ".join((_LEGACY, *_TEMPLATES)),
            got=name[:40],
        )
    return name


def describe(template: str, data: bytes, *, where: str) -> str:
    """What an entry says was measured, for people.

    Raises:
        MalformedEvidence: for data that are not the template's.
    """
    algorithm, content_digest, path = _measured(template, data, where)
    return f"{path} {algorithm}:{content_digest.hex()}"


def _usual_entry(data: bytes, at: int) -> tuple[Entry, int] | None:
    """What :func:`_entry` reads at ``at``, and where it ends, for entries as kernels write them by default.

    ``None`` says nothing: the careful way then reads it, or says what is wrong. Three times as fast, for lists of every
    file that was read.
    """
    head = data[at : at + _HEAD.size]
    if len(head) != _HEAD.size:
        return None
    pcr, template_hash, name_size = _HEAD.unpack(head)
    start = at + _HEAD.size + name_size + 4
    usual = _USUAL.get(data[at + _HEAD.size : start - 4])
    if usual is None or pcr >= limits.PCRS_MAX:
        return None
    template, fields, algorithms = usual
    end = start + int.from_bytes(data[start - 4 : start], "little")
    body = data[start:end]
    if len(body) != end - start or hashlib.sha1(body, usedforsecurity=False).digest() != template_hash:
        return None
    path_at = 8 + int.from_bytes(body[:4], "little")
    path_end = path_at + int.from_bytes(body[path_at - 4 : path_at], "little")
    last = path_end if fields == _FIELDS_MIN else path_end + 4 + int.from_bytes(body[path_end : path_end + 4], "little")
    words, found, content_digest = body[4 : path_at - 4].partition(b":\0")
    algorithm = algorithms.get(words)
    if last != len(body) or not found or algorithm is None or len(content_digest) != algorithm[1]:
        return None
    if body[path_end - 1] or path_end == path_at:
        return None
    path = _shown(body[path_at : path_end - 1])
    return Entry(pcr, template_hash, template, body, algorithm[0], content_digest, path), end


def _entry(reader: LogReader, number: int) -> Entry:
    where = f"log[{number}]"
    place = reader.place
    pcr = reader.le32()
    if pcr >= limits.PCRS_MAX:
        raise MalformedEvidence(Code.FIELD_RANGE, "no PCR", where=place, expected=f"< {limits.PCRS_MAX}", got=pcr)
    template_hash = reader.take(_SHA1_SIZE)
    size = reader.le32()
    if size > _TEMPLATE_NAME_MAX:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "template name is too long", where=where, expected=f"<= {_TEMPLATE_NAME_MAX}", got=size
        )
    template = template_name(reader.take(size), where=where)
    data = _legacy_data(reader, where) if template == _LEGACY else reader.sized()
    algorithm, content_digest, path = _measured(template, data, where)
    entry = Entry(pcr, template_hash, template, data, algorithm, content_digest, path)
    expected = digest(HashAlgorithm.SHA1, hashed_bytes(template, data))
    if not entry.violation and template_hash != expected:
        raise MalformedEvidence(
            Code.LOG_DIGEST,
            "template hash is not that of the template data",
            where=where,
            expected=expected,
            got=template_hash,
            hint="lists with template hashes of another algorithm than SHA-1 are not read: use the default file",
        )
    return entry


def _legacy_data(reader: LogReader, where: str) -> bytes:
    start = reader.offset
    reader.take(_LEGACY_DIGEST_SIZE)
    size = reader.le32()
    if size > _LEGACY_NAME_MAX:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "file name is too long", where=where, expected=f"<= {_LEGACY_NAME_MAX}", got=size
        )
    reader.take(size)
    return reader.since(start)


def _measured(template: str, data: bytes, where: str) -> tuple[str, bytes, str]:
    """Algorithm, digest and path in the data of a template."""
    reader = LogReader(data, f"{where}.data")
    if template == _LEGACY:
        content_digest = reader.take(_LEGACY_DIGEST_SIZE)
        path = reader.sized()
        reader.end()
        return "sha1", content_digest, _shown(path)
    fields = [reader.sized() for _ in _TEMPLATES[template]]
    reader.end()
    algorithm, content_digest = _digest_field(_TEMPLATES[template][0], fields[0], where)
    path = fields[1]
    if not path.endswith(b"\0"):
        raise MalformedEvidence(Code.FIELD_RANGE, "file name has no end", where=f"{where}.data")
    return algorithm, content_digest, _shown(path[:-1])


def _digest_field(field: str, value: bytes, where: str) -> tuple[str, bytes]:
    """``sha256:``, a zero byte and a digest; with a type before it, as in ``verity:sha256:``, in the second version."""
    words, found, content_digest = value.partition(b":\0")
    parts = words.decode("ascii", "backslashreplace").split(":")
    if not found or len(parts) != (2 if field == "d-ngv2" else 1) or not all(_is_word(part) for part in parts):
        raise MalformedEvidence(
            Code.FIELD_RANGE, "no digest in the template data", where=f"{where}.data", got=value[:40]
        )
    bank = HashAlgorithm.__members__.get(parts[-1].upper())
    expected = None if bank is None else digest_size(bank)
    if not 1 <= len(content_digest) <= _DIGEST_SIZE_MAX or len(content_digest) != (expected or len(content_digest)):
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "digest of the file has a wrong length",
            where=f"{where}.data",
            expected=f"{expected or f'1..{_DIGEST_SIZE_MAX}'} bytes",
            got=f"{len(content_digest)} bytes",
        )
    return ":".join(parts), content_digest


def _is_word(text: str) -> bool:
    return bool(text) and text.isascii() and text.replace("-", "").isalnum()


def _shown(path: bytes) -> str:
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


_FIELDS_MIN: Final = 2
_PLAIN: Final = {bank.name.lower().encode(): (bank.name.lower(), digest_size(bank)) for bank in HashAlgorithm}
_TYPED: Final = {
    kind + b":" + words: (f"{kind.decode()}:{name}", size)
    for kind in (b"ima", b"verity")
    for words, (name, size) in _PLAIN.items()
}
_USUAL: Final = {
    name.encode(): (name, len(fields), _TYPED if fields[0] == "d-ngv2" else _PLAIN)
    for name, fields in _TEMPLATES.items()
    if len(fields) <= _FIELDS_MIN + 1
}


def _common(number: int, entry: Entry, rule: Rule) -> Event:
    digests: list[tuple[int, bytes]] = []
    for bank in HashAlgorithm:
        if entry.violation:
            extended = b"\xff" * digest_size(bank)
        elif rule is Rule.REHASHED or bank is HashAlgorithm.SHA1:
            extended = digest(bank, hashed_bytes(entry.template, entry.data))
        else:
            extended = entry.template_hash.ljust(digest_size(bank), b"\0")
        digests.append((bank, extended))
    return Event(
        number=number,
        register=Register.pcr(entry.pcr),
        digests=tuple(digests),
        binding=Binding.VIOLATION if entry.violation else Binding.CONTENT,
        kind=entry.template,
        text=entry.path if entry.violation else f"{entry.path} {entry.algorithm}:{entry.content_digest.hex()}",
    )
