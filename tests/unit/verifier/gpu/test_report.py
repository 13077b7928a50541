"""What a GPU signed: NVIDIA's own report verifies, and no change of it does."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from gpu_support import AT, NONCE, emulated, emulated_anchors, vector_chain, vector_report, wheel_chain, wheel_report
from weighbridge.attester.gpu.emulated import EmulatedH100, Firmware, Forgery
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor, Silicon
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier import anchors
from weighbridge.verifier.gpu import VerifiedGpuChain, VerifiedGpuReport, verify_chain, verify_report

(DEVICE,), BELIEVED = emulated()
CHAIN = verify_chain(DEVICE.keys.chain, BELIEVED, at=AT)
# The order of P-384.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


def refusal(data: bytes, chain: VerifiedGpuChain = CHAIN, *, nonce: bytes = NONCE) -> Code:
    with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
        verify_report(spdm.parse(data), chain, nonce=nonce)
    return caught.value.code


def forged(**changes: object) -> bytes:
    return DEVICE.attest(NONCE, forgery=Forgery(**changes)).report  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def real(nvidia_wheel: Path) -> tuple[bytes, VerifiedGpuChain]:
    """NVIDIA's own report and its verified chain."""
    return wheel_report(nvidia_wheel), verify_chain(wheel_chain(nvidia_wheel), anchors.default(), at=AT)


def test_nvidias_own_report(real: tuple[bytes, VerifiedGpuChain]) -> None:
    data, chain = real
    verified = verify_report(spdm.parse(data), chain, nonce=NONCE)
    assert (verified.fwid, verified.platform, verified.nonce) == ("matches", "nvidia", NONCE)
    assert verified.identity == chain.identity
    assert verified.measurements_digest == verified.report.measurements_digest


def test_flipped_bits_of_nvidias_own_report(real: tuple[bytes, VerifiedGpuChain]) -> None:
    """A26: header, nonces, a bit in every measurement, every opaque header, the whole signature, and a spread."""
    data, chain = real
    fields = [*range(45), *range(45, 3565, 55), *range(3565, 3700), *range(3951, 4117)]
    accepted: list[int] = []
    for position in sorted({*fields, *range(7, len(data), 13)}):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        try:
            verify_report(spdm.parse(bytes(changed)), chain, nonce=NONCE)
        except (NotAuthentic, MalformedEvidence):
            continue
        accepted.append(position)
    assert accepted == []


@pytest.mark.parametrize(
    ("report", "chain", "fwid"),
    [
        ("coco-trustee/hopperAttestationReport.txt", "coco-trustee/hopper_cert_chain_case1.txt", "matches"),
        ("go-nvtrust/attestationReport.txt", "go-nvtrust/gpuAkCertChain.txt", "missing"),
        ("attsdk-testdata/hopperAttestationReport.txt", "attsdk-testdata/hopperCertChain.txt", "matches"),
        (
            "attsdk-testdata-sample_attestation_data-gpu/blackwellAttestationReport.txt",
            "attsdk-testdata-sample_attestation_data-gpu/blackwellCertChain.txt",
            "matches",
        ),
        (
            "attsdk-testdata-sample_attestation_data-gpu/hopperAttestationReport.txt",
            "attsdk-testdata-sample_attestation_data-gpu/hopperCertChain.txt",
            "missing",
        ),
    ],
)
def test_captured_reports(vectors_dir: Path, report: str, chain: str, fwid: str) -> None:
    parsed = spdm.parse(vector_report(vectors_dir, report))
    verified = verify_report(
        parsed, verify_chain(vector_chain(vectors_dir, chain), anchors.default(), at=AT), nonce=parsed.nonce
    )
    assert verified.fwid == fwid


def test_captured_report_with_a_trailing_byte(vectors_dir: Path) -> None:
    """A28: genuine, but one unsigned byte follows; without it the report verifies."""
    data = vector_report(vectors_dir, "coco-trustee/hopper_coco_report1.txt")
    chain = verify_chain(vector_chain(vectors_dir, "coco-trustee/hopper_coco_certs1.txt"), anchors.default(), at=AT)
    nonce = spdm.parse(data).nonce
    assert refusal(data, chain, nonce=nonce) == Code.TRAILING_BYTES
    assert verify_report(spdm.parse(data[:-1]), chain, nonce=nonce).fwid == "matches"


