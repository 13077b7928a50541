"""What few runs can and cannot say: exact intervals, rank statistics, tests at the level of runs.

Units within one run are dependent: they share whatever moved that run. Nothing here counts units where it speaks of
certainty; intervals and p-values come from whole runs. Randomness is seeded: the same numbers give the same answer.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "Interval",
    "Permutations",
    "auroc",
    "bootstrap",
    "clopper_pearson",
    "difference",
    "median_interval",
    "permutations",
]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
ARRANGEMENTS_MAX: Final = 20_000
_SEED: Final = 20_261_126
_BISECTIONS: Final = 80
_FRACTION_STEPS: Final = 500
_TINY: Final = 1e-300
_CLOSE: Final = 1e-15
_HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the 95 % interval about it."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """In another unit; ``factor`` is positive."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def clopper_pearson(hits: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """The share ``hits / trials`` with its exact binomial interval (Clopper and Pearson 1934): trials independent.

    No trials: nothing is known, from 0 to 1.
    """
    if not 0 <= hits <= trials:
        raise ValueError("hits are among the trials")
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _bisect(lambda p: _beta(p, hits, trials - hits + 1), tail)
    high = 1.0 if hits == trials else _bisect(lambda p: _beta(p, hits + 1, trials - hits), 1 - tail)
    return Interval(hits / trials, low, high)


def difference(first: Floats, second: Floats, *, confidence: float = CONFIDENCE) -> Interval:
    """Mean of ``second`` minus mean of ``first``, with Welch's interval: one independent value per run.

    With less than two runs on a side the interval is all numbers.
    """
    value = float(second.mean() - first.mean())
    if min(first.size, second.size) < 2:  # noqa: PLR2004 - a spread needs two
        return Interval(value, -math.inf, math.inf)
    parts = [float(side.var(ddof=1)) / side.size for side in (first, second)]
    variance = sum(parts)
    if variance == 0:
        return Interval(value, value, value)
    bottom = sum(part**2 / (side.size - 1) for part, side in zip(parts, (first, second), strict=True))
    reach = _student(1 - (1 - confidence) / 2, variance**2 / bottom) * math.sqrt(variance)
    return Interval(value, value - reach, value + reach)


def median_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """The median with its distribution-free interval, by order statistics. Too few values: as far as they tell.

    A value that is infinite stands for "not within what was recorded".
    """
    ordered = sorted(values)
    if not ordered:
        return Interval(math.nan, 0.0, math.inf)
    count = len(ordered)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    tail, rank, below = (1 - confidence) / 2, 0, 0.0
    # The largest rank whose two tails together miss no more than is allowed.
    while rank < count // 2 and below + math.comb(count, rank) * 0.5**count <= tail:
        below += math.comb(count, rank) * 0.5**count
        rank += 1
    if rank == 0:
        return Interval(middle, 0.0, math.inf)
    return Interval(middle, ordered[rank - 1], ordered[count - rank])


def auroc(genuine: Floats, other: Floats) -> float:
    """How often a value of ``other`` is above one of ``genuine``; ties count half. Not a number where a side is empty.

    0.5 is chance, 1 is always, 0 is never.
    """
    if not genuine.size or not other.size:
        return math.nan
    ordered = np.sort(genuine)
    below = np.searchsorted(ordered, other, side="left")
    upto = np.searchsorted(ordered, other, side="right")
    return float((below + upto).mean()) / (2 * genuine.size)


def bootstrap(
    statistic: Callable[[NDArray[np.int64], NDArray[np.int64]], float], first: int, second: int
) -> tuple[float, float]:
    """The 95 % percentile interval of ``statistic``, whole runs drawn again with replacement on either side.

    Args:
        statistic: of the numbers of the runs drawn on each side.
        first: how many runs there are on one side.
        second: and on the other.

    It knows nothing that the runs do not show: where all of them agree it has no width, which is not certainty. Say the
    number of runs beside it.
    """
    rng = np.random.default_rng(_SEED)
    drawn = [statistic(rng.integers(0, first, first), rng.integers(0, second, second)) for _ in range(RESAMPLES)]
    found = np.asarray([value for value in drawn if not math.isnan(value)])
    if not found.size:
        return math.nan, math.nan
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Permutations:
    """Every way to call ``first`` of the runs A and the others B, or a random draw of them where there are too many.

    Attributes:
        labels: a row per arrangement, true where a run is called B; the first row is the one that was observed.
        exact: whether all arrangements are there.
    """

    labels: NDArray[np.bool_]
    exact: bool

    @property
    def smallest(self) -> float:
        """The smallest p-value that so many arrangements can give."""
        return 1 / len(self.labels)

    def p_value(self, values: Floats) -> float:
        """The share of arrangements whose statistic is at least the observed one's, which is the first of ``values``.

        Rounding in the last digits does not make a difference.
        """
        observed = float(values[0])
        slack = 1e-9 * max(1.0, abs(observed))
        return float(np.count_nonzero(values >= observed - slack)) / values.size


def permutations(first: int, second: int) -> Permutations:
    """The arrangements of ``first`` runs of A, which come first, and ``second`` of B."""
    total = first + second
    observed = np.zeros(total, dtype=np.bool_)
    observed[first:] = True
    if math.comb(total, second) <= ARRANGEMENTS_MAX:
        chosen = [combo for combo in itertools.combinations(range(total), second) if combo[0] != first or not second]
        rows = np.zeros((len(chosen) + 1, total), dtype=np.bool_)
        rows[0] = observed
        for row, combo in enumerate(chosen, start=1):
            rows[row, list(combo)] = True
        return Permutations(rows, exact=True)
    rng = np.random.default_rng(_SEED)
    drawn = rng.permuted(np.broadcast_to(observed, (ARRANGEMENTS_MAX - 1, total)), axis=1)
    return Permutations(np.vstack([observed[None, :], drawn]), exact=False)


def _student(probability: float, freedom: float) -> float:
    """The quantile above one half of Student's t distribution."""
    # P(T > t) is half of I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t^2).
    x = _bisect(lambda at: _beta(at, freedom / 2, _HALF), 2 * (1 - probability))
    return math.sqrt(freedom * (1 - x) / x) if x > 0 else math.inf


def _bisect(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (NIST DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d or _TINY)
    fraction = d
    for m in range(1, _FRACTION_STEPS):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d or _TINY)
            c = 1 + step / c or _TINY
            fraction *= c * d
        if abs(c * d - 1) < _CLOSE:
            break
    return front * fraction / a
