"""The clauses of a loaded policy by name, and Rego written about them: what attribution and explanations are made of.

Generated modules stand in the packages of the modules that they speak of, with the same imports, so that source text
copied from there means the same. Their rules begin with a prefix that no policy uses. Generated Rego is never part of
a policy set, its digest or a decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.policy.policy_set import LINES_MAX, SOURCE_MAX, PolicyModule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.policy.checker.syntax import Module, Node, Rule, Span

__all__ = [
    "HELPERS",
    "HELPERS_NAME",
    "Clause",
    "Clauses",
    "Written",
    "dotted",
    "modules_of",
    "one_line",
    "statements",
    "variables",
]

HELPERS_NAME: Final = "why.rego"
HELPERS: Final = """package weighbridge.why

import rego.v1

# A value for people: its kind, its size, and of what is long only the beginning.
show(value) := {"is": type_name(value), "v": value} if {
	not composite(value)
	not is_string(value)
}

show(value) := {"is": "string", "n": count(value), "v": substring(value, 0, 400)} if is_string(value)

show(value) := {"is": "array", "n": count(value), "v": inside} if {
	is_array(value)
	inside := [inner(item) | some item in array.slice(value, 0, 12)]
}

show(value) := {"is": "set", "n": count(value), "v": inside} if {
	is_set(value)
	all := [each | some each in value]
	inside := [inner(item) | some item in array.slice(all, 0, 12)]
}

show(value) := {"is": "object", "n": count(value), "v": inside} if {
	is_object(value)
	names := [name | some name, _ in value; is_string(name)]
	inside := {key: inner(value[key]) | some key in array.slice(names, 0, 40)}
}

inner(value) := value if {
	not composite(value)
	not is_string(value)
}

inner(value) := substring(value, 0, 200) if is_string(value)

inner(value) := {"is": type_name(value), "n": count(value), "v": known_by(value)} if composite(value)

# What an object is called by those who know it.
known_by(value) := array.concat(called, [null])[0] if {
	names := ["identity", "manifest", "device", "name", "file", "index", "code"]
	called := [value[name] | some name in names; is_object(value); not composite(value[name])]
}

composite(value) if is_array(value)

composite(value) if is_set(value)

composite(value) if is_object(value)

# A value as one word, however deeply it is nested.
packed(value) := base64.encode(json.marshal(value))
"""
"""The module that generated rules call; package ``weighbridge.why``."""

# Room for package and imports beside the generated rules.
_LINES: Final = LINES_MAX - 100
_BYTES: Final = SOURCE_MAX - 8192


@dataclass(frozen=True, slots=True, order=True)
class Clause:
    """One clause of a rule: where it stands, and its name as the policy's author writes it, such as ``lib.always``."""

    module: str
    line: int
    name: str

    def __str__(self) -> str:
        """Module and line, as editors take them."""
        return f"{self.module}:{self.line}"


@dataclass(frozen=True, slots=True)
class Written:
    """A generated rule: for which module, under which name, and its text."""

    module: Module
    name: str
    text: str


class Clauses:
    """Every clause of some modules, by the full name of its rule, such as ``weighbridge.lib.always``."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules: tuple[Module, ...] = tuple(modules)
        self.by_name: dict[str, list[tuple[Module, Rule]]] = {}
        for module in modules:
            for rule in module.rules:
                self.by_name.setdefault(f"{module.package}.{rule.name}", []).append((module, rule))
        self.prefix: str = "why_"
        while any(self.prefix.encode() in module.text for module in modules):
            self.prefix += "_"

    def of(self, name: str, *kinds: str) -> list[tuple[Module, Rule]]:
        """The clauses of the rule of this full name, of these kinds if any are named."""
        return [(module, rule) for module, rule in self.by_name.get(name, []) if not kinds or rule.kind in kinds]

    def full_name(self, module: Module, node: Node | None) -> str:
        """The rule to which a reference with fixed names leads; empty where it leads to none."""
        parts = dotted(node)
        if not parts:
            return ""
        head, *rest = parts
        if head in module.imports:
            path = ".".join([module.imports[head], *rest])
        elif head == "data":
            path = ".".join(parts)
        else:
            path = ".".join(["data", module.package, *parts])
        name = path.removeprefix("data.")
        return name if path.startswith("data.") and name in self.by_name else ""

    def clause(self, module: Module, rule: Rule) -> Clause:
        """What people call a clause. A rule of another package than the authors' bears the package's last name."""
        package = module.package.rsplit(".", 1)[-1]
        return Clause(module.name, rule.line, rule.name if package == "policy" else f"{package}.{rule.name}")


def modules_of(written: Iterable[Written], prefix: str) -> tuple[PolicyModule, ...]:
    """Generated rules as modules that keep the bounds of modules.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: a single rule breaks a bound.
    """
    by_module: dict[str, tuple[Module, list[list[str]]]] = {}
    for item in written:
        _, chunks = by_module.setdefault(item.module.name, (item.module, [[]]))
        size = sum(len(text.encode()) + 2 for text in chunks[-1]) + len(item.text.encode())
        lines = sum(text.count("\n") + 2 for text in chunks[-1]) + item.text.count("\n")
        if chunks[-1] and (size > _BYTES or lines > _LINES):
            chunks.append([])
        chunks[-1].append(item.text)
    made: list[PolicyModule] = []
    for module, chunks in by_module.values():
        head = f"package {module.package}\n\n" + "".join(f"{module.source(span)}\n" for span in module.import_spans)
        if "v1" not in module.imports:
            head += "import rego.v1\n"
        head += f"import data.weighbridge.why as {prefix}lib\n\n"
        for number, texts in enumerate(chunks):
            text = head + "\n\n".join(texts) + "\n"
            made.append(PolicyModule(f"{prefix}{number}_{module.name}", text.encode()))
    return tuple(made)


def dotted(node: Node | None) -> list[str]:
    """The names of a reference written with fixed names; empty for any other node."""
    if node is None:
        return []
    if node.kind == "Var":
        return [node.text]
    if node.kind == "RefDot":
        inner = dotted(node.part("refr"))
        return [*inner, node.text] if inner else []
    return []


def statements(body: Node | None) -> tuple[Node, ...]:
    """The statements of a body; none for a clause without."""
    return () if body is None else body.all("statement")


def variables(statement: Node) -> list[str]:
    """The names that a statement binds for those after it, in their order; without ``_``."""
    patterns: tuple[Node, ...] = ()
    if statement.kind in ("SomeIn", "SomeVars"):
        patterns = (*statement.all("key"), *statement.all("value"))
    elif statement.kind == "Expr":
        expr = statement.part("expr")
        if expr is not None and expr.kind == "AssignExpr" and expr.text == "ColEq":
            patterns = expr.all("lhs")
    found = [node.text for pattern in patterns for node in pattern.walk() if node.kind == "Var" and node.text != "_"]
    return list(dict.fromkeys(found))


def one_line(module: Module, span: Span) -> str:
    """Source text for people: on one line, without comments."""
    lines = [_uncommented(line) for line in module.source(span).split("\n")]
    return " ".join(" ".join(lines).split())


def _uncommented(line: str) -> str:
    """``line`` without a comment at its end. A ``#`` inside of quotes begins none."""
    quote = ""
    skip = False
    for place, char in enumerate(line):
        if skip:
            skip = False
        elif quote:
            skip = char == "\\" and quote == '"'
            quote = "" if char == quote else quote
        elif char in ('"', "`"):
            quote = char
        elif char == "#":
            return line[:place]
    return line
