"""An author's files, checked: what is found in them, where, and the line that it is about.

What does not parse, or breaks a bound before any parser sees it, is a finding as well; nothing else is found then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.checker.check import check_tests
from weighbridge.policy.checker.findings import CheckerFinding, errors
from weighbridge.policy.engine import DEFAULT_LIMITS, Limits
from weighbridge.policy.engines.prepared import place_and_error
from weighbridge.policy.engines.process import WorkerFault, WorkerRefused
from weighbridge.policy.engines.workbench import Workbench
from weighbridge.policy.policy_set import LIBRARY, PolicyModule
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.errors import PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weighbridge.policy.authoring.sources import Sources

__all__ = ["Checked", "check_sources"]

_NOTHING: Final = Reference({}, {}, {})
_PLACE: Final = re.compile(r"(.+\.rego):([0-9]{1,6})(?::([0-9]{1,6}))?")
_REGORUS: Final = re.compile(r"--> ([^\n]+?:[0-9]+:[0-9]+)")
_LINES_MAX: Final = 1_000_000
# The engine counts a tab as so many columns.
_TAB: Final = 4


@dataclass(frozen=True, slots=True)
class Checked:
    """What is found in an author's files.

    Attributes:
        findings: in order of module, line and column.
        parsed: whether everything parses; otherwise there is one finding, which says where it does not.
        paths: of every module, by its name.
        texts: of every module, by its name, as far as they could be read.
    """

    findings: tuple[CheckerFinding, ...]
    parsed: bool
    paths: Mapping[str, Path]
    texts: Mapping[str, str]

    @property
    def loads(self) -> bool:
        """Whether a verifier would load the policy."""
        return self.parsed and not errors(self.findings)

    def line(self, finding: CheckerFinding) -> str:
        """The line of the source that the finding is about; empty where there is none."""
        lines = self.texts.get(finding.module, "").split("\n")
        return lines[finding.line - 1] if finding.line <= len(lines) else ""


def check_sources(sources: Sources, limits: Limits = DEFAULT_LIMITS) -> Checked:
    """Everything that is found in a policy and its tests.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: the files are no policy, whatever is in them: too many, or two of one name.
        EnvironmentFault: ``FILE_UNREADABLE``, or no worker can be started.
    """
    paths = {path.name: path for path in (*sources.modules, *sources.tests)}
    try:
        policy, tests = sources.policy(_NOTHING), sources.test_modules()
    except PolicyDenied as refused:
        place = _PLACE.fullmatch(refused.where)
        if place is None:
            raise
        hint = refused.hint or (f"expected {refused.expected}" if refused.expected else "")
        return Checked((_at(place, "bounds", refused.message, hint),), parsed=False, paths=paths, texts={})
    modules = (*policy.modules, *tests)
    texts = {module.name: module.text.decode() for module in modules}
    names = frozenset(module.name for module in tests)
    try:
        # Without the author's data: the engine does nothing but parse here.
        with Workbench(modules, {}, limits=limits) as bench:
            syntax = bench.syntax
        author = None if policy.data is None else policy.data.content()
        findings = check_tests(syntax, LIBRARY, tests=names, examples=frozenset(EXAMPLES), author=author)
    except WorkerFault as fault:
        return Checked((_unparsed(fault, modules),), parsed=False, paths=paths, texts=texts)
    except PolicyDenied as refused:
        place = _PLACE.fullmatch(refused.where)
        first = CheckerFinding(_first(modules), 1, 1, "syntax", refused.message, refused.hint)
        found = first if place is None else _at(place, "syntax", refused.message, refused.hint)
        return Checked((found,), parsed=False, paths=paths, texts=texts)
    return Checked(findings, parsed=True, paths=paths, texts=texts)


def _unparsed(fault: WorkerFault, modules: tuple[PolicyModule, ...]) -> CheckerFinding:
    found = _REGORUS.search(str(fault)) if isinstance(fault, WorkerRefused) else None
    place = None if found is None else _PLACE.fullmatch(found.group(1))
    _, error = place_and_error(str(fault))
    if place is None:
        return CheckerFinding(_first(modules), 1, 1, "syntax", error[:200], "")
    finding = _at(place, "syntax", error, "")
    text = next((module.text.decode() for module in modules if module.name == finding.module), "")
    column = _characters(text.split("\n"), finding)
    return CheckerFinding(finding.module, finding.line, column, finding.check, finding.message, finding.hint)


def _at(place: re.Match[str], check: str, message: str, hint: str) -> CheckerFinding:
    name, line, column = place.groups()
    number = strict.decimal(line, what="line", limit=_LINES_MAX)
    return CheckerFinding(
        name,
        number,
        1 if column is None else strict.decimal(column, what="column", limit=_LINES_MAX),
        check,
        message,
        hint,
    )


def _characters(lines: list[str], finding: CheckerFinding) -> int:
    """The engine's column in characters: it counts tabs as more than one, and of text in quotes the bytes."""
    line = lines[finding.line - 1] if finding.line <= len(lines) else ""
    column = 1
    for number, character in enumerate(line, 1):
        if column >= finding.column:
            return number
        column += _TAB if character == "\t" else 1
    return len(line) + 1


def _first(modules: tuple[PolicyModule, ...]) -> str:
    return next(module.name for module in modules if module.name != LIBRARY)
