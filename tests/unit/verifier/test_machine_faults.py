"""A fault of the verifier's own machine judges nobody: the window comes again and the session goes on."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Self
from unittest import mock

import pytest

from fakes.broken_files import Broken, FaultyFiles
from support.world import WORK, World
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, NotAuthentic, PolicyDenied
from weighbridge.verifier import store
from weighbridge.verifier.database import sqlite
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.ledger.storage import DirectoryStorage
from weighbridge.verifier.live import LiveSessions
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path
    from types import TracebackType

    from support.world import Host
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision
    from weighbridge.verifier.answers import Answer
    from weighbridge.verifier.settling import Judged
    from weighbridge.verifier.store import Transaction


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path)
    made.open_session()
    assert made.window().verdict.outcome == "affirmed"
    yield made
    made.close()


def state_of(world: World) -> tuple[SessionState, int]:
    with world.store.transaction() as tx:
        row = tx.session(world.host.session)
    assert row is not None
    return row.state, row.next_seq


class NoWorker:
    """A policy on a machine that starts no process any more."""

    def decide(self, document: PolicyInput) -> Decision:  # noqa: ARG002 - the protocol's
        raise EnvironmentFault(Code.COMMAND_FAILED, "cannot start the policy worker")

    def close(self) -> None:
        """Nothing was opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was opened."""


def test_no_policy_worker_is_no_verdict(world: World) -> None:
    good, world.prepared = world.prepared, NoWorker()
    world.restart()
    world.clock.advance(1)
    sealed = world.host.seal()
    with pytest.raises(EnvironmentFault) as caught:
        world.send(sealed.evidence)
    assert caught.value.code is Code.COMMAND_FAILED
    assert state_of(world) == (SessionState.RUNNING, 1)
    world.prepared = good
    world.restart()
    assert world.deliver(sealed).verdict.outcome == "affirmed"
    assert state_of(world) == (SessionState.RUNNING, 2)


def test_a_locked_store_is_no_verdict(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.01)
    world.store.close()
    world.store = store.Store.create_or_open(world.directory / "sessions.sqlite")
    world.restart()
    world.clock.advance(1)
    sealed = world.host.seal()
    with closing(sqlite3.connect(world.directory / "sessions.sqlite")) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(EnvironmentFault) as caught:
            world.send(sealed.evidence)
        assert caught.value.code is Code.STATE_LOCKED
    assert state_of(world) == (SessionState.RUNNING, 1)
    assert world.deliver(sealed).verdict.outcome == "affirmed"


@pytest.mark.parametrize("how", list(Broken))
def test_a_full_disk_at_any_step_loses_nothing(world: World, how: Broken) -> None:
    """Each write of content and ledger is refused once; the same window comes again and is in the chain once."""
    faulty = FaultyFiles(how=how)
    world.ledger.close()
    world.ledger = Ledger.open(
        world.directory / "ledger", origin="ledger.example/test", key=world.keys.ledger, files=faulty
    )
    world.files = faulty
    world.restart()
    step = 0
    failed: Code | None = Code.DISK_FULL
    while failed is Code.DISK_FULL:
        step += 1
        world.clock.advance(1)
        sealed = world.host.seal()
        faulty.arm(step)
        failed = None
        try:
            world.send(sealed.evidence)
        except EnvironmentFault as fault:
            failed = fault.code
            try:
                assert world.deliver(sealed).verdict.outcome == "affirmed", step
            except NotAuthentic as known:
                # It was recorded all the same, and has been carried out by now.
                assert known.code is Code.WINDOW_DUPLICATE  # noqa: PT017 - one of two good ends
                world.host.advance(sealed)
                world.host.challenge = world.verifier.resume(world.host.session, peer=world.host.peer).challenge
    assert failed is None
    assert step > faulty.count > 8
    world.files = None
    assert state_of(world) == (SessionState.RUNNING, step + 1)
    with world.store.transaction() as tx:
        indices = tx.window_indices(world.host.session)
    assert [world.archive.records.record(index).seq for index in indices] == list(range(step + 1))
    key = world.ledger.key
    assert audit(world.directory / "ledger", key, key.name).size == world.ledger.size


@pytest.mark.parametrize("step", ["commit_staged", "publish_staged"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_denial_that_was_reported_as_not_recorded_is_not_forgotten(
    world: World, step: str, *, restarted: bool
) -> None:
    """The disk fails once the head is there. Another session goes on; then an honest window is sent in its place."""
    other = world.another_host("another")
    world.open_session(other)
    world.clock.advance(1)
    honest = world.host.seal()
    denied = world.host.seal(replace(world.host.observe(), prev=bytes(32)))
    working = getattr(DirectoryStorage, step)

    def failing(storage: DirectoryStorage) -> None:
        working(storage)
        raise EnvironmentFault(Code.DISK_FULL, "broken on purpose")

    size = world.ledger.size
    with mock.patch.object(DirectoryStorage, step, failing), pytest.raises(EnvironmentFault):
        world.send(denied.evidence)
    # Something else that is recorded makes the ledger look at its disk.
    world.verifier.count_junk(NotAuthentic(Code.WINDOW_PEER, "a test"))
    world.verifier.record_junk()
    assert world.ledger.size == size + 2
    assert world.deliver(other.seal(), host=other).verdict.outcome == "affirmed"
    if restarted:
        world.restart()
    with pytest.raises(PolicyDenied) as refused:
        world.send(honest.evidence)
    assert refused.value.code is Code.SESSION_FAILED
    assert state_of(world) == (SessionState.FAILED, 1)


def test_no_other_window_takes_the_place_of_one_that_the_store_was_not_told_of(world: World) -> None:
    world.clock.advance(1)
    one = world.host.seal()
    two = world.host.seal(replace(world.host.observe(), work=replace(WORK, root=bytes(range(32)))))
    locked = EnvironmentFault(Code.STATE_LOCKED, "broken on purpose")
    with mock.patch.object(LiveSessions, "advance", side_effect=locked), pytest.raises(EnvironmentFault):
        world.send(one.evidence)
    answer = world.send(two.evidence)
    assert [denial.code for denial in answer.verdict.denials] == [Code.WINDOW_FORK]
    assert state_of(world) == (SessionState.FAILED, 2)


def test_a_ledger_that_was_put_back_is_not_written_to(world: World, tmp_path: Path) -> None:
    """The state beside it knows of more: whoever goes on from there signs a second history."""

    def put_back() -> None:
        world.ledger.close()
        shutil.rmtree(tmp_path / "ledger")
        shutil.copytree(tmp_path / "old", tmp_path / "ledger")
        world.ledger = Ledger.open(tmp_path / "ledger", origin="ledger.example/test", key=world.keys.ledger)

    shutil.copytree(tmp_path / "ledger", tmp_path / "old")
    newer = [world.window() for _ in range(2)]
    put_back()
    with pytest.raises(LedgerInconsistent) as caught:
        world.restart()
    assert caught.value.code is Code.LEDGER_ROLLBACK
    # Nor when something has been added to it since.
    for _ in newer:
        world.ledger.append([b"another entry"])
    with pytest.raises(LedgerInconsistent) as caught:
        world.restart()
    assert caught.value.code is Code.LEDGER_FORK


# -- windows that are settled together ---------------------------------------------------------------------------------


def settle(world: World, hosts: list[Host], sealed: list[SealedWindow]) -> list[Answer]:
    """The windows of all hosts arrive, are judged, and settled together."""
    judged: list[Judged] = []
    for host, window in zip(hosts, sealed, strict=True):
        judged.append(world.verifier.judge(host.session, window.evidence, peer=host.peer, beside=judged))
    return [settled() for settled in world.verifier.settle(judged)]


def verify_everything(world: World, hosts: list[Host], windows: int) -> None:
    """The whole tree, computed anew; each session's chain, each record and its evidence read back and hashed."""
    assert audit(world.directory / "ledger", world.ledger.key, world.ledger.key.name).size == world.ledger.size
    records = world.archive.records
    for host in hosts:
        with world.store.transaction() as tx:
            indices = tx.window_indices(host.session)
        found = [records.record(index) for index in indices]
        assert [record.seq for record in found] == list(range(windows))
        assert [record.previous for record in found] == [None, *(record.window for record in found[:-1])]
        assert all(records.evidence(record) for record in found)


