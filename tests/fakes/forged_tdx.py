"""A maker of TDX processors in one file: its certificates, quotes of its machines, and what it publishes about them.

Everything signs for real, in Intel's formats (Intel TDX DCAP Quoting Library API, Provisioning Certification Service
v4), so that a quote verifies like a true one under the forged root, and each thing can be made wrong by itself.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.verifier.anchors import Anchor, TrustAnchors

Json = dict[str, object]

BEGIN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
AT = datetime(2026, 6, 1, tzinfo=UTC)
FMSPC = bytes.fromhex("00806f050000")
QE_SIGNER = hashlib.sha256(b"a forged quoting enclave's signer").digest()
QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
CPU_SVN = bytes((6, 6, 2, 2, 3, 1, 0, 3)) + bytes(8)
PCE_SVN = 11
TEE_TCB_SVN = bytes((3, 0, 6)) + bytes(13)
SEPT_VE_DISABLE = 1 << 28
QE_ISVSVN = 4
_SGX = "1.2.840.113741.1.13.1"


@dataclass(frozen=True)
class Holder:
    """A key and the certificate for it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def sign(self, data: bytes) -> bytes:
        return sign(self.key, data)

    def crl(
        self, *revoked: Holder, issued: datetime = BEGIN, next_update: datetime = END, number: int = 1
    ) -> x509.CertificateRevocationList:
        """A list of revoked certificates by this authority."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(issued)
            .next_update(next_update)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        for other in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(other.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(issued).build())
        return builder.sign(self.key, hashes.SHA256())


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ECDSA P-256 with SHA-256 as ``r || s``, big-endian."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def certify(
    name: str,
    issuer: Holder | None,
    *,
    path_length: int | None = None,
    begin: datetime = BEGIN,
    end: datetime = END,
    extension: bytes | None = None,
    curve: ec.EllipticCurve | None = None,
) -> Holder:
    """A certificate as Intel writes them: an authority where it has a path length, else a signer."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    subject = _name(name)
    by = issuer.key if issuer else key
    authority = path_length is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        .add_extension(x509.CRLDistributionPoints([_distribution_point()]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_usage(authority=authority), critical=True)
        .add_extension(x509.BasicConstraints(authority, path_length), critical=True)
    )
    if extension is not None:
        unrecognized = x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX), extension)
        builder = builder.add_extension(unrecognized, critical=False)
    return Holder(builder.sign(by, hashes.SHA256()), key)


