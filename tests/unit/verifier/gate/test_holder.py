"""When a gate is open: of what was said and of times alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.relying import (
    ANCHORS,
    AUDIENCE,
    CNF,
    MODEL,
    NOON_NS,
    SECOND,
    STRANGER,
    WARNING,
    A,
    B,
    Bench,
    document,
    gate_file,
    open_until,
    shut,
    token,
)
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.gate.verifiers import Verifiers
from weighbridge.verifier.result import Serialisation
from weighbridge.verifier.told import GateState

# 1.5 windows of 10 s, and 2 s.
LIFE_S = 17


def test_before_anything_was_said_nothing_is_open() -> None:
    bench = Bench.make()
    assert bench.code() == Code.RESULT_ABSENT
    bench.gate.holder.line(EnvironmentFault(Code.PEER_UNREACHABLE, "no line"))
    assert bench.code() == Code.PEER_UNREACHABLE


def test_a_token_opens_until_it_expires_and_no_longer() -> None:
    bench = Bench.make()
    bench.affirm()
    assert bench.answer().allowed
    bench.clocks.advance(LIFE_S - 0.001)
    assert bench.answer().allowed
    bench.clocks.advance(0.001)
    assert bench.code() == Code.TOKEN_EXPIRED
    bench.affirm(4)
    assert bench.answer().allowed


@pytest.mark.parametrize("serialisation", list(Serialisation))
def test_every_serialisation_opens(serialisation: Serialisation) -> None:
    bench = Bench.make()
    bench.affirm(serialisation=serialisation)
    assert bench.answer().allowed


def test_a_cut_line_closes_nothing_before_the_time() -> None:
    bench = Bench.make()
    bench.affirm()
    bench.gate.holder.line(EnvironmentFault(Code.PEER_UNREACHABLE, "no line"))
    assert bench.answer().allowed
    bench.clocks.advance(LIFE_S)
    answer = bench.answer()
    assert answer.code == Code.TOKEN_EXPIRED
    assert "cannot be heard: no line" in str(answer.document["reason"])


def test_whichever_clock_says_so_first_closes() -> None:
    for wall, steady in ((LIFE_S, 0), (0, LIFE_S)):
        bench = Bench.make()
        bench.affirm()
        bench.clocks.wall_ns += wall * SECOND
        bench.clocks.steady_ns += steady * SECOND
        assert not bench.answer().allowed, (wall, steady)


def test_a_wall_clock_that_stands_still_keeps_nothing_open() -> None:
    bench = Bench.make()
    bench.affirm()
    bench.clocks.steady_ns += LIFE_S * SECOND
    assert bench.code() == Code.CLOCK_STEPPED


def test_a_clock_that_steps_back_closes_until_the_next_window() -> None:
    bench = Bench.make()
    bench.affirm()
    bench.clocks.advance(3)
    bench.clocks.wall_ns -= SECOND
    assert bench.answer().allowed, "what slewing may do"
    bench.clocks.wall_ns -= 1
    assert bench.code() == Code.CLOCK_STEPPED
    bench.affirm(4)
    assert bench.answer().allowed


def test_the_verifiers_clock_bounds_what_is_left() -> None:
    """A gate whose wall clock runs 4 s behind the verifier's: only what the verifier counts is left."""
    bench = Bench.make()
    late = NOON_NS + 16 * SECOND
    bench.clocks.wall_ns = late - 4 * SECOND
    bench.hear(open_until(NOON_NS, at_ns=late), token(received_ns=NOON_NS))
    assert bench.answer().allowed
    bench.clocks.advance(1)
    assert bench.code() == Code.TOKEN_EXPIRED


def test_no_word_of_the_verifier_lengthens_a_token() -> None:
    bench = Bench.make()
    bench.hear(open_until(expires_ns=NOON_NS + 3600 * SECOND, at_ns=0), token())
    bench.clocks.advance(LIFE_S - 1)
    assert bench.answer().allowed
    bench.clocks.advance(1)
    assert bench.code() == Code.TOKEN_EXPIRED


def test_the_verifier_may_shorten_it() -> None:
    bench = Bench.make()
    bench.hear(open_until(expires_ns=NOON_NS + 2 * SECOND), token())
    bench.clocks.advance(2)
    assert bench.code() == Code.TOKEN_EXPIRED


def test_the_same_result_told_again_brings_no_time() -> None:
    bench = Bench.make()
    bench.affirm()
    bench.clocks.advance(10)
    # As of a verifier whose line was delayed: it says that no time has passed.
    bench.hear(open_until(), token())
    bench.clocks.wall_ns -= 10 * SECOND
    bench.clocks.steady_ns += (LIFE_S - 10) * SECOND
    assert not bench.answer().allowed


