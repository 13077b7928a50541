"""The certificate of a VCEK, the key that an AMD chip derives from its secret and the versions of its firmware.

AMD publication 57230, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification", revision
1.00, §3.1: X.509 with the chip's number and the security version numbers in extensions of AMD's own. Certificates of
keys that a cloud loads (VLEK, publication 58369) name no chip and are refused.

**Serial numbers.** AMD gives every VCEK the serial number zero, which RFC 5280 §4.1.2.2 forbids and the X.509 library
warns of, soon to refuse it. Here, and only here, such a certificate is read through a copy whose serial number is one:
the copy's bytes are never what is verified (:attr:`ChipCertificate.signed` are the original ones), and nothing rests
on the number: AMD's revocation lists do not name VCEKs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tee.snp import Tcb, TcbLayout
from weighbridge.proto.x509 import load_certificate, public_key

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CHIP_ID_SIZE", "ChipCertificate", "parse"]

CHIP_ID_SIZE: Final = 64
_CLAUSE: Final = "AMD 57230 rev. 1.00 §3.1"

_AMD: Final = "1.3.6.1.4.1.3704.1"
_STRUCT_VERSION: Final = f"{_AMD}.1"
_PRODUCT_NAME: Final = f"{_AMD}.2"
_HARDWARE_ID: Final = f"{_AMD}.4"
# The extension that says each byte of a TCB_VERSION, in the order of the bytes.
_SPL: Final[dict[TcbLayout, tuple[str, ...]]] = {
    # blSPL, teeSPL, spl_4 to spl_7, snpSPL, ucodeSPL
    TcbLayout.MILAN: tuple(f"{_AMD}.3.{number}" for number in (1, 2, 4, 5, 6, 7, 3, 8)),
    # fmcSPL, blSPL, teeSPL, snpSPL, spl_5 to spl_7, ucodeSPL
    TcbLayout.TURIN: tuple(f"{_AMD}.3.{number}" for number in (9, 1, 2, 3, 5, 6, 7, 8)),
}
_HARDWARE_ID_SIZES: Final = {TcbLayout.MILAN: 64, TcbLayout.TURIN: 8}
# Products with the name that the keys above them bear, and the layout of their TCB.
_PRODUCTS: Final[dict[str, tuple[str, TcbLayout]]] = {
    "Milan": ("Milan", TcbLayout.MILAN),
    "Genoa": ("Genoa", TcbLayout.MILAN),
    "Bergamo": ("Genoa", TcbLayout.MILAN),
    "Siena": ("Genoa", TcbLayout.MILAN),
    "Turin": ("Turin", TcbLayout.TURIN),
}
# Headers of Certificate and TBSCertificate, version 3, serial number 0; the lengths of both take two bytes.
_SERIAL_ZERO: Final = re.compile(rb"\x30\x82..\x30\x82..\xa0\x03\x02\x01\x02\x02\x01\x00", re.DOTALL)
_TBS_START: Final = 4
_IA5_STRING: Final = 0x16
_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_SPL_MAX: Final = 0xFF
_SHORT_MAX: Final = 0x7F


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipCertificate:
    """A well-formed certificate of a chip's key. Its signature, validity and issuer are **not** checked.

    Attributes:
        certificate: for names, validity, key and extensions. Where the serial number is zero, this is a reading with
            another one: never hash it, never verify its bytes.
        signed: the TBSCertificate as it was signed.
        key: P-384.
        product: such as ``Genoa``; without the stepping.
        line: the name that AMD's intermediate and root keys for this product bear: ``Milan``, ``Genoa`` or ``Turin``.
        tcb: the versions for which the key was derived.
        chip_id: as reports state it, 64 bytes.
    """

    certificate: x509.Certificate
    signed: bytes
    key: ec.EllipticCurvePublicKey
    product: str
    line: str
    tcb: Tcb
    chip_id: bytes


def parse(der: bytes, what: str) -> ChipCertificate:
    """Parse a VCEK's certificate.

    Args:
        der: untrusted; one DER certificate and nothing after it.
        what: its place, for messages.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``CERT_MALFORMED``, also for an extension that is absent or not as AMD
            defines it; ``KEY_UNSUPPORTED`` for a key that is not P-384, ``KEY_MALFORMED``.
    """
    zero = _SERIAL_ZERO.match(der)
    certificate = load_certificate(der if zero is None else der[: zero.end() - 1] + b"\x01" + der[zero.end() :], what)
    signed = certificate.tbs_certificate_bytes
    if zero is not None:
        signed = der[_TBS_START : _TBS_START + len(signed)]
    key = public_key(certificate, what)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise MalformedEvidence(Code.KEY_UNSUPPORTED, f"{what} is not for a P-384 key", where=what, clause=_CLAUSE)
    found = {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    product, line, layout = _product(found, what)
    return ChipCertificate(
        certificate=certificate,
        signed=signed,
        key=key,
        product=product,
        line=line,
        tcb=Tcb(layout, bytes(_small(found, oid, what) for oid in _SPL[layout])),
        chip_id=_chip_id(found, layout, what),
    )


def _product(found: Mapping[str, bytes], what: str) -> tuple[str, str, TcbLayout]:
    """Product, line and layout; the name may have a stepping behind it, such as ``Milan-B0``."""
    value = _extension(found, _PRODUCT_NAME, what)
    name = (_contents(value, _IA5_STRING) or b"").decode("latin-1").partition("-")[0]
    if name not in _PRODUCTS:
        raise _malformed(what, "product is none that is known", expected=", ".join(_PRODUCTS), got=value.hex())
    line, layout = _PRODUCTS[name]
    version = _small(found, _STRUCT_VERSION, what)
    if version != layout:
        raise _malformed(what, "structVersion is not the product's", expected=str(layout.value), got=str(version))
    return name, line, layout


def _chip_id(found: Mapping[str, bytes], layout: TcbLayout, what: str) -> bytes:
    """Bare, or as an OCTET STRING: AMD's key server has issued both."""
    value = _extension(found, _HARDWARE_ID, what)
    size = _HARDWARE_ID_SIZES[layout]
    if len(value) != size:
        value = _contents(value, _OCTET_STRING) or b""
    if len(value) != size:
        raise _malformed(what, "hwID has the wrong size", expected=f"{size} bytes", got=f"{len(value)} bytes")
    return value.ljust(CHIP_ID_SIZE, b"\0")


