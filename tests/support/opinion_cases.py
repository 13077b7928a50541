"""Recorded evidence, and what NVIDIA's verifiers and ours say of it: the table in `docs/second-opinion.md`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gpu_support import vector_chain, vector_report
from support.second_opinion import Recorded
from weighbridge.attester.gpu.emulated import Forgery
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier.certs import pem_certificates

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


def bundled(vectors: Path, name: str) -> Recorded:
    """The one device in a file of the form that NVIDIA's service takes."""
    (item,) = json.loads((vectors / "nvidia" / name).read_text())
    chain = pem_certificates(base64.b64decode(item["certificate"]), what="chain")
    return Recorded(base64.b64decode(item["evidence"]), chain)


@dataclass(frozen=True)
class Case:
    """Recorded evidence, and what each side says of it.

    Attributes:
        name: as in the document's table.
        evidence: files of report and chain for each device, or one file of both and no other.
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

    def recorded(self, vectors: Path) -> list[Recorded]:
        """The evidence of each device."""
        found = [
            Recorded(vector_report(vectors, report), vector_chain(vectors, chain))
            if chain
            else bundled(vectors, report)
            for report, chain in self.evidence
        ]
        if self.change is not None:
            found[-1] = self.change(found[-1])
        return found

    def manifests(self, vectors: Path) -> dict[str, bytes]:
        """The manifests by id."""
        return {name: (vectors / "nvidia" / file).read_bytes() for name, file in self.rims.items()}

    @property
    def row(self) -> str:
        """The line of the document's table."""
        return _row(self.name, self.theirs, self.ours, self.why)


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
    Case("H100, driver 590.12, PPCIE", (("attsdk-common/hopper_evidence.json", ""),), "RIMFetchError", "absent"),
    Case("another such", (("attsdk-testdata/evidence_hopper_590_12.json", ""),), "RIMFetchError", "absent"),
    Case(
        "H100, driver 570.86.10, a certificate on hold at NVIDIA's",
        (("attsdk-common/hopper_evidence_cert_hold.json", ""),),
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
    Case("H100 twice", (GOLDEN, GOLDEN), ACCEPTED, "GPU_DUPLICATE", BOTH, THEN, why="D4"),
    Case(
        "H100, then its report with a bit flipped",
        (GOLDEN, GOLDEN),
        ACCEPTED,
        "GPU_SIG",
        BOTH,
        THEN,
        change=flip(60),
        why="D5",
    ),
    Case("H100, then one that signed another nonce", (GOLDEN, OTHER), ACCEPTED, "GPU_NONCE", BOTH, THEN, why="D5"),
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
        "another LS10 switch",
        (("attsdk-testdata/switchAttestationReport.txt", "attsdk-testdata/switchCertChain.txt"),),
        ACCEPTED,
        "match",
        SWITCH_RIM,
        by="switches",
    ),
    Case("a third", (("attsdk-common/switch_evidence_ls10.json", ""),), ACCEPTED, "match", SWITCH_RIM, by="switches"),
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
    Case(
        "LS10 switch, then its report with a bit flipped",
        (SWITCHES, SWITCHES),
        ACCEPTED,
        "GPU_SIG",
        SWITCH_RIM,
        by="switches",
        change=flip(60),
        why="D5",
    ),
    Case("LS10 switch presented as a GPU", (SWITCHES,), "ParsingError", "GPU_ARCH", SWITCH_RIM),
)


@dataclass(frozen=True)
class Made:
    """What an emulated device is made to report, with manifests that it should match, all under roots of its own."""

    name: str
    forgery: Forgery
    theirs: str
    ours: str
    why: str = ""

    @property
    def row(self) -> str:
        """The line of the document's table."""
        return _row(self.name, self.theirs, self.ours, self.why)


# Measurements are counted from 1 there, as in SPDM, and from 0 in manifests.
MADE: Final = (
    Made("nothing unusual", Forgery(), ACCEPTED, "match"),
    Made("another measurement of the driver's", Forgery(measurements={23: b"x" * 48}), "refused", "mismatch"),
    Made("another measurement of the VBIOS's", Forgery(measurements={3: b"x" * 48}), "refused", "mismatch"),
    Made("one that no manifest has", Forgery(measurements={43: b"x" * 48}), ACCEPTED, "match"),
    Made(
        "another index 35, video decoder enabled",
        Forgery(measurements={36: b"x" * 48}, opaque={OpaqueType.NVDEC0_STATUS: b"\xaa"}),
        "refused",
        "mismatch",
    ),
    Made(
        "another index 35, video decoder disabled", Forgery(measurements={36: b"x" * 48}), "refused", "match", why="D2"
    ),
    Made("another firmware digest", Forgery(opaque={OpaqueType.FWID: b"f" * 48}), "TypeError", "GPU_FWID"),
    Made("no firmware digest", Forgery(opaque={OpaqueType.FWID: None}), ACCEPTED, "match"),
    Made("an opaque type that nobody knows", Forgery(opaque={77: b"1"}), "ParsingError", "match", why="D3"),
    Made("a mode that nobody knows", Forgery(opaque={OpaqueType.FEATURE_FLAG: b"\7\0"}), "ParsingError", "GPU_MODE"),
    Made(
        "PPCIE by one field and not by the other",
        Forgery(opaque={OpaqueType.FEATURE_FLAG: b"\2\0"}),
        ACCEPTED,
        "GPU_MODE",
        why="D6",
    ),
    Made(
        "another chip than in the certificates",
        Forgery(opaque={OpaqueType.CHIP_INFO: b"GB100\0"}),
        ACCEPTED,
        "GPU_ARCH",
        why="D6",
    ),
    Made("no driver's version", Forgery(opaque={OpaqueType.DRIVER_VERSION: b""}), "IndexError", "absent"),
    Made("another nonce", Forgery(nonce=b"m" * 32), "NonceMismatchError", "GPU_NONCE"),
)


def _row(name: str, theirs: str, ours: str, why: str) -> str:
    return f"| {name} | {theirs} | {ours} | {why or 'same'} |"
