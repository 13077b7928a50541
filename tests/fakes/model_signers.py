"""Signers of models: keys, and hierarchies of certificates that can be wrong in one place. All sign for real."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

    PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BEGIN, END = NOW - timedelta(days=30), NOW + timedelta(days=30)

SIGNING = "digital_signature"
AUTHORITY = "key_cert_sign"


def private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class Holder:
    """A key with its certificate."""

    key: PrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return private_pem(self.key)


def certify(
    name: str,
    *,
    issuer: Holder | None = None,
    key: PrivateKey | None = None,
    ca: bool = False,
    usage: str | None = "",
    extended: x509.ObjectIdentifier | None = None,
    begin: datetime = BEGIN,
    end: datetime = END,
) -> Holder:
    """A certificate for a new key, or ``key``; signed by itself where there is no ``issuer``.

    ``usage`` is the one key usage that it states; the fitting one by default, ``None`` for no such extension.
    """
    own = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by = issuer.certificate.subject if issuer else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    )
    if issuer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if usage == "":
        usage = AUTHORITY if ca else SIGNING
    if usage is not None:
        builder = builder.add_extension(_usage(usage), critical=True)
    if extended is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([extended]), critical=False)
    return Holder(own, builder.sign(issuer.key if issuer else own, hashes.SHA256()))


@dataclass(frozen=True)
class Hierarchy:
    """A signer, what certified it, and the root of that."""

    root: Holder
    intermediate: Holder
    signer: Holder


def hierarchy() -> Hierarchy:
    """A root, an intermediate, and a signer whose certificate says all that may be demanded."""
    root = certify("Model Root", ca=True)
    intermediate = certify("Model Authority", issuer=root, ca=True)
    signer = certify("Model Owner", issuer=intermediate, extended=ExtendedKeyUsageOID.CODE_SIGNING)
    return Hierarchy(root, intermediate, signer)


def _usage(name: str) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{each: each == name for each in names})
