"""The replay itself: where it starts, what it refuses, and how far a log leads to a quoted value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog_support import SHA1, SHA256, SHA384, extended
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.eventlog import Binding, Event, EventLog, Format, Register, RegisterKind, events, replay, require
from weighbridge.proto.eventlog.events import lead
from weighbridge.proto.tpm.constants import digest

ZERO = bytes(32)
SEVEN, EIGHT = Register.pcr(7), Register.pcr(8)


def made(*extensions: tuple[int, bytes], locality: int = 0) -> EventLog:
    return EventLog(
        Format.TCG2,
        tuple(
            Event(number, Register.pcr(pcr), ((SHA256.value, value),), Binding.OPAQUE, "EV_IPL", "")
            for number, (pcr, value) in enumerate(extensions)
        ),
        locality,
    )


A, B, C = (digest(SHA256, bytes([number])) for number in range(3))
LOG = made((7, A), (8, B), (7, C))


@given(st.lists(st.tuples(st.integers(0, 15), st.binary(min_size=32, max_size=32)), max_size=12))
def test_registers_are_extended_in_order_and_apart(extensions: list[tuple[int, bytes]]) -> None:
    expected = {
        Register.pcr(pcr): extended(ZERO, *(value for other, value in extensions if other == pcr))
        for pcr in {pcr for pcr, _ in extensions}
    }
    assert replay(made(*extensions), SHA256) == expected
    assert require(made(*extensions), SHA256, {SEVEN: expected.get(SEVEN, ZERO)})[SEVEN] == expected.get(SEVEN, ZERO)


def test_a_stated_start_takes_the_place_of_zeros() -> None:
    assert replay(LOG, SHA256, start={SEVEN: C})[SEVEN] == extended(C, A, C)
    assert replay(made(), SHA256, start={SEVEN: C}) == {SEVEN: C}
    assert require(LOG, SHA256, {SEVEN: extended(C, A, C)}, start={SEVEN: C})[EIGHT] == extended(ZERO, B)


@pytest.mark.parametrize(
    ("register", "locality", "value"),
    [
        (Register.pcr(0), 0, ZERO),
        (Register.pcr(0), 4, bytes(31) + b"\4"),
        (Register.pcr(1), 4, ZERO),
        (Register.pcr(16), 0, ZERO),
        (Register.pcr(17), 0, b"\xff" * 32),
        (Register.pcr(22), 0, b"\xff" * 32),
        (Register.pcr(23), 0, ZERO),
        (Register(RegisterKind.CCMR, 0), 3, ZERO),
        (Register(RegisterKind.NV, 17), 0, ZERO),
    ],
)
def test_what_a_reset_leaves(register: Register, locality: int, value: bytes) -> None:
    assert events.start_value(register, SHA256, locality=locality) == value


def test_a_register_that_no_event_extends_still_holds_its_start() -> None:
    assert require(LOG, SHA256, {Register.pcr(1): ZERO})[Register.pcr(1)] == ZERO
    with pytest.raises(NotAuthentic):
        require(LOG, SHA256, {Register.pcr(1): A})


def test_another_value_is_refused_and_the_register_named() -> None:
    with pytest.raises(NotAuthentic) as caught:
        require(LOG, SHA256, {EIGHT: extended(ZERO, B), SEVEN: A})
    assert caught.value.code is Code.LOG_REPLAY
    assert caught.value.where == "PCR 7, sha256"
    assert caught.value.hint.startswith("no part of the log")


def test_a_log_read_too_late_is_refused_with_a_hint() -> None:
    quoted = {SEVEN: extended(ZERO, A), EIGHT: extended(ZERO, B)}
    with pytest.raises(NotAuthentic) as caught:
        require(LOG, SHA256, quoted)
    assert caught.value.hint.startswith("the first 2 of 3 events lead to it")
    assert lead(LOG, SHA256, quoted) == 2


@pytest.mark.parametrize(
    ("expected", "count"),
    [
        ({SEVEN: ZERO}, 0),
        ({SEVEN: extended(ZERO, A)}, 2),
        ({SEVEN: extended(ZERO, A, C)}, 3),
        ({SEVEN: extended(ZERO, A), EIGHT: ZERO}, 1),
        ({SEVEN: extended(ZERO, A, C), EIGHT: ZERO}, None),
        ({SEVEN: extended(ZERO, C)}, None),
    ],
)
def test_how_far_a_log_leads(expected: dict[Register, bytes], count: int | None) -> None:
    assert lead(LOG, SHA256, expected) == count


def test_an_event_that_extends_nothing_counts_as_read() -> None:
    nothing = Event(3, SEVEN, (), Binding.NONE, "EV_NO_ACTION", "")
    log = EventLog(Format.TCG2, (*LOG.events, nothing))
    assert lead(log, SHA256, {SEVEN: extended(ZERO, A, C)}) == 4
    assert log.banks == (SHA256,)


def test_misuse_is_no_refusal() -> None:
    with pytest.raises(ValueError, match="SHA-1"):
        require(LOG, SHA1, {SEVEN: bytes(20)})
    with pytest.raises(ValueError, match="no register"):
        require(LOG, SHA256, {})
    with pytest.raises(ValueError, match="32 bytes"):
        require(LOG, SHA256, {SEVEN: bytes(20)})
    with pytest.raises(ValueError, match="32 bytes"):
        replay(LOG, SHA256, start={SEVEN: bytes(20)})


def test_a_bank_that_an_event_lacks_is_refused_by_number() -> None:
    with pytest.raises(NotAuthentic) as caught:
        replay(LOG, SHA384)
    assert (caught.value.code, caught.value.where) == (Code.LOG_REPLAY, "log[0]")
