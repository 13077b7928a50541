"""What a session's units say together: a statistic of the whole session, and evidence that grows with each unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.scoring import UnitScore

__all__ = ["SessionEvidence"]


@dataclass(frozen=True, slots=True)
class SessionEvidence:
    """One device's evidence so far. Immutable, whole numbers only: made again from the same units, it is the same."""

    units: int = 0
    recent: tuple[int, ...] = ()
    statistic: int = 0
    e_log10_milli: int = 0
    alarm: str | None = None

    @classmethod
    def start(cls) -> Self:
        """Nothing seen yet."""
        return cls()

    def after(self, score: UnitScore, profile: Profile) -> SessionEvidence:
        """With one more unit. One that is not covered changes nothing; an alarm stays."""
        raise NotImplementedError
