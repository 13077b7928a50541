"""Judging windows: what is junk, what is a judgement, what is judged again, and what is a fault of this machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from unittest import mock

import pytest

from corpus.weights import OTHER
from support.forge import claim, random_bytes, seal
from support.processes import another_process, one_recording
from support.world import WORK
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, WeighbridgeError
from weighbridge.verifier.appraisal import decide_all
from weighbridge.verifier.hearing import Judged, Sent
from weighbridge.verifier.live import LiveSessions
from weighbridge.verifier.observed import Stage
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from corpus.arena import Arena
    from support.world import Host, World
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.policy.engine import Prepared
    from weighbridge.verifier.appraisal import Appraiser, Decided
    from weighbridge.verifier.case import Case
    from weighbridge.verifier.observed import Observer

FULL = EnvironmentFault(Code.DISK_FULL, "no space left")


class Asked:
    """Where changed reference values would come from: counts how often it is asked."""

    def __init__(self) -> None:
        self.times: list[datetime] = []

    def renew(self, at: datetime) -> Appraiser | None:
        self.times.append(at)
        return None


def sent(host: Host, sealed: SealedWindow) -> Sent:
    return Sent(host.session, sealed.evidence, host.peer)


def said(judged: Sequence[Judged | WeighbridgeError]) -> list[str]:
    """The word of each judgement, or the code of what was refused without one."""
    return [item.verdict.outcome if isinstance(item, Judged) else item.code.value for item in judged]


@pytest.fixture
def world(arena: Arena) -> World:
    return arena.settled(1)


@pytest.fixture
def hosts(arena: Arena, world: World) -> tuple[Host, Host]:
    """Two that send one recording: in the next window it is seen, if that of the first counts."""
    one, two = arena.another_host(world, "one"), arena.another_host(world, "two")
    for host in (one, two):
        world.open_session(host)
    for _ in range(3):
        pair = one_recording(world, one, two)
        items = [
            world.verifier.judge(host.session, it.evidence, peer=host.peer)
            for host, it in zip((one, two), pair, strict=True)
        ]
        for host, sealed, settled in zip((one, two), pair, world.verifier.settle(items), strict=True):
            answer = settled()
            assert answer.verdict.opens
            host.advance(sealed)
            host.challenge = answer.challenge or b""
    return one, two


def test_what_is_denied_counts_for_nobody_behind_it(world: World, hosts: tuple[Host, Host]) -> None:
    """Its samples are not remembered; those of the next, which goes on, are. Nothing new is taken up on the way."""
    one, two = hosts
    asked = Asked()
    world.verifier.follow(asked)
    world.host.log.load(OTHER)
    bad = sent(world.host, world.host.seal())
    recording = one_recording(world, one, two)
    pair = [sent(host, sealed) for host, sealed in zip(hosts, recording, strict=True)]
    junk = Sent(bytes(16), b"", b"")
    found = world.verifier.judge_all([bad, junk, *pair])
    assert said(found) == ["denied", "SESSION_UNKNOWN", "affirmed", "denied"]
    assert asked.times == [world.clock.at]
    one.log.load(OTHER)
    worse = sent(one, one.seal())
    found = world.verifier.judge_all([worse, pair[1]])
    assert said(found) == ["denied", "affirmed"]
    assert asked.times == [world.clock.at] * 2


def test_what_is_judged_anew_behind_one_that_is_denied_was_received_when_it_was(
    world: World, hosts: tuple[Host, Host]
) -> None:
    """However long a policy takes: nobody's window is late by that, and no entry is of an earlier time than before."""
    one, two = hosts
    _, copy = one_recording(world, one, two)
    one.log.load(OTHER)
    together = [sent(one, one.seal()), sent(two, copy), sent(world.host, world.host.seal())]
    received = world.clock.at

    def slow(policy: Prepared, cases: Sequence[Case]) -> list[Decided | EnvironmentFault]:
        world.clock.advance(6)
        return decide_all(policy, cases)

    with mock.patch("weighbridge.verifier.judging.decide_all", slow):
        found = world.verifier.judge_all(together)
    assert world.clock.at == received + timedelta(seconds=12)
    assert [item.at for item in found if isinstance(item, Judged)] == [received] * 3
    assert said(found)[:2] == ["denied", "affirmed"]


@pytest.mark.parametrize("session", [bytes(16), b"\xff" * 16])
def test_a_window_of_another_session_is_junk_here(world: World, session: bytes) -> None:
    with pytest.raises(NotAuthentic) as refusal:
        world.send(seal(world.host, claim(session=session)).evidence)
    assert (refusal.value.code, world.verifier.junk) == (Code.WINDOW_SESSION, 1)


