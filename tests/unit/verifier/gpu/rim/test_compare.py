"""What a device measured against what its maker says, in the newest issue."""

from __future__ import annotations

import time
import timeit
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from fakes.rims import JUNE, ZERO, anchors_of, issued, of_version, with_hash
from weighbridge.attester.gpu.emulated import EmulatedH100, Firmware, Forgery
from weighbridge.attester.gpu.emulated_fabric import EmulatedSwitch
from weighbridge.attester.gpu.emulated_rims import Manifest, Validity, gpu_manifests
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor, Silicon
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.spdm import report
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier.gpu.chain import GPUS_AND_SWITCHES, verify_chain
from weighbridge.verifier.gpu.rim import RimSet, check_named, compare, verify_rim, wanted

if TYPE_CHECKING:
    from weighbridge.proto.spdm.evidence import GpuEvidence
    from weighbridge.verifier.gpu.chain import VerifiedGpuChain
    from weighbridge.verifier.gpu.rim import Measured, VerifiedRim

VENDOR = EmulatedVendor.create()
SWITCHES = EmulatedVendor.create(architecture="LS_10")
ANCHORS = anchors_of(VENDOR, SWITCHES)
FIRMWARE = Firmware()
DEVICE = EmulatedH100.make(VENDOR, firmware=FIRMWARE)
NONCE = bytes(range(32))
DRIVER, VBIOS = gpu_manifests(FIRMWARE)
DRIVER_ID, VBIOS_ID = "NV_GPU_DRIVER_GH100_580.95.05", "NV_GPU_VBIOS_G520_0200_885_960074001A"
WRONG = b"\x66" * 48


def rim(manifest: Manifest, *, validity: Validity | None = None, vendor: EmulatedVendor = VENDOR) -> VerifiedRim:
    """A verified issue of the manifest; one that is valid at some time."""
    validity = validity or Validity()
    at = min(max(JUNE, validity.issued), validity.not_after)
    return verify_rim(vendor.rim_signer.issue(manifest, validity=validity), anchors=ANCHORS, at=at)


def chain_of(evidence: GpuEvidence) -> VerifiedGpuChain:
    """The device's, switch or GPU."""
    return verify_chain(evidence.chain, ANCHORS, at=JUNE, accept=GPUS_AND_SWITCHES)


def measured(*manifests: Manifest, forgery: Forgery | None = None, device: EmulatedH100 = DEVICE) -> Measured:
    """The device's report, forged by a device that signs what it is told, against these manifests."""
    evidence = device.attest(NONCE, forgery=forgery or Forgery())
    return compare(report.parse(evidence.report), chain_of(evidence), RimSet.of(rim(each) for each in manifests))


def test_match() -> None:
    found = measured(DRIVER, VBIOS)
    assert (found.status, found.compared) == ("match", 34)
    assert (found.mismatches, found.conflicts, found.uncovered, found.skipped, found.missing) == ((), (), (), (), ())
    assert found.wanted == (DRIVER_ID, VBIOS_ID)
    assert found.driver is not None
    assert found.vbios is not None
    assert (found.driver.kind, found.vbios.kind) == ("driver", "vbios")


def test_any_alternative_matches() -> None:
    for hashes in ((WRONG, FIRMWARE.measurement(8)), (FIRMWARE.measurement(8), WRONG)):
        assert measured(with_hash(DRIVER, 7, *hashes), VBIOS).status == "match"
    assert measured(with_hash(DRIVER, 7, WRONG, ZERO), VBIOS).status == "mismatch"


@pytest.mark.parametrize(("index", "owner"), [(0, "vbios"), (7, "driver"), (9, "vbios"), (12, "vbios"), (41, "driver")])
def test_a19_mismatch_names_what_differs(index: int, owner: str) -> None:
    found = measured(DRIVER, VBIOS, forgery=Forgery(measurements={index + 1: WRONG}))
    (mismatch,) = found.mismatches
    assert (found.status, mismatch.index, mismatch.owner, mismatch.got) == ("mismatch", index, owner, WRONG)
    assert mismatch.expected == {**DRIVER.active, **VBIOS.active}[index]
    assert mismatch.name == f"Measurement_{index}"
    assert mismatch.causes
    # SPDM's index 8 is the manifests' 7: one off would name the neighbour.
    assert found.compared == 34


