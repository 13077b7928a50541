"""Challenges: random, dated by the ledger, for one window; and how long a spot challenge counts as hardly asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from support.spots import left, spotted
from support.world import NOON
from weighbridge.proto import binding
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.spot import SpotChallenge, SpotExpectation
from weighbridge.verifier.challenge import Chance, draw, hand_out, hardly_asked, issue, preimage_of
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.transaction import Issued

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World

ROOT, SESSION, RANDOM = b"R" * 32, b"S" * 16, bytes(range(1, 33))
SPOT = SpotExpectation(SpotChallenge(id=bytes(16), manifest=bytes(32), key=bytes(32), ranges=()), bytes(32))
INSTANT = timedelta(microseconds=1)


class Stuck(Chance):
    """A random number generator that has failed."""

    def token(self, size: int) -> bytes:
        return b"\x5a" * size


def test_a_generator_that_has_failed_is_noticed() -> None:
    assert draw() != draw()
    with pytest.raises(NotAuthentic) as caught:
        draw(Stuck())
    assert caught.value.code is Code.NONCE_DENIED


def test_a_challenge_is_of_one_ledger_session_and_window() -> None:
    issued = issue(ROOT, SESSION, 7, random=RANDOM, at=NOON)
    assert (issued.seq, issued.issued_ns, issued.spot, issued.asked_ns) == (7, nanoseconds(NOON), None, None)
    preimage = preimage_of(issued)
    assert binding.challenge(preimage.ledger_root, SESSION, 7, preimage.random) == issued.digest
    others = (
        issue(bytes(32), SESSION, 7, random=RANDOM, at=NOON),
        issue(ROOT, bytes(16), 7, random=RANDOM, at=NOON),
        issue(ROOT, SESSION, 8, random=RANDOM, at=NOON),
        issue(ROOT, SESSION, None, random=RANDOM, at=NOON),
        issue(ROOT, SESSION, 7, random=RANDOM[::-1], at=NOON),
    )
    assert len({issued.digest, *(other.digest for other in others)}) == 6


@pytest.fixture
def world(arena: Arena) -> World:
    """At a session's first window, with its spot challenge out."""
    return spotted(arena, 0)


@pytest.mark.parametrize(("period_ns", "half_us"), [(2_000_000_000, 1_000_000), (2_000_003_000, 1_000_001)])
def test_a_spot_challenge_is_hardly_asked_for_half_a_window(world: World, period_ns: int, half_us: int) -> None:
    """Before that it was not asked: a clock that stepped back gives nobody more time."""
    assert world.host.terms is not None
    terms = replace(world.host.terms.terms, period_ns=period_ns)
    half = timedelta(microseconds=half_us)
    asked = replace(issue(ROOT, SESSION, 0, random=RANDOM, at=NOON), spot=SPOT, asked_ns=nanoseconds(NOON))
    after = (-INSTANT, timedelta(), INSTANT, half - INSTANT, half, half + INSTANT)
    found = [hardly_asked(asked, terms, at=NOON + passed) for passed in after]
    assert found == [False, True, True, True, False, False]
    # Only what was asked can be asked again.
    assert not hardly_asked(replace(asked, spot=None), terms, at=NOON)
    assert not hardly_asked(replace(asked, asked_ns=None), terms, at=NOON)


def test_what_is_handed_out_is_outstanding_and_takes_what_is_unanswered_along(world: World) -> None:
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    unanswered, (_, spent) = live.issued, left(world)
    assert unanswered is not None
    assert unanswered.spot is not None

    def handed_out(random: bytes, *, after: timedelta, before: Issued | None) -> Issued:
        at = moment(unanswered.issued_ns) + after
        new = issue(ROOT, live.terms.session, 1, random=random, at=at)
        with world.store.transaction() as tx:
            given = hand_out(tx, new, terms=live.terms, position=live.position, unanswered=before)
        with world.store.transaction() as tx:
            assert tx.challenges.last(live.terms.session) == given
        return given

    carried = handed_out(RANDOM, after=INSTANT, before=unanswered)
    assert (carried.spot, carried.asked_ns) == (unanswered.spot, unanswered.issued_ns)
    assert left(world)[1] == spent
    for number, before in enumerate((None, unanswered), 1):
        new = handed_out(RANDOM[number:] + RANDOM[:number], after=timedelta(minutes=1), before=before)
        assert new.spot not in (None, unanswered.spot)
        assert new.asked_ns == new.issued_ns
        assert left(world)[1] == spent + number


def test_where_no_spot_check_is_due_none_is_spent(world: World) -> None:
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    before, new = left(world), issue(ROOT, live.terms.session, 1, random=RANDOM, at=world.clock.at)
    answered = replace(live.position, spot_seq=0)
    with world.store.transaction() as tx:
        assert hand_out(tx, new, terms=live.terms, position=answered, unanswered=live.issued) == new
    assert left(world) == before
