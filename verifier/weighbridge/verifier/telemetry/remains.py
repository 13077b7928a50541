"""What no unit has though it opened a gate: what sessions end with, and what is lost within them (:mod:`.lapses`).

Else a host would do what nobody is to see in the last windows of each session, and close it before their unit is full,
or spoil the unit. What their power and the declared work come to is summed up over sessions, and once it is as long as
a unit it is looked at as one is whose power is off as a whole (:mod:`.detector.gross`), by the widest of the limits:
when a session ends, servers declare the last requests late, and a GPU that was at work does not idle at once. What is
less than that, in less than a unit at the end of each session, stays unseen. Pure and in whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor
from weighbridge.verifier.telemetry.begun import begun_of
from weighbridge.verifier.telemetry.detector.gross import stray

if TYPE_CHECKING:
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.begun import Begun
    from weighbridge.verifier.telemetry.samples.units import UnitBuilder

__all__ = ["NO_REMAINS", "Remains"]

_PARTS: Final = 3
_LASTS_MAX: Final = 2**53
_ENERGY_MAX: Final = 2**62
_PJ_IN_UJ: Final = 1_000_000
_TENTHS: Final = 10
_PPM_TO_PERCENT: Final = 10_000
_SECOND: Final = 10**9


@dataclass(frozen=True, slots=True)
class Remains:
    """How long unscored samples lasted together, what they drew, and what declared work explains of it.

    Attributes:
        lasts_ns: nanoseconds.
        drawn_uj: microjoules.
        explained_uj: microjoules.
    """

    lasts_ns: int = 0
    drawn_uj: int = 0
    explained_uj: int = 0

    def beside(self, builder: UnitBuilder | None, profile: Profile) -> Remains:
        """With the unit that has begun, were it never to be full."""
        begun = begun_of(builder, profile)
        return self if begun is None else self.and_(begun)

    def and_(self, begun: Begun) -> Remains:
        """With this stretch."""
        return Remains(
            min(_LASTS_MAX, self.lasts_ns + begun.lasts_ns),
            _bounded(self.drawn_uj + begun.power_mw * begun.lasts_ns // _PJ_IN_UJ),
            _bounded(self.explained_uj + begun.explained_mw * begun.lasts_ns // _PJ_IN_UJ),
        )

    def looked_at(self, profile: Profile) -> tuple[Remains, str]:
        """What is to be looked at another time, and an alarm in words; empty where there is none.

        Nothing is looked at before it is as long as a unit: and then once.
        """
        if self.lasts_ns < profile.unit_ns:
            return self, ""
        off = stray(self.drawn_uj - self.explained_uj, self.explained_uj)
        limit = profile.gross.limits[0]
        if abs(off) <= limit:
            return NO_REMAINS, ""
        return NO_REMAINS, (
            f"power {abs(off) / _TENTHS:.0f} % {'above' if off > 0 else 'below'} what declared work explains, in "
            f"{self.lasts_ns / _SECOND:.1f} s that no unit has, as sessions ended or samples were lost, passed "
            f"{limit / _TENTHS:.3g} %, as in at most {profile.gross.claimed_ppm / _PPM_TO_PERCENT:.2g} % of genuine "
            f"sessions (gross), {profile.channel}"
        )

    def to_cbor(self) -> list[cbor.CborValue]:
        """As records hold it: ``docs/protocol.md`` §7."""
        return [self.lasts_ns, self.drawn_uj, self.explained_uj]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self:
        """Read what :meth:`to_cbor` writes.

        Raises:
            MalformedEvidence: ``FIELD_TYPE`` or ``FIELD_RANGE``.
        """
        fields = cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=_PARTS, size=_PARTS))), where)
        return cls(
            fields.uint(0, limit=_LASTS_MAX),
            fields.integer(1, low=-_ENERGY_MAX, high=_ENERGY_MAX),
            fields.integer(2, low=-_ENERGY_MAX, high=_ENERGY_MAX),
        )


NO_REMAINS: Final = Remains()


def _bounded(energy_uj: int) -> int:
    return max(-_ENERGY_MAX, min(_ENERGY_MAX, energy_uj))
