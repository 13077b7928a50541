"""Static checks on a policy: what an engine would accept and then read differently from what its author means.

Every check here closes a way in which a policy can be *more* permissive than it reads:

====  ==================================================================================================================
C1    the package is ``weighbridge.policy`` (the library's: ``weighbridge.lib``); ``default allow := false`` stands
      once, ``allow`` is a complete rule and ``deny`` a set: a policy without them has no safe answer
C2    every function called is a rule of this policy, of the library, or an allowed builtin, with the right number of
      arguments: engines notice an unknown one only when they reach it
C3    under ``not`` no call and no membership takes a reference that may be undefined, and no index is without a name:
      OPA then calls the whole expression undefined or refuses it, regorus calls it true (open-policy-agent/opa#8387)
C4    the key of a partial set or object is made of literals and of names bound before by ``:=`` or ``some … in``:
      regorus loses the *whole* set when the head is undefined for the last element
C5    ``!=`` has no operand that may be undefined: it is then not true
C6    ``every`` stands beside ``count(…) > 0`` of the same collection: it holds for an empty one
C7    ``input.…`` and ``data.…`` lead to something that exists; every variable is bound
C8    no name has two meanings (rule, import, variable, builtin), no ``with``, no ``=``, no ``some`` without ``in``, no
      recursion
====  ==================================================================================================================

Not checked: types of values, references through function arguments, whether the rules are wise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weighbridge.policy.checker.clauses import CheckerFinding, check_clause, data_path
from weighbridge.policy.checker.functions import ALLOWED
from weighbridge.policy.checker.scope import Packages, Scope, Unknown, follow
from weighbridge.policy.checker.syntax import Module, Node, Rule

__all__ = ["AUTHOR_PACKAGE", "LIBRARY_PACKAGE", "OPTIONAL_RULES", "CheckerFinding", "check", "rule_names"]

AUTHOR_PACKAGE: Final = "weighbridge.policy"
LIBRARY_PACKAGE: Final = "weighbridge.lib"
OPTIONAL_RULES: Final = ("obligations", "trust_claims", "unchecked", "warn")
"""Sets that a policy may define beside ``deny``, and that the decision then carries."""

_ENTRY: Final = {
    "allow": "complete",
    "deny": "set",
    "obligations": "set",
    "trust_claims": "complete",
    "unchecked": "set",
    "warn": "set",
}


def check(modules: tuple[Module, ...], library: str) -> tuple[CheckerFinding, ...]:
    """Every finding, in order of module and line; empty for a policy that may be loaded.

    Args:
        modules: the whole set.
        library: the name of the module that is the shipped library.
    """
    packages = Packages(modules)
    found = [*_packages(modules, library), *_entry_points(modules, library), *_defaults(modules)]
    for module in modules:
        found += _imports(packages, module)
        for rule in module.rules:
            found += check_clause(packages, module, rule)
    found += _recursion(packages)
    return tuple(sorted(set(found)))


def rule_names(modules: tuple[Module, ...]) -> frozenset[str]:
    """The names of the author's rules."""
    return frozenset(rule.name for _, rule in _author(modules))


def _author(modules: tuple[Module, ...]) -> list[tuple[Module, Rule]]:
    return [(module, rule) for module in modules if module.package == AUTHOR_PACKAGE for rule in module.rules]


def _packages(modules: tuple[Module, ...], library: str) -> Iterator[CheckerFinding]:
    for module in modules:
        wanted = LIBRARY_PACKAGE if module.name == library else AUTHOR_PACKAGE
        if module.package != wanted:
            message = f"package {module.package} is not the author's to write"
            yield CheckerFinding(module.name, 1, "C1", message, f"write: package {wanted}")


