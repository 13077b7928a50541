"""SPDM measurement reports: NVIDIA's own bytes parse to what NVIDIA says they mean; anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpu_support import NONCE, vector_report, wheel_report
from weighbridge.attester.gpu.emulated import EmulatedH100, Forgery
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spdm import report
from weighbridge.proto.spdm.opaque import OpaqueType

EMULATED = EmulatedH100.make(EmulatedVendor.create()).attest(NONCE).report
GPU = "attsdk-testdata-sample_attestation_data-gpu"
SWITCH = "attsdk-testdata-sample_attestation_data-switch"


def refusal(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        report.parse(data)
    return caught.value.code


def test_nvidias_own_report(nvidia_wheel: Path) -> None:
    data = wheel_report(nvidia_wheel)
    parsed = report.parse(data)
    assert parsed.raw == data
    assert parsed.nonce == NONCE
    assert (parsed.slot, len(parsed.blocks), len(parsed.record)) == (0, 64, 3520)
    assert [block.index for block in parsed.blocks] == list(range(1, 65))
    assert {(block.type, len(block.value)) for block in parsed.blocks} == {(1, 48)}
    assert parsed.signed + parsed.signature == data
    assert (len(parsed.signature), parsed.trailing) == (96, b"")
    assert parsed.driver_version == "550.90.07"
    assert parsed.vbios_version == "96.00.9F.00.01"
    assert parsed.chip == "GH100"
    assert (parsed.project, parsed.project_sku, parsed.chip_sku) == ("1010", "0200", "882")
    assert (parsed.nvdec0, parsed.protected_pcie, parsed.feature) == ("disabled", "disabled", None)
    assert parsed.fwid is not None
    assert parsed.fwid.hex().startswith("f5c384ae")
    assert (parsed.opaque.format, len(parsed.opaque.fields)) == ("tlv", 14)


def test_what_a_device_says_again_is_kept_once() -> None:
    """Sessions keep their last reports: of two by one device what it measured takes room once."""
    device = EmulatedH100.make(EmulatedVendor.create())
    one, two = (report.parse(device.attest(nonce).report) for nonce in (NONCE, bytes(32)))
    assert one.signed != two.signed
    assert (two.record, two.blocks, two.opaque) == (one.record, one.blocks, one.opaque)
    assert two.record is one.record
    assert len(two.record) > 4 * len(two.head + two.tail)
    assert two.blocks is one.blocks
    assert two.opaque is one.opaque


@pytest.mark.parametrize(
    ("name", "driver", "vbios", "chip", "feature"),
    [
        ("coco-trustee/hopperAttestationReport.txt", "550.90.07", "96.00.9F.00.01", "GH100", None),
        ("go-nvtrust/attestationReport.txt", "545.00", "96.00.5E.00.01", "GH100", None),
        ("attsdk-testdata/hopperAttestationReport.txt", "580.159.03", "96.00.74.00.20", "GH100", "SPT"),
        (f"{GPU}/hopperAttestationReport.txt", "535.86.09", "96.00.5E.00.01", "GH100", None),
        (f"{GPU}/hopperAttestationReportExpired.txt", "570.124.03", "96.00.5E.00.04", "GH100", None),
        (f"{GPU}/hopperAttestationReportInvalidSignature.txt", "560.00", "96.00.A5.00.01", "GH100", None),
        (f"{GPU}/blackwellAttestationReport.txt", "575.32", "97.00.88.00.0F", "GB100", None),
        (f"{SWITCH}/switchAttestationReport.txt", None, "96.10.55.00.01", None, None),
        ("attsdk-2.0.0-nvdaod/sample_nvdaod_transcript.txt", "620.12", "96.00.D9.00.0F", "GH100", "SPT"),
    ],
)
def test_captured_reports(vectors_dir: Path, name: str, driver: str, vbios: str, chip: str, feature: str) -> None:
    data = vector_report(vectors_dir, name)
    parsed = report.parse(data)
    assert parsed.raw == data
    assert (parsed.driver_version, parsed.vbios_version) == (driver, vbios)
    assert (parsed.chip, parsed.feature) == (chip, feature)


def test_same_blocks_as_nvidias_own_parser_finds(vectors_dir: Path) -> None:
    """NVIDIA's SDK ships what its parser makes of this report."""
    parsed = report.parse(vector_report(vectors_dir, "attsdk-testdata/hopperAttestationReport.txt"))
    theirs = json.loads((vectors_dir / "nvidia/attsdk-testdata/spdm_parsed_output.json").read_bytes())
    assert parsed.signature.hex() in json.dumps(theirs).lower().replace(" ", "")


def test_trailing_byte_is_kept_apart_and_never_signed(vectors_dir: Path) -> None:
    """A28: a genuine report in the field has one byte after its signature."""
    data = vector_report(vectors_dir, "coco-trustee/hopper_coco_report1.txt")
    parsed = report.parse(data)
    assert parsed.trailing == data[-1:] == b"\0"
    assert parsed.signed + parsed.signature == data[:-1]
    assert parsed.measurements_digest == report.parse(data[:-1]).measurements_digest


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (0, 0x12, Code.GPU_REPORT_MALFORMED),
        (1, 0x60, Code.GPU_REPORT_MALFORMED),
        (2, 0x00, Code.GPU_REPORT_MALFORMED),
        (3, 0x01, Code.GPU_REPORT_MALFORMED),
        (36, 0x08, Code.GPU_REPORT_MALFORMED),
        (37, 0x10, Code.GPU_REPORT_MALFORMED),
        (38, 0xE0, Code.GPU_REPORT_MALFORMED),
        (39, 0x01, Code.GPU_REPORT_MALFORMED),
        (40, 0x01, Code.GPU_REPORT_MALFORMED),
        (41, 63, Code.GPU_REPORT_MALFORMED),
        (42, 0xBF, Code.GPU_REPORT_MALFORMED),
        (44, 0xFF, Code.TRUNCATED),
        (45, 2, Code.GPU_REPORT_MALFORMED),  # index 2 twice
        (46, 0x02, Code.GPU_REPORT_MALFORMED),
        (47, 52, Code.GPU_REPORT_MALFORMED),
        (50, 49, Code.GPU_REPORT_MALFORMED),
        (3510, 0x00, Code.GPU_REPORT_MALFORMED),  # index of the last block
        (3598, 0x7F, Code.TRUNCATED),  # length of the opaque data
    ],
)
def test_each_field_of_the_layout_is_checked(offset: int, value: int, code: Code) -> None:
    changed = bytearray(EMULATED)
    assert changed[offset] != value
    changed[offset] = value
    assert refusal(bytes(changed)) == code


