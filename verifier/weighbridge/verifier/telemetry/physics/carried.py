"""Continuity between windows: what the end of one says that the start of the next must continue."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from operator import index
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.physics import heat, slew
from weighbridge.verifier.telemetry.physics.cap import TRANSIENT_PERCENT
from weighbridge.verifier.telemetry.physics.energy import NJ_PER_MJ, agree, tolerance_mj
from weighbridge.verifier.telemetry.physics.finding import Check, Finding, Limits
from weighbridge.verifier.telemetry.physics.heat import Heat
from weighbridge.verifier.telemetry.physics.readings import readings_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.verifier.telemetry.physics.readings import Readings
    from weighbridge.verifier.telemetry.samples.series import Series

__all__ = ["BORDER", "JUMP", "SUM", "Carried", "Last", "check_window"]

BORDER: Final = Check(
    name="energy_border",
    channel="energy",
    says=(
        "from one window to the next the counter never falls, never advances by more than 115 % of the power limit, "
        "and advances by the integral of power within twice the tolerance of a stretch, where power was read throughout"
    ),
    source="as for energy_integral and power_cap",
)
JUMP: Final = Check(
    name="power_border",
    channel="power",
    says="from one window to the next power changes as it may within one",
    source="as for power_slew",
)
SUM: Final = Check(
    name="energy_sum",
    channel="energy",
    says=(
        "over all windows that follow each other without a gap, up to ten minutes, the counter advances by the "
        "integral of power within 1 %, twice what the ends of a stretch may hide, and what a sensor misses that looks "
        "at power for less than the time between its readings"
    ),
    source="H100 at 10 Hz: whole sessions within 0.055 % (median); 1.1 % at most, with gaps",
)
_SUM_NS: Final = 600 * 10**9
_FIXED_MJ: Final = 20_000
# A border is short: what swings faster than a sensor's window is as much as half of it.
_SLACK: Final = 2
_TAIL_US: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Last:
    """A reading that the next window must continue: wall clock in ns, and the value in the channel's unit."""

    at_ns: int
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The end of the samples so far; ``Carried()`` before there are any.

    Attributes:
        power: the last reading of power.
        energy: the last reading of the energy counter.
        since_nj: the integral of power from that reading, and the sensor's lag, to the last reading of power; zero
            where the lag reaches beyond; ``None`` where power was not read throughout.
        spread_mw: by how much power changed since shortly before that reading.
        anchor: the reading of the energy counter from which sums are taken.
        anchor_nj: the integral of power from there, and the sensor's lag, to the last reading of power.
        anchor_mw: by how much power changed around it.
        heat: bounds on the chip's heat.
    """

    power: Last | None = None
    energy: Last | None = None
    since_nj: int | None = None
    spread_mw: int = 0
    anchor: Last | None = None
    anchor_nj: int = 0
    anchor_mw: int = 0
    heat: Heat | None = None


def check_window(series: Series, carried: Carried, limits: Limits | None = None) -> tuple[tuple[Finding, ...], Carried]:
    """What does not continue in ``series`` what was read before it, and what the next window must continue.

    Never raises for what the series contains. Readings out of physical sense are left out without a finding: those of
    the unit name them.

    Args:
        series: the samples of one window.
        carried: what came out of the window before.
        limits: what is known of the device.
    """
    if len(series) == 0:
        return (), carried
    readings, _ = readings_of(series, limits or Limits())
    bridge = _Bridge.of(readings, carried)
    border = _border(readings, carried, bridge)
    found = [_jump(readings, carried), border, None if border is not None else _sum(readings, carried, bridge)]
    state = carried.heat or Heat.unknown(readings.limit_mw)
    if carried.power is not None:
        between = max(0, readings.start_ns - carried.power.at_ns) // 1000
        state = _between(readings, carried.power, state, between)
    warm, state = heat.ambient(readings, state)
    findings = tuple(item for item in (*found, warm) if item is not None)
    return findings, _carry(readings, carried, bridge, state)


@dataclass(frozen=True, slots=True, eq=False)
class _Bridge:
    """The integral of power over the border: from the last reading before it in a straight line to the first behind.

    ``times`` are µs from the start of the window, the first of them before it; ``sums`` nanojoules from there;
    ``change`` is by how much power differs between the two readings, in mW.
    """

    times: NDArray[np.int64]
    sums: NDArray[np.int64]
    change: int

    @classmethod
    def of(cls, readings: Readings, carried: Carried) -> _Bridge | None:
        """``None`` where power was not read on either side, or there is a gap."""
        power, last = readings.power, carried.power
        if power is None or last is None:
            return None
        first_us, first_mw = index(power.times[0]), index(power.values[0])
        between_us = first_us - (last.at_ns - readings.start_ns) // 1000
        if not 0 < between_us <= max(250_000, readings.period_us * 3 // 2):
            return None
        return cls(
            times=np.concatenate(([first_us - between_us], power.times)),
            sums=np.concatenate(([0], power.integral + (last.value + first_mw) * between_us // 2)),
            change=abs(first_mw - last.value),
        )

    def over(self, from_us: int, to_us: int) -> int:
        """Nanojoules of a part of the time."""
        low, high = np.rint(np.interp((from_us, to_us), self.times, self.sums)).astype(np.int64)
        return index(high - low)


def _between(readings: Readings, last: Last, state: Heat, between_us: int) -> Heat:
    if between_us <= max(250_000, readings.period_us * 3 // 2):
        return state.after(last.value, between_us)
    return state.blind(readings.limit_mw, between_us)


def _jump(readings: Readings, carried: Carried) -> Finding | None:
    power, limit, last = readings.power, readings.limit_mw, carried.power
    if power is None or limit is None or last is None or power.window_us is None or not power.averages:
        return None
    first_ns, value = readings.at_ns(index(power.times[0])), index(power.values[0])
    apart = (first_ns - last.at_ns) // 1000
    if not 0 < apart < power.window_us:
        return None
    allowed = slew.allowed_mw(limit, apart, power.window_us)
    if abs(value - last.value) <= allowed:
        return None
    return JUMP.implausible(
        expected=f"a change of at most {allowed / 1000:.0f} W in {apart / 1000:.0f} ms",
        got=f"{abs(value - last.value) / 1000:.0f} W",
        at_ns=first_ns,
    )


def _border(readings: Readings, carried: Carried, bridge: _Bridge | None) -> Finding | None:
    energy, last = readings.tracks.get("energy"), carried.energy
    if energy is None or last is None or "energy" in readings.wrapped:
        return None
    at_us, at_ns, count = index(energy.times[0]), readings.at_ns(index(energy.times[0])), index(energy.values[0])
    if at_ns <= last.at_ns:
        return None  # samples out of order: a defect, and no unit
    advance, seconds = count - last.value, (at_ns - last.at_ns) / 1e9
    if advance < 0:
        return BORDER.implausible(expected=f"at least {last.value} mJ", got=f"{count} mJ", at_ns=at_ns)
    if readings.limit_mw is not None:
        most = readings.limit_mw * TRANSIENT_PERCENT // 100 * ((at_ns - last.at_ns) // 1000) // NJ_PER_MJ + _FIXED_MJ
        if advance > most:
            return BORDER.implausible(
                expected=f"at most {most / 1000:.0f} J in {seconds:.1f} s",
                got=f"{advance / 1000:.0f} J",
                at_ns=at_ns,
            )
    return _continues(readings, carried, bridge, (advance, at_us))


def _continues(
    readings: Readings, carried: Carried, bridge: _Bridge | None, reading: tuple[int, int]
) -> Finding | None:
    """Whether the counter's advance over the border, up to a reading at a time, is the integral of power over it."""
    power, energy, (advance, at_us) = readings.power, carried.energy, reading
    if power is None or bridge is None or energy is None or carried.since_nj is None or not readings.dense:
        return None
    to_us = at_us + power.lag_us
    from_us = (energy.at_ns - readings.start_ns) // 1000 + power.lag_us
    if power.misses or to_us > index(power.times[-1]):
        return None
    total_mj = (carried.since_nj + bridge.over(from_us, to_us)) // NJ_PER_MJ
    if agree(advance, total_mj, _SLACK):
        return None
    ends = (max(index(power.times[0]), from_us), max(index(power.times[0]), to_us))
    change = carried.spread_mw + bridge.change
    allowed = tolerance_mj(power, advance, ends) + change * (power.window_us or 1_000_000) // 2 // NJ_PER_MJ
    allowed *= _SLACK
    if abs(advance - total_mj) <= allowed:
        return None
    return BORDER.implausible(
        expected=f"{total_mj / 1000:.1f} J within {allowed / 1000:.1f} J, the integral of power over the border",
        got=f"{advance / 1000:.1f} J",
        at_ns=readings.at_ns(at_us),
    )


