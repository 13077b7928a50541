"""The verifier's durable state in PostgreSQL: as if one after another, whatever comes at once or goes away."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.spot import PoolEntry, SpotChallenge, SpotExpectation, SpotPool, SpotRange
from weighbridge.verifier import statements
from weighbridge.verifier.database import Conflict, PostgresAddress, database_at, turn
from weighbridge.verifier.database import postgres as driver
from weighbridge.verifier.database import server as servers
from weighbridge.verifier.database.postgres import PostgresDatabase
from weighbridge.verifier.database.prepared import Changes
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.postgres_leadership import PostgresLeadership
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.standing import Shut
from weighbridge.verifier.store import Issued, Store
from weighbridge.verifier.transaction import Move

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from support.postgres import Server
    from weighbridge.verifier.store import Transaction

SESSION, AK, GPU = bytes(16), sha256(b"ak"), sha256(b"gpu")
GENESIS: Final = sha256(b"genesis")
LOG: Final = LedgeredLog(5, 2, sha256(b"log"))


@pytest.fixture
def address(postgres: Server) -> PostgresAddress:
    made = postgres.database()
    Store.create(made)
    return made


@pytest.fixture
def stores(address: PostgresAddress) -> Iterator[tuple[Store, Store]]:
    """Two replicas', with one session."""
    with closing(Store.open(address)) as one, closing(Store.open(address)) as other:
        with one.transaction() as tx:
            tx.open_session(
                session=SESSION,
                tenant="tenant",
                ak=AK,
                gpus=[GPU],
                prev=GENESIS,
                enrolment_index=0,
                state=SessionState.ENROLLED,
                opened_ns=1,
            )
        yield one, other


def advance(tx: Transaction, window: bytes) -> None:
    move = Move(
        session=SESSION,
        ak=AK,
        before=SessionState.ENROLLED,
        seq=0,
        prev=GENESIS,
        after=SessionState.RUNNING,
        head=sha256(window),
        window=window,
        index=int.from_bytes(window[:4], "big"),
        held=False,
        received_ns=2,
        log=LOG,
    )
    tx.advance([move])


def at_once(*acts: Callable[[], object]) -> list[object]:
    """What each comes to, begun together; or what it raises."""
    ready = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> object:
        ready.wait()
        try:
            return act()
        except (Conflict, EnvironmentFault) as error:
            return error

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


@contextmanager
def refused(code: Code) -> Generator[None]:
    with pytest.raises(EnvironmentFault) as caught:
        yield
    assert caught.value.code is code, caught.value


# -- at once ----------------------------------------------------------------------------------------------------------


def test_of_two_heads_that_reach_two_replicas_at_once_one_is_taken(stores: tuple[Store, Store]) -> None:
    def taking(store: Store, window: bytes) -> None:
        with store.transaction() as tx:
            advance(tx, window)

    heads = [sha256(b"one"), sha256(b"other")]
    told = at_once(*(lambda s=store, w=window: taking(s, w) for store, window in zip(stores, heads, strict=True)))
    assert [type(item) for item in told if item is not None] == [Conflict]
    with stores[0].reading() as tx:
        row = tx.session(SESSION)
        assert row is not None
        assert (row.next_seq, tx.window_digest(SESSION, 0)) == (1, heads[told.index(None)])


@pytest.mark.usefixtures("stores")
def test_the_compare_and_swap_holds_without_the_lock_as_well(address: PostgresAddress) -> None:
    """Whoever writes without it, a later version or a hand, takes no window's place: the row itself is compared."""
    parameters = {
        "of_session": SESSION,
        "of_ak": AK,
        "expected_state": "enrolled",
        "expected_seq": 0,
        "expected_prev": GENESIS,
        "next_seq": 1,
        "prev": sha256(b"x"),
        "state": "running",
    }
    move = Changes()
    move.add(statements.ADVANCE_SESSION, [parameters], otherwise="moved on")
    engines = [PostgresDatabase.open(address) for _ in range(2)]
    with engines[0]._engine.begin() as first, ThreadPoolExecutor(1) as thread:
        move.write(first)

        def second() -> None:
            with engines[1]._engine.begin() as connection:
                move.write(connection)

        waiting = thread.submit(second)
        time.sleep(0.05)
        assert not waiting.done()
        first.commit()
        with pytest.raises(Conflict, match="moved on"):
            waiting.result()
    for engine in engines:
        engine.close()


