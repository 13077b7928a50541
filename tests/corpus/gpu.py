"""Rows A08 to A14 as far as windows go: which devices answer, each once, whatever their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.forge import Forgery, seal
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.gpu.emulated import Forgery as Misreport
from weighbridge.proto import binding
from weighbridge.proto.spdm.evidence import GpuEvidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.arena import Arena
    from support.forge import Reports
    from weighbridge.verifier.core import Answer, Opened


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
    world = arena.settled()
    first, second = world.host.gpus.devices

    def altered(nonce: Callable[[], bytes]) -> Callable[[Reports], Reports]:
        def reports(_: Reports) -> Reports:
            return [first.attest(nonce()), second.attest(nonce(), forgery=Misreport(measurements={3: bytes(48)}))]

        return reports

    digests: list[bytes] = []

    def remember(window: bytes) -> bytes:
        digests.append(binding.gpu_nonce(window))
        return digests[-1]

    forgery = Forgery(gpu_nonce=remember, reports=altered(lambda: digests[-1]))
    return arena.submit(world, seal(world.host, forgery))


def case_012_bytes_behind_the_report(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [GpuEvidence(made[0].report + b"\0", made[0].chain), made[1]])


def case_013_chain_without_its_provisioner(arena: Arena) -> Answer:
    return _reporting(arena, lambda made: [GpuEvidence(made[0].report, made[0].chain[:2]), made[1]])
