"""A maker of SEV-SNP processors in one file: its keys, a chip's certificate, reports, and a paravisor on top.

Everything signs for real, in AMD's and Azure's formats, so that a report verifies like a true one under the forged
root, and each thing can be made wrong by itself: ``dataclasses.replace`` changes the chip and its certificates,
arguments change a report. What is wrong is signed too, unless it is the signature that is wrong.

>>> from cryptography.hazmat.primitives.asymmetric import rsa
>>> forged = ForgedSnp.create("Genoa")
>>> report = forged.hcl_report(rsa.generate_private_key(65537, 2048).public_key())
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypedDict, Unpack

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from forge import rsa_keys
from forge.determined import Stream
from forge.rsa_keys import sign_pss, signed_again
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.endorsement import VtpmReportEndorsement
from weighbridge.verifier.anchors import Anchor, TrustAnchors

BEGIN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
AT = datetime(2026, 6, 1, tzinfo=UTC)
CHIP_ID = hashlib.sha512(b"a forged chip").digest()
MEASUREMENT = hashlib.sha384(b"a forged paravisor").digest()
AMD = "1.3.6.1.4.1.3704.1"
SALT = 48

# By product: the name in the certificate, the name of the keys above it, the TCB, family and model.
PRODUCTS = {
    "Milan": ("Milan-B0", "Milan", bytes((4, 0, 0, 0, 0, 0, 24, 219)), (0x19, 0x01)),
    "Genoa": ("Genoa", "Genoa", bytes((10, 0, 0, 0, 0, 0, 23, 84)), (0x19, 0x11)),
    "Siena": ("Siena", "Genoa", bytes((10, 0, 0, 0, 0, 0, 23, 84)), (0x19, 0xA0)),
    "Turin": ("Turin-B0", "Turin", bytes((1, 2, 3, 4, 0, 0, 0, 75)), (0x1A, 0x02)),
}


def pss() -> padding.PSS:
    """The padding of AMD's keys."""
    return padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=SALT)


@dataclass(frozen=True)
class Holder:
    """A key of the maker's and the certificate for it."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def crl(
        self, *revoked: x509.Certificate, issued: datetime = BEGIN, next_update: datetime = END, critical: bool = False
    ) -> bytes:
        """A list of revoked certificates by this authority, in DER."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(issued)
            .next_update(next_update)
            .add_extension(x509.CRLNumber(1), critical=critical)
        )
        for other in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(other.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(issued).build())
        return signed_again(builder.sign(self.key, hashes.SHA384(), rsa_padding=pss()), self.key, SALT)


def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """A key by its name, always the same. AMD's have 4096 bits."""
    return rsa_keys.rsa_key(f"forged SEV-SNP/{name}")


@functools.cache
def chip_key() -> ec.EllipticCurvePrivateKey:
    """The forged chip's, always the same."""
    return Stream("forged SEV-SNP/chip").key(ec.SECP384R1())


