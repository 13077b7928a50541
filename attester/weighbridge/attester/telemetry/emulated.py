"""An emulated H100's sensors: power, energy, temperature, clocks and utilisation from a physical model.

The model is driven by *counted tokens* and by nominal time. How busy the machine is that computes it changes nothing:
the same seed, devices, durations and counts give the same bytes, but for the start time that the caller states.

Work to power: tokens in cost prefill time, tokens out decode time at the concurrency that their rate needs; each
10 ms step is busy in proportion. Power to sensors: a power cap, a trailing mean over one second read every 100 ms, a
monotone energy counter behind the same shunt, a thermal network of two nodes read in whole degrees. Every unit has
its own gains, drawn from the seed and its identity. The parameters fit measured H100s serving one model of eight
billion weights; they must not be used to quote detection rates.

>>> source = EmulatedTelemetry(1, [bytes(32)])
>>> (idle,) = source.window(start_wall_ns=0, duration_ns=10**9, tokens_in=0, tokens_out=0)
>>> len(idle.offsets), 100_000 < idle.channels["power"].values[-1] < 135_000
(10, True)
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.digest import sha256
from weighbridge.proto.telemetry import UNITS, Channel, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EmulatedTelemetry", "H100Model"]

_STEP_NS: Final = 10_000_000
_STEP_S: Final = 0.01
_SENSOR_STEPS: Final = 100
_CAPPED: Final = 0.999
_REASON_IDLE: Final = 1
_REASON_POWER_CAP: Final = 4
_CHANNELS: Final = ("power", "energy", "temperature", "sm_clock", "memory_clock", "utilisation", "clock_reasons")


@dataclass(frozen=True, slots=True, kw_only=True)
class H100Model:
    """Parameters, in watts, seconds, kelvin and megahertz. Where each is from: the project's notes on telemetry."""

    context_w: float = 117.0
    cap_w: float = 700.0
    decode_w: float = 418.0
    decode_w_per_stream: float = 2.1
    prefill_w: float = 655.0
    prefill_tokens_per_s: float = 22_000.0
    token_time_s: float = 4.2e-3
    token_time_s_per_stream: float = 1.21e-5
    streams_max: int = 128
    noise_w: float = 2.0
    noise_idle_w: float = 0.06
    noise_tau_s: float = 0.6
    leak_w_per_k: float = 0.06
    ambient_c: float = 27.0
    resistance_k_per_w: tuple[float, float] = (0.025, 0.038)
    tau_s: tuple[float, float] = (1.2, 24.0)
    sm_clock_mhz: int = 1980
    memory_clock_mhz: int = 2619


@dataclass(frozen=True, slots=True)
class _Load:
    """What a device does during one window: the share of steps that are busy, and the power while busy."""

    prefill: float
    decode: float
    decode_w: float


