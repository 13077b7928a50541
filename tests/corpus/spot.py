"""Row A80: whoever has stored digests, earlier answers or other bytes, but not the declared ones now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corpus.bundle import Exported, export
from support.forge import claim, seal
from support.spots import spotted
from weighbridge.proto.spot import SpotAnswer, SpotChallenge

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World
    from weighbridge.verifier.bundle import BundleVerdict
    from weighbridge.verifier.core import Answer


def _answering(arena: Arena, world: World, answer: SpotAnswer | None, *, after: float = 1) -> Answer:
    return arena.submit(world, seal(world.host, claim(spot=answer)), after=after)


def _asked(world: World) -> SpotChallenge:
    assert world.host.spot is not None
    return SpotChallenge.parse(world.host.spot)


def _exchange(world: World) -> None:
    """Other weights under the name of those that were measured."""
    assert world.host.directory is not None
    (world.host.directory / "model.safetensors").write_bytes(b"headerWEIGHTS")


def case_001_answered(arena: Arena) -> Answer:
    return spotted(arena, 2).window()


def case_002_answered_from_stored_digests(arena: Arena) -> Answer:
    """Everything that the manifest says of the ranges is at hand, to the last leaf; the bytes are not."""
    world = spotted(arena, 2)
    asked = _asked(world)
    digests = b"".join(part.digest for file in world.host.model.files for part in file.parts or ())
    pieces = [(digests * part.length)[: part.length] for part in asked.ranges]
    return _answering(arena, world, asked.answer(pieces))


def case_003_bytes_exchanged_after_measuring(arena: Arena) -> Answer:
    world = spotted(arena, 2)
    _exchange(world)
    return arena.submit(world, world.host.seal())


def case_004_not_answered(arena: Arena) -> Answer:
    return _answering(arena, spotted(arena, 2), None)


def case_005_answered_a_window_late(arena: Arena) -> Answer:
    """The check of window 2 went to a line that was cut; fetched meanwhile, its answer comes in window 3."""
    world = spotted(arena, 2)
    late = world.host.answer()
    world.clock.advance(0.6)
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    world.host.challenge, world.host.spot = resumed.challenge, resumed.spot
    assert world.window().verdict.opens
    return _answering(arena, world, late)


def case_006_earlier_answer(arena: Arena) -> Answer:
    world = spotted(arena, 0)
    first = world.host.answer()
    for _ in range(2):
        assert world.window().verdict.opens
    return _answering(arena, world, first)


def case_007_answer_to_another_hosts_challenge(arena: Arena) -> Answer:
    world = spotted(arena, 2)
    other = arena.another_host(world)
    other.directory = world.host.directory
    world.open_session(other)
    return _answering(arena, world, other.answer())


def case_008_answered_under_an_earlier_challenge(arena: Arena) -> Answer:
    """Sealed before the answer to the window before came: held, and the check is not its own."""
    world = spotted(arena, 2)
    answer = world.host.answer()
    first = world.host.seal()
    world.host.advance(first)
    second = seal(world.host, claim(spot=answer))
    assert arena.submit(world, first, after=2).verdict.opens
    return arena.submit(world, second, after=0)


def case_009_answered_and_held(arena: Arena) -> Answer:
    world = spotted(arena, 2)
    late = world.host.seal()
    world.clock.advance(10)
    answer = world.deliver(late)
    world.host.wall_ns += 9_000_000_000
    return answer


def case_010_not_answered_and_held(arena: Arena) -> Answer:
    return _answering(arena, spotted(arena, 2), None, after=10)


def case_011_none_left(arena: Arena) -> Answer:
    return spotted(arena, 2, count=1).window()


def case_012_answered_after_the_verifier_restarted(arena: Arena) -> Answer:
    world = spotted(arena, 2)
    world.restart()
    return world.window()


def case_013_answers_what_was_asked_before_the_line_was_cut(arena: Arena) -> Answer:
    world = spotted(arena, 2)
    before = world.host.answer()
    world.clock.advance(0.6)
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    world.host.challenge, world.host.spot = resumed.challenge, resumed.spot
    return _answering(arena, world, before)


def case_014_answers_and_nothing_was_asked(arena: Arena) -> Answer:
    world = arena.settled()
    return _answering(arena, world, SpotAnswer(bytes(16), bytes(32)))


def case_015_bundle_of_checks_that_passed(arena: Arena) -> BundleVerdict:
    world = spotted(arena, 3)
    arena.forget()
    return Exported(arena.engines, world, export(world)).verify()


def case_016_bundle_of_a_check_that_failed(arena: Arena) -> BundleVerdict:
    world = spotted(arena, 2)
    _exchange(world)
    assert world.window().verdict.outcome == "denied"
    arena.forget()
    return Exported(arena.engines, world, export(world)).verify()
