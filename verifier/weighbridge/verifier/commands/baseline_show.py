"""``weighbridge baseline show``: a signed set of baselines as people read it. Decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.baseline import SignedBaselineSet
from weighbridge.proto.errors import Code, Indeterminate
from weighbridge.verifier import baseline_set
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.baseline_figure import add_figure, baseline_of, write_figures
from weighbridge.verifier.commands.baseline_profile import profile_document, profile_lines, profile_summary, several
from weighbridge.verifier.commands.baseline_text import NOT_WEIGHTS, read_runs
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read, taken_for, usage
from weighbridge.verifier.commands.text import plain
from weighbridge.verifier.telemetry.study.judging import judge

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from weighbridge.verifier.commands.baseline_text import NamedRun
    from weighbridge.verifier.telemetry.study.figures import BaselineFigure

__all__ = ["configure", "read_baseline"]

_COMMAND: Final = "baseline show"
_EPILOG: Final = """\
examples:
  weighbridge baseline show gate.baseline --anchors anchors.json
  weighbridge baseline show gate.baseline --runs run-*.wbr --figure baseline.svg

Without --anchors no signature is checked, and the first line says so; so it does of a set that is not valid then. Show
decides nothing: it ends with 0 all the same. The figure needs the recordings: a baseline has scores of its runs, not
their power.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``baseline show`` to ``parser``."""
    parser.description = (
        "Print what a baseline sees and promises of each GPU; with --all, the assumption of each promise."
    )
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
    parser.add_argument(
        "--all", action="store_true", help="print all of each GPU: what explains its power, and each promise apart"
    )
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
    head, told = "UNVERIFIED", "no signature was checked; anybody can write these bytes (give --anchors)"
    not_before, not_after = moment(content.not_before_ns), moment(content.not_after_ns)
    if arguments.anchors:
        named = baseline_set.verify(data, anchors=load_anchors(arguments.anchors)).named
        not_before, not_after = named.not_before, named.not_after
        head = "VERIFIED"
        told = f"signed by {plain(content.owner)}; whether the runs were of a good host, nothing here says"
    word = "NOT YET VALID" if at < not_before else "EXPIRED" if at > not_after else "valid"
    lines_of = profile_lines if arguments.all else profile_summary
    lines = [
        f"{head}{'' if word == 'valid' else f', {word}'}: {told}",
        "",
        f"  baseline    {plain(content.name)}, number {content.number}, of {plain(content.owner)}",
        f"  validity    {strict.time_encode(not_before)} to {strict.time_encode(not_after)}: {word}",
        f"  set         sha256 {signed.digest.hex()}",
        *([f"  note        {plain(content.note)}"] if content.note else []),
        *(line for profile in content.profiles for line in ("", *lines_of(profile))),
        "",
        *several(len(content.profiles)),
        f"  {NOT_WEIGHTS}",
        *([] if arguments.all else ["  … what explains the power, and each promise with its assumption: --all"]),
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
