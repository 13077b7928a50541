"""Samples of a fast converter, reduced to whole numbers: per frame mean, root mean square, peak, energy in bands.

A frame of ``n`` samples, in the quantity's millionths (µ): its mean; the root of the mean square; the largest absolute
value. Then, of what varies about the mean, the mean square in each of the bands (µ²), from a real FFT under a Hann
window: geometric bands from the frame's own frequency to half the rate. The bands sum up to the mean square about the
mean, but for what the window weighs differently. Frames do not overlap, and nothing is averaged over frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

import numpy as np

from weighbridge.proto.telemetry import VALUE_MAX

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BANDS_MAX", "SAMPLES_MIN", "Reduction"]

BANDS_MAX: Final = 24
SAMPLES_MIN: Final = 64
_MILLION: Final = 1e6
_STATISTICS: Final = ("mean", "rms", "peak")
# Of two lengths, where a frame is not a whole number of samples.
_PLANS_MAX: Final = 4


@final
@dataclass(frozen=True)
class Reduction:
    """How frames are reduced. Made once; :meth:`of` is pure.

    Attributes:
        rate: samples a second.
        period_ns: of a frame.
        bands: how many.
        unit: of the quantity, such as ``A``.
        scale: of that unit, per count of the converter.
        clip: the least absolute count that is a converter at its end; ``None`` where that is not known.
    """

    rate: int
    period_ns: int
    bands: int
    unit: str
    scale: float
    clip: float | None
    _plans: dict[int, tuple[NDArray[np.float64], NDArray[np.int64], float]] = field(
        default_factory=dict[int, "tuple[NDArray[np.float64], NDArray[np.int64], float]"], repr=False, compare=False
    )

    def length(self, number: int) -> int:
        """Samples in the frame ``number``: whole ones, which do not drift where a frame is not a whole number."""
        second = 1_000_000_000
        return (number + 1) * self.rate * self.period_ns // second - number * self.rate * self.period_ns // second

    @property
    def channels(self) -> tuple[tuple[str, str], ...]:
        """Names and units, in the order of :meth:`of`'s values. A band is named by its edges in hertz."""
        edges = self._edges(self.length(0))
        resolution = self.rate / self.length(0)
        named = [
            (f"band_{round(low * resolution)}_{round(high * resolution)}_hz", f"µ{self.unit}²")
            for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ]
        return (*((name, f"µ{self.unit}") for name in _STATISTICS), *named, ("clipped", "1"))

    def of(self, counts: NDArray[np.float64]) -> tuple[int | None, ...]:
        """The values of one frame; ``None`` where a sample is no finite number, or a value cannot be sent."""
        clipped = 0 if self.clip is None else int(np.count_nonzero(np.abs(counts) >= self.clip))  # lenient: numpy's
        if not np.isfinite(counts).all():
            return (*(None for _ in range(len(_STATISTICS) + self.bands)), clipped)
        # What overflows becomes infinite, and is left out below.
        with np.errstate(over="ignore", invalid="ignore"):
            values = counts * (self.scale * _MILLION)
            mean = values.mean()
            varying = values - mean
            window, edges, norm = self._plan(len(counts))
            power = np.abs(np.fft.rfft(varying * window)) ** 2
            # All but the first bin, and the last of an even length, stand for two frequencies.
            power[1 : (len(counts) + 1) // 2] *= 2
            sums = np.add.reduceat(power[: edges[-1]], edges[:-1]) / norm
            statistics = (mean, np.sqrt(np.mean(values * values)), np.max(np.abs(values)))
        return (*(_whole(float(value)) for value in (*statistics, *sums)), clipped)

    def _plan(self, length: int) -> tuple[NDArray[np.float64], NDArray[np.int64], float]:
        plan = self._plans.get(length)
        if plan is None:
            window = np.hanning(length + 1)[:-1]
            plan = window, self._edges(length), float(length * np.sum(window * window))
            if len(self._plans) < _PLANS_MAX:
                self._plans[length] = plan
        return plan

    def _edges(self, length: int) -> NDArray[np.int64]:
        """The bins at which bands begin, and the one behind the last: each band has at least one."""
        behind = length // 2 + 1
        edges = np.rint(np.geomspace(1, behind, self.bands + 1)).astype(np.int64)
        for number in range(1, self.bands):
            edges[number] = max(edges[number], edges[number - 1] + 1)
        return edges


def _whole(value: float) -> int | None:
    return round(value) if abs(value) <= VALUE_MAX else None
