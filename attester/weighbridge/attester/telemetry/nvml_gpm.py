"""GPM: shares of time and of peaks, computed by NVML from two samples of a GPU's counters.

Its traps (``docs/measurements/nvml-h200.md``): from two samples that are less than 100 ms apart it makes zeros and NaN
without any error, so such are not asked for. A metric that the card does not have is zero too: nothing tells that from
a share of zero.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.attester.telemetry.nvml_layout import GPM_METRICS, GpmMetrics, GpmSupport, share_ppm
from weighbridge.proto.telemetry import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.attester.telemetry.nvml_questions import Library
    from weighbridge.attester.telemetry.sampler import Tick

__all__ = ["Gpm"]

_APART_NS: Final = 100_000_000
_NAMES: Final = (
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleAlloc",
    "nvmlGpmSampleGet",
    "nvmlGpmMetricsGet",
    "nvmlGpmSampleFree",
)


@final
class Gpm:
    """The metrics of one device, of the time between one reading and the next. Made by :meth:`open`."""

    __slots__ = ("_at", "_compute", "_free", "_handle", "_metrics", "_sample", "_samples")

    def __init__(
        self,
        functions: tuple[Callable[..., int], Callable[..., int], Callable[..., int]],
        handle: object,
        samples: tuple[ctypes.c_void_p, ctypes.c_void_p],
    ) -> None:
        self._sample, self._compute, self._free = functions
        self._handle = handle
        self._samples = samples
        self._at: int | None = None
        self._metrics = GpmMetrics(version=1, numMetrics=len(GPM_METRICS))
        for metric, number in zip(self._metrics.metrics, GPM_METRICS.values(), strict=False):
            metric.metricId = number

    @classmethod
    def open(cls, library: Library, handle: object) -> Self | None:
        """``None`` where device or driver have no GPM, or refuse it."""
        functions = [function for function in map(library, _NAMES) if function is not None]
        if len(functions) != len(_NAMES):
            return None
        query, allocate, sample, compute, free = functions
        support = GpmSupport(version=1)
        if query(handle, ctypes.byref(support)) or not support.isSupportedDevice:
            return None
        samples = ctypes.c_void_p(), ctypes.c_void_p()
        if any(allocate(ctypes.byref(sample)) for sample in samples):
            return None
        return cls((sample, compute, free), handle, samples)

    def read(self, tick: Tick, first: int) -> None:
        """Fill in a column per metric from ``first`` on, where the last reading is long enough ago."""
        now, before = time.monotonic_ns(), self._at
        if before is not None and now - before < _APART_NS:
            return
        old, new = self._samples
        if self._sample(self._handle, new):
            self._at = None
            self._note_all(tick, first)
            return
        self._at, self._samples = now, (new, old)
        if before is None:
            return
        self._metrics.sample1, self._metrics.sample2 = old, new
        if self._compute(ctypes.byref(self._metrics)):
            self._note_all(tick, first)
            return
        for place, metric in zip(range(first, first + len(GPM_METRICS)), self._metrics.metrics, strict=False):
            if metric.nvmlReturn:
                tick.note(EventKind.FAULT, place)
                continue
            share = share_ppm(metric.value)
            if share is None:
                tick.note(EventKind.SENTINEL, place)
            else:
                tick.row[place] = share

    def close(self) -> None:
        """Free the samples. Not while they are read."""
        for sample in self._samples:
            self._free(sample)

    def _note_all(self, tick: Tick, first: int) -> None:
        for place in range(first, first + len(GPM_METRICS)):
            tick.note(EventKind.FAULT, place)