def test_what_was_read_in_a_transaction_stays_so(stores: tuple[Store, Store]) -> None:
    """Counting by reading and writing loses nothing, though the statements see all that is committed meanwhile."""

    def count(store: Store) -> None:
        for _ in range(20):
            with store.transaction() as tx:
                subject = tx.subjects.of("ak", AK)
                assert subject is not None
                length = 0 if subject.log is None else subject.log.length
                tx.subjects.advance(AK, head=GENESIS, log=LedgeredLog(0, length + 1, bytes(32)))

    assert at_once(*[lambda s=store: count(s) for store in stores for _ in range(2)]) == [None] * 4
    with stores[0].reading() as tx:
        subject = tx.subjects.of("ak", AK)
    assert subject is not None
    assert subject.log == LedgeredLog(0, 80, bytes(32))


def test_whoever_reads_waits_for_nobody_and_sees_one_time(stores: tuple[Store, Store]) -> None:
    one, other = stores
    with other.reading() as seen, one.transaction() as tx:
        assert seen.window_digest(SESSION, 0) is None
        advance(tx, sha256(b"w"))
        with other.reading() as meanwhile:
            assert meanwhile.window_digest(SESSION, 0) is None
        tx._connection.commit()
        assert seen.window_digest(SESSION, 0) is None
    with other.reading() as after:
        assert after.window_digest(SESSION, 0) is not None


def test_a_challenge_serves_once_whichever_replica_is_asked(stores: tuple[Store, Store]) -> None:
    """Of two that are issued one is outstanding, and a spot challenge leaves with one of them."""
    pool = SpotPool(
        sha256(b"model"),
        "tiny",
        (PoolEntry(SpotExpectation(_challenge(), _challenge().answer([b"x"]).mac), (None,)),),
    )
    with stores[0].transaction() as tx:
        assert tx.spots.add(pool) == 1

    def issue(store: Store, name: bytes) -> object:
        with store.transaction() as tx:
            tx.challenges.issue([(SESSION, Issued(0, sha256(name), bytes(32), bytes(32), 5))])
            return tx.spots.spend(pool.manifest, issued=sha256(name), asked_ns=7)

    told = at_once(*(lambda s=store, n=name: issue(s, n) for store, name in zip(stores, (b"1", b"2"), strict=True)))
    assert sorted(item is None for item in told) == [False, True]
    with stores[0].reading() as tx:
        both = [tx.challenges.of(SESSION, sha256(name)) for name in (b"1", b"2")]
        assert tx.challenges.last(SESSION) in both
        assert [item is not None and item.spot is not None for item in both] == [item is not None for item in told]


def _challenge() -> SpotChallenge:
    return SpotChallenge(
        id=bytes(16), manifest=sha256(b"model"), key=bytes(32), ranges=(SpotRange("model.safetensors", 0, 1),)
    )


# -- gone and back ----------------------------------------------------------------------------------------------------


def test_a_server_that_goes_down_in_mid_work(postgres: Server, stores: tuple[Store, Store]) -> None:
    """As by a loss of power: what was left is there, what was not is not; and then it goes on with the same store."""
    one, other = stores
    with one.transaction() as tx:
        tx.subjects.advance(AK, head=GENESIS, log=LOG)
    try:
        with refused(Code.STATE_UNREACHABLE), other.transaction() as tx:
            advance(tx, sha256(b"w"))
            postgres.stop(signal.SIGQUIT)
        for act in (one.transaction, one.reading):
            with refused(Code.STATE_UNREACHABLE), act():
                pass
    finally:
        postgres.start()
    with one.transaction() as tx:
        subject = tx.subjects.of("ak", AK)
        assert subject is not None
        assert (subject.log, tx.window_digest(SESSION, 0)) == (LOG, None)
        advance(tx, sha256(b"w"))
    with other.reading() as tx:
        assert tx.window_digest(SESSION, 0) == sha256(b"w")


def test_lines_that_were_cut_while_nobody_used_them(postgres: Server, stores: tuple[Store, Store]) -> None:
    """Nothing had been begun: nobody hears of it."""
    for act in (stores[0].transaction, stores[0].reading):
        cut(postgres)
        with act() as tx:
            assert tx.session(SESSION) is not None
    cut(postgres)
    assert stores[0].look(lambda tx: tx.stood.one(SESSION)) is not None


