"""Rows A11, A12, A15, A17, A19 to A23, A81 and A84: what makers publish of devices, and what hosts say of their mode.

In these worlds no reference value names the GPUs' measurements: their maker's manifests are all there is.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from corpus.policy import genuine, without
from fakes import rims
from fakes.ocsp_responder import AT, DAY, Issuer, Order, RevocableVendor
from support.forge import Forgery, seal
from support.world import EMULATED, NOON, requirements
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.gpu.emulated import Forgery as Misreport
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric
from weighbridge.attester.gpu.emulated_rims import gpu_manifests
from weighbridge.policy.values.reference import GpuMinimum
from weighbridge.proto import binding
from weighbridge.proto.cc_state import ENVIRONMENT_PRODUCTION, CcState
from weighbridge.proto.collateral import CollateralItem
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier.anchors import Anchor
from weighbridge.verifier.certs import load_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.arena import Arena, Options
    from support.forge import Reports
    from support.world import World
    from weighbridge.attester.gpu.emulated import Firmware
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.spdm.evidence import GpuEvidence
    from weighbridge.verifier.core import Answer, Opened

# A measurement of the driver's, from 1 as reports count.
_OF_DRIVER = 23


def _by_makers_word(reference: Reference) -> Reference:
    return replace(reference, gpu_measurements={})


def _items(*files: bytes) -> list[CollateralItem]:
    return [CollateralItem("rim", data) for data in files]


def _answers(*responses: bytes) -> list[CollateralItem]:
    return [CollateralItem("ocsp", data) for data in responses]


def _rim_anchor(gpus: EmulatedGpus, platform: str = EMULATED) -> Anchor:
    root = load_certificate(gpus.vendor.rim_root_certificate, what="root")
    return Anchor.from_certificate("nvidia-rim-root", root, platform=platform, source="a test")


def _published(arena: Arena, *files: bytes, **options: object) -> World:
    """A world whose verifier has ``files`` as manifests; without any, those that the devices match."""
    chosen: Options = {"reference": _by_makers_word, **options}  # type: ignore[typeddict-item] # tests name options
    world = arena.world(**chosen)
    gpus = world.host.gpus
    world.publish(*_items(*(files or gpus.rims())), believing=[_rim_anchor(gpus)])
    return world


def _window(world: World) -> Answer:
    world.open_session()
    return world.window()


def _with(arena: Arena, made: Callable[[EmulatedGpus, Firmware], tuple[bytes, ...]]) -> Answer:
    """A window that is judged by the manifests which ``made`` makes for the devices."""
    gpus = EmulatedGpus.create(2)
    return _window(_published(arena, *made(gpus, gpus.devices[0].firmware), gpus=gpus))


def case_001_as_the_manifests_say(arena: Arena) -> Answer:
    """What the makers vouch for is admitted, though no reference value names it."""
    return _window(_published(arena))


def case_002_other_measurement_than_the_manifests(arena: Arena) -> Answer:
    return _misreported(_published(arena))


def case_003_reference_accepts_what_the_manifest_does_not(arena: Arena) -> Answer:
    """Where both speak they must agree: nobody's own digest lets pass what the maker contradicts."""

    def made(gpus: EmulatedGpus, firmware: Firmware) -> tuple[bytes, ...]:
        driver, vbios = gpu_manifests(firmware)
        wrong = rims.with_hash(driver, _OF_DRIVER - 1, rims.ZERO)
        return tuple(gpus.vendor.rim_signer.issue(each) for each in (wrong, vbios))

    gpus = EmulatedGpus.create(2)
    files = made(gpus, gpus.devices[0].firmware)
    return _window(_published(arena, *files, gpus=gpus, reference=lambda reference: reference))


def case_004_manifests_that_have_ended(arena: Arena) -> Answer:
    return _with(arena, lambda gpus, firmware: rims.expired(gpus.vendor, firmware, at=NOON))


def case_005_manifest_of_the_driver_missing(arena: Arena) -> Answer:
    return _with(arena, lambda gpus, firmware: gpus.vendor.rims(firmware)[1:])


def case_006_manifest_edited(arena: Arena) -> Answer:
    return _with(arena, lambda gpus, firmware: tuple(rims.edited(rim) for rim in gpus.vendor.rims(firmware)))


