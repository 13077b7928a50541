"""GPU evidence for tests: NVIDIA's own sample out of its wheel, captured vectors, certificate chains made to order."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.verifier import anchors, certs

AT = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = bytes.fromhex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def wheel_bytes(wheel: Path, member: str) -> bytes:
    """A member of NVIDIA's wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"verifier/{member}")


def wheel_report(wheel: Path) -> bytes:
    """NVIDIA's own signed report: H100, driver 550.90.07, published nonce."""
    return bytes.fromhex(wheel_bytes(wheel, "samples/hopperAttestationReport.txt").decode())


def wheel_chain(wheel: Path) -> tuple[bytes, ...]:
    """Its chain, leaf first."""
    return certs.pem_certificates(wheel_bytes(wheel, "samples/hopperCertChain.txt"), what="chain")


def vector_report(folder: Path, name: str) -> bytes:
    """A captured report stored as hexadecimal text."""
    return bytes.fromhex((folder / "nvidia" / name).read_text().strip())


def vector_chain(folder: Path, name: str) -> tuple[bytes, ...]:
    """A captured chain."""
    return certs.pem_certificates((folder / "nvidia" / name).read_bytes(), what="chain")


def emulated_anchors(*vendors: EmulatedVendor) -> anchors.TrustAnchors:
    """The default anchors and the roots of emulated vendors."""
    roots = [certs.load_certificate(vendor.root_certificate, "root") for vendor in vendors]
    return anchors.default().with_anchors(
        [
            anchors.Anchor.from_certificate("nvidia-device-root", root, platform="insecure-emulated", source="a test")
            for root in roots
        ]
    )


def emulated(count: int = 1) -> tuple[list[EmulatedH100], anchors.TrustAnchors]:
    """Devices of one new vendor, and anchors that believe it."""
    vendor = EmulatedVendor.create()
    return [EmulatedH100.make(vendor) for _ in range(count)], emulated_anchors(vendor)


@dataclass(frozen=True)
class Certificate:
    """A certificate made to order, and its key. What is not ordered is as a good device chain has it."""

    name: str
    key: PrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    ca: bool | None = True
    path_length: int | None = None
    signs: bool | None = True
    not_before: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    not_after: datetime = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    hash: hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512 = field(default_factory=hashes.SHA384)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    identifiers: bool = False
    common_names: tuple[str, ...] | None = None
    serial_numbers: tuple[str, ...] = ()

    @property
    def subject(self) -> x509.Name:
        names = (self.name,) if self.common_names is None else self.common_names
        common = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in names]
        return x509.Name([*(x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, n) for n in self.serial_numbers), *common])

    def issue(self, issuer: Certificate) -> x509.Certificate:
        """The certificate, signed by ``issuer``."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(issuer.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
        )
        if self.ca is not None:
            constraints = x509.BasicConstraints(self.ca, self.path_length if self.ca else None)
            builder = builder.add_extension(constraints, critical=True)
        if self.signs is not None:
            builder = builder.add_extension(key_usage(certify=self.signs), critical=True)
        if self.identifiers:
            authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
            builder = builder.add_extension(authority, critical=False)
        for extension, critical in self.extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(issuer.key, self.hash)


def key_usage(*, certify: bool) -> x509.KeyUsage:
    """Either a certification authority's or a signer's."""
    return x509.KeyUsage(
        digital_signature=not certify,
        key_cert_sign=certify,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def chain_of(*orders: Certificate) -> list[x509.Certificate]:
    """A chain from its orders, leaf first; the last signs itself."""
    return [order.issue(orders[min(number + 1, len(orders) - 1)]) for number, order in enumerate(orders)]


def der(certificates: list[x509.Certificate]) -> tuple[bytes, ...]:
    """As evidence carries them."""
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