def cut(server: Server) -> None:
    """Every connection of ours, by the server."""
    server.command(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'weighbridge' AND pid != pg_backend_pid()"
    )


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("53100", Code.DISK_FULL),
        ("25006", Code.STATE_FORBIDDEN),
        ("42501", Code.STATE_FORBIDDEN),
        ("40001", Code.STATE_LOCKED),
        ("40P01", Code.STATE_LOCKED),
        ("57014", Code.STATE_LOCKED),
        ("53300", Code.STATE_UNREACHABLE),
        ("XX001", Code.STATE_CORRUPT),
        ("58030", Code.STATE_CORRUPT),
    ],
)
def test_what_the_server_says_has_a_code(stores: tuple[Store, Store], state: str, code: Code) -> None:
    with refused(code), stores[0].transaction() as tx:
        tx.subjects.advance(AK, head=GENESIS, log=LOG)
        tx._connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$")
    with stores[0].reading() as tx:
        subject = tx.subjects.of("ak", AK)
        assert subject is not None
        assert subject.log is None


def test_nobody_waits_for_ever(stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers._SETTINGS, "lock_timeout", "50ms")
    stores[1].database._engine.dispose()  # type: ignore[attr-defined]
    with stores[0].transaction(), refused(Code.STATE_LOCKED), stores[1].transaction():
        pass
    with stores[1].transaction() as tx:
        assert tx.session(SESSION) is not None


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_does_not_keep_what_it_answers(postgres: Server, address: PostgresAddress, setting: str) -> None:
    try:
        postgres.command(f"ALTER SYSTEM SET {setting} = off")
        postgres.reload()
        with refused(Code.STATE_UNFIT):
            Store.open(address)
    finally:
        postgres.command(f"ALTER SYSTEM RESET {setting}")
        postgres.reload()
    Store.open(address).close()


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("synchronous_commit = off", Code.STATE_UNFIT),
        ("synchronous_commit = local", Code.STATE_UNFIT),
        ("default_transaction_read_only = on", Code.STATE_FORBIDDEN),
        ("search_path = nowhere", Code.STATE_FORBIDDEN),
    ],
)
def test_a_database_that_is_not_set_as_it_must_be(
    postgres: Server, address: PostgresAddress, setting: str, code: Code
) -> None:
    with psycopg.connect(address.url) as raw:
        postgres.command(f"ALTER DATABASE {raw.info.dbname} SET {setting}")
    with refused(code):
        Store.open(address)


