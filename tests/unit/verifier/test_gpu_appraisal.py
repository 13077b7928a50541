"""A device as policies see it: by its maker's word, by the relying party's, and by the host's, each under its name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest

from fakes.ocsp_responder import Order, RevocableVendor
from fakes.rims import JUNE, ZERO, anchors_of, issued, with_hash
from gpu_support import NONCE
from weighbridge.attester.gpu.emulated import EmulatedH100, Firmware, Forgery
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric, EmulatedSwitch
from weighbridge.attester.gpu.emulated_rims import Manifest, gpu_manifests
from weighbridge.attester.gpu.emulated_vendor import PLATFORM, EmulatedVendor
from weighbridge.policy import document
from weighbridge.policy.values.reference import GpuMinimum, Reference
from weighbridge.proto import cbor, strict
from weighbridge.proto.cc_state import CcState
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier.gpu import GPUS_AND_SWITCHES, VerifiedGpuReport, verify_chain, verify_report
from weighbridge.verifier.gpu_appraisal import GpuAppraisal, appraise_gpu, appraise_gpus
from weighbridge.verifier.published import Published

if TYPE_CHECKING:
    from weighbridge.attester.gpu.emulated_rims import Validity
    from weighbridge.proto.spdm.evidence import GpuEvidence

VENDOR, SWITCHES = EmulatedVendor.create(), EmulatedVendor.create(architecture="LS_10")
ANCHORS = anchors_of(VENDOR, SWITCHES)
FIRMWARE = Firmware()
H100 = EmulatedH100.make(VENDOR, firmware=FIRMWARE)
LS10 = EmulatedSwitch.make(SWITCHES)
DRIVER, VBIOS = gpu_manifests(FIRMWARE)
WANTED = ("NV_GPU_DRIVER_GH100_580.95.05", "NV_GPU_VBIOS_G520_0200_885_960074001A")
NOTHING = Published.nothing()
WRONG = b"\x66" * 48
NONE_EXPECTED = Reference({}, {}, {})
HOST = CcState(environment=2, feature="on", dev_tools=False, multi_gpu="none")
Word = Literal["match", "mismatch", "absent"]


def verified(evidence: GpuEvidence) -> VerifiedGpuReport:
    chain = verify_chain(evidence.chain, ANCHORS, at=JUNE, accept=GPUS_AND_SWITCHES)
    return verify_report(spdm.parse(evidence.report), chain, nonce=NONCE)


GPU = verified(H100.attest(NONCE))
SWITCH = verified(LS10.attest(NONCE))


def forged(measurements: dict[int, bytes] | None = None, **opaque: bytes | None) -> VerifiedGpuReport:
    """What the GPU signs when it is made to report something else; measurements by the manifests' index."""
    blocks = {index + 1: value for index, value in (measurements or {}).items()}
    named = {int(OpaqueType[name]): value for name, value in opaque.items()}
    return verified(H100.attest(NONCE, forgery=Forgery(measurements=blocks, opaque=named)))


def makers(*manifests: Manifest, vendor: EmulatedVendor = VENDOR, validity: Validity | None = None) -> Published:
    """A collection of these manifests, newly issued."""
    files = [vendor.rim_signer.issue(each, validity=validity) for each in manifests]
    return Published(Collateral.of(*(CollateralItem("rim", data) for data in files)), ANCHORS)


GOOD = makers(DRIVER, VBIOS, validity=issued(JUNE))


def own(device: VerifiedGpuReport, *digests: str) -> Reference:
    """Reference values that name these digests for the device's versions."""
    report = device.report
    key = f"{device.chain.architecture}/{report.driver_version}/{report.vbios_version}"
    return Reference({}, {key: digests}, {})


def right(device: VerifiedGpuReport = GPU) -> Reference:
    return own(device, "00" * 32, device.measurements_digest.hex())


def received(state: CcState) -> CcState:
    """What a window's header says."""
    return CcState.from_cbor(cbor.decode(cbor.encode(state.to_cbor()), limit=100, what="claim"), where="claim")


