"""What a recording has of each GPU: units, mean power, and what is broken. Judges nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.detector.scoring import least_of
from weighbridge.verifier.telemetry.samples.series import join, source_of
from weighbridge.verifier.telemetry.samples.units import units_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.proto.profile import Profile
    from weighbridge.proto.recording import Recording
    from weighbridge.verifier.telemetry.samples.units import Unit

__all__ = [
    "FAST_UNIT_NS",
    "SLOW_UNIT_NS",
    "Summary",
    "in_some",
    "is_whole",
    "mean_power_w",
    "summarise",
    "unit_length",
]

FAST_UNIT_NS: Final = 10 * 10**9
SLOW_UNIT_NS: Final = 30 * 10**9
_FAST_PERIOD_NS: Final = 500_000_000
_MILLI: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What there is of one GPU.

    Attributes:
        device: its identity, 32 bytes.
        period_ns: nominal time between samples.
        unit_ns: how long its units are.
        units: how many whole ones there are.
        mean_mw: mean power over them; ``None`` where there is none.
        defects: how often each kind of defect occurs, over all windows.
    """

    device: bytes
    period_ns: int
    unit_ns: int
    units: int
    mean_mw: int | None
    defects: Mapping[str, int]


def summarise(recording: Recording) -> list[Summary]:
    """Each GPU of ``recording``, by its identity.

    Raises:
        MalformedEvidence: a window's telemetry is none.
    """
    windows = [window.readings() for window in recording.windows]
    devices = {source.device for window in windows for source in window.sources if source.device is not None}
    found: list[Summary] = []
    for device in sorted(devices):
        sources = [source for window in windows if (source := source_of(window, device)) is not None]
        defects = Counter(defect.kind for source in sources for defect in join([source])[1])
        period_ns = sources[0].period_ns
        unit_ns = unit_length(period_ns)
        units = units_of(recording, device, unit_ns)
        means = [mean for unit in units if (mean := mean_power_w(unit)) is not None]
        found.append(
            Summary(
                device=device,
                period_ns=period_ns,
                unit_ns=unit_ns,
                units=len(units),
                mean_mw=round(_MILLI * sum(means) / len(means)) if means else None,
                defects=dict(sorted(defects.items())),
            )
        )
    return found


def in_some(recordings: Sequence[Recording], profile: Profile) -> tuple[str, ...]:
    """Channels that some of these runs of the profile's GPU have and ``profile`` does not ask for, as others lack them.

    Raises:
        MalformedEvidence: a window's telemetry is none.
    """
    found: set[str] = set()
    for window in (window for recording in recordings for window in recording.windows):
        for source in window.readings().sources:
            if (source.device, source.name) == (profile.device, profile.source):
                found.update(name for name, channel in source.channels.items() if channel.values is not None)
    return tuple(sorted(found.difference(channel.name for channel in profile.channels)))


def unit_length(period_ns: int) -> int:
    """How long a unit is by default, for samples so far apart."""
    return FAST_UNIT_NS if period_ns <= _FAST_PERIOD_NS else SLOW_UNIT_NS


def is_whole(unit: Unit, channel: str, samples: int) -> bool:
    """Whether the unit has every reading of ``channel`` that is needed to score it: ``samples``, or hardly fewer."""
    values = unit.series.channels.get(channel)
    return values is not None and channel not in unit.series.absent and len(values) >= least_of(samples)


def mean_power_w(unit: Unit) -> float | None:
    """W, the mean of all readings of power; ``None`` where there is none."""
    found = unit.series.readings("power")
    return None if found is None else float(found[1].mean()) / _MILLI
