"""What ended long ago is taken out of the store, a few rows at a time, and is missed by nobody."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from unittest import mock

import pytest
import sqlalchemy as sa

from corpus.bundle import export
from support.ended import ENDED, INTERRUPTED, LIVE, fill, issued, rows
from support.processes import another_process
from support.spots import stock
from support.world import WORK, World, requirements
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.proto.spot import PoolEntry, SpotChallenge, SpotExpectation, SpotPool, SpotRange
from weighbridge.verifier import pruning, versions
from weighbridge.verifier.attestation_service import AttestationService
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.core import Verifier
from weighbridge.verifier.database import PostgresAddress, database_at
from weighbridge.verifier.endings import Endings, Held, Removed
from weighbridge.verifier.leading import Leader
from weighbridge.verifier.ledger.reader import LedgerReader
from weighbridge.verifier.metrics import Metrics
from weighbridge.verifier.observed import UNOBSERVED
from weighbridge.verifier.peers import Peers
from weighbridge.verifier.pruning import Batch, prune
from weighbridge.verifier.quotas import Quotas
from weighbridge.verifier.recorded_state import chain_of, recorded_sessions
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.service_limits import Limits
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.store import Conflict, Store
from weighbridge.verifier.tables import about, endings, upkeep, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from support.world import Engines
    from weighbridge.verifier.database import Address
    from weighbridge.verifier.leading import Turn

KEEP: Final = timedelta(days=30)
MONTH: Final = KEEP.total_seconds() + 1
MODEL: Final = sha256(b"model")


# -- rows, in either database -----------------------------------------------------------------------------------------


@pytest.fixture
def store(store_address: Address) -> Iterator[Store]:
    Store.create(store_address)
    with closing(Store.open(store_address)) as opened:
        yield opened


def spend(store: Store, session: bytes, seq: int) -> SpotPool:
    """Let a spot challenge leave with the challenge for window ``seq``; the pool that it came from."""
    challenge = SpotChallenge(
        id=bytes(16), manifest=MODEL, key=bytes(32), ranges=(SpotRange("model.safetensors", 0, 1),)
    )
    pool = SpotPool(MODEL, "model", (PoolEntry(SpotExpectation(challenge, challenge.answer([b"x"]).mac), (None,)),))
    with store.transaction() as tx:
        tx.spots.add(pool)
        assert tx.spots.spend(MODEL, issued=issued(session, seq).digest, asked_ns=1) is not None
    return pool


def remove(store: Store, *, before_ns: int, most: int = 1000) -> Removed:
    with store.transaction() as tx:
        return tx.endings.remove(before_ns=before_ns, most=most)


def test_of_what_ended_the_last_is_left_and_of_what_is_live_everything(store: Store) -> None:
    fill(store, ENDED, of=0)
    fill(store, INTERRUPTED, of=1)
    fill(store, LIVE, of=1)
    pool = spend(store, ENDED, 3)
    with store.transaction() as tx:
        tx.set_state(ENDED, SessionState.CLOSED, at_ns=5_000)
    with store.reading() as tx:
        before = [tx.session(session) for session in (ENDED, INTERRUPTED, LIVE)]
        # It was interrupted when the other one was opened.
        assert tx.endings.held() == (Held(1, 7, 2_000), Held(2, 14, 2_000))
        assert [tx.endings.count(before_ns=at) for at in (2_000, 2_001, 5_001)] == [0, 1, 2]
        assert tx.endings.rows(before_ns=2_001) == Removed(6, 7, 1)
        assert tx.endings.rows(before_ns=5_001) == Removed(12, 13, 2)
    assert remove(store, before_ns=2_000) == Removed()
    assert remove(store, before_ns=5_001, most=3) == Removed(3, 0, 0)
    assert rows(store, INTERRUPTED) == ([3, 4, 5, 6], list(range(8)))
    assert remove(store, before_ns=5_001, most=10) == Removed(3, 7, 0)
    assert remove(store, before_ns=5_001) == Removed(6, 6, 2)
    assert remove(store, before_ns=5_001) == Removed()
    # What a spot challenge left with stays: else it could be taken for one that is left.
    assert rows(store, ENDED) == ([6], [3, 7])
    assert rows(store, INTERRUPTED) == ([6], [7])
    assert rows(store, LIVE) == (list(range(7)), list(range(8)))
    with store.transaction() as tx:
        assert [tx.session(session) for session in (ENDED, INTERRUPTED, LIVE)] == before
        assert tx.endings.held()[1] == Held(0, 0, None)
        assert tx.challenges.last(ENDED) == issued(ENDED, 7)
        assert (tx.spots.add(pool), [count.left for count in tx.spots.counts()]) == (0, [0])


def test_what_the_session_itself_does_not_say_is_not_believed(store: Store) -> None:
    fill(store, LIVE, of=1)
    with store.transaction() as tx:
        tx.endings.add([LIVE], ended_ns=0)
        assert not tx.endings.due(before_ns=9_000, now_ns=9_000)
        assert tx.endings.remove(before_ns=9_000, most=9) == Removed()
    assert rows(store, LIVE) == (list(range(7)), list(range(8)))


def test_whoever_shares_a_store_shares_the_time(store: Store) -> None:
    fill(store, ENDED, of=0)
    with store.transaction() as tx:
        tx.set_state(ENDED, SessionState.FAILED, at_ns=1_000)
        tx.endings.next_at(7_000)
        assert [tx.endings.due(before_ns=1_001, now_ns=at) for at in (6_999, 7_000)] == [False, True]
        # Somebody's clock was ahead.
        tx.endings.next_at(7_000 + 61_000_000_000)
        assert tx.endings.due(before_ns=1_001, now_ns=6_999)
        assert not tx.endings.due(before_ns=1_000, now_ns=6_999)


KILLED: Final = """
import os, signal, sys
from pathlib import Path
from weighbridge.verifier.database import PostgresAddress, SqliteAddress
from weighbridge.verifier.endings import Endings
from weighbridge.verifier.store import Store

