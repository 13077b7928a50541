"""What a policy demands for later is done: a spot check in the next window, a token that ends sooner."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest import mock

from support.spots import left, stock
from weighbridge.policy.engine import Decision, Obligation
from weighbridge.verifier import result_token

if TYPE_CHECKING:
    from collections.abc import Generator

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.document import PolicyInput

SPOT = Obligation("spot_check", None, "look at the files")


@contextlib.contextmanager
def obliging(world: World, *obligations: Obligation) -> Generator[None]:
    """The policy obliges the host to these, meanwhile."""
    decide = world.prepared.decide

    def demanding(document: PolicyInput) -> Decision:
        return replace(decide(document), obligations=obligations)

    with mock.patch.object(world.prepared, "decide", demanding):
        yield


def opened(arena: Arena) -> World:
    world = arena.world()
    stock(world)
    world.open_session()
    return world


def is_asked(world: World) -> bool:
    return world.host.spot is not None


def test_a_spot_check_is_due_in_the_next_window_though_the_terms_demand_none(arena: Arena) -> None:
    world = opened(arena)
    assert world.host.terms is not None
    assert not world.host.terms.terms.spot_every
    with obliging(world, SPOT):
        answer = world.window()
    assert answer.verdict.opens
    assert is_asked(world)
    assert left(world)[1] == 1
    assert world.window().verdict.opens
    assert not is_asked(world)
    assert world.window().verdict.opens


def test_it_stays_due_until_a_fresh_window_passes_it(arena: Arena) -> None:
    world = opened(arena)
    with obliging(world, SPOT):
        world.window()
    late = world.host.seal()
    world.clock.advance(10)
    assert world.deliver(late).verdict.outcome == "held"
    world.host.wall_ns += 9_000_000_000
    assert is_asked(world)
    assert world.window().verdict.opens
    assert not is_asked(world)


def test_one_that_is_not_answered_is_refused(arena: Arena) -> None:
    world = opened(arena)
    with obliging(world, SPOT):
        world.window()
    world.host.spot = None
    answer = world.window()
    assert [denial.code for denial in answer.verdict.denials] == ["SPOT_ABSENT"]


def test_a_restart_forgets_no_obligation(arena: Arena) -> None:
    world = opened(arena)
    with obliging(world, SPOT):
        world.window()
    late = world.host.seal()
    world.clock.advance(10)
    assert world.deliver(late).verdict.outcome == "held"
    world.host.wall_ns += 9_000_000_000
    world.restart()
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    world.host.challenge, world.host.spot = resumed.challenge, resumed.spot
    assert is_asked(world)
    assert world.window().verdict.opens
    assert not is_asked(world)


def test_the_verdict_tells_of_them(arena: Arena) -> None:
    world = opened(arena)
    with obliging(world, SPOT, Obligation("reattest", 5, "stale")):
        document = world.window().verdict.document()
    assert document["obligations"] == [
        {"kind": "spot_check", "seconds": None, "reason": "look at the files"},
        {"kind": "reattest", "seconds": 5, "reason": "stale"},
    ]


def test_a_token_ends_when_the_host_is_to_be_attested_anew(arena: Arena) -> None:
    world = opened(arena)
    assert world.host.terms is not None
    usual = result_token.expiry(world.clock.now(), world.host.terms.terms.period_ns)
    assert usual - world.clock.now() > timedelta(seconds=3)
    for seconds, expected in ((3, timedelta(seconds=3)), (100, usual - world.clock.now())):
        with obliging(world, Obligation("reattest", seconds, "stale"), Obligation("reattest", 110, "other")):
            answer = world.window()
        assert answer.token is not None
        key = world.keys.signing.public_key()
        read = result_token.verify(answer.token, key, audience="relying-party", at=world.clock.at)
        assert timedelta() <= answer.verdict.received + expected - read.expires < timedelta(seconds=1)
