"""How sessions stand: no held window opens a gate, what is denied closes it at once, and expiry is exact."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from support.processes import another_process
from support.world import WORK, Engines, World, manifest
from weighbridge.policy.document import PolicyInput
from weighbridge.policy.engine import Decision, Denial
from weighbridge.proto import cbor
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.verifier.affirmed import Affirmed
from weighbridge.verifier.answers import Answer
from weighbridge.verifier.archive import Archive
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.live import LiveSessions
from weighbridge.verifier.relying_parties import RelyingParty
from weighbridge.verifier.result import verify
from weighbridge.verifier.result.claims import Claims
from weighbridge.verifier.result.serialisation import Serialisation
from weighbridge.verifier.result_source import Asked
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.standing import Shut, Standing, ended
from weighbridge.verifier.standings import Kept
from weighbridge.verifier.store import Store
from weighbridge.verifier.told import GateState, Told
from weighbridge.verifier.transaction import Transaction

NOON = datetime(2026, 11, 27, 12, 0, 0, 250_000, tzinfo=UTC)
SECOND = 1_000_000_000
SESSION = bytes(range(16))
CLAIMS = Claims(
    issuer="ledger.example/test",
    audience="relying-party",
    session=SESSION,
    tenant="tenant-a",
    seq=7,
    model=sha256(b"model"),
    adapters=(sha256(b"adapter"),),
    cnf=sha256(b"cnf"),
    policy=sha256(b"policy"),
    reference=sha256(b"reference"),
    nonces={"tpm0": sha256(b"nonce"), "gpu0": sha256(b"gpu")},
    vectors={"tpm0": {"hardware": 2, "configuration": -1}, "gpu0": {}},
    unchecked={"gpu_firmware": "nobody publishes it"},
    ledger_origin="ledger.example/test",
    ledger_index=9,
    ledger_leaf=sha256(b"leaf"),
)
AFFIRMED = Affirmed(claims=CLAIMS, received_ns=nanoseconds(NOON), period_ns=10 * SECOND, within=None)
PARTY = RelyingParty(name="gate", key="00" * 32, tenants=("tenant-a",), audiences=("relying-party", "another"))
ASKED = Asked(party=PARTY, audience="another", serialisation=Serialisation.EAR_04)


def standing(
    *, state: SessionState = SessionState.RUNNING, affirmed: Affirmed | None = AFFIRMED, shut: Shut | None = None
) -> Standing:
    return Standing(session=SESSION, tenant="tenant-a", state=state, affirmed=affirmed, shut=shut)


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_it_is_open_until_the_very_moment_of_expiry() -> None:
    # 17 s after the quarter second, rounded down to a whole one.
    expires = nanoseconds(NOON.replace(microsecond=0)) + 17 * SECOND
    assert AFFIRMED.expires_ns == expires
    told = standing().at(expires - 1)
    assert told == Told(
        state=GateState.OPEN, at_ns=expires - 1, expires_ns=expires, code=None, reason="", seq=CLAIMS.seq
    )
    shut = standing().at(expires)
    assert (shut.state, shut.code, shut.seq, shut.expires_ns) == (GateState.CLOSED, Code.TOKEN_EXPIRED, 7, None)
    for later in (1, SECOND, 10**6 * SECOND):
        assert standing().at(expires + later).code == Code.TOKEN_EXPIRED


@pytest.mark.parametrize(
    ("period_s", "within", "lifetime_s"), [(1, None, 3), (10, None, 17), (10, 5, 5), (3600, None, 120), (60, 100, 92)]
)
def test_it_expires_with_its_token(period_s: int, within: int | None, lifetime_s: int, tmp_path: Path) -> None:
    from weighbridge.verifier.keys import VerifierKeys  # noqa: PLC0415 - only here
    from weighbridge.verifier.result.issuing import issue_as  # noqa: PLC0415

    keys = VerifierKeys.create(tmp_path / "keys")
    affirmed = replace(AFFIRMED, period_ns=period_s * SECOND, within=within)
    assert affirmed.expires_ns == nanoseconds(NOON.replace(microsecond=0)) + lifetime_s * SECOND
    token = issue_as(Serialisation.EAR_04, affirmed.affirmation, keys.signing).decode()
    verified = verify(token, keys.signing.public_key(), audience="relying-party", at=NOON)
    assert nanoseconds(verified.expires) == affirmed.expires_ns


def test_a_clock_that_was_set_back_opens_nothing() -> None:
    assert standing().at(AFFIRMED.received_ns - SECOND).is_open
    told = standing().at(AFFIRMED.received_ns - SECOND - 1)
    assert (told.state, told.code) == (GateState.CLOSED, Code.CLOCK_STEPPED)


@pytest.mark.parametrize("state", [state for state in SessionState if state.final])
def test_a_session_that_has_ended_is_never_open(state: SessionState) -> None:
    for affirmed in (AFFIRMED, None):
        told = standing(state=state, affirmed=affirmed).at(AFFIRMED.received_ns)
        assert (told.state, told.expires_ns) == (GateState.ENDED, None)
        assert told.code == (Code.SESSION_FAILED if state is SessionState.FAILED else Code.SESSION_STATE)
    why = Shut(Code.MODEL_UNDECLARED, "a model was loaded that is not declared", 8)
    told = standing(state=state, affirmed=None, shut=why).at(0)
    assert (told.code, told.reason, told.seq) == (Code.MODEL_UNDECLARED, why.message, 8)


def test_before_the_first_good_window_it_waits() -> None:
    told = standing(affirmed=None, state=SessionState.ENROLLED).at(0)
    assert (told.state, told.code, told.seq) == (GateState.WAITING, Code.RESULT_ABSENT, None)


def test_what_is_shut_stays_shut_whatever_was_affirmed() -> None:
    told = standing(shut=ended(SessionState.FAILED)).at(AFFIRMED.received_ns)
    assert told.state is GateState.CLOSED


def test_only_the_time_makes_no_change() -> None:
    told = standing().at(AFFIRMED.received_ns)
    assert told.same_as(replace(told, at_ns=told.at_ns + 1))
    for change in ({"state": GateState.CLOSED}, {"expires_ns": 1}, {"code": "X"}, {"seq": 8}):
        assert not told.same_as(replace(told, **change))


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("within", [None, 1, 120])
def test_what_is_kept_is_read_as_it_was(within: int | None) -> None:
    kept = replace(AFFIRMED, within=within)
    assert Affirmed.parse(kept.encode()) == kept
    # A claim that is added to tokens and not kept would be missing from those that are made anew.
    assert len(cbor.read_map(cbor.decode(kept.encode(), limit=4096, what="kept"), where="kept").keys()) == (
        len(fields(Claims)) + len(fields(Affirmed))
    )


def flipped(at: int) -> bytes:
    data = bytearray(AFFIRMED.encode())
    data[at // 8 % len(data)] ^= 1 << at % 8
    return bytes(data)


@given(st.one_of(st.binary(max_size=64), st.integers(0, 10_000).map(flipped)))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        parsed = Affirmed.parse(data)
    except MalformedEvidence:
        return
    assert parsed.encode() == data
    assert parsed.expires_ns >= 0


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (0, "weighbridge/affirmed/v2", Code.VERSION_UNSUPPORTED),
        (1, 2**63, Code.FIELD_RANGE),
        (2, 2**62, Code.FIELD_RANGE),
        (3, 0, Code.FIELD_RANGE),
        (3, True, Code.FIELD_RANGE),
        (6, bytes(15), Code.FIELD_RANGE),
        (10, [bytes(31)], Code.FIELD_RANGE),
        (14, {1: bytes(32)}, Code.FIELD_TYPE),
        (15, {"tpm0": {"hardware": 128}}, Code.FIELD_RANGE),
        (15, {"tpm0": {2: 2}}, Code.FIELD_TYPE),
        (16, {"check": 1}, Code.FIELD_TYPE),
        (20, None, Code.FIELD_UNKNOWN),
    ],
)
def test_what_is_kept_is_read_strictly(key: int, value: object, code: Code) -> None:
    document = cbor.decode(AFFIRMED.encode(), limit=4096, what="kept")
    assert isinstance(document, dict)
    with pytest.raises(MalformedEvidence) as caught:
        Affirmed.parse(cbor.encode({**document, key: value}))
    assert caught.value.code is code


# -- sessions ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    made = Engines()
    yield made
    made.close()


@pytest.fixture
def world(tmp_path: Path, engines: Engines) -> Iterator[World]:
    made = World.make(tmp_path, engines=engines)
    made.open_session()
    yield made
    made.close()


def told(world: World, *, session: bytes | None = None) -> Told:
    return world.verifier.standing(session or world.host.session, world.clock.now())


def held(world: World) -> Answer:
    """A window that comes too late to count."""
    sealed = world.host.seal()
    world.clock.advance(2.5)
    return world.deliver(sealed)


def unusable(world: World) -> Answer:
    """A fresh window against which nothing speaks but that its samples do not suffice."""
    decide = world.prepared.decide
    denial = Denial(Code.TELEMETRY_UNUSABLE.value, None, None, None, None, None, "no samples of GPU 0")

    def undecided(document: PolicyInput) -> Decision:
        return replace(decide(document), outcome="deny", denials=(denial,))

    with mock.patch.object(world.prepared, "decide", undecided):
        return world.window()


def test_a_window_opens_and_its_token_is_made_anew(world: World) -> None:
    assert told(world).state is GateState.WAITING
    answer = world.window()
    now = told(world)
    assert (now.state, now.seq) == (GateState.OPEN, 0)
    world.clock.advance(1)
    result = world.verifier.results.result(world.host.session, ASKED)
    assert result.token is not None
    assert answer.token is not None
    key = world.keys.signing.public_key()
    anew = verify(result.token.decode(), key, audience="another", at=world.clock.now())
    first = verify(answer.token, key, audience="relying-party", at=world.clock.now())
    assert anew.payload == {**first.payload, "aud": "another"}
    assert nanoseconds(anew.expires) == now.expires_ns
    # Asked again: the same one, and no more time.
    assert world.verifier.results.result(world.host.session, ASKED).token == result.token


def test_a_restart_keeps_it(world: World) -> None:
    world.window()
    before = told(world)
    token = world.verifier.results.result(world.host.session, ASKED).token
    world.restart()
    assert told(world) == before
    again = world.verifier.results.result(world.host.session, ASKED).token
    assert token is not None
    assert again is not None
    assert again.rpartition(b".")[0] == token.rpartition(b".")[0]


def test_a_held_window_changes_nothing(world: World) -> None:
    assert held(world).verdict.outcome == "held"
    assert told(world).state is GateState.WAITING
    world.window()
    before = told(world)
    assert before.is_open
    assert held(world).verdict.outcome == "held"
    after = told(world)
    assert (after.seq, after.code) == (before.seq, None if after.is_open else Code.TOKEN_EXPIRED)
    unusable(world)
    held(world)
    assert told(world).code == Code.TELEMETRY_UNUSABLE


def test_a_window_that_does_not_open_closes_and_the_next_good_one_opens(world: World) -> None:
    world.window()
    assert unusable(world).verdict.outcome == "indeterminate"
    now = told(world)
    assert (now.state, now.code, now.reason, now.seq) == (
        GateState.CLOSED,
        Code.TELEMETRY_UNUSABLE,
        "no samples of GPU 0",
        1,
    )
    assert world.verifier.results.result(world.host.session, ASKED).token is None
    world.window()
    assert told(world).is_open


def test_a_denied_window_ends_it_at_once(world: World) -> None:
    world.window()
    world.host.log.load(manifest("other", weights=b"other"))
    assert world.window().verdict.outcome == "denied"
    now = told(world)
    assert (now.state, now.code, now.seq) == (GateState.ENDED, Code.WEIGHTS_MISMATCH, 1)


def test_a_closed_and_an_interrupted_session_are_over(world: World) -> None:
    world.window()
    old = world.host.session
    world.open_session()
    now = told(world, session=old)
    assert (now.state, now.code) == (GateState.ENDED, Code.SESSION_STATE)
    assert "interrupted" in now.reason
    world.window()
    assert told(world).is_open
    world.verifier.close(world.host.session, peer=world.host.peer)
    assert (told(world).state, told(world).code) == (GateState.ENDED, Code.SESSION_STATE)


def test_nobody_learns_whether_another_tenant_has_such_a_session(world: World) -> None:
    world.window()
    other = Asked(
        party=PARTY.model_copy(update={"tenants": ("b",)}), audience="another", serialisation=ASKED.serialisation
    )
    refusals: list[NotAuthentic] = []
    for session in (world.host.session, bytes(16)):
        with pytest.raises(NotAuthentic) as caught:
            world.verifier.results.result(session, other)
        refusals.append(caught.value)
    documents = [{**refusal.document(), "got": None} for refusal in refusals]
    assert documents[0] == documents[1]
    assert documents[0]["code"] == Code.SESSION_UNKNOWN


def test_what_is_kept_and_damaged_opens_nothing(world: World) -> None:
    world.window()
    path = world.directory / "sessions.sqlite"
    import sqlite3  # noqa: PLC0415 - only here

    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE results SET affirmed_seq = 5")
    connection.close()
    with pytest.raises(EnvironmentFault) as caught:
        told(world)
    assert caught.value.code is Code.STATE_CORRUPT


# -- faults ------------------------------------------------------------------------------------------------------------


class PowerLost(BaseException):
    """Nothing after this point has happened."""


def cut(world: World, act: Callable[[World], object] = World.window, method: str = "advance") -> None:
    with mock.patch.object(LiveSessions, method, side_effect=PowerLost), pytest.raises(PowerLost):
        act(world)
    world.restart()


def cut_and_resumed(world: World) -> None:
    """The next window is in the ledger, and nobody has answered; its attester goes on behind it."""
    world.clock.advance(1)
    sealed = world.host.seal()
    cut(world, lambda made: made.send(sealed.evidence))
    world.host.advance(sealed)
    world.host.challenge = world.verifier.resume(world.host.session, peer=world.host.peer).challenge


def test_an_affirmed_window_that_power_cut_off_leaves_the_gate_as_it_was(world: World) -> None:
    world.window()
    before = told(world)
    cut_and_resumed(world)
    after = told(world)
    assert (after.seq, after.expires_ns) == (before.seq, before.expires_ns)
    assert world.window().verdict.opens
    assert told(world).seq == 2


@pytest.mark.parametrize(("act", "code"), [(unusable, Code.TELEMETRY_UNUSABLE)])
def test_a_bad_window_that_power_cut_off_closes(world: World, act: Callable[[World], object], code: Code) -> None:
    world.window()
    cut(world, act)
    now = told(world)
    assert (now.state, now.code, now.seq) == (GateState.CLOSED, code, 1)


def test_a_denial_that_power_cut_off_ends_it(world: World) -> None:
    world.window()
    world.host.log.load(manifest("other", weights=b"other"))
    cut(world, method="_write_end")
    now = told(world)
    assert (now.state, now.code, now.seq) == (GateState.ENDED, Code.WEIGHTS_MISMATCH, 1)


def test_a_disk_that_fails_keeps_no_gate_open(world: World) -> None:
    """The row still says that it is open; whoever asks meanwhile is told otherwise."""
    world.window()
    heard: list[frozenset[bytes]] = []
    world.host.log.load(manifest("other", weights=b"other"))
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with (
        world.verifier.standings.told(heard.append),
        mock.patch.object(LiveSessions, "_write_end", side_effect=full),
        pytest.raises(EnvironmentFault),
    ):
        world.window()
    assert heard == [frozenset({world.host.session})]
    now = told(world)
    assert (now.state, now.code) == (GateState.CLOSED, Code.WEIGHTS_MISMATCH)
    with pytest.raises(Exception, match="SESSION_FAILED"):
        world.verifier.resume(world.host.session, peer=world.host.peer)
    assert told(world).state is GateState.ENDED


def test_a_ledger_that_fails_keeps_no_gate_open(world: World) -> None:
    """A denial that is not even recorded; when the window comes again, it is."""
    world.window()
    heard: list[frozenset[bytes]] = []
    world.host.log.load(manifest("other", weights=b"other"))
    sealed = world.host.seal()
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with (
        world.verifier.standings.told(heard.append),
        mock.patch.object(Archive, "commit_all", side_effect=full),
        pytest.raises(EnvironmentFault),
    ):
        world.send(sealed.evidence)
    assert heard == [frozenset({world.host.session})]
    now = told(world)
    assert (now.state, now.code) == (GateState.CLOSED, Code.WEIGHTS_MISMATCH)
    assert world.send(sealed.evidence).verdict.outcome == "denied"
    assert told(world).state is GateState.ENDED


def test_a_fork_shuts_the_gate_before_the_store_knows(world: World) -> None:
    """Its number is one that is affirmed already: that lifts nothing. What other processes affirm behind it does."""
    world.window()
    world.clock.advance(1)
    sealed, fork = world.host.seal(), world.host.seal(replace(world.host.observe(), work=replace(WORK, root=bytes(32))))
    world.deliver(sealed)
    world.window()
    assert told(world).is_open
    judged = world.verifier.judge(world.host.session, fork.evidence, peer=world.host.peer)
    assert judged.verdict.outcome == "denied"
    assert judged.verdict.seq < judged.stood.seq
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with mock.patch.object(Archive, "commit_all", side_effect=full), pytest.raises(EnvironmentFault):
        world.verifier.settle([judged])
    now = told(world)
    assert (now.state, now.code) == (GateState.CLOSED, Code.WINDOW_FORK)
    with another_process(world) as other:
        world.clock.advance(1)
        later = world.host.seal()
        assert other.window(world.host.session, later.evidence, peer=world.host.peer).verdict.opens
        assert told(world).is_open


def test_a_fork_that_is_judged_anew_shuts_the_gate_for_what_came_meanwhile(world: World) -> None:
    """It was judged before another process affirmed the window that the session waited for then."""
    world.window()
    world.clock.advance(1)
    sealed, fork = world.host.seal(), world.host.seal(replace(world.host.observe(), work=replace(WORK, root=bytes(32))))
    world.deliver(sealed)
    judged = world.verifier.judge(world.host.session, fork.evidence, peer=world.host.peer)
    with another_process(world) as other:
        world.clock.advance(1)
        later = world.host.seal()
        assert other.window(world.host.session, later.evidence, peer=world.host.peer).verdict.opens
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with mock.patch.object(Archive, "commit_all", side_effect=full), pytest.raises(EnvironmentFault):
        world.verifier.settle([judged])
    now = told(world)
    assert (now.state, now.code) == (GateState.CLOSED, Code.WINDOW_FORK)


def test_a_fork_that_another_process_finishes_shuts_the_gate_before_the_store_knows(world: World) -> None:
    world.window()
    world.clock.advance(1)
    sealed, fork = world.host.seal(), world.host.seal(replace(world.host.observe(), work=replace(WORK, root=bytes(32))))
    world.deliver(sealed)
    lost = mock.patch.object(LiveSessions, "_write_end", side_effect=PowerLost)
    with another_process(world) as other, lost, pytest.raises(PowerLost):
        other.window(world.host.session, fork.evidence, peer=world.host.peer)
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with mock.patch.object(LiveSessions, "_write_end", side_effect=full), pytest.raises(EnvironmentFault):
        world.verifier.resume(world.host.session, peer=world.host.peer)
    now = told(world)
    assert (now.state, now.code) == (GateState.CLOSED, Code.WINDOW_FORK)
    with pytest.raises(Exception, match="SESSION_FAILED"):
        world.verifier.resume(world.host.session, peer=world.host.peer)
    assert told(world).state is GateState.ENDED


def test_what_is_withheld_anew_is_not_given_back_for_what_was_withheld_before(world: World) -> None:
    world.window()
    standings, session = world.verifier.standings, world.host.session
    old, new = (Kept(Shut("X", words, 0), awaited) for words, awaited in (("old", 0), ("new", 1)))
    with standings.withholding({session: old}):
        pass
    reading = world.store.reading

    @contextlib.contextmanager
    def meanwhile() -> Generator[Transaction]:
        with reading() as tx:
            yield tx
        with standings.withholding({session: new}):
            pass

    with mock.patch.object(Store, "reading", side_effect=meanwhile):
        assert standings.of(session).shut is None
    assert standings.of(session).shut == new.shut


def test_listeners_hear_of_every_change_while_they_listen(world: World) -> None:
    heard: list[frozenset[bytes]] = []
    with world.verifier.standings.told(heard.append):
        world.window()
        assert heard == [frozenset({world.host.session})]
        old = world.host.session
        world.open_session()
        assert heard[1:] == [frozenset({old, world.host.session})]
    world.window()
    assert len(heard) == 2


# -- any order of events -----------------------------------------------------------------------------------------------

ACTS: dict[str, Callable[[World], Answer]] = {"good": World.window, "held": held, "unusable": unusable}
EVENTS = st.sampled_from([*ACTS, "restart", "wait", "cut"])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=1, max_size=6), denied=st.booleans())
def test_a_gate_is_open_exactly_by_the_rule(
    events: list[str], denied: bool, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = World.make(tmp_path_factory.mktemp("world"), engines=engines)
    world.open_session()
    expires: datetime | None = None
    for event in events:
        if event in ACTS:
            verdict = ACTS[event](world).verdict
            if verdict.opens:
                # Periods of a second: 3.5 s, rounded down.
                expires = (world.clock.now() + timedelta(seconds=3.5)).replace(microsecond=0)
            elif not verdict.held:
                expires = None
        elif event == "restart":
            world.restart()
        elif event == "cut":
            cut_and_resumed(world)
        else:
            world.clock.advance(1.25)
        now = world.clock.now()
        assert told(world).is_open == (expires is not None and now < expires)
        if expires is not None:
            kept = world.verifier.standings.of(world.host.session)
            before, after = kept.at(nanoseconds(expires) - 1), kept.at(nanoseconds(expires))
            assert (before.is_open, after.is_open) == (True, False)
            assert moment(before.expires_ns or 0) == expires
    if denied:
        world.host.log.load(manifest("other", weights=b"other"))
        assert world.window().verdict.outcome == "denied"
        assert told(world).state is GateState.ENDED
    world.close()
