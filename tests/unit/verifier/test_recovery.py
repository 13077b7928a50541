"""A loss of power between ledger and store forgets no failure, and lets no other window take a judged one's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from support.world import Host, World, manifest
from weighbridge.attester.sealing import SealedWindow
from weighbridge.policy.document import PolicyInput
from weighbridge.policy.engine import Decision, Outcome
from weighbridge.proto import cose, limits
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied
from weighbridge.proto.terms import TERMS_TYP, Terms
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier import recovery
from weighbridge.verifier.answers import Answer
from weighbridge.verifier.clearing import clear
from weighbridge.verifier.database import Conflict, prepared
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.live import LiveSessions
from weighbridge.verifier.record import Record
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.settling import Judged
from weighbridge.verifier.steps import subjects_of


class PowerLost(BaseException):
    """Nothing after this point has happened."""


def cut(world: World, method: str) -> SealedWindow:
    """The next judgement enters the ledger; the store never learns of it."""
    world.clock.advance(1)
    sealed = world.host.seal()
    with mock.patch.object(LiveSessions, method, side_effect=PowerLost), pytest.raises(PowerLost):
        world.verifier.window(world.host.session, sealed.evidence, peer=world.host.peer)
    world.restart()
    return sealed


def test_an_affirmed_window_is_in_the_chain_after_the_restart(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.open_session()
    world.window()
    world.host.advance(cut(world, "advance"))
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    assert resumed.next_seq == 2
    world.host.challenge = resumed.challenge
    assert world.window().verdict.outcome == "affirmed"
    world.close()


def test_another_window_of_its_number_is_a_fork(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.open_session()
    world.window()
    cut(world, "advance")
    answer = world.window()
    assert [denial.code for denial in answer.verdict.denials] == [Code.WINDOW_FORK]
    world.close()


def test_a_failure_is_not_forgotten(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.open_session()
    world.window()
    world.host.log.load(manifest("other", weights=b"other"))
    cut(world, "_write_end")
    with pytest.raises(PolicyDenied) as refused:
        world.verifier.resume(world.host.session, peer=world.host.peer)
    assert refused.value.code is Code.SESSION_FAILED
    with pytest.raises(PolicyDenied) as again:
        world.host.enrol(world.verifier)
    assert Code.SUBJECT_FAILED in str(again.value)
    world.close()


def test_a_refused_enrolment_sticks(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.host.log.load(manifest("other", weights=b"other"))
    with (
        mock.patch("weighbridge.verifier.enroller.Enroller._remember", side_effect=PowerLost),
        pytest.raises(PowerLost),
    ):
        world.host.enrol(world.verifier)
    world.restart()
    with pytest.raises(PolicyDenied, match="SUBJECT_FAILED"):
        world.host.enrol(world.verifier)
    world.close()


def test_a_closed_session_is_closed(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.open_session()
    world.window()
    with mock.patch.object(LiveSessions, "_write_end", side_effect=PowerLost), pytest.raises(PowerLost):
        world.verifier.close(world.host.session, peer=world.host.peer)
    world.restart()
    with world.store.transaction() as tx:
        row = tx.session(world.host.session)
    assert row is not None
    assert row.state is SessionState.CLOSED
    world.close()


def test_restarting_twice_changes_nothing(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.open_session()
    world.window()
    world.restart()
    world.restart()
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    assert resumed.next_seq == 1
    world.close()


def test_a_store_that_cannot_be_written_lets_no_failed_session_go_on(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.open_session()
    world.window()
    world.host.log.load(manifest("other", weights=b"other"))
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with mock.patch.object(LiveSessions, "_write_end", side_effect=full):
        with pytest.raises(EnvironmentFault):
            world.window()
        with pytest.raises(EnvironmentFault):
            world.verifier.resume(world.host.session, peer=world.host.peer)
    with pytest.raises(PolicyDenied) as refused:
        world.verifier.resume(world.host.session, peer=world.host.peer)
    assert refused.value.code is Code.SESSION_FAILED
    world.close()


@pytest.mark.parametrize("outcome", ["timeout", "crashed"])
def test_a_policy_without_a_decision_fails_nobody(tmp_path: Path, outcome: Outcome) -> None:
    world = World.make(tmp_path)
    world.open_session()
    world.window()
    decide = world.prepared.decide

    def undecided(document: PolicyInput) -> Decision:
        return replace(decide(document), outcome=outcome, denials=())

    sealed = world.host.seal()
    world.clock.advance(1)
    with mock.patch.object(world.prepared, "decide", undecided), pytest.raises(EnvironmentFault) as fault:
        world.verifier.window(world.host.session, sealed.evidence, peer=world.host.peer)
    assert fault.value.code in {Code.POLICY_TIMEOUT, Code.POLICY_CRASHED}
    answer = world.verifier.window(world.host.session, sealed.evidence, peer=world.host.peer)
    assert answer.verdict.outcome == "affirmed"
    world.close()


def test_samples_of_another_time_are_refused(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.open_session()
    world.window()
    world.host.wall_ns -= 3_600_000_000_000
    late = world.host.observe().telemetry
    world.host.wall_ns += 3_600_000_000_000
    answer = world.window(replace(world.host.observe(), telemetry=late))
    assert [denial.code for denial in answer.verdict.denials] == [Code.TELEMETRY_TIME]
    world.close()


# -- windows that are settled together ---------------------------------------------------------------------------------


def hosts(world: World, count: int) -> list[Host]:
    """As many hosts, each with a session, the declared model loaded, and one window behind it."""
    made = [world.host, *(world.another_host(f"host {number}") for number in range(1, count))]
    for host in made:
        world.open_session(host)
    world.clock.advance(1)
    for host in made:
        world.deliver(host.seal(), host=host)
    return made


def judged(world: World, made: list[Host]) -> list[tuple[SealedWindow, Judged]]:
    """The next window of each, judged and not settled."""
    world.clock.advance(1)
    sealed = [host.seal() for host in made]
    return [
        (window, world.verifier.judge(host.session, window.evidence, peer=host.peer))
        for host, window in zip(made, sealed, strict=True)
    ]


def standing(world: World, host: Host) -> tuple[SessionState, int]:
    with world.store.transaction() as tx:
        row = tx.session(host.session)
    assert row is not None
    return row.state, row.next_seq


def settled_to(world: World) -> int:
    with world.store.transaction() as tx:
        return tx.progress.settled()


def test_windows_are_settled_together(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    made = hosts(world, 3)
    size = world.ledger.size
    made[1].log.load(manifest("other", weights=b"other"))
    answers = [settled() for settled in world.verifier.settle([item for _, item in judged(world, made)])]
    assert [answer.verdict.outcome for answer in answers] == ["affirmed", "denied", "affirmed"]
    assert [answer.index for answer in answers] == [size, size + 1, size + 2]
    assert [answer.token is None for answer in answers] == [False, True, False]
    states = [SessionState.RUNNING, SessionState.FAILED, SessionState.RUNNING]
    assert [standing(world, host)[0] for host in made] == states
    assert settled_to(world) == world.ledger.size == size + 3
    assert world.verifier.settle([]) == ()
    world.close()


def test_two_windows_of_one_session_are_not(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    (host,) = hosts(world, 1)
    ((_, one),) = judged(world, [host])
    ((_, two),) = judged(world, [host])
    with pytest.raises(ValueError, match="one session"):
        world.verifier.settle([one, two])
    world.close()


@pytest.mark.parametrize("after", ["ledger", "part of the recovery"])
def test_a_loss_of_power_loses_none_of_them(tmp_path: Path, after: str) -> None:
    """All are in the ledger and none in the store: two go on, one has failed, whenever power fails again."""
    world = World.make(tmp_path)
    made = hosts(world, 3)
    made[1].log.load(manifest("other", weights=b"other"))
    windows = judged(world, made)
    with mock.patch.object(LiveSessions, "write", side_effect=PowerLost), pytest.raises(PowerLost):
        world.verifier.settle([item for _, item in windows])
    if after != "ledger":
        with mock.patch.object(LiveSessions, "_write_end", side_effect=PowerLost), pytest.raises(PowerLost):
            world.restart()
        assert settled_to(world) == world.ledger.size - 2
    world.restart()
    assert [standing(world, host) for host in made] == [
        (SessionState.RUNNING, 2),
        (SessionState.FAILED, 1),
        (SessionState.RUNNING, 2),
    ]
    assert settled_to(world) == world.ledger.size
    for host, (window, _) in zip(made, windows, strict=True):
        host.advance(window)
    host = made[2]
    host.challenge = world.verifier.resume(host.session, peer=host.peer).challenge
    world.clock.advance(1)
    assert world.deliver(host.seal(), host=host).verdict.opens
    with pytest.raises(PolicyDenied):
        made[1].enrol(world.verifier)
    world.close()


def test_what_the_store_could_not_be_told_of_is_finished_first(tmp_path: Path) -> None:
    """All of it, before whatever is recorded next, of whichever session: as after a restart."""
    world = World.make(tmp_path)
    made = hosts(world, 3)
    made[1].log.load(manifest("other", weights=b"other"))
    windows = judged(world, made[:2])
    size = world.ledger.size
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with mock.patch.object(LiveSessions, "_write_end", side_effect=full):
        with pytest.raises(EnvironmentFault):
            world.verifier.settle([item for _, item in windows])
        assert [standing(world, host) for host in made[:2]] == [(SessionState.RUNNING, 1)] * 2
        assert settled_to(world) == size
        # As long as it lasts, nobody is judged.
        with pytest.raises(EnvironmentFault):
            world.deliver(made[2].seal(), host=made[2])
        assert world.ledger.size == size + 2
    world.deliver(made[2].seal(), host=made[2])
    assert [standing(world, host) for host in made] == [
        (SessionState.RUNNING, 2),
        (SessionState.FAILED, 1),
        (SessionState.RUNNING, 2),
    ]
    assert settled_to(world) == world.ledger.size == size + 3
    with pytest.raises(NotAuthentic) as again:
        world.deliver(windows[0][0], host=made[0])
    assert again.value.code is Code.WINDOW_DUPLICATE
    world.close()


def test_what_the_store_has_against_one_concerns_it_alone(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    made = hosts(world, 2)
    windows = judged(world, made)
    with world.store.transaction() as tx:
        # Another replica has ended it meanwhile.
        tx.set_state(made[0].session, SessionState.CLOSED, at_ns=3_000)
    size = world.ledger.size
    refused, admitted = world.verifier.settle([item for _, item in windows])
    with pytest.raises(PolicyDenied) as ended:
        refused()
    assert ended.value.code is Code.SESSION_STATE
    assert admitted().verdict.opens
    # Nothing was recorded of what no session stands behind.
    assert world.ledger.size == size + 1
    assert [standing(world, host) for host in made] == [(SessionState.CLOSED, 1), (SessionState.RUNNING, 2)]
    world.close()


def test_nor_does_what_is_found_out_only_as_it_is_written(tmp_path: Path) -> None:
    """No row of the session shows it: somebody has moved the chain of its AK. The others are written all the same."""
    world = World.make(tmp_path)
    made = hosts(world, 3)
    made[2].log.load(manifest("other", weights=b"other"))
    windows = judged(world, made)
    terms = made[0].terms
    assert terms is not None
    with world.store.transaction() as tx:
        tx.subjects.advance(terms.terms.ak, head=bytes(32), log=LedgeredLog(0, 0, bytes(32)))
    refused, admitted, denied = world.verifier.settle([item for _, item in windows])
    with pytest.raises(Conflict):
        refused()
    assert admitted().verdict.opens
    assert not denied().verdict.opens
    states = [(SessionState.RUNNING, 1), (SessionState.RUNNING, 2), (SessionState.FAILED, 1)]
    assert [standing(world, host) for host in made] == states
    assert settled_to(world) == world.ledger.size
    world.close()


def test_a_turn_says_as_little_to_the_store_whatever_it_settles(tmp_path: Path) -> None:
    """Else what one process at a time does is as long as its windows are many."""
    world = World.make(tmp_path)
    made = hosts(world, 3)
    said: list[int] = []
    for some in (made[:1], made):
        windows = judged(world, some)
        with mock.patch.object(prepared, "_said_at_once", wraps=prepared._said_at_once) as batches:
            answers = [settled() for settled in world.verifier.settle([item for _, item in windows])]
        said.append(batches.call_count)
        for host, (window, _), answer in zip(some, windows, answers, strict=True):
            host.advance(window)
            host.challenge = answer.challenge or b""
    assert said[0] == said[1] <= 12
    world.close()


def test_samples_that_two_of_them_have_in_common_are_found(tmp_path: Path) -> None:
    """Else whoever has two hosts send one recording at the same time would never be found out."""
    world = World.make(tmp_path)
    one, two = world.host, world.another_host("another")
    for host in (one, two):
        # Idle samples are too much alike to be told apart.
        host.work = WorkSummary(root=bytes(32), requests=40, tokens_in=4000, tokens_out=4000, batch_max=40)
        world.open_session(host)
    copies: list[int] = []
    answers: list[Answer] = []
    while not any(copies):
        assert len(copies) < 20
        world.clock.advance(1)
        first = one.seal()
        assert one.terms is not None
        assert two.terms is not None
        names = dict(zip(one.terms.terms.gpus, two.terms.terms.gpus, strict=True))
        two.sampled[two.session, two.seq] = tuple(
            replace(source, device=None if source.device is None else names[source.device])
            for source in one.sampled[one.session, one.seq]
        )
        second = two.seal()
        items: list[Judged] = []
        for host, window in ((one, first), (two, second)):
            items.append(world.verifier.judge(host.session, window.evidence, peer=host.peer, beside=items))
        answers = [settled() for settled in world.verifier.settle(items)]
        copies.append(sum(len(answer.verdict.physical.history.copies) for answer in answers if answer.verdict.physical))
        for host, window, answer in zip((one, two), (first, second), answers, strict=True):
            host.advance(window)
            host.challenge = answer.challenge or b""
    assert [answer.verdict.outcome for answer in answers] == ["affirmed", "denied"]
    assert {denial.code for denial in answers[1].verdict.denials} == {Code.TELEMETRY_IMPLAUSIBLE}
    world.close()


def test_a_failure_that_was_cleared_does_not_come_back(tmp_path: Path) -> None:
    """A refused enrolment was the last judgement; the operator's act is behind it."""
    world = World.make(tmp_path)
    world.host.log.load(manifest("other", weights=b"other"))
    with pytest.raises(PolicyDenied):
        world.host.enrol(world.verifier)
    terms = forgive(world)
    world.restart()
    with world.store.transaction() as tx:
        subject = tx.subjects.of("ak", terms.ak)
    assert subject is not None
    assert subject.failed_code is None
    world.close()


