"""Several processes judge on one state: any of them takes any window, and what one has done holds for all."""

from __future__ import annotations

import sqlite3
import threading
import traceback
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from support.processes import another_process, one_recording
from support.world import WORK, Engines, FakeClock, World, manifest
from weighbridge.policy import policy_set
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied, WeighbridgeError
from weighbridge.verifier import kept_position, replay
from weighbridge.verifier.archive import Archive
from weighbridge.verifier.clearing import clear, clear_all
from weighbridge.verifier.clock import moment
from weighbridge.verifier.failures import Which
from weighbridge.verifier.leadership import FileLeadership
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.ledger.reader import LedgerReader
from weighbridge.verifier.live import LiveSessions
from weighbridge.verifier.record import Leaf, Record
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.steps import subjects_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from support.world import Host
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.verifier.answers import Answer
    from weighbridge.verifier.core import Verifier
    from weighbridge.verifier.settling import Judged


class PowerLost(BaseException):
    """Nothing after this point has happened."""


@pytest.fixture
def world(tmp_path: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """One session, one window behind it; ``world.verifier`` is process A."""
    # Behind which window it is kept where a session stands hangs on its identifier: here all are read again.
    monkeypatch.setattr(kept_position, "_is_due", lambda *_: False)
    made = World.make(tmp_path, engines=engines)
    made.open_session()
    assert made.window().verdict.outcome == "affirmed"
    yield made
    made.close()


@pytest.fixture
def other(world: World) -> Iterator[Verifier]:
    """Process B."""
    with another_process(world) as verifier:
        yield verifier


def next_windows(world: World) -> tuple[SealedWindow, SealedWindow]:
    """Two different windows of the same number, each honest by itself: a host that runs twice."""
    world.clock.advance(1)
    one = world.host.seal()
    return one, world.host.seal(replace(world.host.observe(), work=replace(WORK, root=bytes(range(32)))))


def judge(verifier: Verifier, host: Host, sealed: SealedWindow) -> Judged:
    return verifier.judge(host.session, sealed.evidence, peer=host.peer)


def settle(verifier: Verifier, judged: Judged) -> Answer:
    (settled,) = verifier.settle([judged])
    return settled()


def outcome(call: Callable[[], Answer]) -> str:
    """The verdict's word, the code of the denial, or of the refusal."""
    try:
        answer = call()
    except WeighbridgeError as error:
        # Shown where a test fails: which file, and from where.
        traceback.print_exc()
        return error.code.value
    return answer.verdict.denials[0].code if answer.verdict.denials else answer.verdict.outcome


def state_of(world: World, host: Host | None = None) -> tuple[SessionState, int]:
    with world.store.reading() as tx:
        row = tx.session((host or world.host).session)
    assert row is not None
    return row.state, row.next_seq


def verify_everything(world: World) -> list[Record]:
    """The whole tree, computed anew; the session's records, in the order of the ledger."""
    reader = LedgerReader.open(world.directory / "ledger", key=world.ledger.key, origin=world.ledger.key.name)
    assert audit(world.directory / "ledger", world.ledger.key, world.ledger.key.name).size == reader.checkpoint.size
    with world.store.reading() as tx:
        indices = tx.window_indices(world.host.session)
        assert tx.progress.settled() == reader.checkpoint.size
    chain = [world.archive.records.record(index) for index in indices]
    assert [record.seq for record in chain] == list(range(len(chain)))
    assert [record.previous for record in chain] == [None, *(record.window for record in chain[:-1])]
    leaves = [Leaf.parse(reader.entry(index)) for index in range(reader.checkpoint.size)]
    found = [
        world.archive.records.record(index)
        for index, leaf in enumerate(leaves)
        if leaf.kind == "window" and leaf.session == world.host.session
    ]
    # Of one number at most one went on: whatever else was judged of it is a denial.
    went_on = [record.seq for record in found if b'"outcome":"denied"' not in record.verdict]
    assert went_on == [record.seq for record in chain]
    return found


@pytest.mark.parametrize("act", ["prove", "close", "clear"])
def test_what_waits_for_its_turn_is_recorded_as_of_then(world: World, other: Verifier, act: str) -> None:
    """Process B records a window 5 s later than A has begun, while A waits: whoever monitors sees none back-dated."""
    two, gpu = world.another_host("two"), bytes(32)
    if act == "close":
        world.open_session(two)
    with world.store.transaction() as tx:
        tx.subjects.fail([("gpu", gpu)], code=Code.GPU_SIG, session=None, at_ns=0)
    enter, before, waited = FileLeadership.turn, world.clock.now(), list[str]()

    def turn(leadership: FileLeadership) -> AbstractContextManager[None]:
        if not waited:
            waited.append(act)
            world.clock.advance(5)
            settle(other, judge(other, world.host, world.host.seal()))
        return enter(leadership)

    with mock.patch.object(FileLeadership, "turn", turn):
        match act:
            case "prove":
                world.open_session(two)
            case "close":
                world.verifier.close(two.session, peer=two.peer)
            case _:
                clear(world.archive, world.store, "gpu", gpu, reason="a test", at=before)
    assert waited == [act]
    reader = world.ledger.reader()
    leaves = [Leaf.parse(reader.entry(index)) for index in range(reader.checkpoint.size)][-2:]
    assert [leaf.kind for leaf in leaves] == ["window", {"prove": "enrolment", "close": "closing"}.get(act, "clearing")]
    assert leaves[0].received_ns <= leaves[1].received_ns


def test_failures_are_cleared_together_between_the_windows_of_another(world: World, other: Verifier) -> None:
    """Of a fleet they take several turns, and between two of them a window is judged as ever; all is in the ledger."""
    gpus = [bytes([number]) * 32 for number in range(100)]
    with world.store.transaction() as tx:
        tx.subjects.fail([("gpu", gpu) for gpu in gpus], code=Code.GPU_SIG, session=None, at_ns=0)
    named, cleared = Which(code=Code.GPU_SIG), list[int]()
    world.verifier = other
    for some in clear_all(world.archive, world.store, named, reason="a test", at=world.clock.now()):
        assert world.window().verdict.outcome == "affirmed"
        cleared += [one.index for one in some]
    assert len(cleared) == len(gpus)
    # One was before, and one behind each turn.
    assert len(verify_everything(world)) > 2
    reader = world.ledger.published()
    leaves = [Leaf.parse(reader.entry(index)) for index in range(reader.checkpoint.size)]
    assert [index for index, leaf in enumerate(leaves) if leaf.kind == "clearing"] == cleared
    assert [leaf.received_ns for leaf in leaves] == sorted(leaf.received_ns for leaf in leaves)


def test_any_process_takes_any_window_and_reads_only_what_it_has_not_seen(world: World, other: Verifier) -> None:
    processes = [other, other, world.verifier, world.verifier, other, world.verifier]
    with mock.patch("weighbridge.verifier.restoring.replay_window", wraps=replay.replay_window) as replayed:
        for verifier, reads in zip(processes, [1, 0, 2, 0, 2, 1], strict=True):
            world.verifier, before = verifier, replayed.call_count
            answer = world.window()
            assert (answer.verdict.outcome, answer.token is None) == ("affirmed", False)
            assert replayed.call_count - before == reads
    assert len(verify_everything(world)) == 7


def test_the_same_window_at_both_is_recorded_once(world: World, other: Verifier) -> None:
    sealed, _ = next_windows(world)
    here, there = judge(world.verifier, world.host, sealed), judge(other, world.host, sealed)
    assert outcome(lambda: settle(other, there)) == "affirmed"
    assert outcome(lambda: settle(world.verifier, here)) == Code.WINDOW_DUPLICATE
    assert outcome(lambda: world.send(sealed.evidence)) == Code.WINDOW_DUPLICATE
    # Whoever heard of it resumes, wherever, and goes on.
    world.host.advance(sealed)
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    assert resumed.next_seq == 2
    world.host.challenge = resumed.challenge
    assert world.window().verdict.opens
    assert [record.seq for record in verify_everything(world)] == [0, 1, 2]


@pytest.mark.parametrize("first", ["here", "there"])
def test_a_fork_whose_heads_reach_two_processes_is_found(world: World, other: Verifier, first: str) -> None:
    one, two = next_windows(world)
    pair = [(world.verifier, judge(world.verifier, world.host, one)), (other, judge(other, world.host, two))]
    (winner, won), (loser, lost) = pair if first == "here" else reversed(pair)
    assert outcome(lambda: settle(winner, won)) == "affirmed"
    assert outcome(lambda: settle(loser, lost)) == Code.WINDOW_FORK
    assert state_of(world) == (SessionState.FAILED, 2)
    for verifier in (winner, loser):
        with pytest.raises(PolicyDenied) as refused:
            verifier.resume(world.host.session, peer=world.host.peer)
        assert refused.value.code is Code.SESSION_FAILED
    with pytest.raises(PolicyDenied, match="SUBJECT_FAILED"):
        world.host.enrol(winner)
    assert [record.seq for record in verify_everything(world)] == [0, 1, 1]


@pytest.mark.parametrize("same", [True, False], ids=["duplicate", "fork"])
def test_both_at_once(world: World, same: bool, request: pytest.FixtureRequest) -> None:
    """Two threads, each a process, over and over: whoever comes first is told, and the other one finds out."""
    engines = Engines()
    request.addfinalizer(engines.close)
    prepared = engines.load(policy_set.shipped(world.policy, reference=world.reference))
    own = world.appraiser
    world.prepared = prepared
    with another_process(world) as other:
        world.verifier = world.restart(own)
        for number in range(1, 5 if same else 2):
            one, two = next_windows(world)
            gate, found = threading.Barrier(2), [""] * 2

            def send(at: int, verifier: Verifier, data: bytes) -> None:
                gate.wait()  # noqa: B023 - both have ended before the next turn
                found[at] = outcome(lambda: verifier.window(world.host.session, data, peer=world.host.peer))  # noqa: B023

            threads = [
                threading.Thread(target=send, args=(0, world.verifier, one.evidence)),
                threading.Thread(target=send, args=(1, other, one.evidence if same else two.evidence)),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(found) == sorted(["affirmed", Code.WINDOW_DUPLICATE if same else Code.WINDOW_FORK])
            assert len(verify_everything(world)) == 1 + number + (not same)
            if same:
                world.host.advance(one)
                world.host.challenge = other.resume(world.host.session, peer=world.host.peer).challenge
    assert state_of(world)[0] is (SessionState.RUNNING if same else SessionState.FAILED)


@pytest.mark.parametrize("how", ["denied", "closed", "enrolled again"])
def test_what_ended_at_one_has_ended_at_all(world: World, other: Verifier, how: str) -> None:
    assert other.resume(world.host.session, peer=world.host.peer).next_seq == 1
    session = world.host.session
    if how == "denied":
        world.host.log.load(manifest("other", weights=b"other"))
        assert world.window().verdict.outcome == "denied"
    elif how == "closed":
        world.verifier.close(session, peer=world.host.peer)
    else:
        world.open_session()
    for act in (
        lambda: other.resume(session, peer=world.host.peer),
        lambda: other.judge(session, world.sent, peer=world.host.peer),
        lambda: other.close(session, peer=world.host.peer),
    ):
        with pytest.raises(PolicyDenied) as refused:
            act()
        assert refused.value.code is (Code.SESSION_FAILED if how == "denied" else Code.SESSION_STATE)
    assert not other.standing(session, world.clock.now()).expires_ns
    if how == "enrolled again":
        # The AK's chain goes on, wherever its windows are sent.
        world.verifier = other
        assert world.window().verdict.outcome == "affirmed"


def test_a_challenge_serves_once_wherever(world: World, other: Verifier) -> None:
    used = world.host.challenge
    assert other.resume(world.host.session, peer=world.host.peer).challenge != used
    # B has given out another one since: what was sealed under A's is held, at A as well.
    answer = world.window()
    assert (answer.verdict.outcome, answer.token) == ("held", None)
    world.host.challenge, world.verifier = used, other
    assert world.window().verdict.held
    assert world.window().verdict.opens


def test_a_challenge_given_out_between_judgement_and_record_counts(world: World, other: Verifier) -> None:
    world.clock.advance(1)
    sealed = world.host.seal()
    judged = judge(world.verifier, world.host, sealed)
    assert judged.verdict.opens
    fresh = other.resume(world.host.session, peer=world.host.peer).challenge
    answer = settle(world.verifier, judged)
    assert (answer.verdict.held, answer.verdict.opens) == (True, False)
    assert fresh != answer.challenge
    assert [record.held for record in verify_everything(world)] == [False, True]


@pytest.mark.parametrize("denied", [False, True])
def test_what_a_process_left_between_ledger_and_store_another_one_finishes(
    world: World, other: Verifier, *, denied: bool
) -> None:
    if denied:
        world.host.log.load(manifest("other", weights=b"other"))
    world.clock.advance(1)
    sealed = world.host.seal()
    with mock.patch.object(LiveSessions, "write", side_effect=PowerLost), pytest.raises(PowerLost):
        world.send(sealed.evidence)
    assert state_of(world) == (SessionState.RUNNING, 1)
    world.verifier = other
    if denied:
        with pytest.raises(PolicyDenied) as refused:
            world.verifier.resume(world.host.session, peer=world.host.peer)
        assert refused.value.code is Code.SESSION_FAILED
    else:
        # Another window in its place, judged before anybody has looked, is the fork all the same.
        with pytest.raises(NotAuthentic) as known:
            world.send(sealed.evidence)
        assert known.value.code is Code.WINDOW_DUPLICATE
        assert outcome(world.window) == Code.WINDOW_FORK
    assert state_of(world)[0] is SessionState.FAILED
    verify_everything(world)


def test_one_recording_that_two_hosts_send_to_two_processes_at_once_is_found(world: World, other: Verifier) -> None:
    """Each is judged before the other one is recorded."""
    one, two = world.another_host("one"), world.another_host("two")
    for host in (one, two):
        world.open_session(host)
    verdicts: list[str] = []
    while "denied" not in verdicts:
        assert len(verdicts) < 40
        pair = one_recording(world, one, two)
        judged = [judge(world.verifier, one, pair[0]), judge(other, two, pair[1])]
        assert [item.verdict.outcome for item in judged] == ["affirmed"] * 2
        for verifier, item, host, sealed in zip((world.verifier, other), judged, (one, two), pair, strict=True):
            answer = settle(verifier, item)
            verdicts.append(answer.verdict.outcome)
            host.advance(sealed)
            host.challenge = answer.challenge or b""
    assert verdicts[-2:] == ["affirmed", "denied"]
    assert (state_of(world, one)[0], state_of(world, two)[0]) == (SessionState.RUNNING, SessionState.FAILED)


def test_times_of_entries_do_not_run_back(world: World) -> None:
    """A process whose clock is behind judges nothing; what has waited long is judged as of now."""
    slow = FakeClock(world.clock.at)
    with another_process(world, clock=slow) as other:
        world.clock.advance(1)
        sealed = world.host.seal()
        waiting = judge(other, world.host, sealed)
        world.verifier.close(world.host.session, peer=world.host.peer)
        world.open_session()
        world.clock.advance(60)
        assert world.window().verdict.held
        with pytest.raises(EnvironmentFault) as behind:
            other.settle([waiting])
        assert behind.value.code is Code.CLOCK_STEPPED
        slow.at = world.clock.at
        # The first session of that host has ended meanwhile.
        assert outcome(lambda: settle(other, waiting)) == Code.SESSION_STATE


def test_what_waited_for_its_turn_is_judged_as_of_its_turn(world: World, other: Verifier) -> None:
    host = world.another_host("another")
    world.open_session(host)
    world.clock.advance(1)
    sealed = host.seal()
    waiting = judge(other, host, sealed)
    world.clock.advance(3)
    world.verifier.count_junk(NotAuthentic(Code.WINDOW_PEER, "a test"))
    world.verifier.record_junk()
    answer = settle(other, waiting)
    record = world.archive.records.record(answer.index)
    assert moment(record.received_ns) == world.clock.at == waiting.at + timedelta(seconds=3)


def test_a_failure_is_cleared_beside_a_process_that_serves(world: World, other: Verifier) -> None:
    world.host.log.load(manifest("other", weights=b"other"))
    assert world.window().verdict.outcome == "denied"
    assert world.host.terms is not None
    for kind, identity in subjects_of(world.host.terms.terms):
        clear(world.archive, world.store, kind, identity, reason="a test", at=world.clock.now())
    challenge = other.open(world.host.opening().encode(), peer=world.host.peer)
    with pytest.raises(PolicyDenied) as refused:
        other.prove(world.host.proof(challenge).encode(), peer=world.host.peer)
    # What is wrong now, and not what was.
    assert (refused.value.code, "SUBJECT_FAILED" in str(refused.value)) == (Code.WEIGHTS_MISMATCH, False)


def test_a_gate_that_one_has_shut_for_a_fault_opens_by_what_another_has_recorded(world: World, other: Verifier) -> None:
    """The disk of A fails under a denial that is not recorded; B, with other reference values, affirms that window."""
    sealed, _ = next_windows(world)
    judged = judge(world.verifier, world.host, sealed)
    refused = replace(judged, verdict=replace(judged.verdict, outcome="denied"))
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with (
        mock.patch.object(Archive, "commit_all", side_effect=full),
        pytest.raises(EnvironmentFault),
    ):
        world.verifier.settle([refused])
    assert world.verifier.standing(world.host.session, world.clock.now()).expires_ns is None
    world.verifier, shut = other, world.verifier
    assert world.deliver(sealed).verdict.opens
    assert shut.standing(world.host.session, world.clock.now()).expires_ns is not None


def test_what_others_have_ended_is_forgotten(world: World, other: Verifier) -> None:
    sessions: LiveSessions = other._sessions
    assert other.resume(world.host.session, peer=world.host.peer).next_seq == 1
    assert len(sessions._live) == 1
    world.verifier.close(world.host.session, peer=world.host.peer)
    other.record_junk()
    assert not sessions._live


@pytest.mark.parametrize(("first_is", "then"), [("denied", Code.SESSION_FAILED), ("affirmed", Code.WINDOW_FORK)])
def test_a_store_that_was_replaced_by_one_behind_is_caught_up_with_before_anything_is_judged(
    world: World, tmp_path: Path, first_is: str, then: Code
) -> None:
    """A database fails over to a copy without the last commit; the process that made it remembers better."""
    behind = tmp_path / "behind.sqlite"
    copy(tmp_path / "sessions.sqlite", behind)
    one, other = next_windows(world)
    if first_is == "denied":
        world.host.log.load(manifest("undeclared", weights=b"others"))
        one = world.host.seal()
    assert world.send(one.evidence).verdict.outcome == first_is
    copy(behind, tmp_path / "sessions.sqlite")
    assert outcome(lambda: world.send(other.evidence)) == then
    leaves = [Leaf.parse(world.ledger.entry(index)) for index in range(world.ledger.size)]
    if first_is == "denied":
        assert [leaf.window for leaf in leaves if leaf.seq == 1] == [one.digest]
    with world.store.reading() as tx:
        row = tx.session(world.host.session)
        assert row is not None
        failed = tx.subjects.of("ak", row.ak)
    assert row.state is SessionState.FAILED
    assert failed is not None
    assert failed.failed_code is not None


def copy(source: Path, target: Path) -> None:
    with sqlite3.connect(source) as read, sqlite3.connect(target) as written:
        read.backup(written)


def test_of_one_batch_no_entry_is_of_an_earlier_time_than_the_one_before(world: World, other: Verifier) -> None:
    """One of two is judged anew, since its session was resumed elsewhere; the other has waited as long."""
    first, second = world.host, world.another_host("second")
    world.open_session(second)
    world.clock.advance(1)
    judged = [judge(world.verifier, host, host.seal()) for host in (first, second)]
    other.resume(first.session, peer=first.peer)
    world.clock.advance(8)
    for settled in world.verifier.settle(judged):
        settled()
    times = [Leaf.parse(world.ledger.entry(index)).received_ns for index in range(world.ledger.size)]
    assert times == sorted(times)