def appraise(
    device: VerifiedGpuReport = GPU,
    *,
    published: Published = NOTHING,
    reference: Reference = NONE_EXPECTED,
    cc_state: CcState | None = HOST,
    reported: bool = True,
) -> GpuAppraisal:
    return appraise_gpu(device, published=published, reference=reference, cc_state=cc_state, reported=reported, at=JUNE)


def test_every_field_of_a_gpu() -> None:
    found = appraise(published=GOOD, reference=right(), cc_state=HOST)
    digests = [sha256(data).hex() for data in GOOD.collateral.of_kind("rim")]
    assert found.findings == ()
    manifests = found.gpu.manifests
    assert sorted(each.digest for each in manifests) == sorted(digests)
    assert [(each.owner, each.id, each.issued) for each in manifests] == [
        ("driver", "GH100 driver 580.95.05", strict.time_encode(JUNE)),
        ("vbios", "GH100 vbios 96.00.74.00.1A", strict.time_encode(JUNE)),
    ]
    assert found.gpu == document.Gpu(
        identity=H100.identity.hex(),
        platform=PLATFORM,
        architecture="GH100",
        driver="580.95.05",
        vbios="96.00.74.00.1A",
        measurements_digest=GPU.measurements_digest.hex(),
        fwid="matches",
        reference="match",
        revocation="absent",
        cc_mode_host_claim="on",
        reported_in_window=True,
        kind="gpu",
        model="GH100 A01 GSP BROM",
        reference_by="both",
        manifests=manifests,
        revocation_detail=found.gpu.revocation_detail,
        minimum="none",
        signed_protected_pcie=False,
        signed_feature="spt",
    )
    assert found.gpu.revocation_detail


def test_a_switch_is_one() -> None:
    found = appraise(SWITCH).gpu
    assert (found.kind, found.architecture, found.driver, found.vbios) == ("switch", "LS_10", None, LS10.bios)
    assert (found.fwid, found.signed_protected_pcie, found.signed_feature) == (SWITCH.fwid, None, None)
    manifest = Manifest(version=LS10.bios, edition="SWITCH", product="LS10", active={0: (WRONG,)})
    blocks = {block.index - 1: (block.value,) for block in SWITCH.report.blocks}
    good = makers(replace(manifest, active=blocks), vendor=SWITCHES)
    assert appraise(SWITCH, published=good).gpu.reference == "match"
    found = appraise(SWITCH, published=makers(manifest, vendor=SWITCHES)).gpu
    assert (found.reference, found.mismatches, found.differences[0].owner) == ("mismatch", 1, "vbios")


def test_all_in_their_order() -> None:
    both = appraise_gpus([SWITCH, GPU], published=GOOD, reference=NONE_EXPECTED, cc_state=HOST, reported=False, at=JUNE)
    assert [each.gpu.identity for each in both] == [LS10.identity.hex(), H100.identity.hex()]
    assert [each.gpu.reported_in_window for each in both] == [False, False]
    assert both[1] == appraise(published=GOOD, reported=False)


# -- who says what is right --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maker", "relying", "word", "by"),
    [
        ("absent", "absent", "absent", "none"),
        ("absent", "match", "match", "relying-party"),
        ("absent", "mismatch", "mismatch", "relying-party"),
        ("match", "absent", "match", "manifests"),
        ("mismatch", "absent", "mismatch", "manifests"),
        ("match", "match", "match", "both"),
        # Where both speak they must agree.
        ("match", "mismatch", "mismatch", "both"),
        ("mismatch", "match", "mismatch", "both"),
        ("mismatch", "mismatch", "mismatch", "both"),
    ],
)
def test_who_says_that_a_device_is_right(maker: Word, relying: Word, word: Word, by: str) -> None:
    """A63, A18: nobody's word lets pass what another contradicts."""
    published = {"absent": NOTHING, "match": GOOD, "mismatch": makers(with_hash(DRIVER, 22, WRONG), VBIOS)}[maker]
    reference = {"absent": NONE_EXPECTED, "match": right(), "mismatch": own(GPU, "00" * 32)}[relying]
    found = appraise(published=published, reference=reference).gpu
    assert (found.reference, found.reference_by) == (word, by)