@pytest.mark.parametrize(
    ("index", "word"),
    [(7, "devtools"), (9, "protected PCIe"), (9, "issued again"), (24, "NVDEC0"), (11, "protected PCIe"), (1, "board")],
)
def test_causes_that_are_known(index: int, word: str) -> None:
    (mismatch,) = measured(DRIVER, VBIOS, forgery=Forgery(measurements={index + 1: WRONG})).mismatches
    assert any(word in cause for cause in mismatch.causes)


def test_every_active_index_is_compared_and_no_other() -> None:
    active = sorted({**DRIVER.active, **VBIOS.active})
    everywhere = {index + 1: WRONG for index in range(64)}
    found = measured(DRIVER, VBIOS, forgery=Forgery(measurements=everywhere, opaque={OpaqueType.NVDEC0_STATUS: None}))
    assert [mismatch.index for mismatch in found.mismatches] == active
    assert sorted(found.uncovered) == sorted(set(range(64)) - set(active))


def test_zero_where_something_is_expected() -> None:
    found = measured(DRIVER, VBIOS, forgery=Forgery(measurements={8: ZERO}))
    assert [mismatch.index for mismatch in found.mismatches] == [7]


def test_index_that_the_report_does_not_have() -> None:
    found = measured(replace(DRIVER, active={**DRIVER.active, 63: (ZERO,)}), VBIOS)
    assert found.status == "match"
    switch = EmulatedSwitch.make(SWITCHES)
    evidence = switch.attest(NONCE)
    manifest = Manifest(version=switch.bios, edition="SWITCH", product="LS10", active={40: (ZERO,)})
    against = compare(report.parse(evidence.report), chain_of(evidence), RimSet.of([rim(manifest, vendor=SWITCHES)]))
    (mismatch,) = against.mismatches
    assert (against.status, mismatch.index, mismatch.got) == ("mismatch", 40, b"")
    assert "no measurement" in mismatch.causes[0]


@pytest.mark.parametrize(
    ("status", "index", "expected"),
    [
        (b"\x55", 35, ("match", 33, (35,))),
        (b"\xaa", 35, ("mismatch", 34, ())),
        (b"\x00", 35, ("mismatch", 34, ())),
        (None, 35, ("mismatch", 34, ())),
        (b"\x55", 34, ("mismatch", 34, ())),
    ],
)
def test_video_decoder(status: bytes | None, index: int, expected: tuple[str, int, tuple[int, ...]]) -> None:
    """Index 35 is not held against a device whose decoder is disabled, and says so in signed bytes; no other is."""
    forgery = Forgery(measurements={index + 1: WRONG}, opaque={OpaqueType.NVDEC0_STATUS: status})
    found = measured(DRIVER, VBIOS, forgery=forgery)
    assert (found.status, found.compared, found.skipped) == expected


def test_two_manifests_claim_one_index() -> None:
    """Even where both say the same: whose it is decides what a change of it means."""
    found = measured(with_hash(DRIVER, 9, FIRMWARE.measurement(10)), VBIOS)
    assert (found.status, found.conflicts, found.mismatches) == ("mismatch", (9,), ())


def test_measurement_in_no_manifest() -> None:
    """Drivers from 570 on measure index 41, and older manifests leave it out."""
    older = replace(DRIVER, active={index: hashes for index, hashes in DRIVER.active.items() if index != 41})
    found = measured(older, VBIOS)
    assert (found.status, found.compared, found.uncovered) == ("match", 33, (41,))


@pytest.mark.parametrize(
    ("manifests", "missing"),
    [((), (DRIVER_ID, VBIOS_ID)), ((DRIVER,), (VBIOS_ID,)), ((VBIOS,), (DRIVER_ID,))],
)
def test_absent(manifests: tuple[Manifest, ...], missing: tuple[str, ...]) -> None:
    found = measured(*manifests)
    assert (found.status, found.missing, found.uncovered) == ("absent", missing, ())


def test_mismatch_outweighs_absence() -> None:
    found = measured(VBIOS, forgery=Forgery(measurements={10: WRONG}))
    assert (found.status, found.missing) == ("mismatch", (DRIVER_ID,))


