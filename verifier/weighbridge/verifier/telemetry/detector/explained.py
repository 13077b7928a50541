"""What declared work explains of a GPU's power: a base and coefficients that are never negative.

Work cannot save power, so that a coefficient below zero would be the noise of few runs. What a fit has not seen, it
says nothing of: each regressor has the range of the recordings. How far a whole run strays from what is explained is
measured on runs that were left out of the fit, because units of one run are dependent.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.proto.profile import REGRESSORS, Explained, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["covers", "energy_per_token_uj", "explained_mw", "fit_explained", "outside"]

# A regressor that hardly moved says nothing of what it costs: thousandths, and a share of its largest value.
_STILL: Final = 5
_STILL_SHARE: Final = 0.02
# Beyond the range that was seen: a tenth of it, a twentieth of the largest, and what one unit's rounding may move.
_MARGIN_RANGE: Final = 10
_MARGIN_HIGH: Final = 20
_MARGIN_LEAST: Final = 50
_MICRO: Final = 1000
_MILLI: Final = 1000
_MEANS: Final = {
    "busy": "share of time busy",
    "prefill": "requests in prefill",
    "decode": "requests decoding",
    "tokens_in": "tokens/s in",
    "tokens_out": "tokens/s out",
}
# A megawatt either way: declared work is anybody's word, and what it explains has to stay a number.
_POWER_MAX_MW: Final = 10**9
# Of what is explained already: less than that, and a further regressor, or a later one instead, is noise.
_WORTH: Final = 1e-3
# Of regressors that move together, what power follows most directly is named.
_PREFERRED: Final = ("decode", "prefill", "tokens_out", "tokens_in", "busy")


def explained_mw(explained: Explained, work: Sequence[int]) -> int:
    """Milliwatts that ``work`` (:meth:`..samples.work.DeclaredWork.regressors`) explains.

    Whole numbers: the same everywhere.
    """
    micro = sum(term.microwatts * amount for term, amount in zip(explained.terms, work, strict=True))
    return max(-_POWER_MAX_MW, min(_POWER_MAX_MW, explained.base_mw + micro // _MICRO))


def covers(explained: Explained, work: Sequence[int]) -> bool:
    """Whether ``work`` is within what the recordings had, and a little around it."""
    return not outside(explained, work)


def outside(explained: Explained, work: Sequence[int]) -> str:
    """What of ``work`` is not within what the recordings had, and a little around it, in words; empty where all is."""
    for term, amount in zip(explained.terms, work, strict=True):
        margin = max(_MARGIN_LEAST, (term.high - term.low) // _MARGIN_RANGE, term.high // _MARGIN_HIGH)
        if not term.low - margin <= amount <= term.high + margin:
            if not any(work):
                return "nothing is declared, and no unit of the baseline's runs was idle"
            now, low, high = (f"{value / _MILLI:,.5g}" for value in (amount, term.low, term.high))
            seen = f"{_MEANS[term.name]} {now}, seen {low} to {high}"
            return f"declared work is outside of what the baseline has seen: {seen}"
    return ""


def energy_per_token_uj(explained: Explained) -> int | None:
    """Microjoules beyond the base for each generated token, at the most work that was seen; ``None`` without tokens."""
    tokens = next(term.high for term in explained.terms if term.name == "tokens_out")
    if not tokens:
        return None
    return sum(term.microwatts * term.high for term in explained.terms) * _MICRO // tokens


def fit_explained(power_mw: Floats, work: Integers, run: Integers) -> Explained:
    """Fit the units of several runs.

    Args:
        power_mw: mean power of each unit.
        work: their regressors, one unit a row.
        run: which run each is of.
    """
    base, slopes = _least_squares(power_mw, work)
    strays: list[float] = []
    for number in np.unique(run):
        here = run == number
        if here.all():
            continue
        other_base, other_slopes = _least_squares(power_mw[~here], work[~here])
        strays.append(float((power_mw[here] - other_base - work[here] @ other_slopes).mean()))
    uncertainty = math.sqrt(sum(stray**2 for stray in strays) / len(strays)) if strays else 0.0
    terms = tuple(
        Term(name, round(float(slope) * _MICRO), int(column.min()), int(column.max()))
        for name, slope, column in zip(REGRESSORS, slopes, work.T, strict=True)
    )
    return Explained(round(base), math.ceil(uncertainty), terms)


def _least_squares(power_mw: Floats, work: Integers) -> tuple[float, Floats]:
    """The base and the slopes, none below zero, that leave the least: the best of all sets of regressors."""
    columns = work.astype(np.float64)
    spread = columns.max(axis=0) - columns.min(axis=0)
    moves = spread > np.maximum(_STILL, _STILL_SHARE * columns.max(axis=0))
    moving = [REGRESSORS.index(name) for name in _PREFERRED if bool(moves[REGRESSORS.index(name)])]
    mean, level = columns.mean(axis=0), float(power_mw.mean())
    unit = np.where(spread > 0, spread, 1.0)
    centred, left = (columns - mean) / unit, power_mw - level
    gram, towards = centred.T @ centred, centred.T @ left
    best, gained = np.zeros(len(unit)), 0.0
    for size in range(1, len(moving) + 1):
        for chosen in combinations(moving, size):
            index = np.array(chosen)
            # Collinear regressors (one model, one prompt length) share what they explain instead of failing.
            part: Floats = gram[np.ix_(index, index)]
            aim: Floats = towards[index]
            slopes = np.linalg.solve(part + np.diag(part.diagonal() * 1e-6), aim).astype(np.float64)
            gain = float(slopes @ (2 * aim - part @ slopes))
            if float(slopes.min()) >= 0 and gain > gained * (1 + _WORTH):
                best = np.zeros(len(unit))
                best[index] = slopes
                gained = gain
    best = best / unit
    return level - float(mean @ best), best
