"""NVIDIA's own verifiers and ours on the same evidence, side by side; what differs is explained in the document.

`docs/second-opinion.md` has the table of :data:`CASES` and explains each difference; a test holds one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from gpu_support import vector_chain, vector_report
from support.second_opinion import ABSENT, PYTHON, NvidiaPeer, Recorded
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.verifier import anchors
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.certs import load_certificate, pem_certificates
from weighbridge.verifier.gpu.chain import GPUS, Kind, verify_chain
from weighbridge.verifier.gpu.report import verify_recorded_report
from weighbridge.verifier.gpu.rim import RimSet, compare, verify_rim
from weighbridge.verifier.gpu.set import verify_gpus

pytestmark = pytest.mark.peer

# While the signers of the two manifests of the golden set were valid, and when they no longer are.
THEN: Final = datetime(2025, 6, 1, tzinfo=UTC)
LATER: Final = datetime(2026, 6, 1, tzinfo=UTC)

GPU: Final = "attsdk-testdata-sample_attestation_data-gpu/"
SWITCH: Final = "attsdk-testdata-sample_attestation_data-switch/"
RIMS: Final = "attsdk-testdata-sample_rims/"
COCO: Final = "coco-trustee/hopper_cert_chain_case"
GOLDEN: Final = ("go-nvtrust/attestationReport.txt", "go-nvtrust/gpuAkCertChain.txt")
OTHER: Final = ("nvtrust-lgv/hopperAttestationReport.txt", "nvtrust-lgv/hopperCertChain.txt")
SWITCHES: Final = (f"{SWITCH}switchAttestationReport.txt", f"{SWITCH}switchCertChain.txt")
DRIVER_ID: Final = "NV_GPU_DRIVER_GH100_545.00"
VBIOS_ID: Final = "NV_GPU_VBIOS_1010_0200_882_96005E0001"
SWITCH_ID: Final = "NV_SWITCH_BIOS_5612_0002_890_9610550001"
DRIVER: Final = {DRIVER_ID: "nvtrust-lgv/Driver_RIM_test_no_gpu.swidtag"}
VBIOS: Final = {VBIOS_ID: "nvtrust-lgv/1010_0200_882_96005E0001_test_no_gpu.swidtag"}
BOTH: Final = {**DRIVER, **VBIOS}
SWITCH_RIM: Final = {SWITCH_ID: f"attsdk-testdata/switchVBIOSRim_{SWITCH_ID}.xml"}
ACCEPTED: Final = "accepted"


def flip(position: int) -> Callable[[Recorded], Recorded]:
    """One bit of the report."""

    def changed(evidence: Recorded) -> Recorded:
        report = bytearray(evidence.report)
        report[position] ^= 1
        return Recorded(bytes(report), evidence.chain)

    return changed


def append(evidence: Recorded) -> Recorded:
    """An unsigned byte."""
    return Recorded(evidence.report + b"\0", evidence.chain)


@dataclass(frozen=True)
class Case:
    """Recorded evidence, and what each side says of it.

    Attributes:
        name: as in the document's table.
        evidence: files of report and chain for each device.
        theirs: their :attr:`.Answer.verdict`.
        ours: ``match``, ``mismatch``, ``absent``, or the code of a refusal.
        rims: files by the id under which NVIDIA's service would hand them out.
        at: when it is judged.
        by: which of their verifiers.
        change: what is done to the last device's evidence.
        why: the section that explains the difference, where one side accepts and the other does not.
    """

    name: str
    evidence: tuple[tuple[str, str], ...]
    theirs: str
    ours: str
    rims: Mapping[str, str] = field(default_factory=dict[str, str])
    at: datetime = LATER
    by: str = "gpus"
    change: Callable[[Recorded], Recorded] | None = None
    why: str = ""

    @property
    def row(self) -> str:
        """The line of the document's table."""
        return f"| {self.name} | {self.theirs} | {self.ours} | {self.why or 'same'} |"