def go_on(world: World, hosts: list[Host], sealed: list[SealedWindow]) -> None:
    """As attesters do: what the verifier does not have comes again, and all go on from where it stands."""
    missing: list[Judged] = []
    for host, window in zip(hosts, sealed, strict=True):
        try:
            missing.append(world.verifier.judge(host.session, window.evidence, peer=host.peer, beside=missing))
        except NotAuthentic as known:
            assert known.code is Code.WINDOW_DUPLICATE  # noqa: PT017 - one of two good ends
    for settled in world.verifier.settle(missing):
        try:
            assert settled().verdict.outcome == "affirmed"
        except NotAuthentic as known:
            # Found in the ledger at the beginning of the turn, and finished.
            assert known.code is Code.WINDOW_DUPLICATE  # noqa: PT017 - one of two good ends
    for host, window in zip(hosts, sealed, strict=True):
        host.advance(window)
        host.challenge = world.verifier.resume(host.session, peer=host.peer).challenge


@pytest.fixture
def hosts(world: World) -> list[Host]:
    """Two, each with one window behind it."""
    other = world.another_host("another")
    world.open_session(other)
    world.deliver(other.seal(), host=other)
    return [world.host, other]


@pytest.mark.parametrize("how", list(Broken))
def test_a_fault_at_any_step_of_a_turn_loses_nothing(world: World, hosts: list[Host], how: Broken) -> None:
    """Each write of content and ledger fails once; every other time the verifier is started anew then."""
    faulty = FaultyFiles(how=how)
    world.ledger.close()
    world.ledger = Ledger.open(
        world.directory / "ledger", origin="ledger.example/test", key=world.keys.ledger, files=faulty
    )
    world.files = faulty
    world.restart()
    step, failed = 0, True
    while failed:
        step += 1
        world.clock.advance(1)
        sealed = [host.seal() for host in hosts]
        faulty.arm(step)
        try:
            _ = settle(world, hosts, sealed)
            failed = False
        except EnvironmentFault as fault:
            assert fault.code is Code.DISK_FULL  # noqa: PT017 - the end of the loop is the turn that succeeds
        faulty.arm(0)
        if step % 2:
            world.ledger.settle()
            world.restart()
        go_on(world, hosts, sealed)
        verify_everything(world, hosts, step + 1)
    assert step > 8


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("persisted", [False, True])
def test_a_transaction_that_is_reported_as_failed(
    world: World, hosts: list[Host], *, persisted: bool, restarted: bool
) -> None:
    """Whether it is on disk or not, and whether the verifier is started anew: each window is in the chain once."""
    world.clock.advance(1)
    sealed = [host.seal() for host in hosts]
    transaction = world.store.transaction

    @contextlib.contextmanager
    def failing() -> Generator[Transaction]:
        settled = -1
        with transaction() as tx:
            before = tx.progress.settled()
            yield tx
            settled = tx.progress.settled()
            if settled != before and not persisted:
                raise EnvironmentFault(Code.DISK_FULL, "broken on purpose")
        if settled != before:
            raise EnvironmentFault(Code.DISK_FULL, "broken on purpose")

    with mock.patch.object(type(world.store), "transaction", side_effect=failing), pytest.raises(EnvironmentFault):
        settle(world, hosts, sealed)
    if restarted:
        world.restart()
    elif persisted:
        # The verifier looks before it judges again.
        with pytest.raises(NotAuthentic) as refused:
            settle(world, hosts, sealed)
        assert refused.value.code is Code.WINDOW_DUPLICATE
    go_on(world, hosts, sealed)
    world.clock.advance(1)
    assert [answer.verdict.outcome for answer in settle(world, hosts, [host.seal() for host in hosts])] == [
        "affirmed",
        "affirmed",
    ]
    verify_everything(world, hosts, 3)