def test_a_refused_window_closes_at_once_and_a_later_one_opens() -> None:
    bench = Bench.make()
    bench.affirm(3)
    bench.hear(shut(seq=4))
    assert bench.code() == "QUOTE_NONCE"
    for seq in (3, 4):
        bench.affirm(seq)
        assert bench.code() == "QUOTE_NONCE", "an earlier word that came late"
    bench.affirm(5)
    assert bench.answer().allowed


def test_an_older_result_changes_nothing() -> None:
    bench = Bench.make()
    bench.affirm(7)
    bench.hear(open_until(seq=6), token(seq=6))
    assert bench.answer().headers["x-weighbridge-result"] == f"{A.hex()}.7"


def test_the_end_is_final() -> None:
    bench = Bench.make()
    bench.affirm(3)
    bench.hear(shut("SESSION_FAILED", seq=None, state=GateState.ENDED))
    bench.affirm(9)
    assert bench.code() == "SESSION_FAILED"
    bench.gate.holder.refuse(A, EnvironmentFault(Code.SESSION_UNKNOWN, "no such session"))
    assert bench.code() == "SESSION_FAILED"


def test_waiting_is_not_open() -> None:
    bench = Bench.make()
    bench.hear(shut("RESULT_ABSENT", seq=None, state=GateState.WAITING))
    assert bench.code() == Code.RESULT_ABSENT
    bench.affirm(0)
    assert bench.answer().allowed


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key": STRANGER}, Code.TOKEN_SIGNATURE),
        ({"audience": "https://other.example"}, Code.TOKEN_AUDIENCE),
        ({"received_ns": NOON_NS - 60 * SECOND}, Code.TOKEN_EXPIRED),
        ({"received_ns": NOON_NS + 60 * SECOND}, Code.TOKEN_NOT_YET_VALID),
        ({"session": B}, Code.GATE_MODEL),
        ({"tenant": "other"}, Code.GATE_MODEL),
        ({"model": sha256(b"other")}, Code.GATE_MODEL),
        ({"adapters": (sha256(b"adapter"),)}, Code.GATE_MODEL),
        ({"cnf": sha256(b"another host")}, Code.UPSTREAM_KEY),
        ({"vector": WARNING}, Code.GATE_STATUS),
        ({"vector": {"hardware": 97}}, Code.GATE_STATUS),
        ({"vector": {"hardware": 0}}, Code.GATE_STATUS),
    ],
)
def test_what_does_not_verify_closes(changes: dict[str, object], code: Code) -> None:
    bench = Bench.make()
    bench.affirm(2)
    fields: dict[str, object] = {"session": A, **changes}
    bench.hear(open_until(), token(**fields))  # type: ignore[arg-type]  # of a parametrised case
    assert bench.code() == code


def test_open_without_a_token_closes() -> None:
    bench = Bench.make()
    bench.affirm(2)
    bench.hear(open_until(), None)
    assert bench.code() == Code.FIELD_MISSING