remove, done = Endings._remove, []
def dying(*given, **named):
    found = remove(*given, **named)
    done.append(found)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return found

Endings._remove = dying
where = sys.argv[1]
address = PostgresAddress.parse(where) if "://" in where else SqliteAddress(Path(where))
with Store.open(address).transaction() as tx:
    tx.endings.remove(before_ns=9000, most=1000)
"""


def test_a_process_that_is_killed_in_the_midst_has_done_nothing(store: Store, store_address: Address) -> None:
    fill(store, ENDED, of=0)
    fill(store, INTERRUPTED, of=1)
    fill(store, LIVE, of=1)
    with store.transaction() as tx:
        tx.set_state(ENDED, SessionState.CLOSED, at_ns=5_000)
    where = str(store_address) if isinstance(store_address, PostgresAddress) else str(store_address.path)
    killed = subprocess.run([sys.executable, "-c", KILLED, where], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert rows(store, INTERRUPTED) == rows(store, ENDED) == (list(range(7)), list(range(8)))
    assert sum(prune(store, before_ns=9_000), start=Removed()) == Removed(12, 14, 2)
    assert rows(store, INTERRUPTED) == rows(store, ENDED) == ([6], [7])


def test_a_store_of_version_11_goes_forward(store: Store, store_address: Address) -> None:
    """When its sessions ended nobody knows: not before their last window, or before they were opened."""
    fill(store, ENDED, of=0)
    fill(store, INTERRUPTED, of=1, count=0)
    fill(store, LIVE, of=1)
    with store.transaction() as tx:
        tx.set_state(ENDED, SessionState.CLOSED, at_ns=5_000)
    with closing(database_at(store_address)) as database:
        with database.migrating() as connection:
            for table in (endings, upkeep):
                table.drop(connection)
            connection.execute(sa.update(about).values(version=11))
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA user_version = 11")
        assert versions.migrate(database)[0] == 11
        assert versions.differences(database) == ()
    with store.reading() as tx:
        found = tx._connection.execute(sa.select(endings).order_by(endings.c.ended_ns)).all()
    assert [tuple(row) for row in found] == [(ENDED, 6), (INTERRUPTED, 1_000)]
    assert remove(store, before_ns=1_001) == Removed(6, 7, 2)


def test_as_many_rows_as_take_little_time() -> None:
    batch = Batch()
    for _ in range(20):
        batch.took(batch.most, 0.001)
    assert batch.most == Batch.MOST
    batch.took(batch.most, 0.2)
    assert batch.most == 410
    # Not all that might be: that says nothing of more.
    batch.took(100, 0.001)
    assert batch.most == 410
    for _ in range(20):
        batch.took(batch.most, 1.0)
    assert batch.most == Batch.LEAST


# -- a verifier -------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, engines: Engines) -> Iterator[World]:
    """A session of three windows, with spot checks."""
    made = World.make(tmp_path, engines=engines, wanted=requirements(spot_every=2))
    stock(made)
    keeping(made)
    made.open_session()
    for _ in range(3):
        assert made.window().verdict.opens
    yield made
    made.close()


def keeping(world: World, keep: timedelta | None = KEEP, metrics: Metrics | None = None) -> Verifier:
    """The verifier as it comes up again, told how long to keep rows."""
    with mock.patch("support.world.Verifier") as made:
        made.side_effect = lambda **options: Verifier(**options, keep_ended=keep, observer=metrics or UNOBSERVED)
        return world.restart()


def later(world: World, seconds: float = MONTH) -> None:
    world.clock.advance(seconds)
    world.host.wall_ns = nanoseconds(world.clock.at) - 1_000_000_000


def emptied(world: World) -> None:
    """All that is due is taken away."""
    for _ in range(20):
        pause = world.verifier.prune()
        world.clock.advance(pause)
        if pause == pruning._LOOK:
            return
    pytest.fail("there is no end of it")


def code_of(act: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        act()
    return refusal.value.code


def end(world: World, how: str) -> None:
    match how:
        case "closed":
            world.verifier.close(world.host.session, peer=world.host.peer)
        case "interrupted":
            again = replace(world.host)
            again.enrol(world.verifier)
        case _:
            world.host.prev = bytes(32)
            assert world.window().verdict.outcome == "denied"


@pytest.mark.parametrize("how", ["closed", "interrupted", "failed"])
def test_what_has_ended_is_refused_as_before(world: World, how: str) -> None:
    """The next window, one that is recorded, a fork of an old one; whoever asks, remembers it or does not."""
    host = replace(world.host)
    recorded = world.sent
    world.host.seq = 1
    forked = world.host.seal(replace(world.host.observe(), work=replace(WORK, root=bytes(range(32))))).evidence
    world.host.seq = host.seq
    following = world.host.seal().evidence
    end(world, how)
    acts: list[Callable[[], object]] = [
        *(lambda data=data: world.send(data, host=host) for data in (recorded, forked, following)),
        lambda: world.verifier.resume(host.session, peer=host.peer),
        lambda: world.verifier.close(host.session, peer=host.peer),
    ]
    before = [code_of(act) for act in acts]
    assert set(before) == {Code.SESSION_FAILED if how == "failed" else Code.SESSION_STATE}
    told = world.verifier.standing(host.session, world.clock.now())
    shown, listed = export(world, session=host.session), sessions(world)
    entries = world.ledger.size
    later(world)
    with another_process(world) as remembering:
        emptied(world)
        assert rows(world.store, host.session) == ([2], [0, 2, 3])
        assert [code_of(act) for act in acts] == before
        assert code_of(lambda: remembering.window(host.session, forked, peer=host.peer)) == before[0]
        keeping(world)
        assert [code_of(act) for act in acts] == before
    assert world.ledger.size == entries
    assert replace(world.verifier.standing(host.session, world.clock.now()), at_ns=told.at_ns) == told
    # The ledger has it all: the same evidence, found there.
    assert export(world, session=host.session) == shown
    assert sessions(world) == listed


def sessions(world: World) -> list[object]:
    reader = reading(world)
    return [(item, chain_of(world.store, reader, item.session)) for item in recorded_sessions(world.store, reader)]


def reading(world: World) -> LedgerReader:
    return LedgerReader.open(world.directory / "ledger", key=world.ledger.key, origin=world.ledger.key.name)


def test_what_was_judged_before_its_session_ended_is_not_recorded_when_its_rows_are_gone(world: World) -> None:
    """Another process closes it between the judgement and its turn, and an operator takes away all that has ended."""
    world.clock.advance(1)
    host, sealed = world.host, world.host.seal()
    judged = world.verifier.judge(host.session, sealed.evidence, peer=host.peer)
    assert judged.verdict.opens
    with another_process(world) as other:
        other.close(host.session, peer=host.peer)
    entries = world.ledger.size + 1
    assert sum(prune(world.store, before_ns=nanoseconds(world.clock.at) + 1), start=Removed()).windows == 2
    (settled,) = world.verifier.settle([judged])
    assert code_of(settled) is Code.SESSION_STATE
    assert world.ledger.size == entries


def test_what_is_live_loses_nothing_however_long_it_was_silent(world: World) -> None:
    later(world, 20 * MONTH)
    emptied(world)
    assert rows(world.store, world.host.session) == ([0, 1, 2], [0, 1, 2, 3])
    again = world.verifier.resume(world.host.session, peer=world.host.peer)
    assert again.next_seq == 3
    # Recorded long ago, and no fork.
    assert code_of(lambda: world.send(world.sent)) is Code.WINDOW_DUPLICATE


def test_nothing_goes_before_its_time_or_where_all_is_kept(world: World) -> None:
    metrics = Metrics(version="1")
    end(world, "closed")
    later(world, MONTH - 2)
    emptied(world)
    keeping(world, None)
    later(world)
    emptied(world)
    assert rows(world.store, world.host.session) == ([0, 1, 2], [0, 1, 2, 3])
    keeping(world, metrics=metrics)
    assert world.verifier.prune() != pruning._LOOK
    assert rows(world.store, world.host.session) == ([2], [0, 2, 3])
    for table, count in (("windows", 2), ("challenges", 1)):
        assert f'weighbridge_store_rows_removed_total{{table="{table}"}} {count}.0'.encode() in metrics.text({})


def test_of_two_processes_one_takes_away_what_is_due(world: World) -> None:
    """Both have looked: who comes second finds in its turn that somebody was there just now."""
    end(world, "closed")
    later(world)
    with another_process(world) as other:
        other._pruner._keep = KEEP
        world.verifier._pruner._batch.most = 2
        turn = Leader.turn

        def second(leader: Leader) -> AbstractContextManager[Turn]:
            if leader is other._leader:
                assert world.verifier.prune() != pruning._LOOK
            return turn(leader)

        with mock.patch.object(Leader, "turn", second):
            assert other.prune() == pruning._LOOK
    assert rows(world.store, world.host.session) == ([2], [0, 1, 2, 3])


@pytest.mark.parametrize("how", ["closed", "failed"])
def test_a_store_that_was_put_back_loses_them_again(world: World, tmp_path: Path, how: str) -> None:
    """To before the session ended: what the ledger says of that is carried out, as of then."""
    behind = tmp_path / "behind.sqlite"
    copy(tmp_path / "sessions.sqlite", behind)
    end(world, how)
    ended_ns = nanoseconds(world.clock.at)
    later(world)
    emptied(world)
    copy(behind, tmp_path / "sessions.sqlite")
    keeping(world)
    with world.store.reading() as tx:
        assert tx.endings.held() == (Held(0, 0, None), Held(1, 3, ended_ns))
    assert rows(world.store, world.host.session) == ([0, 1, 2], [0, 1, 2, 3])
    emptied(world)
    assert rows(world.store, world.host.session) == ([2], [0, 2, 3])
    assert code_of(lambda: world.send(world.sent)) in {Code.SESSION_STATE, Code.SESSION_FAILED}


def copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


def test_a_chain_that_the_ledger_does_not_have_is_none(world: World) -> None:
    session = world.host.session
    end(world, "closed")
    later(world)
    emptied(world)
    reader = reading(world)
    index = chain_of(world.store, reader, session)[1]
    for changed in (
        sa.update(windows).values(ledger_index=index),
        sa.update(windows).values(ledger_index=reader.checkpoint.size),
        sa.delete(windows),
    ):
        with world.store.transaction() as tx:
            tx._connection.execute(changed)
        assert code_of(lambda: chain_of(world.store, reader, session)) is Code.LEDGER_INCONSISTENT
    # It is not passed over in silence.
    assert [item.session for item in recorded_sessions(world.store, reader)] == [session]


def test_a_fault_takes_nothing_away_and_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    end(world, "closed")
    later(world)
    parties = Peers(RelyingParties.none())
    service = AttestationService(world.verifier, parties, Quotas(Limits()))
    for fault in (EnvironmentFault(Code.STATE_LOCKED, "a test"), Conflict("a test")):
        with mock.patch.object(Endings, "next_at", side_effect=fault):
            assert service._prune() > 0
        assert "nothing is taken out of the store for now" in capsys.readouterr().err
    assert rows(world.store, world.host.session) == ([0, 1, 2], [0, 1, 2, 3])
    assert service._prune() > 0
    assert rows(world.store, world.host.session) == ([2], [0, 2, 3])
    service.close()
