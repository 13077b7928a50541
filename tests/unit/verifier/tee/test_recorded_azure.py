"""Evidence recorded from confidential virtual machines on Azure: a table from file to outcome.

AMD's and Intel's real roots are the anchors here. Intel's collateral for these processors was not recorded: authentic
quotes stay undecided without it.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, cast

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from weighbridge.proto.collateral import Collateral
from weighbridge.proto.endorsement import VtpmReportEndorsement
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.tee import hcl
from weighbridge.proto.tpm import attest, public
from weighbridge.proto.tpm.constants import Hierarchy
from weighbridge.proto.tpm.names import qualified_name_of_primary
from weighbridge.proto.tpm.public import Public
from weighbridge.proto.tpm.templates import ATTESTATION_KEY_ATTRIBUTES
from weighbridge.proto.tpm.wire import sized, u16, u32
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.certs import pem_certificates
from weighbridge.verifier.tee.snp import verify_snp
from weighbridge.verifier.tee.vtpm import VerifiedVtpm, verify_vtpm

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 6, 1, tzinfo=UTC)

MILAN = ("Milan", "bootloader=4 tee=0 snp=24 microcode=219", True, True)
GENOA = ("Genoa", "bootloader=10 tee=0 snp=23 microcode=84", False, True)
# By file: product, TCB, hyper-threads, alias check, or the code of a refusal.
OUTCOMES: dict[str, tuple[str, str, bool, bool | None] | Code] = {
    "trustee/az-snp-vtpm/evidence-genoa.json": GENOA,
    "trustee/az-snp-vtpm/evidence-v0.json": MILAN,
    "trustee/az-snp-vtpm/evidence-v1.json": MILAN,
    "trustee/az-snp-vtpm/evidence-v2.json": MILAN,
    # A report of version 2, which has no word for aliases.
    "trustee/az-snp-vtpm/hcl-report.bin": ("Milan", "bootloader=3 tee=0 snp=8 microcode=115", True, None),
    # Of March 2023, when the paravisor called its attestation key one for encryption.
    "azure-cvm-tooling/hcl-report-snp.bin": Code.HCL_REPORT,
    "trustee/az-tdx-vtpm/evidence-v0.json": Code.TDX_COLLATERAL,
    "trustee/az-tdx-vtpm/evidence-v1.json": Code.TDX_COLLATERAL,
    "trustee/az-tdx-vtpm/hcl-report.bin": Code.TDX_COLLATERAL,
    # No quote was recorded with it.
    "azure-cvm-tooling/hcl-report-tdx.bin": Code.EVIDENCE_ABSENT,
}
SNP = [name for name, outcome in OUTCOMES.items() if isinstance(outcome, tuple)]
QUOTED = [name for name in OUTCOMES if name.endswith(".json")]
CERTIFICATES = {
    "trustee/az-snp-vtpm/hcl-report.bin": "trustee/az-snp-vtpm/vcek.pem",
    "azure-cvm-tooling/hcl-report-snp.bin": "azure-cvm-tooling/certs.pem",
}
QUOTES = {"trustee/az-tdx-vtpm/hcl-report.bin": "trustee/az-tdx-vtpm/td-quote.bin"}


@pytest.fixture(scope="module")
def tpm_dir(vectors_dir: Path) -> Path:
    return vectors_dir / "tpm"


@pytest.fixture(scope="module")
def anchors(tpm_dir: Path) -> TrustAnchors:
    """AMD's three roots, and Intel's, which every quote brings along."""
    roots = [amd(tpm_dir, line)[1] for line in ("milan", "genoa", "turin")]
    trusted = [Anchor.from_certificate("amd-ark", load(der), platform="amd-sev-snp", source="AMD") for der in roots]
    quote = (tpm_dir / "trustee" / "az-tdx-vtpm" / "td-quote.bin").read_bytes()
    last = re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", quote, re.DOTALL)[-1]
    intel = x509.load_pem_x509_certificate(last)
    trusted.append(Anchor.from_certificate("intel-sgx-root", intel, platform="intel-tdx", source="Intel"))
    return TrustAnchors(tuple(trusted))


def load(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


@cache
def amd(folder: Path, line: str) -> tuple[bytes, bytes]:
    """ASK and ARK."""
    ask, ark, _ = pem_certificates((folder / f"trustee/amd/{line}_ask_ark_asvk.pem").read_bytes(), what=line)
    return ask, ark


def binary(value: object) -> bytes:
    """Bytes as some write them to JSON: a list of numbers, hexadecimal, or base64."""
    if isinstance(value, list):
        return bytes(cast("list[int]", value))
    assert isinstance(value, str)
    return bytes.fromhex(value) if re.fullmatch(r"[0-9a-f]+", value) else base64.urlsafe_b64decode(value + "==")


def vcek(value: str) -> bytes:
    return pem_certificates(value.encode(), what="vcek")[0] if value.startswith("-") else binary(value)


def endorsement(folder: Path, name: str) -> VtpmReportEndorsement:
    """What an attester would send, put together from what was recorded."""
    data = (folder / name).read_bytes()
    if name.endswith(".bin"):
        bundle, quote = CERTIFICATES.get(name), QUOTES.get(name)
        return VtpmReportEndorsement(
            report=data,
            quote=(folder / quote).read_bytes() if quote else None,
            certificates=pem_certificates((folder / bundle).read_bytes(), what=bundle) if bundle else (),
        )
    recorded = json.loads(data)
    report = binary(recorded.get("report") or recorded["hcl_report"])
    if "td_quote" in recorded:
        return VtpmReportEndorsement(report=report, quote=binary(recorded["td_quote"]), certificates=())
    chain = amd(folder, "genoa" if "genoa" in name else "milan")
    return VtpmReportEndorsement(report=report, quote=None, certificates=(vcek(recorded["vcek"]), *chain))


def quoted(folder: Path, name: str) -> tuple[bytes, bytes]:
    """The TPM's quote and its signature, bare as RSASSA makes it."""
    recorded = json.loads((folder / name).read_text())
    quote = recorded.get("quote") or recorded["tpm_quote"]
    return binary(quote["message"]), binary(quote["signature"])


