"""What becomes of hosts whose makers' word comes late, ends or changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from corpus.policy import genuine
from fakes import rims
from fakes.ocsp_responder import AT, DAY, Order, RevocableVendor
from gpu_support import NONCE
from support.world import EMULATED
from weighbridge.attester.gpu.emulated import EmulatedH100, Firmware
from weighbridge.attester.gpu.emulated_rims import gpu_manifests
from weighbridge.policy.values.reference import GpuMinimum
from weighbridge.proto.cc_state import CcState
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.errors import Code, EnvironmentFault, PolicyDenied
from weighbridge.proto.spdm import report as spdm
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.certs import load_certificate
from weighbridge.verifier.gpu import verify_chain, verify_report
from weighbridge.verifier.gpu.rim.load import load_rim
from weighbridge.verifier.published import Published

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.appraisal import Appraiser
    from weighbridge.verifier.core import Answer
    from weighbridge.verifier.gpu.rim.load import Disbelieved
    from weighbridge.verifier.gpu.rim.verify import VerifiedRim

# A measurement of the driver's, from 0 as manifests count.
OF_DRIVER = 22


def published(arena: Arena, files: Sequence[bytes] | None = None) -> World:
    """A world without a reference value for its GPUs, whose verifier has ``files``; else those that they match."""
    world = arena.world(reference=lambda made: replace(made, gpu_measurements={}))
    gpus = world.host.gpus
    root = load_certificate(gpus.vendor.rim_root_certificate, what="root")
    anchor = Anchor.from_certificate("nvidia-rim-root", root, platform=EMULATED, source="a test")
    world.publish(*items(gpus.rims() if files is None else files), believing=[anchor])
    return world


def items(files: Sequence[bytes]) -> list[CollateralItem]:
    return [CollateralItem("rim", data) for data in files]


def told(answer: Answer) -> list[str]:
    return [denial.code for denial in answer.verdict.denials]


def test_a_manifest_that_ends_overnight_does_not_stick_to_the_fleet(arena: Arena) -> None:
    """A20: the session ends; with the newer issue at hand the host comes again, and nobody has to clear anything."""
    world = published(arena)
    world.open_session()
    assert world.window().verdict.opens
    vendor, firmware = world.host.gpus.vendor, world.host.gpus.devices[0].firmware
    world.publish(*items(rims.expired(vendor, firmware, at=world.clock.at)))
    assert told(world.window()) == [Code.GPU_REFERENCE_ABSENT, Code.GPU_REFERENCE_ABSENT]
    world.publish(*items(world.host.gpus.rims()))
    world.open_session()
    assert world.window().verdict.opens


def test_a_host_comes_again_once_its_driver_is_new_enough(arena: Arena) -> None:
    """As the denial's hint says: update it, then have the host attest anew."""
    world = published(arena)
    own = world.reference

    def demanding(minimum: str) -> Reference:
        return replace(own, gpu_minimum={"GH100": GpuMinimum(driver=minimum, vbios=None)})

    world.open_session()
    assert world.window().verdict.opens
    world.judge_by(arena.engines, demanding("999.0"))
    assert told(world.window()) == [Code.GPU_OUTDATED, Code.GPU_OUTDATED]
    world.judge_by(arena.engines, demanding("1.0"))
    world.open_session()
    assert world.window().verdict.opens


def test_what_a_maker_contradicts_sticks(arena: Arena) -> None:
    """A19: beside what does not, too: one device unknown and one wrong is a host that is wrong."""
    gpus = arena.world().host.gpus
    driver, vbios = gpu_manifests(gpus.devices[0].firmware)
    wrong = rims.with_hash(driver, OF_DRIVER, rims.ZERO)
    world = published(arena)
    signer = world.host.gpus.vendor.rim_signer
    world.publish(*items([signer.issue(wrong), signer.issue(vbios)]))
    world.open_session()
    assert set(told(world.window())) == {Code.GPU_MEASUREMENT_MISMATCH}
    world.publish(*items(world.host.gpus.rims()))
    with pytest.raises(PolicyDenied) as refusal:
        world.open_session()
    assert refusal.value.code is Code.SUBJECT_FAILED


