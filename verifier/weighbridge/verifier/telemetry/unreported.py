"""Energy that a GPU used between two sessions, when nobody attested what for: as facts of a window.

A fact, never a refusal: a GPU may work unattested between sessions, and whoever relies on sessions should know. What it
is computed by: :mod:`.physics.unreported`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.history import Reading
from weighbridge.verifier.telemetry.physics import unreported

if TYPE_CHECKING:
    from weighbridge.proto import strict
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.physics import Unreported

__all__ = ["IDLE_MW", "Between", "between"]

# An H100 or H200 with a context resident and nothing to do shows 108 to 123 W; units differ by some percent.
IDLE_MW: Final = 130_000


@dataclass(frozen=True, slots=True)
class Between:
    """What a GPU used between its last reading in another session, ``before``, and its first in this one."""

    before: Reading
    found: Unreported

    @property
    def device(self) -> bytes:
        """Which GPU."""
        return self.before.device

    @property
    def session(self) -> bytes:
        """In which its counter was read last."""
        return self.before.session

    @property
    def gap_ns(self) -> int:
        """The time between, by the host's clock."""
        return self.found.lasts_ns

    @property
    def energy_mj(self) -> int | None:
        """By which the counter advanced; ``None`` where it began anew."""
        return self.found.energy_mj

    @property
    def idle_mj(self) -> int:
        """What an idle GPU uses in that time."""
        return self.found.idle_mj

    @property
    def words(self) -> str:
        """What it says, for people."""
        return f"{self.found.words} (since window {self.before.seq} of session {self.before.session.hex()})"

    def document(self) -> strict.JsonObject:
        """As verdicts show it."""
        return {**self.before.document(), **self.found.document()}


def between(before: Reading, first: tuple[int, int], profile: Profile | None) -> Between:
    """What the counter of a GPU gained between two readings.

    Args:
        before: the last one of another session.
        first: wall clock in ns and energy in mJ of the first one in this session.
        profile: of the GPU, which says what it uses without work; :data:`IDLE_MW` stands for it where there is none.
    """
    idle_mw = IDLE_MW if profile is None else max(0, profile.explained.base_mw + 3 * profile.explained.uncertainty_mw)
    reading = Reading(
        device=before.device, session=before.session, seq=before.seq, wall_ns=first[0], energy_mj=first[1]
    )
    return Between(before, unreported(before, reading, idle_mw=idle_mw))