CASES: Final = (
    # With all its manifests.
    Case("H100, driver 545.00, both RIMs, 2025-06-01", (GOLDEN,), ACCEPTED, "match", BOTH, THEN),
    Case("the same, 2026-06-01", (GOLDEN,), "RIMCertChainVerificationError", "RIM_EXPIRED", BOTH),
    Case("the same without the VBIOS's RIM", (GOLDEN,), "RIMFetchError", "absent", DRIVER, THEN),
    Case("the same without the driver's RIM", (GOLDEN,), "RIMFetchError", "absent", VBIOS, THEN),
    Case(
        "another issue of the VBIOS's RIM",
        (GOLDEN,),
        "refused",
        "mismatch",
        {**DRIVER, VBIOS_ID: f"{RIMS}{VBIOS_ID}_measurement_mismatch.xml"},
        THEN,
    ),
    Case(
        "the RIM of driver 550.144.03 instead",
        (GOLDEN,),
        "refused",
        "absent",
        {**VBIOS, DRIVER_ID: "attsdk-testdata/NV_GPU_DRIVER_GH100_550.144.03.xml"},
        THEN,
    ),
    Case(
        "a driver's RIM with a broken chain",
        (GOLDEN,),
        "RIMCertChainVerificationError",
        "RIM_CHAIN",
        {**VBIOS, DRIVER_ID: "attsdk-testdata/incorrect_cert_chain_driver_rim.xml"},
        THEN,
    ),
    Case(
        "a driver's RIM with a broken signature",
        (GOLDEN,),
        "RIMSignatureVerificationError",
        "RIM_SIG",
        {**VBIOS, DRIVER_ID: "attsdk-testdata/incorrect_signature_driver_rim.xml"},
        THEN,
    ),
    Case(
        "H100, driver 535.86.09, a digest edited in the driver's RIM",
        ((f"{GPU}hopperAttestationReport.txt", f"{GPU}hopperCertChain.txt"),),
        "RIMSignatureVerificationError",
        "RIM_SIG",
        {"NV_GPU_DRIVER_GH100_535.86.09": f"{RIMS}NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml"},
        THEN,
    ),
    Case(
        "H100, driver 570.124.03, an expired RIM",
        ((f"{GPU}hopperAttestationReportExpired.txt", f"{GPU}hopperCertChainExpired.txt"),),
        "RIMCertChainVerificationError",
        "RIM_EXPIRED",
        {"NV_GPU_DRIVER_GH100_570.124.03": f"{RIMS}NV_GPU_DRIVER_GH100_570.124.03_expired.xml"},
    ),
    # The report and its chain alone.
    Case("H100, driver 545.00", (GOLDEN,), "RIMFetchError", "absent"),
    Case("H100, driver 550.90.07", (OTHER,), "RIMFetchError", "absent"),
    Case(
        "H100, driver 535.86.09",
        ((f"{GPU}hopperAttestationReport.txt", f"{GPU}hopperCertChain.txt"),),
        "RIMFetchError",
        "absent",
    ),
    Case(
        "H100, driver 580.159.03",
        (("attsdk-testdata/hopperAttestationReport.txt", "attsdk-testdata/hopperCertChain.txt"),),
        "RIMFetchError",
        "absent",
    ),
    Case(
        "Blackwell, driver 575.32",
        ((f"{GPU}blackwellAttestationReport.txt", f"{GPU}blackwellCertChain.txt"),),
        "RIMFetchError",
        "absent",
    ),
    Case(
        "chain with its second link missing",
        ((GOLDEN[0], "go-nvtrust/invalidCertChain.txt"),),
        "IncorrectNumberOfCertificatesError",
        "CHAIN_BROKEN",
    ),
    Case("chain of the root alone", ((OTHER[0], f"{COCO}2.txt"),), "TypeError", "CHAIN_LENGTH"),
    Case(
        "chain with its third link missing",
        ((OTHER[0], f"{COCO}3.txt"),),
        "IncorrectNumberOfCertificatesError",
        "CHAIN_BROKEN",
    ),
    Case("chain without its leaf", ((OTHER[0], f"{COCO}4.txt"),), "TypeError", "GPU_CHAIN"),
    Case("chain of another device", ((GOLDEN[0], OTHER[1]),), "SignatureVerificationError", "GPU_SIG"),
    Case(
        "H100, signature invalid",
        ((f"{GPU}hopperAttestationReportInvalidSignature.txt", f"{GPU}hopperCertChain.txt"),),
        "TypeError",
        "GPU_SIG",
    ),
    Case(
        "H100, signed with an unsigned byte behind",
        (("coco-trustee/hopper_coco_report1.txt", "coco-trustee/hopper_coco_certs1.txt"),),
        "SignatureVerificationError",
        "absent",
    ),
    Case(
        "H100 and both RIMs, an unsigned byte behind",
        (GOLDEN,),
        "SignatureVerificationError",
        "match",
        BOTH,
        THEN,
        change=append,
        why="D1",
    ),
    Case(
        "opaque data in the form of CUDA 13.5, another device's chain",
        (("attsdk-2.0.0-nvdaod/sample_nvdaod_transcript.txt", OTHER[1]),),
        "ParsingError",
        "GPU_SIG",
    ),
    # Sets of devices.
    Case("H100 twice", (GOLDEN, GOLDEN), ACCEPTED, "GPU_DUPLICATE", BOTH, THEN, why="D2"),
    Case(
        "H100, then its report with a bit flipped",
        (GOLDEN, GOLDEN),
        ACCEPTED,
        "GPU_SIG",
        BOTH,
        THEN,
        change=flip(60),
        why="D3",
    ),
    Case("H100, then one that signed another nonce", (GOLDEN, OTHER), ACCEPTED, "GPU_NONCE", BOTH, THEN, why="D3"),
    Case(
        "the report with a bit flipped, alone",
        (GOLDEN,),
        "SignatureVerificationError",
        "GPU_SIG",
        BOTH,
        THEN,
        change=flip(60),
    ),
    # Switches, by the verifier that is part of nv-attestation-sdk.
    Case("LS10 switch and its RIM, 2026-06-01", (SWITCHES,), ACCEPTED, "match", SWITCH_RIM, by="switches"),
    Case(
        "the same, 2025-06-01",
        (SWITCHES,),
        "RIMCertChainVerificationError",
        "RIM_EXPIRED",
        SWITCH_RIM,
        THEN,
        by="switches",
    ),
    Case(
        "LS10 switch, RIM with a broken signature",
        (SWITCHES,),
        "RIMSignatureVerificationError",
        "RIM_SIG",
        {SWITCH_ID: f"{RIMS}{SWITCH_ID}_invalid_signature.xml"},
        THEN,
        by="switches",
    ),
    Case(
        "LS10 switch, a digest edited in the RIM",
        (SWITCHES,),
        "RIMSignatureVerificationError",
        "RIM_SIG",
        {SWITCH_ID: f"{RIMS}{SWITCH_ID}_measurement_mismatch.xml"},
        THEN,
        by="switches",
    ),
    Case(
        "LS10 switch, signature invalid",
        ((f"{SWITCH}switchAttestationReportInvalidSignature.txt", SWITCHES[1]),),
        "SignatureVerificationError",
        "GPU_SIG",
        SWITCH_RIM,
        by="switches",
    ),
    Case("LS10 switch presented as a GPU", (SWITCHES,), "ParsingError", "GPU_ARCH", SWITCH_RIM),
)


