"""What is to be fetched for given evidence, and from where: for a person with a browser, or for :mod:`.fetch`.

===============================  ===================================================================================
for a GPU or a switch            a manifest for its driver and one for its VBIOS; of each certificate of its chain but
                                 leaf and root an OCSP response; the lists of revoked certificates that they name
for a manifest in the store      the same of its signer's chain
for an AMD SEV-SNP report        the chip's certificate for the TCB that the report states, AMD's two above it, and
                                 AMD's list
for an Intel TD quote            Intel's documents for this kind of processor (four addresses, one piece)
for an answer of NVIDIA's NRAS   the service's key set
===============================  ===================================================================================

Addresses are the makers' own, of :data:`HOSTS`: what evidence names as an address is compared with these and never
followed elsewhere. So that nobody's made-up certificate sends a verifier to an address of its author's choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library

from weighbridge.proto import der
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.tee import hcl, snp
from weighbridge.proto.tee.td_quote import parse_td_quote
from weighbridge.proto.x509 import load_certificate
from weighbridge.verifier import certs
from weighbridge.verifier.collateral.describe import ocsp_subject
from weighbridge.verifier.gpu import nras
from weighbridge.verifier.gpu.chain import GPUS_AND_SWITCHES, verify_chain
from weighbridge.verifier.gpu.ocsp import Authority
from weighbridge.verifier.gpu.recorded import parse_evidence
from weighbridge.verifier.gpu.report import verify_recorded_report
from weighbridge.verifier.gpu.rim import dsig
from weighbridge.verifier.gpu.rim.ids import wanted as wanted_manifests
from weighbridge.verifier.tee.snp import CPUS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from weighbridge.proto.collateral import CollateralKind
    from weighbridge.proto.tee.snp import SnpReport
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.collateral.describe import Description
    from weighbridge.verifier.gpu.recorded import RecordedDevice
    from weighbridge.verifier.gpu.report import VerifiedGpuReport

__all__ = ["HOSTS", "Wanted", "held", "wanted_for", "wanted_for_devices", "wanted_for_manifests", "wanted_for_reports"]

_RIM: Final = "rim.attestation.nvidia.com"
_OCSP: Final = "ocsp.ndis.nvidia.com"
_CRL: Final = "crl.ndis.nvidia.com"
_NRAS: Final = "nras.attestation.nvidia.com"
_KDS: Final = "kdsintf.amd.com"
_PCS: Final = "api.trustedservices.intel.com"
_SGX: Final = "certificates.trustedservices.intel.com"
HOSTS: Final = frozenset({_RIM, _OCSP, _CRL, _NRAS, _KDS, _PCS, _SGX})
"""Whom anything is asked of."""
# SGX extensions of a PCK certificate, and the FMSPC among them (Intel, "PCK Certificate and CRL Profile" §3.1).
_SGX_EXTENSIONS: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_FMSPC: Final = bytes.fromhex("060a2a864886f84d010d0104")
# An OCTET STRING of six bytes.
_FMSPC_HEAD: Final = b"\x04\x06"
_TURIN_ID: Final = 8
# How a report begins: SPDM 1.1, GET_MEASUREMENTS.
_SPDM: Final = b"\x11\xe0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One piece that is needed.

    Attributes:
        kind: of collateral.
        subject: as :attr:`.Description.subject` says it of a piece that serves.
        about: for people: what it is for.
        urls: where to get it; several, where it is put together from several answers.
        body: what to send with POST; ``None`` to GET.
        issuer: whose answer it must be, and about which certificate, where that can be told before it is kept.
        optional: whether another piece that is wanted serves in its place.
    """

    kind: CollateralKind
    subject: str
    about: str
    urls: tuple[str, ...]
    body: bytes | None = None
    issuer: tuple[x509.Certificate, x509.Certificate] | None = None
    optional: bool = False


