"""The emulated vendor's manifests: a verifier that believes its root finds its devices as they should be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fakes.rims import JUNE, anchors_of, issued
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100, Firmware
from weighbridge.attester.gpu.emulated_vendor import PLATFORM, EmulatedVendor
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic
from weighbridge.proto.spdm import report
from weighbridge.verifier import anchors
from weighbridge.verifier.gpu.chain import verify_chain
from weighbridge.verifier.gpu.rim import RimSet, compare, verify_rim


def test_devices_match_their_vendors_manifests() -> None:
    vendor = EmulatedVendor.create()
    other = replace(Firmware(), driver="590.12", vbios="96.00.A5.00.01")
    gpus = EmulatedGpus(vendor, [EmulatedH100.make(vendor), EmulatedH100.make(vendor, firmware=other)])
    believed = anchors_of(vendor)
    rims = RimSet.of(verify_rim(data, anchors=believed, at=JUNE) for data in gpus.rims())
    assert len(rims) == 4
    assert {rim.platform for rim in rims} == {PLATFORM}
    for evidence in gpus.attest(bytes(32)):
        chain = verify_chain(evidence.chain, believed, at=JUNE)
        found = compare(report.parse(evidence.report), chain, rims)
        assert (found.status, found.compared, found.uncovered) == ("match", 34, ())


def test_equal_devices_have_the_same_manifests() -> None:
    assert len(EmulatedGpus.create(3).rims()) == 2


def test_nobody_believes_them_by_default() -> None:
    for data in EmulatedGpus.create(1).rims():
        with pytest.raises(NotAuthentic) as caught:
            verify_rim(data, anchors=anchors.default(), at=JUNE)
        assert caught.value.code is Code.RIM_CHAIN


def test_issue_has_the_instant_that_it_was_given() -> None:
    gpus = EmulatedGpus.create(1)
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for data in gpus.rims(validity=issued(moment, days=200)):
        rim = verify_rim(data, anchors=anchors_of(gpus.vendor), at=JUNE)
        assert (rim.issued, rim.not_after) == (moment, moment + timedelta(days=200))


def test_saved_vendor_has_both_authorities() -> None:
    vendor = EmulatedVendor.create()
    again = EmulatedVendor.from_pem(vendor.to_pem())
    assert again.to_pem() == vendor.to_pem()
    assert again.rim_signer.chain == vendor.rim_signer.chain


def test_vendor_saved_before_there_were_manifests() -> None:
    """Its file is refused with what to do about it: a new authority would be believed by nobody."""
    data = EmulatedVendor.create().to_pem()
    end = b"-----END PRIVATE KEY-----\n"
    with pytest.raises(EnvironmentFault) as caught:
        EmulatedVendor.from_pem(data[: data.index(end) + len(end)])
    assert caught.value.code is Code.STATE_CORRUPT
    assert "Delete" in caught.value.hint
