"""Static checks on a policy: what an engine would accept and then read differently from what its author means.

The library is shipped and has tests of its own: against it stand only errors, and no warnings. What is checked is the
table :data:`weighbridge.policy.checker.findings.CHECKS`; it is printed by ``weighbridge policy check --list``.

Not checked: the types of what builtins take, what the author's data hold where they are not given, whether the rules
are wise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weighbridge.policy.checker.author_data import check_author_data, check_author_imports, replaces_author_data
from weighbridge.policy.checker.bindings import REFERENCES
from weighbridge.policy.checker.contradiction import check_body
from weighbridge.policy.checker.denials import check_denials
from weighbridge.policy.checker.entries import (
    AUTHOR_PACKAGE,
    ENTRIES,
    LIBRARY_PACKAGE,
    OPTIONAL_RULES,
    TEST_PACKAGE,
    check_defaults,
    check_entries,
    check_packages,
    check_reach,
    has_library,
)
from weighbridge.policy.checker.findings import CheckerFinding
from weighbridge.policy.checker.functions import BUILTINS
from weighbridge.policy.checker.names import Packages, Scope, index_of
from weighbridge.policy.checker.never import check_comparison
from weighbridge.policy.checker.notes import Notes
from weighbridge.policy.checker.ordering import check_order
from weighbridge.policy.checker.safety import check_clause
from weighbridge.policy.checker.syntax import Module
from weighbridge.policy.checker.usage import Graph, unused_imports, unused_rules, unused_variables
from weighbridge.policy.checker.vacuous import check_none
from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.proto.strict import JsonObject

__all__ = [
    "AUTHOR_PACKAGE",
    "LIBRARY_PACKAGE",
    "OPTIONAL_RULES",
    "CheckerFinding",
    "check",
    "check_tests",
    "rule_names",
]

# Found once: it is the same library for every policy, and larger than most.
_LIBRARIES: Final[dict[tuple[str, bytes], frozenset[CheckerFinding]]] = {}


def check(modules: tuple[Module, ...], library: str, author: JsonObject | None = None) -> tuple[CheckerFinding, ...]:
    """Everything against a policy, in order of module, line and column. One with an error must not be loaded.

    Args:
        modules: the whole set.
        library: the name of the module that is the shipped library.
        author: the author's own data; ``None`` where there are none, and nothing is said of paths under them.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: it is nested too deeply to be looked at.
    """
    return check_tests(modules, library, tests=frozenset(), examples=frozenset(), author=author)


def check_tests(
    modules: tuple[Module, ...],
    library: str,
    *,
    tests: frozenset[str],
    examples: frozenset[str],
    author: JsonObject | None = None,
) -> tuple[CheckerFinding, ...]:
    """Everything against a policy and its tests.

    Test modules are in a package of their own. They may replace documents by ``with``, ``print``, and look at
    ``data.examples``; the rules whose names begin with ``test_`` are what is asked for.

    Args:
        modules: the whole set, tests included.
        library: the name of the module that is the shipped library.
        tests: the names of the modules that are tests.
        examples: the names under ``data.examples``.
        author: the author's own data, as for :func:`check`.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: it is nested too deeply to be looked at.
    """
    try:
        packages = Packages(modules, library, examples if tests else frozenset())
        found = _findings(packages, modules, library, tests)
        if author is not None:
            found.update(_author_data(packages, modules, tests, author))
    except RecursionError as error:
        raise PolicyDenied(Code.POLICY_INVALID, "the policy is nested too deeply", hint="split it") from error
    return tuple(sorted(found))


def rule_names(modules: tuple[Module, ...]) -> frozenset[str]:
    """The names of the author's rules."""
    return frozenset(rule.name for module in modules if module.package == AUTHOR_PACKAGE for rule in module.rules)


def _findings(
    packages: Packages, modules: tuple[Module, ...], library: str, tests: frozenset[str]
) -> set[CheckerFinding]:
    graph = Graph(packages)
    found = set(check_packages(modules, library, tests))
    found.update(check_defaults(modules))
    written = tuple(module for module in modules if module.name != library)
    first = next((module for module in written if module.name not in tests), None)
    if first is not None:
        found.update(check_entries(modules, first))
        found.update(check_reach(modules, graph))
    always = has_library(graph)
    for module in modules:
        if module.name == library:
            found.update(_of_library(module))
            continue
        found.update(_of_module(packages, module, test=module.name in tests))
        for rule in module.rules:
            scope = packages.scopes[id(rule)]
            found.update(_warnings(scope, library=always))
            if module.name not in tests:
                found.update(_denials(scope))
        found.update(unused_imports(packages, module))
    found.update(_unused(packages, graph, written, tests))
    found.update(_recursion(packages, graph))
    return found


