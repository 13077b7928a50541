"""What a GPU signed: NVIDIA's own report verifies, and no change of it does."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from gpu_support import AT, NONCE, emulated, emulated_anchors, vector_chain, vector_report, wheel_chain, wheel_report
from weighbridge.attester.gpu.emulated import EmulatedH100, Firmware, Forgery
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor, Silicon
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.evidence import binding_rows
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier import anchors
from weighbridge.verifier.gpu import (
    GPUS_AND_SWITCHES,
    SignedMode,
    VerifiedGpuChain,
    VerifiedGpuReport,
    verify_chain,
    verify_recorded_report,
    verify_report,
)

(DEVICE,), BELIEVED = emulated()
CHAIN = verify_chain(DEVICE.keys.chain, BELIEVED, at=AT)
# The order of P-384.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


def refused(data: bytes, chain: VerifiedGpuChain = CHAIN, *, nonce: bytes = NONCE) -> WeighbridgeError:
    with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
        verify_report(spdm.parse(data), chain, nonce=nonce)
    return caught.value


def refusal(data: bytes, chain: VerifiedGpuChain = CHAIN, *, nonce: bytes = NONCE) -> Code:
    return refused(data, chain, nonce=nonce).code


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


def test_row_of_the_binding() -> None:
    """What is verified is what the attester has bound, and all of it."""
    evidence = DEVICE.attest(NONCE)
    assert [verify_report(spdm.parse(evidence.report), CHAIN, nonce=NONCE).binding_row] == binding_rows([evidence])


def test_every_byte_of_nvidias_own_report(real: tuple[bytes, VerifiedGpuChain]) -> None:
    """A26: one bit of each of the 4117 bytes, one at a time; all are refused, as recorded evidence too."""
    data, chain = real
    accepted: list[int] = []
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        try:
            verify_recorded_report(spdm.parse(bytes(changed)), chain, nonce=NONCE)
        except (NotAuthentic, MalformedEvidence):
            continue
        accepted.append(position)
    assert accepted == []


def test_captured_report_with_a_trailing_byte(vectors_dir: Path) -> None:
    """A28: genuine, but one unsigned byte follows; without it the report verifies."""
    data = vector_report(vectors_dir, "coco-trustee/hopper_coco_report1.txt")
    chain = verify_chain(vector_chain(vectors_dir, "coco-trustee/hopper_coco_certs1.txt"), anchors.default(), at=AT)
    nonce = spdm.parse(data).nonce
    assert refusal(data, chain, nonce=nonce) == Code.TRAILING_BYTES
    assert verify_report(spdm.parse(data[:-1]), chain, nonce=nonce).fwid == "matches"
    recorded = verify_recorded_report(spdm.parse(data), chain, nonce=nonce)
    assert [finding.code for finding in recorded.findings] == [Code.TRAILING_BYTES]
    assert recorded.report.raw == data[:-1]


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
    for other in (bytes(48), b"\xff" * 48, b""):
        assert refusal(forged(opaque={OpaqueType.FWID: other})) == Code.GPU_FWID
    silent = forged(opaque={OpaqueType.FWID: None})
    assert verify_report(spdm.parse(silent), CHAIN, nonce=NONCE).fwid == "missing"


def test_chip_that_is_not_the_certificates() -> None:
    """A16."""
    assert refusal(forged(opaque={OpaqueType.GPU_INFO: (0x1A0).to_bytes(8, "little")})) == Code.GPU_ARCH
    assert refusal(forged(opaque={OpaqueType.GPU_INFO: None, OpaqueType.CHIP_INFO: b"GH200\0"})) == Code.GPU_ARCH
    silent = forged(opaque={OpaqueType.GPU_INFO: None})
    assert verify_report(spdm.parse(silent), CHAIN, nonce=NONCE).report.chip is None


def test_measurements_are_authentic_whatever_they_are() -> None:
    honest = verify_report(spdm.parse(forged()), CHAIN, nonce=NONCE)
    other = verify_report(spdm.parse(forged(measurements={5: bytes(48)})), CHAIN, nonce=NONCE)
    assert honest.measurements_digest != other.measurements_digest


def test_trailing_bytes() -> None:
    """A28: refused in a live window; in a recorded report dropped, and said."""
    for tail, text in ((b"\0", "1 unsigned byte after"), (b"ab", "2 unsigned bytes after")):
        data = forged(trailing=tail)
        live = refused(data)
        assert (live.code, live.where) == (Code.TRAILING_BYTES, f"report[{len(data) - len(tail)}]")
        recorded = verify_recorded_report(spdm.parse(data), CHAIN, nonce=NONCE)
        assert text in recorded.findings[0].message
        assert recorded.report.raw + tail == data


def test_recorded_report_without_a_tail() -> None:
    verified = verify_recorded_report(spdm.parse(forged()), CHAIN, nonce=NONCE)
    assert verified.findings == ()


@pytest.mark.parametrize("nonce", [b"", bytes(32), NONCE[:31]])
def test_recorded_report_for_another_nonce(nonce: bytes) -> None:
    for data in (forged(), forged(trailing=b"x")):
        with pytest.raises(NotAuthentic) as caught:
            verify_recorded_report(spdm.parse(data), CHAIN, nonce=nonce)
        assert caught.value.code in {Code.NONCE_LENGTH, Code.GPU_NONCE}


@pytest.mark.parametrize("cut", [1, 95, 96, 97, 500, 3560])
def test_truncated(cut: int) -> None:
    """A28."""
    with pytest.raises(MalformedEvidence) as caught:
        spdm.parse(forged()[:-cut])
    assert caught.value.code == Code.TRUNCATED


PROTECTED, FEATURE = OpaqueType.PROTECTED_PCIE_STATUS, OpaqueType.FEATURE_FLAG


@pytest.mark.parametrize(
    ("entries", "mode"),
    [
        ({PROTECTED: None, FEATURE: None}, SignedMode(None, None)),
        ({PROTECTED: b"\x55", FEATURE: None}, SignedMode(protected_pcie=False, feature=None)),
        ({PROTECTED: b"\xaa", FEATURE: None}, SignedMode(protected_pcie=True, feature=None)),
        ({PROTECTED: None, FEATURE: b"\0\0"}, SignedMode(None, "spt")),
        ({PROTECTED: None, FEATURE: b"\1\0"}, SignedMode(None, "mpt")),
        ({PROTECTED: None, FEATURE: b"\2\0"}, SignedMode(None, "ppcie")),
        ({PROTECTED: b"\x55", FEATURE: b"\0\0"}, SignedMode(protected_pcie=False, feature="spt")),
        ({PROTECTED: b"\x55", FEATURE: b"\1\0"}, SignedMode(protected_pcie=False, feature="mpt")),
        ({PROTECTED: b"\xaa", FEATURE: b"\2\0"}, SignedMode(protected_pcie=True, feature="ppcie")),
    ],
)
def test_signed_mode(entries: dict[int, bytes | None], mode: SignedMode) -> None:
    verified = verify_report(spdm.parse(forged(opaque=entries)), CHAIN, nonce=NONCE)
    assert verified.mode == mode
    assert mode.is_ppcie == (mode.protected_pcie is True or mode.feature == "ppcie")


@pytest.mark.parametrize(
    "entries",
    [
        {PROTECTED: b"\xaa", FEATURE: b"\0\0"},
        {PROTECTED: b"\xaa", FEATURE: b"\1\0"},
        {PROTECTED: b"\x55", FEATURE: b"\2\0"},
        {PROTECTED: b"\x00"},
        {PROTECTED: b""},
        {PROTECTED: b"\xaa\xaa"},
        {FEATURE: b"\3\0"},
        {FEATURE: b"\0"},
        {FEATURE: b"\0\2"},
    ],
)
def test_mode_that_is_unknown_or_contradicts_itself(entries: dict[int, bytes | None]) -> None:
    """A17: no reading of it is taken for one that asks less."""
    assert refusal(forged(opaque=entries)) == Code.GPU_MODE


@pytest.mark.parametrize(
    ("status", "flag", "got"),
    [
        (b"\xaa", b"\0\0", "PROTECTED_PCIE_STATUS on, FEATURE_FLAG spt"),
        (b"\x55", b"\2\0", "PROTECTED_PCIE_STATUS off, FEATURE_FLAG ppcie"),
    ],
)
def test_both_statements_of_a_contradiction_are_told(status: bytes, flag: bytes, got: str) -> None:
    assert refused(forged(opaque={PROTECTED: status, FEATURE: flag})).got == got


def test_findings() -> None:
    data = forged(opaque={OpaqueType.FWID: None, OpaqueType.GPU_INFO: None, 99: b"x", 100: b""})
    verified = verify_report(spdm.parse(data), CHAIN, nonce=NONCE)
    assert [finding.code for finding in verified.findings] == [Code.GPU_FWID, Code.GPU_ARCH, Code.FIELD_UNKNOWN]
    assert "TYPE_99, TYPE_100" in verified.findings[-1].message
    assert "the report names" in verified.findings[0].message


def test_leaf_without_a_firmware_digest() -> None:
    """Missing on either side is missing, and which side is said."""
    chain = replace(CHAIN, fwid=None)
    verified = verify_report(spdm.parse(forged()), chain, nonce=NONCE)
    assert (verified.fwid, verified.findings[0].code) == ("missing", Code.GPU_FWID)
    assert "the certificate names" in verified.findings[0].message


def test_newer_opaque_format_signed_by_a_device() -> None:
    """No chain is published for a genuine report in it."""
    vendor = EmulatedVendor.create()
    device = EmulatedH100.make(vendor, firmware=Firmware(driver="620.12", opaque_format="NVDAOD"))
    chain = verify_chain(device.keys.chain, emulated_anchors(vendor), at=AT)
    verified = verify_report(spdm.parse(device.attest(NONCE).report), chain, nonce=NONCE)
    assert (verified.report.opaque.format, verified.report.driver_version) == ("NVDAOD", "620.12")
    assert (verified.fwid, verified.mode.feature, verified.findings) == ("matches", "spt", ())


FABRIC = EmulatedFabric.create(gpus=1, switches=1)
LOCK = OpaqueType.LOCK_SWITCH_STATUS


def of_switch(opaque: dict[int, bytes | None]) -> VerifiedGpuReport:
    (switch,) = FABRIC.switches
    chain = verify_chain(switch.keys.chain, emulated_anchors(*FABRIC.vendors), at=AT, accept=GPUS_AND_SWITCHES)
    return verify_report(spdm.parse(switch.attest(NONCE, forgery=Forgery(opaque=opaque)).report), chain, nonce=NONCE)


@pytest.mark.parametrize("lock", [b"\1\0", b"\0\0", b"\2\0", b"\1\1", b"\1", None])
def test_switch(lock: bytes | None) -> None:
    """Locked is one value, and every other is not: what its host can set up anew."""
    verified = of_switch({LOCK: lock})
    locked = lock == b"\1\0"
    assert (verified.kind, verified.locked, verified.report.vbios_version) == ("switch", locked, "96.10.6D.00.01")
    codes = [finding.code for finding in verified.findings]
    assert codes == ([Code.GPU_FWID] if locked else [Code.GPU_FWID, Code.GPU_MODE])


def test_fields_of_the_other_kind_of_device_say_nothing() -> None:
    """The mode is a GPU's, the lock a switch's."""
    assert of_switch({FEATURE: b"\2\0", PROTECTED: b"\x00"}).mode == SignedMode(None, None)
    for value in (b"\1\0", b"\0\0"):
        verified = verify_report(spdm.parse(forged(opaque={LOCK: value})), CHAIN, nonce=NONCE)
        assert (verified.locked, verified.findings) == (None, ())


def test_flipped_measurement() -> None:
    """A26; the signature is where the report ends."""
    data = forged(flip=(60,))
    error = refused(data)
    assert (error.code, error.where) == (Code.GPU_SIG, f"report.signature[{len(data) - 96}..{len(data)}]")


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
    assert "seal" not in repr(verified)
    # Two proofs are two: what is the same of them is for the caller to say.
    assert verified != verify_report(verified.report, CHAIN, nonce=NONCE)
    with pytest.raises(TypeError):
        VerifiedGpuReport(
            seal=object(),
            report=verified.report,
            chain=CHAIN,
            nonce=NONCE,
            fwid="matches",
            mode=SignedMode(None, None),
            findings=(),
        )
