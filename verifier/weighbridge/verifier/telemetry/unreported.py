"""Energy that a GPU used between two sessions, when nobody attested what for.

The counter goes on while no session does. What it gained since the last reading of the session before, less what an
idle GPU uses in that time, is work that no window declares. A fact, never a refusal: a GPU may work unattested between
sessions, and whoever relies on sessions should know. *The host says so*: counter and clocks are its word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from weighbridge.proto import strict
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.history import Reading

__all__ = ["IDLE_MW", "Unreported", "unreported"]

# An H100 or H200 with a context resident and nothing to do shows 108 to 123 W; units differ by some percent.
IDLE_MW: Final = 130_000
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreported:
    """What the energy counter of ``device`` gained between its last reading in another session and its first in this.

    Attributes:
        device: 32 bytes.
        session: where it was read last, 16 bytes.
        seq: in which window.
        gap_ns: the time in between, by the host's clock.
        energy_mj: what it gained; ``None`` where it began anew, as it does when the driver is loaded.
        idle_mj: what an idle GPU uses in that time.
    """

    device: bytes
    session: bytes
    seq: int
    gap_ns: int
    energy_mj: int | None
    idle_mj: int

    @property
    def worked(self) -> bool:
        """Whether it is more than an idle GPU uses."""
        return self.energy_mj is not None and self.energy_mj > self.idle_mj

    @property
    def words(self) -> str:
        """What it says, for people."""
        since = f"since window {self.seq} of session {self.session.hex()}, {self.gap_ns / _SECOND:.1f} s before"
        if self.energy_mj is None:
            return f"the energy counter began anew {since}: what was used in between is not known"
        return f"{self.energy_mj / 1000:.0f} J were used {since}, where an idle GPU uses {self.idle_mj / 1000:.0f} J"

    def document(self) -> strict.JsonObject:
        """As verdicts show it."""
        return {
            "device": self.device.hex(),
            "session": self.session.hex(),
            "seq": self.seq,
            "gap_ns": self.gap_ns,
            "energy_mj": self.energy_mj,
            "idle_mj": self.idle_mj,
        }


def unreported(before: Reading, first: tuple[int, int], profile: Profile | None) -> Unreported:
    """What the counter gained between two readings.

    Args:
        before: the last reading of another session.
        first: wall clock in ns and energy in mJ of the first reading in this one.
        profile: of the GPU, whose idle power it has; :data:`IDLE_MW` stands for it where there is none.
    """
    gap_ns, gained = max(0, first[0] - before.wall_ns), first[1] - before.energy_mj
    idle_mw = IDLE_MW if profile is None else profile.explained.base_mw + 3 * profile.explained.uncertainty_mw
    return Unreported(
        device=before.device,
        session=before.session,
        seq=before.seq,
        gap_ns=gap_ns,
        energy_mj=None if gained < 0 else gained,
        idle_mj=gap_ns * idle_mw // _SECOND,
    )