def test_nor_does_one_that_was_cleared_while_a_recovery_was_cut_off(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.host.log.load(manifest("other", weights=b"other"))
    with (
        mock.patch("weighbridge.verifier.enroller.Enroller._remember", side_effect=PowerLost),
        pytest.raises(PowerLost),
    ):
        world.host.enrol(world.verifier)
    world.archive.commit(Record.note("closing", session=bytes(16), seq=0, received_ns=1, verdict=b"{}"), None)
    with (
        world.archive.turn(),
        mock.patch.object(recovery, "_concerns", side_effect=[True, PowerLost]),
        pytest.raises(PowerLost),
    ):
        recovery.settle(world.archive, world.store, world.verifier._sessions)
    terms = forgive(world)
    world.restart()
    with world.store.transaction() as tx:
        subject = tx.subjects.of("ak", terms.ak)
    assert subject is not None
    assert subject.failed_code is None
    world.close()


def forgive(world: World) -> Terms:
    """Clear those of the first entry, a refused enrolment; its terms."""
    record = world.archive.records.record(0)
    assert record.terms is not None
    terms = Terms.parse(cose.parse(record.terms, typ=TERMS_TYP, limit=limits.TERMS_MAX, what="terms").payload)
    for kind, identity in subjects_of(terms):
        clear(world.archive, world.store, kind, identity, reason="a test", at=world.clock.now())
    return terms