def case_007_manifest_with_another_signature(arena: Arena) -> Answer:
    return _with(arena, lambda gpus, firmware: tuple(rims.resigned(rim) for rim in gpus.vendor.rims(firmware)))


def case_008_manifests_of_a_stranger(arena: Arena) -> Answer:
    return _with(arena, lambda _, firmware: rims.of_stranger(firmware))


def case_009_manifest_of_another_version(arena: Arena) -> Answer:
    def made(gpus: EmulatedGpus, firmware: Firmware) -> tuple[bytes, ...]:
        other = rims.of_version(gpus.vendor, firmware, driver="999.0")
        return other, gpus.vendor.rims(firmware)[1]

    return _with(arena, made)


def case_010_issue_that_a_newer_one_has_replaced(arena: Arena) -> Answer:
    """Both are genuine, and the device is as the older one says."""

    def made(gpus: EmulatedGpus, firmware: Firmware) -> tuple[bytes, ...]:
        signer = gpus.vendor.rim_signer
        driver, vbios = gpu_manifests(firmware)
        newer = rims.with_hash(driver, _OF_DRIVER - 1, b"\x01" * 48)
        return (
            signer.issue(vbios),
            signer.issue(driver, validity=rims.issued(NOON - timedelta(days=100))),
            signer.issue(newer, validity=rims.issued(NOON - timedelta(days=10))),
        )

    return _with(arena, made)


def case_011_newest_issue_has_ended(arena: Arena) -> Answer:
    """Time brings nothing back: an older issue that is still valid does not take its successor's place."""

    def made(gpus: EmulatedGpus, firmware: Firmware) -> tuple[bytes, ...]:
        signer = gpus.vendor.rim_signer
        driver, vbios = gpu_manifests(firmware)
        return (
            signer.issue(vbios),
            signer.issue(driver, validity=rims.issued(NOON - timedelta(days=100))),
            signer.issue(driver, validity=rims.issued(NOON - timedelta(days=10), days=5)),
        )

    return _with(arena, made)


def case_012_below_the_minimum(arena: Arena) -> Answer:
    """Driver and manifests are genuine, and older than the relying party accepts."""

    def demanding(reference: Reference) -> Reference:
        return replace(_by_makers_word(reference), gpu_minimum={"GH100": GpuMinimum(driver="999.0", vbios=None)})

    return _window(_published(arena, reference=demanding))


def _revocable(
    arena: Arena,
    orders: tuple[Order | None, ...],
    *,
    rim_orders: tuple[Order | None, ...] | None = None,
    root: bool = True,
) -> Answer:
    """A window of devices about which their issuers answer as ordered; ``root``: its certificate is sent, too."""
    maker = RevocableVendor.create()
    vendor = maker.vendor
    gpus = EmulatedGpus(vendor, [EmulatedH100.make(vendor) for _ in range(2)])
    world = _published(arena, gpus=gpus)
    files = gpus.rims()
    said = maker.responses(gpus.attest(bytes(31) + b"\x01")[1].chain, *orders)
    about = () if rim_orders is None else maker.rim_responses(files[0], *rim_orders)
    world.publish(*_items(*files), *_answers(*said, *about))
    if not root:
        world.host.gpus = _Rootless(gpus)  # type: ignore[assignment]  # a source of another kind
    return _window(world)


def case_013_certificate_revoked(arena: Arena) -> Answer:
    return _revocable(arena, (Order(status="revoked"),))


def case_014_certificate_on_hold(arena: Arena) -> Answer:
    return _revocable(arena, (Order(status="hold"),))


def case_015_authority_revoked(arena: Arena) -> Answer:
    """Not the chip's certificate but that of whoever provisioned it."""
    return _revocable(arena, (None, Order(status="revoked")))


def case_016_revoked_long_ago(arena: Arena) -> Answer:
    """A response that has ended still takes trust away: revocation is for good."""
    return _revocable(
        arena, (Order(status="revoked", this_update=AT - 90 * DAY, next_update=AT - 89 * DAY, produced_at=None),)
    )


def case_017_signer_of_the_manifest_revoked(arena: Arena) -> Answer:
    return _revocable(arena, (), rim_orders=(Order(status="revoked"),))