def test_a21_manifest_of_another_version_is_not_there() -> None:
    """The right hashes for a driver of another version are for another driver."""
    other = verify_rim(of_version(VENDOR, FIRMWARE, driver="580.95.06"), anchors=ANCHORS, at=JUNE)
    evidence = DEVICE.attest(NONCE)
    found = compare(report.parse(evidence.report), chain_of(evidence), RimSet.of([other, rim(VBIOS)]))
    assert (found.status, found.missing, found.driver) == ("absent", (DRIVER_ID,), None)
    assert measured(replace(DRIVER, product="GB100"), VBIOS).status == "absent"


def test_vbios_manifest_is_no_drivers() -> None:
    """A driver that names itself like a VBIOS does not choose another manifest."""
    found = measured(DRIVER, VBIOS, forgery=Forgery(opaque={OpaqueType.DRIVER_VERSION: b"96.00.74.00.1A\0"}))
    assert (found.status, found.driver) == ("absent", None)


@pytest.mark.parametrize("value", [None, b"", b"../../x\0", b"580 95\0", b"\xff\xfe", b"5" * 40, b".580\0"])
def test_version_that_makes_no_name(value: bytes | None) -> None:
    found = measured(DRIVER, VBIOS, forgery=Forgery(opaque={OpaqueType.DRIVER_VERSION: value}))
    assert (found.status, found.wanted) == ("absent", (VBIOS_ID,)) or "0x" in found.wanted[0]
    assert found.driver is None


@pytest.mark.parametrize(
    "kind", [OpaqueType.PROJECT, OpaqueType.PROJECT_SKU, OpaqueType.CHIP_SKU, OpaqueType.VBIOS_VERSION]
)
def test_board_that_makes_no_name(kind: OpaqueType) -> None:
    found = measured(DRIVER, VBIOS, forgery=Forgery(opaque={kind: None}))
    assert (found.status, found.wanted, found.vbios) == ("absent", (DRIVER_ID,), None)


def test_another_vendors_manifest_says_nothing_of_a_genuine_device() -> None:
    """Platforms are kept apart: else anybody's emulated manifest would match a genuine device's report."""
    rims = RimSet.of([rim(DRIVER), rim(VBIOS)])
    assert rims.newest("GH100 driver 580.95.05") is None
    assert rims.newest("GH100 driver 580.95.05", platform="insecure-emulated") is not None


def test_blackwell() -> None:
    vendor = EmulatedVendor.create(architecture="GB100")
    believed = anchors_of(vendor)
    device = EmulatedH100.make(vendor, silicon=Silicon(architecture="GB100"))
    evidence = device.attest(NONCE)
    chain = verify_chain(evidence.chain, believed, at=JUNE)
    rims = [verify_rim(data, anchors=believed, at=JUNE) for data in vendor.rims(device.firmware, product="GB100")]
    found = compare(report.parse(evidence.report), chain, RimSet.of(rims))
    assert (found.status, found.wanted[0]) == ("match", "NV_GPU_CC_DRIVER_GB100_580.95.05")


def test_switch() -> None:
    switch = EmulatedSwitch.make(SWITCHES)
    evidence = switch.attest(NONCE)
    parsed = report.parse(evidence.report)
    active = {block.index - 1: (block.value,) for block in parsed.blocks}
    manifest = Manifest(version=switch.bios, edition="SWITCH", product="LS10", active=active)
    found = compare(parsed, chain_of(evidence), RimSet.of([rim(manifest, vendor=SWITCHES)]))
    assert (found.status, found.compared, found.driver) == ("match", 31, None)
    assert found.wanted == ("NV_SWITCH_BIOS_5612_0002_890_96106D0001",)
    without = compare(parsed, chain_of(evidence), RimSet.of([]))
    assert (without.status, without.missing) == ("absent", found.wanted)


def test_what_is_wanted_says_both_names() -> None:
    evidence = DEVICE.attest(NONCE)
    first, second = wanted(report.parse(evidence.report), chain_of(evidence))
    assert (first.kind, first.id, first.service_id) == ("driver", "GH100 driver 580.95.05", DRIVER_ID)
    assert (second.kind, second.id, second.service_id) == ("vbios", "GH100 vbios 96.00.74.00.1A", VBIOS_ID)


