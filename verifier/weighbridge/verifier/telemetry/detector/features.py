"""The 32 features of one unit of power: level, spread, steps, memory and spectrum.

They are computed on power, and :func:`residual` takes from the levels among them what declared work explains: what is
left are the features of the residual, so that a profile is conditional on the work. In doubles, then rounded to
:data:`.profile.FEATURE_STEP`: machines whose arithmetic differs in the last places get the same numbers, save one that
lies within those last places of the border between two.

Temperature, clocks and utilisation are left out on purpose: they shift with the unit and the room more than with the
work (physics checks use them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.proto.profile import FEATURE_STEP, FEATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["LEVELS", "NAMES", "features", "floors", "residual"]

_QUANTILES: Final = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_LAGS: Final = (1, 2, 3, 5, 8)
_BANDS: Final = 5

NAMES: Final = (
    "mean",
    "spread",
    *(f"quantile {round(100 * share)} %" for share in _QUANTILES),
    "minimum",
    "maximum",
    "step, mean",
    "step, spread",
    "step, largest",
    "skewness",
    "tails",
    *(f"memory over {lag}" for lag in _LAGS),
    *(f"band {number}" for number in range(1, _BANDS + 1)),
    "spectral entropy",
    "spectral centre",
    "crossings",
    "slope",
    "repeats",
    "halves",
)
"""What each is called in a verdict, in order."""
LEVELS: Final = (0, *range(2, 11))
"""Those that move as power as a whole does: mean, quantiles, minimum, maximum."""

# How far a genuine run may stray without a word, from run to run of one machine: of its power, of a logarithm, of a
# share. Chosen on the development systems (docs/baseline-evaluation.md). A fit to one run or few sees less than that.
_FLOOR_LEVEL: Final = 0.005
_FLOOR_LOG: Final = 0.1
_FLOOR_SHARE: Final = 0.02
_FLOOR_WIDE: Final = 0.06
_LOGS: Final = (1, 11, 12, 13)
_WIDE: Final = (14, 15, *range(21, 26))
_SLOPE: Final = 29
_HALVES: Final = 31
_LEVEL_STEPS: Final = np.zeros(FEATURES, dtype=np.int64)
_LEVEL_STEPS[list(LEVELS)] = FEATURE_STEP
_LEVEL_STEPS.setflags(write=False)
_add: Final = np.add.reduce
_largest: Final = np.maximum.reduce
# A megawatt: no server is more, and the sums of products that follow stay within 64 bits.
_FEATURE_MAX: Final = 1e9

# One milliwatt, so that a constant series has a logarithm.
_FLOOR_MW: Final = 1.0
_SHARE_FLOOR: Final = 1e-4
_SKEW_MAX: Final = 5.0
_TAILS_MAX: Final = 20.0
_TINY: Final = 1e-12
_REPEAT_MW: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Plan:
    """What depends on the number of samples alone."""

    low: Integers
    high: Integers
    share: Floats
    hann: Floats
    edges: Integers
    widths: Floats
    ramp: Floats
    entropy: float


@lru_cache(maxsize=64)
def _plan(samples: int) -> _Plan:
    places = np.array(_QUANTILES) * (samples - 1)
    low = np.floor(places).astype(np.int64)
    bins = samples // 2
    edges = np.concatenate([[0], np.round(np.geomspace(1, bins, _BANDS + 1)).astype(np.int64)])[: _BANDS + 1]
    edges = np.maximum.accumulate(edges[:_BANDS])
    time = np.arange(samples, dtype=np.float64) - (samples - 1) / 2
    return _Plan(
        low=low,
        high=np.minimum(low + 1, samples - 1),
        share=places - low.astype(np.float64),
        hann=np.hanning(samples),
        edges=edges,
        widths=np.arange(1, bins + 1, dtype=np.float64) / bins,
        ramp=time / float(time @ time),
        entropy=1 / math.log(bins),
    )


def features(power_mw: Floats) -> Integers:
    """The features of one unit, in the order of :data:`NAMES`, in steps of :data:`.profile.FEATURE_STEP`.

    Args:
        power_mw: evenly spaced samples in milliwatts, at least 16; finite, which the caller has seen to.
    """
    samples = power_mw.size
    plan = _plan(samples)
    # An array's own mean goes through Python, the reduction itself does not: this is called for each unit.
    mean = float(_add(power_mw)) / samples
    centred = power_mw - mean
    squares = centred * centred
    spread = math.sqrt(float(_add(squares)) / samples)
    ordered = np.sort(power_mw)
    low = ordered[plan.low]
    steps = power_mw[1:] - power_mw[:-1]
    sizes = np.abs(steps)
    step_mean = float(power_mw[-1] - power_mw[0]) / steps.size
    step_spread = math.sqrt(max(0.0, float(steps @ steps) / steps.size - step_mean * step_mean))
    flat = spread < _FLOOR_MW
    unit = 0.0 if flat else 1 / spread
    skew = float(squares @ centred) / samples * unit**3
    tails = 0.0 if flat else float(squares @ squares) / samples * unit**4 - 3
    wave = np.fft.rfft(centred * plan.hann)[1:]
    power = wave.real**2 + wave.imag**2 + _TINY
    power *= 1 / float(_add(power))
    bands: Floats = np.add.reduceat(power, plan.edges)
    above = centred > 0
    half = samples // 2
    front = float(_add(power_mw[:half]))
    found = np.empty(FEATURES)
    found[0] = mean
    found[1] = math.log(spread + _FLOOR_MW)
    found[2:9] = low + (ordered[plan.high] - low) * plan.share
    found[9] = ordered[0]
    found[10] = ordered[-1]
    found[11] = math.log(float(_add(sizes)) / steps.size + _FLOOR_MW)
    found[12] = math.log(step_spread + _FLOOR_MW)
    found[13] = math.log(float(_largest(sizes)) + _FLOOR_MW)
    found[14] = min(_SKEW_MAX, max(-_SKEW_MAX, skew))
    found[15] = min(_TAILS_MAX, tails)
    for place, lag in enumerate(_LAGS, start=16):
        found[place] = float(centred[lag:] @ centred[:-lag]) / (samples - lag) * unit**2
    found[21:26] = np.log(bands + _SHARE_FLOOR)
    found[26] = -float(power @ np.log(power)) * plan.entropy
    found[27] = float(power @ plan.widths)
    found[28] = np.count_nonzero(above[1:] != above[:-1]) / steps.size
    found[29] = float(power_mw @ plan.ramp)
    found[30] = np.count_nonzero(sizes < _REPEAT_MW) / steps.size
    found[31] = (mean * samples - front) / (samples - half) - front / half
    np.minimum(np.maximum(found, -_FEATURE_MAX, out=found), _FEATURE_MAX, out=found)
    return np.rint(found * FEATURE_STEP).astype(np.int64)


def residual(found: Integers, explained_mw: int | Integers) -> Integers:
    """The features of power minus ``explained_mw``, which is one value for each unit.

    Args:
        found: of one unit, or of several, one a row.
        explained_mw: of the unit, or of each.
    """
    if isinstance(explained_mw, int):
        return found - _LEVEL_STEPS * explained_mw
    return found - _LEVEL_STEPS * explained_mw[:, np.newaxis]


def floors(power_mw: float, samples: int) -> Floats:
    """The least scale of each feature, in its own unit, for a device whose power is ``power_mw`` on average."""
    found = np.full(FEATURES, _FLOOR_SHARE)
    found[list(LEVELS)] = _FLOOR_LEVEL * power_mw
    found[list(_LOGS)] = _FLOOR_LOG
    found[list(_WIDE)] = _FLOOR_WIDE
    found[_SLOPE] = _FLOOR_LEVEL * power_mw / samples
    found[_HALVES] = _FLOOR_LEVEL * power_mw
    return found