def certify(
    name: str,
    issuer: Holder | None,
    *,
    key: rsa.RSAPrivateKey,
    serial: int,
    begin: datetime = BEGIN,
    authority: bool = True,
    path_length: int | None = None,
    rsa_padding: padding.PSS | padding.PKCS1v15 | None = None,
) -> Holder:
    """A root's or an intermediate's certificate, as AMD writes them."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(amd_name(name))
        .issuer_name(issuer.certificate.subject if issuer else amd_name(name))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(END)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(authority, path_length), critical=True)
        .add_extension(key_usage(authority=authority), critical=True)
    )
    by = issuer.key if issuer else key
    certificate = builder.sign(by, hashes.SHA384(), rsa_padding=rsa_padding or pss())
    if rsa_padding is None:
        certificate = x509.load_der_x509_certificate(signed_again(certificate, by, SALT))
    return Holder(certificate, key)


@functools.cache
def authorities(line: str) -> tuple[Holder, Holder]:
    """ARK and ASK of a line of products."""
    ark = certify(f"ARK-{line}", None, key=rsa_key("ark"), serial=0x10000)
    return ark, certify(f"SEV-{line}", ark, key=rsa_key("ask"), serial=0x10001, path_length=0)


class ReportChanges(TypedDict, total=False):
    """Fields of a report, by name; ``patches`` are put at their offsets after all others, before signing."""

    version: int
    policy: int
    vmpl: int
    algorithm: int
    platform_info: int
    key_flags: int
    report_data: bytes
    measurement: bytes
    current_tcb: bytes
    committed_tcb: bytes
    reported_tcb: bytes
    cpu: tuple[int, int]
    chip_id: bytes
    patches: Mapping[int, bytes]


@dataclass(frozen=True)
class ForgedSnp:
    """One chip and its maker. Made by :meth:`create`, changed by :func:`dataclasses.replace`."""

    platform: str
    product: str
    ark: Holder
    ask: Holder
    extensions: Mapping[str, bytes | None] = field(default_factory=lambda: MappingProxyType({}))
    serial: int = 0
    begin: datetime = BEGIN
    end: datetime = END
    name: str = "SEV-VCEK"
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(default_factory=chip_key)
    critical: bool = False
    hash_algorithm: hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA384)

    @classmethod
    def create(cls, product: str = "Genoa", platform: str = "insecure-emulated") -> ForgedSnp:
        ark, ask = authorities(PRODUCTS[product][1])
        return cls(platform, product, ark, ask)

    @property
    def tcb(self) -> bytes:
        return PRODUCTS[self.product][2]

    @property
    def chip_id(self) -> bytes:
        return CHIP_ID[:8] + bytes(56) if self.product == "Turin" else CHIP_ID

    def vcek(self) -> bytes:
        """The chip's certificate in DER, with AMD's serial number, which no library will write."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(amd_name(self.name))
            .issuer_name(self.ask.certificate.subject)
            .public_key(self.key.public_key())
            .serial_number(self.serial or 1)
            .not_valid_before(self.begin)
            .not_valid_after(self.end)
        )
        for oid, value in {**self._extensions(), **self.extensions}.items():
            if value is not None:
                extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
                builder = builder.add_extension(extension, critical=self.critical)
        certificate = builder.sign(self.ask.key, self.hash_algorithm, rsa_padding=pss())
        der = signed_again(certificate, self.ask.key, SALT)
        return der if self.serial else self._with_serial_zero(der, certificate.tbs_certificate_bytes)

    def _with_serial_zero(self, der: bytes, signed: bytes) -> bytes:
        """The serial number is the last of the first twelve bytes; it was one."""
        assert signed[9:12] == b"\x02\x01\x01"
        changed = signed[:11] + b"\x00" + signed[12:]
        signature = sign_pss(self.ask.key, changed, self.hash_algorithm, salt=SALT)
        return der[:4] + changed + der[4 + len(signed) : -len(signature)] + signature

    def _extensions(self) -> dict[str, bytes]:
        name = PRODUCTS[self.product][0].encode()
        turin = self.product == "Turin"
        order = (9, 1, 2, 3, 5, 6, 7, 8) if turin else (1, 2, 4, 5, 6, 7, 3, 8)
        return {
            f"{AMD}.1": der_integer(int(turin)),
            f"{AMD}.2": bytes((0x16, len(name))) + name,
            **{f"{AMD}.3.{number}": der_integer(value) for number, value in zip(order, self.tcb, strict=True)},
            f"{AMD}.4": self.chip_id[:8] if turin else self.chip_id,
        }

    @property
    def certificates(self) -> tuple[bytes, ...]:
        return self.vcek(), self.ask.der, self.ark.der

    def anchors(self) -> TrustAnchors:
        return TrustAnchors(
            (Anchor.from_certificate("amd-ark", self.ark.certificate, platform=self.platform, source="forged"),)
        )

    def crl(self, *, revoked: bool = False, issued: datetime = BEGIN, next_update: datetime = END) -> bytes:
        """The root's list; ``revoked`` says whether it names the ASK."""
        named = (self.ask.certificate,) if revoked else ()
        return self.ark.crl(*named, issued=issued, next_update=next_update)

    def collateral(self) -> Collateral:
        return Collateral.of(CollateralItem("crl", self.crl()))

    def report(self, **changes: Unpack[ReportChanges]) -> bytes:
        """A signed report of this chip; what is not changed is honest."""
        version = changes.get("version", 3)
        fields: dict[int, bytes] = {
            0x00: struct.pack("<IIQ", version, 0, changes.get("policy", 0x3001F)),
            0x30: struct.pack("<II", changes.get("vmpl", 0), changes.get("algorithm", 1)),
            0x38: changes.get("current_tcb", self.tcb),
            0x40: struct.pack("<QI", changes.get("platform_info", 0x25), changes.get("key_flags", 0)),
            0x50: changes.get("report_data", bytes(64)),
            0x90: changes.get("measurement", MEASUREMENT),
            0x160: b"\xff" * 32,
            0x180: changes.get("reported_tcb", self.tcb),
            0x188: bytes((*changes.get("cpu", PRODUCTS[self.product][3]), 1)) if version > 2 else b"",
            0x1A0: changes.get("chip_id", self.chip_id),
            0x1E0: changes.get("committed_tcb", self.tcb),
            0x1E8: bytes((40, 55, 1, 0, 40, 55, 1, 0)),
            0x1F0: self.tcb,
            **changes.get("patches", {}),
        }
        data = bytearray(0x2A0)
        for offset, value in fields.items():
            data[offset : offset + len(value)] = value
        signed = bytes(data)
        assert isinstance(self.key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(hashes.SHA384())))
        return signed + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)

    def hcl_report(self, ak: rsa.RSAPublicKey, **changes: Unpack[ReportChanges]) -> bytes:
        """What NV index 0x01400001 holds: unless the report data are changed, the report binds ``ak``."""
        claims = hcl_claims(ak)
        bound = ReportChanges(report_data=hashlib.sha256(claims).digest() + bytes(32))
        return hcl_frame(2, self.report(**(bound | changes)), claims)

    def endorsement(self, ak: rsa.RSAPublicKey, **changes: Unpack[ReportChanges]) -> VtpmReportEndorsement:
        """Why ``ak`` is to be believed, as an attester would send it."""
        report = self.hcl_report(ak, **changes)
        return VtpmReportEndorsement(report=report, quote=None, certificates=self.certificates)

    def with_extensions(self, **values: bytes | None) -> ForgedSnp:
        """A chip whose certificate has these extensions of AMD's, by number: ``with_extensions(**{"3.1": …})``."""
        return replace(self, extensions={f"{AMD}.{number}": value for number, value in values.items()})