def wanted_for(
    data: bytes, *, anchors: TrustAnchors, at: datetime, chain: Sequence[bytes] | None = None
) -> tuple[Wanted, ...]:
    """What is needed to judge recorded evidence, each once.

    Args:
        data: NVIDIA's JSON of several devices, an SPDM report, an SEV-SNP report, Azure's HCL report, a TD quote, or
            an answer of NVIDIA's attestation service; untrusted.
        anchors: under which a GPU's evidence must verify: for evidence of nobody's nothing is wanted.
        at: aware; at which certificates must be valid.
        chain: DER certificates that belong to an SPDM report.

    Raises:
        MalformedEvidence: the evidence is not well-formed, or none of these.
        NotAuthentic: a GPU's evidence does not verify.
    """
    head = data.lstrip(b" \t\r\n")[:1]
    if head == b"[" and data.lstrip(b" \t\r\n[")[:5] == b'"JWT"':
        nras.parse(data)
        return (_key_set(),)
    if head in (b"[", b"{"):
        return wanted_for_devices(parse_evidence(data), anchors=anchors, at=at)
    if data[:2] == _SPDM and chain is not None:
        return _once(_device(data, chain, anchors, at))
    if data[:4] == b"HCLA":
        found = hcl.parse(data)
        if found.kind == "sev-snp":
            return tuple(_snp(snp.parse(found.hardware_report), anchors))
        raise _unknown("an HCL report on TDX, which does not name the processor", hint="name its TD quote instead")
    if len(data) == snp.REPORT_SIZE:
        return tuple(_snp(snp.parse(data), anchors))
    if data[:2] in (b"\x04\0", b"\x05\0"):
        return (_tdx(data),)
    if data[:2] == _SPDM or data[:4].lower() == _SPDM.hex().encode():
        raise _unknown("an SPDM report by itself", hint="pass its certificates too: --chain")
    raise _unknown(f"begins with {data[:8].hex()}" if data else "nothing")


def wanted_for_devices(devices: Iterable[RecordedDevice], *, anchors: TrustAnchors, at: datetime) -> tuple[Wanted, ...]:
    """What is needed to judge GPUs and switches, each once.

    Raises:
        MalformedEvidence: a report or a chain is not well-formed.
        NotAuthentic: one does not verify.
    """
    return _once(piece for device in devices for piece in _device(device.report, device.chain, anchors, at))


def wanted_for_reports(reports: Iterable[VerifiedGpuReport]) -> tuple[Wanted, ...]:
    """What is needed to judge what devices have signed, each once."""
    return _once(piece for report in reports for piece in _reported(report))


def wanted_for_manifests(pieces: Iterable[Description]) -> tuple[Wanted, ...]:
    """What is needed to know of manifests' signers whether they have been revoked, each once.

    Raises:
        MalformedEvidence: a piece of kind ``rim`` is none.
    """
    found: list[Wanted] = []
    for piece in pieces:
        if piece.kind == "rim":
            listed = dsig.parse(piece.item.data).certificates
            chain = [load_certificate(data, f"rim.chain[{number}]") for number, data in enumerate(listed)]
            found += _revocation(chain, f"signer of {piece.subject}")
    return _once(found)


def held(wanted: Wanted, pieces: Iterable[Description], at: datetime) -> Description | None:
    """The newest piece at hand that serves, and is not past its end at ``at``."""
    serving = [
        piece
        for piece in pieces
        if (piece.kind, piece.subject) == (wanted.kind, wanted.subject)
        and piece.issued <= at
        # What has no end says nothing of tomorrow; a revocation has none.
        and (piece.revokes or (piece.expires is not None and at <= piece.expires))
    ]
    return max(serving, key=lambda piece: piece.issued, default=None)


def _once(found: Iterable[Wanted]) -> tuple[Wanted, ...]:
    return tuple({(each.kind, each.subject, each.urls): each for each in found}.values())


def _device(report: bytes, chain: Sequence[bytes], anchors: TrustAnchors, at: datetime) -> Iterator[Wanted]:
    parsed = spdm.parse(report)
    verified = verify_chain(chain, anchors, at=at, accept=GPUS_AND_SWITCHES)
    # Signed by the device, over whatever nonce: what it says of its versions is its own word.
    return _reported(verify_recorded_report(parsed, verified, nonce=parsed.nonce))


def _reported(device: VerifiedGpuReport) -> Iterator[Wanted]:
    for manifest in wanted_manifests(device.report, device.chain):
        url = f"https://{_RIM}/v1/rim/{manifest.service_id}"
        yield Wanted(kind="rim", subject=manifest.id, about=manifest.service_id, urls=(url,))
    # The leaf's issuer is the chip itself.
    yield from _revocation(device.chain.certificates[1:], f"device {device.identity.hex()[:16]}")


def _revocation(chain: Sequence[x509.Certificate], whose: str) -> Iterator[Wanted]:
    """An OCSP response of each certificate with an issuer above it, and the lists that are named."""
    for certificate, issuer in pairwise(chain):
        key = issuer.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            asked = library.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1()).build()  # noqa: S303 - an identifier
            name = certs.common_name(certificate.subject, "chain")
            yield Wanted(
                kind="ocsp",
                subject=ocsp_subject(Authority(issuer.subject, key).cert_id(certificate, "sha1")),
                about=f"{name}, {whose}",
                urls=(f"https://{_OCSP}/",),
                body=asked.public_bytes(Encoding.DER),
                issuer=(certificate, issuer),
            )
        for url in _lists(certificate):
            subject = certificate.issuer.rfc4514_string()
            about = "lists what it has revoked; the responses of its responder serve as well"
            yield Wanted(kind="crl", subject=subject, about=about, urls=(url,), optional=True)