def _of_module(packages: Packages, module: Module, *, test: bool) -> Iterator[CheckerFinding]:
    """The errors in what is written in ``module``."""
    yield from _imports(packages, module)
    yield from _wholes(packages, module, test=test)
    for rule in module.rules:
        scope = packages.scopes[id(rule)]
        yield from check_clause(scope, test=test)
        yield from _comparisons(scope)


def _of_library(module: Module) -> frozenset[CheckerFinding]:
    """The errors in the library: it names nothing of an author's, and nobody else may write in its package."""
    key = module.name, module.text
    if key not in _LIBRARIES:
        _LIBRARIES.clear()
        _LIBRARIES[key] = frozenset(_of_module(Packages((module,), module.name), module, test=False))
    return _LIBRARIES[key]


def _comparisons(scope: Scope) -> list[CheckerFinding]:
    notes = Notes(scope.module)
    for node in scope.nodes:
        check_comparison(scope, notes, node)
        if node.kind == "Query":
            check_body(notes, node)
    return notes.found


def _warnings(scope: Scope, *, library: bool) -> list[CheckerFinding]:
    notes = Notes(scope.module)
    unused_variables(scope, notes)
    for node in scope.nodes:
        check_order(scope, notes, node)
    for body in scope.rule.bodies:
        check_none(scope, notes, body, library=library)
    return notes.found


def _author_data(
    packages: Packages, modules: tuple[Module, ...], tests: frozenset[str], author: JsonObject
) -> Iterator[CheckerFinding]:
    """Tests that replace the author's data may name what only they put there."""
    for module in modules:
        scopes = [packages.scopes[id(rule)] for rule in module.rules]
        if module.name in tests and any(map(replaces_author_data, scopes)):
            continue
        notes = Notes(module)
        check_author_imports(module, notes, author)
        for scope in scopes:
            check_author_data(scope, notes, author)
        yield from notes.found


def _denials(scope: Scope) -> list[CheckerFinding]:
    notes = Notes(scope.module)
    check_denials(scope, notes)
    return notes.found


def _unused(
    packages: Packages, graph: Graph, written: tuple[Module, ...], tests: frozenset[str]
) -> Iterator[CheckerFinding]:
    policy = tuple(module for module in written if module.name not in tests)
    yield from unused_rules(packages, graph, policy, roots=frozenset(f"{AUTHOR_PACKAGE}.{name}" for name in ENTRIES))
    tested = tuple(module for module in written if module.name in tests)
    names = {rule.name for module in tested for rule in module.rules if rule.name.startswith("test_")}
    yield from unused_rules(packages, graph, tested, roots=frozenset(f"{TEST_PACKAGE}.{name}" for name in names))


def _imports(packages: Packages, module: Module) -> list[CheckerFinding]:
    notes = Notes(module)
    for (alias, path), span in zip(module.imports.items(), module.import_spans, strict=True):
        if path != "rego.v1":
            if path.split(".")[0] in ("input", "data"):
                place = packages.path(path.removeprefix("data."), module.package)
                wrong, hint = place.wrong, place.hint
            else:
                wrong, hint = f"{path} cannot be imported", "remove it: policies are Rego v1"
            if wrong:
                notes.add(span, "path-unknown", wrong, hint=hint)
        if alias in {"input", "data"} | BUILTINS:
            notes.add(span, "name-taken", f"{alias} has another meaning already", hint=f"import {path} as {alias}_")
    return notes.found


def _wholes(packages: Packages, module: Module, *, test: bool) -> list[CheckerFinding]:
    """The author's package is not looked at as a whole; tests do it by an alias, which is spelt out for them."""
    notes = Notes(module)
    for (alias, path), span in zip(module.imports.items(), module.import_spans, strict=True):
        inside = f"data.{AUTHOR_PACKAGE}.".startswith(f"{path}.")
        if inside and not (test and path == f"data.{AUTHOR_PACKAGE}"):
            notes.add(span, "whole-package", f"{alias} is all that is in {path}", hint="its rules by their names")
    for rule in module.rules:
        nodes = packages.scopes[id(rule)].nodes
        held = {id(node.part("refr")) for node in nodes if node.kind in REFERENCES and index_of(node) is not None}
        for node in nodes:
            if node.kind == "Var" and node.text == "data" and id(node) not in held:
                notes.add(node.span, "whole-package", "data is everything there is", hint="data.reference, data.author")
    return notes.found


def _recursion(packages: Packages, graph: Graph) -> list[CheckerFinding]:
    """A rule that depends on itself ends the engine's process."""
    circle = graph.circle()
    if not circle:
        return []
    module, rule = packages.rules[circle[0]][0]
    notes = Notes(module)
    notes.add(rule.span, "recursion", f"the rule depends on itself: {' → '.join(circle)}")
    return notes.found
