"""Numbers for charts: axes whose ticks people can read, and samples by the thousand as an envelope.

Nothing is smoothed: of each column, what is drawn goes from its smallest sample to its largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.wording import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["COLUMNS", "Axis", "Envelope", "axis", "elapsed", "number", "span_text", "ticks"]

COLUMNS: Final = 360
"""How many columns a chart has: enough for a screen, few enough for a file of an hour and eight GPUs."""
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_TIMES: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400
_TICKS_MOST: Final = 6
_SMALL: Final = 6
_WHOLE: Final = 100


@dataclass(frozen=True, slots=True)
class Axis:
    """From ``low`` to ``high``, which is more, with ticks between them."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Where ``value`` is, from 0 at the low end to 1 at the high one; what is beyond an end is put there."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True, slots=True)
class Envelope:
    """Samples in columns: the smallest and largest of each; not a number where there is none."""

    low: Floats
    high: Floats

    @property
    def known(self) -> NDArray[np.bool_]:
        """In which columns there are samples."""
        return ~np.isnan(self.low)


def axis(low: float, high: float, *, intervals: int = 3) -> Axis:
    """An axis that shows ``low`` to ``high``, with about so many intervals between round ticks."""
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"no range: {low} to {high}")
    if high - low < 1e-9 * max(1.0, abs(high)):
        reach = max(1.0, 0.05 * abs(high))
        low, high = low - reach, high + reach
    step = _step((high - low) / intervals)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple(place * step for place in range(first, last + 1)))


def ticks(seconds: float) -> tuple[float, ...]:
    """Round times from the start on, few of them, for an axis of so many ``seconds``."""
    step = next((step for step in _TIMES if seconds / step <= _TICKS_MOST), _DAY * math.ceil(seconds / _DAY / 5))
    return tuple(float(step * place) for place in range(math.floor(seconds / step) + 1))


def number(value: float) -> str:
    """``value`` with three significant digits, whole ones in full."""
    if round(value, _SMALL) == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= _WHOLE or value == round(value) else f"{value:.3g}"


def elapsed(seconds: float) -> str:
    """A time from the start, for an axis: ``0``, ``30 s``, ``5 min``, ``1 h 30``, ``2 d 4 h``."""
    whole = round(seconds)
    if whole == 0:
        return "0"
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min" + (f" {whole % _MINUTE:02}" if whole % _MINUTE else "")
    if whole < _DAY:
        return f"{whole // _HOUR} h" + (f" {whole % _HOUR // _MINUTE:02}" if whole % _HOUR >= _MINUTE else "")
    return f"{whole // _DAY} d" + (f" {whole % _DAY // _HOUR} h" if whole % _DAY >= _HOUR else "")


def span_text(seconds: float) -> str:
    """How long something lasted, in words."""
    whole = round(seconds)
    parts = [(whole // _DAY, "day"), (whole % _DAY // _HOUR, "hour"), (whole % _HOUR // _MINUTE, "minute")]
    said = [counted(count, what) for count, what in parts if count]
    if whole % _MINUTE and whole < _HOUR:
        said.append(counted(whole % _MINUTE, "second"))
    return " ".join(said[:2]) or "less than a second"


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * 0.999)
