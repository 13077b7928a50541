"""``weighbridge baseline show``: a signed set of baselines as people read it. Decides nothing."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.baseline import SignedBaselineSet
from weighbridge.proto.errors import Code, Indeterminate
from weighbridge.proto.profile import FEATURE_SET, GROSS_UNITS, REGRESSORS
from weighbridge.verifier import baseline_set
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.baseline_figure import add_figure, baseline_of, write_figures
from weighbridge.verifier.commands.baseline_text import (
    EMULATED,
    NOT_WEIGHTS,
    device_of,
    percent,
    read_runs,
    scope_document,
    scope_lines,
    watts,
    wrapped,
)
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read, taken_for, usage
from weighbridge.verifier.commands.text import counted, plain
from weighbridge.verifier.telemetry.calibration import ASSUMPTIONS, deciding, runs_needed, together_ppm
from weighbridge.verifier.telemetry.explained import covers
from weighbridge.verifier.telemetry.judging import judge

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from weighbridge.proto.profile import Bound, Checked, Gross, Profile, Term
    from weighbridge.verifier.commands.baseline_text import NamedRun
    from weighbridge.verifier.telemetry.figures import BaselineFigure

__all__ = ["configure", "profile_document", "profile_lines", "read_baseline", "several"]

_COMMAND: Final = "baseline show"
_PPM: Final = 1_000_000
_SECOND: Final = 1e9
_IDLE: Final = (0,) * len(REGRESSORS)
_DISTRIBUTION_FREE: Final = 10_000
"""One per cent, in parts per million: what people take a verdict to mean."""
_EPILOG: Final = """\
examples:
  weighbridge baseline show gate.baseline --anchors anchors.json
  weighbridge baseline show gate.baseline --runs run-*.wbr --figure baseline.svg

