"""The unit that has begun: windows of it go by the word of the unit before, unless it is grossly off already.

Else as many windows as fit into a unit could show anything at all, and each of them open a gate. So once half of a unit
is there, its power as a whole is looked at: past the limit that a whole unit has (:mod:`.detector.gross`), nothing good
is said until the unit is full. That accuses nobody, and no evidence comes of it. Many servers declare work when a
request ends, so that half a unit is looked at, and not less, and by the widest of the limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.detector.explained import covers, explained_mw
from weighbridge.verifier.telemetry.detector.gross import stray

if TYPE_CHECKING:
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.samples.series import Series
    from weighbridge.verifier.telemetry.samples.units import UnitBuilder
    from weighbridge.verifier.telemetry.samples.work import DeclaredWork

__all__ = ["Begun", "begins_badly", "begun_of", "stretch_of"]

# One unit in so many parts is looked at.
_PARTS: Final = 2


@dataclass(frozen=True, slots=True)
class Begun:
    """How long a stretch of samples lasts, its mean power, and what declared work explains of that."""

    lasts_ns: int
    power_mw: int
    explained_mw: int


def begins_badly(builder: UnitBuilder | None, profile: Profile) -> str:
    """Why nothing good is said of the unit that has begun, in words; empty where there is no reason, or too little."""
    begun = begun_of(builder, profile)
    if begun is None or begun.lasts_ns * _PARTS < profile.unit_ns:
        return ""
    off = stray(begun.power_mw - begun.explained_mw, begun.explained_mw)
    if abs(off) <= profile.gross.limits[0]:
        return ""
    return (
        f"the unit that has begun draws {abs(off) / 10:.0f} % {'more' if off > 0 else 'less'} than declared work "
        "explains: wait for its end"
    )


def begun_of(builder: UnitBuilder | None, profile: Profile) -> Begun | None:
    """What the unit that has begun draws so far, if one has.

    Declared work explains no more here than it did in the baseline's runs at most: a unit that declares more than they
    had is not scored when it is full, and must not pass until then.
    """
    work = None if builder is None else builder.work
    if builder is None or work is None or not builder.begun.readings:
        return None
    seen = [
        min(max(amount, term.low), term.high)
        for term, amount in zip(profile.explained.terms, work.regressors(), strict=True)
    ]
    power_mw = builder.begun.drawn_mw // builder.begun.readings
    return Begun(work.duration_ns, power_mw, explained_mw(profile.explained, seen))


def stretch_of(series: Series, work: DeclaredWork, profile: Profile) -> Begun | None:
    """The same of samples that are no unit's; ``None`` without power, or with work that the baseline has not seen."""
    found, amounts = series.readings(profile.channel), work.regressors()
    if found is None or not covers(profile.explained, amounts):
        return None
    power = found[1].tolist()
    return Begun(work.duration_ns, sum(power) // len(power), explained_mw(profile.explained, amounts))