@dataclass(frozen=True)
class ForgedTdx:
    """One processor and its maker. Made by :meth:`create`."""

    platform: str
    root: Holder
    authority: Holder
    pck: Holder
    signer: Holder
    attestation_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def create(cls, platform: str = "insecure-emulated", *, fmspc: bytes = FMSPC) -> ForgedTdx:
        """A new maker, whose root is believed on ``platform`` where :meth:`anchors` are passed in."""
        root = certify("Intel SGX Root CA", None, path_length=1)
        authority = certify("Intel SGX PCK Platform CA", root, path_length=0)
        return cls(
            platform=platform,
            root=root,
            authority=authority,
            pck=certify("Intel SGX PCK Certificate", authority, extension=sgx_extension(fmspc)),
            signer=certify("Intel SGX TCB Signing", root),
        )

    def anchors(self) -> TrustAnchors:
        """The forged root, believed."""
        anchor = Anchor.from_certificate(
            "intel-sgx-root", self.root.certificate, platform=self.platform, source="forged by a test"
        )
        return TrustAnchors((anchor,))

    def quote(
        self,
        report_data: bytes,
        *,
        version: int = 4,
        attributes: int = SEPT_VE_DISABLE,
        tee_tcb_svn: bytes = TEE_TCB_SVN,
        mr_td: bytes = hashlib.sha384(b"a guest's firmware").digest(),
        mr_signer_seam: bytes = bytes(48),
        mr_service_td: bytes | None = None,
        qe: Callable[[bytearray], object] = lambda report: report,
        chain: Sequence[Holder] | None = None,
        header: Callable[[bytearray], object] = lambda header: header,
        padding: bytes = b"",
    ) -> bytes:
        """A TD quote over ``report_data``.

        Args:
            report_data: 64 bytes.
            version: 4 or 5; with ``mr_service_td`` the body of 5 is that of TDX 1.5.
            attributes: TD attributes, as a number.
            tee_tcb_svn: 16 bytes.
            mr_td: 48 bytes.
            mr_signer_seam: 48 bytes; zero for modules signed by Intel.
            mr_service_td: 48 bytes, or ``None`` for a body of TDX 1.0.
            qe: changes the quoting enclave's report before it is signed.
            chain: the certificates that are sent, leaf first, instead of the true ones; the first signs.
            header: changes the header before it is signed.
            padding: what follows the quote.
        """
        start = bytearray(struct.pack("<HHIHH16s20s", version, 2, 0x81, 0, 0, QE_VENDOR, bytes(20)))
        header(start)
        body = (
            tee_tcb_svn
            + bytes(48)  # MRSEAM
            + mr_signer_seam
            + bytes(8)  # SEAMATTRIBUTES
            + attributes.to_bytes(8, "little")
            + (0x618E7).to_bytes(8, "little")
            + mr_td
            + bytes(48 * 7)  # MRCONFIGID, MROWNER, MROWNERCONFIG, RTMR0..3
            + report_data
        )
        if mr_service_td is not None:
            body += tee_tcb_svn + mr_service_td
        descriptor = struct.pack("<HI", 2 if mr_service_td is None else 3, len(body)) if version == 5 else b""
        signed = bytes(start) + descriptor + body
        evidence = self._authentication(signed, qe, chain or (self.pck, self.authority, self.root))
        return signed + struct.pack("<I", len(evidence)) + evidence + padding

    def collateral(
        self,
        *,
        tcb_info: Json | None = None,
        qe_identity: Json | None = None,
        root_crl: x509.CertificateRevocationList | None = None,
        pck_crl: x509.CertificateRevocationList | None = None,
        signer: Holder | None = None,
        issuers: Sequence[Holder] | None = None,
        document: Json | None = None,
    ) -> bytes:
        """What the maker publishes, as the JSON text of ``dcap_qvl.QuoteCollateralV3``.

        Args:
            tcb_info: fields in place of those of :meth:`tcb_info`.
            qe_identity: fields in place of those of :meth:`qe_identity`.
            root_crl: the root's list instead of an empty one.
            pck_crl: the list of the authority for PCK certificates instead of an empty one.
            signer: who signs both documents instead of the maker's signer.
            issuers: who issued the signer, up to the root.
            document: fields of the whole in place of what they would be.
        """
        by = signer or self.signer
        chain = by.pem + "".join(holder.pem for holder in issuers or (self.root,))
        info = _compact(self.tcb_info() | (tcb_info or {}))
        identity = _compact(self.qe_identity() | (qe_identity or {}))
        # A list without entries is false.
        root_list = self.root.crl() if root_crl is None else root_crl
        pck_list = self.authority.crl() if pck_crl is None else pck_crl
        whole: Json = {
            "pck_crl_issuer_chain": self.authority.pem + self.root.pem,
            "root_ca_crl": root_list.public_bytes(Encoding.DER).hex(),
            "pck_crl": pck_list.public_bytes(Encoding.DER).hex(),
            "tcb_info_issuer_chain": chain,
            "tcb_info": info,
            "tcb_info_signature": by.sign(info.encode()).hex(),
            "qe_identity_issuer_chain": chain,
            "qe_identity": identity,
            "qe_identity_signature": by.sign(identity.encode()).hex(),
        }
        return json.dumps(whole | (document or {})).encode()

    def tcb_info(self, *, status: str = "UpToDate", advisories: Sequence[str] = ()) -> Json:
        """What is said of this processor's firmware: up to date as quoted, out of date below."""
        current: Json = {
            "tcb": tcb(CPU_SVN, PCE_SVN, TEE_TCB_SVN),
            "tcbDate": "2025-03-12T00:00:00Z",
            "tcbStatus": status,
        }
        if advisories:
            current["advisoryIDs"] = list(advisories)
        old: Json = {
            "tcb": tcb(bytes(16), 5, bytes(16)),
            "tcbDate": "2021-11-10T00:00:00Z",
            "tcbStatus": "OutOfDate",
            "advisoryIDs": ["INTEL-SA-00828"],
        }
        module: Json = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        return {
            "id": "TDX",
            "version": 3,
            "issueDate": moment(BEGIN),
            "nextUpdate": moment(END),
            "fmspc": FMSPC.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
            "tdxModule": module,
            "tdxModuleIdentities": [],
            "tcbLevels": [current, old],
        }

    def qe_identity(self, *, status: str = "UpToDate") -> Json:
        """What is said of the quoting enclave that :meth:`quote` uses."""
        return {
            "id": "TD_QE",
            "version": 2,
            "issueDate": moment(BEGIN),
            "nextUpdate": moment(END),
            "tcbEvaluationDataNumber": 17,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11" + "00" * 15,
            "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
            "mrsigner": QE_SIGNER.hex().upper(),
            "isvprodid": 2,
            "tcbLevels": [{"tcb": {"isvsvn": QE_ISVSVN}, "tcbDate": "2025-03-12T00:00:00Z", "tcbStatus": status}],
        }

    def _authentication(self, signed: bytes, change: Callable[[bytearray], object], chain: Sequence[Holder]) -> bytes:
        """Signature, key, and why the key is believed: the quoting enclave's report and who certified that."""
        point = self.attestation_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        extra = bytes(range(32))
        report = bytearray(384)
        report[0:16] = CPU_SVN
        report[48:64] = bytes((0x15,)) + bytes(7) + bytes((0xE7,)) + bytes(7)
        report[64:96] = hashlib.sha256(b"a forged quoting enclave").digest()
        report[128:160] = QE_SIGNER
        struct.pack_into("<HH", report, 256, 2, QE_ISVSVN)
        report[320:352] = hashlib.sha256(point + extra).digest()
        change(report)
        certificates = "".join(holder.pem for holder in chain).encode() + b"\0"
        certified = (
            bytes(report)
            + chain[0].sign(bytes(report))
            + struct.pack("<H", len(extra))
            + extra
            + struct.pack("<HI", 5, len(certificates))
            + certificates
        )
        return sign(self.attestation_key, signed) + point + struct.pack("<HI", 6, len(certified)) + certified