def case_018_responses_that_have_ended(arena: Arena) -> Answer:
    """A production policy whose relying party has left out every check but this one."""
    stale = Order(this_update=AT - 9 * DAY, next_update=AT - 8 * DAY)
    return _unexcused(arena, lambda maker, chain: maker.responses(chain, stale, stale, stale))


def case_019_no_response_at_all(arena: Arena) -> Answer:
    return _unexcused(arena, lambda _maker, _chain: ())


def case_020_responder_does_not_know(arena: Arena) -> Answer:
    return _unexcused(arena, lambda maker, chain: maker.responses(chain, Order(status="unknown")))


def case_021_good_by_a_stranger(arena: Arena) -> Answer:
    """Good, fresh and well-signed, by somebody whom the issuer has not named."""
    stranger = RevocableVendor.create()
    order = Order(signer=Issuer(stranger.provisioner.certificate, stranger.provisioner.key))
    return _unexcused(arena, lambda maker, chain: maker.responses(chain, order, order, order))


def _unexcused(arena: Arena, said: Callable[[RevocableVendor, tuple[bytes, ...]], tuple[bytes, ...]]) -> Answer:
    """A window under the production policy that leaves revocation to the evidence; ``said`` is about every device."""
    maker = RevocableVendor.create()
    gpus = EmulatedGpus(maker.vendor, [EmulatedH100.make(maker.vendor) for _ in range(2)])

    def reference(made: Reference) -> Reference:
        return without(made, "gpu_revocation")

    world = arena.world(**genuine(gpus=gpus, reference=reference))
    chains = [item.chain for item in gpus.attest(bytes(31) + b"\x01")]
    world.publish(*_answers(*(response for chain in chains for response in said(maker, chain))))
    return _window(world)


def case_022_everything_good(arena: Arena) -> Answer:
    """Responses about both devices, by their issuers, now: what the others lack."""
    return _unexcused(arena, lambda maker, chain: maker.responses(chain))


def case_023_host_says_off(arena: Arena) -> Answer:
    world = _published(arena)
    world.host.gpus.cc = CcState(environment=ENVIRONMENT_PRODUCTION, feature="off", dev_tools=False, multi_gpu="none")
    return _window(world)


def case_024_host_says_development_mode(arena: Arena) -> Answer:
    world = arena.world(**genuine())
    world.host.gpus.cc = CcState(environment=ENVIRONMENT_PRODUCTION, feature="on", dev_tools=True, multi_gpu="none")
    return _window(world)


def case_025_host_says_on(arena: Arena) -> Answer:
    """And the measurements are wrong: its word admits nothing."""
    world = _published(arena)
    world.host.gpus.cc = CcState(environment=ENVIRONMENT_PRODUCTION, feature="on", dev_tools=False, multi_gpu="none")
    return _misreported(world)


def _misreported(world: World) -> Answer:
    """A window in which the second device reports one measurement that its maker does not know, signed."""
    world.open_session()
    world.clock.advance(1)
    nonces: list[bytes] = []

    def remember(window: bytes) -> bytes:
        nonces.append(binding.gpu_nonce(window))
        return nonces[-1]

    def reports(made: Reports) -> Reports:
        assert made is not None
        misreport = Misreport(measurements={_OF_DRIVER: rims.ZERO})
        return [made[0], world.host.gpus.devices[1].attest(nonces[-1], forgery=misreport)]

    return world.deliver(seal(world.host, Forgery(gpu_nonce=remember, reports=reports)))


def _fabric(arena: Arena, *, sent: Callable[[list[GpuEvidence]], list[GpuEvidence]] = list) -> World:
    """A host of two GPUs in protected-PCIe mode and the switch between them, as its verifier demands."""
    fabric = EmulatedFabric.create(gpus=2, switches=1)

    def reference(made: Reference) -> Reference:
        accepted: dict[str, tuple[str, ...]] = {}
        for item in fabric.attest(bytes(31) + b"\x01"):
            report = spdm.parse(item.report)
            chip = "GH100" if report.driver_version else "LS_10"
            digest = report.measurements_digest.hex()
            accepted[f"{chip}/{report.driver_version}/{report.vbios_version}"] = (digest,)
        return replace(made, gpu_measurements=accepted)

    world = arena.world(wanted=requirements(switches=1), reference=reference)
    world.host.gpus = _Sending(fabric, sent)  # type: ignore[assignment]  # a source of another kind
    roots = [load_certificate(vendor.root_certificate, what="root") for vendor in fabric.vendors]
    world.publish(
        believing=[
            Anchor.from_certificate("nvidia-device-root", root, platform=EMULATED, source="a test") for root in roots
        ]
    )
    return world


