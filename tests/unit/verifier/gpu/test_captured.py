"""Every report and chain that NVIDIA and others publish: what becomes of it, and by which code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpu_support import AT
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier import anchors
from weighbridge.verifier.gpu import (
    GPUS,
    GPUS_AND_SWITCHES,
    SignedMode,
    VerifiedGpuReport,
    check_topology,
    verify_chain,
    verify_gpus,
    verify_recorded_report,
    verify_report,
)
from weighbridge.verifier.gpu.recorded import load_chain, load_evidence, load_report

DEFAULT = anchors.default()
GPU = "attsdk-testdata-sample_attestation_data-gpu"
SWITCH = "attsdk-testdata-sample_attestation_data-switch"
OLD = SignedMode(None, None)
OFF = SignedMode(protected_pcie=False, feature=None)
SINGLE = SignedMode(protected_pcie=False, feature="spt")
PPCIE = SignedMode(protected_pcie=True, feature="ppcie")


@dataclass(frozen=True)
class Good:
    """What is proven of a genuine report."""

    model: str
    driver: str | None
    vbios: str
    fwid: str
    mode: SignedMode
    findings: tuple[Code, ...] = ()


H100 = "GH100 A01 GSP BROM"
LS10 = Good("LS_10 A01 FSP BROM", None, "96.10.55.00.01", "missing", OLD, (Code.GPU_FWID,))

# Report, its chain, and what comes of the two.
PAIRS: list[tuple[str, str, Good | Code]] = [
    (
        "nvtrust-lgv/hopperAttestationReport.txt",
        "nvtrust-lgv/hopperCertChain.txt",
        Good(H100, "550.90.07", "96.00.9F.00.01", "matches", OFF),
    ),
    (
        "coco-trustee/hopperAttestationReport.txt",
        "coco-trustee/hopper_cert_chain_case1.txt",
        Good(H100, "550.90.07", "96.00.9F.00.01", "matches", OFF),
    ),
    # The root alone; a link left out; the leaf left out.
    ("coco-trustee/hopperAttestationReport.txt", "coco-trustee/hopper_cert_chain_case2.txt", Code.CHAIN_LENGTH),
    ("coco-trustee/hopperAttestationReport.txt", "coco-trustee/hopper_cert_chain_case3.txt", Code.CHAIN_BROKEN),
    ("coco-trustee/hopperAttestationReport.txt", "coco-trustee/hopper_cert_chain_case4.txt", Code.GPU_CHAIN),
    ("coco-trustee/hopperAttestationReport.txt", "coco-trustee/hopper_signing_cert.pem", Code.CHAIN_LENGTH),
    ("coco-trustee/hopperAttestationReport.txt", "coco-trustee/nvidia_device_root.pem", Code.CHAIN_LENGTH),
    (
        "coco-trustee/hopper_coco_report1.txt",
        "coco-trustee/hopper_coco_certs1.txt",
        Good(H100, "580.95.05", "96.00.74.00.1A", "matches", SINGLE, (Code.TRAILING_BYTES,)),
    ),
    (
        "go-nvtrust/attestationReport.txt",
        "go-nvtrust/gpuAkCertChain.txt",
        Good(H100, "545.00", "96.00.5E.00.01", "missing", OLD, (Code.GPU_FWID,)),
    ),
    ("go-nvtrust/attestationReport.txt", "go-nvtrust/invalidCertChain.txt", Code.CHAIN_BROKEN),
    (
        "attsdk-testdata/hopperAttestationReport.txt",
        "attsdk-testdata/hopperCertChain.txt",
        Good(H100, "580.159.03", "96.00.74.00.20", "matches", SINGLE),
    ),
    ("attsdk-testdata/switchAttestationReport.txt", "attsdk-testdata/switchCertChain.txt", LS10),
    (
        f"{GPU}/hopperAttestationReport.txt",
        f"{GPU}/hopperCertChain.txt",
        Good(H100, "535.86.09", "96.00.5E.00.01", "missing", OLD, (Code.GPU_FWID,)),
    ),
    # What has expired is the reference values of its driver.
    (
        f"{GPU}/hopperAttestationReportExpired.txt",
        f"{GPU}/hopperCertChainExpired.txt",
        Good(H100, "570.124.03", "96.00.5E.00.04", "matches", OFF),
    ),
    # NVIDIA shows it with this chain; it is another device's.
    (f"{GPU}/hopperAttestationReportInvalidSignature.txt", f"{GPU}/hopperCertChain.txt", Code.GPU_SIG),
    (
        f"{GPU}/blackwellAttestationReport.txt",
        f"{GPU}/blackwellCertChain.txt",
        Good("GB100 A01 GSP BROM", "575.32", "97.00.88.00.0F", "matches", OLD),
    ),
    (f"{SWITCH}/switchAttestationReport.txt", f"{SWITCH}/switchCertChain.txt", LS10),
    (f"{SWITCH}/switchAttestationReportInvalidSignature.txt", f"{SWITCH}/switchCertChain.txt", Code.GPU_SIG),
    # The newer opaque format is published without a chain: with any other it is refused.
    ("attsdk-2.0.0-nvdaod/sample_nvdaod_transcript.txt", "attsdk-testdata/hopperCertChain.txt", Code.GPU_SIG),
]

# Evidence files: each has one device.
EVIDENCE: dict[str, Good] = {
    "attsdk-common/hopper_evidence.json": Good(H100, "590.12", "96.00.A5.00.01", "matches", PPCIE),
    # Its certificate is on hold: revocation, which is not asked here.
    "attsdk-common/hopper_evidence_cert_hold.json": Good(H100, "570.86.10", "96.00.AF.00.01", "matches", OFF),
    "attsdk-common/switch_evidence_ls10.json": LS10,
    "attsdk-testdata/evidence_hopper_590_12.json": Good(H100, "590.12", "96.00.A5.00.01", "matches", PPCIE),
}

# Files that hold neither a report nor a chain: reference values, roots, claims, policies, other people's parsed dumps.
ELSEWHERE = (
    "*.swidtag",
    "*.xml",
    "*.xsd",
    "*.rego",
    "*.crt",
    "test-rim.b64",
    "verifier_*_root.pem",
    "*-claims.txt",
    "*_decoded.json",
    "*_detached_eat.json",
    "*spdm_*parsed_output.*",
)


def described(verified: VerifiedGpuReport) -> Good:
    report = verified.report
    return Good(
        verified.chain.model,
        report.driver_version,
        report.vbios_version or "",
        verified.fwid,
        verified.mode,
        tuple(finding.code for finding in verified.findings),
    )


def outcome(data: bytes, certificates: tuple[bytes, ...]) -> Good | Code:
    try:
        chain = verify_chain(certificates, DEFAULT, at=AT, accept=GPUS_AND_SWITCHES)
        report = spdm.parse(data)
        return described(verify_recorded_report(report, chain, nonce=report.nonce))
    except (NotAuthentic, MalformedEvidence) as error:
        return error.code


@pytest.mark.parametrize(("report", "chain", "expected"), PAIRS)
def test_reports_with_their_chains(vectors_dir: Path, report: str, chain: str, expected: Good | Code) -> None:
    """A16, A24, A25, A26, A28."""
    data = load_report(str(vectors_dir / "nvidia" / report))
    certificates = load_chain(str(vectors_dir / "nvidia" / chain))
    assert outcome(data, certificates) == expected


@pytest.mark.parametrize(("name", "expected"), EVIDENCE.items())
def test_evidence_files(vectors_dir: Path, name: str, expected: Good) -> None:
    (device,) = load_evidence(str(vectors_dir / "nvidia" / name))
    assert outcome(device.report, device.chain) == expected
    assert spdm.parse(device.report).nonce == device.claimed_nonce
    assert device.claimed_arch == ("LS10" if "switch" in name else "HOPPER")


@pytest.mark.parametrize(("report", "chain", "expected"), PAIRS)
def test_in_a_live_window(vectors_dir: Path, report: str, chain: str, expected: Good | Code) -> None:
    """A15, A28: as recorded, but that a switch is no GPU, and that nothing may follow a signature."""
    if isinstance(expected, Good) and expected.model.startswith("LS_10"):
        expected = Code.GPU_ARCH
    elif isinstance(expected, Good) and Code.TRAILING_BYTES in expected.findings:
        expected = Code.TRAILING_BYTES
    elif report.endswith("switchAttestationReportInvalidSignature.txt"):
        expected = Code.GPU_ARCH
    data = load_report(str(vectors_dir / "nvidia" / report))
    certificates = load_chain(str(vectors_dir / "nvidia" / chain))
    # Evidence cannot even be built of one certificate.
    assert live(data, certificates) == (Code.FIELD_RANGE if len(certificates) == 1 else expected)


def live(data: bytes, certificates: tuple[bytes, ...]) -> Good | Code:
    try:
        evidence = GpuEvidence(data, certificates)
        nonce = spdm.parse(data).nonce
        (verified,) = verify_gpus([evidence], nonce=nonce, anchors=DEFAULT, at=AT, expected=None)
    except (NotAuthentic, MalformedEvidence) as error:
        return error.code
    return described(verified)


def test_every_published_file_is_here_or_elsewhere(vectors_dir: Path) -> None:
    named = {name for pair in PAIRS for name in pair[:2]} | set(EVIDENCE)
    files = {path.relative_to(vectors_dir / "nvidia") for path in (vectors_dir / "nvidia").rglob("*") if path.is_file()}
    missing = [
        str(path) for path in files if str(path) not in named and not any(path.match(item) for item in ELSEWHERE)
    ]
    assert missing == []


def test_switches_that_a_genuine_gpu_names(vectors_dir: Path) -> None:
    """Four switches over eighteen links; one of them is the switch whose own report is published."""
    name = f"{GPU}/hopperAttestationReportInvalidSignature.txt"
    value = spdm.parse(load_report(str(vectors_dir / "nvidia" / name))).opaque.get(OpaqueType.SWITCH_PDI) or b""
    named = Counter(value[offset : offset + 8][::-1] for offset in range(0, len(value), 8))
    assert sorted(named.values()) == [4, 4, 5, 5]
    (device,) = load_evidence(str(vectors_dir / "nvidia" / "attsdk-common/switch_evidence_ls10.json"))
    chain = verify_chain(device.chain, DEFAULT, at=AT, accept=GPUS_AND_SWITCHES)
    assert chain.pdi in named
    assert chain.pdi == spdm.parse(device.report).opaque.get(OpaqueType.SWITCH_PDI)


def test_genuine_gpus_without_their_switches(vectors_dir: Path) -> None:
    """Two of eight GPUs of one host in protected-PCIe mode: genuine, and not all that belongs to them."""
    names = ["attsdk-common/hopper_evidence.json", "attsdk-testdata/evidence_hopper_590_12.json"]
    devices = [device for name in names for device in load_evidence(str(vectors_dir / "nvidia" / name))]
    evidence = [GpuEvidence(device.report, device.chain) for device in devices]
    nonce = spdm.parse(evidence[0].report).nonce
    for accept in (GPUS, GPUS_AND_SWITCHES):
        with pytest.raises(NotAuthentic) as caught:
            verify_gpus(evidence, nonce=nonce, anchors=DEFAULT, at=AT, expected=None, accept=accept)
        assert caught.value.code is Code.GPU_TOPOLOGY
    gpus = [
        verify_report(spdm.parse(item.report), verify_chain(item.chain, DEFAULT, at=AT), nonce=nonce)
        for item in evidence
    ]
    with pytest.raises(NotAuthentic, match="4 of the switches"):
        check_topology(gpus)
