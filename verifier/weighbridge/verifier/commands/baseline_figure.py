"""What the verbs of ``weighbridge baseline`` draw, and into which files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.baseline_text import device_of
from weighbridge.verifier.commands.outcome import write
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.telemetry.study.figures import (
    FORMATS,
    BaselineFigure,
    RunOfFigure,
    SessionFigure,
    baseline_figure,
    session_figure,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.baseline import BaselineSet
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.commands.baseline_text import NamedRun
    from weighbridge.verifier.telemetry.study.judging import JudgedRun

__all__ = ["add_figure", "baseline_of", "session_of", "write_figures"]

_MILLI: Final = 1000.0
_SECOND: Final = 1e9
_PPM: Final = 1_000_000


def add_figure(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--figure``, which draws ``what``."""
    parser.add_argument(
        "--figure",
        metavar="FILE",
        type=_figure,
        help=f"draw {what}: a name that ends in .svg or .png; needs matplotlib (weighbridge[figures])",
    )


def _figure(text: str) -> Path:
    path = given.output(text)
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise argparse.ArgumentTypeError("a figure's name ends in .svg or .png")
    return path


def write_figures(target: Path, figures: Sequence[BaselineFigure | SessionFigure]) -> list[Path]:
    """Draw each of ``figures`` into ``target``; where there are several, into files numbered beside it.

    Raises:
        EnvironmentFault: ``TOOL_MISSING``: matplotlib; ``FILE_UNWRITABLE``, ``DISK_FULL``.
    """
    form = target.suffix.lower().removeprefix(".")
    written: list[Path] = []
    for number, figure in enumerate(figures, start=1):
        path = target if len(figures) == 1 else target.with_name(f"{target.stem}-{number}{target.suffix}")
        draw = (
            session_figure(figure, form=form)
            if isinstance(figure, SessionFigure)
            else baseline_figure(figure, form=form)
        )
        write(path, draw, doing="writing the figure")
        written.append(path)
    return written


def baseline_of(
    content: BaselineSet, profile: Profile, runs: Sequence[tuple[NamedRun, JudgedRun]], *, held_out: frozenset[bytes]
) -> BaselineFigure:
    """A profile and the runs that it was fitted to.

    Args:
        content: the set that has it.
        profile: one of its profiles.
        runs: judged by it; those without a unit that could be scored are left out.
        held_out: digests of those that its thresholds had not seen.
    """
    drawn = [
        RunOfFigure(
            named.path,
            np.asarray([unit.score.explained_mw / _MILLI for unit in run.scored]),
            np.asarray([(unit.score.explained_mw + unit.score.residual_mw) / _MILLI for unit in run.scored]),
            named.digest in held_out,
        )
        for named, run in runs
        if run.scored
    ]
    drawn.sort(key=lambda run: run.held_out)
    fitted = sum(not run.held_out for run in drawn)
    stack = f"{profile.scope.gpu_model}  ·  driver {profile.scope.driver}  ·  {profile.scope.engine}"
    counts = f"{counted(fitted, 'run')}, {len(drawn) - fitted} held out"
    return BaselineFigure(
        title=f"{content.name}, number {content.number}, of {content.owner}",
        subtitle=f"{device_of(profile.device)}  ·  {stack}  ·  {counts}{_emulated(profile)}",
        runs=tuple(drawn),
        deviation=(profile.deviations[-1].milliwatts or 0) / _MILLI,
    )


def session_of(content: BaselineSet, profile: Profile, name: str, run: JudgedRun) -> SessionFigure:
    """A run judged by a profile."""
    start = run.start_ns
    units = run.units
    nan = float("nan")
    scored = [unit.score for unit in units]
    return SessionFigure(
        title=name,
        subtitle=f"{device_of(profile.device)}  ·  against {content.name}, number {content.number}, of "
        f"{content.owner}{_emulated(profile)}",
        sampled=(run.times - start) / _SECOND,
        power=run.power_w,
        begins=np.asarray([(unit.begin_ns - start) / _SECOND for unit in units]),
        ends=np.asarray([(unit.end_ns - start) / _SECOND for unit in units]),
        explained=np.asarray([nan if score is None else score.explained_mw / _MILLI for score in scored]),
        residual=np.asarray([nan if score is None else score.residual_mw / _MILLI for score in scored]),
        uncertainty=np.asarray([nan if score is None else score.uncertainty_mw / _MILLI for score in scored]),
        deviation=(run.appraisal.smallest_deviation_mw or 0) / _MILLI,
        verdicts=tuple(unit.verdict for unit in units),
        evidence=np.asarray([nan if unit.score is None else unit.e_log10_milli / _MILLI for unit in units]),
        alarm=float(np.log10(_PPM / profile.evidence_ppm)),
        alarmed=None if run.alarm is None else (units[run.alarm].end_ns - start) / _SECOND,
    )


def _emulated(profile: Profile) -> str:
    return "  ·  EMULATED" if profile.origin == "emulated" else ""