def _lists(certificate: x509.Certificate) -> Iterator[str]:
    """The addresses of lists that a certificate names, of those where anything is asked; by HTTPS."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return
    for point in points:
        for name in point.full_name or ():
            if isinstance(name, x509.UniformResourceIdentifier):
                address = urlsplit(name.value)
                if address.scheme in ("http", "https") and address.netloc in HOSTS and not address.query:
                    yield f"https://{address.netloc}{address.path}"


def _snp(report: SnpReport, anchors: TrustAnchors) -> Iterator[Wanted]:
    """A version 2 report does not say which processor it is of: both that it may be of are asked about."""
    if not any(report.chip_id):
        raise _unknown("an SEV-SNP report that hides which chip it is of")
    if report.cpu is None:
        lines = ["Milan", "Genoa"]
    else:
        family, model = report.cpu
        lines = [
            line for line, (own, models) in CPUS.items() if own == family and any(model in some for some in models)
        ]
    for line in lines:
        turin = line == "Turin"
        identity = report.chip_id[: _TURIN_ID if turin else len(report.chip_id)]
        tcb = snp.Tcb(snp.TcbLayout.TURIN if turin else snp.TcbLayout.MILAN, report.reported_tcb)
        names = {"fmc": "fmcSPL", "bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}
        query = "&".join(f"{names[name]}={number:02d}" for name, number in tcb.components().items())
        base = f"https://{_KDS}/vcek/v1/{line}"
        yield Wanted(
            kind="vcek",
            subject=f"chip {report.chip_id.hex()[:16]} TCB {tcb.raw.hex()}",
            about=f"{line}, {tcb}",
            urls=(f"{base}/{identity.hex()}?{query}",),
        )
        yield Wanted(kind="vcek", subject=f"SEV-{line}", about="above the chip's", urls=(f"{base}/cert_chain",))
        for root in anchors.select("amd-ark"):
            if f"CN=ARK-{line}" in root.name.split(","):
                yield Wanted(kind="crl", subject=root.name, about="lists what it has revoked", urls=(f"{base}/crl",))


def _tdx(data: bytes) -> Wanted:
    quote = parse_td_quote(data)
    listed = certs.pem_certificates(quote.pck_chain, what="td_quote.pck")
    pck = load_certificate(listed[0], "td_quote.pck[0]")
    fmspc = _fmspc(pck)
    authority = "platform" if "Platform" in certs.common_name(pck.issuer, "td_quote.pck[0]") else "processor"
    return Wanted(
        kind="dcap",
        subject=f"TDX FMSPC {fmspc}",
        about="four answers and the certificates in their headers make one piece",
        urls=(
            f"https://{_PCS}/tdx/certification/v4/tcb?fmspc={fmspc}",
            f"https://{_PCS}/tdx/certification/v4/qe/identity",
            f"https://{_PCS}/sgx/certification/v4/pckcrl?ca={authority}&encoding=der",
            f"https://{_SGX}/IntelSGXRootCA.der",
        ),
    )


def _fmspc(pck: x509.Certificate) -> str:
    where = "td_quote.pck[0]"
    try:
        value = pck.extensions.get_extension_for_oid(_SGX_EXTENSIONS).value
    except x509.ExtensionNotFound as error:
        raise MalformedEvidence(Code.CERT_MALFORMED, "not a processor's certificate", where=where) from error
    octets = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    for pair in der.one(octets, der.SEQUENCE, what=where).elements(what=where):
        parts = pair.elements(what=where)
        if [part.raw for part in parts[:1]] == [_FMSPC] and parts[-1].raw[:2] == _FMSPC_HEAD:
            return parts[-1].content.hex()
    raise MalformedEvidence(Code.CERT_MALFORMED, "names no kind of processor", where=where)


def _key_set() -> Wanted:
    return Wanted(
        kind="jwks",
        subject="NVIDIA attestation service",
        about="in the hour of the answer: keys are published for a day or two",
        urls=(f"https://{_NRAS}/.well-known/jwks.json",),
    )


def _unknown(
    got: str, *, hint: str = "weighbridge collateral wanted --help lists what is understood"
) -> MalformedEvidence:
    return MalformedEvidence(
        Code.COLLATERAL_INVALID,
        "nothing is published for it",
        where="evidence",
        expected="devices in JSON, SPDM, SEV-SNP or HCL report, TD quote or NRAS answer",
        got=got,
        hint=hint,
    )
