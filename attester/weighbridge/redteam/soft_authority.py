"""Who certifies software TPMs, and the keys of both: functions of a seed, so that the same seed gives the same bytes.

Nobody should ever believe such an authority but under the platform ``insecure-emulated``, in a deployment where that is
meant: whoever has the seed has its keys.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto.digest import sha256
from weighbridge.proto.tpm.constants import HashAlgorithm, Scheme
from weighbridge.proto.tpm.wire import sized, u16
from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = [
    "EK_USAGE",
    "EMULATED",
    "HASHES",
    "NOT_AFTER",
    "NOT_BEFORE",
    "SoftAuthority",
    "derive_key",
    "point",
    "rsa_key",
    "tpmt_signature",
]

EMULATED: Final = "insecure-emulated"
NOT_BEFORE: Final = datetime(2020, 1, 1, tzinfo=UTC)
NOT_AFTER: Final = datetime(2049, 12, 31, tzinfo=UTC)
EK_USAGE: Final = x509.ObjectIdentifier("2.23.133.8.1")
HASHES: Final[dict[HashAlgorithm, hashes.HashAlgorithm]] = {
    HashAlgorithm.SHA256: hashes.SHA256(),
    HashAlgorithm.SHA384: hashes.SHA384(),
}
_ORDERS: Final = {
    256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    384: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}


def derive_key(seed: str, curve: ec.SECP256R1 | ec.SECP384R1 | None = None) -> ec.EllipticCurvePrivateKey:
    """The private key that ``seed`` stands for; P-256 unless said otherwise."""
    chosen = curve or ec.SECP256R1()
    number = int.from_bytes(hashlib.sha512(seed.encode()).digest()) % (_ORDERS[chosen.key_size] - 1)
    return ec.derive_private_key(number + 1, chosen)


@cache
def rsa_key(seed: str) -> rsa.RSAPrivateKey:
    """The RSA-2048 key called ``seed``: the same within one process, another in the next."""
    del seed
    return rsa.generate_private_key(65537, 2048)


class SoftAuthority:
    """Who certifies software TPMs: a root and an intermediate, both P-256.

    Args:
        seed: its keys; a secret, unless everybody may make such TPMs.
        name: what its certificates call it.
    """

    def __init__(self, seed: str, *, name: str) -> None:
        self.root_key = derive_key(f"{seed}/root")
        self.key = derive_key(f"{seed}/intermediate")
        root_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name} root")])
        own_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name} intermediate")])
        self.root = self._authority(root_name, root_name, self.root_key)
        self.intermediate = self._authority(own_name, root_name, self.key)

    def _authority(self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        builder = _builder(subject, issuer, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
        return builder.sign(self.root_key, hashes.SHA256(), ecdsa_deterministic=True)

    def certify_ek(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        *,
        usages: tuple[x509.ObjectIdentifier, ...] = (EK_USAGE,),
        authority: bool | None = False,
    ) -> bytes:
        """An EK certificate, DER: empty subject, critical alternative name, as vendors make them."""
        builder = _builder(x509.Name([]), self.intermediate.subject, key)
        model = x509.Name([x509.NameAttribute(x509.ObjectIdentifier("2.23.133.2.2"), "soft")])
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DirectoryName(model)]), critical=True)
        if authority is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        return builder.sign(self.key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)

    @property
    def intermediates(self) -> tuple[bytes, ...]:
        """What an attester sends beside the EK certificate."""
        return (self.intermediate.public_bytes(Encoding.DER),)

    def anchors(self, platform: str = EMULATED, *, source: str = "an authority of software TPMs") -> TrustAnchors:
        """Anchors that trust this authority's root."""
        anchor = Anchor.from_certificate("tpm-ek-root", self.root, platform=platform, source=source)
        return TrustAnchors((anchor,))


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The TPMS_ECC_POINT of ``key``, coordinates at full length."""
    numbers = key.public_key().public_numbers()
    size = (key.curve.key_size + 7) // 8
    return sized(numbers.x.to_bytes(size)) + sized(numbers.y.to_bytes(size))


def tpmt_signature(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, data: bytes) -> bytes:
    """A marshalled TPMT_SIGNATURE, of the kind that such an AK makes."""
    if isinstance(key, rsa.RSAPrivateKey):
        value = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return u16(Scheme.RSASSA) + u16(HashAlgorithm.SHA256) + sized(value)
    size = (key.curve.key_size + 7) // 8
    algorithm = HashAlgorithm.SHA384 if isinstance(key.curve, ec.SECP384R1) else HashAlgorithm.SHA256
    signature = key.sign(data, ec.ECDSA(HASHES[algorithm], deterministic_signing=True))
    r, s = decode_dss_signature(signature)
    return u16(Scheme.ECDSA) + u16(algorithm) + sized(r.to_bytes(size)) + sized(s.to_bytes(size))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
) -> x509.CertificateBuilder:
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    serial = int.from_bytes(sha256(subject.public_bytes() + spki)[:8]) | 1
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
