"""How attesters come back after they have lost their lines: spread out, and as quickly as they can be taken."""

from __future__ import annotations

import heapq
import random
from collections import Counter

from weighbridge.attester.courier import Backoff

SECOND = 1_000_000_000


def test_shorter_windows_wait_less() -> None:
    assert Backoff.of(10 * SECOND) == Backoff.of(3600 * SECOND) == Backoff() == Backoff(1.0, 30.0)
    assert Backoff.of(2 * SECOND) == Backoff(0.2, 6.0)


def reconnect(attesters: int, *, cores: float, outage: float) -> tuple[Counter[int], float]:
    """Attesters that lose their lines at one moment: attempts in each second after the outage, and how long all took.

    A verifier spends 2 ms of a core on each (the time that mutual TLS takes), one after the other. Whoever waits for
    longer than 10 s gives up; what that attempt costs is spent.
    """
    rng, backoff = random.Random(1), Backoff()
    due = [(backoff.delay_ns(0, rng) / SECOND, 0) for _ in range(attesters)]
    heapq.heapify(due)
    busy, last = outage, outage
    attempts: Counter[int] = Counter()
    while due:
        at, number = heapq.heappop(due)
        if at >= outage:
            attempts[int(at - outage)] += 1
            busy = max(busy, at) + 0.002 / cores
            if busy - at < 10:
                last = max(last, busy)
                continue
            at += 10
        heapq.heappush(due, (at + backoff.delay_ns(number + 1, rng) / SECOND, number + 1))
    return attempts, last - outage


def test_ten_thousand_attesters_do_not_come_back_at_once() -> None:
    """After an outage they come in the longest delay, and nobody has to come twice, even if one core takes them."""
    attempts, took = reconnect(10_000, cores=1, outage=120)
    assert attempts.total() == 10_000
    assert max(attempts.values()) < 720
    assert took < 31


def test_a_replica_that_is_killed_does_not_take_the_others_along() -> None:
    """Its attesters come to the others at once: 2 cores are busy with them for 10 s, and then all have a line."""
    attempts, took = reconnect(10_000, cores=2, outage=0)
    assert attempts.total() < 10_500
    assert took < 15