def test_another_window_of_a_number_is_a_fork_whatever_its_digest(world: World) -> None:
    """Signed by the session's key it is no junk, but a judgement; the same window again is."""
    world.clock.advance(1)
    works = [replace(WORK, root=bytes([number]) * 32) for number in range(3)]
    sealed = [world.host.seal(replace(world.host.observe(), work=work)) for work in works]
    smaller, last, greater = sorted(sealed, key=lambda window: window.digest)
    world.deliver(last)
    forks = [smaller, greater]
    for fork in forks:
        judged = world.verifier.judge(*sent(world.host, fork)[:2], peer=world.host.peer)
        assert [denial.code for denial in judged.verdict.denials] == [Code.WINDOW_FORK]
        assert judged.verdict.held
    with pytest.raises(NotAuthentic) as refusal:
        world.send(last.evidence)
    assert refusal.value.code is Code.WINDOW_DUPLICATE


def test_a_window_under_a_challenge_that_nobody_gave_its_session_is_denied(arena: Arena) -> None:
    """Not even under one of this verifier's making: its enrolment's, or another session's."""
    world = arena.world()
    opening = world.verifier.open(world.host.opening().encode(), peer=world.host.peer)
    world.open_session()
    other = arena.another_host(world)
    world.open_session(other)
    world.clock.advance(1)
    for challenge in (random_bytes("of my own"), opening.challenge, other.challenge):
        window = seal(world.host, claim(challenge=challenge))
        judged = world.verifier.judge(world.host.session, window.evidence, peer=world.host.peer)
        assert [denial.code for denial in judged.verdict.denials] == [Code.CHALLENGE_UNKNOWN]


def full(*_: object, **__: object) -> Iterator[None]:
    """A stage that ends, behind its first step, since this machine is full."""
    yield
    raise FULL


@pytest.mark.parametrize("stage", ["authenticating", "verifying", "decide_all", "Keeper.keep"])
def test_a_fault_of_this_machine_judges_nobody(world: World, arena: Arena, stage: str) -> None:
    """It is told in its window's place, is no junk, and the window may come again."""
    other = arena.another_host(world)
    world.open_session(other)
    world.clock.advance(1)
    good, junk = sent(world.host, world.host.seal()), Sent(other.session, b"junk", other.peer)
    # Of several windows an engine tells of its faults one by one.
    others = {"decide_all": mock.Mock(return_value=[FULL]), "Keeper.keep": mock.Mock(side_effect=FULL)}
    with mock.patch(f"weighbridge.verifier.judging.{stage}", others.get(stage, full)):
        (found,) = world.verifier.judge_all([good])
        assert found is FULL
        with pytest.raises(EnvironmentFault):
            world.verifier.judge(good.session, good.data, peer=good.peer)
    assert world.verifier.junk == 0
    assert said(world.verifier.judge_all([good, junk])) == ["affirmed", "NOT_CBOR"]


def test_junk_counts_once_where_several_cannot_be_judged_together(world: World) -> None:
    """Each is judged by itself then, and counts there."""
    world.clock.advance(1)
    together = [Sent(world.host.session, b"junk", world.host.peer), sent(world.host, world.host.seal())]
    with (
        mock.patch("weighbridge.verifier.judging.decide_all", mock.Mock(side_effect=ZeroDivisionError)),
        pytest.raises(ZeroDivisionError),
    ):
        world.verifier.judge_all(together)
    assert world.verifier.junk == 0
    for one in together:
        world.verifier.judge_all([one])
    assert world.verifier.junk == 1


@pytest.mark.parametrize("asked", ["live.LiveSessions.find_all", "live.LiveSessions.recall_all", "judging.decide_all"])
def test_fewer_answers_than_windows_are_no_answers(world: World, asked: str) -> None:
    """A defect, and said as that: no window is left out, and none gets what is another one's."""
    world.clock.advance(1)
    window = sent(world.host, world.host.seal())
    with mock.patch(f"weighbridge.verifier.{asked}", return_value=[]), pytest.raises(ValueError, match="zip"):
        world.verifier.judge_all([window])


def test_a_judgement_that_has_to_be_made_again_takes_up_nothing_new(world: World) -> None:
    """It would begin a transaction in the middle of one."""
    asked = Asked()
    world.verifier.follow(asked)
    world.clock.advance(1)
    window = sent(world.host, world.host.seal())
    judged = world.verifier.judge(window.session, window.data, peer=window.peer)
    assert asked.times == [world.clock.at]
    with another_process(world) as other:
        other.resume(world.host.session, peer=world.host.peer)
    (settled,) = world.verifier.settle([judged])
    assert settled().verdict.held
    assert len(asked.times) == 1


