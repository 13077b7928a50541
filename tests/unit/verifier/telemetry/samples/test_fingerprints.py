"""Fingerprints: any copied stretch of the stated length shares one; what is dithered shares none."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.honest_gpu import DEVICE, START_NS, Trace, record
from weighbridge.proto.telemetry import Channel, Source
from weighbridge.verifier.telemetry.samples.fingerprints import (
    COPIED,
    GRAM,
    MATCHES,
    fingerprints,
    grams,
    looked_at,
    rounded,
)
from weighbridge.verifier.telemetry.samples.series import power_of

# Of the trace in test_they_are_the_same_everywhere.
RECORDED = ["165c667945739206", "7ea4181533d0b40e", "c479152aaa7362c0"]


def of(*milliwatts: int) -> tuple[int, ...]:
    return fingerprints(np.array(milliwatts, dtype=np.int64))


def read(trace: Trace) -> tuple[int, ...]:
    return of(*power_of(trace.source()))


def noisy(seed: int, size: int) -> list[int]:
    return [int(value) for value in np.random.default_rng(seed).normal(430_000, 3_000, size)]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    before=st.integers(0, 120),
    behind=st.integers(0, 120),
    elsewhere=st.integers(0, 120),
    length=st.integers(COPIED, 3 * COPIED),
)
def test_any_copied_stretch_shares_as_many_as_make_a_copy(
    seed: int, before: int, behind: int, elsewhere: int, length: int
) -> None:
    copied = noisy(seed, length)
    original = noisy(seed + 1, before) + copied + noisy(seed + 2, behind)
    forged = noisy(seed + 3, elsewhere) + copied + noisy(seed + 4, before)
    assert len(set(of(*original)) & set(of(*forged))) >= MATCHES


@settings(deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_tenth_of_a_watt_at_one_reading_in_twenty_defeats_them(seed: int) -> None:
    original = noisy(seed, 200)
    forged = [value + (0 if place % GRAM else 100) for place, value in enumerate(original)]
    assert not set(of(*original)) & set(of(*forged))


@pytest.mark.parametrize("workload", ["decode", "poisson", "square", "capped", "steps"])
def test_honest_sessions_share_none(workload: str) -> None:
    sets = [set(read(record(workload, seed))) for seed in range(8)]
    assert all(len(found) > 5 for found in sets)
    assert len(set[int]().union(*sets)) == sum(map(len, sets))


def test_they_are_the_same_everywhere() -> None:
    # Recorded: a change of these numbers makes all that was remembered useless.
    watts = [400_000 + 137 * at * at % 9_973 for at in range(60)]
    assert [f"{value:016x}" for value in of(*watts)] == RECORDED


def test_they_are_ordered_and_each_once() -> None:
    found = of(*(noisy(1, 80) * 3))
    assert list(found) == sorted(set(found))
    assert all(0 <= value < 2**64 for value in found)


def test_what_anybody_may_read_has_none() -> None:
    assert of(*[430_000] * 100) == ()
    assert of(*(430_000 + 300 * (at % 3) for at in range(100))) == ()
    # Coarse sensors: steps of a watt.
    assert of(*(56_000 + 1000 * (at * at % 3) for at in range(100))) == ()
    assert of(*noisy(1, GRAM - 1)) == ()
    assert of() == ()


def test_missing_readings_are_left_out_whenever_the_others_were_read() -> None:
    values = noisy(1, 100)
    holes = Source(
        device=DEVICE,
        name="x",
        start_wall_ns=START_NS,
        period_ns=10**8,
        offsets=tuple(at * at for at in range(102)),
        channels={"power": Channel("mW", (*values[:50], None, None, *values[50:]))},
    )
    assert of(*power_of(holes)) == of(*values)
    assert power_of(None) == power_of(replace(holes, channels={})) == ()
    assert power_of(replace(holes, channels={"power": Channel("mW", None)})) == ()
    assert power_of(replace(holes, channels={"power": Channel("W", (1,) * 102)})) == ()


def test_short_series_are_found_whole() -> None:
    assert len(of(*noisy(1, GRAM))) == 1
    assert len(of(*noisy(1, 2 * GRAM - 2))) == 1


@settings(deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=GRAM, max_size=60))
def test_any_values_are_taken(values: list[int]) -> None:
    found = of(*values)
    steps = rounded(np.array(values, dtype=np.int64))
    assert len(found) <= len(grams(steps)) == len(looked_at(steps))


def test_they_cost_little() -> None:
    power = np.array(noisy(1, 100), dtype=np.int64)
    took: list[float] = []
    for _ in range(200):
        start = time.perf_counter()
        fingerprints(power)
        took.append(time.perf_counter() - start)
    # A tenth of this on an idle machine.
    assert min(took) < 2e-3