Without --anchors no signature is checked, and the first line says so. The figure needs the recordings: a baseline has
scores of its runs, not their power.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``baseline show`` to ``parser``."""
    parser.description = "Print what a baseline says and promises, with the assumption of each promise."
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="SET", help="a signed set that `baseline fit` wrote; - for standard input")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="verify it by these keys, purpose baseline-owner (several times)",
    )
    parser.add_argument("--at", metavar="TIME", type=given.time, default=None, help="whether valid then (default: now)")
    parser.add_argument("--runs", metavar="RUN", nargs="+", default=[], help="recordings to draw, for --figure")
    add_figure(parser, "each baseline with the recordings of --runs")
    parser.set_defaults(run=_run)


def read_baseline(path: str) -> tuple[bytes, SignedBaselineSet]:
    """The set in the file ``path``, as bytes and parsed. Nothing of it is verified.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: as :meth:`SignedBaselineSet.parse`, naming the file, or ``TOO_LARGE``.
    """
    data = read(path, limit=limits.BASELINE_SET_MAX)
    with taken_for(path, what="a baseline set", hint="name a file that `weighbridge baseline fit` wrote"):
        return data, SignedBaselineSet.parse(data)


def _run(arguments: argparse.Namespace) -> Outcome | int:
    if (arguments.figure is None) != (not arguments.runs):
        return usage("--figure and --runs go together: a baseline has no power of its runs to draw", command=_COMMAND)
    data, signed = read_baseline(arguments.file)
    at: datetime = arguments.at or datetime.now(UTC)
    content = signed.claimed
    head = "UNVERIFIED: no signature was checked; anybody can write these bytes (give --anchors)"
    not_before, not_after = moment(content.not_before_ns), moment(content.not_after_ns)
    if arguments.anchors:
        named = baseline_set.verify(data, anchors=load_anchors(arguments.anchors)).named
        not_before, not_after = named.not_before, named.not_after
        head = f"VERIFIED: signed by {plain(content.owner)}; whether the runs were of a good host, nothing here says"
    word = "NOT YET VALID" if at < not_before else "EXPIRED" if at > not_after else "valid"
    lines = [
        head,
        "",
        f"  baseline    {plain(content.name)}, number {content.number}, of {plain(content.owner)}",
        f"  validity    {strict.time_encode(not_before)} to {strict.time_encode(not_after)}: {word}",
        f"  set         sha256 {signed.digest.hex()}",
        *([f"  note        {plain(content.note)}"] if content.note else []),
        *(line for profile in content.profiles for line in ("", *profile_lines(profile))),
        "",
        *several(len(content.profiles)),
        f"  {NOT_WEIGHTS}",
    ]
    drawn: list[Path] = []
    if arguments.figure is not None:
        drawn = _draw(signed, read_runs(arguments.runs), arguments.figure)
        lines += [f"  figure      {path}" for path in drawn]
    document: strict.JsonObject = {
        "schema": "weighbridge/baseline-show/v1",
        "verified": bool(arguments.anchors),
        "owner": content.owner,
        "name": content.name,
        "number": content.number,
        "digest": signed.digest.hex(),
        "not_before": strict.time_encode(not_before),
        "not_after": strict.time_encode(not_after),
        "valid": word == "valid",
        "note": content.note,
        "profiles": [profile_document(profile) for profile in content.profiles],
        "figures": [str(path) for path in drawn],
    }
    return Outcome("\n".join(lines) + "\n", document)


def _draw(signed: SignedBaselineSet, runs: Sequence[NamedRun], target: Path) -> list[Path]:
    """Each profile that ``runs`` have something of."""
    content = signed.claimed
    figures: list[BaselineFigure] = []
    for profile in content.profiles:
        if profile.device is None:
            continue
        judged = [(run, judge(run.recording, profile, baseline=signed.digest)) for run in runs]
        learned = {run.recording for run in profile.runs}
        figure = baseline_of(
            content, profile, judged, held_out=frozenset(run.digest for run in runs if run.digest not in learned)
        )
        if figure.runs:
            figures.append(figure)
    if not figures:
        raise Indeterminate(
            Code.RECORDING_EMPTY,
            "the recordings have nothing of the baseline's GPUs on its stack",
            where="--runs",
            hint="name the runs that it was fitted to",
        )
    return write_figures(target, figures)


# -- one profile ------------------------------------------------------------------------------------------------------


def profile_lines(profile: Profile) -> Iterator[str]:
    """What one profile says, a line per fact."""
    units = sum(len(run.scores) for run in profile.runs)
    yield f"{device_of(profile.device)}"
    yield from scope_lines(profile.scope)
    yield (
        f"  runs        {len(profile.runs)}, {counted(units, 'unit')} of {profile.unit_ns / 1e9:g} s at "
        f"{1e9 / profile.period_ns:g} Hz, channel {plain(profile.channel)}, {profile.origin}"
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
    yield f"  together    false alarms in at most {percent(together_ppm(profile))} of sessions: claims add up"
    yield from _checked(profile.checked)
    yield f"  profile     sha256 {profile.digest.hex()}"
    for warning in warnings(profile):
        yield from wrapped("BEWARE", warning)


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
        found.append(f"{len(profile.runs)} runs cannot give a distribution-free {bound}: that takes {needed}")
    if profile.checked is None:
        found.append("no run was held out: the false alarms that it promises were never measured")
    elif profile.checked.widened:
        found.append("a bound was exceeded on held-out runs, and widened: what it says now was not checked again")
    if profile.deviations[-1].milliwatts is None:
        found.append("it sees no change of mean power: more runs, or longer ones, are needed")
    if profile.origin == "emulated":
        found.append(EMULATED)
    if profile.scope.model is None:
        found.append("no manifest is said: no verifier will compare a session with it")
    if not covers(profile.explained, _IDLE):
        found.append(
            "no run was idle for a unit, and sessions begin idle: of an idle unit it says nothing, and a gate that "
            "waits for in_baseline never opens; record runs that begin before their load"
        )
    return found


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
    yield from wrapped("sees", f"a sustained change of {', '.join(seen)}, in nine of ten runs")


def _gross(gross: Gross) -> Iterator[str]:
    sizes = [
        f"{limit / 10:g} % {'in the last unit' if units == 1 else f'in the last {units}'}"
        for units, limit in zip(GROSS_UNITS, gross.limits, strict=True)
    ]
    yield from wrapped(
        "gross",
        f"power off by more than {', '.join(sizes)}, of what declared work explains, from other machines' "
        f"{counted(gross.runs, 'run')}: false alarms in at most {percent(gross.claimed_ppm)} of sessions, if "
        f"{ASSUMPTIONS.get(gross.assumption, plain(gross.assumption))}",
    )


def _bound(bound: Bound, *, decides: bool) -> Iterator[str]:
    what = {"runs": "this GPU's", "pooled": "other machines'"}[bound.basis]
    assumed = ASSUMPTIONS.get(bound.assumption, plain(bound.assumption))
    yield from wrapped(
        "threshold",
        f"{bound.limit / 1000:.2f} x what runs come to, from {what} {counted(bound.runs, 'run')}"
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
            "claimed_ppm": profile.gross.claimed_ppm,
            "runs": profile.gross.runs,
            "assumption": profile.gross.assumption,
        },
        "together_ppm": together_ppm(profile),
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
