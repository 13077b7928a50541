"""What each may have: counted, given back, refused with the time after which it may come again, and forgotten."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from weighbridge.proto.errors import Code
from weighbridge.verifier.notices import Notices
from weighbridge.verifier.quotas import Held, Limited, Quotas, Visit
from weighbridge.verifier.service_limits import Limits, Share

SMALL = Share(streams=2, sessions=2, openings_per_minute=6, windows_per_second=2, bytes_in_flight=100, calls=2)
A, B, C = (bytes([number]) * 32 for number in range(3))


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def quotas(clock: Clock | None = None, *, over: set[bytes] | None = None, **shares: Share) -> Quotas:
    wide = Share(**{name: 3 * getattr(SMALL, name) for name in Share.__slots__})
    limits = Limits(**{"peer": SMALL, "tenant": wide, "total": wide, **shares}, patience=1.0)  # type: ignore[arg-type]
    return Quotas(limits, over=(over or set()).__contains__, now=clock or Clock())


def test_windows_are_paced_and_then_refused() -> None:
    clock = Clock()
    made = quotas(clock)
    with made.visit(A) as visit, made.visit(B) as other:
        # A second's worth at once, then one in half a second, waiting for up to a second.
        assert [visit.request() for _ in range(3)] == [0.0, 0.0, 0.0]
        assert [visit.request() for _ in range(2)] == pytest.approx([0.5, 1.0])
        with pytest.raises(Limited) as caught:
            visit.request()
        assert caught.value.fault.code is Code.RATE_LIMITED
        assert caught.value.retry_after == pytest.approx(0.5)
        assert other.request() == 0.0
        clock.seconds += caught.value.retry_after
        assert visit.request() == pytest.approx(1.0)


def test_all_together_have_a_bound_that_no_number_of_peers_escapes() -> None:
    made = quotas(Clock(), tenant=SMALL, total=SMALL)
    visits = [made.visit(bytes([number]) * 32) for number in range(3)]
    first, second = (visit.__enter__() for visit in visits[:2])
    with pytest.raises(Limited) as caught:
        visits[2].__enter__()
    assert caught.value.fault.where == "total"
    assert [first.request(), second.request(), first.request()] == [0.0, 0.0, 0.0]
    assert second.request() > 0
    for visit in visits[:2]:
        visit.__exit__(None, None, None)


def test_a_session_counts_for_an_hour_after_its_last_stream_unless_it_has_ended() -> None:
    clock, over = Clock(), set[bytes]()
    made = quotas(clock, over=over)
    for session in (b"one", b"two"):
        with made.visit(A) as visit:
            visit.joins(session, "tenant")
    with made.visit(A) as visit:
        with pytest.raises(Limited):
            visit.joins(b"three", "tenant")
        # The same one again is no other one.
        visit.joins(b"one", "tenant")
        over.add(b"two")
    made = quotas(clock, over={b"two"})
    for session in (b"one", b"two", b"three"):
        with made.visit(A) as visit:
            visit.joins(session, "tenant")
    clock.seconds += 3601
    with made.visit(A) as visit:
        visit.opening()
        visit.joins(b"four", "tenant")


_STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "end", "hold", "release", "pass"]), st.integers(0, 3)), max_size=30
)


def step(visit: Visit, kind: str, number: int, held: list[Held]) -> None:
    match kind:
        case "join":
            visit.joins(bytes([number]), f"tenant-{number % 2}")
        case "end":
            visit.leaves(ended=True)
        case "hold":
            held.append(visit.hold(40))
        case _:
            if held:
                visit.release(held.pop())


@given(steps=st.lists(_STEPS, max_size=4))
def test_nothing_is_left_of_whoever_has_gone(steps: list[list[tuple[str, int]]]) -> None:
    """Whatever each did, and was refused."""
    clock = Clock()
    made = quotas(clock)
    for number, done in enumerate(steps):
        held: list[Held] = []
        with contextlib.suppress(Limited), made.visit(bytes([number % 2]) * 32) as visit:
            for kind, what in done:
                clock.seconds += 30 * (kind == "pass")
                step(visit, kind, what, held)
    assert (len(made.streams), len(made.bytes)) == (0, 0)
    clock.seconds += 3601
    with made.visit(C) as visit:
        visit.opening()
    assert len(made.sessions) == 0


def test_rates_at_rest_are_forgotten() -> None:
    clock = Clock()
    wide = replace(SMALL, streams=10**6, openings_per_minute=10**9, windows_per_second=10**6)
    made = quotas(clock, peer=SMALL, tenant=wide, total=wide)
    for number in range(3000):
        clock.seconds += 1
        with made.visit(number.to_bytes(32)) as visit:
            visit.request()
    assert len(made.windows) < 1100


def test_lines_for_the_operator_are_bounded() -> None:
    clock, said = Clock(), list[str]()
    notices = Notices(said.append, now=clock)
    for number in range(1000):
        notices.say("kind", f"line {number}")
    assert said == ["line 0"]
    clock.seconds += 60
    notices.say("kind", "line")
    notices.say("other", "another")
    assert said[1:] == ["line (and 999 more of the kind)", "another"]
    for number in range(1000):
        notices.say(number, "each its own kind")
    assert len(said) < 300
    notices.flush()
    assert said[-1].endswith(" more of the kind: each its own kind")