@pytest.mark.parametrize("missing", [0, 1])
def test_half_the_makers_word_is_none(missing: int) -> None:
    published = makers((DRIVER, VBIOS)[1 - missing])
    found = appraise(published=published).gpu
    assert (found.reference, found.reference_by, found.missing) == ("absent", "none", (WANTED[missing],))
    # It is told which one was there.
    assert [each.owner for each in found.manifests] == [("driver", "vbios")[1 - missing]]
    # The relying party's word counts alone then; but what one manifest contradicts is no match.
    assert appraise(published=published, reference=right()).gpu.reference == "match"
    device = forged({22: WRONG, 2: WRONG})
    assert appraise(device, published=published, reference=right(device)).gpu.reference == "mismatch"


def test_digests_of_other_versions_are_of_another_device() -> None:
    other = replace(right(), gpu_measurements={"GH100/580.95.05/96": (GPU.measurements_digest.hex(),)})
    assert appraise(reference=other).gpu.reference == "absent"
    switch = right(SWITCH)
    assert list(switch.gpu_measurements) == [f"LS_10/None/{LS10.bios}"]
    assert appraise(SWITCH, reference=switch).gpu.reference == "match"


def test_differences_are_told_as_they_are() -> None:
    """A19"""
    device = forged({22: WRONG, 9: WRONG})
    found = appraise(device, published=GOOD).gpu
    assert (found.mismatches, [each.index for each in found.differences]) == (2, [9, 22])
    vbios, driver = found.differences
    assert (driver.owner, driver.name, driver.got) == ("driver", "Measurement_22", WRONG.hex())
    assert driver.expected == tuple(value.hex() for value in DRIVER.active[22])
    assert "; or " in driver.causes
    assert "devtools" in driver.causes
    assert (vbios.owner, vbios.expected) == ("vbios", tuple(value.hex() for value in VBIOS.active[9]))


def test_a_measurement_that_is_not_there_is_got_by_nobody() -> None:
    blocks = {block.index - 1: (block.value,) for block in SWITCH.report.blocks}
    manifest = Manifest(version=LS10.bios, edition="SWITCH", product="LS10", active={**blocks, 40: (ZERO,)})
    (difference,) = appraise(SWITCH, published=makers(manifest, vendor=SWITCHES)).gpu.differences
    assert (difference.index, difference.got) == (40, None)


def test_a_wrong_driver_does_not_flood_the_verdict() -> None:
    device = forged(dict.fromkeys(DRIVER.active, WRONG))
    found = appraise(device, published=GOOD).gpu
    # All but the decoder's, which is off.
    assert (found.mismatches, len(found.differences)) == (len(DRIVER.active) - 1, 8)


# -- the oldest version ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demanded", "found"),
    [
        (None, "none"),
        (GpuMinimum(None, None), "met"),
        (GpuMinimum("580.95.05", None), "met"),
        (GpuMinimum("550", "96.00.74.00.1A"), "met"),
        (GpuMinimum("580.95.06", None), "below"),
        (GpuMinimum(None, "96.00.74.00.1B"), "below"),
        # The worst of both decides.
        (GpuMinimum("580.95.06", "96"), "below"),
        (GpuMinimum("550", "97"), "below"),
    ],
)
def test_the_oldest_driver_and_vbios(demanded: GpuMinimum | None, found: str) -> None:
    """A84"""
    minimum = {} if demanded is None else {"GH100": demanded, "LS_10": GpuMinimum("999", "FF")}
    reference = replace(right(), gpu_minimum=minimum)
    appraised = appraise(published=GOOD, reference=reference).gpu
    assert (appraised.minimum, appraised.reference) == (found, "match")
    assert appraise(reference=replace(reference, gpu_minimum={"LS_10": GpuMinimum("999", "FF")})).gpu.minimum == "none"


def test_a_version_that_cannot_be_read_is_of_no_age() -> None:
    for device in (forged(DRIVER_VERSION=None), forged(DRIVER_VERSION=b"newest\0")):
        reference = replace(right(), gpu_minimum={"GH100": GpuMinimum("0", None)})
        assert appraise(device, reference=reference).gpu.minimum == "unknown"
        # Known to be too old is worse than not known.
        reference = replace(reference, gpu_minimum={"GH100": GpuMinimum("0", "FF")})
        assert appraise(device, reference=reference).gpu.minimum == "below"


