"""An OCSP responder and a publisher of lists that sign for real, under a vendor whose every key is at hand.

:class:`RevocableVendor` is shaped like NVIDIA's and keeps the keys of all its authorities, so that every certificate of
a device's chain can be answered for. :class:`Order` says what is answered; what is not ordered is as an honest
responder says it. The library signs with the time of the day alone, so that responses are written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from gpu_support import Certificate, key_usage
from weighbridge.attester.gpu.emulated_rims import RimSigner
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.verifier import anchors
from weighbridge.verifier.gpu.rim import dsig

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# CertStatus, and CRLReason where there is one (RFC 5280 §5.3.1).
STATUSES: dict[str, tuple[int, int | None]] = {
    "good": (0, None),
    "revoked": (1, 1),
    "hold": (1, 6),
    "revoked without a reason": (1, None),
    "unknown": (2, None),
}
_ALGORITHMS = {
    "sha1": "06052b0e03021a",
    "sha256": "0609608648016503040201",
    "sha384": "0609608648016503040202",
    "md5": "06082a864886f70d0205",
}
_ECDSA = {"sha1": "06072a8648ce3d0401", "sha256": "06082a8648ce3d040302", "sha384": "06082a8648ce3d040303"}
_OCSP_BASIC = bytes.fromhex("06092b0601050507300101")
OCSP_SIGNING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])


def tlv(tag: int, *parts: bytes) -> bytes:
    """One element of DER."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


@dataclass(frozen=True)
class Issuer:
    """An authority's, or a responder's, certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def issue(self, order: Certificate) -> x509.Certificate:
        """A certificate as ordered, under this name and key."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(order.subject)
            .issuer_name(self.certificate.subject)
            .public_key(order.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(order.not_before)
            .not_valid_after(order.not_after)
        )
        for extension, critical in order.extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, order.hash)

    def delegate(self, order: Certificate | None = None) -> Issuer:
        """A responder that this authority has certified."""
        order = order or responder()
        assert isinstance(order.key, ec.EllipticCurvePrivateKey)
        return Issuer(self.issue(order), order.key)


def responder() -> Certificate:
    """What a delegate's certificate is: valid a month around :data:`AT`, for OCSP."""
    return Certificate(
        "emulated OCSP responder",
        not_before=AT - 15 * DAY,
        not_after=AT + 15 * DAY,
        extensions=((OCSP_SIGNING, False), (key_usage(certify=False), True)),
    )


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a response says, and who signs it. Without a signer, the issuer does."""

    status: str = "good"
    this_update: datetime = AT - HOUR
    next_update: datetime | None = AT + DAY
    produced_at: datetime | None = None
    signer: Issuer | None = None
    signing_key: ec.EllipticCurvePrivateKey | None = None
    certificates: tuple[x509.Certificate, ...] | None = None
    by_name: bool = False
    nonce: bytes | None = None
    extensions: tuple[bytes, ...] = ()
    single_extensions: tuple[bytes, ...] = ()
    id_hash: str = "sha1"
    signature_hash: str = "sha384"
    serial: int | None = None
    answers: int = 1


def respond(certificate: x509.Certificate, issuer: Issuer, order: Order | None = None) -> bytes:
    """An OCSP response in DER about ``certificate``, as ordered."""
    order = order or Order()
    signer = order.signer or issuer
    identifier = (
        tlv(0xA1, signer.certificate.subject.public_bytes())
        if order.by_name
        else tlv(0xA2, tlv(0x04, _digest("sha1", _key_bits(signer.certificate))))
    )
    nonce = () if order.nonce is None else (extension("06092b0601050507300102", tlv(0x04, order.nonce)),)
    tbs = tlv(
        0x30,
        identifier,
        _time(order.produced_at or order.this_update),
        tlv(0x30, *[_single(certificate, issuer, order)] * order.answers),
        _extensions(0xA1, (*nonce, *order.extensions)),
    )
    kind = order.signature_hash
    signature = (order.signing_key or signer.key).sign(tbs, ec.ECDSA(_hash(kind)))
    brought = order.certificates
    if brought is None:
        brought = () if signer is issuer else (signer.certificate,)
    listed = tlv(0xA0, tlv(0x30, *(each.public_bytes(Encoding.DER) for each in brought))) if brought else b""
    basic = tlv(0x30, tbs, tlv(0x30, bytes.fromhex(_ECDSA[kind])), tlv(0x03, b"\0", signature), listed)
    return tlv(0x30, tlv(0x0A, b"\0"), tlv(0xA0, tlv(0x30, _OCSP_BASIC, tlv(0x04, basic))))


def refusal(status: int = 6) -> bytes:
    """A response without an answer: 6 is ``unauthorized``, 3 ``tryLater``."""
    return tlv(0x30, tlv(0x0A, bytes([status])))


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    """One Extension; ``oid`` is an OBJECT IDENTIFIER's DER in hexadecimal."""
    return tlv(0x30, bytes.fromhex(oid), b"\x01\x01\xff" if critical else b"", tlv(0x04, value))


