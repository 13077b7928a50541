"""Event logs made to order: firmware's, IMA's and CEL TLV, right unless a field is overridden."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence

from weighbridge.proto.tpm.constants import HashAlgorithm, digest, digest_size

SHA1, SHA256, SHA384 = HashAlgorithm.SHA1, HashAlgorithm.SHA256, HashAlgorithm.SHA384
SEPARATOR, NO_ACTION, IPL, ACTION = 0x4, 0x3, 0xD, 0x80000007
Banks = Sequence[HashAlgorithm]


def spec_id(
    banks: Iterable[tuple[int, int]] = ((SHA256, 32),),
    *,
    signature: bytes = b"Spec ID Event03\0",
    version: bytes = b"\0\2",
    vendor: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """TCG_EfiSpecIdEvent."""
    listed = list(banks)
    return (
        signature
        + bytes(4)
        + version
        + b"\0\2"
        + struct.pack("<I", len(listed))
        + b"".join(struct.pack("<HH", bank, size) for bank, size in listed)
        + bytes([len(vendor)])
        + vendor
        + tail
    )


def old_event(pcr: int, event_type: int, data: bytes, value: bytes = bytes(20)) -> bytes:
    """TCG_PCClientPCREvent, as the header is and as the old format is throughout."""
    return struct.pack("<II", pcr, event_type) + value + struct.pack("<I", len(data)) + data


def boot_event(
    pcr: int,
    event_type: int,
    data: bytes,
    *,
    banks: Banks = (SHA256,),
    digests: Iterable[tuple[int, bytes]] | None = None,
) -> bytes:
    """TCG_PCR_EVENT2; the digests are those of the data by default, zeros for EV_NO_ACTION."""
    if digests is None:
        digests = [
            (bank, bytes(digest_size(bank)) if event_type == NO_ACTION else digest(bank, data)) for bank in banks
        ]
    listed = list(digests)
    return (
        struct.pack("<III", pcr, event_type, len(listed))
        + b"".join(struct.pack("<H", bank) + value for bank, value in listed)
        + struct.pack("<I", len(data))
        + data
    )


def boot_log(*events: bytes, banks: Banks = (SHA256,)) -> bytes:
    """A crypto-agile log of ``events``."""
    return old_event(0, NO_ACTION, spec_id((bank, digest_size(bank)) for bank in banks)) + b"".join(events)


def startup(locality: int) -> bytes:
    """The event that says where the boot began."""
    return boot_event(0, NO_ACTION, b"StartupLocality\0" + bytes([locality]))


def ima_field(value: bytes) -> bytes:
    """A field of a template."""
    return struct.pack("<I", len(value)) + value


def ima_data(path: bytes, value: bytes, algorithm: bytes = b"sha256", *rest: bytes) -> bytes:
    """Template data of ima-ng and those that begin like it."""
    return ima_field(algorithm + b":\0" + value) + ima_field(path + b"\0") + b"".join(map(ima_field, rest))


def ima_entry(data: bytes, template: bytes = b"ima-ng", *, pcr: int = 10, hashed: bytes | None = None) -> bytes:
    """An entry with the template hash of its data, or with ``hashed``."""
    size = b"" if template == b"ima" else struct.pack("<I", len(data))
    value = hashlib.sha1(data, usedforsecurity=False).digest() if hashed is None else hashed
    return struct.pack("<I", pcr) + value + struct.pack("<I", len(template)) + template + size + data


def ima_from_ascii(text: str) -> bytes:
    """The binary list of an ``ascii_runtime_measurements`` of ima-ng entries, template hashes as they stand there."""
    entries: list[bytes] = []
    for line in text.splitlines():
        pcr, hashed, template, content, path = line.split(" ", 4)
        algorithm, value = content.split(":")
        data = ima_data(path.encode(), bytes.fromhex(value), algorithm.encode())
        entries.append(ima_entry(data, template.encode(), pcr=int(pcr), hashed=bytes.fromhex(hashed)))
    return b"".join(entries)


def tlv(kind: int, value: bytes) -> bytes:
    """One TLV of CEL."""
    return bytes([kind]) + len(value).to_bytes(4, "big") + value


def cel_record(
    recnum: int,
    content: bytes,
    hashed: bytes,
    *,
    register: bytes = tlv(1, b"\x0e"),
    banks: Banks = (SHA256,),
    recnum_size: int = 8,
) -> bytes:
    """A record whose content is the TLV ``content``, and whose digests are those of ``hashed``."""
    digests = b"".join(tlv(bank, digest(bank, hashed)) for bank in banks)
    return tlv(0, recnum.to_bytes(recnum_size, "big")) + register + tlv(3, digests) + content


def extended(start: bytes, *values: bytes, bank: HashAlgorithm = SHA256) -> bytes:
    """A register after extensions, written out once more."""
    for value in values:
        start = hashlib.new(bank.name.lower(), start + value).digest()
    return start


def gce_attestation(data: bytes) -> tuple[dict[HashAlgorithm, tuple[bytes, dict[int, bytes]]], bytes]:
    """The quotes by bank, each with the registers' values beside it, and the boot log of an attestation."""
    fields = protobuf(data)
    quotes: dict[HashAlgorithm, tuple[bytes, dict[int, bytes]]] = {}
    for number, value in fields:
        if number != 2 or isinstance(value, int):
            continue
        quote = dict(protobuf(value))
        message, registers = quote[1], quote[3]
        assert isinstance(message, bytes)
        assert isinstance(registers, bytes)
        values: dict[int, bytes] = {}
        bank = 0
        for inner, content in protobuf(registers):
            if inner == 1 and isinstance(content, int):
                bank = content
            elif isinstance(content, bytes):
                entry = dict(protobuf(content))
                index, register = entry.get(1, 0), entry[2]
                assert isinstance(index, int)
                assert isinstance(register, bytes)
                values[index] = register
        quotes[HashAlgorithm(bank)] = (message, values)
    log = dict(fields)[3]
    assert isinstance(log, bytes)
    return quotes, log


def protobuf(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message whose schema is not ours: numbers and byte strings."""
    found: list[tuple[int, int | bytes]] = []
    offset = 0

    def number() -> int:
        nonlocal offset
        value = shift = 0
        while True:
            octet = data[offset]
            offset += 1
            value |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                return value

    while offset < len(data):
        key = number()
        if key & 7 == 0:
            found.append((key >> 3, number()))
        else:
            assert key & 7 == 2
            size = number()
            found.append((key >> 3, data[offset : offset + size]))
            offset += size
    return found