@final
class EmulatedTelemetry:
    """A :class:`~weighbridge.attester.telemetry.interface.TelemetrySource` of emulated devices.

    Energy, temperature and noise go on from one window to the next; ``window`` must be called in order.

    Args:
        seed: what all units' gains and noise are drawn from, together with their identities.
        identities: of the devices, 32 bytes each; tokens are shared among them evenly.
        period_ns: between samples; a multiple of 10 ms.
        model: the parameters.
    """

    def __init__(
        self, seed: int, identities: Sequence[bytes], *, period_ns: int = 100_000_000, model: H100Model | None = None
    ) -> None:
        if period_ns <= 0 or period_ns % _STEP_NS:
            raise ValueError("the period is a multiple of 10 ms")
        if not identities:
            raise ValueError("at least one device")
        self._model = model or H100Model()
        self._period_ns = period_ns
        self._devices = {identity: _Device(self._model, seed, identity) for identity in identities}
        # Nominal time since the start, and that of the next sample: a grid that windows do not disturb.
        self._now_ns = 0
        self._next_ns = 0

    def window(self, *, start_wall_ns: int, duration_ns: int, tokens_in: int, tokens_out: int) -> list[Source]:
        """See :meth:`TelemetrySource.window`."""
        if duration_ns <= 0 or tokens_in < 0 or tokens_out < 0:
            raise ValueError("a window has a duration, and counts are not negative")
        share = len(self._devices)
        load = _load(self._model, duration_ns / 1e9, tokens_in=tokens_in / share, tokens_out=tokens_out / share)
        end_ns = self._now_ns + duration_ns
        offsets = tuple(range(self._next_ns - self._now_ns, duration_ns, self._period_ns))
        sources = [
            Source(
                device=identity,
                name="emulated",
                start_wall_ns=start_wall_ns,
                period_ns=self._period_ns,
                offsets=offsets,
                channels=_channels(device.run(load, len(offsets), self._period_ns // _STEP_NS)),
            )
            for identity, device in self._devices.items()
        ]
        self._next_ns += len(offsets) * self._period_ns
        self._now_ns = end_ns
        return sources

    def close(self) -> None:
        """See :meth:`TelemetrySource.close`: nothing to stop."""


def _channels(rows: list[tuple[int, ...]]) -> dict[str, Channel]:
    columns = list(zip(*rows, strict=True)) or [()] * len(_CHANNELS)
    return {name: Channel(UNITS[name], values) for name, values in zip(_CHANNELS, columns, strict=True)}


def _load(model: H100Model, seconds: float, *, tokens_in: float, tokens_out: float) -> _Load:
    """Spread the work over the window: no faster than the hardware, at the least concurrency that suffices."""
    prefill = min(1.0, tokens_in / model.prefill_tokens_per_s / seconds)
    left = seconds * (1.0 - prefill)
    if tokens_out == 0 or left == 0:
        return _Load(prefill, 0.0, 0.0)
    rate = tokens_out / left
    # rate = streams / (token_time + per_stream x streams), solved for streams.
    room = 1.0 - rate * model.token_time_s_per_stream
    wanted = rate * model.token_time_s / room if room > 0 else math.inf
    streams = min(max(1.0, wanted), float(model.streams_max))
    reached = streams / (model.token_time_s + model.token_time_s_per_stream * streams)
    busy = min(1.0, rate / reached) * (1.0 - prefill)
    return _Load(prefill, busy, model.decode_w + model.decode_w_per_stream * streams)


@final
class _Device:
    """One unit: its gains, and the state that goes on from window to window."""

    def __init__(self, model: H100Model, seed: int, identity: bytes) -> None:
        self._model = model
        self._random = random.Random(sha256(b"%d/" % seed + identity))  # noqa: S311 - noise of a model, not a secret
        gauss = self._random.gauss
        # Spread between units, as measured: idle 3 %, dynamic 2.5 %, thermal resistance 12 %, sensor gain 1 %.
        self._context = model.context_w * gauss(1.0, 0.03)
        self._dynamic = gauss(1.0, 0.025)
        self._resistance = [value * max(0.5, gauss(1.0, 0.12)) for value in model.resistance_k_per_w]
        self._ambient = model.ambient_c + gauss(0.0, 2.5)
        self._gain = gauss(1.0, 0.01)
        self._offset = gauss(0.0, 0.5)
        self._energy_mj = abs(gauss(2.4e11, 5e10))
        self._decay = math.exp(-_STEP_S / model.noise_tau_s)
        self._kick = math.sqrt(1.0 - self._decay**2)
        self._noise = 0.0
        self._cap = 1.0
        self._credit = [0.0, 0.0]
        # As if the context had been resident long enough for everything to settle.
        self._nodes = [value * self._context for value in self._resistance]
        self._powers = deque([self._context] * _SENSOR_STEPS, _SENSOR_STEPS)
        self._sum = self._context * _SENSOR_STEPS
        self._busy = deque([False] * _SENSOR_STEPS, _SENSOR_STEPS)

    def run(self, load: _Load, samples: int, steps: int) -> list[tuple[int, ...]]:
        """``samples`` rows in the order of the channels, each read after ``steps`` steps of ``load``."""
        run_gain = self._random.gauss(1.0, 0.003)
        rows: list[tuple[int, ...]] = []
        for _ in range(samples):
            capped = False
            for _ in range(steps):
                self._step(load, run_gain)
                capped = capped or self._cap < _CAPPED
            rows.append(self._read(capped=capped))
        return rows

    def _step(self, load: _Load, run_gain: float) -> None:
        """Ten milliseconds."""
        model = self._model
        watts, busy = self._demand(load, run_gain)
        self._noise = self._decay * self._noise + self._kick * self._random.gauss(0.0, 1.0)
        watts += self._noise * (model.noise_w if busy else model.noise_idle_w) + model.leak_w_per_k * sum(self._nodes)
        over = (watts * self._cap - model.cap_w) / model.cap_w
        self._cap = max(0.6, self._cap - 1.5 * _STEP_S * over) if over > 0 else min(1.0, self._cap + 0.2 * _STEP_S)
        watts *= self._cap
        for node in (0, 1):
            settled = self._resistance[node] * watts
            self._nodes[node] += (settled - self._nodes[node]) * _STEP_S / model.tau_s[node]
        self._sum += watts - self._powers[0]
        self._powers.append(watts)
        self._busy.append(busy)
        self._energy_mj += (watts * self._gain + self._offset) * _STEP_S * 1000.0

    def _demand(self, load: _Load, run_gain: float) -> tuple[float, bool]:
        """Power asked for in this step: shares of busy time accumulate until they make a whole step."""
        model = self._model
        target = 0.0
        for kind, (share, watts) in enumerate(((load.prefill, model.prefill_w), (load.decode, load.decode_w))):
            self._credit[kind] += share
            if self._credit[kind] >= 1.0 and target == 0.0:
                self._credit[kind] -= 1.0
                target = watts
        if target == 0.0:
            return self._context, False
        return self._context + (target - model.context_w) * self._dynamic * run_gain, True

    def _read(self, *, capped: bool) -> tuple[int, ...]:
        model = self._model
        power = self._sum / _SENSOR_STEPS * self._gain + self._offset
        utilisation = sum(self._busy) / _SENSOR_STEPS
        clock = model.sm_clock_mhz * self._cap**0.4
        reasons = _REASON_POWER_CAP if capped else _REASON_IDLE if utilisation == 0 else 0
        return (
            round(power * 1000),
            round(self._energy_mj),
            round(self._ambient + sum(self._nodes)) * 1000,
            round(clock / 15) * 15,
            model.memory_clock_mhz,
            round(utilisation * 1000),
            reasons,
        )
