"""What is refused when a service cannot judge all: openings first, then the same peers, and no end of a session."""

from __future__ import annotations

import pytest

from weighbridge.proto.errors import Code
from weighbridge.verifier.quotas import Limited
from weighbridge.verifier.shedding import Shedding

PEERS = [bytes([number]) * 32 for number in range(200)]


def refused(shedding: Shedding, delay: float, kind: str = "window") -> set[bytes]:
    found: set[bytes] = set()
    for peer in PEERS:
        try:
            shedding.check(kind, peer, delay=delay)
        except Limited:
            found.add(peer)
    return found


def test_nobody_below_the_patience_and_everybody_above_twice_as_much() -> None:
    shedding = Shedding(2.0)
    assert refused(shedding, 2.0) == set()
    assert refused(shedding, 4.1) == set(PEERS)


def test_the_same_ones_and_more_of_them_the_longer_it_takes() -> None:
    shedding = Shedding(2.0)
    some, more = refused(shedding, 2.5), refused(shedding, 3.5)
    assert set() < some < more < set(PEERS)
    assert refused(shedding, 2.5) == some
    # Nobody knows beforehand who that is: another process has others.
    assert refused(Shedding(2.0), 2.5) != some


def test_who_has_no_session_waits_less_and_what_ends_something_is_never_refused() -> None:
    shedding = Shedding(2.0)
    assert refused(shedding, 1.1, "opening") == set(PEERS)
    assert refused(shedding, 0.9, "opening") == set()
    assert refused(shedding, 3600, "proof") == refused(shedding, 3600, "close") == set()
    # A request of a later version costs a turn as well.
    assert refused(shedding, 10, "") == set(PEERS)


def test_when_it_may_come_again() -> None:
    shedding = Shedding(1.0)
    told: list[float] = []
    for peer in PEERS:
        with pytest.raises(Limited) as caught:
            shedding.check("window", peer, delay=5.0)
        assert caught.value.fault.code is Code.RATE_LIMITED
        told.append(caught.value.retry_after)
    # Not all at once.
    assert 5 <= min(told) < 6
    assert 9 < max(told) <= 10
    with pytest.raises(Limited) as caught:
        shedding.check("resume", PEERS[0], delay=1e6)
    assert caught.value.retry_after == 60
