"""Policies parsed many at a time and checked each by itself: one worker of the engine serves a whole table of cases."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

from weighbridge.policy.checker.check import check, check_tests
from weighbridge.policy.engines.workbench import Workbench
from weighbridge.policy.policy_set import LIBRARY, PolicyModule, shipped
from weighbridge.policy.values.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.policy.checker.findings import CheckerFinding
    from weighbridge.policy.checker.syntax import Module

__all__ = [
    "NAME",
    "PACKAGE",
    "TESTS",
    "WHOLE",
    "checked",
    "checked_tests",
    "importing",
    "library",
    "of_check",
    "parsed",
]

NAME: Final = "test.rego"
TESTS: Final = "my_test.rego"
PACKAGE: Final = "package weighbridge.policy\n\n"
WHOLE: Final = PACKAGE + "default allow := false\n\ndeny contains d if {\n\tfalse\n\td := {}\n}\n\n"
"""What must be there, as little as can be; nine lines."""


def importing(line: str) -> str:
    """:data:`WHOLE` with an import; eleven lines."""
    return PACKAGE + f"{line}\n\n" + WHOLE.removeprefix(PACKAGE)


@cache
def library() -> Module:
    """The shipped library's syntax."""
    module = shipped("production", reference=Reference({}, {}, {})).modules[0]
    assert module.name == LIBRARY
    with Workbench([module], {}) as bench:
        return bench.syntax[0]


def parsed(texts: Mapping[str, str]) -> dict[str, Module]:
    """The syntax of each text, under its key; all are called :data:`NAME`."""
    modules = [PolicyModule(f"{number}.rego", text.encode()) for number, text in enumerate(texts.values())]
    with Workbench(modules, {}) as bench:
        found = {module.name: replace(module, name=NAME) for module in bench.syntax}
    return {key: found[f"{number}.rego"] for number, key in enumerate(texts)}


def checked(texts: Mapping[str, str]) -> dict[str, tuple[CheckerFinding, ...]]:
    """What the checker has against each text as a policy beside the library."""
    return {key: check((library(), module), LIBRARY) for key, module in parsed(texts).items()}


def checked_tests(policy: str, tests: Mapping[str, str]) -> dict[str, tuple[CheckerFinding, ...]]:
    """What it has against a policy with each text as its test module, with one example ``good``."""
    (own,) = parsed({"policy": policy}).values()
    return {
        key: check_tests(
            (library(), own, replace(module, name=TESTS)),
            LIBRARY,
            tests=frozenset({TESTS}),
            examples=frozenset({"good"}),
        )
        for key, module in parsed(tests).items()
    }


def of_check(findings: tuple[CheckerFinding, ...], name: str) -> list[CheckerFinding]:
    """Those of one check."""
    return [finding for finding in findings if finding.check == name]