@pytest.fixture(scope="module")
def peer() -> Iterator[NvidiaPeer]:
    if not PYTHON.exists():
        pytest.skip(ABSENT)
    with NvidiaPeer() as started:
        yield started


@pytest.fixture(scope="module")
def trust(vectors_dir: Path) -> TrustAnchors:
    found = anchors.default()
    if not found.select("nvidia-rim-root"):
        root = load_certificate(
            pem_certificates((vectors_dir / "nvidia/nvtrust-lgv/verifier_RIM_root.pem").read_bytes(), what="root")[0],
            "root",
        )
        found = found.with_anchors(
            [anchors.Anchor.from_certificate("nvidia-rim-root", root, platform="nvidia", source="a test")]
        )
    return found


def recorded(vectors: Path, case: Case) -> list[Recorded]:
    found = [Recorded(vector_report(vectors, r), vector_chain(vectors, c)) for r, c in case.evidence]
    if case.change is not None:
        found[-1] = case.change(found[-1])
    return found


def rim_files(vectors: Path, case: Case) -> dict[str, bytes]:
    return {name: (vectors / "nvidia" / file).read_bytes() for name, file in case.rims.items()}


def ours(
    evidence: list[Recorded],
    rims: Iterable[bytes],
    *,
    trust: TrustAnchors,
    at: datetime,
    accept: frozenset[Kind] = GPUS,
) -> str:
    """What our verifier says of recorded evidence: a status of the comparison, or the code of the refusal."""
    nonce = evidence[0].report[4:36]
    try:
        chains = [verify_chain(item.chain, trust, at=at, accept=accept) for item in evidence]
        verified = [
            verify_recorded_report(spdm.parse(item.report), chain, nonce=nonce)
            for item, chain in zip(evidence, chains, strict=True)
        ]
        if len(evidence) > 1:
            sent = [GpuEvidence(item.report, item.chain) for item in evidence]
            verify_gpus(sent, nonce=nonce, anchors=trust, at=at, expected=None, accept=accept)
        known = RimSet.of([verify_rim(data, anchors=trust, at=at) for data in rims])
    except WeighbridgeError as error:
        return error.code
    found = {compare(item.report, item.chain, known).status for item in verified}
    return next(status for status in ("mismatch", "absent", "match") if status in found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_side_by_side(peer: NvidiaPeer, vectors_dir: Path, trust: TrustAnchors, case: Case) -> None:
    evidence, files = recorded(vectors_dir, case), rim_files(vectors_dir, case)
    nonce = evidence[0].report[4:36].hex()
    rims = {name: data.decode() for name, data in files.items()}
    answer = peer.ask(evidence, at=case.at, nonce=nonce, rims=rims, by=case.by)
    accept = frozenset[Kind]({"switch"}) if case.by == "switches" else GPUS
    own = ours(evidence, files.values(), trust=trust, at=case.at, accept=accept)
    assert (answer.verdict, own) == (case.theirs, case.ours)
    assert ((case.theirs == ACCEPTED) == (case.ours == "match")) == (not case.why)