@pytest.mark.parametrize(
    ("demanded", "found"),
    [
        (GpuMinimum(None, "96.10.6D.00.01"), "met"),
        (GpuMinimum(None, "96.10.6D.00.02"), "below"),
        # It has no driver: whoever demands one of it has not said what is accepted.
        (GpuMinimum("1", None), "unknown"),
    ],
)
def test_the_oldest_firmware_of_a_switch(demanded: GpuMinimum, found: str) -> None:
    reference = replace(NONE_EXPECTED, gpu_minimum={"LS_10": demanded})
    assert appraise(SWITCH, reference=reference).gpu.minimum == found


# -- revocation --------------------------------------------------------------------------------------------------------


def test_what_is_known_of_its_certificates() -> None:
    maker = RevocableVendor.create()
    device = EmulatedH100.make(maker.vendor)
    evidence = device.attest(NONCE)
    at = Order().this_update
    report = verify_report(spdm.parse(evidence.report), verify_chain(evidence.chain, maker.anchors, at=at), nonce=NONCE)
    for order, status in ((Order(), "good"), (Order(status="hold"), "hold"), (Order(status="revoked"), "revoked")):
        said = maker.responses(device.keys.chain, order)
        published = Published(Collateral.of(*(CollateralItem("ocsp", data) for data in said)), maker.anchors)
        found = appraise_gpu(
            report, published=published, reference=NONE_EXPECTED, cc_state=None, reported=True, at=at
        ).gpu
        assert found.revocation == status
        assert found.revocation_detail == published.revocation(report, at=at).detail != ""


# -- the host's word ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cc_state", "claim"),
    [
        (None, None),
        (HOST, "on"),
        (replace(HOST, environment=1), "on"),
        (replace(HOST, feature="off"), "off"),
        (replace(HOST, dev_tools=True), "devtools"),
        # With both, what is worse to overlook: memory that can be looked into.
        (replace(HOST, feature="off", dev_tools=True), "devtools"),
    ],
)
def test_what_the_host_says_has_a_name_of_its_own(cc_state: CcState | None, claim: str | None) -> None:
    """A15, A17: and it makes no difference to what is signed."""
    for device in (GPU, SWITCH):
        found = appraise(device, cc_state=cc_state).gpu
        assert found.cc_mode_host_claim == claim
        assert replace(found, cc_mode_host_claim="on") == appraise(device).gpu


def test_silence_of_the_host_is_a_finding_and_no_claim() -> None:
    """A84: leaving it out is no better than saying "on"."""
    (finding,) = appraise(cc_state=None).findings
    assert (finding.code, finding.device) == (Code.GPU_CC_MODE, H100.identity.hex())
    assert "does not say" in finding.message
    # Of a switch nobody says anything.
    assert appraise(SWITCH, cc_state=None).findings == appraise(SWITCH).findings


def test_a_mode_that_is_not_productions_is_a_finding_of_a_real_gpu() -> None:
    platform = strict.json_decode(b'"nvidia"', what="an anchor's platform")
    assert isinstance(platform, str)
    genuine = replace(GPU, chain=replace(GPU.chain, platform=platform))
    others = ((genuine, number, 1) for number in (0, 1, 3, 255))
    rented = replace(GPU, chain=replace(GPU.chain, platform="somebody's emulator"))
    for device, environment, told in ((genuine, 2, 0), *others, (GPU, 1, 0), (rented, 1, 0), (SWITCH, 1, 0)):
        found = appraise(device, cc_state=replace(HOST, environment=environment)).findings
        messages = [finding.message for finding in found if finding.code == Code.GPU_CC_MODE]
        assert len(messages) == told
        assert all(f"environment {environment}" in message for message in messages)


PROTECTED = forged(PROTECTED_PCIE_STATUS=b"\xaa", FEATURE_FLAG=b"\x02\x00")
SILENT = forged(PROTECTED_PCIE_STATUS=None, FEATURE_FLAG=None)


