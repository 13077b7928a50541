"""Parses one X.509 certificate. Says nothing of trust: chains are verified in the verifier's ``certs``.

>>> load_certificate(b"", what="example")
Traceback (most recent call last):
    ...
weighbridge.proto.errors.MalformedEvidence: CERT_MALFORMED: example is not a certificate, at example, [RFC 5280 §4.1]
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = [
    "claimed_maker",
    "common_name",
    "load_certificate",
    "pem_certificates",
    "public_key",
    "spki_der",
    "subject_key_identifier",
]

# RFC 5280 §4.1.2.2: positive, at most 20 octets.
_SERIAL_BITS_MAX = 160
# A name's organisation or common name: OBJECT IDENTIFIER 2.5.4.10 or 2.5.4.3, then a string of some kind.
_ORGANISATION: Final = re.compile(rb"\x06\x03\x55\x04\x0a[\x0c\x13\x14\x16\x1e]([\x01-\x7f])", re.DOTALL)
_COMMON_NAME: Final = re.compile(rb"\x06\x03\x55\x04\x03[\x0c\x13\x14\x16\x1e]([\x01-\x7f])", re.DOTALL)
_MAKER_MAX: Final = 64
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\r\n]*)-----END CERTIFICATE-----")
# OBJECT IDENTIFIER id-RSAES-OAEP (RFC 4055 §4.1) at the head of a SubjectPublicKeyInfo.
_RSAES_OAEP: Final = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07"
# What may be done where a maker's certificates cannot be read: a TPM may have another, and a key may be pinned.
_ELSEWHERE: Final = (
    "use the TPM's other endorsement certificate if it has one, or pin its attestation key: an anchor of purpose "
    "attestation-key"
)


def load_certificate(der: bytes, what: str) -> x509.Certificate:
    """The certificate that ``der`` is, all of it, with its names, validity, key and extensions known to parse.

    Signature, validity at some time, issuer and purpose are **not** checked.

    Args:
        der: untrusted; one DER certificate and nothing after it.
        what: its place, for messages, such as ``gpu.chain[1]``.

    Raises:
        MalformedEvidence: ``TOO_LARGE``; ``CERT_MALFORMED``, also for a serial number that is not positive, for a
            repeated extension and for an encoding that is not DER; ``KEY_UNSUPPORTED`` for a key of unknown type. The
            message names the maker that the bytes claim, the hint what may be done.
    """
    if len(der) > limits.CERT_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            f"{what} is too large",
            where=what,
            expected=f"<= {limits.CERT_MAX} bytes",
            got=f"{len(der)} bytes",
        )
    try:
        certificate = x509.load_der_x509_certificate(der)
        serial = certificate.serial_number
        # The library parses these lazily; each may be the malformed one.
        with warnings.catch_warnings():
            # Of names longer than X.520 allows, which Google's authorities have, the library only warns.
            warnings.filterwarnings("ignore", "Attribute's length", UserWarning)
            _ = (certificate.subject, certificate.issuer)
        _ = (certificate.version, certificate.extensions)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    # NOTE: a warning is what the library says of a serial number that is zero or negative, and of a country that is no
    # code; it is an exception only where warnings are errors, so the serial number is checked below as well.
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise _malformed(der, what, str(error)) from error
    except (x509.UnsupportedGeneralNameType, x509.InvalidVersion, UserWarning) as error:
        raise _malformed(der, what, str(error)) from error
    if serial <= 0 or serial.bit_length() > _SERIAL_BITS_MAX:
        raise MalformedEvidence(
            Code.CERT_MALFORMED,
            f"{what}{_by(der)} has a bad serial number",
            where=what,
            got=serial,
            clause="RFC 5280 §4.1.2.2",
        )
    # The last field is a BIT STRING of whole octets. The library takes a count of unused bits as well where these
    # happen to be zero: one certificate in several encodings.
    if der[-len(certificate.signature) - 1]:
        raise MalformedEvidence(
            Code.CERT_MALFORMED,
            f"{what}{_by(der)} has a signature that is not whole octets",
            where=what,
            clause="RFC 5280 §4.1.1.3",
        )
    public_key(certificate, what)
    return certificate


def pem_certificates(data: bytes, *, what: str, limit: int = limits.GPU_CHAIN_CERTS_MAX) -> tuple[bytes, ...]:
    """The DER certificates in a PEM bundle (RFC 7468), in its order; each is still to be parsed.

    Only white space may stand between the certificates.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``CERT_MALFORMED`` for anything that is not such a bundle, ``NOT_BASE64``.
    """
    if len(data) > limit * 2 * limits.CERT_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, f"{what} is too large", where=what, got=f"{len(data)} bytes")
    found: list[bytes] = []
    position = 0
    for match in _PEM.finditer(data):
        if data[position : match.start()].strip():
            break
        text = match[1].replace(b"\r", b"").replace(b"\n", b"")
        found.append(strict.base64_decode(text, what=f"{what}[{len(found)}]"))
        position = match.end()
    if not found or data[position:].strip():
        raise MalformedEvidence(
            Code.CERT_MALFORMED,
            f"{what} is not a PEM bundle of certificates",
            where=f"{what}[{position}]",
            clause="RFC 7468 §5",
        )
    if len(found) > limit:
        raise MalformedEvidence(
            Code.TOO_LARGE, f"{what} has too many certificates", where=what, expected=f"<= {limit}", got=len(found)
        )
    return tuple(found)


def public_key(certificate: x509.Certificate, what: str) -> CertificatePublicKeyTypes:
    """The subject's public key.

    Raises:
        MalformedEvidence: ``KEY_UNSUPPORTED`` for a type or curve that is unknown here, ``KEY_MALFORMED`` otherwise.
    """
    try:
        return certificate.public_key()
    except UnsupportedAlgorithm as error:
        der = certificate.public_bytes(Encoding.DER)
        oaep = _RSAES_OAEP in der
        raise MalformedEvidence(
            Code.KEY_UNSUPPORTED,
            f"{what}{_by(der)} has a key of an unsupported type: "
            f"{'RSA for OAEP only (id-RSAES-OAEP)' if oaep else error}",
            where=what,
            clause="RFC 4055 §4.1" if oaep else "",
            hint=_ELSEWHERE,
        ) from error
    except ValueError as error:
        raise MalformedEvidence(Code.KEY_MALFORMED, f"{what} has a malformed key: {error}", where=what) from error


def spki_der(certificate: x509.Certificate) -> bytes:
    """The SubjectPublicKeyInfo in DER, in its one usual spelling (elliptic-curve points uncompressed).

    Keys are named by the SHA-256 of this, so that one key in two encodings is still one key.
    """
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def common_name(name: x509.Name, what: str) -> str:
    """The one common name in ``name``. A claim of its issuer; unsigned unless the certificate is verified.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED`` when there is none, more than one, or one that is not text.
    """
    values = [attribute.value for attribute in name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    if len(values) != 1 or not isinstance(values[0], str):
        raise MalformedEvidence(
            Code.CERT_MALFORMED, f"{what} must have one common name", where=what, got=f"{len(values)} names"
        )
    return values[0]


def claimed_maker(der: bytes) -> str:
    """Who the bytes say has issued them: the first organisation, else the first common name; empty where none is found.

    A lenient look, for messages alone: nothing is verified, ``der`` need not be a certificate. At most 64 printable
    characters.
    """
    for pattern in (_ORGANISATION, _COMMON_NAME):
        found = pattern.search(der[: limits.CERT_MAX])
        if found is not None:
            text = der[found.end() : found.end() + found[1][0]].decode("utf-8", errors="replace")
            return "".join(char for char in text if char.isprintable())[:_MAKER_MAX].strip()
    return ""


def _by(der: bytes) -> str:
    maker = claimed_maker(der)
    return f", which names {maker!r}," if maker else ""


def _malformed(der: bytes, what: str, reason: str) -> MalformedEvidence:
    """``reason`` is the library's word; what to do about it, for those defects that makers are known for."""
    unsorted = "InvalidSetOrdering" in reason
    end = _outer_end(der)
    if 0 < end < len(der):
        rest = der[end:]
        padded = not rest.strip(b"\0") or not rest.strip(b"\xff")
        message = f"is followed by {len(rest)} bytes{' of padding' if padded else ''}"
        hint = "cut the padding of the TPM's NV index off" if padded else "send one certificate, and nothing after it"
    elif unsorted:
        message = "is not DER: a name's attributes are out of order"
        hint = f"its maker must issue it again; {_ELSEWHERE}"
    elif der[4:5] == b"\x30" and der[8:11] == b"\x02\x01\x01":
        # RFC 5755 §4.1: an attribute certificate begins with its version, where RFC 5280 has a tag.
        message, hint = "is an attribute certificate (RFC 5755), which certifies no key", "send the key's certificate"
    else:
        message, hint = "is not a certificate", reason
    return MalformedEvidence(
        Code.CERT_MALFORMED,
        f"{what}{_by(der)} {message}",
        where=what,
        clause="X.690 §10.3" if unsorted else "RFC 5280 §4.1",
        hint=hint,
    )


def _outer_end(der: bytes) -> int:
    """Where the outermost SEQUENCE says that it ends; 0 where it is none, or has a length that no certificate has."""
    if der[:2] == b"\x30\x82" and len(der) >= 4:  # noqa: PLR2004 - tag, length of length, length
        return 4 + int.from_bytes(der[2:4])
    if der[:2] == b"\x30\x81" and len(der) >= 3:  # noqa: PLR2004 - tag, length of length, length
        return 3 + der[2]
    return 0


def subject_key_identifier(certificate: x509.Certificate) -> bytes | None:
    """The subject key identifier (RFC 5280 §4.2.1.2), by which certificates that it issued name this key."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, ValueError):
        return None
