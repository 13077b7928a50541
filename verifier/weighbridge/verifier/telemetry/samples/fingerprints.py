"""Fingerprints of power traces, by which a stretch that was recorded before is found again.

A gram is 20 consecutive readings of power, rounded to 0.1 W; one is looked at only if it spans 1 W and has eight
different values, as what nobody can repeat has: sensors of coarse steps, or asked too often, repeat by themselves. Of
each 20 consecutive grams the one with the least value is kept (winnowing: Schleimer, Wilkerson and Aiken, SIGMOD 2003),
so that

*two series that have the same 39 readings one after the other share a fingerprint*, if one of the 20 grams in these is
looked at, and such that have the same 59 share two (:data:`COPIED`), which is what a copy is recognised by. Every gram
that is kept is hashed with BLAKE2b to 64 bits; no key is involved, and equal samples have equal fingerprints
everywhere.

Not found: copies that were changed, be it by 0.1 W at one reading in twenty, of which every gram has one; that were
resampled; or that were cut into stretches of less than 59 readings. On recorded traces of eight H100s, no two of
170 158 grams of different sessions were equal.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from typing import TypeVar

    from numpy.typing import NDArray

    _Number = TypeVar("_Number", np.int64, np.uint64)

__all__ = ["COPIED", "GRAM", "MATCHES", "fingerprints", "grams", "looked_at", "rounded"]

# Readings in a gram, and grams of which one is kept.
GRAM: Final = 20
_WINDOW: Final = 20
# One coincidence is no copy: samples are few and whole watts are coarse. So many are.
MATCHES: Final = 2
# A copied stretch of as many readings has as many fingerprints in common with its original.
COPIED: Final = GRAM + MATCHES * _WINDOW - 1
_STEP_MW: Final = 100
_SPAN: Final = 10
_DISTINCT: Final = 8
_PERSON: Final = b"wb/power-gram/v1"
# The value of grams that are not looked at.
_NEVER: Final = np.uint64(2**64 - 1)
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
# Odd multipliers, one per reading of a gram: the order of grams among each other, nothing else, follows from them.
_WEIGHTS: Final = np.array([(0x9E3779B97F4A7C15 * (2 * k + 1)) % 2**64 for k in range(GRAM)], dtype=np.uint64)


def fingerprints(power: NDArray[np.int64]) -> tuple[int, ...]:
    """The fingerprints of readings of ``power`` in milliwatts: 64 bits each, each once, in ascending order.

    When they were read plays no part, nor what was missing between them: else a copy with other times, or with a gap,
    would be another series. Less than 39 readings have one fingerprint, or none.
    """
    if len(power) < GRAM:
        return ()
    steps = rounded(power)
    order = grams(steps)
    order[~looked_at(steps)] = _NEVER
    least = _runs(order, min(_WINDOW, len(order))).argmin(axis=0)
    picks = least + np.arange(len(least))
    wire = steps.astype("<i8").tobytes()
    kept = {wire[8 * pick : 8 * (pick + GRAM)] for pick in set(picks[order[picks] != _NEVER].tolist())}
    return tuple(sorted(int.from_bytes(blake2b(gram, digest_size=8, person=_PERSON).digest(), "big") for gram in kept))


def grams(steps: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The value of each gram of at least :data:`GRAM` rounded readings.

    Equal grams have equal values; different ones hardly ever do, unless somebody made them so.
    """
    mixed = np.correlate(steps.astype(np.uint64), _WEIGHTS)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    return mixed ^ (mixed >> np.uint64(31))


def looked_at(steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these grams tell of anything: 1 W between highest and lowest, and eight values."""
    ordered = _runs(steps, GRAM).copy()
    ordered.sort(axis=0)
    changes = np.add.reduce(ordered[1:] != ordered[:-1], axis=0)
    told: NDArray[np.bool_] = (ordered[-1] - ordered[0] >= _SPAN) & (changes >= _DISTINCT - 1)
    return told


def rounded(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Milliwatts in steps of 0.1 W."""
    return (values + _STEP_MW // 2) // _STEP_MW


def _runs(values: NDArray[_Number], size: int) -> NDArray[_Number]:
    """Every ``size`` consecutive values, one run a column: a view."""
    step = values.itemsize
    return np.ndarray((size, len(values) - size + 1), values.dtype, values, strides=(step, step))