def _small(found: Mapping[str, bytes], oid: str, what: str) -> int:
    """A DER integer from 0 to 255."""
    value = _extension(found, oid, what)
    body = _contents(value, _INTEGER) or b""
    number = int.from_bytes(body)
    # DER: the sign bit clear, and no byte more than that takes.
    if number > _SPL_MAX or body != number.to_bytes(number.bit_length() // 8 + 1):
        raise _malformed(what, f"extension {oid} is no number from 0 to 255", got=value.hex())
    return number


def _contents(value: bytes, tag: int) -> bytes | None:
    """What is in the one DER value that ``value`` is, of less than 128 bytes; ``None`` if it is no such thing."""
    body = value[2:]
    return body if len(body) <= _SHORT_MAX and value[:2] == bytes((tag, len(body))) else None


def _extension(found: Mapping[str, bytes], oid: str, what: str) -> bytes:
    value = found.get(oid)
    if value is None:
        raise _malformed(what, "extension is absent", expected=oid, got="nothing")
    return value


def _malformed(what: str, message: str, *, expected: str | None = None, got: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.CERT_MALFORMED,
        message,
        where=what,
        expected=expected,
        got=got,
        clause=_CLAUSE,
        hint="The chip's own certificate (VCEK) is wanted first, as AMD's key server issues it.",
    )
