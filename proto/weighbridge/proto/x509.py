"""Parses one X.509 certificate. Says nothing of trust: chains are verified in the verifier's ``certs``.

>>> load_certificate(b"", what="example")
Traceback (most recent call last):
    ...
weighbridge.proto.errors.MalformedEvidence: CERT_MALFORMED: example is not a certificate, at example, [RFC 5280 §4.1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = ["common_name", "load_certificate", "public_key", "spki_der", "subject_key_identifier"]

# RFC 5280 §4.1.2.2: positive, at most 20 octets.
_SERIAL_BITS_MAX = 160


def load_certificate(der: bytes, what: str) -> x509.Certificate:
    """The certificate that ``der`` is, all of it, with its names, validity, key and extensions known to parse.

    Signature, validity at some time, issuer and purpose are **not** checked.

    Args:
        der: untrusted; one DER certificate and nothing after it.
        what: its place, for messages, such as ``gpu.chain[1]``.

    Raises:
        MalformedEvidence: ``TOO_LARGE``; ``CERT_MALFORMED``, also for a serial number that is not positive, for a
            repeated extension and for an encoding that is not DER; ``KEY_UNSUPPORTED`` for a key of unknown type.
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
        _ = (certificate.subject, certificate.issuer, certificate.version, certificate.extensions)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    # NOTE: the deprecation warning is what the library says of a serial number that is zero or negative; it is an
    # exception only where warnings are errors, so the serial number is checked below as well.
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise _malformed(what, str(error)) from error
    except (x509.UnsupportedGeneralNameType, x509.InvalidVersion, CryptographyDeprecationWarning) as error:
        raise _malformed(what, str(error)) from error
    if serial <= 0 or serial.bit_length() > _SERIAL_BITS_MAX:
        raise MalformedEvidence(
            Code.CERT_MALFORMED, f"{what} has a bad serial number", where=what, got=serial, clause="RFC 5280 §4.1.2.2"
        )
    public_key(certificate, what)
    return certificate


def public_key(certificate: x509.Certificate, what: str) -> CertificatePublicKeyTypes:
    """The subject's public key.

    Raises:
        MalformedEvidence: ``KEY_UNSUPPORTED`` for a type or curve that is unknown here, ``KEY_MALFORMED`` otherwise.
    """
    try:
        return certificate.public_key()
    except UnsupportedAlgorithm as error:
        raise MalformedEvidence(
            Code.KEY_UNSUPPORTED, f"{what} has a key of an unsupported type: {error}", where=what
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


def _malformed(what: str, reason: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.CERT_MALFORMED, f"{what} is not a certificate", where=what, clause="RFC 5280 §4.1", hint=reason
    )


def subject_key_identifier(certificate: x509.Certificate) -> bytes | None:
    """The subject key identifier (RFC 5280 §4.2.1.2), by which certificates that it issued name this key."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, ValueError):
        return None
