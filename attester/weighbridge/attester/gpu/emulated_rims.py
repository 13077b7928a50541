"""Reference manifests of the emulated vendor: SWID tags in NVIDIA's layout, really signed, under a root of their own.

::

    insecure-emulated CoRIM signing Root CA            root, self-signed; its key is dropped once it has signed
      └ insecure-emulated Reference Value GH100 CA
          └ insecure-emulated Reference Value L3 GH100 001
              └ insecure-emulated RIM L4 Signer        one per issue; its key is dropped once it has signed

Each document is written twice: as NVIDIA writes it, and in its canonical form (Canonical XML 1.1), over which the
digest is taken. Both come from here and not from an XML library, so that a verifier's canonicalisation is compared with
a second one.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Manifest", "Measures", "RimSigner", "Validity", "gpu_manifests"]

_PLATFORM: Final = "insecure-emulated"
_ALWAYS_FROM: Final = datetime(2020, 10, 17, tzinfo=UTC)
_ALWAYS_TO: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_INDICES: Final = 64
# What NVIDIA's manifests of 2025 claim for an H100.
_OF_DRIVER: Final = (7, *range(21, 42))
_OF_VBIOS: Final = (*range(7), *range(8, 13))
# One of a driver's measurements has alternatives, as NVIDIA's have.
_SEVERAL: Final = 36
_ZERO: Final = bytes(48)
_SWID: Final = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_SHA384: Final = "http://www.w3.org/2001/04/xmlenc#sha384"
_RIM: Final = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
_DS: Final = "http://www.w3.org/2000/09/xmldsig#"
_C14N: Final = "http://www.w3.org/2006/12/xml-c14n11"
_MORE: Final = "http://www.w3.org/2001/04/xmldsig-more#"
_ROOT_NAMESPACES: Final = (("xmlns", _SWID), ("xmlns:ns0", _SWID), ("xmlns:ns2", _SHA384))
_END: Final = "</SoftwareIdentity>"


class Measures(Protocol):
    """What a device runs: versions, and the measurement in each block, counted from 1."""

    @property
    def driver(self) -> str:
        """Such as ``580.95.05``."""
        ...

    @property
    def vbios(self) -> str:
        """Such as ``96.00.74.00.1A``."""
        ...

    def measurement(self, index: int) -> bytes:
        """48 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Validity:
    """When a signer's certificate is valid. The beginning is the instant of the issue."""

    issued: datetime = _ALWAYS_FROM
    not_after: datetime = _ALWAYS_TO


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a manifest is to say: ``active`` maps an index, from 0, to the hashes any of which is right."""

    version: str
    active: Mapping[int, tuple[bytes, ...]]
    edition: str = "GPU"
    product: str = "GH100"
    tag_id: str | None = None

    def text(self, *, canonical: bool) -> str:
        """The tag without a signature: as NVIDIA lays it out, or canonical."""
        tag_id = self.tag_id or hashlib.sha384(f"{_PLATFORM}/{self.product}/{self.version}".encode()).hexdigest()
        root = _Tag(
            "SoftwareIdentity",
            _ROOT_NAMESPACES,
            (
                ("corpus", "false"),
                ("name", self.product),
                ("patch", "false"),
                ("supplemental", "false"),
                ("tagId", tag_id),
                ("version", "1.0"),
                ("tagVersion", "0"),
            ),
        )
        entity = _Tag("ns0:Entity", (), (("name", f"{_PLATFORM}, not NVIDIA"), ("role", "softwareCreator tagCreator")))
        payload = _Tag("ns0:Payload", (("xmlns:SHA384", _SHA384),), ())
        lines = [
            root.start(canonical=canonical),
            f"    {entity.empty(canonical=canonical)}",
            f"    {self._meta().empty(canonical=canonical)}",
            f"    {payload.start(canonical=canonical)}",
            *(f"        {self._resource(index).empty(canonical=canonical)}" for index in range(_INDICES)),
            "    </ns0:Payload>",
            _END,
        ]
        return "\n".join(lines)

    def _meta(self) -> _Tag:
        return _Tag(
            "ns0:Meta",
            (("xmlns:ns1", _RIM),),
            (
                ("colloquialVersion", self.version),
                ("edition", self.edition),
                ("product", self.product),
                ("revision", "r1"),
                ("PayloadType", "direct"),
                ("ns1:BindingSpec", "RIMIM"),
                ("ns1:BindingSpecVersion", "1.01"),
                ("ns1:PlatformManufacturerId", "0"),
                ("ns1:PlatformManufacturerStr", _PLATFORM),
                ("ns1:PlatformModel", self.product),
                ("ns1:FirmwareManufacturer", _PLATFORM),
                ("ns1:FirmwareManufacturerId", "0"),
            ),
        )

    def _resource(self, index: int) -> _Tag:
        found = self.active.get(index, (_ZERO,))
        return _Tag(
            "ns0:Resource",
            (),
            (
                ("type", "Measurement"),
                ("index", str(index)),
                ("active", str(index in self.active)),
                ("alternatives", str(len(found))),
                *((f"ns2:Hash{number}", value.hex()) for number, value in enumerate(found)),
                ("name", f"Measurement_{index}"),
                ("size", str(len(_ZERO))),
            ),
        )


def gpu_manifests(firmware: Measures, *, product: str = "GH100") -> tuple[Manifest, Manifest]:
    """The driver's and the VBIOS's, such that a device that runs ``firmware`` matches them."""
    other = hashlib.sha384(f"{_PLATFORM}/another build of {firmware.driver}".encode()).digest()
    driver: dict[int, tuple[bytes, ...]] = {index: (firmware.measurement(index + 1),) for index in _OF_DRIVER}
    driver[_SEVERAL] = (other, *driver[_SEVERAL])
    vbios = {index: (firmware.measurement(index + 1),) for index in _OF_VBIOS}
    return (
        Manifest(version=firmware.driver, active=driver, product=product),
        Manifest(version=firmware.vbios, active=vbios, product=product),
    )


@dataclass(frozen=True, slots=True)
class RimSigner:
    """An authority that certifies signers of manifests: its key, and its chain in DER, root last."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: tuple[bytes, ...]

    @classmethod
    def create(cls, *, product: str = "GH100") -> Self:
        """A new authority with keys that nobody else has."""
        keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]
        names = [
            _name(f"{_PLATFORM} CoRIM signing Root CA"),
            _name(f"{_PLATFORM} Reference Value {product} CA"),
            _name(f"{_PLATFORM} Reference Value L3 {product} 001"),
        ]
        chain: list[x509.Certificate] = []
        for number, (name, key) in enumerate(zip(names, keys, strict=True)):
            issuer = max(number - 1, 0)
            chain.insert(0, _certificate(name, key.public_key(), issuer=names[issuer], signer=keys[issuer]))
        return cls(keys[-1], tuple(item.public_bytes(Encoding.DER) for item in chain))

    @property
    def root_certificate(self) -> bytes:
        """The root in DER: what an anchors document of platform ``insecure-emulated`` would name."""
        return self.chain[-1]

    def issue(self, manifest: Manifest, *, validity: Validity | None = None) -> bytes:
        """An issue of ``manifest``, in NVIDIA's layout."""
        return self.sign(manifest.text(canonical=True), document=manifest.text(canonical=False), validity=validity)

    def sign(
        self,
        canonical: str,
        *,
        document: str | None = None,
        validity: Validity | None = None,
        info: tuple[tuple[str, str], ...] = (),
    ) -> bytes:
        """A signature over any text that ends a root element of NVIDIA's namespaces: for tests, wrong ones as well.

        Args:
            canonical: what is digested.
            document: what is sent, if it is laid out otherwise.
            validity: the signer's.
            info: texts in the signature's ``SignedInfo`` and what replaces them before it is signed.
        """
        key = ec.generate_private_key(ec.SECP384R1())
        authority = x509.load_der_x509_certificate(self.chain[0]).subject
        name = _name(f"{_PLATFORM} RIM L4 Signer")
        leaf = _certificate(name, key.public_key(), issuer=authority, signer=self.key, leaf=validity or Validity())
        digest = base64.b64encode(hashlib.sha384(canonical.encode()).digest()).decode()
        signed = _signed_info(digest, canonical=True, alone=True)
        sent = _signed_info(digest, canonical=document is None, alone=False)
        for old, new in info:
            signed, sent = signed.replace(old, new), sent.replace(old, new)
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA384())))
        value = base64.b64encode(r.to_bytes(48) + s.to_bytes(48)).decode()
        chain = (leaf.public_bytes(Encoding.DER), *self.chain)
        certificates = "".join(f"<ds:X509Certificate>{_lines(der)}</ds:X509Certificate>" for der in chain)
        signature = (
            f'<ds:Signature xmlns:ds="{_DS}">{sent}<ds:SignatureValue>{value}</ds:SignatureValue>'
            f"<ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
        )
        head, end, rest = (document or canonical).rpartition(_END)
        return f"{head}{signature}{end}{rest}".encode()


