"""The verifier's durable state: forks are refused by the database, failures stick, restarting forgives nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.proto.spot import PoolEntry, SpotChallenge, SpotExpectation, SpotPool, SpotRange
from weighbridge.verifier.database import Address
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.spots import SpotCount
from weighbridge.verifier.store import Conflict, Issued, SessionRow, Store, Subject, Transaction
from weighbridge.verifier.transaction import Move

SESSION, OTHER = bytes(16), bytes([1] * 16)
AK, OTHER_AK = sha256(b"ak"), sha256(b"other ak")
GPUS = (sha256(b"gpu 0"), sha256(b"gpu 1"))
GENESIS = sha256(b"genesis")
LOG = LedgeredLog(5, 2, sha256(b"log"))


@pytest.fixture
def store(store_address: Address) -> Iterator[Store]:
    Store.create(store_address)
    opened = Store.open(store_address)
    yield opened
    opened.close()


def open_session(
    store: Store,
    session: bytes = SESSION,
    *,
    ak: bytes = AK,
    prev: bytes = GENESIS,
    gpus: tuple[bytes, ...] = GPUS,
    index: int = 0,
) -> tuple[bytes, ...]:
    with store.transaction() as tx:
        return tx.open_session(
            session=session,
            tenant="tenant",
            ak=ak,
            gpus=gpus,
            prev=prev,
            enrolment_index=index,
            state=SessionState.ENROLLED,
            opened_ns=1_000 + index,
        )


def link(seq: int) -> bytes:
    return GENESIS if seq == 0 else sha256(b"link %d" % seq)


def advance(
    tx: Transaction,
    session: bytes = SESSION,
    *,
    seq: int = 0,
    prev: bytes | None = None,
    state: SessionState = SessionState.RUNNING,
    index: int | None = None,
) -> None:
    move = Move(
        session=session,
        ak=AK,
        before=SessionState.RUNNING if seq else SessionState.ENROLLED,
        seq=seq,
        prev=link(seq) if prev is None else prev,
        after=state,
        head=link(seq + 1),
        window=sha256(b"window %d" % seq),
        index=100 + seq if index is None else index,
        held=False,
        received_ns=2_000,
        log=LOG,
    )
    tx.advance([move])


def test_a_chain_survives_a_restart(store: Store, store_address: Address) -> None:
    open_session(store)
    for seq in range(3):
        with store.transaction() as tx:
            advance(tx, seq=seq)
    store.close()
    again = Store.open(store_address)
    with again.transaction() as tx:
        assert tx.session(SESSION) == SessionRow(
            SESSION, "tenant", SessionState.RUNNING, AK, tuple(sorted(GPUS)), 1_000, 0, 3, link(3)
        )
        assert tx.window_indices(SESSION) == (100, 101, 102)
        assert [tx.window_digest(SESSION, seq) for seq in (1, 3)] == [sha256(b"window 1"), None]
        assert tx.subjects.of("ak", AK) == Subject("ak", AK, None, None, None, link(3), LOG)
        assert tx.subjects.of("gpu", GPUS[0]) == Subject("gpu", GPUS[0], None, None, None, None, None)
        assert tx.live_sessions() == (SESSION,)
        assert [row.id for row in tx.sessions()] == [SESSION]
        assert (tx.session(OTHER), tx.subjects.of("gpu", AK)) == (None, None)
    again.close()


def refused(store: Store, act: Callable[[Transaction], object]) -> None:
    with pytest.raises(Conflict), store.transaction() as tx:
        act(tx)


def test_forks_and_replays_are_refused_by_the_database(store: Store) -> None:
    """A55, A71: only the window that continues the chain advances it, whatever the caller believed."""
    open_session(store)
    with store.transaction() as tx:
        advance(tx)
    refused(store, advance)
    refused(store, lambda tx: advance(tx, seq=2))
    refused(store, lambda tx: advance(tx, seq=1, prev=sha256(b"elsewhere")))
    refused(store, lambda tx: advance(tx, OTHER))
    refused(store, lambda tx: advance(tx, seq=1, index=100))
    with store.transaction() as tx:
        row = tx.session(SESSION)
        assert row is not None
        assert (row.next_seq, row.prev) == (1, link(1))
        assert tx.window_indices(SESSION) == (100,)


def test_a_transaction_is_whole_or_nothing(store: Store) -> None:
    open_session(store)

    def half(tx: Transaction) -> None:
        advance(tx)
        raise Conflict("on purpose")

    refused(store, half)
    with store.transaction() as tx:
        row = tx.session(SESSION)
        assert row is not None
        assert row.next_seq == 0
        assert tx.window_indices(SESSION) == ()


def test_a_second_session_takes_the_chain_over(store: Store) -> None:
    """A50, A78: one AK has one head. The old session ends `interrupted`, and cannot advance beside the new one."""
    open_session(store)
    with store.transaction() as tx:
        advance(tx)
    with pytest.raises(Conflict, match="elsewhere"):
        open_session(store, OTHER, prev=GENESIS, index=1)
    assert open_session(store, OTHER, prev=link(1), index=1) == (SESSION,)
    refused(store, lambda tx: advance(tx, seq=1))
    with store.transaction() as tx:
        row = tx.session(SESSION)
        assert row is not None
        assert row.state is SessionState.INTERRUPTED
        assert tx.live_sessions() == (OTHER,)
    # Another AK is none of its business.
    assert open_session(store, bytes([2] * 16), ak=OTHER_AK, gpus=(), index=2) == ()


def test_a_head_that_moved_elsewhere_stops_the_session(store: Store) -> None:
    """A71: another writer has moved the head of this AK; the session's own row does not show it."""
    open_session(store)
    with store.transaction() as tx:
        tx.subjects.advance(AK, head=sha256(b"elsewhere"), log=LOG)
    refused(store, advance)
    refused(store, lambda tx: tx.subjects.advance(OTHER_AK, head=GENESIS, log=LOG))


