"""``weighbridge baseline compare``: what a verifier would say of runs, unit by unit. Decides nothing for anybody."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier import baseline_set
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands.baseline_figure import add_figure, session_of, write_figures
from weighbridge.verifier.commands.baseline_show import read_baseline
from weighbridge.verifier.commands.baseline_text import (
    EMULATED,
    NOT_WEIGHTS,
    NamedRun,
    device_of,
    devices_in_all,
    read_runs,
    residual_line,
    scope_document,
    signed_bar,
    watts,
    wrapped,
)
from weighbridge.verifier.commands.bundle import read_bundle
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, usage
from weighbridge.verifier.commands.progress import Progress
from weighbridge.verifier.commands.text import cut, plain, table
from weighbridge.verifier.telemetry.device import windows
from weighbridge.verifier.telemetry.extract import Said, extract
from weighbridge.verifier.telemetry.judging import judge, why_foreign
from weighbridge.verifier.telemetry.state import worst

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from weighbridge.proto import strict
    from weighbridge.proto.baseline import BaselineSet, SignedBaselineSet
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.judging import JudgedRun, JudgedUnit
    from weighbridge.verifier.telemetry.state import Word

__all__ = ["configure"]

_COMMAND: Final = "baseline compare"
_ROWS: Final = 30
_LINE: Final = 60
_HALF: Final = 6
_FINDINGS: Final = 8
_LABEL_MAX: Final = 100
_PPM: Final = 1_000_000
_NOT_SAID: Final = "not said"
_WORDS: Final[dict[Word, str]] = {
    "in_baseline": "in baseline",
    "out_of_baseline": "out of baseline",
    "implausible": "implausible",
    "unusable": "unusable",
    "no_baseline": "no baseline",
}
_STATUS: Final[dict[Word, ExitCode]] = {
    "in_baseline": ExitCode.AFFIRMED,
    "out_of_baseline": ExitCode.DENIED,
    "implausible": ExitCode.DENIED,
    "unusable": ExitCode.INDETERMINATE,
    "no_baseline": ExitCode.INDETERMINATE,
}
_EPILOG: Final = """\
examples:
  weighbridge baseline compare gate.baseline run-13.wbr
  weighbridge baseline compare gate.baseline run-13.wbr --figure run-13.svg
  weighbridge baseline compare gate.baseline --bundle session.wb --anchors anchors.json

