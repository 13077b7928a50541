"""A cloud that certifies the attestation keys of its virtual TPMs, as Google Compute Engine does. It signs for real."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.soft_tpm import derive_key
from weighbridge.proto import der
from weighbridge.verifier.anchors import Anchor, TrustAnchors

AK_USAGE: Final = x509.ObjectIdentifier("2.23.133.8.3")
INSTANCE: Final = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21")
NOT_BEFORE: Final = datetime(2020, 1, 1, tzinfo=UTC)
NOT_AFTER: Final = datetime(2049, 12, 31, tzinfo=UTC)


def element(tag: int, content: bytes) -> bytes:
    """DER of one element."""
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x81" + bytes([size]) if size < 256 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content


def instance(
    zone: str = "europe-west4-b",
    project_number: int = 7,
    project: str = "acme",
    number: int = 42,
    name: str = "gpu-1",
    *,
    production: bool = True,
) -> bytes:
    """What Google's extension says of a virtual machine."""

    def integer(value: int) -> bytes:
        return element(der.INTEGER, value.to_bytes(value.bit_length() // 8 + 1))

    def text(value: str) -> bytes:
        return element(der.UTF8_STRING, value.encode())

    flag = element(der.BOOLEAN, b"\xff" if production else b"\0")
    properties = element(der.SEQUENCE, element(0xA0, integer(0)) + element(0xA1, flag))
    fields = text(zone) + integer(project_number) + text(project) + integer(number) + text(name)
    return element(der.SEQUENCE, fields + element(0xA0, properties))


class CloudAuthority:
    """A root and an intermediate, both P-256."""

    def __init__(self, seed: str = "cloud") -> None:
        self.root_key = derive_key(f"{seed}/root")
        self.key = derive_key(f"{seed}/intermediate")
        root_name, name = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{seed} {what}")])
            for what in ("EK/AK CA Root", "EK/AK CA Intermediate")
        )
        self.root = self._authority(root_name, root_name, self.root_key)
        self.intermediate = self._authority(name, root_name, self.key)

    def _authority(self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        builder = _builder(subject, issuer, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(key_usage("key_cert_sign"), critical=True)
        return builder.sign(self.root_key, hashes.SHA256(), ecdsa_deterministic=True)

    def certify(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        *,
        usages: tuple[str, ...] | None = ("digital_signature",),
        purposes: tuple[x509.ObjectIdentifier, ...] | None = None,
        machine: bytes | None = None,
        authority: bool | None = False,
        other: x509.ExtensionType | None = None,
        until: datetime = NOT_AFTER,
    ) -> bytes:
        """A certificate of an attestation key in DER: as Google's, unless told otherwise; ``None`` leaves out.

        ``other`` is one extension more, before that of the machine.
        """
        name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "insecure-emulated cloud")])
        builder = _builder(name, self.intermediate.subject, key, until=until)
        if authority is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if other is not None:
            builder = builder.add_extension(other, critical=False)
        if usages is not None:
            builder = builder.add_extension(key_usage(*usages), critical=True)
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        said = x509.UnrecognizedExtension(INSTANCE, instance() if machine is None else machine)
        if said.value:
            builder = builder.add_extension(said, critical=False)
        return builder.sign(self.key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)

    @property
    def intermediates(self) -> tuple[bytes, ...]:
        """What an attester sends beside the certificate."""
        return (self.intermediate.public_bytes(Encoding.DER),)

    def anchors(self, platform: str = "google-vtpm") -> TrustAnchors:
        """Anchors that trust this authority's root for attestation keys."""
        return TrustAnchors((Anchor.from_certificate("tpm-ak-root", self.root, platform=platform, source="a test"),))


def key_usage(*usages: str) -> x509.KeyUsage:
    """Key usage with these bits, by the names that the library gives them."""
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
    return x509.KeyUsage(*(name in usages for name in names))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    *,
    until: datetime = NOT_AFTER,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(until)
    )