def verify(folder: Path, name: str, anchors: TrustAnchors) -> VerifiedVtpm:
    return verify_vtpm(endorsement(folder, name), collateral=Collateral(), anchors=anchors, at=AT)


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcomes(tpm_dir: Path, anchors: TrustAnchors, name: str) -> None:
    outcome = OUTCOMES[name]
    if isinstance(outcome, Code):
        with pytest.raises(WeighbridgeError) as caught:
            verify(tpm_dir, name, anchors)
        assert caught.value.code is outcome
        assert isinstance(caught.value, Indeterminate) == (outcome is Code.TDX_COLLATERAL)
        return
    vtpm = verify(tpm_dir, name, anchors)
    tee = vtpm.tee
    assert (tee.product, tee.tcb, tee.smt, tee.alias_check) == outcome
    assert (tee.kind, tee.anchor.platform, tee.vmpl, tee.revocation) == ("sev-snp", "amd-sev-snp", 0, "absent")
    assert vtpm.configuration.secure_boot
    assert vtpm.configuration.console_enabled


@pytest.mark.parametrize("name", SNP)
def test_one_bit_of_the_hardware_report(tpm_dir: Path, anchors: TrustAnchors, name: str) -> None:
    """A38, on the real ones."""
    honest = endorsement(tpm_dir, name)
    data = bytearray(hcl.parse(honest.report).hardware_report)
    data[0x50] ^= 1
    with pytest.raises(NotAuthentic) as caught:
        verify_snp(bytes(data), honest.certificates, crls=(), anchors=anchors, at=AT)
    assert caught.value.code is Code.SNP_SIG


def test_claims_of_another_machine(tpm_dir: Path, anchors: TrustAnchors) -> None:
    """A42: both genuine, and not of one machine."""
    one = endorsement(tpm_dir, "trustee/az-snp-vtpm/evidence-v0.json")
    other = endorsement(tpm_dir, "trustee/az-snp-vtpm/evidence-v2.json")
    mixed = one.report[:32] + other.report[32:1216] + one.report[1216:]
    swapped = VtpmReportEndorsement(report=mixed, quote=None, certificates=other.certificates)
    with pytest.raises(NotAuthentic) as caught:
        verify_vtpm(swapped, collateral=Collateral(), anchors=anchors, at=AT)
    assert caught.value.code is Code.HCL_BINDING