def test_block_that_ends_inside_its_header() -> None:
    record = bytes(6)
    data = EMULATED[:41] + b"\x01" + len(record).to_bytes(3, "little") + record + bytes(34 + 96)
    assert refusal(data) == Code.GPU_REPORT_MALFORMED


def test_block_that_is_longer_than_the_record() -> None:
    record = bytes([1, 1, 51, 0, 1, 48, 0]) + bytes(47)
    data = EMULATED[:41] + b"\x01" + len(record).to_bytes(3, "little") + record + bytes(34 + 96)
    assert refusal(data) == Code.GPU_REPORT_MALFORMED


def test_no_measurements_at_all_is_well_formed() -> None:
    parsed = report.parse(EMULATED[:41] + bytes(4) + bytes(34 + 96))
    assert (parsed.blocks, parsed.opaque.fields, parsed.driver_version, parsed.fwid) == ((), (), None, None)


@pytest.mark.parametrize("cut", [0, 1, 36, 44, 45, 3565, 3597, 3600, 4030, len(EMULATED) - 1])
def test_truncated(cut: int) -> None:
    """A28."""
    assert refusal(EMULATED[:cut]) in {Code.TRUNCATED, Code.GPU_REPORT_MALFORMED}


def test_too_large() -> None:
    """A70."""
    assert refusal(EMULATED + bytes(0x2001 - len(EMULATED))) == Code.TOO_LARGE
    assert report.parse(EMULATED + bytes(0x2000 - len(EMULATED))).trailing


@pytest.mark.parametrize(
    ("kind", "value", "attribute", "expected"),
    [
        (OpaqueType.DRIVER_VERSION, b"\xff\xfe", "driver_version", "0xfffe"),
        (OpaqueType.DRIVER_VERSION, b"\x1b[2J", "driver_version", "0x1b5b324a"),
        (OpaqueType.DRIVER_VERSION, b"\0\0", "driver_version", "0x0000"),
        (OpaqueType.DRIVER_VERSION, b"", "driver_version", "0x"),
        (OpaqueType.VBIOS_VERSION, b"96.10.55.00.01", "vbios_version", "96.10.55.00.01"),
        (OpaqueType.GPU_INFO, bytes(8), "chip", None),
        (OpaqueType.CHIP_INFO, b"GB100\0", "chip", "GB100"),
        (OpaqueType.GPU_INFO, bytes(128), "chip", None),
        (OpaqueType.FEATURE_FLAG, b"\x02\x00", "feature", "PPCIE"),
        (OpaqueType.FEATURE_FLAG, b"\x09\x00", "feature", "0x0900"),
        (OpaqueType.NVDEC0_STATUS, b"\xaa", "nvdec0", "enabled"),
        (OpaqueType.NVDEC0_STATUS, None, "nvdec0", None),
        (OpaqueType.DRIVER_VERSION, None, "driver_version", None),
        (OpaqueType.VBIOS_VERSION, None, "vbios_version", None),
        (OpaqueType.FEATURE_FLAG, None, "feature", None),
        (OpaqueType.NVDEC0_STATUS, b"\x00", "nvdec0", "unrecognised"),
        (OpaqueType.PROTECTED_PCIE_STATUS, b"\x55\x55", "protected_pcie", "unrecognised"),
    ],
)
def test_values_that_are_not_what_their_type_promises(
    kind: OpaqueType, value: bytes | None, attribute: str, expected: str | None
) -> None:
    device = EmulatedH100.make(EmulatedVendor.create())
    parsed = report.parse(device.attest(NONCE, forgery=Forgery(opaque={kind: value})).report)
    assert getattr(parsed, attribute) == expected


@given(st.binary(max_size=300))
@example(b"")
def test_any_bytes_are_parsed_or_malformed(data: bytes) -> None:
    try:
        parsed = report.parse(data)
    except MalformedEvidence:
        return
    assert parsed.raw == data


@given(
    changes=st.dictionaries(st.integers(0, len(EMULATED) - 1), st.integers(0, 255), max_size=4),
    cut=st.none() | st.integers(0, len(EMULATED)),
    tail=st.binary(max_size=8),
)
def test_any_change_is_parsed_or_malformed(changes: dict[int, int], cut: int | None, tail: bytes) -> None:
    data = bytearray(EMULATED)
    for offset, value in changes.items():
        data[offset] = value
    changed = bytes(data[:cut]) + tail
    try:
        parsed = report.parse(changed)
    except MalformedEvidence:
        return
    assert parsed.raw == changed
    # Every accessor answers on every report that parses.
    for name in ("driver_version", "vbios_version", "chip", "project", "project_sku", "chip_sku", "feature", "nvdec0"):
        assert getattr(parsed, name) is None or str(getattr(parsed, name)).isprintable()
    assert len(parsed.measurements_digest) == 32
