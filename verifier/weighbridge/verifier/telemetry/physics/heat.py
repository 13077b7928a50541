"""Heat: what the chip's temperature may be, and how it may move, given the power that it takes.

Two nodes of heat were measured on H100s: one of 1 to 2 s and 0.02 to 0.03 K/W, one of 16 to 32 s and 0.015 to
0.08 K/W, above a coolant that nobody attests. The bounds here are wider than that on either side: without knowing the
coolant's temperature, heat contradicts power only where they are some hundred watts apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.verifier.telemetry.physics.finding import Finding
    from weighbridge.verifier.telemetry.physics.readings import Readings

__all__ = ["AMBIENT", "RATE", "RESPONSE", "Heat", "ambient", "rate", "response"]

RATE: Final = Check(
    name="temperature_rate",
    channel="temperature",
    says=(
        "between two readings within a second the temperature moves by at most 5.5 K, and 0.05 K for each watt by "
        "which power moved in the five seconds before. Left out in the first four seconds of a stretch"
    ),
    source="H100: fast node of at most 0.03 K/W, slow node of at most 0.08 K/W over 16 s; readings in steps of 1 K",
)
RESPONSE: Final = Check(
    name="temperature_response",
    channel="temperature",
    says=(
        "where power was steady for three seconds and then moves by 400 W or more, for four seconds, the temperature "
        "follows by at least 0.012 K/W less 3.5 K, against the trend that it had. Nothing follows from smaller steps"
    ),
    source="H100: fast node of at least 0.02 K/W within 2 s; H200: 22 K for 570 W after 12 s",
)
AMBIENT: Final = Check(
    name="temperature_ambient",
    channel="temperature",
    says=(
        "less what power heats it by, the temperature leaves a coolant of 5 to 60 degrees. Bounded by all power that "
        "was read before: whoever reports no power where there is, or the reverse, is seen after a minute at 500 W, "
        "and hardly at 200 W"
    ),
    source="(temperature - 27) / power = 0.045 to 0.084 K/W over H100s; taken as 0.02 to 0.095 K/W",
)
_SECOND_US: Final = 1_000_000
_STEP_MK: Final = 5_500
_STEP_PER_W_MK: Final = 50
_SETTLED_US: Final = 4_000_000
_BEFORE_US: Final = 5_000_000
_BEHIND_US: Final = 1_500_000
_RESPONSE_MW: Final = 400_000
_STEADY_MW: Final = 50_000
_RESPONSE_PER_W_MK: Final = 12
_RESPONSE_LESS_MK: Final = 3_500
_STEADY_S: Final = 3
_FOLLOWS_S: Final = 4
_AMBIENT_MK: Final = (5_000, 60_000)
_PER_W_MK: Final = (20, 95)
_SLOW_US: Final = (16_000_000, 32_000_000)
_UNKNOWN_MW: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Heat:
    """Bounds on power as a node of 16 to 32 s sees it, in mW, at a time."""

    low_mw: int
    high_mw: int

    @classmethod
    def unknown(cls, limit_mw: int | None) -> Heat:
        """Before anything was read."""
        return cls(0, limit_mw or _UNKNOWN_MW)

    def after(self, power_mw: int, lasts_us: int) -> Heat:
        """The bounds after ``power_mw`` for so long, whichever node it is."""
        return self.behind(((power_mw, lasts_us),))

    def behind(self, drawn: Iterable[tuple[int, int]]) -> Heat:
        """The bounds behind one stretch after the other, each of a power in mW for so many µs."""
        low, high = self.low_mw, self.high_mw
        for power_mw, lasts_us in drawn:
            low = _towards(low, power_mw, lasts_us, _SLOW_US[1] if power_mw > low else _SLOW_US[0])
            high = _towards(high, power_mw, lasts_us, _SLOW_US[0] if power_mw > high else _SLOW_US[1])
        return Heat(low, high)

    def blind(self, limit_mw: int | None, lasts_us: int) -> Heat:
        """The bounds after a time in which nobody knows the power."""
        most = max(self.high_mw, limit_mw or _UNKNOWN_MW)
        return Heat(
            _towards(self.low_mw, 0, lasts_us, _SLOW_US[0]), _towards(self.high_mw, most, lasts_us, _SLOW_US[0])
        )


def rate(readings: Readings) -> Finding | None:
    """Whether the temperature jumps."""
    power, heat = readings.power, readings.tracks.get("temperature")
    if power is None or heat is None or len(heat.times) == 0:
        return None
    steps, apart = np.abs(heat.values[1:] - heat.values[:-1]), heat.times[1:] - heat.times[:-1]
    for where in ((steps > _STEP_MK) & (apart <= _SECOND_US)).nonzero()[0]:
        at = index(heat.times[where + 1])
        if at - index(power.times[0]) < _SETTLED_US:
            continue
        moved = power.spread(at - _BEFORE_US, at + _BEHIND_US)
        allowed = _STEP_MK + _STEP_PER_W_MK * moved // 1000
        if index(steps[where]) > allowed:
            return RATE.implausible(
                expected=f"at most {allowed / 1000:.1f} K in {index(apart[where]) / 1e6:.1f} s",
                got=f"{index(steps[where]) / 1000:.1f} K while power moved by {moved / 1000:.0f} W",
                at_ns=readings.at_ns(at),
            )
    return None


def response(readings: Readings) -> Finding | None:
    """Whether the temperature follows a large step of power."""
    power, heat = readings.power, readings.tracks.get("temperature")
    if power is None or heat is None or not readings.dense:
        return None
    if power.high - power.low < _RESPONSE_MW:
        return None
    end = min(index(power.times[-1]), index(heat.times[-1]))
    marks = np.arange(max(index(power.times[0]), index(heat.times[0])), end + 1, _SECOND_US)
    watts = np.diff(power.until(marks)) // _SECOND_US  # mW: nanojoules in a second
    cuts = np.searchsorted(heat.times, marks)
    if len(watts) < _STEADY_S + _FOLLOWS_S + 1 or bool((np.diff(cuts) == 0).any()):
        return None
    sums = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(heat.values)))
    degrees = np.diff(sums[cuts]) // np.diff(cuts)
    return _follows(readings, watts.tolist(), degrees.tolist(), index(marks[0]))


def ambient(readings: Readings, before: Heat) -> tuple[Finding | None, Heat]:
    """Whether some coolant explains the temperature at the end of the stretch; and the bounds on heat there."""
    power = readings.power
    if power is None:
        return None, before
    first_us, last_us = index(power.times[0]), index(power.times[-1])
    marks = [*range(first_us, last_us, _SECOND_US), last_us]
    state = before
    if readings.dense:
        sums = pairwise(zip(power.until(marks).tolist(), marks, strict=True))
        state = before.behind(((until - since) // (end - start), end - start) for (since, start), (until, end) in sums)
    else:
        for start, end in pairwise(marks):
            state = state.blind(readings.limit_mw, end - start)
    heat = readings.tracks.get("temperature")
    if heat is None or not readings.dense or last_us - index(heat.times[-1]) > _SECOND_US:
        return None, state
    degrees = index(heat.values[-1])
    # The fast node is somewhere within what was read in the last seconds: its share goes with the bounds of those.
    last = power.values[index(power.times.searchsorted(last_us - _BEFORE_US)) :]
    low, high = min(state.low_mw, index(last.min())), max(state.high_mw, index(last.max()))
    coolest, warmest = degrees - _PER_W_MK[1] * high // 1000, degrees - _PER_W_MK[0] * low // 1000
    if coolest <= _AMBIENT_MK[1] and warmest >= _AMBIENT_MK[0]:
        return None, state
    return AMBIENT.implausible(
        expected=f"a coolant of {_AMBIENT_MK[0] // 1000} to {_AMBIENT_MK[1] // 1000} degrees",
        got=f"{coolest / 1000:.0f} to {warmest / 1000:.0f} degrees: chip at {degrees / 1000:.0f}, heated by "
        f"{low / 1000:.0f} to {high / 1000:.0f} W",
        at_ns=readings.at_ns(index(heat.times[-1])),
    ), state


def _follows(readings: Readings, watts: Sequence[int], degrees: Sequence[int], start_us: int) -> Finding | None:
    """Means over seconds: power in mW, temperatures in mK."""
    for now in range(_STEADY_S, len(watts) - _FOLLOWS_S):
        before = watts[now - _STEADY_S : now + 1]
        behind = watts[now + 2 : now + 1 + _FOLLOWS_S]
        if max(before) - min(before) > _STEADY_MW:
            continue
        step = min(behind) - max(before) if behind[0] > before[-1] else max(behind) - min(before)
        if abs(step) < _RESPONSE_MW or (step > 0) != (behind[0] > before[-1]):
            continue
        trend = (degrees[now] - degrees[now - _STEADY_S]) * _FOLLOWS_S // _STEADY_S
        moved = (degrees[now + _FOLLOWS_S] - degrees[now] - trend) * (1 if step > 0 else -1)
        least = _RESPONSE_PER_W_MK * abs(step) // 1000 - _RESPONSE_LESS_MK
        if moved < least:
            return RESPONSE.implausible(
                expected=f"at least {least / 1000:.1f} K after a step of {step / 1000:.0f} W",
                got=f"{moved / 1000:.1f} K in {_FOLLOWS_S} s",
                at_ns=readings.at_ns(start_us + now * _SECOND_US),
            )
    return None


def _towards(value: int, goal: int, lasts_us: int, tau_us: int) -> int:
    """An implicit step: exact arithmetic, and never beyond the goal however long it lasts."""
    return value + (goal - value) * lasts_us // (tau_us + lasts_us)
