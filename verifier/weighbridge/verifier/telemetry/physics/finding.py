"""What a check of physics is, what it found, and what it needs to know of the device beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Finding", "Limits", "Verdict"]

Verdict = Literal["implausible", "unusable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Readings that are not what an honest, working sensor gives.

    ``implausible`` says that channels contradict each other or physics; ``unusable`` that a sensor says nothing, as
    broken ones do. Neither says who is to blame.

    Attributes:
        check: its name in :data:`~weighbridge.verifier.telemetry.physics.CHECKS`.
        channel: whose readings.
        verdict: what follows.
        expected: the band, with its unit.
        got: what was read.
        at_ns: wall clock of the reading.
    """

    check: str
    channel: str
    verdict: Verdict
    expected: str
    got: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A row of the table of checks.

    Attributes:
        name: by which findings name it.
        channel: whose readings it judges.
        says: what every honest, working GPU obeys, and what is left out.
        source: where the bound is from.
    """

    name: str
    channel: str
    says: str
    source: str

    def implausible(self, *, expected: str, got: str, at_ns: int) -> Finding:
        """The finding that readings contradict each other or physics."""
        return Finding(
            check=self.name, channel=self.channel, verdict="implausible", expected=expected, got=got, at_ns=at_ns
        )

    def unusable(self, *, expected: str, got: str, at_ns: int) -> Finding:
        """The finding that the sensor says nothing."""
        return Finding(
            check=self.name, channel=self.channel, verdict="unusable", expected=expected, got=got, at_ns=at_ns
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is known of the device beforehand; what is not known is not checked, or by what the host itself says.

    Attributes:
        power_limit_mw: its power limit; ``None`` falls back on what the channel ``power_limit`` says.
    """

    power_limit_mw: int | None = None
