"""The firmware digest that the boot ROM wrote into the attestation key's certificate (TCG DICE).

Two shapes are in the field: on Hopper extension 2.23.133.5.4.1, ``SEQUENCE {INTEGER 1, SubjectPublicKeyInfo,
SEQUENCE {OID sha384, OCTET STRING (48)}}``; on Blackwell 2.23.133.5.4.1.1, ``DiceTcbInfo``, whose ``fwids [6]`` is a
list of the same pair, the first of which counts (TCG DICE Attestation Architecture 1.1 §6.1.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography import x509

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spdm.report import FWID_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["certified_fwid"]

_HOPPER: Final = x509.ObjectIdentifier("2.23.133.5.4.1")
_TCB_INFO: Final = x509.ObjectIdentifier("2.23.133.5.4.1.1")
# 2.16.840.1.101.3.4.2.2
_SHA384: Final = b"\x60\x86\x48\x01\x65\x03\x04\x02\x02"
_OCTETS, _OID, _SEQUENCE, _FWIDS = 0x04, 0x06, 0x30, 0xA6
_HOPPER_ELEMENTS: Final = 3
_LENGTH_LONG: Final = 0x80


def certified_fwid(leaf: x509.Certificate, *, where: str) -> bytes | None:
    """The FWID in ``leaf``, 48 bytes, or ``None`` when it has neither extension.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED`` for an extension of another shape, or both at once.
    """
    found = [extension for extension in leaf.extensions if extension.oid in (_HOPPER, _TCB_INFO)]
    if not found:
        return None
    if len(found) > 1:
        raise _malformed("leaf has two firmware digests", where)
    value = found[0].value
    # NOTE: cryptography knows neither extension; should it learn one, this says so instead of guessing.
    if not isinstance(value, x509.UnrecognizedExtension):
        raise _malformed("firmware extension is not opaque", where)
    elements = list(_elements(_only(value.value, _SEQUENCE, where), where))
    if found[0].oid == _HOPPER:
        if len(elements) != _HOPPER_ELEMENTS:
            raise _malformed("firmware extension has the wrong number of elements", where)
        tag, pair = elements[-1]
        if tag != _SEQUENCE:
            raise _malformed("firmware extension does not end with a digest", where)
        return _digest(pair, where)
    lists = [content for tag, content in elements if tag == _FWIDS]
    if len(lists) != 1:
        raise _malformed("DiceTcbInfo has no list of firmware digests", where)
    tag, pair = next(_elements(lists[0], where), (0, b""))
    if tag != _SEQUENCE:
        raise _malformed("DiceTcbInfo has an empty list of firmware digests", where)
    return _digest(pair, where)


def _digest(pair: bytes, where: str) -> bytes:
    elements = list(_elements(pair, where))
    if [tag for tag, _ in elements] != [_OID, _OCTETS] or elements[0][1] != _SHA384 or len(elements[1][1]) != FWID_SIZE:
        raise _malformed("firmware digest is not a SHA-384", where)
    return elements[1][1]


def _only(data: bytes, expected: int, where: str) -> bytes:
    elements = list(_elements(data, where))
    if len(elements) != 1 or elements[0][0] != expected:
        raise _malformed("firmware extension is not one sequence", where)
    return elements[0][1]


def _elements(data: bytes, where: str) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each DER element: one-byte tags, definite minimal lengths up to 65535 (X.690 §10.1)."""
    offset = 0
    while offset < len(data):
        tag, length, start = data[offset], data[offset + 1 : offset + 2], offset + 2
        size = length[0] if length else _LENGTH_LONG
        if size in (_LENGTH_LONG | 1, _LENGTH_LONG | 2):
            width = size & ~_LENGTH_LONG
            size = int.from_bytes(data[start : start + width])
            start += width
            if size < (_LENGTH_LONG if width == 1 else 0x100):
                raise _malformed("firmware extension has a length that is not minimal", where)
        elif size >= _LENGTH_LONG:
            raise _malformed("firmware extension is not DER", where)
        if start + size > len(data):
            raise _malformed("firmware extension ends inside an element", where)
        yield tag, data[start : start + size]
        offset = start + size


def _malformed(message: str, where: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.CERT_MALFORMED, message, where=where, clause="TCG DICE Attestation Architecture 1.1 §6.1"
    )
