"""``weighbridge baseline compare``: what a verifier would say of runs, unit by unit. Decides nothing for anybody."""

from __future__ import annotations

import math
import textwrap
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
    terminal,
    watts,
    wrapped,
)
from weighbridge.verifier.commands.bundle import read_bundle
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, usage
from weighbridge.verifier.commands.progress import Progress
from weighbridge.verifier.commands.text import cut, plain, rest, table
from weighbridge.verifier.telemetry.device import windows
from weighbridge.verifier.telemetry.state import worst
from weighbridge.verifier.telemetry.study.extract import Said, extract
from weighbridge.verifier.telemetry.study.judging import judge, why_foreign

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from weighbridge.proto import strict
    from weighbridge.proto.baseline import BaselineSet, SignedBaselineSet
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.state import Word
    from weighbridge.verifier.telemetry.study.judging import JudgedRun, JudgedUnit

__all__ = ["configure"]

_COMMAND: Final = "baseline compare"
_ROWS: Final = 30
_LINE: Final = 60
_HALF: Final = 6
_UNDER: Final = " " * 8
_BESIDE: Final = 36
"""What stands beside a line of residuals, in columns."""
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
        line = residual_line(residuals, width=min(_LINE, terminal() - _BESIDE))
        yield f"  residual    {line}  {min(known):+,.1f} to {max(known):+,.1f} W"
        alarm = math.log10(_PPM / profile.evidence_ppm)
        told = f"of all units so far against a genuine session; beyond 10^{alarm:.1f} it is an alarm"
        yield from wrapped("evidence", told)
    yield ""
    reach = max((abs(value) for value in known), default=0.0)
    shown = run.units if every else run.units[:_ROWS]
    yield from _table(shown, run, reach, width=terminal())
    yield from rest(len(run.units) - len(shown), "more unit")


_HEAD: Final = ("unit", "windows", "from s", "measured", "explained", "residual", "", "evidence", "verdict")
_BAR: Final = _HEAD.index("")
_FROM: Final = _HEAD.index("from s")
_LAYOUTS: Final = ((_HALF, ()), (_HALF // 2, ()), (0, (_BAR,)), (0, (_FROM, _BAR)))
"""Half of the bars' width, and the columns to leave out: the first that fits the terminal, or else the last."""


def _table(units: Sequence[JudgedUnit], run: JudgedRun, reach: float, *, width: int) -> Iterator[str]:
    """A row for each unit; what is to be said of it stands behind, where there is room, or below."""
    lines: list[str] = []
    for half, without in _LAYOUTS:
        rows = [_row(number, unit, run, reach, half=half) for number, unit in enumerate(units, start=1)]
        kept = [tuple(cell for at, cell in enumerate(row) if at not in without) for row in (_HEAD, *rows)]
        lines = [f"  {line}" for line in table(kept[0], kept[1:], right=_BAR - sum(at < _BAR for at in without))]
        if max(map(len, lines)) <= width:
            break
    yield lines[0]
    for number, (line, unit) in enumerate(zip(lines[1:], units, strict=True)):
        note = "<< alarm behind this unit" if run.alarm == number else _note(unit)
        if not note or len(line) + len(note) < width:
            yield f"{line} {note}".rstrip()
        else:
            yield line
            yield from textwrap.wrap(note, width, initial_indent=_UNDER, subsequent_indent=_UNDER)


def _row(number: int, unit: JudgedUnit, run: JudgedRun, reach: float, *, half: int) -> tuple[str, ...]:
    windows = f"{unit.first_seq}" if unit.first_seq == unit.last_seq else f"{unit.first_seq}-{unit.last_seq}"
    score = unit.score
    return (
        str(number),
        windows,
        f"{(unit.begin_ns - run.start_ns) / 1e9:.0f}",
        watts(unit.mean_mw),
        "" if score is None else watts(score.explained_mw),
        "" if score is None else f"{score.residual_mw / 1000:+,.1f} W",
        "" if score is None else signed_bar(score.residual_mw / 1000, reach, half=half),
        "" if score is None else f"10^{unit.e_log10_milli / 1000:.1f}",
        unit.verdict,
    )


def _note(unit: JudgedUnit) -> str:
    """Why a unit has its verdict, in short."""
    if unit.score is not None and not unit.score.covered:
        return "(work outside of the baseline's)"
    return f"({unit.findings[0].check}, {unit.findings[0].channel})" if unit.findings else ""


def _because(run: JudgedRun, profile: Profile, content: BaselineSet) -> Iterator[str]:
    appraisal = run.appraisal
    named = f"{plain(content.name)}, number {content.number}, of {plain(content.owner)}"
    match appraisal.verdict:
        case "in_baseline" if appraisal.smallest_deviation_mw is not None:
            least = watts(appraisal.smallest_deviation_mw)
            yield from wrapped("because", f"physical signature consistent with baseline {named};")
            yield from wrapped("", f"a sustained change of {least} or more would have been seen")
        case "in_baseline":
            told = f"physical signature consistent with baseline {named}, which can see no change yet"
            yield from wrapped("because", told)
        case _:
            yield from wrapped("because", plain(appraisal.why))
    if run.alarm is not None:
        unit = run.units[run.alarm]
        after = (unit.end_ns - run.start_ns) / 1e9
        yield from wrapped(
            "alarm",
            f"behind unit {run.alarm + 1} ({windows(unit.first_seq, unit.last_seq)}), {after:,.0f} s from the start, "
            f"channel {plain(profile.channel)}",
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