def test_sessions_and_indices_are_used_once(store: Store) -> None:
    open_session(store)
    for session, index in ((SESSION, 1), (OTHER, 0)):
        with pytest.raises(Conflict):
            open_session(store, session, ak=OTHER_AK, index=index)


def test_states(store: Store) -> None:
    """A72: a final state is never left; an illegal step is a bug, not a conflict."""
    open_session(store)
    with pytest.raises(RuntimeError, match="illegal"), store.transaction() as tx:
        tx.set_state(SESSION, SessionState.OPENED, at_ns=3_000)
    with store.transaction() as tx:
        tx.set_state(SESSION, SessionState.FAILED, at_ns=3_000)
    refused(store, lambda tx: tx.set_state(SESSION, SessionState.RUNNING, at_ns=3_000))
    refused(store, lambda tx: tx.set_state(OTHER, SessionState.CLOSED, at_ns=3_000))
    refused(store, advance)
    with store.transaction() as tx:
        assert tx.live_sessions() == ()


def test_a_failure_sticks(store: Store, store_address: Address) -> None:
    """A78: to the AK and to each GPU, across restarts, with its first reason, until somebody clears it with one."""
    open_session(store)
    with store.transaction() as tx:
        tx.subjects.fail([("ak", AK), ("gpu", GPUS[0])], code=Code.TPM_RESET, session=SESSION, at_ns=7)
        tx.subjects.fail([("gpu", sha256(b"new"))], code=Code.GPU_SIG, session=None, at_ns=8)
        tx.subjects.fail([("ak", AK)], code=Code.WINDOW_FORK, session=OTHER, at_ns=9)
    store.close()
    again = Store.open(store_address)
    with again.transaction() as tx:
        failed = tx.subjects.of("ak", AK)
        assert failed is not None
        assert (failed.failed_code, failed.failed_ns, failed.failed_session) == (Code.TPM_RESET, 7, SESSION)
    for ak, gpus in ((AK, ()), (OTHER_AK, GPUS[:1])):
        with pytest.raises(PolicyDenied) as caught:
            open_session(again, OTHER, ak=ak, gpus=gpus, index=1)
        assert caught.value.code is Code.SUBJECT_FAILED
    with pytest.raises(ValueError, match="reason"), again.transaction() as tx:
        tx.subjects.clear("ak", AK, reason=" ", at_ns=10)
    with again.transaction() as tx:
        assert tx.subjects.clear("ak", AK, reason="TPM was replaced, ticket 12", at_ns=10) == failed
    refused(again, lambda tx: tx.subjects.clear("ak", AK, reason="again", at_ns=11))
    refused(again, lambda tx: tx.subjects.clear("ak", sha256(b"unknown"), reason="again", at_ns=11))
    open_session(again, OTHER, gpus=(), index=1)
    with again.transaction() as tx:
        rows = tx._connection.execute(sa.text("SELECT kind, failed_code, reason FROM clearances")).all()
        assert [tuple(row) for row in rows] == [("ak", "TPM_RESET", "TPM was replaced, ticket 12")]
    again.close()