def _sum(readings: Readings, carried: Carried, bridge: _Bridge | None) -> Finding | None:
    """Whether the counter's advance since the anchor is the integral of power since then."""
    power, energy, anchor = readings.power, readings.tracks.get("energy"), carried.anchor
    if power is None or bridge is None or energy is None or anchor is None or not readings.dense:
        return None
    where = index(energy.times.searchsorted(index(power.times[-1]) - power.lag_us + 1)) - 1
    if where < 0 or "energy" in readings.wrapped:
        return None
    from_us = (anchor.at_ns - readings.start_ns) // 1000 + power.lag_us
    to_us = index(energy.times[where]) + power.lag_us
    total_mj = (carried.anchor_nj + bridge.over(from_us, to_us)) // NJ_PER_MJ
    advance = index(energy.values[where]) - anchor.value
    if abs(advance - total_mj) <= abs(advance) // 100:
        return None  # what else is allowed need not be known
    ends = tolerance_mj(power, 0, (to_us, to_us)) + carried.anchor_mw * (power.window_us or 1_000_000) // 2 // NJ_PER_MJ
    # What a sensor misses between its looks grows by the root of time: claiming such a sensor hides little for long.
    missed = 2 * (power.high - power.low) * isqrt(max(0, to_us - from_us) * power.apart_us) if power.misses else 0
    allowed = abs(advance) // 100 + _SLACK * ends + missed // NJ_PER_MJ
    if abs(advance - total_mj) <= allowed:
        return None
    seconds = (readings.at_ns(to_us) - anchor.at_ns) / 1e9
    return SUM.implausible(
        expected=f"{total_mj / 1000:.0f} J within {allowed / 1000:.0f} J, the integral of power over {seconds:.0f} s",
        got=f"{advance / 1000:.0f} J",
        at_ns=anchor.at_ns,
    )


