"""``weighbridge-attester doctor``: what this host lacks, and what to do about it."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.attester.doctor import Host, Status, diagnose
from weighbridge.attester.doctor.catalogue import CHECKS
from weighbridge.attester.tpm.options import AkChoice
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode, MalformedEvidence
from weighbridge.proto.hosts import host_port

if TYPE_CHECKING:
    from weighbridge.attester.doctor import Finding, Report

__all__ = ["EPILOG", "configure", "run"]

EPILOG: Final = """\
ok: as it should be. warn: the attester works, stricter policies may refuse. fail: it cannot work like this. skip: not
looked at, or not to be seen. Nothing is changed: no key stays in the TPM, no PCR is extended, no mode is set. Root is
not needed; what only root can see is said. The exit status is 8 where something fails, else 0.

examples:
  weighbridge-attester doctor --state /var/lib/weighbridge --verifier verifier.example:8443
  weighbridge-attester doctor --tcti swtpm:path=/tmp/tpm.sock --json
"""

_SCHEMA: Final = "weighbridge/doctor/v1"
_MARKS: Final = {Status.OK: "ok  ", Status.WARN: "WARN", Status.FAIL: "FAIL", Status.SKIP: "skip"}
_NAME_WIDTH: Final = 25
_INDENT: Final = " " * (6 + _NAME_WIDTH)
_WIDTH: Final = (72, 120)
_COUNTED: Final = {Status.FAIL: "failed", Status.WARN: "warnings", Status.OK: "ok", Status.SKIP: "skipped"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``doctor`` to ``parser``."""
    parser.add_argument(
        "--tcti", help="device:/dev/tpmrm0 (default), or swtpm:path=SOCKET for an emulator that nobody uses meanwhile"
    )
    parser.add_argument(
        "--ak",
        metavar="KIND",
        type=_ak,
        default=AkChoice(),
        help="the attestation key, as for run: endorsement (default), srk, gce, or handle:0x81000003",
    )
    parser.add_argument("--state", metavar="DIR", type=Path, help="the attester's state directory")
    parser.add_argument("--model", metavar="DIR", type=Path, help="a model's directory")
    parser.add_argument("--verifier", metavar="HOST:PORT", type=_place, help="where the verifier listens; TCP only")
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=_directory,
        default=Path("/"),
        help="where the host's /dev, /proc, /run and /sys are (default: /)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _ak(text: str) -> AkChoice:
    try:
        return AkChoice.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _directory(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory")
    return path


def _place(text: str) -> tuple[str, int]:
    try:
        return host_port(text, what="--verifier")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(f"{error.message}: {error.got!r}") from error


def run(args: argparse.Namespace, *, host: Host | None = None) -> int:
    """Look at everything and print what was found.

    Args:
        args: as :func:`configure` reads them.
        host: another one than this; for tests.
    """
    asked = host or Host(
        tcti=args.tcti, ak=args.ak, state=args.state, model=args.model, root=args.root, verifier=args.verifier
    )
    report = diagnose(asked)
    text = _document(report) if args.json else _text(report)
    sys.stdout.write(text)
    return ExitCode.ENVIRONMENT if report.count(Status.FAIL) else ExitCode.AFFIRMED


def _document(report: Report) -> str:
    document = {
        "schema": _SCHEMA,
        "failed": report.count(Status.FAIL),
        "warnings": report.count(Status.WARN),
        "checks": [
            {
                "id": finding.id,
                "status": finding.status.value,
                "found": finding.found,
                "why": CHECKS[finding.id].why,
                "todo": finding.todo or None,
            }
            for finding in report.findings
        ],
    }
    return strict.json_encode(document, indent=2).decode() + "\n"


def _text(report: Report) -> str:
    width = min(max(shutil.get_terminal_size((100, 24)).columns, _WIDTH[0]), _WIDTH[1])
    lines: list[str] = []
    for _, area in groupby(report.findings, key=_area):
        lines += [""] if lines else []
        # What was skipped for the same reason is one line.
        for (status, _), group in groupby(area, key=_sameness):
            findings = list(group)
            if status is Status.SKIP and len(findings) > 1:
                lines += _wrapped(
                    f"{_MARKS[status]}  {f'{len(findings)} checks':<{_NAME_WIDTH}}", findings[0].found, width
                )
            else:
                lines += _lines(findings[0], width)
    counts = ", ".join(f"{report.count(status)} {word}" for status, word in _COUNTED.items())
    return "\n".join([*lines, "", counts]) + "\n"


def _area(finding: Finding) -> str:
    return finding.id.partition(".")[0]


def _sameness(finding: Finding) -> tuple[Status, str]:
    return finding.status, finding.found if finding.status is Status.SKIP else finding.id


def _lines(finding: Finding, width: int) -> list[str]:
    check = CHECKS[finding.id]
    lines = _wrapped(f"{_MARKS[finding.status]}  {check.name:<{_NAME_WIDTH}}", finding.found, width)
    if finding.status in {Status.WARN, Status.FAIL}:
        lines += _wrapped(f"{_INDENT}why: ", check.why, width)
        lines += _wrapped(f"{_INDENT}do:  ", finding.todo, width)
    return lines


def _wrapped(first: str, text: str, width: int) -> list[str]:
    # Paths and commands stay whole: they are to be copied.
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