def test_captured_report_with_another_devices_chain(vectors_dir: Path, real: tuple[bytes, VerifiedGpuChain]) -> None:
    """A25."""
    data = vector_report(vectors_dir, "attsdk-testdata/hopperAttestationReport.txt")
    assert refusal(data, real[1], nonce=spdm.parse(data).nonce) == Code.GPU_SIG
    name = "attsdk-testdata-sample_attestation_data-gpu/hopperAttestationReportInvalidSignature.txt"
    assert refusal(vector_report(vectors_dir, name), real[1]) == Code.GPU_SIG


@pytest.mark.parametrize("nonce", [b"", NONCE[:31], NONCE + b"\0"])
def test_expected_nonce_of_another_length(nonce: bytes) -> None:
    """A02: an empty or cut expectation is refused before anything is compared."""
    assert refusal(forged(), nonce=nonce) == Code.NONCE_LENGTH


def test_signed_for_another_nonce() -> None:
    """A07: the nonce counts in the signed bytes only."""
    assert refusal(forged(nonce=bytes(range(32)))) == Code.GPU_NONCE
    assert refusal(forged(), nonce=bytes(range(32))) == Code.GPU_NONCE


def test_nonce_edited_after_signing() -> None:
    """A07, A26."""
    other = DEVICE.attest(bytes(range(32))).report
    assert refusal(other[:4] + NONCE + other[36:]) == Code.GPU_SIG


@pytest.mark.parametrize(
    "signature",
    [
        bytes(96),
        b"\xff" * 96,
        ORDER.to_bytes(48) + (1).to_bytes(48),
        (1).to_bytes(48) + ORDER.to_bytes(48),
        (1).to_bytes(48) + (1).to_bytes(48),
    ],
)
def test_degenerate_signatures(signature: bytes) -> None:
    """A26."""
    assert refusal(forged(signature=signature)) == Code.GPU_SIG


def test_malleated_signature_is_the_same_evidence() -> None:
    """A27: (r, n - s) verifies too; nothing may tell reports apart by their signature."""
    data = DEVICE.attest(NONCE).report
    s = int.from_bytes(data[-48:])
    other = data[:-48] + (ORDER - s).to_bytes(48)
    first, second = (verify_report(spdm.parse(item), CHAIN, nonce=NONCE) for item in (data, other))
    assert first.report.signed == second.report.signed
    assert first.measurements_digest == second.measurements_digest


def test_firmware_digest() -> None:
    """The report must name the firmware that the certificate names; no name is not a match."""
    assert refusal(forged(opaque={OpaqueType.FWID: bytes(48)})) == Code.GPU_FWID
    assert refusal(forged(opaque={OpaqueType.FWID: b""})) == Code.GPU_FWID
    silent = forged(opaque={OpaqueType.FWID: None})
    assert verify_report(spdm.parse(silent), CHAIN, nonce=NONCE).fwid == "missing"


def test_chip_that_is_not_the_certificates() -> None:
    """A16."""
    assert refusal(forged(opaque={OpaqueType.GPU_INFO: (0x1A0).to_bytes(8, "little")})) == Code.GPU_ARCH
    silent = forged(opaque={OpaqueType.GPU_INFO: None})
    assert verify_report(spdm.parse(silent), CHAIN, nonce=NONCE).report.chip is None


def test_measurements_are_authentic_whatever_they_are() -> None:
    honest = verify_report(spdm.parse(forged()), CHAIN, nonce=NONCE)
    other = verify_report(spdm.parse(forged(measurements={5: bytes(48)})), CHAIN, nonce=NONCE)
    assert honest.measurements_digest != other.measurements_digest


def test_trailing_bytes() -> None:
    """A28."""
    assert refusal(forged(trailing=b"\0")) == Code.TRAILING_BYTES


def test_flipped_measurement() -> None:
    """A26."""
    assert refusal(forged(flip=(60,))) == Code.GPU_SIG


def test_other_generation_of_one_vendor() -> None:
    vendor = EmulatedVendor.create(architecture="GB100")
    device = EmulatedH100.make(vendor, silicon=Silicon(architecture="GB100"), firmware=Firmware(driver="575.32"))
    chain = verify_chain(device.keys.chain, emulated_anchors(vendor), at=AT)
    verified = verify_report(spdm.parse(device.attest(NONCE).report), chain, nonce=NONCE)
    assert (verified.report.chip, verified.report.driver_version) == ("GB100", "575.32")


def test_verified_report_is_made_by_verification_only() -> None:
    verified = verify_report(spdm.parse(forged()), CHAIN, nonce=NONCE)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(verified)
    with pytest.raises(TypeError):
        VerifiedGpuReport(seal=object(), report=verified.report, chain=CHAIN, nonce=NONCE, fwid="matches")
