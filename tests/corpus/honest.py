"""What must be accepted: the ways of an honest host, its restarts and its losses included."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from corpus.arena import ak_of
from support.forge import claim, seal
from support.world import EMULATED, requirements
from weighbridge.proto.measurement_log import AttesterStart
from weighbridge.proto.window import Evidence
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.clearing import clear
from weighbridge.verifier.steps import subjects_of

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World
    from weighbridge.verifier.core import Answer, Opened


def case_001_first_window(arena: Arena) -> Answer:
    return arena.settled(0).window()


def case_002_eighth_window(arena: Arena) -> Answer:
    return arena.settled(7).window()


def case_003_report_not_due(arena: Arena) -> Answer:
    world = arena.settled(1, wanted=requirements(gpu_every=3))
    sealed = world.host.seal()
    assert Evidence.parse(sealed.evidence).gpus is None
    world.clock.advance(1)
    return world.deliver(sealed)


def case_004_no_work(arena: Arena) -> Answer:
    world = arena.settled(1)
    return world.window(replace(world.host.observe(), work=WorkSummary.empty()))


def case_005_fresh_after_held(arena: Arena) -> Answer:
    world = arena.settled(1)
    late = world.host.seal()
    world.clock.advance(30)
    assert world.deliver(late).verdict.outcome == "held"
    world.host.wall_ns += 29_000_000_000
    return world.window()


def case_006_verifier_restarted(arena: Arena) -> Answer:
    world = arena.settled(3)
    world.restart()
    return world.window()


def case_007_stream_resumed(arena: Arena) -> Answer:
    world = arena.settled(2)
    world.clock.advance(600)
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    assert resumed.next_seq == world.host.seq
    world.host.challenge = resumed.challenge
    return world.window()


def case_008_attester_restarted(arena: Arena) -> Answer:
    """A new session whose first window continues the chain of the AK."""
    world = arena.settled(2)
    head = world.host.prev
    world.host.log.append(AttesterStart("0.1.0", bytes(16)))
    world.open_session()
    assert world.host.prev == head
    return world.window()


def case_009_host_rebooted(arena: Arena) -> Answer:
    world = arena.settled(2)
    host = world.host
    host.tpm.reset()
    host.tpm.safe = True
    host.log.entries.clear()
    world.open_session()
    return world.window()


def case_010_pinned_attestation_key(arena: Arena) -> Answer:
    world = arena.world()
    spki = ak_of(world.host).spki()
    pin = Anchor(
        purpose="attestation-key",
        name="host 1",
        platform=EMULATED,
        spki=spki,
        not_before=world.anchors.anchors[0].not_before,
        not_after=world.anchors.anchors[0].not_after,
        source="a test",
    )
    gpu_roots = world.anchors.select("nvidia-device-root")
    world.anchors = TrustAnchors((*gpu_roots, pin))
    world.restart()
    world.host.pinned = True
    return _first(world)


def case_011_two_hosts_at_once(arena: Arena) -> Answer:
    world = arena.settled(1)
    other = arena.another_host(world)
    world.open_session(other)
    sealed = other.seal()
    assert world.window().verdict.opens
    return world.deliver(sealed, host=other)


def case_012_enrolled(arena: Arena) -> Opened:
    return arena.enrol(arena.world())


def case_013_window_after_a_cleared_failure(arena: Arena) -> Answer:
    """An operator has found out why, and says so; the failure stays on record."""
    world = arena.settled(1)
    assert world.host.terms is not None
    terms = world.host.terms.terms
    assert arena.submit(world, seal(world.host, claim(prev=bytes(32)))).verdict.outcome == "denied"
    for kind, identity in subjects_of(terms):
        clear(world.archive, world.store, kind, identity, reason="found and mended", at=world.clock.at)
    world.open_session()
    return world.window()


def _first(world: World) -> Answer:
    world.open_session()
    return world.window()
