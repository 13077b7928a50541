"""Units: the stretches of samples that are scored, each with the work that was declared for it.

A unit is ten seconds at ten samples a second, thirty at one. Windows that are shorter are collected until they make a
unit; longer ones are cut into equal pieces, and their work with them: work is declared per window, and how it lies
within one is not known. A unit therefore lasts at least its nominal length and less than twice that, plus a window.
What breaks a unit drops it from its first sample; the next begins with the next whole window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from weighbridge.proto.telemetry import Telemetry
from weighbridge.verifier.telemetry.series import GAP_PERIODS_MILLI, SAMPLES_MAX, Defect, join, source_of
from weighbridge.verifier.telemetry.work import DeclaredWork

if TYPE_CHECKING:
    from weighbridge.proto.recording import Recording
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.telemetry.series import Series

__all__ = ["Unit", "UnitBuilder", "units_of"]

# A unit may be short by one part in twenty: windows are cut by clocks that jitter.
_SHORT: Final = 20
# Before its first and behind its last sample, a window may miss one more period than lies between two samples.
_EDGE_PERIODS_MILLI: Final = GAP_PERIODS_MILLI + 1000
_PIECES_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Samples of one unit, the work declared for them, and the windows that the first and the last sample lie in."""

    series: Series
    work: DeclaredWork
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitBuilder:
    """The unit that has begun. Pure: :meth:`after` returns another builder and changes nothing.

    Attributes:
        unit_ns: how long a unit lasts.
        pending: the windows of the unit that has begun.
        work: what was declared for them.
        first_seq: the first of them.
        last_ns: wall clock of the last sample before them, or ``None``: what follows must follow it without a gap.
    """

    unit_ns: int
    pending: tuple[Source, ...] = ()
    work: DeclaredWork | None = None
    first_seq: int = 0
    last_ns: int | None = None

    def __post_init__(self) -> None:
        if self.unit_ns <= 0:
            raise ValueError("a unit lasts longer than nothing")

    def after(
        self, source: Source | None, work: DeclaredWork, interval: tuple[int, int], seq: int
    ) -> tuple[UnitBuilder, tuple[Unit, ...], tuple[Defect, ...]]:
        """The builder behind one more window, the units that it completes, and what is wrong with its samples.

        Never raises for what the evidence contains.

        Args:
            source: what the device's sensors read in the window, ``None`` for nothing.
            work: declared for the window.
            interval: the window's start and end, wall clock, ns.
            seq: the window's number.
        """
        raise NotImplementedError


def units_of(recording: Recording, device: bytes, unit_ns: int) -> list[Unit]:
    """All units of ``device`` in a recording, in order; broken ones are left out."""
    raise NotImplementedError