def tcb(cpu_svn: bytes, pce_svn: int, tee_tcb_svn: bytes) -> Json:
    """The least versions of a TCB level."""
    return {
        "sgxtcbcomponents": [{"svn": svn} for svn in cpu_svn],
        "pcesvn": pce_svn,
        "tdxtcbcomponents": [{"svn": svn} for svn in tee_tcb_svn],
    }


def moment(at: datetime) -> str:
    """A time as Intel writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def days(count: int) -> datetime:
    """So many days after :data:`AT`."""
    return AT + timedelta(days=count)


def sgx_extension(fmspc: bytes = FMSPC, *, cpu_svn: bytes = CPU_SVN, pce_svn: int = PCE_SVN) -> bytes:
    """The extension of a PCK certificate that names the processor (Intel SGX PCK Certificate and CRL Profile 1.5)."""
    components = [_entry(f"2.{number}", _integer(svn)) for number, svn in enumerate(cpu_svn, 1)]
    levels = _der(0x30, *components, _entry("2.17", _integer(pce_svn)), _entry("2.18", _der(0x04, cpu_svn)))
    configuration = _der(0x30, *(_entry(f"7.{number}", _der(0x01, b"\xff")) for number in (1, 2, 3)))
    return _der(
        0x30,
        _entry("1", _der(0x04, bytes(range(16)))),
        _entry("2", levels),
        _entry("3", _der(0x04, bytes(2))),
        _entry("4", _der(0x04, fmspc)),
        _entry("5", _der(0x0A, b"\x01")),
        _entry("6", _der(0x04, bytes(range(16)))),
        _entry("7", configuration),
    )


def _entry(suffix: str, value: bytes) -> bytes:
    arcs = [int(arc) for arc in f"{_SGX}.{suffix}".split(".")]
    encoded = bytes((arcs[0] * 40 + arcs[1],)) + b"".join(_base128(arc) for arc in arcs[2:])
    return _der(0x30, _der(0x06, encoded), value)


def _base128(arc: int) -> bytes:
    digits = [arc & 0x7F]
    while arc := arc >> 7:
        digits.append(arc & 0x7F | 0x80)
    return bytes(reversed(digits))


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        length = bytes((size,))
    else:
        octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
        length = bytes((0x80 | len(octets),)) + octets
    return bytes((tag,)) + length + content


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Forged Corporation"),
        ]
    )


def _distribution_point() -> x509.DistributionPoint:
    return x509.DistributionPoint([x509.UniformResourceIdentifier("https://forged.example/crl")], None, None, None)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _compact(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"))