@dataclass(frozen=True, slots=True)
class _Tag:
    """A tag: its declarations of namespaces and its attributes, in NVIDIA's order."""

    name: str
    namespaces: tuple[tuple[str, str], ...]
    attributes: tuple[tuple[str, str], ...]

    def start(self, *, canonical: bool) -> str:
        return f"<{self._inner(canonical=canonical)}>"

    def empty(self, *, canonical: bool) -> str:
        inner = self._inner(canonical=canonical)
        return f"<{inner}></{self.name}>" if canonical else f"<{inner}/>"

    def _inner(self, *, canonical: bool) -> str:
        """Canonical XML 1.1 §2.3: namespaces by prefix, then attributes by namespace and name."""
        names, values = self.namespaces, self.attributes
        if canonical:
            names, values = tuple(sorted(names)), tuple(sorted(values, key=lambda item: (":" in item[0], item[0])))
        return " ".join([self.name, *(f'{name}="{value}"' for name, value in (*names, *values))])


def _signed_info(digest: str, *, canonical: bool, alone: bool) -> str:
    def empty(name: str, algorithm: str) -> str:
        return _Tag(f"ds:{name}", (), (("Algorithm", algorithm),)).empty(canonical=canonical)

    # Alone, it declares what it has from its place in the document.
    namespaces = (*_ROOT_NAMESPACES, ("xmlns:ds", _DS)) if alone else ()
    return (
        _Tag("ds:SignedInfo", namespaces, ()).start(canonical=canonical)
        + empty("CanonicalizationMethod", _C14N)
        + empty("SignatureMethod", f"{_MORE}ecdsa-sha384")
        + '<ds:Reference URI=""><ds:Transforms>'
        + empty("Transform", f"{_DS}enveloped-signature")
        + empty("Transform", _C14N)
        + "</ds:Transforms>"
        + empty("DigestMethod", f"{_MORE}sha384")
        + f"<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
    )


def _lines(der: bytes) -> str:
    """Base64 in lines of 64, as NVIDIA has it."""
    text = base64.b64encode(der).decode()
    return "\n".join(text[start : start + 64] for start in range(0, len(text), 64)) + "\n"


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{_PLATFORM}, not NVIDIA"),
        ]
    )


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    leaf: Validity | None = None,
) -> x509.Certificate:
    """An authority's certificate, valid at any time, or a leaf's."""
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    usage["key_cert_sign" if leaf is None else "digital_signature"] = True
    validity = leaf or Validity()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.issued)
        .not_valid_after(validity.not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=leaf is None, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(signer, hashes.SHA384())
    )