@given(raw=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_open_and_none_raise(raw: bytes) -> None:
    bench = Bench.make()
    bench.hear(open_until(), raw)
    assert not bench.answer().allowed


def test_what_the_file_allows_is_allowed() -> None:
    sessions = document()["sessions"]
    sessions[0] |= {"adapters": [sha256(b"adapter").hex()], "cnf": {"unchecked": "the proxy has pinned it itself"}}
    bench = Bench.make(sessions=sessions, accept="warning")
    bench.affirm(vector=WARNING, adapters=(sha256(b"adapter"),), cnf=sha256(b"any key"))
    assert bench.answer().allowed


def test_what_nobody_asked_for_is_ignored() -> None:
    bench = Bench.make()
    bench.hear(open_until(), token(bytes(16)), bytes(16))
    bench.gate.holder.refuse(bytes(16), EnvironmentFault(Code.SESSION_UNKNOWN, "no such session"))
    assert bench.code(A, B) == Code.RESULT_ABSENT


def test_a_new_file_keeps_what_is_the_same_in_it() -> None:
    bench = Bench.make()
    bench.affirm(3, A)
    bench.affirm(3, B)
    sessions = document()["sessions"]
    sessions[1]["cnf"] = sha256(b"a new serving key").hex()
    verifiers = bench.verifiers
    bench.gate.take(gate_file(sessions=sessions), verifiers)
    assert bench.answer(A).allowed
    assert bench.code(B) == Code.RESULT_ABSENT
    bench.gate.take(gate_file(audience="https://other.example"), verifiers)
    assert bench.code(A) == Code.RESULT_ABSENT
    bench.gate.take(gate_file(), verifiers)
    bench.affirm(4)
    bench.gate.take(gate_file(), Verifiers.of(ANCHORS, None))
    assert bench.code(A) == Code.RESULT_ABSENT, "a key may have been taken back"


def test_a_new_file_or_key_opens_nothing_that_was_refused_or_has_ended() -> None:
    bench = Bench.make()
    bench.hear(shut("SESSION_FAILED", seq=None, state=GateState.ENDED))
    bench.hear(shut(seq=4), session=B)
    sessions = document()["sessions"]
    sessions[1]["adapters"] = [sha256(b"adapter").hex()]
    for file, verifiers in (
        (gate_file(sessions=sessions), bench.verifiers),
        (gate_file(sessions=sessions), Verifiers.of(ANCHORS, None)),
        (gate_file(accept="warning"), Verifiers.of(ANCHORS, None)),
    ):
        bench.gate.take(file, verifiers)
        assert bench.code(B) == Code.RESULT_ABSENT
        for seq in (3, 4):
            bench.affirm(seq, A)
            bench.affirm(seq, B)
            assert bench.code(A) == "SESSION_FAILED"
            assert bench.code(B) == Code.RESULT_ABSENT, "an earlier word that came late"
    bench.affirm(5, B)
    assert bench.answer(B).allowed


_EVENTS = st.one_of(
    st.tuples(st.just("advance"), st.integers(0, 30)),
    st.tuples(st.just("affirm"), st.integers(0, 9)),
    st.tuples(st.just("shut"), st.integers(0, 9)),
    st.tuples(st.just("wall"), st.integers(-40, 40)),
    st.tuples(st.just("steady"), st.integers(0, 40)),
)


@given(events=st.lists(_EVENTS, max_size=30))
def test_nothing_is_open_longer_than_the_rule_allows(events: list[tuple[str, int]]) -> None:
    """Whatever is said in whatever order, and however the wall clock is set: 17 s of the steady clock at most."""
    bench, last = Bench.make(), -(10**18)
    for kind, number in events:
        match kind:
            case "advance":
                bench.clocks.advance(number)
            case "affirm":
                bench.affirm(number)
                last = bench.clocks.steady_ns
            case "shut":
                bench.hear(shut(seq=number))
                last = -(10**18)
            case "wall":
                bench.clocks.wall_ns += number * SECOND
            case _:
                bench.clocks.steady_ns += number * SECOND
        if bench.answer().allowed:
            assert bench.clocks.steady_ns < last + LIFE_S * SECOND


def test_what_is_told_of_an_open_session() -> None:
    bench = Bench.make()
    bench.affirm()
    answer = bench.answer()
    assert answer.headers == {
        "x-weighbridge-result": f"{A.hex()}.3",
        "x-weighbridge-model": MODEL.hex(),
        "x-weighbridge-session": "a",
        "x-weighbridge-status": "affirming",
    }
    assert answer.document == {
        "schema": "weighbridge/gate/v1",
        "open": True,
        "name": "a",
        "session": A.hex(),
        "tenant": "acme",
        "model": MODEL.hex(),
        "result": f"{A.hex()}.3",
        "status": "affirming",
        "seq": 3,
        "cnf": CNF.hex(),
        "expires": "2026-06-01T12:00:17Z",
    }


def test_what_is_told_of_a_closed_one() -> None:
    bench = Bench.make()
    bench.hear(shut('ACME "MAINTENANCE"\r\nx: y', seq=4))
    answer = bench.answer()
    assert answer.headers == {}
    assert answer.challenge == 'Attestation error="acmemaintenancexy"'
    assert answer.document["reason"] == "for a reason"
    assert answer.body.endswith(b"}\n")


def test_sessions_that_are_open_take_turns() -> None:
    bench = Bench.make()
    bench.affirm(3, A)
    assert {bench.answer(A, B).headers["x-weighbridge-session"] for _ in range(4)} == {"a"}
    bench.affirm(5, B)
    assert [bench.answer(A, B).headers["x-weighbridge-session"] for _ in range(4)] in (["a", "b"] * 2, ["b", "a"] * 2)
    bench.hear(shut(seq=9))
    assert {bench.answer(A, B).headers["x-weighbridge-session"] for _ in range(4)} == {"b"}


def test_the_audience_is_that_of_the_file() -> None:
    assert Bench.make().gate.file.audience == AUDIENCE
