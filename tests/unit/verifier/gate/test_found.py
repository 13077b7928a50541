"""Entries without a session: whichever has the serving key, the one that was affirmed last, and none that has ended."""

from __future__ import annotations

from typing import Any, Self

import hypothesis.strategies as st
import pytest
from hypothesis import given

from support.endorsed import FIRST, endorsement, key_set
from support.relying import (
    ANCHORS,
    CNF,
    MODEL,
    SECOND,
    STRANGER,
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
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.gate.verifiers import Verifiers
from weighbridge.verifier.told import GateState, Model

OF = Model("acme", MODEL)
OTHER_KEY = sha256(b"the other host's serving key")
LIFE_S = 17


def entries(**changes: object) -> list[dict[str, Any]]:
    """Two hosts, by their keys."""
    first, second = ({**one, "session": "any", **changes} for one in document()["sessions"])
    return [first, {**second, "cnf": OTHER_KEY.hex()}]


class Found(Bench):
    """A gate with entries of any session."""

    def tell(self, session: bytes, seq: int, **claims: object) -> None:
        now = self.clocks.wall_ns
        raw = token(session, seq, received_ns=now, **dict[str, Any](claims))
        self.gate.holder.hear_found(OF, session, open_until(now, seq=seq), raw, self.clocks.now())

    def shut(
        self, session: bytes, code: str = "QUOTE_NONCE", *, seq: int | None = 4, state: GateState = GateState.CLOSED
    ) -> None:
        told = shut(code, seq=seq, state=state)
        self.gate.holder.hear_found(OF, session, told, None, self.clocks.now())

    def of(self, name: str) -> str:
        """The session that an entry lets through to, or why to none."""
        answer = self.gate.check(self.gate.router.session(name))
        return answer.headers["x-weighbridge-result"] if answer.allowed else str(answer.code)

    @classmethod
    def with_hosts(cls) -> Self:
        return cls.make(sessions=entries())


def test_a_session_is_its_hosts_by_the_serving_key() -> None:
    bench = Found.with_hosts()
    assert bench.gate.holder.models == (OF,)
    assert bench.gate.holder.sessions == ()
    assert bench.of("a") == Code.RESULT_ABSENT
    bench.tell(A, 3)
    assert (bench.of("a"), bench.of("b")) == (f"{A.hex()}.3", Code.RESULT_ABSENT)
    bench.tell(B, 7, cnf=OTHER_KEY)
    assert (bench.of("a"), bench.of("b")) == (f"{A.hex()}.3", f"{B.hex()}.7")
    # Of a key that is not in the file.
    bench.tell(bytes(16), 1, cnf=sha256(b"a stranger"))
    assert (bench.of("a"), bench.of("b")) == (f"{A.hex()}.3", f"{B.hex()}.7")
    standing: Any = bench.gate.standing()
    assert [one["session"] for one in standing["sessions"]] == [A.hex(), B.hex()]


def test_a_host_that_is_enrolled_again_is_taken_up_and_the_old_session_is_dropped() -> None:
    bench = Found.with_hosts()
    bench.tell(A, 3)
    bench.clocks.advance(1)
    bench.tell(B, 0)
    assert bench.of("a") == f"{B.hex()}.0"
    bench.shut(A, code="SESSION_STATE", seq=None, state=GateState.ENDED)
    assert bench.of("a") == f"{B.hex()}.0"
    # An earlier word that came late, or from a replica that lags.
    bench.clocks.advance(1)
    bench.tell(A, 4)
    assert bench.of("a") == f"{B.hex()}.0"
    bench.shut(B, code="WEIGHTS_MISMATCH", seq=1, state=GateState.ENDED)
    assert bench.of("a") == "WEIGHTS_MISMATCH"
    assert not bench.gate.check((A,)).allowed
    assert bench.gate.check((B,)).code == Code.SESSION_STATE


def test_what_does_not_open_says_why_and_bars_what_came_before() -> None:
    bench = Found.with_hosts()
    bench.shut(A, code="QUOTE_NONCE", seq=5)
    for seq in (4, 5):
        bench.tell(A, seq)
        assert bench.of("a") == "QUOTE_NONCE"
    bench.tell(A, 6)
    assert bench.of("a") == f"{A.hex()}.6"
    bench.tell(A, 7, adapters=(sha256(b"adapter"),))
    assert bench.of("a") == Code.GATE_MODEL
    bench.tell(A, 8, model=sha256(b"another model"))
    assert bench.of("a") == Code.GATE_MODEL
    bench.tell(A, 9)
    bench.clocks.advance(LIFE_S)
    assert bench.of("a") == Code.TOKEN_EXPIRED


def test_a_token_that_cannot_be_read_is_the_reason_of_all_that_it_could_be_for() -> None:
    bench = Found.with_hosts()
    bench.tell(A, 3)
    bench.shut(A, code="SESSION_STATE", seq=None, state=GateState.ENDED)
    # The verifier has changed its key for tokens, and nobody has told this gate.
    bench.tell(B, 0, key=STRANGER)
    assert (bench.of("a"), bench.of("b")) == (Code.TOKEN_SIGNATURE, Code.TOKEN_SIGNATURE)
    bench.tell(B, 1)
    assert (bench.of("a"), bench.of("b")) == (f"{B.hex()}.1", Code.RESULT_ABSENT)
    # What is wrong with another host's session is no reason of theirs.
    bench.shut(bytes(16), code="QUOTE_NONCE")
    assert bench.of("b") == Code.RESULT_ABSENT


def test_an_entry_without_a_key_takes_any() -> None:
    sessions = entries(cnf={"unchecked": "the proxy has pinned it itself"})
    bench = Found.make(sessions=sessions)
    bench.tell(A, 3, cnf=sha256(b"any key"))
    bench.tell(B, 3, cnf=OTHER_KEY)
    assert (bench.of("a"), bench.of("b")) == (f"{A.hex()}.3", f"{B.hex()}.3")


def test_another_model_or_tenant_is_not_asked_for() -> None:
    bench = Found.with_hosts()
    for model in (Model("acme", sha256(b"another")), Model("other", MODEL)):
        raw = token(A, 3, received_ns=bench.clocks.wall_ns)
        bench.gate.holder.hear_found(model, A, open_until(bench.clocks.wall_ns), raw, bench.clocks.now())
    assert bench.of("a") == Code.RESULT_ABSENT


def test_a_new_file_keeps_what_is_the_same_and_forgets_no_end() -> None:
    bench = Found.with_hosts()
    bench.tell(A, 3)
    bench.shut(B, seq=None, state=GateState.ENDED)
    bench.gate.take(gate_file(sessions=entries()), bench.verifiers)
    assert bench.of("a") == f"{A.hex()}.3"
    # From any to one by name, and back: the end of B and what bars A go along.
    bench.shut(A, code="QUOTE_NONCE", seq=4)
    bench.gate.take(gate_file(), bench.verifiers)
    bench.affirm(4, A)
    bench.affirm(9, B)
    assert (bench.code(A), bench.code(B)) == (Code.RESULT_ABSENT, Code.SESSION_STATE)
    bench.gate.take(gate_file(sessions=entries()), Verifiers.of(ANCHORS, None))
    bench.tell(A, 4)
    bench.tell(B, 9)
    assert bench.of("a") == Code.RESULT_ABSENT
    bench.tell(A, 5)
    assert bench.of("a") == f"{A.hex()}.5"


def test_a_found_session_closes_when_the_key_of_its_token_is_taken_out() -> None:
    bench = Found.with_hosts()
    bench.tell(A, 3, key=FIRST)
    assert bench.of("a") == Code.TOKEN_SIGNATURE
    bench.gate.learn(key_set(endorsement(FIRST)))
    bench.tell(A, 3, key=FIRST)
    bench.tell(B, 3, cnf=OTHER_KEY)
    assert (bench.of("a"), bench.of("b")) == (f"{A.hex()}.3", f"{B.hex()}.3")
    bench.gate.learn(key_set())
    assert (bench.of("a"), bench.of("b")) == (Code.TOKEN_SIGNATURE, f"{B.hex()}.3")
    bench.tell(A, 4)
    assert bench.of("a") == f"{A.hex()}.4"


_EVENTS = st.lists(
    st.tuples(st.sampled_from(["affirm", "shut", "end", "advance"]), st.sampled_from([A, B]), st.integers(0, 9)),
    max_size=25,
)


@given(events=_EVENTS)
def test_nothing_that_has_ended_or_expired_is_open(events: list[tuple[str, bytes, int]]) -> None:
    bench = Found.with_hosts()
    over: set[bytes] = set()
    last: dict[bytes, int] = {}
    barred: dict[bytes, int] = {}
    for kind, session, number in events:
        match kind:
            case "affirm":
                bench.tell(session, number)
                last[session] = bench.clocks.steady_ns
            case "shut":
                bench.shut(session, seq=number)
                barred[session] = max(number, barred.get(session, -1))
            case "end":
                bench.shut(session, seq=None, state=GateState.ENDED)
                over.add(session)
            case _:
                bench.clocks.advance(number)
        answer = bench.gate.check(bench.gate.router.session("a"))
        if answer.allowed:
            found, seq = answer.headers["x-weighbridge-result"].split(".")
            shown = bytes.fromhex(found)
            assert shown not in over
            assert int(seq) > barred.get(shown, -1)
            assert bench.clocks.steady_ns < last[shown] + LIFE_S * SECOND


@pytest.mark.parametrize("changed", [{"cnf": CNF.hex()}, {"cnf": CNF.hex(), "name": "c"}])
def test_two_entries_of_any_session_differ_in_model_or_key(changed: dict[str, str]) -> None:
    first, second = entries()
    with pytest.raises(MalformedEvidence):
        gate_file(sessions=[first, {**second, **changed}])
