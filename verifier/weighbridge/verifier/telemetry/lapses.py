"""Samples that cannot be scored, what they cost, and what of them is looked at all the same.

What ran while a unit could not be scored nobody knows, and its windows go by the unit before it. So each unit that is
lost while a gate may be open is one more that is asked for in a row, whichever windows it lies in: of a window as long
as six units, one good one does not speak for the other five. What goes on without a pause costs nothing further: the
gate is closed by then.

Where its power was read and nothing is wrong with that, lost time counts as what sessions end with does
(:mod:`.remains`): nobody hides work there by spoiling another channel. Work beyond what the baseline has seen is no
such time: nothing is known of what it draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weighbridge.verifier.telemetry.begun import Begun, begun_of, stretch_of
from weighbridge.verifier.telemetry.past import LAPSES_MAX
from weighbridge.verifier.telemetry.samples.coverage import lasts_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.physics import Finding
    from weighbridge.verifier.telemetry.samples.series import Defect, Sampled
    from weighbridge.verifier.telemetry.samples.units import Unit
    from weighbridge.verifier.telemetry.samples.work import DeclaredWork
    from weighbridge.verifier.telemetry.state import DeviceState

__all__ = ["Lapse", "in_a_row", "lapsed", "of_unit", "of_window"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapse:
    """Time that is not scored.

    Attributes:
        why: in words.
        standing: the findings for which it is not.
        units: how many units are lost; none where they are counted already.
        owed: what of it can be looked at as what sessions end with.
    """

    why: str
    standing: tuple[Finding, ...] = ()
    units: int = 1
    owed: tuple[Begun, ...] = ()


def of_unit(unit: Unit, profile: Profile, *, why: str, standing: tuple[Finding, ...] = ()) -> Lapse:
    """A full unit that is not scored."""
    doubted = any(item.channel == profile.channel for item in standing)
    seen = None if doubted else stretch_of(unit.series, unit.work, profile)
    return Lapse(why=why, standing=standing, owed=() if seen is None else (seen,))


def of_window(
    state: DeviceState, sampled: Sampled, work: DeclaredWork, *, defects: Sequence[Defect], lapse: Lapse
) -> Lapse:
    """A window that is not part of any unit, and the unit that had begun before it, behind ``state``.

    Args:
        state: before the window.
        sampled: in the window.
        work: as declared for the window, and how long that says to be.
        defects: what breaks it.
        lapse: why.
    """
    profile, builder = state.profile, state.builder
    before = 0 if builder is None or builder.work is None else builder.work.duration_ns
    series = sampled.series
    here = work.duration_ns if series is None else lasts_ns(series)
    owed: list[Begun | None] = []
    if profile is not None:
        owed.append(begun_of(builder, profile))
        # A gap leaves the readings beside it as they are; a load that begins while sensors stall is no unit's mean.
        if series is not None and here >= profile.unit_ns and {item.kind for item in defects} == {"gap"}:
            owed.append(stretch_of(series, replace(work, duration_ns=here), profile))
    unit_ns = profile.unit_ns if profile is not None else 0 if builder is None else builder.unit_ns
    return replace(
        lapse,
        units=max(1, (before + here) // unit_ns if unit_ns else 0),
        owed=tuple(item for item in owed if item is not None),
    )


def lapsed(state: DeviceState, lapse: Lapse, *, opened: bool) -> DeviceState:
    """The state behind ``lapse``.

    Args:
        state: before it.
        lapse: what is lost.
        opened: whether its window could begin with a gate that was open.
    """
    shown = replace(
        state, usable=False, row=0, why=lapse.why, standing=lapse.standing, interrupted=state.interrupted or lapse.why
    )
    profile, remains = state.profile, state.remains
    if profile is None or not (opened or state.usable):
        return shown
    for seen in lapse.owed:
        remains = remains.and_(seen)
    remains, alarm = remains.looked_at(profile)
    lapses = min(LAPSES_MAX, state.lapses + lapse.units)
    return replace(shown, lapses=lapses, remains=remains, contradicted=state.contradicted or alarm)


def in_a_row(state: DeviceState) -> DeviceState:
    """The state behind one more unit that was scored."""
    row = state.row + 1
    lapses = max(0, state.lapses - 1) if row % LAPSES_MAX == 0 else state.lapses
    if row >= lapses:
        return replace(state, row=row, lapses=lapses, usable=True, why="")
    why = f"{row} of {lapses} units in a row, as samples were lost so often"
    return replace(state, row=row, lapses=lapses, usable=False, why=why)
