"""What an emulated H100 is: its parameters, and the load that counted tokens put on it.

Watts, seconds, kelvin and megahertz. The parameters fit measured H100s serving one model of eight billion weights
(docs/telemetry-sources.md says which are measured, which assumed); they must not be used to quote detection rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["H100Model", "Load", "load_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class H100Model:
    """Parameters. Those of memory are assumed, but for its temperature, which follows one measured H200."""

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
    # Memory: warmer than the surroundings when idle, and rising by less than half of what the GPU does.
    memory_offset_k: float = 3.0
    memory_share: float = 0.45
    memory_prefill: float = 0.25
    memory_decode: float = 0.7
    sm_clock_mhz: int = 1980
    memory_clock_mhz: int = 2619


@dataclass(frozen=True, slots=True)
class Load:
    """What a device does during one window: the shares of time that it is busy, and the power while decoding."""

    prefill: float
    decode: float
    decode_w: float


def load_of(model: H100Model, seconds: float, *, tokens_in: float, tokens_out: float, decode_s: float = 0.0) -> Load:
    """Spread one device's work over a window, no faster than the hardware computes.

    Time spent in prefill changes nothing: prefill is bound by arithmetic, whoever shares it.

    Args:
        model: the parameters.
        seconds: the window's length.
        tokens_in: to be prefilled.
        tokens_out: to be decoded.
        decode_s: seconds of decoding, summed over the requests: over the window's length that is how many were decoded
            side by side. 0 for not said: then as few as suffice.
    """
    prefill = min(1.0, tokens_in / model.prefill_tokens_per_s / seconds)
    left = seconds * (1.0 - prefill)
    if tokens_out == 0 or left == 0:
        return Load(prefill, 0.0, 0.0)
    rate = tokens_out / left
    # rate = streams / (token_time + per_stream x streams), solved for streams.
    room = 1.0 - rate * model.token_time_s_per_stream
    wanted = rate * model.token_time_s / room if room > 0 else math.inf
    streams = min(max(1.0, wanted, decode_s / seconds), float(model.streams_max))
    reached = streams / (model.token_time_s + model.token_time_s_per_stream * streams)
    busy = min(1.0, rate / reached) * (1.0 - prefill)
    return Load(prefill, busy, model.decode_w + model.decode_w_per_stream * streams)
