"""Declared counts against the server's own counters, and against a relying party's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto.telemetry import UNITS, Channel, Source
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.telemetry.declared import (
    Counts,
    Difference,
    EngineTally,
    Tolerance,
    compare_counts,
    compare_part,
)

EXACT = Tolerance(ppm=0, requests=0, tokens=0, time_ns=0)


def work(requests: int, tokens_in: int, tokens_out: int, *, prefill_ns: int = 7, decode_ns: int = 8) -> WorkSummary:
    if requests == 0:
        return WorkSummary.empty()
    counts = {"requests": requests, "tokens_in": tokens_in, "tokens_out": tokens_out, "batch_max": 1}
    return WorkSummary(root=bytes([1] * 32), prefill_ns=prefill_ns, decode_ns=decode_ns, **counts)


def engine(name: str = "engine", device: bytes | None = None, **channels: tuple[int | None, ...] | None) -> Source:
    count = max(len(values) for values in channels.values() if values is not None)
    return Source(
        device=device,
        name=name,
        start_wall_ns=0,
        period_ns=1,
        offsets=tuple(range(count)),
        channels={channel: Channel(UNITS[channel], values) for channel, values in channels.items()},
    )


# -- the server's counters ---------------------------------------------------------------------------------------------


def test_counters_are_added_up_from_the_second_window_on() -> None:
    tally = EngineTally().after([engine(requests=(90, 100), tokens_out=(900, 1000))], work(50, 500, 500))
    assert (tally.declared.requests, tally.counted.requests, tally.counted.tokens_out) == (0, 0, 0)
    assert tally.differences(EXACT) == ()
    tally = tally.after([engine(requests=(103, 105), tokens_out=(1010, 1050))], work(5, 33, 50))
    assert tally.declared == Counts(requests=5, tokens_in=33, tokens_out=50, prefill_ns=7, decode_ns=8)
    assert tally.counted == Counts(requests=5, tokens_out=50)
    assert tally.differences(EXACT) == ()


def test_nothing_is_compared_before_the_server_was_read() -> None:
    tally = EngineTally()
    for sources in ([], [engine(requests=(None, None))], [engine(requests=None, tokens_in=(None,))]):
        tally = tally.after(sources, work(9, 9, 9))
        assert tally == EngineTally()
    assert tally.differences(EXACT) == ()


def test_other_sources_are_not_the_server() -> None:
    others = [engine("nvml", requests=(1,)), engine(device=bytes(32), requests=(2,))]
    assert EngineTally().after(others, work(1, 1, 1)) == EngineTally()


def test_more_declared_than_the_server_counted() -> None:
    tally = EngineTally().after([engine(tokens_out=(0,))], work(0, 0, 0))
    tally = tally.after([engine(tokens_out=(10, None, 40))], work(1, 0, 500))
    (difference,) = tally.differences(EXACT)
    assert difference == Difference(count="tokens_out", declared=500, counted=40, allowed=0)
    assert difference.kind == "over"
    finding = difference.finding(at_ns=77)
    assert (finding.check, finding.channel, finding.verdict, finding.at_ns) == (
        "declared-work",
        "tokens_out",
        "implausible",
        77,
    )
    assert (finding.expected, finding.got) == ("40 counted, 0 more or less", "500 declared")


def test_less_declared_than_the_server_counted() -> None:
    tally = EngineTally().after([engine(requests=(0,))], work(0, 0, 0)).after([engine(requests=(8,))], work(0, 0, 0))
    (difference,) = tally.differences(EXACT)
    assert (difference.kind, difference.declared, difference.counted) == ("under", 0, 8)


def test_a_window_without_readings_loses_nothing() -> None:
    tally = EngineTally().after([engine(requests=(100,))], work(0, 0, 0))
    tally = tally.after([engine(requests=(None,))], work(5, 5, 5)).after([], work(6, 6, 6))
    tally = tally.after([engine(requests=(120,))], work(9, 9, 9))
    assert (tally.declared.requests, tally.counted.requests) == (20, 20)
    assert tally.differences(EXACT) == ()


def test_after_a_restart_the_sums_are_lower_bounds() -> None:
    tally = EngineTally().after([engine(requests=(100,), tokens_in=(7,))], work(0, 0, 0))
    tally = tally.after([engine(requests=(150, 3, 10), tokens_in=(7, 1, 1))], work(90, 8, 0))
    assert tally.restarts == 1
    assert (tally.counted.requests, tally.counted.tokens_in) == (60, 1)
    # 30 more may have ended before the restart, unread.
    assert tally.differences(EXACT) == ()
    tally = tally.after([engine(requests=(200,), tokens_in=(9,))], work(1, 8, 0))
    assert [(item.count, item.kind) for item in tally.differences(EXACT)] == [("requests", "under")]


def test_times_that_a_server_does_not_say_are_not_compared() -> None:
    read = [engine(prefill_time=(10,), decode_time=(10,))], [engine(prefill_time=(500,), decode_time=(900,))]
    silent = EngineTally().after(read[0], work(0, 0, 0)).after(read[1], work(3, 1, 1, prefill_ns=0, decode_ns=0))
    assert silent.differences(EXACT) == ()
    said = EngineTally().after(read[0], work(0, 0, 0)).after(read[1], work(3, 1, 1, prefill_ns=490, decode_ns=100))
    assert [(item.count, item.kind) for item in said.differences(EXACT)] == [("decode_ns", "under")]


def test_negative_counters_are_no_readings() -> None:
    tally = EngineTally().after([engine(requests=(5,))], work(0, 0, 0)).after([engine(requests=(-9, 6))], work(1, 1, 1))
    assert (tally.counted.requests, tally.restarts) == (1, 0)


@given(st.lists(st.lists(st.none() | st.integers(0, 50), min_size=1, max_size=4), min_size=1, max_size=6))
def test_cutting_windows_otherwise_changes_no_sum(increments: list[list[int | None]]) -> None:
    """Increments of a counter, some unread: in several windows or in one."""
    total = 0
    rows: list[list[int | None]] = []
    for window in increments:
        row: list[int | None] = []
        for gained in window:
            total += gained or 0
            row.append(None if gained is None else total)
        rows.append(row)
    start = EngineTally().after([engine(requests=(0,))], WorkSummary.empty())
    cut = start
    for row in rows:
        cut = cut.after([engine(requests=tuple(row))], WorkSummary.empty())
    whole = start.after([engine(requests=tuple(value for row in rows for value in row))], WorkSummary.empty())
    assert cut == whole
    read = [value for row in rows for value in row if value is not None]
    assert cut.counted.requests == (read[-1] if read else 0)


@given(st.lists(st.none() | st.integers(-5, 2**62 - 1), min_size=1, max_size=8))
def test_any_readings_are_added_up(values: list[int | None]) -> None:
    start = EngineTally().after([engine(requests=(3,))], WorkSummary.empty())
    tally = start.after([engine(requests=tuple(values))], WorkSummary.empty())
    assert tally.counted.requests is not None
    assert tally.counted.requests >= 0
    tally.differences(EXACT)


# -- a relying party's counts ------------------------------------------------------------------------------------------

COUNTED = Counts(requests=1000, tokens_in=100_000, tokens_out=1_000_000)


@pytest.mark.parametrize(
    ("declared", "over", "under"),
    [
        (COUNTED, [], []),
        (Counts(requests=1011, tokens_in=101_100, tokens_out=1_010_100), [], []),
        (Counts(requests=989, tokens_in=98_900, tokens_out=989_900), [], []),
        (Counts(requests=1012, tokens_in=100_000, tokens_out=1_000_000), ["requests"], []),
        (Counts(requests=1000, tokens_in=101_101, tokens_out=1_010_101), ["tokens_in", "tokens_out"], []),
        (Counts(requests=1000, tokens_in=98_899, tokens_out=989_899), [], ["tokens_in", "tokens_out"]),
        (Counts(requests=0, tokens_in=0, tokens_out=0), [], ["requests", "tokens_in", "tokens_out"]),
        (Counts(), [], []),
    ],
)
def test_counts_are_compared_both_ways(declared: Counts, over: list[str], under: list[str]) -> None:
    tolerance = Tolerance(ppm=10_000, requests=1, tokens=100)
    found = compare_counts(declared, COUNTED, tolerance)
    assert [item.count for item in found if item.kind == "over"] == over
    assert [item.count for item in found if item.kind == "under"] == under
    part = compare_part(declared, COUNTED, tolerance)
    assert [item.count for item in part] == under


def test_over_declared_tokens_do_not_hide_work() -> None:
    """What tripled tokens would explain away shows, whatever honest accounts may differ by."""
    declared = Counts(requests=1000, tokens_in=100_000, tokens_out=3_000_000)
    (difference,) = compare_counts(declared, COUNTED, Tolerance())
    assert (difference.count, difference.kind) == ("tokens_out", "over")


MINUTE = 60 * 10**9


@pytest.mark.parametrize(
    ("lasts_ns", "requests", "tokens", "minutes"),
    [(-1, 4, 4_096, 4), (0, 4, 4_096, 4), (10 * MINUTE, 45, 47_103, 45), (60 * MINUTE, 256, 262_144, 256)],
)
def test_a_session_that_has_begun_may_declare_little_that_was_not_counted(
    lasts_ns: int, requests: int, tokens: int, minutes: int
) -> None:
    tolerance = Tolerance().within(lasts_ns)
    assert tolerance.allowed("requests", 0, "over") == requests
    assert tolerance.allowed("tokens_out", 0, "over") == tolerance.allowed("tokens_in", 0, "over") == tokens
    assert tolerance.allowed("decode_ns", 0, "over") // MINUTE == minutes
    # What is in flight is counted, and declared later.
    assert tolerance.allowed("decode_ns", 0, "under") == 256 * MINUTE
    assert Tolerance().within(100 * 60 * MINUTE) == Tolerance()


def test_a_short_session_that_declares_an_hour_of_decoding_differs() -> None:
    """It would explain a whole GPU's power."""
    tally = EngineTally().after([engine(decode_time=(0,))], work(0, 0, 0), lasts_ns=MINUTE)
    assert tally.lasts_ns == 0
    tally = tally.after([engine(decode_time=(0,))], work(1, 1, 1, decode_ns=9 * MINUTE), lasts_ns=MINUTE)
    (difference,) = tally.differences(Tolerance())
    assert (difference.count, difference.kind, tally.lasts_ns) == ("decode_ns", "over", MINUTE)
    assert difference.allowed < 9 * MINUTE
    long = tally.after([engine(decode_time=(0,))], work(0, 0, 0), lasts_ns=10 * MINUTE)
    assert long.differences(Tolerance()) == ()


def test_sums_of_what_one_does_not_count_are_not_counted() -> None:
    assert Counts(requests=1, tokens_in=2) + Counts(requests=3) == Counts(requests=4)
    assert Counts.of(work(1, 2, 3)) + Counts.of(WorkSummary.empty()) == Counts.of(work(1, 2, 3))