@pytest.mark.parametrize(
    ("manifest", "name", "fits"),
    [
        (DRIVER, DRIVER_ID, True),
        (DRIVER, "NV_GPU_CC_DRIVER_GH100_580.95.05", True),
        (DRIVER, "NV_GPU_DRIVER_GH100_580.95.06", False),
        (DRIVER, "NV_GPU_DRIVER_GB100_580.95.05", False),
        (DRIVER, "NV_GPU_DRIVER_GH100_580.95.05.1", False),
        (DRIVER, VBIOS_ID, False),
        (VBIOS, VBIOS_ID, True),
        (VBIOS, "NV_GPU_VBIOS_1010_0200_882_960074001A", True),
        (VBIOS, "NV_GPU_VBIOS_G520_0200_885_960074001B", False),
        (VBIOS, "NV_SWITCH_BIOS_G520_0200_885_960074001A", False),
        (VBIOS, DRIVER_ID, False),
        (replace(VBIOS, edition="SWITCH"), "NV_SWITCH_BIOS_5612_0002_890_960074001A", True),
        (replace(VBIOS, edition="SWITCH"), VBIOS_ID, False),
    ],
)
def test_name_under_which_it_was_handed_out(manifest: Manifest, name: str, fits: bool) -> None:
    found = rim(manifest)
    if fits:
        check_named(found, name)
        return
    with pytest.raises(NotAuthentic) as caught:
        check_named(found, name)
    assert (caught.value.code, caught.value.expected) == (Code.RIM_VERSION, name)


FIRST, SECOND = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC)
OLD = rim(VBIOS, validity=issued(FIRST))
NEW = rim(with_hash(VBIOS, 9, WRONG), validity=issued(SECOND))
ID = OLD.id
EMULATED = "insecure-emulated"


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD), (OLD, NEW, OLD)])
def test_a81_the_newest_issue_counts_in_any_order(order: tuple[VerifiedRim, ...]) -> None:
    """Both are genuine, and the older one still valid: a device that matches it alone does not match."""
    rims = RimSet.of([rim(DRIVER), *order])
    assert rims.newest(ID, platform=EMULATED) is NEW
    assert len(rims) == 2
    evidence = DEVICE.attest(NONCE)
    found = compare(report.parse(evidence.report), chain_of(evidence), rims.at(JUNE))
    assert (found.status, [mismatch.index for mismatch in found.mismatches]) == ("mismatch", [9])
    assert "issued again" in found.mismatches[0].causes[0]


def test_issues_as_time_passes() -> None:
    rims = RimSet.of([OLD, NEW])
    assert rims.at(FIRST - timedelta(seconds=1)).newest(ID, platform=EMULATED) is None
    assert rims.at(SECOND - timedelta(seconds=1)).newest(ID, platform=EMULATED) is OLD
    assert rims.at(SECOND).newest(ID, platform=EMULATED) is NEW
    assert rims.at(JUNE) is rims
    assert list(rims.at(JUNE)) == [NEW]


def test_an_issue_that_ended_brings_no_older_one_back() -> None:
    short = rim(with_hash(VBIOS, 9, WRONG), validity=issued(SECOND, days=10))
    rims = RimSet.of([OLD, short])
    assert rims.at(SECOND + timedelta(days=5)).newest(ID, platform=EMULATED) is short
    assert rims.at(JUNE).newest(ID, platform=EMULATED) is None


def test_two_issues_of_one_instant() -> None:
    """Saying the same they are one; else neither counts, until a newer one comes."""
    again, other = rim(VBIOS, validity=issued(FIRST)), rim(with_hash(VBIOS, 9, WRONG), validity=issued(FIRST))
    assert again.digest != OLD.digest
    both = RimSet.of([OLD, again]).newest(ID, platform=EMULATED)
    assert both is RimSet.of([again, OLD]).newest(ID, platform=EMULATED)
    assert both in {OLD, again}
    assert RimSet.of([OLD, other, again]).newest(ID, platform=EMULATED) is None
    assert RimSet.of([OLD, other, NEW]).newest(ID, platform=EMULATED) is NEW


def test_comparing_is_cheap() -> None:
    """30 us on a quiet core; the bound is for a busy one that also counts branches, and still shows another order."""
    evidence = DEVICE.attest(NONCE)
    parsed, chain, rims = report.parse(evidence.report), chain_of(evidence), RimSet.of([rim(DRIVER), rim(VBIOS)])
    spent = timeit.repeat(lambda: compare(parsed, chain, rims), timer=time.process_time, number=100, repeat=5)
    assert min(spent) / 100 < 1e-3
