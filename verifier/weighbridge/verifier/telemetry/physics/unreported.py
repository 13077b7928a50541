"""Energy between two sessions that no attested window reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from weighbridge.proto import strict

__all__ = ["Counted", "Unreported", "unreported"]


class Counted(Protocol):
    """A reading of an energy counter: wall clock in ns, and mJ."""

    @property
    def wall_ns(self) -> int:
        """When, by the host's clock."""
        ...

    @property
    def energy_mj(self) -> int:
        """The counter."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreported:
    """What the counter says of the time between two attested sessions. No accusation: nobody promised idleness there.

    Attributes:
        energy_mj: by which the counter advanced; ``None`` where it fell, which is where its driver began anew: then
            nothing is known.
        lasts_ns: the time between, by the host's clock.
        idle_mj: what an idle device would have taken.
        work_mj: energy beyond that: work that no attested window reports. Below the idle energy it is negative: a
            device that was off, or without a context, takes less.
    """

    energy_mj: int | None
    lasts_ns: int
    idle_mj: int
    work_mj: int | None

    def document(self) -> strict.JsonObject:
        """As verdicts show it."""
        return {
            "energy_mj": self.energy_mj,
            "lasts_ns": self.lasts_ns,
            "idle_mj": self.idle_mj,
            "work_mj": self.work_mj,
        }

    @property
    def words(self) -> str:
        """For people."""
        hours = self.lasts_ns / 3.6e12
        if self.energy_mj is None or self.work_mj is None:
            return f"the energy counter began anew within the last {hours:.2f} h: what ran meanwhile is not known"
        kwh, beyond = self.energy_mj / 3.6e9, max(0, self.work_mj) / 3.6e9
        return f"{kwh:.3f} kWh in {hours:.2f} h that no attested window reports, {beyond:.3f} kWh beyond idleness"


def unreported(previous: Counted, first: Counted, *, idle_mw: int) -> Unreported:
    """What ran between the last reading of one session and the first of the next, on one device.

    Args:
        previous: the last reading of the session before.
        first: the first of this one.
        idle_mw: what the device takes when idle, at least zero.
    """
    lasts_ns = max(0, first.wall_ns - previous.wall_ns)
    idle_mj = idle_mw * lasts_ns // 10**9
    energy_mj = first.energy_mj - previous.energy_mj
    if energy_mj < 0:
        return Unreported(energy_mj=None, lasts_ns=lasts_ns, idle_mj=idle_mj, work_mj=None)
    return Unreported(energy_mj=energy_mj, lasts_ns=lasts_ns, idle_mj=idle_mj, work_mj=energy_mj - idle_mj)
