"""``weighbridge policy test``: an author's tests and golden inputs, with coverage, JUnit and a watch on changes."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.policy.authoring import junit
from weighbridge.policy.authoring.golden import Golden
from weighbridge.policy.authoring.sources import Sources, collect
from weighbridge.policy.authoring.testing import Suite, run
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, ExitCode, PolicyDenied, WeighbridgeError
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, read, read_reference, taken_for, usage, write
from weighbridge.verifier.commands.text import counted, plain
from weighbridge.verifier.commands.tree import width

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weighbridge.policy.authoring.coverage import Coverage
    from weighbridge.policy.authoring.testing import Report, Result
    from weighbridge.proto import strict

__all__ = ["configure", "reference_of"]

_COMMAND: Final = "policy test"
_WHOLE: Final = 100
_POLL_SECONDS: Final = 0.5
_MISSED_MAX: Final = 20
_EPILOG: Final = """\
examples:
  weighbridge policy test my-policy
  weighbridge policy test my-policy --run 'test_refuses_*' -v
  weighbridge policy test my-policy --threshold 90 --junit report.xml   # for continuous integration
  weighbridge policy test my-policy --watch

A test is a rule `test_…` of a file *_test.rego (package weighbridge.policy_test) that must be exactly true, or a file
*.golden.json: a document with the decision that must come of it. Exit 0 when all pass, 5 when one fails, there is none,
or less is covered than --threshold demands, 3 when a file is malformed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy test`` to ``parser``."""
    parser.description = "Run the tests of a policy, on the engine that decides."
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="DIR|FILE", help="a policy's directory, or its modules and tests"
    )
    parser.add_argument(
        "--reference", metavar="FILE", help="what test modules read as data.reference; reference.json of the directory"
    )
    parser.add_argument("--run", dest="pattern", metavar="PATTERN", help="only tests whose name holds or matches this")
    parser.add_argument("-v", "--verbose", action="store_true", help="list the tests that pass, too, and their prints")
    parser.add_argument("--coverage", action="store_true", help="list the policy's lines that no test reaches")
    parser.add_argument("--threshold", type=_percent, metavar="PERCENT", help="of lines that tests must reach")
    parser.add_argument("--junit", type=given.output, metavar="FILE", help="write a report as JUnit XML")
    parser.add_argument("--watch", action="store_true", help="run again after every change of a file")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run)


def reference_of(sources: Sources, named: str | None) -> Reference:
    """The values in the file ``named``, or in the author's own; else none at all, under which nothing is admitted.

    Raises:
        MalformedEvidence: as :meth:`Reference.parse`, naming the file.
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    path = named or (None if sources.reference is None else str(sources.reference))
    return Reference({}, {}, {}) if path is None else read_reference(path)


def _percent(text: str) -> int:
    return given.decimal(text, what="the percentage", limit=_WHOLE)


@dataclass(frozen=True, slots=True)
class _Tested:
    """A run, and what was asked of it."""

    report: Report
    threshold: int | None
    covers: bool

    @property
    def reached(self) -> bool:
        """Whether enough was covered."""
        return self.threshold is None or self.report.coverage.reaches(self.threshold)

    @property
    def status(self) -> ExitCode:
        return ExitCode.AFFIRMED if self.report.passed and self.reached else ExitCode.DENIED


def _run(arguments: argparse.Namespace) -> Outcome | ExitCode:
    if not arguments.watch:
        return _once(arguments)
    if arguments.json:
        return usage("--watch is for people: leave out --json", command=_COMMAND)
    return _watch(lambda: _once(arguments), lambda: _stamp(arguments.paths, arguments.reference))


def _once(arguments: argparse.Namespace) -> Outcome:
    sources = collect(arguments.paths)
    policy = sources.policy(reference_of(sources, arguments.reference))
    suite = Suite(policy, sources.test_modules(), tuple(_goldens(sources)))
    report = run(suite, selected=_selected(arguments.pattern))
    if not report.results:
        raise _nothing(arguments.pattern, suite)
    if arguments.junit is not None:
        write(arguments.junit, junit.encode(report), doing="writing the report")
    tested = _Tested(report, arguments.threshold, covers=arguments.coverage or arguments.threshold is not None)
    return Outcome(
        "".join(f"{line}\n" for line in _text(tested, verbose=arguments.verbose)), _document(tested), tested.status
    )


def _goldens(sources: Sources) -> Iterator[tuple[str, Golden]]:
    for path in sources.golden:
        data = read(path, limit=limits.JSON_MAX)
        with taken_for(path, what="a golden input", hint="`weighbridge policy eval --record FILE` writes one"):
            yield str(path), Golden.parse(data)


def _selected(pattern: str | None) -> Callable[[str], bool]:
    if pattern is None:
        return lambda _: True
    return lambda name: pattern in name or fnmatchcase(name, pattern)


