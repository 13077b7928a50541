"""The certificate hierarchy of emulated GPUs, shaped like NVIDIA's and named so that nobody takes it for it.

::

    insecure-emulated Device Identity CA          root, self-signed; its key is dropped once it has signed
      └ insecure-emulated GH100 Identity
          └ insecure-emulated GH100 Provisioner ICA 1
              └ GH100 A01 GSP BROM                one per device, serial number in the subject
                  └ GH100 A01 GSP FMC LF          the attestation key, with the firmware's digest

What the devices should measure is signed under a root of its own: :mod:`.emulated_rims`.

Every signature is real. What makes the evidence worthless as proof is that anybody can make such a root: verifiers
believe it under the platform ``insecure-emulated`` only, and only where they are given its anchor.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from weighbridge.attester.gpu.emulated_rims import Measures, RimSigner, Validity, gpu_manifests
from weighbridge.proto.errors import Code, EnvironmentFault

__all__ = ["PLATFORM", "DeviceKeys", "EmulatedVendor", "Silicon"]

PLATFORM: Final = "insecure-emulated"
_NOT_BEFORE: Final = datetime(2020, 10, 17, tzinfo=UTC)
# RFC 5280 §4.1.2.5: a device has no well-defined end of validity. NVIDIA's chains say the same.
_NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_KEY_END: Final = b"-----END PRIVATE KEY-----\n"
_FWID_OID: Final = x509.ObjectIdentifier("2.23.133.5.4.1")
# SEQUENCE {OID sha384, …} as DER, up to the digest.
_SHA384_PREFIX: Final = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x04\x30"


@dataclass(frozen=True, slots=True, kw_only=True)
class Silicon:
    """What the certificates of a device name: architecture, stepping and the processor that attests."""

    architecture: str = "GH100"
    stepping: str = "A01"
    processor: str = "GSP"

    @property
    def name(self) -> str:
        """Such as ``GH100 A01 GSP``."""
        return f"{self.architecture} {self.stepping} {self.processor}"


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """What one emulated device holds: its attestation key, and its chain in DER, leaf first, root last."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[bytes, ...]
    fwid: bytes

    @property
    def identity(self) -> bytes:
        """SHA-256 of the BROM certificate's SubjectPublicKeyInfo."""
        return hashlib.sha256(_spki(x509.load_der_x509_certificate(self.chain[1]).public_key())).digest()

    @property
    def pdi(self) -> bytes:
        """The number by which NVLink peers name the device, 8 bytes: in its BROM certificate after one byte."""
        subject = x509.load_der_x509_certificate(self.chain[1]).subject
        serial = subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value
        return bytes.fromhex(str(serial))[1:]  # lenient: our own certificate

    def to_pem(self) -> bytes:
        """The chain and the private key, unencrypted, in one file; :meth:`from_pem` reads it back."""
        return _certificates_pem(self.chain) + _key_pem(self.key)

    @classmethod
    def from_pem(cls, data: bytes) -> Self:
        """A device as it was saved.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT``.
        """
        key, chain = _from_pem(data, "emulated device")
        extensions = x509.load_der_x509_certificate(chain[0]).extensions
        fwid = next((item.value.public_bytes()[-48:] for item in extensions if item.oid == _FWID_OID), b"")
        return cls(key, chain, fwid)