def _carry(readings: Readings, carried: Carried, bridge: _Bridge | None, state: Heat) -> Carried:
    power, energy = readings.power, readings.tracks.get("energy")
    if power is None:
        return Carried(energy=carried.energy, heat=state)
    end_us = index(power.times[-1])
    last = Last(readings.at_ns(end_us), index(power.values[-1]))
    if energy is None or not readings.dense or "energy" in readings.wrapped:
        kept = (
            carried.energy
            if energy is None
            else Last(readings.at_ns(index(energy.times[-1])), index(energy.values[-1]))
        )
        return Carried(power=last, energy=kept, heat=state)
    first_us, last_us = index(energy.times[0]), index(energy.times[-1])
    since, whole = (index(power.integral[-1]) - power.until((last_us + power.lag_us, first_us + power.lag_us))).tolist()
    anchor = carried.anchor
    if anchor is None or bridge is None or last.at_ns - anchor.at_ns > _SUM_NS:
        anchor = Last(readings.at_ns(first_us), index(energy.values[0]))
        sums, change = whole, power.spread(first_us - _TAIL_US, first_us + _TAIL_US)
    else:
        more = bridge.over((anchor.at_ns - readings.start_ns) // 1000 + power.lag_us, end_us)
        sums, change = carried.anchor_nj + more, carried.anchor_mw
    return Carried(
        power=last,
        energy=Last(readings.at_ns(last_us), index(energy.values[-1])),
        since_nj=since,
        spread_mw=power.spread(min(last_us, end_us) - _TAIL_US, end_us),
        anchor=anchor,
        anchor_nj=sums,
        anchor_mw=change,
        heat=state,
    )
