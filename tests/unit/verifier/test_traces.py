"""What is remembered of GPUs beyond their sessions: a window never finds itself, and what is old goes first."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from support.mutations import inputs
from weighbridge.proto import cbor
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.store import Store
from weighbridge.verifier.tables import pasts
from weighbridge.verifier.telemetry.detector.evidence import START, SessionEvidence
from weighbridge.verifier.telemetry.history import NOTHING, Copy, History, Reading, Trace
from weighbridge.verifier.telemetry.past import Past
from weighbridge.verifier.telemetry.remains import Remains
from weighbridge.verifier.traces import Beside, Brought

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.verifier.database import Address

FIRST, SECOND = bytes(16), bytes([1] * 16)
GPU, OTHER = sorted((sha256(b"gpu 0"), sha256(b"gpu 1")))
KEPT: Final = 100
# An equal part of two GPUs, less an eighth.
LEAST: Final = 44
HOURLY: Final = 1_000
HOUR_NS: Final = 3_600_000_000_000


@pytest.fixture
def store(store_address: Address) -> Iterator[Store]:
    Store.create(store_address)
    opened = Store.open(store_address, fingerprints_kept=KEPT)
    with opened.transaction() as tx:
        for number, session in enumerate((FIRST, SECOND)):
            tx.open_session(
                session=session,
                tenant="tenant",
                ak=sha256(session),
                gpus=[sha256(b"elsewhere" + session)],
                prev=bytes(32),
                enrolment_index=number,
                state=SessionState.ENROLLED,
                opened_ns=number,
            )
    yield opened
    opened.close()


def trace(*fingerprints: int, device: bytes = GPU, first_seq: int = 0, reading: tuple[int, int] | None = None) -> Trace:
    return Trace(device=device, first_seq=first_seq, fingerprints=fingerprints, hourly=HOURLY, reading=reading)


def keep(store: Store, seq: int, *traces: Trace, session: bytes = FIRST, at_ns: int = 0) -> None:
    with store.transaction() as tx:
        tx.traces.remember([Brought(session, seq, traces, (), at_ns)])


def recall(store: Store, seq: int, *traces: Trace, session: bytes = SECOND) -> History:
    with store.transaction() as tx:
        return tx.traces.recall(session, seq, traces)


def test_nothing_is_remembered_of_what_never_came(store: Store) -> None:
    assert recall(store, 0, trace(1, 2, reading=(5, 6)), trace(device=OTHER)) == NOTHING
    assert recall(store, 0) == NOTHING


def test_samples_of_another_session_are_found_again(store: Store) -> None:
    keep(store, 3, trace(1, 2, 2**64 - 1))
    keep(store, 4, trace(2, 3, first_seq=3))
    found = recall(store, 9, trace(2, 3, 2**64 - 1, device=OTHER))
    assert found.copies == (Copy(device=OTHER, original=GPU, session=FIRST, seq=3, matches=3),)


def test_what_comes_beside_a_window_counts_with_what_came_before_it(store: Store) -> None:
    """Of what two hosts send at once, half may have been in the window before: it is found as if one came first."""
    keep(store, 3, trace(1))
    coming = Beside(FIRST, 4, (trace(2, first_seq=4),))
    asked = trace(1, 2, device=OTHER)
    with store.transaction() as tx:
        together = tx.traces.recall(SECOND, 0, [asked], beside=[coming])
    keep(store, 4, *coming.traces)
    assert together == recall(store, 0, asked)
    assert together.copies == (Copy(device=OTHER, original=GPU, session=FIRST, seq=3, matches=2),)


def test_one_fingerprint_in_common_is_no_copy(store: Store) -> None:
    keep(store, 3, trace(1, 2))
    assert recall(store, 0, trace(2, 3)) == NOTHING


def test_a_window_does_not_find_itself_nor_what_it_overlaps(store: Store) -> None:
    """A judgement that was cut off between ledger and store is made again, and comes out the same."""
    windows = trace(1, 2, 3, first_seq=4), trace(1, 2, 5, device=OTHER, first_seq=4)
    before = recall(store, 5, *windows, session=FIRST)
    keep(store, 5, *windows, session=FIRST)
    assert recall(store, 5, *windows, session=FIRST) == before
    assert recall(store, 6, trace(2, 3, 9, first_seq=5), session=FIRST) == NOTHING


def test_a_session_that_repeats_itself_is_found(store: Store) -> None:
    keep(store, 3, trace(1, 2, first_seq=2))
    found = recall(store, 40, trace(1, 2, first_seq=38), session=FIRST)
    assert found.copies == (Copy(device=GPU, original=GPU, session=FIRST, seq=3, matches=2),)


def test_one_gpu_that_has_the_samples_of_another_is_found(store: Store) -> None:
    found = recall(store, 3, trace(1, 2, device=OTHER), trace(1, 2), session=FIRST)
    assert found.copies == (Copy(device=OTHER, original=GPU, session=FIRST, seq=3, matches=2),)
    keep(store, 3, trace(1, 2, device=OTHER), trace(1, 2))
    later = recall(store, 4, trace(1, 2, first_seq=3), trace(1, 2, device=OTHER, first_seq=3), session=FIRST)
    assert [copy.device for copy in later.copies] == [OTHER]


def test_the_original_with_most_in_common_is_named_and_of_two_the_older(store: Store) -> None:
    keep(store, 0, trace(1, 2, 3))
    keep(store, 0, trace(4, 5, 6, 7, device=OTHER))
    more = recall(store, 0, trace(1, 2, 4, 5, 6))
    same = recall(store, 0, trace(1, 2, 4, 5))
    assert [(copy.original, copy.matches) for copy in (*more.copies, *same.copies)] == [(OTHER, 3), (GPU, 2)]


def test_what_was_seen_first_stays_the_original(store: Store) -> None:
    keep(store, 0, trace(1, 2))
    keep(store, 7, trace(1, 2, device=OTHER), session=SECOND)
    (copy,) = recall(store, 9, trace(1, 2, first_seq=9), session=SECOND).copies
    assert (copy.session, copy.seq, copy.original) == (FIRST, 0, GPU)


def test_no_more_is_kept_than_may_be_and_the_oldest_goes(store: Store) -> None:
    keep(store, 0, trace(*range(60)))
    keep(store, 1, trace(*range(100, 160)))
    # Seven eighths are left of what is too much.
    gone, left = range(60 + 60 - (KEPT - KEPT // 8)), range(60 + 60 - (KEPT - KEPT // 8), 60)
    assert [len(recall(store, 0, trace(*part)).copies) for part in (gone, left, range(100, 160))] == [0, 1, 1]
    (copy,) = recall(store, 0, trace(*range(60))).copies
    assert copy.matches == len(left)


def shares(store: Store) -> dict[bytes, int]:
    """How many fingerprints each GPU has: as they are, and as they are counted."""
    with store.reading() as tx:
        query = tx._connection.exec_driver_sql
        of_origin = "FROM fingerprints JOIN origins ON origin = origins.number"
        found: dict[bytes, int] = dict(query(f"SELECT device, count(*) {of_origin} GROUP BY 1").all())
        assert dict(query("SELECT device, kept FROM shares WHERE kept > 0").all()) == found
        assert query("SELECT kept FROM memory").scalar_one() == sum(found.values())
    return found


def test_no_gpu_has_anothers_forgotten_beyond_an_equal_part(store: Store) -> None:
    keep(store, 0, trace(*range(60)))
    for seq in range(20):
        keep(store, seq, trace(*range(1000 + 40 * seq, 1040 + 40 * seq), device=OTHER), session=SECOND)
    found = shares(store)
    assert set(found) == {GPU, OTHER}
    assert sum(found.values()) <= KEPT
    assert min(found.values()) >= LEAST
    # Of each what was new last.
    (copy,) = recall(store, 30, trace(*range(60)), session=SECOND).copies
    assert copy.matches == found[GPU]
    assert not recall(store, 30, trace(*range(1000, 1040)), session=FIRST).copies


def test_less_is_kept_when_less_may_be(store: Store, store_address: Address) -> None:
    keep(store, 0, trace(*range(60)), trace(*range(100, 130), device=OTHER))
    with closing(Store.open(store_address, fingerprints_kept=10)) as smaller:
        keep(smaller, 1, trace(1000))
    assert shares(store) == {GPU: 5, OTHER: 5}  # an eighth of five is nothing


def test_what_is_kept_of_a_gpu_grows_with_time_and_not_with_its_windows(store: Store) -> None:
    def brings(first: int, hour: float) -> int:
        keep(store, first, replace(trace(*range(first, first + 20)), hourly=10), at_ns=int(hour * HOUR_NS))
        return shares(store).get(GPU, 0)

    # An hour's, at once; then as time goes by, by which windows it may.
    assert [brings(first, 1) for first in (100, 200)] == [10, 10]
    assert [brings(300 + 20 * tenth, 1 + tenth / 10) for tenth in range(1, 11)] == list(range(11, 21))
    # A day's at most, for what comes late, and nothing more where the clock is set back.
    keep(store, 600, replace(trace(*range(600, 700)), hourly=3), at_ns=1000 * HOUR_NS)
    keep(store, 700, replace(trace(*range(700, 800)), hourly=3), at_ns=HOUR_NS)
    assert shares(store) == {GPU: 20 + 24 * 3}


def test_what_is_of_no_use_is_looked_up_and_not_kept(store: Store) -> None:
    keep(store, 0, replace(trace(1, 2), hourly=0))
    assert recall(store, 1, trace(1, 2)) == NOTHING
    keep(store, 1, trace(1, 2))
    (copy,) = recall(store, 2, replace(trace(1, 2), hourly=0)).copies
    assert copy.matches == 2


def test_more_fingerprints_than_fit_into_one_statement(store: Store) -> None:
    keep(store, 0, trace(*range(40)))
    (copy,) = recall(store, 0, trace(*range(25_000))).copies
    assert copy.matches == 40


def test_the_last_reading_of_another_session_is_remembered(store: Store) -> None:
    keep(store, 3, trace(reading=(10, 1000)), trace(device=OTHER, reading=(10, 7)))
    keep(store, 4, trace(reading=(20, 2000)), trace(device=OTHER))
    found = recall(store, 0, trace(reading=(50, 9000)), trace(device=OTHER))
    assert found.readings == (
        Reading(device=GPU, session=FIRST, seq=4, wall_ns=20, energy_mj=2000),
        Reading(device=OTHER, session=FIRST, seq=3, wall_ns=10, energy_mj=7),
    )
    assert recall(store, 5, trace(), session=FIRST) == NOTHING
    keep(store, 0, trace(reading=(50, 9000)), session=SECOND)
    assert recall(store, 1, trace(), session=SECOND) == NOTHING


@given(
    st.builds(
        History,
        st.lists(
            st.builds(
                Reading,
                device=st.binary(min_size=32, max_size=32),
                session=st.binary(min_size=16, max_size=16),
                seq=st.integers(0, 2**53),
                wall_ns=st.integers(0, 2**63 - 1),
                energy_mj=st.integers(0, 2**63 - 1),
            ),
            unique_by=lambda item: item.device,
            max_size=3,
        ).map(lambda items: tuple(sorted(items, key=lambda item: item.device))),
        st.lists(
            st.builds(
                Copy,
                device=st.binary(min_size=32, max_size=32),
                original=st.binary(min_size=32, max_size=32),
                session=st.binary(min_size=16, max_size=16),
                seq=st.integers(0, 2**53),
                matches=st.integers(1, 2**53),
            ),
            unique_by=lambda item: item.device,
            max_size=3,
        ).map(lambda items: tuple(sorted(items, key=lambda item: item.device))),
    )
)
@settings(max_examples=50)
def test_what_is_encoded_is_read_to_the_same(history: History) -> None:
    data = cbor.encode(history.to_cbor())
    assert History.from_cbor(cbor.decode(data, limit=10_000, what="history"), where="history") == history


@given(inputs(cbor.encode(History((), (Copy(device=GPU, original=GPU, session=FIRST, seq=1, matches=2),)).to_cbor())))
def test_any_bytes_are_a_history_or_malformed(data: bytes) -> None:
    try:
        history = History.from_cbor(cbor.decode(data, limit=10_000, what="history"), where="history")
    except MalformedEvidence:
        return
    assert cbor.encode(history.to_cbor()) == data


def past(device: bytes = GPU, *, profile: bytes = GPU, session: bytes = FIRST, seq: int = 0, row: int = 1) -> Past:
    return Past(
        device=device,
        profile=profile,
        session=session,
        seq=seq,
        evidence=SessionEvidence(units=3, strays=(-4, 5), capital=tuple(range(len(START)))),
        row=row,
        lapses=2,
        remains=Remains(7, -8, 9),
    )


def test_what_a_record_has_come_to_is_kept_by_profile_and_the_last_of_it_counts(store: Store) -> None:
    ours, theirs = past(), past(OTHER, profile=OTHER)
    with store.transaction() as tx:
        tx.traces.remember([Brought(FIRST, 0, [], [ours, theirs, past(profile=OTHER)], 0)])
        tx.traces.remember([Brought(SECOND, 4, [], [newer := past(session=SECOND, seq=4, row=2)], 0)])
        found = tx.traces.recall(SECOND, 0, [], [(OTHER, OTHER), (GPU, GPU)])
        assert [(item.device, item.row) for item in found.pasts] == [(GPU, 2), (OTHER, 1)]
        assert tx.traces.pasts(GPU) == tx.traces.forget(GPU)
        assert tx.traces.pasts(GPU) == ()
    (again, other) = found.pasts
    # The logarithm is not kept: it follows from the rest.
    assert replace(again, evidence=replace(again.evidence, e_log10_milli=0)) == newer
    assert found.past(OTHER, OTHER) is other
    assert found.past(OTHER, GPU) is None
    assert recall(store, 0).pasts == ()


def test_a_past_that_cannot_be_read_is_a_fault_of_this_machine(store: Store) -> None:
    with store.transaction() as tx:
        tx.traces.remember([Brought(FIRST, 0, [], [past()], 0)])
        tx._connection.execute(sa.update(pasts).values(evidence=b"\0"))
    with pytest.raises(EnvironmentFault) as fault, store.transaction() as tx:
        tx.traces.pasts(GPU)
    assert fault.value.code is Code.STATE_CORRUPT
