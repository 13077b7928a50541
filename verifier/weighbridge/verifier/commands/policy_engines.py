"""``weighbridge policy engines``: which engines there are, their versions, and whether each reads Rego as it should."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import EnvironmentFault, ExitCode
from weighbridge.verifier.commands.engines import DEFAULT, EngineChoice, engine
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.policy.engines.conformance import CaseResult
    from weighbridge.proto import strict

__all__ = ["configure"]

_DESCRIPTION: Final = """\
Ask regorus, an opa on the PATH if there is one, and every engine that is
named, the questions whose answers policies rely on. Exit 0 when each gives
every answer, 5 when one does not, 8 when one that is named is not installed.
"""
_EPILOG: Final = """\
examples:
  weighbridge policy engines
  weighbridge policy engines --engine opa-go:.peers/opa
  weighbridge policy engines --engine opa:/usr/local/bin/opa --json
"""
_SHOWN: Final = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``engines`` to ``parser``."""
    parser.description = _DESCRIPTION
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--engine",
        type=_named,
        action="append",
        default=[],
        metavar="ENGINE",
        help="opa-go:DIR, opa or opa:PROGRAM: an engine that has to be there (several times)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run)


def _named(text: str) -> EngineChoice:
    choice = engine(text)
    if choice.kind == "cross":
        raise argparse.ArgumentTypeError("name each engine by itself")
    return choice


def _run(arguments: argparse.Namespace) -> Outcome:
    from weighbridge.policy.engines import conformance  # noqa: PLC0415 - heavy, and only here

    named: list[EngineChoice] = arguments.engine
    opa = EngineChoice("opa", "opa")
    lines: list[str] = []
    rows: list[strict.JsonValue] = []
    status = ExitCode.AFFIRMED
    for choice in dict.fromkeys([DEFAULT, *named, opa]):
        try:
            opened = choice.single()
        except EnvironmentFault as fault:
            if choice in named or choice == DEFAULT:
                raise
            lines.append(f"{choice.kind:<8} not installed: {fault.message}")
            rows.append({"engine": choice.kind, "version": None, "cases": 0, "passed": 0, "failed": []})
            continue
        results = conformance.run(opened, conformance.CASES)
        passed = sum(result.passed for result in results)
        if passed < len(results):
            status = ExitCode.DENIED
        word = "conforms" if passed == len(results) else "DOES NOT CONFORM: decide nothing with it"
        lines.append(f"{opened.name:<8} {opened.version}: {passed} of {counted(len(results), 'case')}, {word}")
        lines += _failed(results)
        rows.append(
            {
                "engine": opened.name,
                "version": opened.version,
                "cases": len(results),
                "passed": passed,
                "failed": [
                    {"about": result.case.about, "case": result.case.name, "got": result.got}
                    for result in results
                    if not result.passed
                ],
            }
        )
    document: strict.JsonObject = {
        "schema": "weighbridge/policy-engines/v1",
        "outcome": "conforms" if status == ExitCode.AFFIRMED else "differs",
        "engines": rows,
    }
    return Outcome("\n".join(lines) + "\n", document, status)


def _failed(results: Sequence[CaseResult]) -> list[str]:
    failed = [result for result in results if not result.passed]
    lines = [f"           {result.case.about}: {result.case.name}: got {result.got}" for result in failed[:_SHOWN]]
    return lines + ([f"           and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else [])
