"""A fault of the verifier's own machine judges nobody: the window comes again and the session goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Self

import pytest

from fakes.broken_files import Broken, FaultyFiles
from support.world import World
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier import store
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision


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
    monkeypatch.setattr(store, "_BUSY_SECONDS", 0.01)
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
            assert world.deliver(sealed).verdict.outcome == "affirmed", step
    assert failed is None
    assert step > faulty.count > 10
    world.files = None
    assert state_of(world) == (SessionState.RUNNING, step + 1)
    with world.store.transaction() as tx:
        indices = tx.window_indices(world.host.session)
    assert [world.archive.records.record(index).seq for index in indices] == list(range(step + 1))
    key = world.ledger.key
    assert audit(world.directory / "ledger", key, key.name).size == world.ledger.size
