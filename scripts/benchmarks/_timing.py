"""Wall-clock and CPU time of several pieces of work, taken in turns.

In turns, because a machine that others use too changes its speed within seconds: what is compared must have been
measured at the same time. CPU time includes the worker processes that this one has started: with a policy engine in
one, the time of this process alone would leave out what is dearest.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["WARM_UP", "Cost", "cpu_clock", "in_turns", "one_after_another"]

WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over all repetitions, in microseconds."""

    wall: float
    cpu: float


def in_turns(
    work: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = WARM_UP, repeats: int = 1
) -> dict[str, Cost]:
    """What one call of each costs: every round calls all of them, after some rounds that do not count.

    ``repeats``: how often a round calls each of them, one call behind the other; every call counts for itself. One
    finds the processor's caches full of the others' data, many find their own.
    """
    clocks = _cpu_clocks()
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for number in range(warm_up + rounds):
        for name, call in work.items():
            took = [_timed(call, clocks) for _ in range(repeats)]
            if number >= warm_up:
                spent[name] += took
    return {name: _median(times) for name, times in spent.items()}


def one_after_another(prepare: Callable[[int], Callable[[], object]], *, rounds: int, warm_up: int = WARM_UP) -> Cost:
    """What a call costs that cannot be repeated: ``prepare(number)``, which is not timed, returns each one anew."""
    clocks = _cpu_clocks()
    spent = [_timed(prepare(number), clocks) for number in range(warm_up + rounds)]
    return _median(spent[warm_up:])


def cpu_clock(process: int) -> int:
    """What clock_getcpuclockid(3) returns on Linux, which Python does not offer: ``~pid << 3 | CPUCLOCK_SCHED``."""
    return ~process << 3 | 2


def _timed(call: Callable[[], object], clocks: list[int]) -> tuple[float, float]:
    cpu = sum(map(time.clock_gettime, clocks))
    started = time.perf_counter()
    call()
    wall = time.perf_counter() - started
    return wall, sum(map(time.clock_gettime, clocks)) - cpu


def _median(times: list[tuple[float, float]]) -> Cost:
    return Cost(*(statistics.median(column) * 1e6 for column in zip(*times, strict=True)))


def _cpu_clocks() -> list[int]:
    """The CPU clocks of this process and its children."""
    return [time.CLOCK_PROCESS_CPUTIME_ID, *(cpu_clock(child) for child in _children())]


def _children() -> list[int]:
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # Processes of others come and go meanwhile.
        with contextlib.suppress(OSError):
            # The command's name stands in parentheses and may hold anything; after it: state, parent (proc(5)).
            if stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                found.append(int(stat.parent.name))
    return found