class _Sending:
    """The fabric's source, of whose reports ``sent`` are sent."""

    def __init__(self, fabric: EmulatedFabric, sent: Callable[[list[GpuEvidence]], list[GpuEvidence]]) -> None:
        self.fabric, self.sent = fabric, sent

    def attest(self, nonce: bytes) -> list[GpuEvidence]:
        return self.sent(self.fabric.attest(nonce))

    def cc_state(self) -> CcState:
        return self.fabric.cc_state()


def case_026_protected_pcie_with_its_switch(arena: Arena) -> Answer:
    return _window(_fabric(arena))


def case_027_switch_left_out(arena: Arena) -> Opened:
    """Both GPUs are there and as they should be; what carries their traffic in plain is not."""
    return arena.enrol(_fabric(arena, sent=lambda made: made[:-1]))


def case_028_gpu_left_out(arena: Arena) -> Opened:
    """The switch names a GPU that nobody shows."""
    return arena.enrol(_fabric(arena, sent=lambda made: made[1:]))


def case_029_switch_twice(arena: Arena) -> Opened:
    return arena.enrol(_fabric(arena, sent=lambda made: [*made, made[-1]]))


def case_030_nothing_but_switches(arena: Arena) -> Opened:
    return arena.enrol(_fabric(arena, sent=lambda made: made[-1:]))


def _signers(arena: Arena, *orders: Order | None) -> Answer:
    """As :func:`_unexcused`, with good responses about the devices, judged by manifests of whose signers as ordered."""
    maker = RevocableVendor.create()
    gpus = EmulatedGpus(maker.vendor, [EmulatedH100.make(maker.vendor) for _ in range(2)])

    def reference(made: Reference) -> Reference:
        return without(_by_makers_word(made), "gpu_revocation")

    world = arena.world(**genuine(gpus=gpus, reference=reference))
    said = [response for item in gpus.attest(bytes(31) + b"\x01") for response in maker.responses(item.chain)]
    files = gpus.rims()
    about = [response for rim in files for response in (maker.rim_responses(rim, *orders) if orders else ())]
    world.publish(*_items(*files), *_answers(*said, *about), believing=[_rim_anchor(gpus, "nvidia")])
    return _window(world)


def case_031_nobody_says_anything_of_the_manifests_signer(arena: Arena) -> Answer:
    """The devices are good; whether those are who say what they should measure was left out."""
    return _signers(arena)


def case_032_responder_does_not_know_the_manifests_signer(arena: Arena) -> Answer:
    return _signers(arena, Order(status="unknown"))


def case_033_manifests_signer_good_too(arena: Arena) -> Answer:
    """What the last two lack."""
    return _signers(arena, Order())


class _Unlocked(_Sending):
    """The fabric's source, whose switch says, signed, that it is not locked."""

    def attest(self, nonce: bytes) -> list[GpuEvidence]:
        unlocked = Misreport(opaque={OpaqueType.LOCK_SWITCH_STATUS: bytes(2)})
        return [*self.fabric.attest(nonce)[:-1], self.fabric.switches[0].attest(nonce, forgery=unlocked)]


def case_034_switch_not_locked(arena: Arena) -> Answer:
    """Its host could have it send elsewhere what GPUs send through it in plain."""
    world = _fabric(arena)
    world.host.gpus = _Unlocked(world.host.gpus.fabric, list)  # type: ignore[attr-defined, assignment]  # as in _fabric
    return _window(world)


class _Rootless:
    """The source of a host that leaves the root's certificate out of what it sends."""

    def __init__(self, gpus: EmulatedGpus) -> None:
        self.gpus = gpus

    def attest(self, nonce: bytes) -> list[GpuEvidence]:
        return [replace(item, chain=item.chain[:-1]) for item in self.gpus.attest(nonce)]

    def cc_state(self) -> CcState | None:
        return self.gpus.cc_state()


def case_035_root_left_out_to_hide_what_it_revoked(arena: Arena) -> Answer:
    """The root has revoked the authority below it; who sends the chain leaves out whose word that is."""
    return _revocable(arena, (None, None, Order(status="revoked")), root=False)