@pytest.mark.parametrize(
    ("device", "multi_gpu", "contradicts"),
    [
        (GPU, "none", False),
        (GPU, "nvle", False),
        (GPU, "protected_pcie", True),
        (PROTECTED, "protected_pcie", False),
        (PROTECTED, "none", True),
        (PROTECTED, "nvle", True),
        # Old drivers sign nothing of the mode; half of it is something.
        (SILENT, "protected_pcie", False),
        (SILENT, "none", False),
        (forged(FEATURE_FLAG=None), "protected_pcie", True),
        (forged(PROTECTED_PCIE_STATUS=None), "protected_pcie", True),
        # A switch signs nothing of a mode at all.
        (SWITCH, "protected_pcie", False),
        (SWITCH, "none", False),
    ],
)
def test_a_host_that_contradicts_what_its_gpu_signs_is_a_finding(
    device: VerifiedGpuReport, multi_gpu: Literal["none", "protected_pcie", "nvle"], contradicts: bool
) -> None:
    found = appraise(device, cc_state=received(replace(HOST, multi_gpu=multi_gpu))).findings
    told = [finding for finding in found if finding.code == Code.GPU_MODE]
    assert [finding.device for finding in told] == [device.identity.hex()] * contradicts
    assert all(f"the host says {multi_gpu}" in finding.message for finding in told)
    silent = appraise(device, cc_state=None).findings
    assert not [finding for finding in silent if finding.code == Code.GPU_MODE]


def test_what_is_signed_of_the_mode_is_told() -> None:
    told = [(each.signed_protected_pcie, each.signed_feature) for each in map(gpu_of, (GPU, PROTECTED, SILENT))]
    assert told == [(False, "spt"), (True, "ppcie"), (None, None)]


def gpu_of(device: VerifiedGpuReport) -> document.Gpu:
    return appraise(device).gpu


# -- findings ----------------------------------------------------------------------------------------------------------


def test_what_no_manifest_covers_is_a_finding() -> None:
    device = forged({62: WRONG})
    found = appraise(device, published=GOOD)
    assert (found.gpu.reference, found.gpu.uncovered) == ("match", (62,))
    (finding,) = found.findings
    assert (finding.code, finding.device) == (Code.GPU_UNCOVERED, H100.identity.hex())
    assert "measurement 62" in finding.message
    # Where a manifest is missing, nobody knows what it would have covered.
    assert appraise(device, published=makers(VBIOS)).findings == ()


def test_what_two_manifests_claim_is_a_finding_and_no_match() -> None:
    claiming = replace(VBIOS, active={**VBIOS.active, 22: DRIVER.active[22]})
    found = appraise(published=makers(DRIVER, claiming))
    assert (found.gpu.reference, found.gpu.conflicts, found.gpu.mismatches) == ("mismatch", (22,), 0)
    (finding,) = found.findings
    assert (finding.code, finding.device) == (Code.RIM_CONFLICT, H100.identity.hex())
    assert "measurement 22" in finding.message


def test_what_verification_noticed_is_told_with_the_device() -> None:
    device = forged(DRIVER_VERSION=b"580.95.05\0")
    noticed = replace(device, findings=(*device.findings, *SWITCH.findings))
    expected = [(each.code.value, each.message) for each in noticed.findings]
    found = appraise(noticed).findings
    assert [(each.code, each.message) for each in found] == expected
    assert {each.device for each in found} <= {H100.identity.hex()}
    assert expected


def test_a_fabric_is_as_it_signs() -> None:
    """GPUs and switches of one host, each under what it is."""
    fabric = EmulatedFabric.create(gpus=2, switches=1)
    believed = anchors_of(*fabric.vendors)
    devices = [
        verify_report(
            spdm.parse(item.report),
            verify_chain(item.chain, believed, at=JUNE, accept=GPUS_AND_SWITCHES),
            nonce=NONCE,
        )
        for item in fabric.attest(NONCE)
    ]
    found = appraise_gpus(
        devices,
        published=NOTHING,
        reference=NONE_EXPECTED,
        cc_state=fabric.cc_state(),
        reported=True,
        at=JUNE,
    )
    assert [each.gpu.kind for each in found] == ["gpu", "gpu", "switch"]
    assert [each.gpu.signed_protected_pcie for each in found] == [True, True, None]
    assert not [finding for each in found for finding in each.findings if finding.code == Code.GPU_MODE]