def test_what_has_moved_is_judged_anew_a_few_at_a_time_each_behind_those_before(
    world: World, hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of a turn have: an engine has the time of one for those that it is asked about together."""
    windows = [world.host.seal(), *one_recording(world, *hosts)]
    three = (world.host, *hosts)
    judged = world.verifier.judge_all([sent(*pair) for pair in zip(three, windows, strict=True)])
    with another_process(world) as process:
        for host in three:
            process.resume(host.session, peer=host.peer)
    monkeypatch.setattr("weighbridge.verifier.settling.AT_ONCE", 2)
    with mock.patch("weighbridge.verifier.judging.decide_all", side_effect=decide_all) as asked:
        answers = [settled() for settled in world.verifier.settle([it for it in judged if isinstance(it, Judged)])]
    assert [len(call.args[1]) for call in asked.call_args_list] == [2, 1]
    # The last brings the samples of the one before it, which was in the group before.
    assert [answer.verdict.outcome for answer in answers] == ["held", "held", "denied"]


def test_a_policy_that_comes_to_nothing_when_it_is_asked_anew_is_one_windows_fault(world: World, arena: Arena) -> None:
    """Of a session that moved elsewhere: those that are settled beside it are recorded."""
    hosts = [world.host, arena.another_host(world)]
    world.open_session(hosts[1])
    world.clock.advance(1)
    judged = world.verifier.judge_all([sent(host, host.seal()) for host in hosts])
    assert said(judged) == ["affirmed"] * 2
    with another_process(world) as process:
        process.resume(world.host.session, peer=world.host.peer)
    slow = EnvironmentFault(Code.POLICY_TIMEOUT, "the policy engine gave no decision")
    with mock.patch("weighbridge.verifier.judging.decide_all", mock.Mock(return_value=[slow])):
        fault, settled = world.verifier.settle([item for item in judged if isinstance(item, Judged)])
    with pytest.raises(EnvironmentFault) as refusal:
        fault()
    assert refusal.value.code is Code.POLICY_TIMEOUT
    assert settled().verdict.opens


def test_what_verification_refused_stays_refused_whatever_is_remembered_since(world: World, arena: Arena) -> None:
    """Beside a window that has to be judged again: nothing was asked of the memory of GPUs for it."""
    other = arena.another_host(world)
    world.open_session(other)
    world.clock.advance(1)
    both = [sent(world.host, world.host.seal()), sent(other, seal(other, claim(prev=bytes(32))))]
    judged = [item for item in world.verifier.judge_all(both) if isinstance(item, Judged)]
    assert said(judged) == ["affirmed", "denied"]
    before = world.clock.at
    world.clock.advance(0.5)
    with another_process(world) as process:
        process.resume(world.host.session, peer=world.host.peer)
    answers = [settled() for settled in world.verifier.settle(judged)]
    assert [answer.verdict.outcome for answer in answers] == ["held", "denied"]
    assert answers[1].verdict.received == before
    with world.store.reading() as tx:
        row = tx.session(other.session)
    assert row is not None
    assert row.state is SessionState.FAILED


def test_the_memory_of_gpus_is_asked_once_for_windows_together(world: World, arena: Arena) -> None:
    """And once more as they are settled, if something has been recorded in between."""
    hosts = (world.host, arena.another_host(world))
    world.open_session(hosts[1])
    world.clock.advance(1)
    real = LiveSessions.recall_all
    with mock.patch.object(LiveSessions, "recall_all", autospec=True, side_effect=real) as asked:
        for times, meanwhile in ((1, False), (3, True)):
            windows = [host.seal() for host in hosts]
            found = world.verifier.judge_all([sent(*pair) for pair in zip(hosts, windows, strict=True)])
            assert said(found) == ["affirmed"] * 2
            if meanwhile:
                world.verifier.count_junk(NotAuthentic(Code.WINDOW_PEER, "a test"))
                world.verifier.record_junk()
            judged = [item for item in found if isinstance(item, Judged)]
            for host, window, settled in zip(hosts, windows, world.verifier.settle(judged), strict=True):
                host.advance(window)
                host.challenge = settled().challenge or b""
            world.clock.advance(1)
            assert asked.call_count == times


def test_windows_together_share_the_time_that_a_stage_takes(world: World, arena: Arena) -> None:
    other = arena.another_host(world)
    world.open_session(other)
    world.clock.advance(1)
    took: list[tuple[Stage, float]] = []
    noting = SimpleNamespace(took=lambda stage, seconds: took.append((stage, seconds)))
    world.verifier._judge._observer = cast("Observer", noting)
    clock = SimpleNamespace(perf_counter=mock.Mock(side_effect=[0.0, 1.0, 1.0, 4.0, 10.0, 25.0]))
    with mock.patch("weighbridge.verifier.observed.time", clock):
        world.verifier.judge_all([sent(host, host.seal()) for host in (world.host, other)])
    stages = (Stage.AUTHENTICATE, Stage.VERIFY, Stage.APPRAISE)
    assert took == [(stage, part) for stage, part in zip(stages, (0.5, 1.5, 7.5), strict=True) for _ in range(2)]
