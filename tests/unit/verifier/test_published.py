"""What makers have published: read once, judged for each time anew, and silent where it is missing or withdrawn."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from fakes.ocsp_responder import AT, DAY, HOUR, Order, RevocableVendor, revocation_list
from fakes.rims import edited, issued, with_hash
from gpu_support import NONCE
from weighbridge.attester.gpu.emulated import EmulatedH100, Firmware
from weighbridge.attester.gpu.emulated_rims import gpu_manifests
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.digest import sha256
from weighbridge.proto.spdm import report as spdm
from weighbridge.verifier.gpu import VerifiedGpuReport, verify_chain, verify_report
from weighbridge.verifier.published import Published
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.gpu.revocation import RevocationStatus
    from weighbridge.verifier.gpu.rim.compare import Measured

MAKER = RevocableVendor.create()
VENDOR = MAKER.vendor
FIRMWARE = Firmware()
H100 = EmulatedH100.make(VENDOR, firmware=FIRMWARE)
RIMS = VENDOR.rims(FIRMWARE, validity=issued(AT - 30 * DAY))
WANTED = ("NV_GPU_DRIVER_GH100_580.95.05", "NV_GPU_VBIOS_G520_0200_885_960074001A")


def device() -> VerifiedGpuReport:
    evidence = H100.attest(NONCE)
    chain = verify_chain(evidence.chain, MAKER.anchors, at=AT)
    return verify_report(spdm.parse(evidence.report), chain, nonce=NONCE)


DEVICE = device()


def published(rims: Sequence[bytes] = RIMS, ocsp: Sequence[bytes] = (), crls: Sequence[bytes] = ()) -> Published:
    """A collection of these pieces, in the eyes of somebody who believes the maker."""
    items = [
        *(CollateralItem("rim", data) for data in rims),
        *(CollateralItem("ocsp", data) for data in ocsp),
        *(CollateralItem("crl", data) for data in crls),
    ]
    return Published(Collateral.of(*items), MAKER.anchors)


def measured(made: Published) -> Measured:
    return made.measured(DEVICE, at=AT)


def test_nothing_is_published() -> None:
    nothing = Published.nothing()
    assert (nothing.digest, nothing.disbelieved) == (NO_DIGEST, ())
    found = measured(nothing)
    assert (found.status, found.missing) == ("absent", WANTED)
    assert nothing.revocation(DEVICE, at=AT).status == "absent"
    # What anybody believes makes no difference where there is nothing to believe.
    assert Published(Collateral(), MAKER.anchors).digest == NO_DIGEST


def test_the_digest_names_the_pieces() -> None:
    made = published()
    assert made.digest == made.collateral.digest != published(RIMS[:1]).digest


def test_a_device_is_as_its_maker_says() -> None:
    found = measured(published())
    assert (found.status, found.missing, found.mismatches) == ("match", (), ())


def test_manifests_that_nobody_vouches_for_are_missing() -> None:
    stranger = Published(published().collateral, RevocableVendor.create().anchors)
    assert (measured(stranger).status, measured(stranger).missing) == ("absent", WANTED)
    assert [each.digest for each in stranger.disbelieved] == [sha256(rim) for rim in RIMS]


def test_junk_is_told_and_spoils_nothing() -> None:
    wrong = edited(RIMS[0])
    made = published([b"<not-a-manifest/>", *RIMS, wrong], ocsp=[b"junk", b""], crls=[b"junk"])
    assert measured(made).status == "match"
    reasons = {each.digest: each.reason for each in made.disbelieved}
    assert set(reasons) == {sha256(b"<not-a-manifest/>"), sha256(wrong)}
    assert reasons[sha256(wrong)].startswith("RIM_SIG: ")
    found = made.revocation(DEVICE, at=AT)
    assert found.status == "absent"
    assert {sha256(b"junk"), sha256(b"")} <= {each.digest for each in found.ignored}


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (Order(status="revoked"), "absent"),
        (Order(status="hold"), "absent"),
        (Order(status="revoked", this_update=AT - 90 * DAY, next_update=AT - 89 * DAY), "absent"),
        # Only what takes trust away withdraws a manifest: whoever delivers responses could leave them out.
        (Order(status="unknown"), "match"),
        (Order(this_update=AT - 9 * DAY, next_update=AT - 8 * DAY), "match"),
        (Order(), "match"),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_manifest_whose_signer_is_not_good_any_more_is_missing(which: int, order: Order, status: str) -> None:
    """A82: of the driver's as of the VBIOS's."""
    found = measured(published(ocsp=MAKER.rim_responses(RIMS[which], order)))
    assert found.status == status
    assert found.missing == ((WANTED[which],) if status == "absent" else ())


def test_a_manifest_of_a_withdrawn_authority_is_missing() -> None:
    """Not its signer's certificate but the one above, by a list: with it goes what else was issued under it."""
    serial = MAKER.values[0].certificate.serial_number
    found = measured(published(crls=[revocation_list(MAKER.values[1], {serial: None})]))
    assert (found.status, found.missing) == ("absent", WANTED)


