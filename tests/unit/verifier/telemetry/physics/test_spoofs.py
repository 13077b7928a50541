"""Forged telemetry (A59): what physics says of each forgery, over workloads, units and seeds.

The traces are those of a model (``support/honest_gpu.py``): they show which check answers which forgery, and that
honest traces pass. *No detection rate follows from them.* What physics does not catch is asserted as such, with the
reason and with what is left to catch it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pytest

from support.honest_gpu import LIMIT_MW, WORKLOADS, Trace, record
from weighbridge.verifier.telemetry.physics import CHECKS, Carried, Finding, Limits, check_unit, check_window

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Values = NDArray[np.int64] | NDArray[np.float64]
    Forgery = Callable[[Trace, np.random.Generator], Trace]

LIMITS: Final = Limits(power_limit_mw=LIMIT_MW)
SEEDS: Final = (0, 1, 2)
BUSY: Final = ("capped", "decode", "poisson", "square", "steps")
ALL: Final = tuple(WORKLOADS)
# What one session comes to: nothing that is found, or the worst of it.
Word = Literal["passes", "unusable", "implausible"]


@cache
def honest(workload: str, seed: int) -> Trace:
    return record(workload, seed)


def findings(trace: Trace) -> list[Finding]:
    """Of all units of ten seconds and of all windows, of ten seconds too."""
    found: list[Finding] = []
    carried = Carried()
    for first in range(0, len(trace), 100):
        unit = trace.part(first, first + 100).unit()
        found += check_unit(unit, LIMITS)
        between, carried = check_window(unit.series, carried, LIMITS)
        found += between
    return found


def word(found: list[Finding]) -> Word:
    verdicts = {item.verdict for item in found}
    return "implausible" if "implausible" in verdicts else "unusable" if verdicts else "passes"


def other(random: np.random.Generator, workload: str = "decode") -> Trace:
    """An honest trace of another session: the one whose power is used instead."""
    return honest(workload, int(random.integers(50, 53)))


def energy_of(trace: Trace, power: Values) -> Values:
    """A counter that advances by this power."""
    return int(trace["energy"][0]) + 0.1 * np.cumsum(power.astype(np.float64))


def times(values: Values, share: float) -> Values:
    return share * values.astype(np.float64)


def both(power: Values) -> dict[str, Values]:
    return {"power": power, "power_instant": power}


def scaled(share: float) -> Forgery:
    return lambda trace, _: trace.having(
        power=times(trace["power"], share), power_instant=times(trace["power_instant"], share)
    )


def all_scaled(share: float) -> Forgery:
    def forge(trace: Trace, random: np.random.Generator) -> Trace:
        start = int(trace["energy"][0])
        energy = start + times(trace["energy"] - start, share)
        return scaled(share)(trace, random).having(energy=energy)

    return forge


def constant(trace: Trace, _: np.random.Generator) -> Trace:
    return trace.having(**both(np.full(len(trace), trace["power"].mean())))


def declared(trace: Trace, random: np.random.Generator) -> Trace:
    return trace.having(**both(random.normal(300_000, 3_000, len(trace))))


def true_mean(trace: Trace, random: np.random.Generator) -> Trace:
    return trace.having(**both(random.normal(trace["power"].mean(), 3_000, len(trace))))


def replayed(*names: str, workload: str = "decode") -> Forgery:
    def forge(trace: Trace, random: np.random.Generator) -> Trace:
        source = other(random, workload)
        return trace.having(**{name: source[name] for name in names})

    return forge


def spliced(*names: str) -> Forgery:
    def forge(trace: Trace, random: np.random.Generator) -> Trace:
        source, cut = other(random), len(trace) // 2 + 37
        return trace.having(**{name: np.concatenate((trace[name][:cut], source[name][cut:])) for name in names})

    return forge


def synthetic(trace: Trace, random: np.random.Generator) -> Trace:
    power = random.normal(450_000, 6_000, len(trace))
    return trace.having(**both(power), energy=energy_of(trace, power), temperature=np.full(len(trace), 55_000))


def synthetic_steps(trace: Trace, random: np.random.Generator) -> Trace:
    """Steps of 560 W every five seconds, while the temperature stands still."""
    level = np.where((np.arange(len(trace)) + 50) // 50 % 2 == 0, 680_000.0, 120_000.0)
    power = np.convolve(np.concatenate((level[:1].repeat(9), level)), np.ones(10) / 10, "valid")
    power += random.normal(0, 3_000, len(trace))
    return trace.having(**both(power), energy=energy_of(trace, power), temperature=np.full(len(trace), 55_000))


def over_limit(trace: Trace, random: np.random.Generator) -> Trace:
    power = random.normal(820_000, 3_000, len(trace))
    return trace.having(**both(power), energy=energy_of(trace, power))


def over_limit_for_long(trace: Trace, random: np.random.Generator) -> Trace:
    power = random.normal(745_000, 3_000, len(trace))
    return trace.having(**both(power), energy=energy_of(trace, power))


def heat_step(trace: Trace, _: np.random.Generator) -> Trace:
    return trace.having(temperature=trace["temperature"] + np.where(np.arange(len(trace)) < 263, 0, 25_000))


def overheated(trace: Trace, _: np.random.Generator) -> Trace:
    """Idle power, as a chip under full load is warm."""
    return trace.having(temperature=np.full(len(trace), 95_000))


def flat(trace: Trace, _: np.random.Generator) -> Trace:
    power = np.full(len(trace), 430_000.0)
    return trace.having(**both(power), energy=energy_of(trace, power))


def periodic(trace: Trace, _: np.random.Generator) -> Trace:
    at = np.arange(len(trace)) % 40
    power = trace["power"][at]
    return trace.having(power=power, power_instant=trace["power_instant"][at], energy=energy_of(trace, power))


def periodic_dithered(trace: Trace, random: np.random.Generator) -> Trace:
    power = periodic(trace, random)["power"] + random.integers(-100, 101, len(trace))
    return periodic(trace, random).having(power=power, energy=energy_of(trace, power))


def lowered_counter(trace: Trace, _: np.random.Generator) -> Trace:
    return trace.having(energy=trace["energy"] - np.where(np.arange(len(trace)) < 150, 0, 10**9))


def hidden_between(trace: Trace, _: np.random.Generator) -> Trace:
    """Work between two windows: the counter has it, power does not."""
    return trace.having(energy=trace["energy"] + np.where(np.arange(len(trace)) < 200, 0, 400_000))


def slow_clock(trace: Trace, _: np.random.Generator) -> Trace:
    return trace.having(sm_clock=np.full(len(trace), 345))


EVERYTHING: Final = ("power", "power_instant", "energy", "temperature", "sm_clock", "utilisation", "clock_reasons")
P: Final = ("power", "power_instant")

# Forgery, the workload that really runs, what it must come to, and a check that must say so.
CAUGHT: Final[tuple[tuple[str, Forgery, tuple[str, ...], tuple[Word, ...], str], ...]] = (
    # A constant in place of steady power cannot be told from a dead sensor; where the counter shows otherwise, it lies.
    ("constant power, real energy", constant, ("poisson", "square", "steps"), ("implausible",), "power_constant"),
    ("constant power, real energy, steady", constant, ("decode", "capped", "idle"), ("unusable",), "power_constant"),
    ("noise around a declared mean, real energy", declared, ALL, ("implausible",), "energy_integral"),
    (
        "noise around the true mean, real energy",
        true_mean,
        ("poisson", "square", "steps"),
        ("implausible",),
        "energy_integral",
    ),
    (
        "power replayed, real energy",
        replayed(*P),
        ("capped", "poisson", "square", "steps", "idle"),
        ("implausible",),
        "energy_integral",
    ),
    ("power x 0.90", scaled(0.90), ALL, ("implausible",), "energy_sum"),
    ("power x 0.95", scaled(0.95), ALL, ("implausible",), "energy_sum"),
    ("power x 0.98, steady load", scaled(0.98), ("decode", "capped"), ("implausible",), "energy_sum"),
    (
        "idle power and energy replayed, real utilisation",
        replayed(*P, "energy", workload="idle"),
        BUSY,
        ("unusable", "implausible"),
        "power_utilisation",
    ),
    ("power spliced", spliced(*P), ("capped", "square", "steps", "idle"), ("implausible",), "power_slew"),
    ("power and energy spliced", spliced(*P, "energy"), ALL, ("implausible",), "energy_sum"),
    ("power, energy, temperature spliced", spliced(*P, "energy", "temperature"), ALL, ("implausible",), "energy_sum"),
    (
        "synthetic steps, consistent energy, constant temperature",
        synthetic_steps,
        ALL,
        ("implausible",),
        "temperature_response",
    ),
    ("power over the limit", over_limit, ALL, ("implausible",), "power_cap"),
    ("power over the limit for long", over_limit_for_long, ALL, ("implausible",), "power_cap"),
    (
        "temperature steps faster than the chip",
        heat_step,
        ("capped", "decode", "idle"),
        ("implausible",),
        "temperature_rate",
    ),
    ("temperature that no power explains", overheated, ("idle",), ("implausible",), "temperature_ambient"),
    ("flat power, consistent energy", flat, ALL, ("unusable",), "power_constant"),
    ("periodic copy", periodic, BUSY, ("implausible",), "power_repeated"),
    ("counter set back", lowered_counter, ALL, ("implausible",), "energy_monotone"),
    ("work between windows", hidden_between, ALL, ("implausible",), "energy_border"),
    (
        "power of another sensor",
        lambda trace, _: trace.having(power=times(trace["power"], 0.7)),
        ("decode", "capped"),
        ("implausible",),
        "power_agreement",
    ),
    ("clocks of an idle device", slow_clock, ("decode",), ("implausible",), "clock_utilisation"),
    ("half the power and energy at the limit", all_scaled(0.45), ("capped",), ("implausible",), "power_cap_reason"),
)

# Not caught by physics: the forgery, the workload, and why.
NOT_CAUGHT: Final[tuple[tuple[str, Forgery, tuple[str, ...], str], ...]] = (
    (
        "noise around the true mean of steady power",
        true_mean,
        ("decode", "capped", "idle"),
        "the counter advances by the same energy: the baseline sees that the noise is another",
    ),
    (
        "power and energy replayed, real temperature",
        replayed(*P, "energy"),
        ("decode", "capped", "idle"),
        "without the coolant's temperature, heat tells apart what differs by 150 to 200 W only, and not at once",
    ),
    ("power and energy x 0.95", all_scaled(0.95), ALL, "all channels agree: the baseline sees 5 %"),
    ("power and energy x 0.80", all_scaled(0.80), ALL, "all channels agree: the baseline sees 20 %"),
    (
        "full replay",
        replayed(*EVERYTHING),
        ALL,
        "an honest session's readings: fingerprints, the counter that does not continue, whoever holds the sensor",
    ),
    (
        "synthetic power, consistent energy, constant temperature",
        synthetic,
        ("decode", "idle"),
        "steady power has steady heat: the baseline sees that it is no GPU's",
    ),
    ("periodic copy with a dither of 0.1 W", periodic_dithered, ("decode",), "no stretch repeats exactly"),
    (
        "power x 0.98 of idle power, within a minute",
        lambda trace, random: scaled(0.98)(trace, random).part(0, 100),
        ("idle",),
        "2 W are within what the ends of ten seconds may hide",
    ),
)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("workload", ALL)
def test_honest_traces_pass(workload: str, seed: int) -> None:
    assert findings(honest(workload, seed)) == []


@pytest.mark.parametrize(
    ("forge", "workloads", "words", "check"), [row[1:] for row in CAUGHT], ids=[row[0] for row in CAUGHT]
)
def test_forgeries_are_found(forge: Forgery, workloads: tuple[str, ...], words: tuple[Word, ...], check: str) -> None:
    named: set[str] = set()
    for workload in workloads:
        for seed in SEEDS:
            found = findings(forge(honest(workload, seed), np.random.default_rng(seed)))
            assert word(found) in words, (workload, seed, found)
            named |= {item.check for item in found}
    assert check in named


@pytest.mark.parametrize(("forge", "workloads"), [row[1:3] for row in NOT_CAUGHT], ids=[row[0] for row in NOT_CAUGHT])
def test_forgeries_that_physics_does_not_catch(forge: Forgery, workloads: tuple[str, ...]) -> None:
    for workload in workloads:
        for seed in SEEDS:
            assert findings(forge(honest(workload, seed), np.random.default_rng(seed))) == [], (workload, seed)


def test_every_check_answers_some_forgery() -> None:
    # All but these two: values of no physical sense, and jumps right at a border, are shown beside the checks.
    shown = {row[4] for row in CAUGHT}
    assert {check.name for check in CHECKS} - shown == {"physical_range", "power_border"}
