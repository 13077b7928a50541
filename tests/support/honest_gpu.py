"""An H100's sensors from a small physical model, for tests of the physics checks. No detection rate follows from it.

Power on a grid of 10 ms from a workload, then: a trailing mean over one second and one over 25 ms, both read every
100 ms; an energy counter behind the same shunt; two nodes of heat above a coolant, in whole degrees; clocks,
utilisation and reasons. Every seed is another unit, coolant and phase of its sensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.proto.telemetry import UNITS, WINDOWS_NS, Channel, Event, Source
from weighbridge.verifier.telemetry.samples.series import join
from weighbridge.verifier.telemetry.samples.units import Unit
from weighbridge.verifier.telemetry.samples.work import DeclaredWork

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Watts = NDArray[np.float64]

__all__ = ["DEVICE", "LIMIT_MW", "START_NS", "WORKLOADS", "Trace", "record"]

DEVICE: Final = bytes(range(32))
LIMIT_MW: Final = 700_000
START_NS: Final = 1_700_000_000_000_000_000
_STEP_S: Final = 0.01
_STEPS: Final = 10  # of the grid between two readings
_IDLE_W: Final = 117.0
_WARM_S: Final = 120


@dataclass(frozen=True)
class Trace:
    """Readings at 10 Hz: one array per channel, all of one length."""

    columns: Mapping[str, NDArray[np.int64]]
    events: tuple[Event, ...] = ()
    start_ns: int = START_NS
    jitter_ns: NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        return self.columns[name]

    def having(self, **columns: NDArray[np.int64] | NDArray[np.float64]) -> Trace:
        """With other readings in these channels."""
        other = {name: np.rint(values).astype(np.int64) for name, values in columns.items()}
        return replace(self, columns={**self.columns, **other})

    def without(self, *names: str) -> Trace:
        """Without these channels."""
        return replace(self, columns={key: values for key, values in self.columns.items() if key not in names})

    def part(self, first: int, last: int) -> Trace:
        """Readings ``first`` up to, not including, ``last``, of as many tenths of a second."""
        jitter = None if self.jitter_ns is None else self.jitter_ns[first:last]
        return replace(
            self,
            columns={name: values[first:last] for name, values in self.columns.items()},
            start_ns=self.start_ns + first * 100_000_000,
            jitter_ns=jitter,
        )

    def source(self, *, sparse: tuple[str, ...] = (), absent: tuple[str, ...] = ()) -> Source:
        """As a source sends it; ``sparse`` channels are read at every tenth sample, ``absent`` at the last five."""
        ticks = np.arange(len(self), dtype=np.int64) * 100_000_000
        offsets = ticks if self.jitter_ns is None else ticks + self.jitter_ns
        first = int(offsets[0])

        def there(name: str, at: int) -> bool:
            return (name not in sparse or at % 10 == 0) and (name not in absent or at >= len(self) - 5)

        channels = {
            name: Channel(
                UNITS[name],
                tuple(value if there(name, at) else None for at, value in enumerate(values.tolist())),
                WINDOWS_NS.get(name),
            )
            for name, values in self.columns.items()
        }
        return Source(
            device=DEVICE,
            name="model",
            start_wall_ns=self.start_ns + first,
            period_ns=100_000_000,
            offsets=tuple((offsets - first).tolist()),
            channels=channels,
            events=self.events,
        )

    def unit(self, **options: tuple[str, ...]) -> Unit:
        """As one unit."""
        series, _ = join([self.source(**options)])
        assert series is not None
        work = DeclaredWork(duration_ns=len(self) * 100_000_000)
        return Unit(series=series, work=work, first_seq=0, last_seq=0)


def _idle(random: np.random.Generator, size: int) -> Watts:
    return np.full(size, _IDLE_W) + _noise(random, size, 0.3)


def _decode(random: np.random.Generator, size: int) -> Watts:
    return np.full(size, 418 + 2.1 * random.integers(1, 65)) + _noise(random, size, 3)


def _poisson(random: np.random.Generator, size: int) -> Watts:
    """Requests that come at random: prefill, then decoding."""
    watts = np.full(size, _IDLE_W)
    at = 0.0
    while at < size * _STEP_S:
        at += float(random.exponential(0.9))
        start, prefill, decode = int(at / _STEP_S), int(random.integers(2, 12)), int(random.gamma(4, 0.25) / _STEP_S)
        watts[start : start + prefill] = 655
        watts[start + prefill : start + prefill + decode] = np.maximum(
            watts[start + prefill : start + prefill + decode], 420
        )
    return watts + _noise(random, size, 3)


def _square(random: np.random.Generator, size: int) -> Watts:
    """Offloaded training: 122 and 340 W in turns of half a second to four."""
    turn = int(random.integers(50, 400))
    return np.where(np.arange(size) // turn % 2 == 0, 122.0, 340.0) + _noise(random, size, 3)


def _capped(random: np.random.Generator, size: int) -> Watts:
    return np.full(size, 690.0) + _noise(random, size, 4)


def _steps(random: np.random.Generator, size: int) -> Watts:
    """From idle to full load and back, at times of its own."""
    marks = np.sort(random.integers(0, size, 2 + size // 1500))
    level = np.searchsorted(marks, np.arange(size), side="right") % 2
    return np.where(level == 0, _IDLE_W, 690.0) + _noise(random, size, 3)


WORKLOADS: Final[Mapping[str, Callable[[np.random.Generator, int], Watts]]] = {
    "idle": _idle,
    "decode": _decode,
    "poisson": _poisson,
    "square": _square,
    "capped": _capped,
    "steps": _steps,
}


def record(workload: str, seed: int, *, seconds: int = 60, drift: bool = True) -> Trace:
    """What an honest device reads while ``workload`` runs, after two minutes of it."""
    random = np.random.default_rng((seed, sorted(WORKLOADS).index(workload)))
    size = (seconds + _WARM_S) * 100
    watts = WORKLOADS[workload](random, size)
    gain = float(random.normal(1, 0.01))
    sums = np.concatenate(([0.0], np.cumsum(watts * gain)))
    # The counter is refreshed at other times than power, and both at other times than they are read.
    phase, counter = int(random.integers(0, _STEPS)), int(random.integers(0, _STEPS))
    reads = np.arange(_WARM_S * 100, size, _STEPS)
    at, counted = reads - phase, reads - counter
    power = (sums[at] - sums[at - 100]) / 100
    instant = (sums[at] - sums[at - 3]) / 3
    energy = random.integers(10**10, 10**12) + np.rint(sums[counted] * _STEP_S * 1000)
    busy = np.concatenate(([0.0], np.cumsum(watts > 1.5 * _IDLE_W)))
    load = (busy[at] - busy[at - 100]) / 100
    capped = power > 680
    heat = _heat(random, watts)
    jitter = random.integers(-8_000_000, 8_000_001, len(reads)) if drift else np.zeros(len(reads))
    jitter[0] = abs(jitter[0])
    return Trace(
        {
            "power": np.rint(power * 1000).astype(np.int64),
            "power_instant": np.rint(instant * 1000).astype(np.int64),
            "energy": energy.astype(np.int64),
            "temperature": np.rint(heat[reads - 1]).astype(np.int64) * 1000,
            "sm_clock": np.where(capped, 1410, 1980).astype(np.int64),
            "utilisation": np.rint(load * 1000).astype(np.int64),
            "clock_reasons": np.where(capped, 4, np.where(load == 0, 1, 0)).astype(np.int64),
        },
        jitter_ns=jitter.astype(np.int64),
    )


def _heat(random: np.random.Generator, watts: Watts) -> Watts:
    coolant = float(random.normal(27, 2.5))
    degrees = np.full(len(watts), coolant)
    for resistance, tau in ((0.025, 1.2), (0.038, 24.0)):
        share = resistance * float(random.normal(1, 0.12))
        node, nodes = share * float(watts[0]), np.empty(len(watts))
        for index, value in enumerate(watts.tolist()):
            node += (share * value - node) * _STEP_S / tau
            nodes[index] = node
        degrees = degrees + nodes
    return degrees


def _noise(random: np.random.Generator, size: int, deviation: float) -> Watts:
    """Noise that a power supply lets through: correlated over 0.6 s."""
    decay = float(np.exp(-_STEP_S / 0.6))
    kicks = random.normal(0, deviation * np.sqrt(1 - decay**2), size)
    noise = np.empty(size)
    value = 0.0
    for index, kick in enumerate(kicks.tolist()):
        value = value * decay + kick
        noise[index] = value
    return noise