def test_only_what_is_new_is_verified_when_the_store_changes(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every file that is fetched would cost some ten milliseconds for each manifest of the fleet."""
    world = published(arena)
    world.open_session()
    assert world.window().verdict.opens
    verified: list[bytes] = []

    def counting(data: bytes, anchors: TrustAnchors) -> VerifiedRim | Disbelieved:
        verified.append(data)
        return load_rim(data, anchors)

    monkeypatch.setattr("weighbridge.verifier.published.load_rim", counting)
    files, (newer, _) = world.published.collateral.of_kind("rim"), world.host.gpus.rims()
    first = Published(Collateral.of(*items([files[0], b"junk"])), world.anchors, before=world.published)
    assert len(first.disbelieved) == 1
    # The one that is gone is forgotten, and what is none is none again.
    second = Published(Collateral.of(*items([*files, newer, b"junk"])), world.anchors, before=first)
    assert len(second.disbelieved) == 1
    assert verified == [b"junk", *sorted([files[1], newer])]
    # Read by other anchors a manifest is another's word.
    assert len(Published(second.collateral, TrustAnchors(()), before=second).disbelieved) == 4
    assert len(verified) == 7


def test_silence_of_the_host_is_told(arena: Arena) -> None:
    """A84: a host leaves out that its mode is off, or says "on" of a mode that is not production's."""
    world = arena.world(**genuine())
    gpus = world.host.gpus
    said = {
        None: "does not say whether",
        CcState(environment=1, feature="on", dev_tools=False, multi_gpu="none"): "environment 1, not production",
        CcState(environment=2, feature="on", dev_tools=False, multi_gpu="none"): "",
    }
    world.open_session()
    for state, expected in said.items():
        gpus.cc = state
        answer = world.window()
        assert answer.verdict.opens
        assert answer.verdict.decision is not None
        messages = [each.message for each in answer.verdict.decision.warnings if each.code == Code.GPU_CC_MODE]
        # Of two devices; what is told of both is one warning.
        assert len(messages) == (1 if expected else 0)
        assert all(expected in message for message in messages)


class Changing:
    """Whence what is published comes: first a fault of the store, then other pieces."""

    def __init__(self, world: World) -> None:
        self.world, self.calls = world, 0

    def renew(self, at: datetime) -> Appraiser | None:
        assert at == self.world.clock.at
        self.calls += 1
        if self.calls == 1:
            raise EnvironmentFault(Code.STATE_CORRUPT, "the store is damaged")
        return self.world.appraiser


def test_an_enrolment_is_judged_by_what_is_published_by_then(arena: Arena) -> None:
    """A22: what the terms rest on is looked at once: not by what was published when the last window came."""
    world = arena.world()
    world.verifier.follow(Changing(world))
    world.published = Published(Collateral.of(*items(world.host.gpus.rims())), world.anchors)
    with pytest.raises(EnvironmentFault):
        world.host.enrol(world.verifier)
    assert world.ledger.size == 0
    world.host.enrol(world.verifier)
    assert world.archive.records.record(0).collateral == world.published.digest


@pytest.mark.parametrize("status", ["revoked", "hold", "good"])
@pytest.mark.parametrize("root", [True, False])
def test_leaving_the_root_out_hides_nothing(root: bool, status: str) -> None:
    """A22: who sends a chain, and who delivers a manifest, may leave the root's certificate out.

    That certificate is in no signed byte of a manifest; and it is the root that revokes the authority below it.
    """
    maker = RevocableVendor.create()
    firmware = Firmware()
    h100 = EmulatedH100.make(maker.vendor, firmware=firmware)
    files = maker.vendor.rims(firmware, validity=rims.issued(AT - 30 * DAY))
    orders = None, None, Order(status=status)
    said = [*maker.responses(h100.keys.chain, *orders), *maker.rim_responses(files[0], *orders)]
    sent = h100.keys.chain if root else h100.keys.chain[:-1]
    delivered = [data if root else without_root(data) for data in files]
    pieces = [*items(delivered), *(CollateralItem("ocsp", data) for data in said)]
    made = Published(Collateral.of(*pieces), maker.anchors)
    assert not made.disbelieved
    chain = verify_chain(sent, maker.anchors, at=AT)
    device = verify_report(spdm.parse(h100.attest(NONCE).report), chain, nonce=NONCE)
    assert made.revocation(device, at=AT).status == status
    measured = made.measured(device, at=AT)
    assert (measured.driver is None) == (status != "good")


def without_root(rim: bytes) -> bytes:
    """The manifest, whose signature holds as before, without the last certificate beside it."""
    head, end, tail = rim.rpartition(b"</ds:X509Certificate>")
    start = head.rindex(b"<ds:X509Certificate>")
    assert end
    return head[:start] + tail