def revocation_list(
    issuer: Issuer,
    revoked: dict[int, x509.ReasonFlags | None] | None = None,
    *,
    this_update: datetime = AT - HOUR,
    next_update: datetime = AT + 30 * DAY,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    key: ec.EllipticCurvePrivateKey | None = None,
    algorithm: hashes.SHA224 | hashes.SHA384 | None = None,
) -> bytes:
    """A list in DER of the serial numbers that ``issuer`` has revoked."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(x509.CRLNumber(7), critical=False)
    )
    for item, critical in extensions:
        builder = builder.add_extension(item, critical=critical)
    for serial, reason in (revoked or {}).items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key or issuer.key, algorithm or hashes.SHA384()).public_bytes(Encoding.DER)


@dataclass(frozen=True)
class RevocableVendor:
    """A vendor of emulated GPUs whose authorities all still have their keys.

    Attributes:
        provisioner: issues chips' own certificates; ``identity`` and ``root`` are above it.
        values: issues signers of reference manifests, and what is above it.
    """

    provisioner: Issuer
    identity: Issuer
    root: Issuer
    values: tuple[Issuer, Issuer, Issuer]

    @classmethod
    def create(cls, *, signs_lists: bool = True) -> Self:
        """A new vendor with keys that nobody else has."""
        devices = _line(
            "Device Identity CA", "GH100 Identity", "GH100 Provisioner ICA 1", lists="crl", signs_lists=signs_lists
        )
        values = _line(
            "CoRIM signing Root CA", "Reference Value GH100 CA", "Reference Value L3 GH100 001", lists="crl-corim"
        )
        return cls(*devices, values)

    @property
    def vendor(self) -> EmulatedVendor:
        """As :class:`~weighbridge.attester.gpu.emulated.EmulatedH100` takes it; its manifests are of ``values``."""
        return EmulatedVendor(
            self.provisioner.key, _ders(self.issuers), RimSigner(self.values[0].key, _ders(self.values))
        )

    @property
    def anchor(self) -> anchors.Anchor:
        """Who believes this vendor's devices."""
        return _anchor("nvidia-device-root", self.root)

    @property
    def anchors(self) -> anchors.TrustAnchors:
        """The default anchors, and both roots of this vendor."""
        return anchors.default().with_anchors([self.anchor, _anchor("nvidia-rim-root", self.values[2])])

    @property
    def issuers(self) -> tuple[Issuer, Issuer, Issuer]:
        """Who has issued ``chain[1]``, ``chain[2]`` and ``chain[3]`` of a device."""
        return self.provisioner, self.identity, self.root

    def responses(self, chain: tuple[bytes, ...], *orders: Order | None) -> tuple[bytes, ...]:
        """A response for each certificate of a device's chain but leaf and root, as ordered, good where not."""
        return _responses(chain[1:4], self.issuers, orders)

    def rim_responses(self, rim: bytes, *orders: Order | None) -> tuple[bytes, ...]:
        """A response for each certificate of a manifest's chain but the root, as ordered, good where not."""
        return _responses(dsig.parse(rim).certificates[:3], self.values, orders)


