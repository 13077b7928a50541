"""What a policy must have: its package, the rules of the decision in their forms, defaults, and what they look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weighbridge.policy.checker.findings import CheckerFinding
from weighbridge.policy.checker.notes import Notes
from weighbridge.policy.checker.syntax import Module, Node, Rule, Span
from weighbridge.policy.checker.usage import Graph

__all__ = [
    "AUTHOR_PACKAGE",
    "ENTRIES",
    "LIBRARY_PACKAGE",
    "OPTIONAL_RULES",
    "TEST_PACKAGE",
    "check_defaults",
    "check_entries",
    "check_packages",
    "check_reach",
    "has_library",
]

AUTHOR_PACKAGE: Final = "weighbridge.policy"
LIBRARY_PACKAGE: Final = "weighbridge.lib"
TEST_PACKAGE: Final = "weighbridge.policy_test"
OPTIONAL_RULES: Final = ("obligations", "trust_claims", "unchecked", "warn")
"""Rules that a policy may define beside ``deny``, and that the decision then carries."""
ENTRIES: Final = {
    "allow": "complete",
    "deny": "set",
    "obligations": "set",
    "trust_claims": "complete",
    "unchecked": "set",
    "warn": "set",
}
"""The rules that a decision is made of, and their forms."""

_START: Final[Span] = (0, 0)
_ALWAYS: Final = f"{LIBRARY_PACKAGE}.always"


def check_packages(modules: tuple[Module, ...], library: str, tests: frozenset[str]) -> Iterator[CheckerFinding]:
    """Every module is in the package that its name gives it."""
    for module in modules:
        wanted = AUTHOR_PACKAGE
        if module.name == library:
            wanted = LIBRARY_PACKAGE
        elif module.name in tests:
            wanted = TEST_PACKAGE
        if module.package != wanted:
            what = "of tests" if module.name in tests else "the author's to write"
            message = f"the package {module.package} is not {what}"
            yield _finding(module, _START, "package", message, f"package {wanted}")


def check_entries(modules: tuple[Module, ...], first: Module) -> Iterator[CheckerFinding]:
    """The rules of the decision. What is missing is noted at the beginning of ``first``."""
    author = [(module, rule) for module in modules if module.package == AUTHOR_PACKAGE for rule in module.rules]
    for module, rule in author:
        yield from _form(module, rule)
    defaults = [rule for _, rule in author if rule.kind == "default" and rule.name == "allow"]
    if not defaults:
        hint = f"default allow := false, once, in package {AUTHOR_PACKAGE}"
        yield _finding(first, _START, "default-missing", "allow has no default", hint)
    claims = [(module, rule) for module, rule in author if rule.name == "trust_claims"]
    if claims and not any(rule.kind == "default" for _, rule in claims):
        module, rule = claims[0]
        message = "trust_claims has no default: without a value for it the policy gives no answer at all"
        yield _finding(module, rule.span, "default-missing", message, "default trust_claims := {}")
    if not any(rule.name == "deny" and rule.kind == "set" for _, rule in author):
        hint = "deny contains d if some d in lib.always, and denials of your own beside it"
        yield _finding(first, _START, "entry-rule", "there is no set deny", hint)


def check_defaults(modules: tuple[Module, ...]) -> Iterator[CheckerFinding]:
    """No rule has two defaults."""
    seen: set[tuple[str, str]] = set()
    for module in modules:
        for rule in module.rules:
            if rule.kind == "default":
                if (module.package, rule.name) in seen:
                    yield _finding(module, rule.span, "default-twice", f"default {rule.name} stands twice", "")
                seen.add((module.package, rule.name))


def check_reach(modules: tuple[Module, ...], graph: Graph) -> Iterator[CheckerFinding]:
    """``deny`` has the library's denials, and ``allow`` looks at ``deny``."""
    deny = f"{AUTHOR_PACKAGE}.deny"
    denials = _clauses(modules, "deny")
    if denials and not has_library(graph):
        module, rule = denials[0]
        message = "deny leaves out lib.always, the denials that every policy has"
        yield _finding(module, rule.span, "deny-without-library", message, "")
    allows = _clauses(modules, "allow")
    if allows and deny not in graph.reached([f"{AUTHOR_PACKAGE}.allow"]):
        module, rule = allows[0]
        yield _finding(module, rule.span, "allow-ignores-deny", "allow does not look at deny", "")


def has_library(graph: Graph) -> bool:
    """Whether ``deny`` has the denials that every policy has."""
    return _ALWAYS in graph.reached([f"{AUTHOR_PACKAGE}.deny"])


def _form(module: Module, rule: Rule) -> Iterator[CheckerFinding]:
    kind = ENTRIES.get(rule.name)
    if kind is None:
        return
    if rule.kind not in (kind, "default"):
        hint = f"{rule.name} if {{ … }}" if kind == "complete" else f"{rule.name} contains x if {{ …; x := … }}"
        what = "a rule of one value" if kind == "complete" else "a set"
        yield _finding(module, rule.span, "entry-rule", f"{rule.name} is not {what}", hint)
    if rule.name == "allow" and rule.kind == "complete" and not _only_true(rule):
        yield _finding(module, rule.span, "entry-rule", "allow has another value than true", "allow if { … }")
    if rule.kind == "default" and kind == "set":
        message = f"{rule.name} has a default"
        yield _finding(module, rule.span, "entry-rule", message, f"leave it out: {rule.name} is empty by itself")
    if rule.kind == "default" and rule.name == "allow" and not _is(rule.value, "false"):
        yield _finding(module, rule.span, "default-missing", "the default of allow is not false", "")


def _clauses(modules: tuple[Module, ...], name: str) -> list[tuple[Module, Rule]]:
    author = [(module, rule) for module in modules if module.package == AUTHOR_PACKAGE for rule in module.rules]
    return [(module, rule) for module, rule in author if rule.name == name and rule.kind != "default"]


def _finding(module: Module, at: Span, check: str, message: str, hint: str) -> CheckerFinding:
    notes = Notes(module)
    notes.add(at, check, message, hint=hint)
    return notes.found[0]


def _is(node: Node | None, word: str) -> bool:
    return node is not None and node.kind == "Bool" and node.text == word


def _only_true(rule: Rule) -> bool:
    values = [rule.value, *(value for body in rule.bodies for value in body.all("value"))]
    return all(value is None or _is(value, "true") for value in values)
