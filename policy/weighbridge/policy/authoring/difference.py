"""Two policies side by side: which rules differ, and what each looks at.

Clauses are compared by the syntax tree: comments, white space, order and the module that a clause stands in make no
difference; the name of a variable does. What a policy looks at is what its rules look at, by way of the library too.
Nothing is evaluated: what the difference decides, recorded evidence shows (:mod:`.comparison`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.policy.authoring.clauses import Clause
from weighbridge.policy.checker.bindings import dotted
from weighbridge.policy.checker.entries import AUTHOR_PACKAGE, ENTRIES, LIBRARY_PACKAGE
from weighbridge.policy.checker.functions import ALLOWED
from weighbridge.policy.checker.names import Packages, Scope
from weighbridge.policy.checker.usage import Graph
from weighbridge.policy.engine import DEFAULT_LIMITS
from weighbridge.policy.engines.process import WorkerFault
from weighbridge.policy.engines.workbench import Workbench
from weighbridge.policy.policy_set import LIBRARY
from weighbridge.proto.errors import Code, PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.policy.checker.syntax import Module, Node, Rule
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.proto import strict

__all__ = ["Difference", "Looks", "RuleChange", "Written", "difference", "written"]

Effect = Literal["added", "removed", "changed"]
_REFERENCES: Final = ("Var", "RefDot", "RefBrack")
_DOCUMENTS: Final = ("input.", "data.")


@dataclass(frozen=True, slots=True)
class Looks:
    """What a policy looks at, each in order.

    Attributes:
        paths: of the input, of reference values and of the author's data.
        library: rules and functions of the library that the author's own clauses name.
        builtins: functions of the language that are called, by the library too.
    """

    paths: tuple[str, ...]
    library: tuple[str, ...]
    builtins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A rule whose clauses differ: those that only the later policy has, and those that only the earlier one has."""

    name: str
    effect: Effect
    came: tuple[Clause, ...]
    went: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A policy as it is written: its clauses by rule, what it looks at, its author's data."""

    clauses: Mapping[str, tuple[tuple[object, Clause], ...]]
    looks: Looks
    data: strict.JsonObject


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different.

    Attributes:
        rules: in the order of their names.
        came: what only the later policy looks at.
        went: what only the earlier one does.
        data: members of the author's data that are not the same, by name.
    """

    rules: tuple[RuleChange, ...]
    came: Looks
    went: Looks
    data: tuple[str, ...]

    @property
    def none(self) -> bool:
        """Whether both say the same."""
        return not self.rules and not self.data


def written(policy: PolicySet) -> Written:
    """``policy`` as it is written.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: it does not parse.
        EnvironmentFault: no worker can be started.
    """
    try:
        with Workbench(policy.modules, policy.document(), limits=DEFAULT_LIMITS) as bench:
            modules = bench.syntax
    except WorkerFault as fault:
        raise PolicyDenied(Code.POLICY_INVALID, f"the policy does not load: {fault}") from fault
    clauses: dict[str, list[tuple[object, Clause]]] = {}
    for module in modules:
        for rule in module.rules:
            clause = _clause(module, rule)
            clauses.setdefault(clause.name, []).append((_shape_of_rule(rule), clause))
    content = {} if policy.data is None else policy.data.content()
    return Written({name: tuple(items) for name, items in clauses.items()}, _looks(modules), content)


def difference(old: Written, new: Written) -> Difference:
    """What is different between ``old`` and ``new``."""
    changes: list[RuleChange] = []
    for name in sorted(old.clauses.keys() | new.clauses.keys()):
        before, after = old.clauses.get(name, ()), new.clauses.get(name, ())
        came, went = _only(after, before), _only(before, after)
        if came or went:
            effect: Effect = "changed" if before and after else "added" if after else "removed"
            changes.append(RuleChange(name, effect, came, went))
    members = sorted(old.data.keys() | new.data.keys())
    return Difference(
        rules=tuple(changes),
        came=_without(new.looks, old.looks),
        went=_without(old.looks, new.looks),
        data=tuple(name for name in members if _absent(old.data, name) != _absent(new.data, name)),
    )


def _absent(data: strict.JsonObject, name: str) -> tuple[bool, strict.JsonValue]:
    """A member that is ``null`` is another than one that is not there."""
    return name in data, data.get(name)


def _only(these: tuple[tuple[object, Clause], ...], those: tuple[tuple[object, Clause], ...]) -> tuple[Clause, ...]:
    """The clauses of ``these`` that ``those`` do not have, as often as they have not."""
    left = Counter(shape for shape, _ in those)
    found: list[Clause] = []
    for shape, clause in these:
        if left[shape]:
            left[shape] -= 1
        else:
            found.append(clause)
    return tuple(found)


def _without(these: Looks, those: Looks) -> Looks:
    return Looks(
        paths=_missing(these.paths, those.paths),
        library=_missing(these.library, those.library),
        builtins=_missing(these.builtins, those.builtins),
    )


def _missing(these: tuple[str, ...], those: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(these) - set(those)))


def _clause(module: Module, rule: Rule) -> Clause:
    name = rule.name if module.package == AUTHOR_PACKAGE else f"{module.package.rsplit('.', 1)[-1]}.{rule.name}"
    return Clause(module.name, rule.line, name)


def _shape_of_rule(rule: Rule) -> object:
    parts = (*rule.args, rule.key, rule.value, *rule.bodies)
    return rule.kind, len(rule.args), tuple(None if node is None else _shape(node) for node in parts)


def _shape(node: Node) -> tuple[object, ...]:
    return node.kind, node.text, tuple((role, _shape(part)) for role, part in node.parts)


def _looks(modules: tuple[Module, ...]) -> Looks:
    packages = Packages(modules, LIBRARY)
    reached = Graph(packages).reached(f"{AUTHOR_PACKAGE}.{name}" for name in ENTRIES)
    paths: set[str] = set()
    library: set[str] = set()
    builtins: set[str] = set()
    for scope in packages.scopes.values():
        if scope.function not in reached:
            continue
        for node in _outermost(scope.rule):
            name = scope.full_name(node) if scope.outside(node) else ""
            if name.startswith(f"{LIBRARY_PACKAGE}.") and scope.module.package == AUTHOR_PACKAGE:
                library.add(f"lib.{name.removeprefix(f'{LIBRARY_PACKAGE}.')}")
            paths.add(_path(scope, node))
        builtins |= {name for name in _called(scope) if name in ALLOWED}
    # An element that is only the way to its members says nothing beside them.
    ways = {path for path in paths if path.endswith("[]") and any(other.startswith(f"{path}.") for other in paths)}
    return Looks(tuple(sorted(paths - ways - {""})), tuple(sorted(library)), tuple(sorted(builtins)))


def _path(scope: Scope, node: Node) -> str:
    path = scope.place(node).path
    return path if path.startswith(_DOCUMENTS) else ""


def _outermost(rule: Rule) -> list[Node]:
    """The references of a clause, without those that others go on from."""
    nodes = [node for node in rule.walk() if node.kind in _REFERENCES]
    inner = {id(node.part("refr")) for node in nodes}
    return [node for node in nodes if id(node) not in inner]


def _called(scope: Scope) -> set[str]:
    functions = (node.part("fcn") for node in scope.rule.walk() if node.kind == "Call")
    return {".".join(dotted(function)) for function in functions}