The sovereignty residual is the power that was measured less what the declared work explains. Exit 0 when every run of
every GPU is in_baseline, 5 when one is out_of_baseline or implausible, 6 when one is unusable, or no baseline is for
it. What a verifier remembers of earlier sessions (copies, unreported work) is not looked at.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``baseline compare`` to ``parser``."""
    parser.description = "Judge recorded runs by a baseline, as a verifier would, and show each unit."
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="SET", help="a signed set that `baseline fit` wrote")
    parser.add_argument("runs", metavar="RUN", nargs="*", help="recordings, .wbr")
    parser.add_argument("--bundle", metavar="FILE", help="a session.wb file, verified first, instead of recordings")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="verify SET, and the bundle, by these keys (several times; default for the bundle: those shipped)",
    )
    parser.add_argument("--all", action="store_true", help=f"print every unit, not only the first {_ROWS} of a run")
    add_figure(parser, "each run of each GPU against its baseline")
    parser.set_defaults(run=_run)


@dataclass(frozen=True, slots=True)
class _Case:
    """One GPU in one run; without a profile for it, nothing is judged, and ``why`` says it."""

    named: NamedRun
    device: bytes
    profile: Profile | None
    run: JudgedRun | None
    why: str

    @property
    def verdict(self) -> Word:
        return "no_baseline" if self.run is None else self.run.appraisal.verdict


def _run(arguments: argparse.Namespace) -> Outcome | int:
    if bool(arguments.runs) == (arguments.bundle is not None):
        return usage("name recordings, or one --bundle", command=_COMMAND)
    data, signed = read_baseline(arguments.file)
    verified = bool(arguments.anchors)
    if verified:
        baseline_set.verify(data, anchors=load_anchors(arguments.anchors))
    cases = _judged(signed, _runs_of(arguments), shown=not arguments.json)
    word = worst(tuple(case.verdict for case in cases))
    lines = [
        *([] if verified else ["UNVERIFIED: the baseline's signature was not checked (give --anchors)"]),
        *_not_valid(signed.claimed, datetime.now(UTC)),
        *(line for case in cases for line in (*_case_lines(case, signed.claimed, every=arguments.all), "")),
        NOT_WEIGHTS,
    ]
    drawn: list[Path] = []
    if arguments.figure is not None:
        figures = [
            session_of(signed.claimed, case.profile, f"{_name(case.named)}: {_WORDS[case.verdict]}", case.run)
            for case in cases
            if case.profile is not None and case.run is not None and case.run.units
        ]
        drawn = write_figures(arguments.figure, figures)
        lines += [f"wrote {path}" for path in drawn]
    document: strict.JsonObject = {
        "schema": "weighbridge/baseline-compare/v1",
        "verdict": word,
        "baseline": signed.digest.hex(),
        "verified": verified,
        "runs": [_case_document(case) for case in cases],
        "figures": [str(path) for path in drawn],
    }
    return Outcome("\n".join(lines) + "\n", document, _STATUS[word])


def _not_valid(content: BaselineSet, at: datetime) -> list[str]:
    """What a verifier would say of the whole set, which is compared with all the same."""
    if moment(content.not_before_ns) <= at <= moment(content.not_after_ns):
        return []
    return ["BEWARE: the baseline is not valid now: no verifier judges by it"]


def _runs_of(arguments: argparse.Namespace) -> list[NamedRun]:
    """The recordings that are named, or the one that the bundle proves."""
    if arguments.bundle is None:
        return read_runs(arguments.runs)
    said = Said(label=Path(arguments.bundle).name[:_LABEL_MAX], engine=_NOT_SAID, workload=_NOT_SAID)
    found = extract(read_bundle(arguments.bundle), anchors=load_anchors(arguments.anchors), said=said)
    return [NamedRun(arguments.bundle, found.recording, found.recording.digest)]


def _judged(signed: SignedBaselineSet, runs: Sequence[NamedRun], *, shown: bool) -> list[_Case]:
    found: list[_Case] = []
    with Progress("runs", len(runs), shown=shown) as progress:
        for run in runs:
            for device in devices_in_all([run]):
                profile, why = _profile_for(signed.claimed, device, run)
                judged = None if profile is None else judge(run.recording, profile, baseline=signed.digest)
                found.append(_Case(run, device, profile, judged, why))
            progress.advance(1)
    return found


def _profile_for(content: BaselineSet, device: bytes, run: NamedRun) -> tuple[Profile | None, str]:
    """The profile that a verifier would choose, or why it has none."""
    own = [profile for profile in content.profiles if profile.device == device]
    fit = [profile for profile in own if not why_foreign(run.recording, profile)]
    if len(fit) == 1:
        return fit[0], ""
    if fit:
        return None, f"the set has {len(fit)} profiles for it, and nothing says which counts"
    return None, why_foreign(run.recording, own[0]) if own else "the set does not name this GPU"


# -- for people -------------------------------------------------------------------------------------------------------


def _case_lines(case: _Case, content: BaselineSet, *, every: bool) -> Iterator[str]:
    run, profile = case.run, case.profile
    yield f"{_WORDS[case.verdict].upper()}: {_name(case.named)}, {device_of(case.device)}"
    if case.named.recording.origin == "emulated":
        yield f"  BEWARE      {EMULATED}"
    if run is None or profile is None:
        yield from wrapped("because", plain(case.why))
        return
    yield from _because(run, profile, content)
    for text in _findings(run):
        yield from wrapped("finding", plain(text))
    if differing := _differing(case.named, profile):
        yield from wrapped("BEWARE", f"other than in the baseline: {differing}")
    if not run.units:
        return
    residuals = [None if unit.score is None else unit.score.residual_mw / 1000 for unit in run.units]
    known = [value for value in residuals if value is not None]
    if known:
        yield f"  residual    {residual_line(residuals, width=_LINE)}  {min(known):+,.1f} to {max(known):+,.1f} W"
        alarm = math.log10(_PPM / profile.evidence_ppm)
        yield f"  evidence    of all units so far against a genuine session; beyond 10^{alarm:.1f} it is an alarm"
    yield ""
    reach = max((abs(value) for value in known), default=0.0)
    rows = [_row(number, unit, run, reach) for number, unit in enumerate(run.units, start=1)]
    yield from cut([f"  {line}" for line in table(_HEAD, rows, right=6)], None if every else _ROWS + 1)


_HEAD: Final = ("unit", "windows", "from s", "measured", "explained", "residual", "", "evidence", "verdict")


def _row(number: int, unit: JudgedUnit, run: JudgedRun, reach: float) -> tuple[str, ...]:
    windows = f"{unit.first_seq}" if unit.first_seq == unit.last_seq else f"{unit.first_seq}-{unit.last_seq}"
    score = unit.score
    note = f" ({unit.findings[0].check}, {unit.findings[0].channel})" if unit.findings else ""
    if score is not None and not score.covered:
        note = " (work outside of the baseline's)"
    if run.alarm == number - 1:
        note = " << alarm"
    return (
        str(number),
        windows,
        f"{(unit.begin_ns - run.start_ns) / 1e9:.0f}",
        watts(unit.mean_mw),
        "" if score is None else watts(score.explained_mw),
        "" if score is None else f"{score.residual_mw / 1000:+,.1f} W",
        "" if score is None else signed_bar(score.residual_mw / 1000, reach, half=_HALF),
        "" if score is None else f"10^{unit.e_log10_milli / 1000:.1f}",
        f"{unit.verdict}{note}",
    )


def _because(run: JudgedRun, profile: Profile, content: BaselineSet) -> Iterator[str]:
    appraisal = run.appraisal
    named = f"{plain(content.name)}, number {content.number}, of {plain(content.owner)}"
    match appraisal.verdict:
        case "in_baseline" if appraisal.smallest_deviation_mw is not None:
            least = watts(appraisal.smallest_deviation_mw)
            yield f"  because     physical signature consistent with baseline {named};"
            yield f"              a sustained change of {least} or more would have been seen"
        case "in_baseline":
            yield f"  because     physical signature consistent with baseline {named}, which can see no change yet"
        case _:
            yield from wrapped("because", plain(appraisal.why))
    if run.alarm is not None:
        unit = run.units[run.alarm]
        after = (unit.end_ns - run.start_ns) / 1e9
        yield (
            f"  alarm       behind unit {run.alarm + 1} ({windows(unit.first_seq, unit.last_seq)}), "
            f"{after:,.0f} s from the start, channel {plain(profile.channel)}"
        )


def _findings(run: JudgedRun) -> list[str]:
    """Each once, with what was expected and read."""
    every = dict.fromkeys((*run.appraisal.findings, *(item for unit in run.units for item in unit.findings)))
    shown = [f"{item.check}, {item.channel}: {item.got}, expected {item.expected}" for item in every]
    return cut(shown, _FINDINGS)


def _differing(named: NamedRun, profile: Profile) -> str:
    """What the verifier does not compare, and people should. Unsaid is no difference, nor another name of one GPU."""
    run, own = scope_document(named.recording.scope), scope_document(profile.scope)
    told = [
        f"{field} {plain(str(run[field]))}, not {plain(str(own[field]))}"
        for field in run
        if run[field] != own[field] and run[field] not in {None, _NOT_SAID} and field != "gpu_model"
    ]
    return "; ".join(told)


def _name(named: NamedRun) -> str:
    return plain(Path(named.path).name)


# -- for programs -----------------------------------------------------------------------------------------------------


def _case_document(case: _Case) -> strict.JsonObject:
    run = case.run
    return {
        "file": case.named.path,
        "digest": case.named.digest.hex(),
        "origin": case.named.recording.origin,
        "device": case.device.hex(),
        "profile": None if case.profile is None else case.profile.digest.hex(),
        "verdict": case.verdict,
        "why": case.why if run is None else run.appraisal.why,
        "appraisal": None if run is None else run.appraisal.document(),
        "alarm_unit": None if run is None else run.alarm,
        "units": [] if run is None else [_unit_document(unit) for unit in run.units],
    }


def _unit_document(unit: JudgedUnit) -> strict.JsonObject:
    score = unit.score
    return {
        "begin_ns": unit.begin_ns,
        "end_ns": unit.end_ns,
        "first_seq": unit.first_seq,
        "last_seq": unit.last_seq,
        "verdict": unit.verdict,
        "mean_mw": unit.mean_mw,
        "e_log10_milli": unit.e_log10_milli,
        "score": None
        if score is None
        else {
            "score": score.score,
            "p_ppb": score.p_ppb,
            "residual_mw": score.residual_mw,
            "explained_mw": score.explained_mw,
            "uncertainty_mw": score.uncertainty_mw,
            "covered": score.covered,
            "leading": list(score.leading),
        },
        "findings": [f"{item.check}, {item.channel}: {item.got}, expected {item.expected}" for item in unit.findings],
    }