def hcl_claims(ak: rsa.RSAPublicKey, **changes: object) -> bytes:
    """The paravisor's claims about a TPM whose attestation key is ``ak``."""
    document: dict[str, object] = {
        "keys": [jwk("HCLAkPub", ak, "sign"), jwk("HCLEkPub", rsa_key("ek").public_key(), "encrypt")],
        "vm-configuration": {
            "console-enabled": True,
            "secure-boot": True,
            "tpm-enabled": True,
            "tpm-persisted": False,
            "vmUniqueId": "00000000-0000-4000-8000-000000000000",
        },
        "user-data": "00" * 64,
    }
    return json.dumps(document | changes, separators=(",", ":")).encode()


def jwk(kid: str, key: rsa.RSAPublicKey, operation: str) -> dict[str, object]:
    """A key as the paravisor writes it."""
    modulus = key.public_numbers().n.to_bytes(key.key_size // 8, "big")
    return {
        "kid": kid,
        "key_ops": [operation],
        "kty": "RSA",
        "e": "AQAB",
        "n": base64.urlsafe_b64encode(modulus).rstrip(b"=").decode(),
    }


def hcl_frame(report_type: int, hardware: bytes, claims: bytes, *, hash_type: int = 1, size: int = 2600) -> bytes:
    """The paravisor's report around a hardware report and claims: type 2 is SEV-SNP, 4 is TDX."""
    end = 32 + 1184 + 20 + len(claims)
    header = struct.pack("<4s7I", b"HCLA", 2, end, 2, 0, 0, 0, 0)
    data = struct.pack("<5I", 20 + len(claims), 1, report_type, hash_type, len(claims))
    return (header + hardware.ljust(1184, b"\0") + data + claims).ljust(size, b"\0")


def der_integer(value: int) -> bytes:
    """A small non-negative INTEGER."""
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(body))) + body


def amd_name(common_name: str) -> x509.Name:
    """A name as AMD's certificates have it."""
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(x509.NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(x509.NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Forged Micro Devices"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
        ]
    )


def key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