def test_what_cannot_be_a_store(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.command("CREATE DATABASE narrow TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    with refused(Code.STATE_UNFIT):
        Store.create(postgres.address("narrow"))
    with refused(Code.STATE_UNREACHABLE):
        Store.open(postgres.address("nothing_of_this_name"))
    empty = postgres.database()
    with refused(Code.STATE_FOREIGN):
        Store.open(empty)
    with refused(Code.STATE_UNFIT):
        Store.open(PostgresAddress.parse(f"{empty.url}&sslmod=x"))
    # A role that may connect, and no more.
    postgres.command("CREATE ROLE stranger LOGIN")
    with refused(Code.STATE_FORBIDDEN):
        Store.create(PostgresAddress.parse(empty.url.replace("//weighbridge@", "//stranger@")))
    # Somebody hands connections round.
    monkeypatch.setattr(servers, "_LOOK", servers._LOOK.replace("pg_backend_pid()", "pg_backend_pid() + 1"))
    with refused(Code.STATE_UNFIT):
        Store.create(empty)


def test_text_that_postgresql_does_not_take(stores: tuple[Store, Store]) -> None:
    with stores[0].transaction() as tx:
        tx.results.keep({SESSION: Shut("policy_says", "with \0 in it", 3)})
        standing = tx.results.standing(SESSION)
    assert standing is not None
    assert standing.shut == Shut("policy_says", "with \N{REPLACEMENT CHARACTER} in it", 3)


# -- turns of leading -------------------------------------------------------------------------------------------------


@pytest.fixture
def leaders(stores: tuple[Store, Store]) -> tuple[PostgresLeadership, PostgresLeadership]:
    databases = [store.database for store in stores]
    assert isinstance(databases[0], PostgresDatabase)
    assert isinstance(databases[1], PostgresDatabase)
    return PostgresLeadership(databases[0]), PostgresLeadership(databases[1])


def test_one_leads_at_a_time(
    stores: tuple[Store, Store],
    leaders: tuple[PostgresLeadership, PostgresLeadership],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(RuntimeError):
        leaders[0].require()
    monkeypatch.setitem(servers._SETTINGS, "lock_timeout", "50ms")
    stores[1].database._engine.dispose()  # type: ignore[attr-defined]
    with leaders[0].turn():
        leaders[0].require()
        with pytest.raises(RuntimeError), leaders[0].turn():
            pass
        with refused(Code.LEDGER_LOCKED), leaders[1].turn():
            pass
        # Whoever does not lead may still write.
        with stores[1].transaction() as tx:
            tx.subjects.advance(AK, head=GENESIS, log=LOG)
        with stores[0].transaction() as tx:
            leaders[0].require()
            advance(tx, sha256(b"w"))
        leaders[0].require()
    with leaders[1].turn(), stores[1].transaction() as tx:
        assert tx.window_digest(SESSION, 0) == sha256(b"w")
    for leader in leaders:
        leader.close()


def test_a_turn_that_has_outlived_its_connection_writes_nothing(
    postgres: Server, stores: tuple[Store, Store], leaders: tuple[PostgresLeadership, PostgresLeadership]
) -> None:
    (one, other), (first, second) = stores, leaders

    def in_vain() -> None:
        with refused(Code.LEDGER_LOCKED):
            first.require()
        with refused(Code.LEDGER_LOCKED), one.transaction():
            pass

    with refused(Code.STATE_UNREACHABLE), first.turn(), one.transaction() as tx:
        advance(tx, sha256(b"late"))
        cut(postgres)
        # Meanwhile somebody else leads, and takes the same window.
        with second.turn(), other.transaction() as theirs:
            advance(theirs, sha256(b"in time"))
        with refused(Code.LEDGER_LOCKED):
            first.require()
    with first.turn():
        cut(postgres)
        in_vain()
        # Neither is another connection taken in its place.
        in_vain()
    with first.turn(), one.transaction() as tx:
        assert tx.window_digest(SESSION, 0) == sha256(b"in time")


def test_whoever_is_paused_in_his_turn_leads_no_more(
    stores: tuple[Store, Store],
    leaders: tuple[PostgresLeadership, PostgresLeadership],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "_SILENT_SECONDS", 1)
    # So is what beats for it.
    monkeypatch.setattr(turn, "_BEAT_SECONDS", 60)
    with leaders[0].turn():
        with leaders[1].turn(), stores[1].transaction() as tx:
            advance(tx, sha256(b"w"))
        with refused(Code.LEDGER_LOCKED):
            leaders[0].require()


def test_whoever_has_much_to_do_leads_on(
    leaders: tuple[PostgresLeadership, PostgresLeadership], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long session is made anew from its records in a turn, and the store is not asked meanwhile."""
    monkeypatch.setattr(driver, "_SILENT_SECONDS", 1)
    monkeypatch.setattr(turn, "_BEAT_SECONDS", 0.1)
    with leaders[0].turn():
        time.sleep(1.3)
        leaders[0].require()


def test_what_a_role_needs_that_owns_nothing(address: PostgresAddress) -> None:
    """As docs/store.md says: rows and numbers, and no table."""
    with psycopg.connect(address.url, autocommit=True) as owner:
        owner.execute("CREATE ROLE server LOGIN")
        owner.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO server")
        owner.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO server")
    served = PostgresAddress.parse(address.url.replace("//weighbridge@", "//server@"))
    with closing(Store.open(served)) as store, store.transaction() as tx:
        tx.subjects.fail([("ak", AK)], code=Code.TPM_RESET, session=None, at_ns=1)
        tx.subjects.clear("ak", AK, reason="a test", at_ns=2)
    with refused(Code.STATE_FORBIDDEN), closing(database_at(served)) as database, database.migrating() as connection:
        connection.exec_driver_sql("DROP TABLE clearances")


def test_another_threads_transactions_are_not_those_of_the_turn(
    stores: tuple[Store, Store], leaders: tuple[PostgresLeadership, PostgresLeadership]
) -> None:
    def process() -> int:
        with stores[0].transaction() as tx:
            found: int = tx._connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            return found

    with leaders[0].turn(), ThreadPoolExecutor(1) as thread:
        assert thread.submit(process).result() != process() == process()
