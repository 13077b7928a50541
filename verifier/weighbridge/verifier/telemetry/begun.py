"""The unit that has begun: windows of it go by the word of the unit before, unless it is grossly off already.

Else as many windows as fit into a unit could show anything at all, and each of them open a gate. So once half of a unit
is there, its power as a whole is looked at: past the limit that a whole unit has (:mod:`.gross`), nothing good is said
until the unit is full. That accuses nobody, and no evidence comes of it. Many servers declare work when a request ends,
so that half a unit is looked at, and not less, and by the widest of the limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.explained import explained_mw
from weighbridge.verifier.telemetry.gross import stray

if TYPE_CHECKING:
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.units import UnitBuilder

__all__ = ["begins_badly"]

# One unit in so many parts is looked at.
_PARTS: Final = 2


def begins_badly(builder: UnitBuilder | None, profile: Profile) -> str:
    """Why nothing good is said of the unit that has begun, in words; empty where there is no reason, or too little.

    Declared work explains no more here than it did in the baseline's runs at most: a unit that declares more than they
    had is not scored when it is full, and must not pass until then.
    """
    work = None if builder is None else builder.work
    if builder is None or work is None or work.duration_ns * _PARTS < profile.unit_ns:
        return ""
    power: list[int] = []
    for source in builder.pending:
        channel = source.channels.get(profile.channel)
        values = () if channel is None or channel.values is None else channel.values
        power += [value for value in values if value is not None]
    if not power:
        return ""
    seen = [
        min(max(amount, term.low), term.high)
        for term, amount in zip(profile.explained.terms, work.regressors(), strict=True)
    ]
    explained = explained_mw(profile.explained, seen)
    off = stray(sum(power) // len(power) - explained, explained)
    if abs(off) <= profile.gross.limits[0]:
        return ""
    return (
        f"the unit that has begun draws {abs(off) / 10:.0f} % {'more' if off > 0 else 'less'} than declared work "
        "explains: wait for its end"
    )
