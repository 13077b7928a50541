"""One emulated H100: what its sensors read while it works, as one array per channel.

Power is stepped every 10 ms, each step busy or not in the proportion that the load says, and not in step with anything:
a rhythm would be the same in every run, and another with every change of the load. A power cap that reacts within a
second, noise with a memory, leakage that grows with heat, two thermal nodes. What has to be stepped, one state after
another, is a loop over numbers; what sensors make of it (trailing means, a counter, rounding) is done on whole windows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

import numpy as np

from weighbridge.proto.digest import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from weighbridge.attester.telemetry.emulated_model import H100Model, Load

__all__ = ["SENSOR_WINDOWS_NS", "STEP_NS", "EmulatedDevice"]

STEP_NS: Final = 10_000_000
# What a reading is the mean of, before it was taken.
SENSOR_WINDOWS_NS: Final[Mapping[str, int]] = {
    "power": 1_000_000_000,
    "power_instant": 25_000_000,
    "utilisation": 1_000_000_000,
    "memory_utilisation": 1_000_000_000,
}
_STEP_S: Final = 0.01
_SENSOR_STEPS: Final = 100
_INSTANT_STEPS: Final = 2.5
_CAPPED: Final = 0.999
_CAP_LEAST: Final = 0.6
_CAP_DOWN: Final = 1.5 * _STEP_S
_CAP_UP: Final = 0.2 * _STEP_S
_REASON_IDLE: Final = 1
_REASON_POWER_CAP: Final = 4
# The energy counter begins with the driver, which came up so long before the first window.
_DRIVER_S: Final = 60.0


@final
class EmulatedDevice:
    """One unit: its gains, and the state that goes on from window to window.

    It begins warm: the first load is taken for what it did before, long enough for everything to settle. A server that
    is watched is one that serves; a load that begins in a later window begins cold, as it would.

    Args:
        model: the parameters.
        seed: what units' gains are drawn from, together with ``identity``: they stay the same in every run.
        identity: 32 bytes.
        run: what noise is drawn from beside, and what differs between two runs of one unit.
    """

    def __init__(self, model: H100Model, *, seed: int, identity: bytes, run: int) -> None:
        self._model = model
        unit = _generator(b"%d/" % seed + identity)
        # Spread between units, as measured: idle 3 %, dynamic 2.5 %, thermal resistance 12 %, sensor gain 1 %.
        context = model.context_w * unit.normal(1.0, 0.03)
        dynamic = unit.normal(1.0, 0.025)
        self._resistance = [value * max(0.5, unit.normal(1.0, 0.12)) for value in model.resistance_k_per_w]
        ambient = model.ambient_c + unit.normal(0.0, 2.5)
        self._gain = unit.normal(1.0, 0.01)
        self._offset = unit.normal(0.0, 0.5)
        # Between runs of one unit: 0.3 % of dynamic power, half of that when idle, the air of the room.
        self._random = _generator(b"%d/%d/" % (seed, run) + identity)
        self._context = context * self._random.normal(1.0, 0.0015)
        self._dynamic = dynamic * self._random.normal(1.0, 0.003)
        self._ambient = ambient + self._random.normal(0.0, 0.7)
        self._decay = math.exp(-_STEP_S / model.noise_tau_s)
        self._kick = math.sqrt(1.0 - self._decay**2)
        self._noise = 0.0
        self._cap = 1.0
        self._prefill, self._decode = (
            _Bursts(_generator(b"%d/%d/%s/" % (seed, run, kind) + identity)) for kind in (b"prefill", b"decode")
        )
        self._energy_mj = (self._context * self._gain + self._offset) * _DRIVER_S * 1000.0
        self._nodes = (0.0, 0.0)
        # The second before what comes; nothing yet.
        self._watts = np.zeros(0)
        self._kinds = np.zeros(0, dtype=np.int64)

    def read(self, load: Load, *, samples: int, steps: int) -> dict[str, NDArray[np.int64]]:
        """Readings by channel, in the channels' units: ``samples`` of each, taken after every ``steps`` steps."""
        model = self._model
        count = samples * steps
        targets = np.array([model.context_w, model.prefill_w, load.decode_w])
        asked = self._context + (targets - model.context_w) * self._dynamic
        if not len(self._watts):
            self._warm(load, asked)
        kinds = self._shares(load, count)
        noises = np.array([model.noise_idle_w, model.noise_w, model.noise_w])
        watts, caps, nodes = self._settle(asked[kinds], noises[kinds])
        joules = self._energy_mj + np.cumsum((watts * self._gain + self._offset) * (_STEP_S * 1000.0))
        if count:
            self._energy_mj = float(joules[-1])
        # One trailing second before the window, so that its first readings have what they are means of.
        watts = np.concatenate((self._watts, watts))
        kinds = np.concatenate((self._kinds, kinds))
        self._watts, self._kinds = watts[-_SENSOR_STEPS:], kinds[-_SENSOR_STEPS:]
        at = np.arange(1, samples + 1) * steps - 1
        lowest = caps.reshape(samples, steps).min(axis=1) if count else caps
        busy = _trailing(np.array([0.0, 1.0, 1.0])[kinds], at)
        memory = _trailing(np.array([0.0, model.memory_prefill, model.memory_decode])[kinds], at)
        slow = nodes[1][at] * (sum(self._resistance) / self._resistance[1])
        return {
            "power": self._shunt(_trailing(watts, at)),
            "power_instant": self._shunt(_instant(watts, at)),
            "energy": _whole(joules[at]),
            "temperature": _whole(self._ambient + nodes[0][at] + nodes[1][at]) * 1000,
            "memory_temperature": _whole(self._ambient + model.memory_offset_k + model.memory_share * slow) * 1000,
            "sm_clock": _whole(model.sm_clock_mhz * caps[at] ** 0.4 / 15) * 15,
            "memory_clock": np.full(samples, model.memory_clock_mhz, dtype=np.int64),
            "utilisation": _whole(busy * 100) * 10,
            "memory_utilisation": _whole(memory * 100) * 10,
            "clock_reasons": np.where(lowest < _CAPPED, _REASON_POWER_CAP, np.where(busy == 0, _REASON_IDLE, 0)),
            "power_limit": np.full(samples, round(model.cap_w * 1000), dtype=np.int64),
        }

    def _warm(self, load: Load, asked: NDArray[np.float64]) -> None:
        """As if this load had lasted for long, within what the cap allows."""
        kinds = self._shares(load, _SENSOR_STEPS)
        wanted = asked[kinds]
        # Leakage heats, and heat leaks.
        idle, prefill, decode = asked.tolist()
        mean = idle + load.prefill * (prefill - idle) + load.decode * (decode - idle)
        settled = mean / (1.0 - self._model.leak_w_per_k * sum(self._resistance))
        self._cap = max(_CAP_LEAST, min(1.0, self._model.cap_w / settled))
        fast, slow = (resistance * settled * self._cap for resistance in self._resistance)
        self._nodes = (fast, slow)
        self._watts = (wanted + self._model.leak_w_per_k * (fast + slow)) * self._cap
        self._kinds = kinds

    def _shunt(self, watts: NDArray[np.float64]) -> NDArray[np.int64]:
        """Milliwatts, as the shunt sees them: the same gain and offset that the energy counter is behind."""
        return _whole((watts * self._gain + self._offset) * 1000)

    def _shares(self, load: Load, count: int) -> NDArray[np.int64]:
        """Of each step: 0 idle, 1 prefill, 2 decode."""
        prefill = self._prefill.steps(load.prefill, np.ones(count, dtype=np.bool_))
        rest = min(1.0, load.decode / (1.0 - load.prefill)) if load.decode else 0.0
        decode = self._decode.steps(rest, ~prefill)
        return np.where(prefill, 1, np.where(decode, 2, 0))

    def _settle(
        self, asked: NDArray[np.float64], noises: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Power, cap and the heat of both nodes after each step; every step begins with what the last one left."""
        model = self._model
        kicks = self._random.standard_normal(len(asked)) * self._kick
        limit, leak, decay = model.cap_w, model.leak_w_per_k, self._decay
        noise, cap = self._noise, self._cap
        (fast, slow), (to_fast, to_slow) = self._nodes, self._resistance
        in_fast, in_slow = (_STEP_S / tau for tau in model.tau_s)
        rows: list[tuple[float, float, float, float]] = []
        for target, scale, kick in zip(asked.tolist(), noises.tolist(), kicks.tolist(), strict=True):
            noise = decay * noise + kick
            wanted = target + noise * scale + leak * (fast + slow)
            over = (wanted * cap - limit) / limit
            cap = max(_CAP_LEAST, cap - _CAP_DOWN * over) if over > 0 else min(1.0, cap + _CAP_UP)
            power = wanted * cap
            fast += (to_fast * power - fast) * in_fast
            slow += (to_slow * power - slow) * in_slow
            rows.append((power, cap, fast, slow))
        self._noise, self._cap, self._nodes = noise, cap, (fast, slow)
        watts, caps, fasts, slows = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        return watts, caps, (fasts, slows)


@final
class _Bursts:
    """Busy steps of one kind. Shares of them accumulate; each is made somewhere while the next whole one does.

    How windows are cut changes nothing.
    """

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._owed = 0.0
        # Where in its turn each next step is made: drawn, and not made yet.
        self._early: NDArray[np.float64] = np.zeros(0)

    def steps(self, share: float, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the steps that are ``free`` are busy, a ``share`` of them."""
        busy = np.zeros(len(free), dtype=np.bool_)
        owed: NDArray[np.float64] = np.cumsum(free, dtype=np.float64) * share + self._owed
        if not share or not len(owed):
            return busy
        turns = np.arange(math.floor(owed[-1].item()) + 1, dtype=np.float64)
        missing = max(0, len(turns) - len(self._early))
        self._early = np.concatenate((self._early, self._random.random(missing)))
        # No two turns' steps come closer than one step brings: a share of one makes every step.
        due: NDArray[np.float64] = turns + 1 - (1 - share) * self._early[: len(turns)]
        made = due[due <= owed[-1]]
        busy[np.searchsorted(owed, made)] = True
        self._early = self._early[len(made) :]
        self._owed = owed[-1].item() - len(made)
        return busy & free


def _generator(key: bytes) -> np.random.Generator:
    # Noise of a model, not a secret.
    return np.random.Generator(np.random.PCG64(list(sha256(key))))


def _trailing(values: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean over the second before the end of each step ``at``; ``values`` begin one second before step 0."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    return (sums[at + 1 + _SENSOR_STEPS] - sums[at + 1]) / _SENSOR_STEPS


def _instant(values: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean over the 25 ms before the end of each step ``at``; ``values`` as in :func:`_trailing`."""
    last = at + _SENSOR_STEPS
    return (values[last] + values[last - 1] + values[last - 2] / 2) / _INSTANT_STEPS


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(values).astype(np.int64)
