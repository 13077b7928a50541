"""Spot checks: only whoever has the declared bytes in the window that they are asked for goes on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from corpus.bundle import Exported, export
from support.forge import claim, seal
from support.processes import another_process
from support.spots import left, spotted, stock
from support.world import requirements
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.proto.spot import SpotAnswer, SpotChallenge
from weighbridge.verifier.bundle import Bundle
from weighbridge.verifier.live import LiveSessions

if TYPE_CHECKING:
    from collections.abc import Generator

    from corpus.arena import Arena
    from support.world import Engines, World
    from weighbridge.policy.document import PolicyInput, SpotCheck
    from weighbridge.policy.engine import Decision
    from weighbridge.verifier.core import Answer


class PowerLost(BaseException):
    """Nothing after this point has happened."""


@contextmanager
def seen(world: World) -> Generator[list[SpotCheck]]:
    """What policies are told of spot checks."""
    told: list[SpotCheck] = []
    decide = world.prepared.decide

    def listening(document: PolicyInput) -> Decision:
        told.append(document.weights.spot_check)
        return decide(document)

    with mock.patch.object(world.prepared, "decide", listening):
        yield told


def codes(answer: Answer) -> list[str]:
    return [denial.code for denial in answer.verdict.denials]


def warnings(answer: Answer) -> list[str]:
    assert answer.verdict.decision is not None
    return [warning.code for warning in answer.verdict.decision.warnings]


def asked(world: World) -> SpotChallenge:
    assert world.host.spot is not None
    return SpotChallenge.parse(world.host.spot)


def is_asked(world: World) -> bool:
    return world.host.spot is not None


def resume(world: World, *, after: float = 0.6) -> None:
    """The line was cut for more than half a window: what was asked before is asked anew."""
    world.clock.advance(after)
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    assert resumed.next_seq == world.host.seq
    world.host.challenge, world.host.spot = resumed.challenge, resumed.spot


def overwrite(world: World) -> None:
    """The model's files are exchanged under the attester's hands."""
    assert world.host.directory is not None
    (world.host.directory / "model.safetensors").write_bytes(b"headerWEIGHTS")


def lost(world: World) -> None:
    """A window arrives so late that it is held; the host's clock goes on with everybody's."""
    late = world.host.seal()
    world.clock.advance(10)
    assert world.deliver(late).verdict.outcome == "held"
    world.host.wall_ns += 9_000_000_000


# -- what passes -------------------------------------------------------------------------------------------------------


def test_a_host_that_has_the_bytes_passes_in_every_window_that_is_due(arena: Arena) -> None:
    world = spotted(arena, 0)
    with seen(world) as told:
        for seq in range(5):
            assert is_asked(world) == (seq % 2 == 0)
            answer = world.window()
            assert answer.verdict.opens
            assert not warnings(answer)
    assert [(check.status, check.last_passed_seq) for check in told] == [
        ("passed", 0),
        ("not_due", 0),
        ("passed", 2),
        ("not_due", 2),
        ("passed", 4),
    ]
    assert left(world) == (5, 3)


def test_where_none_is_demanded_none_is_spent(arena: Arena) -> None:
    world = arena.world()
    stock(world)
    world.open_session()
    with seen(world) as told:
        assert world.window().verdict.opens
    assert [(check.status, check.last_passed_seq) for check in told] == [("not_due", None)]
    assert left(world) == (8, 0)


def test_an_empty_pool_admits_and_warns(arena: Arena) -> None:
    world = spotted(arena, 2, count=1)
    with seen(world) as told:
        answer = world.window()
    assert answer.verdict.opens
    assert warnings(answer) == [Code.SPOT_POOL_EMPTY]
    assert [(check.status, check.last_passed_seq) for check in told] == [("not_issued", 0)]
    # Filled again: the next window is asked, though it is not a second one.
    assert not is_asked(world)
    stock(world, 1)
    assert codes(world.window()) == []
    assert is_asked(world)
    assert world.window().verdict.opens


def test_the_pool_of_another_model_is_not_touched(arena: Arena) -> None:
    world = arena.world(wanted=requirements(spot_every=1))
    pool = stock(world, 1)
    other = replace(
        pool,
        manifest=sha256(b"another"),
        entries=tuple(
            replace(
                entry,
                expectation=replace(
                    entry.expectation,
                    challenge=replace(entry.expectation.challenge, id=bytes(16), manifest=sha256(b"another")),
                ),
            )
            for entry in pool.entries
        ),
    )
    with world.store.transaction() as tx:
        assert tx.spots.add(other) == 1
    world.open_session()
    assert world.window().verdict.opens
    assert warnings(world.window()) == [Code.SPOT_POOL_EMPTY]
    with world.store.transaction() as tx:
        assert [(count.left, count.spent) for count in tx.spots.counts() if count.manifest == other.manifest] == [
            (1, 0)
        ]


def test_importing_again_changes_nothing(arena: Arena) -> None:
    world = arena.world(wanted=requirements(spot_every=1))
    pool = stock(world, 3)
    world.open_session()
    with world.store.transaction() as tx:
        assert tx.spots.add(pool) == 0
    assert left(world) == (2, 1)


# -- what does not -----------------------------------------------------------------------------------------------------


def denied(world: World, answer: Answer, code: Code) -> None:
    """The window is refused for ``code`` alone, the session is over, and that sticks to its key."""
    assert codes(answer) == [code]
    assert (answer.challenge, answer.spot) == (None, None)
    with pytest.raises(PolicyDenied) as refused:
        resume(world)
    assert refused.value.code is Code.SESSION_FAILED
    with pytest.raises(PolicyDenied, match="SUBJECT_FAILED"):
        world.host.enrol(world.verifier)


def test_bytes_that_are_exchanged_after_measuring_are_found_out(arena: Arena) -> None:
    world = spotted(arena, 2)
    overwrite(world)
    denied(world, world.window(), Code.SPOT_WRONG)


def test_an_exchange_between_two_checks_goes_unnoticed_until_the_next(arena: Arena) -> None:
    world = spotted(arena, 3)
    overwrite(world)
    assert world.window().verdict.opens
    denied(world, world.window(), Code.SPOT_WRONG)


def test_no_answer_is_refused(arena: Arena) -> None:
    world = spotted(arena, 2)
    world.host.spot = None
    denied(world, world.window(), Code.SPOT_ABSENT)


def test_an_answer_one_window_late_is_refused_twice(arena: Arena) -> None:
    world = spotted(arena, 2)
    late = world.host.answer()
    world.clock.advance(1)
    denied(world, world.send(seal(world.host, claim(spot=None)).evidence), Code.SPOT_ABSENT)
    again = spotted(arena, 3)
    again.clock.advance(1)
    denied(again, again.send(seal(again.host, claim(spot=late)).evidence), Code.EVIDENCE_UNEXPECTED)


def test_an_earlier_answer_is_refused(arena: Arena) -> None:
    world = spotted(arena, 0)
    first = world.host.answer()
    for _ in range(2):
        assert world.window().verdict.opens
    world.clock.advance(1)
    denied(world, world.send(seal(world.host, claim(spot=first)).evidence), Code.SPOT_WRONG)


@pytest.mark.parametrize("size", [0, 32])
def test_another_mac_is_refused(arena: Arena, size: int) -> None:
    world = spotted(arena, 2)
    honest = world.host.answer()
    assert honest is not None
    mac = bytes(32 - size) + honest.mac[: size - 1] + b"\0" if size else bytes(32)
    world.clock.advance(1)
    denied(world, world.send(seal(world.host, claim(spot=SpotAnswer(honest.id, mac))).evidence), Code.SPOT_WRONG)


def test_the_answer_to_somebody_elses_challenge_is_refused(arena: Arena) -> None:
    world, other = spotted(arena, 2), spotted(arena, 2)
    theirs = other.host.answer()
    world.clock.advance(1)
    denied(world, world.send(seal(world.host, claim(spot=theirs)).evidence), Code.SPOT_WRONG)


# -- what is held ------------------------------------------------------------------------------------------------------


def test_whoever_lets_the_window_arrive_late_is_asked_again(arena: Arena) -> None:
    world = spotted(arena, 4, every=4)
    assert is_asked(world)
    with seen(world) as told:
        lost(world)
        # It answers in good order, but nobody knows how long it took.
        assert is_asked(world)
        assert world.window().verdict.opens
        assert not is_asked(world)
    assert [(check.status, check.last_passed_seq) for check in told] == [("not_issued", 0), ("passed", 5)]


@pytest.mark.parametrize("held", [1, 2, 3])
def test_no_window_opens_a_gate_while_a_check_is_evaded(arena: Arena, held: int) -> None:
    """Whoever seals under an earlier challenge answers nothing; the next fresh window has to, whatever came before."""
    world = spotted(arena, 3, every=4)
    earlier = world.host.challenge
    overwrite(world)
    assert world.window().verdict.opens
    for number in range(held):
        assert is_asked(world)
        world.clock.advance(0.1)
        forged = seal(world.host, claim(spot=None, challenge=earlier))
        assert world.deliver(forged).verdict.outcome == "held", number
    denied(world, world.window(), Code.SPOT_WRONG)


def test_a_late_window_that_does_not_answer_is_refused(arena: Arena) -> None:
    world = spotted(arena, 2)
    late = seal(world.host, claim(spot=None))
    world.clock.advance(10)
    denied(world, world.send(late.evidence), Code.SPOT_ABSENT)


@pytest.mark.parametrize("again", [False, True], ids=["nothing", "the same again"])
def test_under_an_earlier_challenge_nothing_is_answered(arena: Arena, again: bool) -> None:
    world = spotted(arena, 2)
    answer = world.host.answer() if again else None
    # The answer to window 2 is still on its way when window 3 is sealed.
    first = world.host.seal()
    world.host.advance(first)
    second = seal(world.host, claim(spot=answer))
    world.clock.advance(2)
    assert world.send(first.evidence).verdict.opens
    verdict = world.send(second.evidence).verdict
    assert verdict.outcome == ("denied" if again else "held")
    assert [denial.code for denial in verdict.denials] == [Code.EVIDENCE_UNEXPECTED if again else Code.WINDOW_HELD]


def test_delivering_what_was_held_back_does_not_empty_the_pool(arena: Arena) -> None:
    world = spotted(arena, 1, every=4, count=20)
    backlog = []
    for _ in range(10):
        backlog.append(world.host.seal())
        world.host.advance(backlog[-1])
    world.clock.advance(20)
    for window in backlog:
        answer = world.send(window.evidence)
        assert answer.verdict.outcome == "held"
        assert answer.challenge is not None
        world.host.challenge, world.host.spot = answer.challenge, answer.spot
    # That of window 0, and one for all that was due since: it goes on until a window answers it.
    assert left(world) == (18, 2)
    assert world.window().verdict.opens


def test_delivering_it_to_two_processes_in_turn_does_neither(arena: Arena) -> None:
    """Which knows when the other asked first: nobody is asked more for it, and nobody gains time by it."""
    world = spotted(arena, 3, every=4, count=20)
    earlier = world.host.challenge
    assert world.window().verdict.opens
    (_, spent), ages, first = left(world), [], asked(world)
    with another_process(world) as other:
        for number in range(6):
            world.clock.advance(0.15)
            late = seal(world.host, claim(spot=None, challenge=earlier))
            answer = (world.verifier if number % 2 else other).window(
                world.host.session, late.evidence, peer=world.host.peer
            )
            assert answer.verdict.outcome == "held"
            world.host.advance(late)
            assert answer.challenge is not None
            world.host.challenge, world.host.spot = answer.challenge, answer.spot
            ages.append(asked(world) == first)
    assert ages == [True] * 3 + [False] * 3
    assert left(world)[1] == spent + 1
    assert world.window().verdict.opens


def test_what_goes_on_unanswered_is_soon_another_one(arena: Arena) -> None:
    """Half a window after it left first, a check that nobody answered is exchanged: nobody gains time by it."""
    world = spotted(arena, 3, every=4, count=20)
    earlier = world.host.challenge
    assert world.window().verdict.opens
    first, (_, spent) = asked(world), left(world)
    ages = []
    for _ in range(4):
        world.clock.advance(0.15)
        assert world.deliver(seal(world.host, claim(spot=None, challenge=earlier))).verdict.outcome == "held"
        ages.append(asked(world) == first)
    assert ages == [True, True, True, False]
    assert left(world)[1] == spent + 1
    assert world.window().verdict.opens


def test_a_check_that_goes_on_is_still_expected_after_a_restart(arena: Arena) -> None:
    world = spotted(arena, 3, every=4)
    earlier = world.host.challenge
    assert world.window().verdict.opens
    world.clock.advance(0.1)
    assert world.deliver(seal(world.host, claim(spot=None, challenge=earlier))).verdict.outcome == "held"
    world.restart()
    overwrite(world)
    denied(world, world.window(), Code.SPOT_WRONG)


# -- what is issued is spent -------------------------------------------------------------------------------------------


def test_no_challenge_is_issued_twice(arena: Arena) -> None:
    world = spotted(arena, 0, every=1, count=30)
    issued = [asked(world).id]
    for step in range(6):
        if step % 2:
            world.restart()
            resume(world)
            issued.append(asked(world).id)
        assert world.window().verdict.opens
        issued.append(asked(world).id)
    assert len(set(issued)) == len(issued) == left(world)[1]


def test_cutting_the_line_over_and_over_does_not_empty_the_pool(arena: Arena) -> None:
    """What has hardly been asked stands, with its deadline: resuming buys neither another question nor more time."""
    world = spotted(arena, 2)
    first, (_, spent) = asked(world), left(world)
    for _ in range(20):
        resume(world, after=0.02)
        assert asked(world) == first
    assert left(world)[1] == spent
    resume(world)
    assert asked(world) != first
    assert left(world)[1] == spent + 1
    assert world.window().verdict.opens


def test_cutting_the_line_to_two_processes_in_turn_does_not_empty_the_pool(arena: Arena) -> None:
    """Neither remembers when the other asked; both know when the challenge was issued."""
    world = spotted(arena, 2)
    first, spent = asked(world), left(world)
    with another_process(world) as other:
        for _ in range(4):
            resume(world, after=0.02)
            assert asked(world) == first
            assert other.resume(world.host.session, peer=world.host.peer).spot == world.host.spot
        assert left(world) == spent
        world.clock.advance(0.5)
        assert other.resume(world.host.session, peer=world.host.peer).spot != world.host.spot
        resume(world, after=0.02)
        assert left(world) == (spent[0] - 1, spent[1] + 1)
    assert world.window().verdict.opens


def test_two_sessions_are_never_asked_the_same(arena: Arena) -> None:
    world = spotted(arena, 0)
    first = asked(world).id
    world.host.enrol(world.verifier)
    assert asked(world).id != first
    assert left(world) == (6, 2)


def test_a_verifier_that_restarts_still_expects_the_answer(arena: Arena) -> None:
    world = spotted(arena, 2)
    world.restart()
    assert world.window().verdict.opens
    world = spotted(arena, 2)
    world.restart()
    overwrite(world)
    denied(world, world.window(), Code.SPOT_WRONG)


def test_power_lost_before_the_challenge_is_issued(arena: Arena) -> None:
    world = spotted(arena, 1)
    assert left(world) == (7, 1)
    world.clock.advance(1)
    sealed = world.host.seal()
    with mock.patch.object(LiveSessions, "advance", side_effect=PowerLost), pytest.raises(PowerLost):
        world.send(sealed.evidence)
    assert left(world) == (7, 1)
    world.restart()
    # The judgement was recorded: finishing it issues the challenge for the next window.
    assert left(world) == (6, 2)
    world.host.advance(sealed)
    resume(world)
    assert left(world) == (5, 3)
    assert world.window().verdict.opens


def test_power_lost_before_the_answer_leaves(arena: Arena) -> None:
    world = spotted(arena, 1)
    world.clock.advance(1)
    sealed = world.host.seal()
    answer = world.send(sealed.evidence)
    assert answer.spot is not None
    world.host.advance(sealed)
    world.restart()
    resume(world)
    assert asked(world) != SpotChallenge.parse(answer.spot)
    # The one that was lost is not expected any more, nor is it ever asked again.
    unheard = SpotChallenge.parse(answer.spot).answer(
        [b"headerweights"[part.offset : part.offset + part.length] for part in SpotChallenge.parse(answer.spot).ranges]
    )
    world.clock.advance(1)
    denied(world, world.send(seal(world.host, claim(spot=unheard)).evidence), Code.SPOT_WRONG)


def test_what_was_sealed_before_the_line_was_cut_answers_what_it_was_asked(arena: Arena) -> None:
    world = spotted(arena, 2)
    sealed = world.host.seal()
    world.clock.advance(0.6)
    world.verifier.resume(world.host.session, peer=world.host.peer)
    world.clock.advance(0.4)
    answer = world.deliver(sealed)
    # The newer challenge is the outstanding one: the window is held, and judged by the one it was sealed under.
    assert answer.verdict.outcome == "held"
    assert codes(answer) == [Code.WINDOW_HELD]


# -- years later -------------------------------------------------------------------------------------------------------


def verify(world: World, engines: Engines) -> list[tuple[str, list[str]]]:
    exported = Exported(engines, world, Bundle.parse(export(world).encode()))
    result = exported.verify()
    return [(verdict.outcome, [denial.code for denial in verdict.denials]) for verdict in result.verdicts]


def test_a_bundle_shows_that_they_passed(arena: Arena, engines: Engines) -> None:
    world = spotted(arena, 4)
    assert verify(world, engines) == [("affirmed", [])] * 4


def test_a_bundle_shows_that_one_did_not(arena: Arena, engines: Engines) -> None:
    world = spotted(arena, 2)
    overwrite(world)
    assert not world.window().verdict.opens
    assert verify(world, engines) == [("affirmed", [])] * 2 + [("denied", [Code.SPOT_WRONG])]


def test_nothing_that_is_printed_shows_keys(arena: Arena) -> None:
    world = spotted(arena, 2)
    pool = stock(world, 2)
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    shown = repr((pool, resumed, world.verifier.window))
    for entry in pool.entries:
        assert repr(entry.expectation.challenge.key) not in shown
        assert repr(entry.expectation.mac) not in shown
    assert resumed.spot is not None
    assert repr(SpotChallenge.parse(resumed.spot).key)[2:-1] not in shown