def _entry_points(modules: tuple[Module, ...], library: str) -> Iterator[CheckerFinding]:
    author = _author(modules)
    first = next((module.name for module in modules if module.name != library), library)
    for module, rule in author:
        kind = _ENTRY.get(rule.name)
        if kind is not None and rule.kind not in (kind, "default"):
            hint = (
                "write: allow if { … }" if kind == "complete" else f"write: {rule.name} contains x if {{ …; x := … }}"
            )
            yield CheckerFinding(module.name, rule.line, "C1", f"{rule.name} is not a {kind} rule", hint)
        if rule.name == "allow" and rule.kind == "complete" and not _only_true(rule):
            yield CheckerFinding(
                module.name, rule.line, "C1", "allow has another value than true", "write: allow if { … }"
            )
        if kind == "set" and rule.kind == "default":
            yield CheckerFinding(module.name, rule.line, "C1", f"{rule.name} has a default", "a set is empty by itself")
    defaults = [rule for _, rule in author if rule.kind == "default" and rule.name == "allow"]
    if len(defaults) != 1 or not _is(defaults[0].value, "false"):
        hint = "write it once, in package weighbridge.policy: default allow := false"
        yield CheckerFinding(first, 1, "C1", "default allow := false is missing or not alone", hint)
    claims = [(module, rule) for module, rule in author if rule.name == "trust_claims"]
    if claims and not any(rule.kind == "default" for _, rule in claims):
        module, rule = claims[0]
        hint = "write: default trust_claims := {}"
        message = "trust_claims has no default: without a value for it the policy gives no answer at all"
        yield CheckerFinding(module.name, rule.line, "C1", message, hint)
    if not any(rule.name == "deny" and rule.kind == "set" for _, rule in author):
        hint = "write: deny contains d if { …; d := lib.denial(…) }"
        yield CheckerFinding(first, 1, "C1", "there is no deny", hint)


def _defaults(modules: tuple[Module, ...]) -> Iterator[CheckerFinding]:
    """Two defaults of one rule: OPA refuses them, regorus takes one of them."""
    seen: set[tuple[str, str]] = set()
    for module in modules:
        for rule in module.rules:
            if rule.kind == "default":
                if (module.package, rule.name) in seen:
                    yield CheckerFinding(module.name, rule.line, "C1", f"default {rule.name} stands twice", "keep one")
                seen.add((module.package, rule.name))


def _is(node: Node | None, word: str) -> bool:
    return node is not None and node.kind == "Bool" and node.text == word


def _only_true(rule: Rule) -> bool:
    values = [rule.value, *(value for body in rule.bodies for value in body.all("value"))]
    return all(value is None or _is(value, "true") for value in values)


def _imports(packages: Packages, module: Module) -> Iterator[CheckerFinding]:
    for alias, path in module.imports.items():
        first, *rest = path.split(".")
        wrong = ""
        if first == "input":
            wrong = f"the input has no {path}" if isinstance(follow(rest), Unknown) else ""
        elif first == "data":
            wrong = data_path(packages, ".".join(rest))
        elif path != "rego.v1":
            wrong = f"{path} cannot be imported"
        if wrong:
            yield CheckerFinding(module.name, 1, "C7", wrong, f"correct or remove the import {alias}")
        if alias in {"input", "data", *(name.split(".")[0] for name in ALLOWED)}:
            yield CheckerFinding(
                module.name, 1, "C8", f"{alias} has another meaning already", "import it as another name"
            )


def _recursion(packages: Packages) -> Iterator[CheckerFinding]:
    """A rule that depends on itself ends the engine's process."""
    graph: dict[str, set[str]] = {}
    for name, clauses in packages.rules.items():
        graph[name] = set()
        for module, rule in clauses:
            scope = Scope(packages, module, rule)
            for node in rule.walk():
                if node.kind == "RefDot" or (node.kind == "Var" and node.text not in scope.locals):
                    full = scope.full_name(node)
                    graph[name] |= packages.below(full) if full else set()
    done: set[str] = set()
    for start in graph:
        trail: list[str] = []
        if _cycle(graph, start, trail=trail, done=done):
            module, rule = packages.rules[trail[-1]][0]
            circle = " → ".join(trail[trail.index(trail[-1]) :])
            yield CheckerFinding(module.name, rule.line, "C8", f"the rule depends on itself: {circle}", "")
            return


def _cycle(graph: dict[str, set[str]], name: str, *, trail: list[str], done: set[str]) -> bool:
    """Whether a circle can be reached from ``name``; it then ends ``trail``."""
    if name in done:
        return False
    seen = name in trail
    trail.append(name)
    if seen or any(_cycle(graph, other, trail=trail, done=done) for other in sorted(graph[name])):
        return True
    _ = trail.pop()
    done.add(name)
    return False
