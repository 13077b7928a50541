"""What reaches what: rules that decide nothing, circles, and names that nothing looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from weighbridge.policy.checker.bindings import dotted
from weighbridge.policy.checker.findings import CheckerFinding
from weighbridge.policy.checker.names import Packages, Scope
from weighbridge.policy.checker.notes import Notes
from weighbridge.policy.checker.spelling import nearest
from weighbridge.policy.checker.syntax import Module

__all__ = ["Graph", "unused_imports", "unused_rules", "unused_variables"]


class Graph:
    """Which rule looks at which, by full names."""

    def __init__(self, packages: Packages) -> None:
        self._packages: Packages = packages
        self.edges: dict[str, set[str]] = {name: set() for name in packages.rules}
        for scope in packages.scopes.values():
            self.edges[scope.function] |= _looked_at(scope)

    def reached(self, roots: Iterable[str]) -> set[str]:
        """The rules that ``roots`` are or look at, also by way of others."""
        found: set[str] = set()
        pending = [root for root in roots if root in self.edges]
        while pending:
            name = pending.pop()
            if name not in found:
                found.add(name)
                pending += self.edges[name]
        return found

    def circle(self) -> list[str]:
        """The names of a circle, the first again at the end; empty where there is none."""
        done: set[str] = set()
        for start in self.edges:
            trail: list[str] = []
            if self._cycle(start, trail=trail, done=done):
                return trail[trail.index(trail[-1]) :]
        return []

    def _cycle(self, name: str, *, trail: list[str], done: set[str]) -> bool:
        """Whether a circle can be reached from ``name``; it then ends ``trail``."""
        if name in done:
            return False
        seen = name in trail
        trail.append(name)
        if seen or any(self._cycle(other, trail=trail, done=done) for other in sorted(self.edges[name])):
            return True
        _ = trail.pop()
        done.add(name)
        return False


def unused_rules(
    packages: Packages, graph: Graph, modules: Iterable[Module], *, roots: frozenset[str]
) -> Iterator[CheckerFinding]:
    """Rules of ``modules`` that none of ``roots`` (full names) reaches; one finding for each, at its first clause."""
    reached = graph.reached(roots)
    short = {root.rpartition(".")[2] for root in roots}
    seen: set[str] = set()
    for module in modules:
        for rule in module.rules:
            name = f"{module.package}.{rule.name}"
            if name in reached or name in seen:
                continue
            seen.add(name)
            what = "the function" if packages.arity(name) is not None else "the rule"
            meant = nearest(rule.name, short)
            # Of an entry's own name in another package, that package is what is wrong.
            hint = f"did you mean {meant}?" if meant and meant != rule.name else ""
            notes = Notes(module)
            notes.add(rule.span, "unused-rule", f"nothing that is asked for looks at {what} {rule.name}", hint=hint)
            yield from notes.found


def unused_imports(packages: Packages, module: Module) -> Iterator[CheckerFinding]:
    """Imports that no clause of the module looks at."""
    used: set[str] = set()
    for rule in module.rules:
        scope = packages.scopes[id(rule)]
        used |= {node.text for node in scope.nodes if node.kind == "Var" and node.text not in scope.locals}
    notes = Notes(module)
    for (alias, path), span in zip(module.imports.items(), module.import_spans, strict=False):
        if alias not in used and path.split(".")[0] in ("input", "data"):
            notes.add(span, "unused-import", f"nothing looks at {alias}", hint=f"remove it: import {path}")
    return iter(notes.found)


def unused_variables(scope: Scope, notes: Notes) -> None:
    """Variables of a clause that are bound and not looked at. Those whose names begin with ``_`` are meant to be so."""
    looked = Counter(node.text for node in scope.nodes if node.kind == "Var")
    for name, found in scope.locals.items():
        if name.startswith("_") or looked[name] > len(found):
            continue
        for binding in found:
            hint = {
                "value": f"remove the line, or look at {name}",
                "argument": "write _ in its place, or look at it",
            }.get(binding.how, f"write _ in place of {name}, or look at it")
            what = "argument" if binding.how == "argument" else "variable"
            notes.add(binding.at, "unused-variable", f"nothing looks at the {what} {name}", hint=hint)


def _looked_at(scope: Scope) -> set[str]:
    """The rules that a clause looks at. Of a path only the whole is looked at, not what it begins with."""
    nodes = scope.nodes
    inner = {id(node.part("refr")) for node in nodes if node.kind == "RefDot" and dotted(node)}
    found: set[str] = set()
    for node in nodes:
        if node.kind in ("RefDot", "Var") and id(node) not in inner and scope.outside(node):
            found |= scope.packages.below(scope.full_name(node))
    return found
