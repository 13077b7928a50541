"""``weighbridge policy check``: what is dangerous in a policy, why, and how to write it."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.policy.checker.findings import CHECKS
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.commands.outcome import Outcome, usage
from weighbridge.verifier.commands.text import counted, plain
from weighbridge.verifier.commands.tree import width

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.policy.authoring.checking import Checked
    from weighbridge.policy.checker.findings import CheckerFinding
    from weighbridge.proto import strict

__all__ = ["configure"]

_COMMAND: Final = "policy check"
_SCHEMA: Final = "weighbridge/policy-check/v1"
_LIST_SCHEMA: Final = "weighbridge/policy-checks/v1"
_TAB: Final = "    "
_EPILOG: Final = """\
examples:
  weighbridge policy check my-policy
  weighbridge policy check gate.rego gate_test.rego --strict    # for continuous integration
  weighbridge policy check --list

All files named are one policy; *_test.rego are its tests. An error is a way in which the policy admits more than it
reads, and a verifier does not load it; a warning is a rule that says less than it reads. Exit 0 without errors, 5 with
one (with --strict also with a warning), 3 when a module does not parse.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy check`` to ``parser``."""
    parser.description = "Find what is dangerous in a policy; say why, and the safe way to write it."
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("paths", nargs="*", type=Path, metavar="DIR|FILE", help="a policy's directory, or its modules")
    parser.add_argument("--strict", action="store_true", help="fail for a warning, too")
    parser.add_argument("--list", action="store_true", help="list every check, and nothing else")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome | ExitCode:
    if arguments.list:
        if arguments.paths or arguments.strict:
            return usage("--list takes no policy", command=_COMMAND)
        return _listed()
    if not arguments.paths:
        return usage("name a policy's directory or modules, or --list", command=_COMMAND)
    from weighbridge.policy.authoring.checking import check_sources  # noqa: PLC0415 - heavy, and --list needs none of it
    from weighbridge.policy.authoring.sources import collect  # noqa: PLC0415 - as above

    checked = check_sources(collect(arguments.paths))
    lines = [line for finding in checked.findings for line in _shown(checked, finding)]
    text = "".join(f"{line}\n" for line in (*lines, _summary(checked, strict=arguments.strict)))
    return Outcome(text, _document(checked), _status(checked, strict=arguments.strict))


def _status(checked: Checked, *, strict: bool) -> ExitCode:
    if not checked.parsed:
        return ExitCode.MALFORMED
    return ExitCode.AFFIRMED if checked.loads and not (strict and checked.findings) else ExitCode.DENIED


def _shown(checked: Checked, finding: CheckerFinding) -> list[str]:
    """One finding with its line of source, why it is dangerous and the safe way."""
    place = f"{_path(checked, finding)}:{finding.line}:{finding.column}"
    lines = _wrapped("", f"{place}: {finding.severity}[{finding.check}]: {finding.message}")
    source = checked.line(finding)
    if source.strip():
        number, before = str(finding.line), source[: finding.column - 1].replace("\t", _TAB)
        room = width() - len(f"  {number} | ")
        lines.append(f"  {number} | {_cut(plain(source.replace(chr(9), _TAB)), room)}")
        if len(before) < room:
            lines.append(f"  {' ' * len(number)} | {' ' * len(before)}^")
    return [*lines, *_wrapped("  why:  ", finding.why), *_wrapped("  safe: ", finding.safe), ""]


def _cut(line: str, most: int) -> str:
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        plain(text),
        width(),
        initial_indent=label,
        subsequent_indent=" " * (len(label) or len("    ")),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(checked: Checked, *, strict: bool) -> str:
    modules = counted(len(checked.paths), "module")
    if not checked.parsed:
        return f"{modules}: not parsed, and not checked any further"
    if not checked.findings:
        return f"{modules}: nothing found"
    found = Counter(finding.severity for finding in checked.findings)
    numbers = ", ".join(counted(found[severity], severity) for severity in ("error", "warning") if found[severity])
    end = "no verifier loads it" if not checked.loads else "a verifier loads it"
    if strict and checked.loads:
        end = "--strict takes no warning"
    return f"{modules}: {numbers}; {end}"


def _path(checked: Checked, finding: CheckerFinding) -> str:
    return str(checked.paths.get(finding.module, finding.module))


def _document(checked: Checked) -> strict.JsonObject:
    found = Counter(finding.severity for finding in checked.findings)
    modules: list[strict.JsonValue] = [str(path) for path in checked.paths.values()]
    return {
        "schema": _SCHEMA,
        "parsed": checked.parsed,
        "loads": checked.loads,
        "errors": found["error"],
        "warnings": found["warning"],
        "modules": modules,
        "findings": [_finding(checked, finding) for finding in checked.findings],
    }


def _finding(checked: Checked, finding: CheckerFinding) -> strict.JsonObject:
    return {
        "module": _path(checked, finding),
        "line": finding.line,
        "column": finding.column,
        "id": finding.check,
        "severity": finding.severity,
        "message": finding.message,
        "why": finding.why,
        "safe": finding.safe,
        "source": checked.line(finding),
    }


def _listed() -> Outcome:
    lines: list[str] = []
    longest = max(map(len, CHECKS))
    for check in CHECKS.values():
        label = f"{check.id:{longest}}  {check.severity:7}  "
        lines += textwrap.wrap(check.title, width(), initial_indent=label, subsequent_indent=" " * len(label))
    checks: list[strict.JsonValue] = [
        {"id": check.id, "severity": check.severity, "title": check.title, "why": check.why, "safe": check.safe}
        for check in CHECKS.values()
    ]
    return Outcome(_text(lines), {"schema": _LIST_SCHEMA, "checks": checks})


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
