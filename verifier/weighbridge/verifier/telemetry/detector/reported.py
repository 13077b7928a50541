"""What a source has to report for a unit to be scored: every channel that every run of the baseline had.

A host that leaves out its energy counter has not been caught in a contradiction; but nothing contradicts its power any
more. So a unit that lacks what the runs had, or has fewer readings of it, or says that a sensor takes its mean over
another time, is ``unusable`` and never scored. So is one of another sensor path: who adds a source of his own has not
changed what the baseline was recorded from. More channels than the runs had do no harm.
"""

from __future__ import annotations

from statistics import median_low
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, PolicyDenied, shorten
from weighbridge.proto.profile import Reported
from weighbridge.verifier.telemetry.detector.scoring import least_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.profile import Profile
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.telemetry.samples.series import Series
    from weighbridge.verifier.telemetry.samples.units import Unit

__all__ = ["lack", "reported", "strange", "unfit", "unread"]

_LIMIT: Final = "power_limit"
# Read when they may have changed, once in a window: how many of them a unit has follows from the windows' length.
_SETTINGS: Final = frozenset({_LIMIT})
# One reading in so many may fail, and one always: what is read once a second is not in step with units.
_FAIL: Final = 10
_SECOND: Final = 1_000_000_000
_WATT: Final = 1_000


def reported(runs: Sequence[Sequence[Unit]], *, samples: int) -> tuple[Reported, ...]:
    """The channels that each of ``runs`` has, in units of so many ``samples``: what is typical of them.

    Raises:
        PolicyDenied: ``BASELINE_SCOPE``: a sensor of theirs takes its mean over one time here, over another there.
    """
    named = [frozenset(name for unit in run for name in unit.series.channels) for run in runs]
    series = [unit.series for run in runs for unit in run]
    return tuple(_typical(name, series, samples) for name in sorted(named[0].intersection(*named[1:])))


def lack(series: Series, channels: Sequence[Reported]) -> str:
    """What a unit's samples lack of ``channels``, in words; empty where they have all of it."""
    for channel in channels:
        if channel.name not in series.channels:
            return f"{channel.name} is not sampled, and the baseline's runs had it"
        window = series.windows_ns.get(channel.name)
        if window != channel.window_ns:
            now, then = _over(window), _over(channel.window_ns)
            return f"{channel.name} is said to be a mean over {now}, and in the baseline's runs over {then}"
        read = _readings(series, channel.name)
        if read < channel.readings - max(1, channel.readings // _FAIL):
            return f"{read} readings of {channel.name}, and the baseline's runs had {channel.readings}"
    return ""


def unfit(series: Series, profile: Profile) -> str:
    """Why ``profile`` cannot score these samples of a unit, in words; empty where it can."""
    if why := strange(series, profile):
        return why
    needed = profile.unit_ns // profile.period_ns
    if len(series) < least_of(needed):
        return f"{len(series)} samples, of {needed} that are due"
    if profile.channel not in series.channels:
        return f"the baseline is about {profile.channel}, which is not sampled"
    if profile.channel in series.absent:
        return f"readings of {profile.channel} are missing"
    return lack(series, profile.channels)


def strange(source: Source | Series, profile: Profile) -> str:
    """Why samples of this sensor path never make a unit that ``profile`` scores, in words; empty where they may."""
    if source.name != profile.source:
        return f"sampled by {shorten(source.name)}, and the baseline's runs by {profile.source}"
    if source.period_ns != profile.period_ns:
        return (
            f"sampled every {source.period_ns / _SECOND:g} s, "
            f"and the baseline's channel every {profile.period_ns / _SECOND:g} s"
        )
    return ""


def unread(series: Series, profile: Profile) -> str:
    """What these samples of one window lack that every window has to have, in words; empty where they have it.

    A limit of power is read once a window: a baseline for one limit holds for no window that does not say its own.
    """
    if series.readings(profile.channel) is None:
        return f"{profile.channel} is not sampled"
    limit_mw = profile.scope.power_limit_mw
    due = limit_mw is not None and any(channel.name == _LIMIT for channel in profile.channels)
    if limit_mw is not None and due and series.readings(_LIMIT) is None:
        return f"{_LIMIT} is not read, and the baseline is for one of {limit_mw / _WATT:g} W"
    return ""


def _typical(name: str, series: Sequence[Series], samples: int) -> Reported:
    windows = {item.windows_ns.get(name) for item in series if name in item.channels}
    if len(windows) > 1:
        raise PolicyDenied(
            Code.BASELINE_SCOPE,
            "runs whose sensors take their mean over different times",
            where=name,
            got=", ".join(sorted(_over(window) for window in windows)),
            hint="record all runs with the same --telemetry options",
        )
    read = 0 if name in _SETTINGS else median_low([_readings(item, name) for item in series])
    return Reported(name, windows.pop(), min(samples, read))


def _readings(series: Series, name: str) -> int:
    if name not in series.channels:
        return 0
    absent = series.absent.get(name)
    return len(series) - (0 if absent is None else int(absent.sum()))


def _over(window_ns: int | None) -> str:
    return "no time that is known" if window_ns is None else f"{window_ns / _SECOND:g} s"
