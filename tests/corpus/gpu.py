"""Rows A08 to A17, A24 to A28 and A67 as far as windows go: which devices answer, each once, whatever their order; what
kind they are, whose chain they show and until when, and what of a report is signed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from fakes.soft_tpm import SoftTpm
from support.forge import Forgery, seal
from support.world import EMULATED, NOON, gpu_anchor, requirements
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.gpu.emulated import Forgery as Misreport
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor, Silicon
from weighbridge.proto import binding
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.proto.window import Evidence
from weighbridge.verifier.anchors import TrustAnchors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corpus.arena import Arena
    from support.forge import Reports
    from support.world import World
    from weighbridge.verifier.anchors import Anchor
    from weighbridge.verifier.core import Answer, Opened

# The order of P-384.
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


def _reporting(arena: Arena, change: Callable[[list[GpuEvidence]], list[GpuEvidence]]) -> Answer:
    world = arena.settled()

    def reports(made: Reports) -> Reports:
        assert made is not None
        return change(made)

    return arena.submit(world, seal(world.host, Forgery(reports=reports)))


def case_001_exchanged(arena: Arena) -> Answer:
    """Another genuine device of the same vendor answers in one's place; everything is signed over it."""
    world = arena.settled()
    gpus = world.host.gpus
    world.host.gpus = EmulatedGpus(gpus.vendor, [gpus.devices[0], EmulatedH100.make(gpus.vendor)])
    return arena.submit(world, seal(world.host))


