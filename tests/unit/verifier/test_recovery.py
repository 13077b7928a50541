"""A loss of power between ledger and store forgets no failure, and lets no other window take a judged one's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from support.world import World, manifest
from weighbridge.attester.sealing import SealedWindow
from weighbridge.policy.document import PolicyInput
from weighbridge.policy.engine import Decision, Outcome
from weighbridge.proto.errors import Code, EnvironmentFault, PolicyDenied
from weighbridge.verifier.live import LiveSessions
from weighbridge.verifier.session import SessionState


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
