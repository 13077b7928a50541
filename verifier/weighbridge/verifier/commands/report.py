"""``weighbridge report``: a recorded session as one HTML file, made of its bundle once that is verified again."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, Indeterminate, LedgerInconsistent, MalformedEvidence, NotAuthentic
from weighbridge.proto.options import error_document
from weighbridge.verifier.bundle_checks import Trail
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.bundle import (
    configure_judging,
    judge,
    misused,
    parse_bundle,
    policies_of,
    status_of,
)
from weighbridge.verifier.commands.bundle_text import caveats_of, failed_in_short, rests_on, so_far
from weighbridge.verifier.commands.engines import DEFAULT
from weighbridge.verifier.commands.outcome import Outcome, read, usage, write
from weighbridge.verifier.commands.text import size_of
from weighbridge.verifier.report.gather import gather
from weighbridge.verifier.report.page import render, render_failure
from weighbridge.verifier.report.view import Again, Failure

if TYPE_CHECKING:
    import argparse

    from weighbridge.proto.errors import WeighbridgeError

__all__ = ["command_of", "configure", "run_report"]

_COMMAND = "report"
_DOING = "writing the report"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``report`` to ``parser``."""
    parser.description = (
        "Write a recorded session as one HTML file for people: its verdict, windows, power and heat, every check, and "
        "what it does not prove (docs/report.md). The bundle is verified first, as `weighbridge verify bundle` does "
        "with the same arguments, and the exit status is the same; a report is written of what is denied as well, and "
        "of a bundle that cannot be verified one that says so and shows nothing of it."
    )
    configure_judging(parser)
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="such as report.html")
    parser.add_argument("--json", action="store_true", help="print one JSON document, on failure too")
    parser.set_defaults(run=run_report)


def run_report(arguments: argparse.Namespace) -> Outcome | int:
    """Verify a bundle again, and write the report of what came of it; where the bundle is refused, it says so.

    Raises:
        WeighbridgeError: as ``verify bundle``, where it is not the bundle that is refused.
        EnvironmentFault: ``FILE_UNWRITABLE``, ``DISK_FULL``.
    """
    output: Path = arguments.output
    if (wrong := misused(arguments, command=_COMMAND)) is not None:
        return wrong
    if _same(output, arguments.bundle):
        return usage("--output names the bundle itself", command=_COMMAND)
    data = read(arguments.bundle, limit=limits.BUNDLE_MAX)
    again = Again(
        command=command_of(arguments),
        bundle=sha256(data).hex(),
        size=len(data),
        version=metadata.version("weighbridge"),
    )
    trail = Trail()
    try:
        bundle = parse_bundle(data, arguments.bundle)
    except MalformedEvidence as error:
        return _failed(arguments, error, trail, again)
    try:
        result = judge(arguments, bundle, trail=trail)
    except (MalformedEvidence, NotAuthentic, LedgerInconsistent, Indeterminate) as error:
        # Before the first stage it is what else was given that is wrong, of which this report says nothing.
        if trail.stage == "bundle":
            raise
        return _failed(arguments, error, trail, again)
    view = gather(
        result, bundle, judged_by=policies_of(arguments), rests_on=rests_on(closed=result.closed), again=again
    )
    page = render(view)
    write(output, page, doing=_DOING)
    status, word = status_of(result)
    return Outcome(
        f"{word}: session {result.session.hex()}{caveats_of(result)}{so_far(result)}; "
        f"report in {output} ({size_of(len(page))})\n",
        {
            "schema": "weighbridge/report/v1",
            "outcome": word.lower(),
            "session": result.session.hex(),
            "report": str(output),
            "size": len(page),
            "sha256": sha256(page).hex(),
        },
        status,
    )


def _failed(arguments: argparse.Namespace, error: WeighbridgeError, trail: Trail, again: Again) -> Outcome:
    """Write the page of a bundle that was refused for ``error``."""
    if error.code is Code.BUNDLE_WITHHELD:
        again = replace(again, command=command_of(arguments, records_only=True), records_only=True)
    output: Path = arguments.output
    page = render_failure(Failure(error=error, checks=trail.failed(error), again=again))
    write(output, page, doing=_DOING)
    return Outcome(
        f"{failed_in_short(error)}; report in {output} ({size_of(len(page))})\n",
        {**error_document(error), "report": str(output)},
        error.exit_code,
        error,
    )


def _same(output: Path, bundle: str) -> bool:
    """Whether the report would take the place of what it is made of."""
    return bundle != "-" and output.exists() and Path(bundle).exists() and output.samefile(bundle)


def command_of(arguments: argparse.Namespace, *, records_only: bool = False) -> tuple[str, ...]:
    """The command that verifies the same by the same; or, by the same keys, what was recorded, judging nothing."""
    parts = ["weighbridge", "verify", "bundle", arguments.bundle]
    judging: tuple[tuple[str, list[object]], ...] = (
        ("--policy", arguments.policy),
        ("--foreign", arguments.foreign),
        ("--foreign-v0", arguments.foreign_v0),
        ("--foreign-values", [arguments.foreign_values]),
        ("--engine", [arguments.engine]),
        ("--reference", [arguments.reference]),
        ("--models", arguments.models),
        ("--collateral", [arguments.collateral]),
    )
    if records_only:
        parts.append("--records-only")
        judging = ()
    for option, values in (
        ("--anchors", arguments.anchors),
        *judging,
        ("--at", [None if arguments.at is None else strict.time_encode(arguments.at)]),
    ):
        for value in values:
            if value is not None and not (option == "--engine" and value == DEFAULT):
                parts += [option, str(value)]
    return tuple(parts)
