"""What one profile of a baseline says, promises and assumes: in short, in full, and for programs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from weighbridge.proto.profile import FEATURE_SET, GROSS_UNITS, REGRESSORS
from weighbridge.verifier.commands.baseline_text import (
    EMULATED,
    device_of,
    percent,
    scope_document,
    scope_lines,
    stack_lines,
    watts,
    wrapped,
)
from weighbridge.verifier.commands.text import counted, plain
from weighbridge.verifier.telemetry.detector.calibration import (
    ASSUMPTIONS,
    deciding,
    ending_ppm,
    runs_needed,
    together_ppm,
)
from weighbridge.verifier.telemetry.detector.explained import covers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.proto import strict
    from weighbridge.proto.profile import Bound, Checked, Gross, Profile, Term

__all__ = ["profile_document", "profile_lines", "profile_summary", "several", "warnings"]

_PPM: Final = 1_000_000
_SECOND: Final = 1e9
_IDLE: Final = (0,) * len(REGRESSORS)
_DISTRIBUTION_FREE: Final = 10_000
"""One per cent, in parts per million: what people take a verdict to mean."""


def profile_summary(profile: Profile) -> Iterator[str]:
    """What to know of one profile before one relies on it: of what stack, what it sees, how often it is wrong."""
    yield f"{device_of(profile.device)}"
    yield from stack_lines(profile.scope)
    if profile.scope.model is not None:
        yield f"  model       {profile.scope.model.hex()}"
    yield from _sees(profile)
    yield from _together(profile)
    yield from _warned(profile)


def profile_lines(profile: Profile) -> Iterator[str]:
    """All that one profile says, a line per fact."""
    units = sum(len(run.scores) for run in profile.runs)
    yield f"{device_of(profile.device)}"
    yield from scope_lines(profile.scope)
    yield (
        f"  runs        {len(profile.runs)}, {counted(units, 'unit')} of {profile.unit_ns / 1e9:g} s at "
        f"{1e9 / profile.period_ns:g} Hz, {plain(profile.source)}'s channel {plain(profile.channel)}, {profile.origin}"
    )
    yield from _explained(profile)
    yield f"  run to run  ± {watts(profile.explained.uncertainty_mw)}: one standard deviation of a run's mean residual"
    yield from _sees(profile)
    decides = deciding(profile)
    for bound in profile.bounds:
        yield from _bound(bound, decides=bound == decides)
    yield from _gross(profile.gross)
    yield from wrapped(
        "evidence",
        f"alarm when it passes {_PPM / profile.evidence_ppm:,.0f}: false alarms in at most "
        f"{percent(profile.evidence_ppm)} of sessions, however long, in all but {percent(profile.delta_ppm)} of "
        f"calibrations, if {ASSUMPTIONS['units-like-calibration']}",
    )
    yield from _together(profile)
    yield f"  profile     sha256 {profile.digest.hex()}"
    yield from _warned(profile)


def several(profiles: int) -> list[str]:
    """What is to be known of promises where there are several."""
    if profiles == 1:
        return []
    return wrapped("BEWARE", "each promise is for one GPU: a host of eight may raise eight times as many false alarms")


def warnings(profile: Profile) -> list[str]:
    """What whoever relies on a profile should know first."""
    found: list[str] = []
    needed = runs_needed(_DISTRIBUTION_FREE)
    if len(profile.runs) < needed:
        bound = percent(_DISTRIBUTION_FREE)
        found.append(
            f"{counted(len(profile.runs), 'run')} cannot give a distribution-free {bound}: that takes {needed}"
        )
    if profile.checked is None:
        found.append("no run was held out: the false alarms that it promises were never measured")
    elif profile.checked.widened:
        found.append("a bound was exceeded on held-out runs, and widened: nothing has checked it since")
    if profile.deviations[-1].milliwatts is None:
        found.append("it sees no change of mean power: more runs, or longer ones, are needed")
    if profile.origin == "emulated":
        found.append(EMULATED)
    if profile.scope.model is None:
        found.append("no manifest is said: no verifier will compare a session with it")
    if not covers(profile.explained, _IDLE):
        found.append(
            "no run was idle for a unit, and sessions begin idle: a gate that waits for in_baseline never opens. "
            "Record runs that begin before their load"
        )
    return found


def _together(profile: Profile) -> Iterator[str]:
    """How often a session is wrongly accused: what is claimed, and what was counted."""
    yield from wrapped(
        "together",
        f"false alarms in at most {percent(together_ppm(profile))} of sessions: claims add up; not in it, "
        f"{percent(ending_ppm(profile))} of sessions that begin with a look at what earlier ones ended with, if that "
        "strays as a unit does",
    )
    yield from _checked(profile.checked)


def _warned(profile: Profile) -> Iterator[str]:
    for warning in warnings(profile):
        yield from wrapped("BEWARE", warning)


def _explained(profile: Profile) -> Iterator[str]:
    idle = next(term.low for term in profile.explained.terms if term.name == "busy") == 0
    seen = "" if idle else " (never seen: extrapolated)"
    yield f"  explained   {watts(profile.explained.base_mw)} while nothing is served{seen}"
    told = [term for term in profile.explained.terms if term.microwatts]
    for term in told:
        yield f"              {_term(term)}"
    if len(told) < len(profile.explained.terms):
        yield "              (terms that moved together in the runs are told as one of them)"
    ranges = [
        f"{_RANGES[term.name]} {term.low / 1000:,.4g} to {term.high / 1000:,.4g}" for term in profile.explained.terms
    ]
    yield f"  declared    {'; '.join(ranges[:3])};"
    yield f"              {'; '.join(ranges[3:])} (beyond that it says nothing)"


_RANGES: Final = {
    "busy": "busy",
    "prefill": "in prefill",
    "decode": "decoding",
    "tokens_in": "tokens/s in",
    "tokens_out": "out",
}


def _term(term: Term) -> str:
    """Microwatts per thousandth are milliwatts per one."""
    each = term.microwatts / 1000
    match term.name:
        case "busy":
            return f"+ {each:,.1f} W while anything is served"
        case "prefill":
            return f"+ {each:,.2f} W for each request in prefill"
        case "decode":
            return f"+ {each:,.2f} W for each request that is decoding: power at concurrency"
        case "tokens_in":
            return f"+ {each:,.4f} J for each token in"
        case _:
            return f"+ {each:,.4f} J for each token out"


def _sees(profile: Profile) -> Iterator[str]:
    seen: list[str] = []
    least = math.inf
    for one in profile.deviations:
        # Later, less is seen, or nothing is to be said.
        if one.milliwatts is not None and one.milliwatts < least:
            least = one.milliwatts
            seen.append(f"{watts(least)} after {one.units * profile.unit_ns / _SECOND:g} s")
    if not seen:
        yield "  sees        no sustained change of mean power, however large"
        return
    yield from wrapped(
        "sees",
        f"a sustained change of {', '.join(seen)}, in nine of ten runs, if it is there in every unit until then",
    )


def _gross(gross: Gross) -> Iterator[str]:
    sizes = [
        f"{limit / 10:g} % {'in the last unit' if units == 1 else f'in the last {units}'}"
        for units, limit in zip(GROSS_UNITS, gross.limits, strict=True)
    ]
    yield from wrapped(
        "gross",
        f"power off by more than {', '.join(sizes)}, of what declared work explains, or above it by more than "
        f"{gross.upper / 10:g} % in more than one in ten of a block's units, from other machines' "
        f"{counted(gross.runs, 'run')}: false alarms in at most {percent(gross.claimed_ppm)} of sessions, if "
        f"{ASSUMPTIONS.get(gross.assumption, plain(gross.assumption))}",
    )


def _bound(bound: Bound, *, decides: bool) -> Iterator[str]:
    what = {"runs": "this GPU's", "pooled": "other machines'"}[bound.basis]
    assumed = ASSUMPTIONS.get(bound.assumption, plain(bound.assumption))
    yield from wrapped(
        "threshold",
        f"{bound.limit / 1000:.2f} times as far as a typical run strays, from {what} {counted(bound.runs, 'run')}"
        f"{'' if decides else ' (for comparison: it does not decide)'}: false alarms in at most "
        f"{percent(bound.claimed_ppm)} of sessions, if {assumed}",
    )


def _checked(checked: Checked | None) -> Iterator[str]:
    if checked is None:
        yield "  held out    no runs"
        return
    yield (
        f"  held out    {checked.alarms} of {counted(checked.runs, 'run')} raised a false alarm: "
        f"{percent(checked.alarms * _PPM / checked.runs)} (95 %: {percent(checked.low_ppm)} to "
        f"{percent(checked.high_ppm)})"
    )


def profile_document(profile: Profile) -> strict.JsonObject:
    """The profile for programs: what it says, without the numbers that it computes by."""
    checked = profile.checked
    return {
        "device": None if profile.device is None else profile.device.hex(),
        "digest": profile.digest.hex(),
        "origin": profile.origin,
        "scope": scope_document(profile.scope),
        "source": profile.source,
        "channel": profile.channel,
        "features": FEATURE_SET,
        "unit_ns": profile.unit_ns,
        "period_ns": profile.period_ns,
        "runs": len(profile.runs),
        "units": sum(len(run.scores) for run in profile.runs),
        "explained": {
            "base_mw": profile.explained.base_mw,
            "uncertainty_mw": profile.explained.uncertainty_mw,
            "terms": [
                {
                    "name": term.name,
                    "microwatts_per_thousandth": term.microwatts,
                    "low_thousandths": term.low,
                    "high_thousandths": term.high,
                }
                for term in profile.explained.terms
            ],
        },
        "channels": [
            {"name": channel.name, "window_ns": channel.window_ns, "readings": channel.readings}
            for channel in profile.channels
        ],
        "deviations": [{"units": seen.units, "milliwatts": seen.milliwatts} for seen in profile.deviations],
        "bounds": [
            {
                "basis": bound.basis,
                "limit_milli": bound.limit,
                "claimed_ppm": bound.claimed_ppm,
                "runs": bound.runs,
                "assumption": bound.assumption,
            }
            for bound in profile.bounds
        ],
        "gross": {
            "limits_milli": list(profile.gross.limits),
            "upper_milli": profile.gross.upper,
            "claimed_ppm": profile.gross.claimed_ppm,
            "runs": profile.gross.runs,
            "assumption": profile.gross.assumption,
        },
        "together_ppm": together_ppm(profile),
        "ending_ppm": ending_ppm(profile),
        "evidence_ppm": profile.evidence_ppm,
        "delta_ppm": profile.delta_ppm,
        "held_out": None
        if checked is None
        else {
            "runs": checked.runs,
            "alarms": checked.alarms,
            "low_ppm": checked.low_ppm,
            "high_ppm": checked.high_ppm,
            "widened": checked.widened,
        },
        "warnings": [*warnings(profile)],
    }
