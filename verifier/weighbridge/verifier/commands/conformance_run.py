"""``weighbridge conformance run``: has a verifier judge a corpus, through its driver, and says what came out otherwise.

Exit status: 0 every case passed, or was left out by the caller's word; 5 at least one came out otherwise; 6 none did,
and the driver cannot do what some require; 8 the corpus or the driver is not there.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.commands.conformance_corpus import export
from weighbridge.verifier.commands.conformance_show import chosen
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.progress import Progress
from weighbridge.verifier.commands.text import line
from weighbridge.verifier.conformance.capabilities import CAPABILITIES
from weighbridge.verifier.conformance.corpus import Corpus
from weighbridge.verifier.conformance.process import Driver
from weighbridge.verifier.conformance.running import Compared, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto import strict
    from weighbridge.verifier.conformance.running import Finding

__all__ = ["configure"]

_SCHEMA: Final = "weighbridge/conformance-run/v1"
_OWN: Final = (sys.executable, "-c", "import sys; from weighbridge.verifier.entry import main; sys.exit(main())")
_TIMEOUT: Final = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``conformance run`` to ``parser``."""
    parser.description = (
        "Have a verifier judge the cases of a corpus, and compare what it says with what has to be said. A case that "
        "the driver cannot do is told as such and passes nothing. Exit status: 0 all passed, 5 some came out "
        "otherwise, 6 some were not judged, 8 there is no corpus or no driver."
    )
    parser.add_argument(
        "--driver", metavar="CMD", type=_command, help="a command, quoted as for a shell (default: this verifier)"
    )
    parser.add_argument(
        "--corpus", metavar="DIR", type=Path, help="an exported corpus (default: exported from this checkout first)"
    )
    parser.add_argument("--only", metavar="PREFIX", action="append", default=[], help="cases whose names begin so")
    parser.add_argument("--row", metavar="A00", action="append", default=[], help="cases that show this attack")
    parser.add_argument(
        "--without",
        metavar="CAPABILITY",
        choices=list(CAPABILITIES),
        action="append",
        default=[],
        help=f"leave out cases that require it: {', '.join(CAPABILITIES)}",
    )
    parser.add_argument(
        "--compare",
        choices=get_args(Compared),
        default="all",
        help="what has to be the same: all of it, the outcome and the first code, or the outcome (default: all)",
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=_TIMEOUT, help=f"for one case (default: {_TIMEOUT:g})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run)


def _command(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not quoted as for a shell: {str(error).lower()}") from error
    if not words:
        raise argparse.ArgumentTypeError("it names no program")
    return words


def _seconds(text: str) -> float:
    found = float(text)
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError("seconds, above zero")
    return found


def _run(arguments: argparse.Namespace) -> Outcome:
    if arguments.corpus is not None:
        return _run_on(Corpus.open(arguments.corpus), arguments)
    with tempfile.TemporaryDirectory(prefix="weighbridge-") as directory:
        only = list(arguments.only)
        return _run_on(export(Path(directory) / "corpus", checkout=Path(), only=only), arguments)


def _run_on(corpus: Corpus, arguments: argparse.Namespace) -> Outcome:
    names = chosen(corpus, arguments.only, arguments.row)
    command = arguments.driver or (*_OWN, "conformance", "driver")
    found: list[Finding] = []
    with (
        Driver(command, timeout=arguments.timeout) as driver,
        Progress("cases", len(names), shown=not arguments.json) as progress,
    ):
        for finding in run(corpus, names, driver, compared=arguments.compare, without=arguments.without):
            found.append(finding)
            progress.advance(1)
    return Outcome(_text(corpus, found), _document(corpus, found), _status(found))


def _status(found: Sequence[Finding]) -> ExitCode:
    ended = {finding.ended for finding in found}
    if "failed" in ended:
        return ExitCode.DENIED
    if "unsupported" in ended or "passed" not in ended:
        return ExitCode.INDETERMINATE
    return ExitCode.AFFIRMED


def _text(corpus: Corpus, found: Sequence[Finding]) -> str:
    lines = [
        line(f"{finding.ended.upper():<12} {finding.id}: {finding.why}")
        for finding in found
        if finding.ended in {"failed", "unsupported"}
    ]
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for finding in found:
        for row in finding.rows or ("none",):
            rows[row][finding.ended] += 1
    if lines:
        lines.append("")
    lines.append(f"{'row':<6}{'passed':>8}{'failed':>8}{'unsupported':>13}{'left out':>10}")
    lines += [_row(row, counted) for row, counted in sorted(rows.items())]
    counted: Counter[str] = Counter(finding.ended for finding in found)
    lines += ["", _row("cases", counted)]
    if counted["unsupported"]:
        missing = Counter(why for finding in found if finding.ended == "unsupported" for why in finding.why.split(", "))
        lines.append(
            "the driver cannot do: " + ", ".join(f"{name} ({count})" for name, count in sorted(missing.items()))
        )
    if counted["left out"]:
        lines.append(f"{counted['left out']} cases were left out by --without, and nothing is known of them")
    if corpus.left_out:
        lines.append(f"{len(corpus.left_out)} cases of the project are in no corpus: left-out.txt says why")
    lines.append(f"SHA-256 of the corpus: {corpus.digest.hex()}")
    return "\n".join(lines) + "\n"


def _row(name: str, counted: Counter[str]) -> str:
    return f"{name:<6}{counted['passed']:>8}{counted['failed']:>8}{counted['unsupported']:>13}{counted['left out']:>10}"


def _document(corpus: Corpus, found: Sequence[Finding]) -> strict.JsonObject:
    counted = Counter(finding.ended for finding in found)
    return {
        "schema": _SCHEMA,
        "corpus": corpus.digest.hex(),
        "passed": counted["passed"],
        "failed": counted["failed"],
        "unsupported": counted["unsupported"],
        "left_out": counted["left out"],
        "not_in_corpus": dict(corpus.left_out),
        "cases": [
            {"id": finding.id, "rows": list(finding.rows), "ended": finding.ended, "why": finding.why or None}
            for finding in found
        ],
    }