def test_a_withdrawn_issue_brings_no_older_one_back() -> None:
    driver, vbios = gpu_manifests(FIRMWARE)
    signer = VENDOR.rim_signer
    older = signer.issue(driver, validity=issued(AT - 100 * DAY))
    newer = signer.issue(driver, validity=issued(AT - 10 * DAY))
    files = [older, newer, signer.issue(vbios)]
    assert measured(published(files)).status == "match"
    found = measured(published(files, ocsp=MAKER.rim_responses(newer, Order(status="revoked"))))
    assert (found.status, found.missing) == ("absent", WANTED[:1])
    # An older one that was withdrawn takes nothing from its successor.
    found = measured(published(files, ocsp=MAKER.rim_responses(older, Order(status="revoked"))))
    assert found.status == "match"


def test_what_a_withdrawn_manifest_contradicts_is_missing_and_no_mismatch() -> None:
    """Its word counts neither for the device nor against it."""
    driver, vbios = gpu_manifests(FIRMWARE)
    wrong = VENDOR.rim_signer.issue(with_hash(driver, 22, bytes(48)))
    files = [wrong, VENDOR.rim_signer.issue(vbios)]
    assert measured(published(files)).status == "mismatch"
    found = measured(published(files, ocsp=MAKER.rim_responses(wrong, Order(status="revoked"))))
    assert (found.status, found.mismatches) == ("absent", ())


def test_what_counts_is_asked_for_each_time_anew() -> None:
    """One collection judges windows for months."""
    chain = H100.keys.chain
    ended = VENDOR.rims(FIRMWARE, validity=issued(AT - DAY, days=2))
    made = published(ended, ocsp=MAKER.responses(chain))
    statuses: list[tuple[str, RevocationStatus]] = []
    for moment in (AT - 3 * DAY, AT, AT + 2 * DAY, AT):
        status = made.measured(DEVICE, at=moment).status
        statuses.append((status, made.revocation(DEVICE, at=moment).status))
    assert statuses == [("absent", "absent"), ("match", "good"), ("absent", "stale"), ("match", "good")]


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (None, "good"),
        (Order(status="revoked"), "revoked"),
        (Order(status="hold"), "hold"),
        (Order(status="unknown"), "unknown"),
        (Order(this_update=AT - 9 * DAY, next_update=AT - 8 * DAY), "stale"),
        (Order(this_update=AT + HOUR, next_update=AT + DAY), "absent"),
    ],
)
@pytest.mark.parametrize("link", [0, 1, 2])
def test_the_worst_certificate_above_a_device_decides(order: Order | None, status: str, link: int) -> None:
    said = MAKER.responses(H100.keys.chain, *[None] * link, order)
    assert published(ocsp=said).revocation(DEVICE, at=AT).status == status


def test_nothing_else_is_asked_of_a_device_of_another_maker() -> None:
    """Manifests of two platforms are kept apart, however alike they are."""
    other = replace(DEVICE, chain=replace(DEVICE.chain, platform="nvidia"))
    assert published().measured(other, at=AT + timedelta(hours=1)).status == "absent"


def test_what_came_before_changes_no_answer() -> None:
    """What was verified already is not verified again; by whom it is believed stays a matter of the anchors."""
    first = published([RIMS[0], b"junk"])
    assert measured(first).missing == WANTED[1:]
    both = Collateral.of(*(CollateralItem("rim", rim) for rim in RIMS))
    after = Published(both, MAKER.anchors, before=first)
    assert (measured(after).status, after.disbelieved, after.digest) == ("match", (), published().digest)
    again = Published(both, first.anchors, before=first)
    assert (measured(again).status, again.disbelieved) == ("match", ())
    assert measured(Published(first.collateral, first.anchors, before=again)).missing == WANTED[1:]
    stranger = Published(both, RevocableVendor.create().anchors, before=first)
    assert (measured(stranger).status, len(stranger.disbelieved)) == ("absent", 2)
