"""Receipt time: when it steps back, judging stops until it has caught up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.clock import SystemClock, moment, nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the machine's clock to so many seconds past noon."""

    def set_to(seconds: float) -> None:
        present = nanoseconds(NOON + timedelta(seconds=seconds))
        monkeypatch.setattr("time.time_ns", lambda: present)

    set_to(0)
    return set_to


def test_time_goes_on(system: Callable[[float], None]) -> None:
    clock = SystemClock()
    assert clock.now() == NOON
    system(10)
    assert clock.now() == NOON + timedelta(seconds=10)


@pytest.mark.parametrize("back", [1.001, 60, 10**8])
def test_a_step_back_stops_judging(system: Callable[[float], None], back: float) -> None:
    """A69"""
    clock = SystemClock()
    system(1000)
    clock.now()
    system(1000 - back)
    for _ in range(2):
        with pytest.raises(EnvironmentFault) as fault:
            clock.now()
        assert fault.value.code is Code.CLOCK_STEPPED
    system(1000)
    assert clock.now() == NOON + timedelta(seconds=1000)


def test_a_slew_is_no_step_and_steps_do_not_add_up(system: Callable[[float], None]) -> None:
    """A69: small steps back are held against the latest time ever told, not against the last one."""
    clock = SystemClock()
    system(1000)
    clock.now()
    system(999.5)
    clock.now()
    system(998.9)
    with pytest.raises(EnvironmentFault):
        clock.now()


def test_a_clock_can_be_told_what_was_recorded_last(system: Callable[[float], None]) -> None:
    clock = SystemClock(not_before=NOON + timedelta(hours=1))
    with pytest.raises(EnvironmentFault):
        clock.now()
    system(3600)
    clock.now()


@given(st.integers(0, 2**62))
def test_nanoseconds_and_back(value: int) -> None:
    assert nanoseconds(moment(value)) == value // 1000 * 1000