def test_another_chips_certificate(tpm_dir: Path, anchors: TrustAnchors) -> None:
    """A37: the certificate that was recorded beside this report is of another chip."""
    report = (tpm_dir / "azure-cvm-tooling/hcl-report-snp.bin").read_bytes()[32:1216]
    chain = pem_certificates((tpm_dir / "azure-cvm-tooling/certs.pem").read_bytes(), what="certs")
    with pytest.raises(NotAuthentic) as caught:
        verify_snp(report, chain, crls=(), anchors=anchors, at=AT)
    assert caught.value.code is Code.SNP_SIG


def test_the_certificate_of_another_line(tpm_dir: Path, anchors: TrustAnchors) -> None:
    honest = endorsement(tpm_dir, "trustee/az-snp-vtpm/evidence-genoa.json")
    chain = (honest.certificates[0], *amd(tpm_dir, "turin"))
    report = hcl.parse(honest.report).hardware_report
    with pytest.raises(NotAuthentic) as caught:
        verify_snp(report, chain, crls=(), anchors=anchors, at=AT)
    assert caught.value.code is Code.CHAIN_BROKEN


def test_a_key_that_a_cloud_loads(tpm_dir: Path, anchors: TrustAnchors) -> None:
    """AMD's intermediate for VLEKs is an authority, not a chip's key."""
    _, _, asvk = pem_certificates((tpm_dir / "trustee/amd/genoa_ask_ark_asvk.pem").read_bytes(), what="genoa")
    honest = endorsement(tpm_dir, "trustee/az-snp-vtpm/evidence-genoa.json")
    report = hcl.parse(honest.report).hardware_report
    with pytest.raises(MalformedEvidence) as caught:
        verify_snp(report, (asvk, *amd(tpm_dir, "genoa")), crls=(), anchors=anchors, at=AT)
    assert caught.value.code is Code.KEY_UNSUPPORTED


def key_of(report: bytes) -> rsa.RSAPublicKey:
    key = load_der_public_key(hcl.parse(report).ak_spki)
    assert isinstance(key, rsa.RSAPublicKey)
    return key


@pytest.mark.parametrize("name", QUOTED)
def test_the_quote_is_by_the_key(tpm_dir: Path, name: str) -> None:
    """A43 as well: the key of another machine does not verify it."""
    message, signature = quoted(tpm_dir, name)
    key_of(endorsement(tpm_dir, name).report).verify(signature, message, padding.PKCS1v15(), SHA256())
    other = "trustee/az-snp-vtpm/evidence-v2.json" if "v2" not in name else "trustee/az-tdx-vtpm/evidence-v0.json"
    with pytest.raises(InvalidSignature):
        key_of(endorsement(tpm_dir, other).report).verify(signature, message, padding.PKCS1v15(), SHA256())


@pytest.mark.parametrize("name", QUOTED)
def test_the_key_is_a_restricted_primary_of_the_endorsement_hierarchy(tpm_dir: Path, name: str) -> None:
    """Nothing recorded states the key's attributes; the signer's qualified name in the quote proves them.

    Of all attributes, schemes and hierarchies only these give it. They are our own attestation key's.
    """
    key = key_of(endorsement(tpm_dir, name).report)
    ak = azure_ak(key)
    assert ak.attributes == ATTESTATION_KEY_ATTRIBUTES
    message, _ = quoted(tpm_dir, name)
    signer = attest.parse(message).qualified_signer
    assert signer == qualified_name_of_primary(Hierarchy.ENDORSEMENT, ak.name)
    assert signer != qualified_name_of_primary(Hierarchy.OWNER, ak.name)


def azure_ak(key: rsa.RSAPublicKey) -> Public:
    """RSA-2048, SHA-256, no policy, RSASSA with SHA-256, exponent 65537: persistent handle 0x81000003."""
    parameters = u16(0x0010) + u16(0x0014) + u16(0x000B) + u16(2048) + u32(0)
    head = u16(0x0001) + u16(0x000B) + u32(ATTESTATION_KEY_ATTRIBUTES) + sized(b"")
    return public.parse(head + parameters + sized(key.public_numbers().n.to_bytes(256, "big")))