def list_named(*urls: str) -> tuple[x509.ExtensionType, bool]:
    """The extension by which a certificate says where lists of its issuer are."""
    points = [
        x509.DistributionPoint([x509.UniformResourceIdentifier(url)], relative_name=None, reasons=None, crl_issuer=None)
        for url in urls
    ]
    return x509.CRLDistributionPoints(points), False


def _line(root: str, middle: str, low: str, *, lists: str, signs_lists: bool = True) -> tuple[Issuer, Issuer, Issuer]:
    """Three authorities, the root last. NVIDIA's name their issuers' lists, and so do these."""
    usage = authority_usage(signs_lists=signs_lists)
    orders = [
        Certificate(
            f"insecure-emulated {name}",
            ca=None,
            signs=None,
            extensions=(
                (x509.BasicConstraints(ca=True, path_length=None), True),
                (usage, True),
                *((list_named(f"http://crl.ndis.nvidia.com/{level}"),) if level else ()),
            ),
        )
        for name, level in ((root, ""), (middle, f"{lists}/l1"), (low, f"{lists}/l2"))
    ]
    top = _self_issued(orders[0])
    above = top.delegate(orders[1])
    return above.delegate(orders[2]), above, top


def _ders(issuers: tuple[Issuer, ...]) -> tuple[bytes, ...]:
    return tuple(each.certificate.public_bytes(Encoding.DER) for each in issuers)


def _anchor(purpose: anchors.Purpose, root: Issuer) -> anchors.Anchor:
    return anchors.Anchor.from_certificate(purpose, root.certificate, platform="insecure-emulated", source="a test")


def _responses(
    asked: Sequence[bytes], issuers: tuple[Issuer, ...], orders: tuple[Order | None, ...]
) -> tuple[bytes, ...]:
    padded = (*orders, *[None] * (len(asked) - len(orders)))
    return tuple(
        respond(x509.load_der_x509_certificate(der), issuer, order)
        for der, issuer, order in zip(asked, issuers, padded, strict=True)
    )


def authority_usage(*, signs_lists: bool) -> x509.KeyUsage:
    """What an authority's key may sign: certificates, and perhaps lists."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=signs_lists,
        encipher_only=False,
        decipher_only=False,
    )


def _self_issued(order: Certificate) -> Issuer:
    assert isinstance(order.key, ec.EllipticCurvePrivateKey)
    # A certificate of any kind under its own name lends the issuer's name.
    return Issuer(Issuer(order.issue(order), order.key).issue(order), order.key)


def _single(certificate: x509.Certificate, issuer: Issuer, order: Order) -> bytes:
    serial = certificate.serial_number if order.serial is None else order.serial
    kind, reason = STATUSES[order.status]
    status = tlv(0x80 | kind)
    if kind == 1:
        said = b"" if reason is None else tlv(0xA0, tlv(0x0A, bytes([reason])))
        status = tlv(0xA1, _time(order.this_update - DAY), said)
    return tlv(
        0x30,
        tlv(
            0x30,
            tlv(0x30, bytes.fromhex(_ALGORITHMS[order.id_hash]), b"\x05\x00"),
            tlv(0x04, _digest(order.id_hash, certificate.issuer.public_bytes())),
            tlv(0x04, _digest(order.id_hash, _key_bits(issuer.certificate))),
            tlv(0x02, serial.to_bytes(serial.bit_length() // 8 + 1)),
        ),
        status,
        _time(order.this_update),
        b"" if order.next_update is None else tlv(0xA0, _time(order.next_update)),
        _extensions(0xA1, order.single_extensions),
    )


def _extensions(tag: int, listed: tuple[bytes, ...]) -> bytes:
    return tlv(tag, tlv(0x30, *listed)) if listed else b""


def _time(moment: datetime) -> bytes:
    return tlv(0x18, f"{moment:%Y%m%d%H%M%SZ}".encode())


def _key_bits(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _hash(name: str) -> hashes.HashAlgorithm:
    kinds = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "md5": hashes.MD5()}  # noqa: S303 - what is to be refused, too
    return kinds[name]


def _digest(name: str, data: bytes) -> bytes:
    context = hashes.Hash(_hash(name))
    context.update(data)
    return context.finalize()
