"""Rows A69, A72 and A76 to A78: windows made ahead, failures that are walked away from, junk thrown at a victim."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from support.forge import claim, random_bytes, seal
from support.world import manifest
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.verifier.store import Store

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.verifier.core import Answer, Opened


def _minted(world: World, count: int) -> list[SealedWindow]:
    """Windows sealed one after the other under the challenge that the host has."""
    made: list[SealedWindow] = []
    for _ in range(count):
        made.append(world.host.seal())
        world.host.advance(made[-1])
        world.clock.advance(1)
    return made


def _failed(arena: Arena) -> World:
    """A session that failed: somebody loaded a second model."""
    world = arena.settled(1)
    world.host.log.load(manifest("another", weights=b"other weights"))
    answer = world.window()
    assert answer.verdict.outcome == "denied"
    return world


# -- A76 ---------------------------------------------------------------------------------------------------------------


def case_001_minted_ahead(arena: Arena) -> Answer:
    """Good windows, sealed while the line was cut, delivered when it was back."""
    world = arena.settled(1)
    first, second = _minted(world, 2)
    arena.submit(world, first, after=0)
    answer = arena.submit(world, second, after=0)
    assert answer.challenge is not None
    world.host.challenge = answer.challenge
    return answer


def case_002_late(arena: Arena) -> Answer:
    world = arena.settled(1)
    sealed = world.host.seal()
    world.clock.advance(1.5)
    world.clock.advance(1)
    return world.deliver(sealed)


def case_003_just_in_time(arena: Arena) -> Answer:
    world = arena.settled(1)
    sealed = world.host.seal()
    world.clock.advance(2)
    return world.deliver(sealed)


def case_004_minted_ahead_then_another_model(arena: Arena) -> Answer:
    """The windows made ahead open nothing, and the first fresh one tells of the load."""
    world = arena.settled(1)
    made = _minted(world, 3)
    world.host.log.load(manifest("another", weights=b"other weights"))
    for sealed in made:
        answer = arena.submit(world, sealed, after=0)
        assert (answer.verdict.outcome, answer.token) == ("held", None)
        assert answer.challenge is not None
        world.host.challenge = answer.challenge
    return arena.submit(world, world.host.seal())


def case_005_minted_ahead_with_another_model(arena: Arena) -> Answer:
    """A held window is judged like any other: what it shows fails the session."""
    world = arena.settled(1)
    world.host.seal()
    world.clock.advance(10)
    world.host.log.load(manifest("another", weights=b"other weights"))
    return arena.submit(world, world.host.seal(), after=0)


# -- A78 ---------------------------------------------------------------------------------------------------------------


def case_006_new_session_after_a_failure(arena: Arena) -> Opened:
    world = _failed(arena)
    # Rebooted, and nothing wrong with it any more.
    world.host.tpm.reset()
    world.host.tpm.safe = True
    world.host.log.entries.clear()
    return arena.enrol(world)


def case_007_gpus_moved_to_another_host(arena: Arena) -> Opened:
    world = _failed(arena)
    return arena.enrol(world, arena.another_host(world, gpus=world.host.gpus))


def case_008_tpm_with_other_gpus(arena: Arena) -> Opened:
    world = _failed(arena)
    other = arena.another_host(world)
    world.host.gpus = other.gpus
    world.host.tpm.reset()
    world.host.log.entries.clear()
    return arena.enrol(world)


def case_009_one_gpu_of_two_moved(arena: Arena) -> Opened:
    world = _failed(arena)
    other = arena.another_host(world)
    gpus = EmulatedGpus(world.host.gpus.vendor, [world.host.gpus.devices[0], other.gpus.devices[0]])
    return arena.enrol(world, arena.another_host(world, "a third", gpus=gpus))


def case_010_after_the_verifier_restarted(arena: Arena) -> Opened:
    world = _failed(arena)
    world.restart()
    return arena.enrol(world, arena.another_host(world, gpus=world.host.gpus))


def case_011_window_after_a_failure(arena: Arena) -> Answer:
    world = _failed(arena)
    return arena.submit(world, world.host.seal())


def case_012_resumed_after_a_failure(arena: Arena) -> None:
    world = _failed(arena)
    arena.forget()
    world.verifier.resume(world.host.session, peer=world.host.peer)


def case_013_window_after_a_failure_and_a_restart(arena: Arena) -> Answer:
    world = _failed(arena)
    world.restart()
    return arena.submit(world, world.host.seal())


def case_014_junk_latches_nothing(arena: Arena) -> Answer:
    """Anybody can send bytes in a victim's name: they are counted, and the victim's window is affirmed."""
    world = arena.settled(1)
    honest, stranger = world.host.seal(), random_bytes("a stranger's channel")
    unsigned = claim(challenge=random_bytes("of my own"))
    forged = seal(world.host, replace(unsigned, signer=lambda _: bytes(31) + b"\x01" + bytes(31) + b"\x01"))
    failing = seal(world.host, claim(prev=bytes(32)))
    ours = [b"", honest.evidence[:-1], forged.evidence]
    for junk, peer in (*((junk, world.host.peer) for junk in ours), (failing.evidence, stranger)):
        try:
            arena.submit(world, junk, peer=peer, after=0)
        except WeighbridgeError:
            continue
        raise AssertionError("junk was judged")
    world.clock.advance(1)
    return world.deliver(honest)


def case_015_replayed_junk_latches_nothing(arena: Arena) -> Answer:
    """Genuine windows of the victim, copied and sent over another channel, or sent again."""
    world = arena.settled(1)
    before = world.host.seal()
    world.clock.advance(1)
    world.deliver(before)
    for peer in (random_bytes("a stranger's channel"), world.host.peer):
        try:
            arena.submit(world, before, peer=peer, after=0)
        except WeighbridgeError:
            continue
        raise AssertionError("a copy was judged")
    return world.window()


def case_016_window_after_closing(arena: Arena) -> Answer:
    world = arena.settled(1)
    world.verifier.close(world.host.session, peer=world.host.peer)
    return arena.submit(world, seal(world.host))


def case_017_window_of_an_interrupted_session(arena: Arena) -> Answer:
    """The attester has enrolled anew: by its own word the old session is over."""
    world = arena.settled(1)
    old, late = world.host.session, world.host.seal()
    world.open_session()
    world.clock.advance(1)
    world.sent = late.evidence
    return world.verifier.window(old, late.evidence, peer=world.host.peer)


def case_018_closed_by_another(arena: Arena) -> None:
    world = arena.settled(1)
    arena.forget()
    world.verifier.close(world.host.session, peer=random_bytes("a stranger's channel"))


def case_019_enrolment_that_failed_sticks(arena: Arena) -> Opened:
    """Refused at enrolment for an undeclared model; rebooted and asked again."""
    world = arena.world()
    world.host.log.load(manifest("another", weights=b"other weights"))
    try:
        arena.enrol(world)
    except WeighbridgeError:
        world.host.tpm.reset()
        world.host.log.entries.clear()
    return arena.enrol(world)


# -- A69: the verifier's own clock -------------------------------------------------------------------------------------


def case_020_verifiers_clock_set_back(arena: Arena) -> Answer:
    """Of what the host signs, its interval lies ahead of the time at which it was received."""
    world = arena.settled(2)
    world.clock.advance(-10)
    return arena.submit(world, world.host.seal(), after=0)


def case_021_verifiers_clock_set_ahead(arena: Arena) -> Answer:
    """By this clock the challenge is an hour old: whoever answers it may be who held it back."""
    world = arena.settled(2)
    return arena.submit(world, world.host.seal(), after=3600)


# -- A72: what the verifier remembers ----------------------------------------------------------------------------------


def case_022_database_put_back_to_before_a_failure(arena: Arena) -> Opened:
    """The operator restores a backup of the store; the ledger goes on, and what is in it is settled again."""
    world = arena.settled(1)
    database = world.directory / "sessions.sqlite"
    world.store.close()
    backup = shutil.copy(database, world.directory / "backup")
    world.store = Store.create_or_open(database)
    world.restart()
    world.host.log.load(manifest("another", weights=b"other weights"))
    assert world.window().verdict.outcome == "denied"
    world.store.close()
    shutil.move(backup, database)
    world.store = Store.create_or_open(database)
    world.restart()
    world.host.tpm.reset()
    world.host.tpm.safe = True
    world.host.log.entries.clear()
    return arena.enrol(world)
