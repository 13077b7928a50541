"""How a benchmark reports: a figure, its floor, a peer's figure, and the ratio between figure and floor.

A number alone says nothing. The floor is what the unavoidable part costs by itself on the same machine in the same run
(signatures, a disk's sequential read); the peer is another implementation doing the same.

Example:
    >>> report([Figure("verify one window", 1.1, "ms", floor=0.6, peer=2.4)], as_json=False)
"""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence

_IN_FULL_FROM = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Attributes:
        name: What was measured, for people.
        value: The measured value.
        unit: Its unit, and that of floor and peer.
        floor: What the unavoidable part costs by itself, or None where nothing is unavoidable.
        peer: What another implementation needs for the same, or None where there is none.
        ratio: value / floor where there is a floor; computed unless given.
    """

    name: str
    value: float
    unit: str
    floor: float | None = None
    peer: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.ratio is None and self.floor:
            object.__setattr__(self, "ratio", self.value / self.floor)


def report(figures: Iterable[Figure], *, as_json: bool) -> None:
    """Prints figures to stdout: a table for people, or one JSON object per line."""
    rows = list(figures)
    if as_json:
        for figure in rows:
            print(json.dumps(dataclasses.asdict(figure)))
        return
    header = ("figure", "value", "unit", "floor", "peer", "ratio")
    table = [header, *(_row(figure) for figure in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].ljust(widths[2])]
        cells += [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        print("  ".join(cells).rstrip())


def main(measure: Callable[[], Iterable[Figure]], arguments: Sequence[str] | None = None) -> int:
    """Runs a benchmark as a command: `--json` is its only argument. Returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given not in ([], ["--json"]):
        print(f"bench: error: unknown arguments: {' '.join(given)}", file=sys.stderr)
        return 2
    print(f"bench: Python {platform.python_version()} on {platform.machine()}", file=sys.stderr)
    report(measure(), as_json=bool(given))
    return 0


def median_seconds(work: Callable[[], object], *, runs: int = 50, warm_up: int = 3) -> float:
    """The median wall-clock seconds of one call, after some that do not count."""
    for _ in range(warm_up):
        work()
    times: list[float] = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _row(figure: Figure) -> tuple[str, str, str, str, str, str]:
    ratio = "-" if figure.ratio is None else f"{figure.ratio:.2f}x"
    return figure.name, _number(figure.value), figure.unit, _number(figure.floor), _number(figure.peer), ratio


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= _IN_FULL_FROM else f"{value:.4g}"