def test_challenges(store: Store) -> None:
    open_session(store)
    first, second = (Issued(seq, sha256(b"c%d" % seq), bytes(32), sha256(b"r"), 5) for seq in (0, 1))
    with store.transaction() as tx:
        assert tx.challenges.last(SESSION) is None
        tx.challenges.issue([(SESSION, first)])
        tx.challenges.issue([(SESSION, second)])
    with store.transaction() as tx:
        assert tx.challenges.last(SESSION) == second
        assert tx.challenges.of(SESSION, first.digest) == first
        assert tx.challenges.of(OTHER, first.digest) is None
    refused(store, lambda tx: tx.challenges.issue([(SESSION, first)]))
    refused(store, lambda tx: tx.challenges.issue([(OTHER, Issued(0, sha256(b"x"), bytes(32), bytes(32), 5))]))


def test_a_spot_challenge_leaves_once_with_the_challenge_it_is_spent_for(store: Store) -> None:
    open_session(store)
    pool = spots(3)
    issued = [Issued(seq, sha256(b"c%d" % seq), bytes(32), sha256(b"r"), 5) for seq in range(4)]
    with store.transaction() as tx:
        assert tx.spots.counts() == ()
        assert tx.spots.add(pool) == 3
        assert tx.spots.add(pool) == 0
    for item, entry in zip(issued, pool.entries, strict=False):
        with store.transaction() as tx:
            tx.challenges.issue([(SESSION, item)])
            assert tx.spots.spend(pool.manifest, issued=item.digest, asked_ns=7) == entry.expectation
            assert tx.spots.spend(sha256(b"another model"), issued=item.digest, asked_ns=7) is None
    with store.transaction() as tx:
        tx.challenges.issue([(SESSION, issued[3])])
        assert tx.spots.spend(pool.manifest, issued=issued[3].digest, asked_ns=7) is None
        assert [tx.challenges.of(SESSION, item.digest) for item in issued] == [
            *(
                replace(item, spot=entry.expectation, asked_ns=7)
                for item, entry in zip(issued, pool.entries, strict=False)
            ),
            issued[3],
        ]
        assert tx.challenges.last(SESSION) == issued[3]
        assert tx.spots.counts() == (SpotCount(pool.manifest, "tiny", 0, 3),)


def test_a_spot_challenge_is_not_spent_without_a_challenge_to_leave_with(store: Store) -> None:
    open_session(store)
    pool = spots(2)
    first = Issued(0, sha256(b"c"), bytes(32), sha256(b"r"), 5)
    with store.transaction() as tx:
        tx.spots.add(pool)
    refused(store, lambda tx: tx.spots.spend(pool.manifest, issued=first.digest, asked_ns=7))
    with store.transaction() as tx:
        tx.challenges.issue([(SESSION, first)])
        tx.spots.spend(pool.manifest, issued=first.digest, asked_ns=7)
    # Nor do two leave with one.
    refused(store, lambda tx: tx.spots.spend(pool.manifest, issued=first.digest, asked_ns=7))
    with store.transaction() as tx:
        assert tx.spots.counts() == (SpotCount(pool.manifest, "tiny", 1, 1),)


def test_what_is_undone_was_not_spent(store: Store) -> None:
    open_session(store)
    pool = spots(1)
    first = Issued(0, sha256(b"c"), bytes(32), sha256(b"r"), 5)
    with store.transaction() as tx:
        tx.spots.add(pool)

    def undone(tx: Transaction) -> None:
        tx.challenges.issue([(SESSION, first)])
        assert tx.spots.spend(pool.manifest, issued=first.digest, asked_ns=7) is not None
        raise Conflict("on purpose")

    refused(store, undone)
    with store.transaction() as tx:
        assert tx.spots.counts() == (SpotCount(pool.manifest, "tiny", 1, 0),)
        assert tx.challenges.last(SESSION) is None


def spots(count: int) -> SpotPool:
    ranges = (SpotRange("model.safetensors", 0, 1),)
    challenges = [
        SpotChallenge(id=bytes([number]) * 16, manifest=sha256(b"model"), key=bytes(32), ranges=ranges)
        for number in range(count)
    ]
    entries = (PoolEntry(SpotExpectation(item, item.answer([b"x"]).mac), (None,)) for item in challenges)
    return SpotPool(sha256(b"model"), "tiny", tuple(entries))


def test_digests_have_their_length(store: Store) -> None:
    for ak, session in ((b"short", SESSION), (AK, b"short")):
        with pytest.raises(Conflict):
            open_session(store, session, ak=ak)


def test_misuse_stays_what_it_is(store: Store) -> None:
    with pytest.raises(exc.DBAPIError), store.transaction() as tx:
        tx._connection.exec_driver_sql("SELECT nothing FROM nowhere")