def case_002_of_another_host(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.gpus = arena.another_host(world).gpus
    return arena.submit(world, seal(world.host))


def case_003_one_missing(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: made[:1])


def case_004_one_twice(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [made[0], made[0]])


def case_005_one_twice_beside_the_other(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [*made, made[0]])


def case_006_one_more(arena: Arena) -> Answer:
    world = arena.settled()
    gpus = world.host.gpus
    world.host.gpus = EmulatedGpus(gpus.vendor, [*gpus.devices, EmulatedH100.make(gpus.vendor)])
    return arena.submit(world, seal(world.host))


def case_007_in_another_order(arena: Arena) -> Answer:
    world = arena.settled()

    def reversed_(made: Reports) -> Reports:
        assert made is not None
        return made[::-1]

    world.clock.advance(1)
    return world.deliver(seal(world.host, Forgery(reports=reversed_)))


def case_008_under_the_others_chain(arena: Arena) -> Answer:
    def crossed(made: list[GpuEvidence]) -> list[GpuEvidence]:
        first, second = made
        return [GpuEvidence(first.report, second.chain), GpuEvidence(second.report, first.chain)]

    return _reporting(arena, crossed)


def case_009_of_another_vendor(arena: Arena) -> Answer:
    """A whole hierarchy of somebody's own: every signature verifies, the root is nobody's."""
    world = arena.settled()
    world.host.gpus = EmulatedGpus.create(2)
    return arena.submit(world, seal(world.host))


def case_010_of_another_vendor_at_enrolment(arena: Arena) -> Opened:
    world = arena.world()
    world.host.gpus = EmulatedGpus.create(2)
    return arena.enrol(world)


def case_011_other_measurements(arena: Arena) -> Answer:
    """A device whose firmware reports what no reference value accepts."""
    return _misreporting(arena, Misreport(measurements={3: bytes(48)}))


def _misreporting(arena: Arena, misreport: Misreport) -> Answer:
    """The second device is made to do wrong, over the window's own nonce."""
    return _signing(arena, lambda world, nonce: world.host.gpus.devices[1].attest(nonce, forgery=misreport))


def _signing(
    arena: Arena, second: Callable[[World, bytes], GpuEvidence], *, extra_anchors: Sequence[Anchor] = ()
) -> Answer:
    """The first device as it is; in the second's place what ``second`` makes of the window's nonce."""
    return answered(arena, arena.settled(extra_anchors=list(extra_anchors)), second)


def answered(arena: Arena, world: World, second: Callable[[World, bytes], GpuEvidence]) -> Answer:
    """The next window, with what ``second`` makes of its nonce in the second device's place."""
    nonces: list[bytes] = []

    def remember(window: bytes) -> bytes:
        nonces.append(binding.gpu_nonce(window))
        return nonces[-1]

    def reports(made: Reports) -> Reports:
        assert made is not None
        return [made[0], second(world, nonces[-1])]

    return arena.submit(world, seal(world.host, Forgery(gpu_nonce=remember, reports=reports)))


def case_012_bytes_behind_the_report(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [GpuEvidence(made[0].report + b"\0", made[0].chain), made[1]])


def case_013_chain_without_its_provisioner(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [GpuEvidence(made[0].report, made[0].chain[:2]), made[1]])


def case_014_switch_shown_as_a_gpu(arena: Arena) -> Answer:
    """A genuine switch in a GPU's place, under a root that is believed."""
    fabric = EmulatedFabric.create(gpus=1, switches=1)
    return _signing(
        arena, lambda _, nonce: fabric.switches[0].attest(nonce), extra_anchors=[_believed(fabric.vendors[1])]
    )


def case_015_switch_shown_as_a_gpu_at_enrolment(arena: Arena) -> Opened:
    """Its report is made up as a GPU's; its certificates say what it is."""
    vendor = EmulatedVendor.create(architecture="LS_10")
    switch = EmulatedH100.make(vendor, silicon=Silicon(architecture="LS_10", processor="FSP"))
    world = arena.world(extra_anchors=[_believed(vendor)])
    gpus = world.host.gpus
    world.host.gpus = EmulatedGpus(gpus.vendor, [gpus.devices[0], switch])
    return arena.enrol(world)


def case_016_another_generation(arena: Arena) -> Answer:
    """A genuine GB100 in the place of a GH100."""
    vendor = EmulatedVendor.create(architecture="GB100")
    device = EmulatedH100.make(vendor, silicon=Silicon(architecture="GB100"))
    return _signing(arena, lambda _, nonce: device.attest(nonce), extra_anchors=[_believed(vendor)])


def case_017_report_of_another_generation(arena: Arena) -> Answer:
    """The enrolled device's own report says that it is a GB100; its certificates say GH100."""
    return _misreporting(arena, Misreport(opaque={OpaqueType.GPU_INFO: (0x1A0).to_bytes(8, "little")}))


def case_018_measurement_flipped(arena: Arena) -> Answer:
    return _misreporting(arena, Misreport(flip=(200,)))


def case_019_signature_flipped(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [GpuEvidence(_flipped(made[0].report, -1), made[0].chain), made[1]])


def case_020_malleated_signature(arena: Arena) -> Answer:
    """``(r, n - s)`` verifies as ``(r, s)`` does: the same evidence in another sending, sealed as such."""
    world = arena.settled()

    def reports(made: Reports) -> Reports:
        assert made is not None
        return [GpuEvidence(_malleated(made[0].report), made[0].chain), made[1]]

    world.clock.advance(1)
    return world.deliver(seal(world.host, Forgery(reports=reports)))


def case_021_malleated_report_of_the_last_window(arena: Arena) -> Answer:
    """Bytes that nobody has sent before, of a report that was: the nonce in what is signed is the last window's."""
    world = arena.settled()
    last = gpu_evidence.parse(Evidence.parse(world.sent).gpus or b"")

    def reports(_: Reports) -> Reports:
        return [GpuEvidence(_malleated(item.report), item.chain) for item in last]

    return arena.submit(world, seal(world.host, Forgery(reports=reports)))


def case_022_report_cut_short(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [GpuEvidence(made[0].report[:-1], made[0].chain), made[1]])


def case_023_chain_of_the_root_alone(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [GpuEvidence(made[0].report, made[0].chain[-1:] * 3), made[1]])


def case_024_chain_without_its_leaf(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [GpuEvidence(made[0].report, made[0].chain[1:]), made[1]])


def case_025_chain_with_a_link_left_out(arena: Arena) -> Answer:
    return _reporting(
        arena, lambda made: [GpuEvidence(made[0].report, (*made[0].chain[:2], *made[0].chain[3:])), made[1]]
    )


def case_026_firmware_that_is_not_the_certificates(arena: Arena) -> Answer:
    return _misreporting(arena, Misreport(opaque={OpaqueType.FWID: bytes(48)}))


def case_027_protected_pcie_without_its_switches(arena: Arena) -> Answer:
    """Both GPUs say, signed, that NVLink traffic is left to switches; no switch attests."""
    world = arena.settled()
    gpus = world.host.gpus
    wired = [replace(device, switches=(bytes(range(8)),)) for device in gpus.devices]
    world.host.gpus = EmulatedGpus(gpus.vendor, wired)
    return arena.submit(world, seal(world.host))


def case_028_modes_that_contradict_each_other(arena: Arena) -> Answer:
    return _misreporting(arena, Misreport(opaque={OpaqueType.FEATURE_FLAG: b"\2\0"}))


# -- A67: what vouches for the GPUs ends while a session runs ----------------------------------------------------------


def _ending(arena: Arena, windows: int, *, gpu_every: int = 1) -> World:
    """A session that has seen ``windows`` windows, by anchors whose root of GPUs ends with the third one's second."""
    tpm, gpus = SoftTpm(), EmulatedGpus.create(2)
    ends = replace(gpu_anchor(gpus), not_after=NOON + timedelta(seconds=3))
    anchors = TrustAnchors((*tpm.authority.anchors(EMULATED).anchors, ends))
    return arena.settled(windows, tpm=tpm, gpus=gpus, anchors=anchors, wanted=requirements(gpu_every=gpu_every))


def case_029_root_ends_in_mid_session(arena: Arena) -> Answer:
    """Makers' certificates of devices have no end; what ends is how long a verifier was told to believe their root."""
    return _ending(arena, 3).window()


def case_030_root_in_its_last_second(arena: Arena) -> Answer:
    """The same session, one window before."""
    return _ending(arena, 2).window()


def case_031_root_ends_between_reports(arena: Arena) -> Answer:
    """A window without reports rests on the latest ones: what vouched for these has to last as well."""
    return _ending(arena, 3, gpu_every=2).window()


def _believed(vendor: EmulatedVendor) -> Anchor:
    return gpu_anchor(EmulatedGpus(vendor, [EmulatedH100.make(vendor)]))


def _flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def _malleated(report: bytes) -> bytes:
    half = spdm.SIGNATURE_SIZE // 2
    return report[:-half] + (_ORDER - int.from_bytes(report[-half:])).to_bytes(half)
