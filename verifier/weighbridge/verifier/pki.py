"""The private certificate authority of one deployment: who may open a stream, and whom attesters talk to.

It says who holds which channel key and nothing more: no verdict rests on it. An attester's certificate is issued for
the key in its signing request after an operator compared the key's fingerprint with the host's.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.files import PosixFiles

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["create_authority", "issue_client", "issue_server"]

_AUTHORITY_LIFE: Final = timedelta(days=3650)
_LEAF_LIFE: Final = timedelta(days=825)
_BACKDATE: Final = timedelta(minutes=5)
_CSR_MAX: Final = 16 * 1024
_KEY_MODE: Final = 0o600
_CERTIFICATE_MODE: Final = 0o644


def create_authority(directory: Path, *, name: str, at: datetime) -> None:
    """A new authority: ``ca-key.pem`` and ``ca.pem`` in ``directory``, which exists and is private."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} channel CA")])
    certificate = (
        _builder(subject, subject, key.public_key(), at, _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(directory / "ca-key.pem", _pem(key), _KEY_MODE)
    _write(directory / "ca.pem", certificate.public_bytes(Encoding.PEM), _CERTIFICATE_MODE)


def issue_server(directory: Path, *, hosts: tuple[str, ...], at: datetime) -> None:
    """The server's key and certificate for ``hosts`` (names or addresses): ``server-key.pem``, ``server.pem``."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    certificate = _issue(directory, subject, key.public_key(), names, ExtendedKeyUsageOID.SERVER_AUTH, at)
    _write(directory / "server-key.pem", _pem(key), _KEY_MODE)
    _write(directory / "server.pem", certificate.public_bytes(Encoding.PEM), _CERTIFICATE_MODE)


def issue_client(directory: Path, request: bytes, *, at: datetime) -> x509.Certificate:
    """A client certificate for the key in a PKCS #10 request (PEM), whose own signature proves possession.

    What is not checked: whose key it is. Names and extensions of the request are ignored.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED`` or ``KEY_UNSUPPORTED``.
    """
    if len(request) > _CSR_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "signing request is too large", where="request", expected=_CSR_MAX)
    try:
        parsed = x509.load_pem_x509_csr(request)
        genuine = parsed.is_signature_valid
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise MalformedEvidence(Code.CERT_MALFORMED, f"not a signing request: {error}", where="request") from error
    if not genuine:
        raise MalformedEvidence(Code.CERT_MALFORMED, "the request is not signed by its own key", where="request")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedEvidence(Code.KEY_UNSUPPORTED, "not a P-256 key", where="request")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weighbridge attester")])
    names = x509.SubjectAlternativeName([x509.DNSName("attester.invalid")])
    return _issue(directory, subject, key, names, ExtendedKeyUsageOID.CLIENT_AUTH, at)


def _issue(  # noqa: PLR0917 - the fields of a certificate
    directory: Path,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    names: x509.SubjectAlternativeName,
    usage: x509.ObjectIdentifier,
    at: datetime,
) -> x509.Certificate:
    authority = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    signer = load_pem_private_key((directory / "ca-key.pem").read_bytes(), password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise RuntimeError("the authority's key is not the one that was created")  # noqa: TRY004 - not a caller's type
    return (
        _builder(subject, authority.subject, key, at, _LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(names, critical=False)
        .sign(signer, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, at: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _BACKDATE)
        .not_valid_after(at + life)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    PosixFiles().write(path, data, mode=mode)
