"""Row A79: kinds of evidence that are dropped, added, or demanded by other terms."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.forge import Forgery, claim, random_bytes, seal
from support.world import requirements
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.proto import binding
from weighbridge.proto.terms import SignedTerms

if TYPE_CHECKING:
    from corpus.arena import Arena
    from weighbridge.verifier.core import Answer, Opened


def case_001_reports_left_out(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, Forgery(reports=lambda _: None)))


def case_002_list_of_reports_empty(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, Forgery(reports=lambda _: [])))


def case_003_reports_not_due(arena: Arena) -> Answer:
    world = arena.settled(1, wanted=requirements(gpu_every=2))
    reports = world.host.gpus.attest(random_bytes("a nonce"))
    return arena.submit(world, seal(world.host, Forgery(reports=lambda _: reports)))


def case_004_report_due_every_second_window_only(arena: Arena) -> Answer:
    """The third window owes a report again."""
    world = arena.settled(2, wanted=requirements(gpu_every=2))
    return arena.submit(world, seal(world.host, Forgery(reports=lambda _: None)))


def case_005_other_terms(arena: Arena) -> Answer:
    """The header names terms of the attester's own making, that demand a report every thousandth window."""
    world = arena.settled()
    assert world.host.terms is not None
    lenient = replace(world.host.terms.terms, gpu_every=1000)
    return arena.submit(world, seal(world.host, claim(terms=binding.terms_digest(lenient.encode()))))


def case_006_terms_of_an_earlier_session(arena: Arena) -> Answer:
    world = arena.settled()
    assert world.host.terms is not None
    earlier = world.host.terms.digest
    world.open_session()
    return arena.submit(world, seal(world.host, claim(terms=earlier)))


def case_007_other_model(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(model=random_bytes("another manifest"))))


def case_008_terms_edited(arena: Arena) -> None:
    """The attester's side: terms are taken only as the verifier has signed them."""
    world = arena.settled(0)
    assert world.host.terms is not None
    raw = bytearray(world.host.terms.raw)
    raw[-80] ^= 1
    SignedTerms.open(bytes(raw), world.keys.signing.public_key())


def case_009_one_gpu_too_few_at_enrolment(arena: Arena) -> Opened:
    world = arena.world()
    gpus = world.host.gpus
    world.host.gpus = EmulatedGpus(gpus.vendor, gpus.devices[:1])
    return arena.enrol(world)


def case_010_one_gpu_too_many_at_enrolment(arena: Arena) -> Opened:
    world = arena.world()
    gpus = world.host.gpus
    third = arena.another_host(world).gpus.devices[0]
    world.host.gpus = EmulatedGpus(gpus.vendor, [*gpus.devices, third])
    return arena.enrol(world)


def case_011_no_gpu_at_enrolment(arena: Arena) -> Opened:
    return arena.enrol(arena.world(), edit=lambda proof: replace(proof, gpus=b"\x80"))


def case_012_window_without_telemetry_demanded(arena: Arena) -> None:
    """A verifier cannot even ask for less than makes a window."""
    del arena
    requirements(evidence=["gpu", "tpm", "workload"])


def case_013_boot_registers_not_demanded(arena: Arena) -> None:
    del arena
    requirements(boot_pcrs=[])


def case_014_log_in_a_register_that_anybody_resets(arena: Arena) -> None:
    del arena
    requirements(log_pcr=16, pcrs=[0, 1, 2, 3, 4, 5, 6, 7, 16])


def case_015_session_without_gpus(arena: Arena) -> Opened:
    """Requirements may leave GPUs out; a list of no devices still proves nothing."""
    world = arena.world(wanted=requirements(evidence=["telemetry", "tpm", "workload"], gpus=0))
    return arena.enrol(world, edit=lambda proof: replace(proof, gpus=b"\x80"))