def _nothing(pattern: str | None, suite: Suite) -> PolicyDenied:
    if pattern is None:
        hint = (
            "write a rule test_… into a file that ends in _test.rego, or record one: weighbridge policy eval --record"
        )
        return PolicyDenied(Code.POLICY_INVALID, "there is no test", hint=hint)
    there = counted(len(suite.golden) + len(suite.tests), "file")
    return PolicyDenied(
        Code.POLICY_INVALID, "no test has such a name", got=pattern, hint=f"{there} with tests: -v lists them"
    )


# -- for people --------------------------------------------------------------------------------------------------------


def _text(tested: _Tested, *, verbose: bool) -> Iterator[str]:
    for result in tested.report.results:
        if result.passed and not verbose:
            continue
        yield f"{'ok  ' if result.passed else 'FAIL'} {_name(result)}"
        yield from (f"       {plain(line)}" for line in result.failure)
        yield from (line for reason in result.because for line in _wrapped(f"because {plain(reason)}"))
        if result.prints:
            yield "       printed:"
            yield from (f"         {plain(line)}" for line in result.prints)
    total, failed = len(tested.report.results), len(tested.report.failed)
    passed = counted(total, "test") + (" passed" if not failed else f": {total - failed} passed, {failed} failed")
    coverage = tested.report.coverage
    yield f"{passed}; {_percentage(coverage)} of the policy's lines reached"
    if tested.covers:
        yield from _missed(coverage, None if verbose else _MISSED_MAX)
    if not tested.reached:
        yield f"FAIL coverage: {_percentage(coverage)}, and {tested.threshold} % is demanded"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, width(), initial_indent=" " * 7, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False
    )


def _name(result: Result) -> str:
    place = result.file if result.line is None else f"{result.file}:{result.line}"
    return plain(f"{place} {result.name}" if result.name else place)


def _percentage(coverage: Coverage) -> str:
    whole, tenth = divmod(coverage.tenths, 10)
    return f"{whole}.{tenth} %" if tenth else f"{whole} %"


def _missed(coverage: Coverage, most: int | None) -> Iterator[str]:
    for module in coverage.modules:
        if module.missed:
            yield f"not reached in {module.name}:"
            yield from (f"  {number:>5}  {plain(text)}" for number, text in module.missed[:most])
            if most is not None and len(module.missed) > most:
                yield f"         … {counted(len(module.missed) - most, 'more line')}: -v"


# -- for programs ------------------------------------------------------------------------------------------------------


def _document(tested: _Tested) -> strict.JsonObject:
    report = tested.report
    modules: list[strict.JsonValue] = [
        {"name": module.name, "lines": module.lines, "missed": [number for number, _ in module.missed]}
        for module in report.coverage.modules
    ]
    return {
        "schema": "weighbridge/policy-test/v1",
        "passed": tested.status == ExitCode.AFFIRMED,
        "tests": len(report.results),
        "failed": len(report.failed),
        "results": [_result(result) for result in report.results],
        "coverage": {
            "percent": report.coverage.tenths / 10,
            "threshold": tested.threshold,
            "covered": report.coverage.covered,
            "lines": report.coverage.lines,
            "modules": modules,
        },
    }


def _result(result: Result) -> strict.JsonObject:
    return {
        "kind": result.kind,
        "file": result.file,
        "line": result.line,
        "name": result.name,
        "passed": result.passed,
        "failure": [*result.failure],
        "because": [*result.because],
        "prints": [*result.prints],
        "seconds": round(result.seconds, 6),
    }


# -- watching ----------------------------------------------------------------------------------------------------------


def _watch(once: Callable[[], Outcome], stamp: Callable[[], object]) -> ExitCode:
    """Run again after every change, until interrupted; the status of the last run. An error ends nothing."""
    status, seen = ExitCode.DENIED, None
    try:
        while True:
            now = stamp()
            if now != seen:
                seen = now
                status = _shown(once)
                sys.stdout.write("\nwaiting for a change; Ctrl-C ends\n\n")
                sys.stdout.flush()
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        return status


def _shown(once: Callable[[], Outcome]) -> ExitCode:
    try:
        outcome = once()
    except WeighbridgeError as error:
        hint = f"hint: {error.hint}\n" if error.hint else ""
        sys.stdout.write(f"error: {error}\n{hint}")
        return error.exit_code
    sys.stdout.write(outcome.text)
    return outcome.status


def _stamp(paths: list[Path], reference: str | None) -> object:
    """What differs after a change: the files that there are, when each was written, and how large it is."""
    try:
        files = (*collect(paths).files, *((Path(reference),) if reference else ()))
        return tuple((file, found.st_mtime_ns, found.st_size) for file in files for found in (file.stat(),))
    except (WeighbridgeError, OSError) as error:
        return str(error)