@dataclass(frozen=True, slots=True)
class EmulatedVendor:
    """A vendor of emulated GPUs: the provisioner's key, which signs devices, and its chain in DER, root last.

    ``rim_signer`` is the authority for its reference manifests.
    """

    key: ec.EllipticCurvePrivateKey
    chain: tuple[bytes, ...]
    rim_signer: RimSigner = field(default_factory=RimSigner.create)

    @classmethod
    def create(cls, *, architecture: str = "GH100") -> Self:
        """A new vendor with keys that nobody else has. The root's key is used twice and forgotten."""
        root_key, identity_key, provisioner_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))
        names = [
            _name(f"{PLATFORM} Device Identity CA"),
            _name(f"{PLATFORM} {architecture} Identity"),
            _name(f"{PLATFORM} {architecture} Provisioner ICA 1"),
        ]
        root = _authority(names[0], root_key.public_key(), issuer=names[0], signer=root_key)
        identity = _authority(names[1], identity_key.public_key(), issuer=names[0], signer=root_key)
        provisioner = _authority(names[2], provisioner_key.public_key(), issuer=names[1], signer=identity_key)
        chain = tuple(item.public_bytes(Encoding.DER) for item in (provisioner, identity, root))
        return cls(provisioner_key, chain, RimSigner.create(product=architecture))

    @property
    def root_certificate(self) -> bytes:
        """The root in DER: what an anchors document of platform ``insecure-emulated`` would name."""
        return self.chain[-1]

    @property
    def rim_root_certificate(self) -> bytes:
        """The root of the reference manifests in DER, for an anchor of purpose ``nvidia-rim-root``."""
        return self.rim_signer.root_certificate

    def rims(
        self, firmware: Measures, *, product: str = "GH100", validity: Validity | None = None
    ) -> tuple[bytes, bytes]:
        """Reference manifests for devices that run ``firmware``: the driver's and the VBIOS's, newly issued."""
        driver, vbios = gpu_manifests(firmware, product=product)
        return self.rim_signer.issue(driver, validity=validity), self.rim_signer.issue(vbios, validity=validity)

    def provision(self, *, fwid: bytes, silicon: Silicon | None = None) -> DeviceKeys:
        """A new device: boot ROM key, attestation key derived for firmware ``fwid`` (48 bytes), both certified."""
        silicon = silicon or Silicon()
        brom_key, leaf_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
        issuer = x509.load_der_x509_certificate(self.chain[0]).subject
        serial = secrets.token_bytes(8)
        brom_name = _device_name(f"{silicon.name} BROM", b"A" + serial)
        leaf_name = _device_name(f"{silicon.name} FMC LF", secrets.token_bytes(20))
        brom = _authority(brom_name, brom_key.public_key(), issuer=issuer, signer=self.key)
        leaf = (
            _certificate(leaf_name, leaf_key.public_key(), issuer=brom_name, signer=brom_key)
            .add_extension(_usage(certify=False), critical=True)
            .add_extension(_device_id(silicon, serial), critical=False)
            .add_extension(
                x509.UnrecognizedExtension(_FWID_OID, _composite_id(brom_key.public_key(), fwid)), critical=False
            )
            .sign(brom_key, hashes.SHA384())
        )
        chain = (leaf.public_bytes(Encoding.DER), brom.public_bytes(Encoding.DER), *self.chain)
        return DeviceKeys(leaf_key, chain, fwid)

    def to_pem(self) -> bytes:
        """Both chains, each with its private key, unencrypted, in one file; :meth:`from_pem` reads it back."""
        signer = self.rim_signer
        parts = [_certificates_pem(self.chain), _key_pem(self.key), _certificates_pem(signer.chain)]
        return b"".join([*parts, _key_pem(signer.key)])

    @classmethod
    def from_pem(cls, data: bytes) -> Self:
        """A vendor as it was saved.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT``.
        """
        devices, mark, manifests = data.partition(_KEY_END)
        key, chain = _from_pem(devices + mark, "emulated vendor")
        return cls(key, chain, RimSigner(*_from_pem(manifests, "emulated vendor")))


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{PLATFORM}, not NVIDIA"),
        ]
    )


def _device_name(common: str, serial: bytes) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, serial.hex().upper()), *_name(common)])


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, *, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority, critical=False)
    )


def _authority(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, *, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    return (
        _certificate(subject, key, issuer=issuer, signer=signer)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(certify=True), critical=True)
        .sign(signer, hashes.SHA384())
    )


def _usage(*, certify: bool) -> x509.KeyUsage:
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


def _device_id(silicon: Silicon, serial: bytes) -> x509.SubjectAlternativeName:
    """``manufacturer:product:serial`` as SPDM puts it into a leaf (DSP0274 1.1, id-DMTF-device-info)."""
    text = f"EMULATED:{silicon.architecture}:{serial.hex().upper()}".encode()
    other = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1"), _der(0x0C, text))
    return x509.SubjectAlternativeName([other])


def _composite_id(device: ec.EllipticCurvePublicKey, fwid: bytes) -> bytes:
    """``SEQUENCE {INTEGER 1, SubjectPublicKeyInfo of the boot ROM, SEQUENCE {sha384, digest}}``: 189 bytes."""
    return _der(0x30, b"\x02\x01\x01" + _spki(device) + _der(0x30, _SHA384_PREFIX + fwid))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    return bytes([tag, size]) + content if size < 0x80 else bytes([tag, 0x81, size]) + content  # noqa: PLR2004 - X.690


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("not an elliptic-curve key")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificates_pem(chain: tuple[bytes, ...]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _from_pem(data: bytes, what: str) -> tuple[ec.EllipticCurvePrivateKey, tuple[bytes, ...]]:
    try:
        chain = tuple(item.public_bytes(Encoding.DER) for item in x509.load_pem_x509_certificates(data))
        key = load_pem_private_key(data[data.index(b"-----BEGIN PRIVATE KEY") :], password=None)
        own = _spki(x509.load_der_x509_certificate(chain[0]).public_key())
        if not isinstance(key, ec.EllipticCurvePrivateKey) or _spki(key.public_key()) != own:
            raise TypeError("key and certificate do not belong together")  # noqa: TRY301 - one answer for all
    except (ValueError, TypeError) as error:
        raise EnvironmentFault(
            Code.STATE_CORRUPT,
            f"saved {what} cannot be read: {error}",
            where=what,
            hint="Delete the file to make a new one.",
        ) from error
    return key, chain
