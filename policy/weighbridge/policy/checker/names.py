"""Names in a policy: which are variables of a clause, which are rules, imports or paths, and what each stands for.

What a name stands for is followed through ``:=``, ``some … in``, rules with one value, ``object.get`` and the arguments
of functions, where all calls agree (:class:`weighbridge.policy.checker.shapes.Place`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

from weighbridge.policy.checker.bindings import COMPREHENSIONS, REFERENCES, Binding, bindings, dotted
from weighbridge.policy.checker.functions import GIVES
from weighbridge.policy.checker.shapes import (
    BOOLEAN,
    GIVEN,
    NOTHING,
    NUMBER,
    PLAIN,
    TEXT,
    UNKNOWN,
    Place,
    Type,
    data_place,
    either,
    element,
    input_place,
    list_of,
    member,
    union,
    words_of,
)
from weighbridge.policy.checker.spelling import nearest
from weighbridge.policy.checker.syntax import Module, Node, Rule

__all__ = ["Packages", "Scope", "index_of"]

_DATA: Final = ("reference", "author", "examples")


class Packages:
    """All rules by full name, so that a name in one module is known in another of the same package.

    Args:
        modules: the whole set.
        library: the name of the module that is the shipped library: what its functions take is not learnt from others.
        examples: the names under ``data.examples``; none outside of tests.
    """

    def __init__(self, modules: tuple[Module, ...], library: str = "", examples: frozenset[str] = frozenset()) -> None:
        self.library: str = library
        self.data: Place = data_place(examples)
        self.rules: dict[str, list[tuple[Module, Rule]]] = {}
        self._first: dict[str, set[str]] = {}
        self._inside: dict[str, set[str]] = {}
        self.scopes: dict[int, Scope] = {}
        for module in modules:
            for rule in module.rules:
                self._enter(module, rule)
        self._calls: dict[str, list[tuple[Scope, Node]]] | None = None
        self._places: dict[tuple[str, int], Place] = {}

    def _enter(self, module: Module, rule: Rule) -> None:
        name = f"{module.package}.{rule.name}"
        self.rules.setdefault(name, []).append((module, rule))
        self._first.setdefault(module.package, set()).add(rule.name.split(".")[0])
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            self._inside.setdefault(".".join(parts[:length]), set()).add(name)
        self.scopes[id(rule)] = Scope(self, module, rule)

    def names(self, package: str) -> set[str]:
        """The first names of the rules of ``package``."""
        return self._first.get(package, set())

    def arity(self, name: str) -> int | None:
        """How many arguments the function takes; ``None`` where there is no such function."""
        return next((len(rule.args) for _, rule in self.rules.get(name, []) if rule.args), None)

    def functions(self) -> frozenset[str]:
        """The full names of all functions."""
        return frozenset(name for name in self.rules if self.arity(name) is not None)

    def below(self, path: str) -> set[str]:
        """The rules that a reference to ``path`` reads: itself, those inside it, or the one it leads into."""
        inside = self._inside.get(path)
        if inside:
            return inside
        leading = self.leading(path.split("."))
        return {leading} if leading else set()

    def leading(self, parts: list[str]) -> str:
        """The rule that the path leads to or into; empty if to none."""
        names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((name for name in names if name in self.rules), "")

    def value(self, name: str) -> Place:
        """What the rule gives."""
        return self._remember((name, -1), lambda: self._value(name))

    def parameter(self, name: str, index: int) -> Place:
        """What the function is given at ``index``, where all calls agree; of the library's, its own calls."""
        return self._remember((name, index), lambda: self._parameter(name, index))

    def path(self, full: str, package: str) -> Place:
        """What a path gives that begins outside of clauses, written in ``package``, as :meth:`Scope.full_name`."""
        parts = full.split(".")
        if parts[0] == "input":
            return _follow(input_place(), parts[1:])
        rule = self.leading(parts)
        if rule:
            return _follow(self.value(rule), parts[len(rule.split(".")) :])
        if self.below(full):
            return NOTHING
        if parts[0] in _DATA and parts[0] in self.data.type.members:
            return _follow(self.data, parts)
        return self._missing(full, package)

    def _missing(self, full: str, package: str) -> Place:
        inside, _, name = full.rpartition(".")
        meant = nearest(name, self.names(inside)) or nearest(full, [*self.rules, *_DATA])
        shown = full.removeprefix(f"{package}.")
        meant = meant.removeprefix(f"{package}.")
        hint = f"did you mean {meant}?" if meant else "reference values are under data.reference, yours in data.author"
        return Place(wrong=f"data.{full} does not exist" if shown == full else f"{shown} does not exist", hint=hint)

    def needed(self, name: str, index: int) -> dict[str, None]:
        """The members that the function looks at directly of its argument at ``index``."""
        found: dict[str, None] = {}
        for _, rule in self.rules[name]:
            argument = rule.args[index] if index < len(rule.args) else None
            if argument is None or argument.kind != "Var":
                continue
            for node in rule.walk():
                refr, name_ = node.part("refr") if node.kind in REFERENCES else None, index_of(node)
                if name_ is not None and refr is not None and refr.kind == "Var" and refr.text == argument.text:
                    found[name_] = None
        return found

    def calls(self, name: str) -> list[tuple[Scope, Node]]:
        """Every call of the function, with the scope that it stands in."""
        if self._calls is None:
            self._calls = {}
            for scope in self.scopes.values():
                for node in scope.nodes:
                    if node.kind == "Call":
                        self._calls.setdefault(scope.full_name(node.part("fcn")), []).append((scope, node))
        return self._calls.get(name, [])

    def _remember(self, key: tuple[str, int], find: Callable[[], Place]) -> Place:
        if key not in self._places:
            # What leads back to itself is found not to be known.
            self._places[key] = NOTHING
            self._places[key] = find()
        return self._places[key]

    def _value(self, name: str) -> Place:
        found: list[Place] = []
        kinds = {rule.kind for _, rule in self.rules[name]}
        for _, rule in self.rules[name]:
            scope = self.scopes[id(rule)]
            node = rule.key if rule.kind == "set" else rule.value
            place = Place(BOOLEAN, sure=True) if node is None else scope.place(node)
            found.append(Place(place.type, place.path, place.sure and not (rule.bodies and rule.kind == "complete")))
            found += [scope.place(value) for body in rule.bodies for value in body.all("value")]
        whole = either(found)
        match kinds:
            case _ if kinds == {"set"}:
                return Place(list_of(whole.type, "set"), sure=True)
            case _ if kinds == {"object"}:
                return Place(Type("map", element=whole.type), sure=True)
            case _ if kinds <= {"complete", "default"}:
                sure = "default" in kinds or (len(found) == 1 and whole.sure)
                return Place(whole.type, whole.path, sure)
            case _:
                return Place(whole.type)

    def _parameter(self, name: str, index: int) -> Place:
        own = any(module.name == self.library for module, _ in self.rules[name])
        given: list[Place] = []
        for scope, call in self.calls(name):
            if own and scope.module.name != self.library:
                continue
            params = call.all("params")
            given.append(scope.place(params[index]) if index < len(params) else NOTHING)
        if not given or any(place.type != given[0].type for place in given):
            return Place(sure=True)
        first = given[0].type
        path = given[0].path if len({place.path for place in given}) == 1 else ""
        # Words that calls write down are no reason to think that there are no others.
        known = first if all(place.path for place in given) or first.kind != "text" else Type("text", first.optional)
        return Place(known, path, sure=True)


class Scope:
    """The names of one clause. Variables are known by name, which is exact because shadowing is refused."""

    def __init__(self, packages: Packages, module: Module, rule: Rule) -> None:
        self.packages: Packages = packages
        self.module: Module = module
        self.rule: Rule = rule
        self.locals: dict[str, list[Binding]] = {}
        self.nodes: tuple[Node, ...] = tuple(rule.walk())
        for binding in bindings(rule, self.nodes):
            self.locals.setdefault(binding.name, []).append(binding)
        self._places: dict[int, Place] = {}

    @property
    def names(self) -> set[str]:
        """The first names of the rules of this package."""
        return self.packages.names(self.module.package)

    @property
    def function(self) -> str:
        """The full name of the rule that the clause is of."""
        return f"{self.module.package}.{self.rule.name}"

    def total(self, node: Node) -> bool:
        """Whether the expression has a value by its form alone: of literals, variables, comprehensions, total rules.

        Paths into documents are not among them, however total the document is: how ``not`` reads them is what engines
        do not agree on.
        """
        if node.kind in COMPREHENSIONS:
            return True
        if node.kind in ("Var", "RefDot") and self.outside(node):
            return self.packages.leading(self.full_name(node).split(".")) != "" and self.place(node).sure
        if node.kind in (*REFERENCES, "Call", "Membership") or (node.kind == "Var" and node.text not in self.locals):
            return False
        return all(self.total(part) for _, part in node.parts)

    def full_name(self, node: Node | None) -> str:
        """The dotted name of a reference, with imports resolved and without ``data.``; empty if computed."""
        parts = dotted(node)
        if not parts:
            return ""
        head = parts[0]
        if head in self.module.imports:
            return ".".join([self.module.imports[head], *parts[1:]]).removeprefix("data.")
        if head in self.names:
            return ".".join([self.module.package, *parts])
        return ".".join(parts).removeprefix("data.")

    def outside(self, node: Node) -> bool:
        """Whether the reference begins outside of the clause: at the document, at data, a rule or an import."""
        parts = dotted(node)
        if not parts or parts[0] in self.locals:
            return False
        return parts[0] in ("input", "data") or parts[0] in self.module.imports or parts[0] in self.names

    def place(self, node: Node) -> Place:
        """What ``node`` gives."""
        key = id(node)
        if key not in self._places:
            self._places[key] = NOTHING
            self._places[key] = self._place(node)
        return self._places[key]

    def source(self, node: Node) -> Node:
        """The expression that is written where ``node`` gets its value, as far as there is one; else ``node``."""
        found: Node | None = None
        if node.kind == "Var" and node.text in self.locals:
            first, *others = self.locals[node.text]
            found = first.source if first.how == "value" and not others else None
        elif self.outside(node):
            clauses = self.packages.rules.get(self.full_name(node), [])
            found = clauses[0][1].value if len(clauses) == 1 and not clauses[0][1].bodies else None
        return node if found is None else found

    def _place(self, node: Node) -> Place:
        match node.kind:
            case "Var" if node.text in self.locals:
                return self._local(node.text)
            case "Var" | "RefDot" if self.outside(node):
                # A bare `data` keeps its name; `data.x` loses it.
                bare = dotted(node) == ["data"]
                return NOTHING if bare else self.packages.path(self.full_name(node), self.module.package)
            case "RefDot" | "RefBrack":
                refr = node.part("refr")
                before = NOTHING if refr is None else self.place(refr)
                return NOTHING if before.wrong else member(before, index_of(node))
            case "Call":
                return self._call(node)
            case "ArrayCompr" | "SetCompr" | "ObjectCompr":
                return self._comprehension(node)
            case _:
                return self._literal(node)

    def _local(self, name: str) -> Place:
        first, *others = self.locals[name]
        # A name that is bound in two places has no one type.
        if others:
            return Place(sure=True)
        if first.how == "argument":
            return self.packages.parameter(self.function, first.index)
        source = NOTHING if first.source is None else self.place(first.source)
        match first.how:
            case "value":
                return Place(source.type, source.path, sure=True)
            case "element":
                return Place(element(source).type, element(source).path, sure=True)
            case "key" if source.type.kind in ("list", "map", "object"):
                return Place(NUMBER if source.type.kind == "list" else TEXT, sure=True)
            case _:
                return Place(sure=True)

    def _call(self, node: Node) -> Place:
        name, params = self.full_name(node.part("fcn")), node.all("params")
        if name == "object.get" and len(params) == len(("holder", "key", "default")):
            return self._lookup(params[0], params[1], params[2])
        if name == "object.keys" and len(params) == 1:
            return Place(list_of(words_of(*self.place(params[0]).type.members), "set"))
        if name in GIVES:
            return Place(GIVEN[GIVES[name]])
        clauses = self.packages.rules.get(name, [])
        if not clauses or not clauses[0][1].args:
            return NOTHING
        through = self._through(clauses[0][1], params) if len(clauses) == 1 else None
        return through or Place(self.packages.value(name).type)

    def _through(self, rule: Rule, params: tuple[Node, ...]) -> Place | None:
        """A function that does nothing but ``object.get`` with its own arguments, such as the library's ``field``."""
        value = rule.value
        if value is None or value.kind != "Call" or dotted(value.part("fcn")) != ["object", "get"]:
            return None
        given = {arg.text: param for arg, param in zip(rule.args, params, strict=False) if arg.kind == "Var"}
        inner = [given.get(part.text, part) if part.kind == "Var" else part for part in value.all("params")]
        return self._lookup(inner[0], inner[1], inner[2]) if len(inner) == len(("holder", "key", "default")) else None

    def _lookup(self, holder: Node, key: Node, default: Node) -> Place:
        """``object.get`` has a default, which would hide a member that never exists."""
        place = self.place(holder)
        sure, documented = place.sure, bool(place.path)
        for name in key.all("items") if key.kind == "Array" else (key,):
            place = member(place, name.text if name.kind in ("String", "RawString") else None)
            if place.wrong:
                # What is written out has whatever its author wants: he asks with a default.
                return place if name.kind in ("String", "RawString") and documented else NOTHING
        kept = union(place.type, self.place(default).type) if default.kind != "Null" else place.type
        optional = default.kind == "Null" or kept.optional
        known = Type(kept.kind, optional, kept.words, kept.element, kept.members) if kept.kind != "unknown" else UNKNOWN
        # The document is total: what is written as a default for it never comes.
        return Place(place.type if place.sure else known, place.path, sure)

    def _comprehension(self, node: Node) -> Place:
        term = node.part("term") or node.part("value")
        inner = UNKNOWN if term is None else self.place(term).type
        match node.kind:
            case "ArrayCompr":
                return Place(list_of(inner), sure=True)
            case "SetCompr":
                return Place(list_of(inner, "set"), sure=True)
            case _:
                return Place(Type("map", element=inner), sure=True)

    def _literal(self, node: Node) -> Place:
        match node.kind:
            case "String" | "RawString":
                return Place(words_of(node.text), sure=True)
            case "Array" | "Set":
                inner = [self.place(item) for item in node.all("items")]
                kind: Literal["list", "set"] = "list" if node.kind == "Array" else "set"
                return Place(Type(kind, element=either(inner).type if inner else None), sure=all(p.sure for p in inner))
            case "Object":
                return self._table(node)
            case "ArithExpr" | "BinExpr":
                sides = [self.place(part) for role, part in node.parts if role in ("lhs", "rhs")]
                known = either(sides).type
                if known.kind == "set" or node.kind == "BinExpr":
                    return Place(known)
                return Place(NUMBER if all(side.type.kind == "number" for side in sides) else UNKNOWN)
            case _:
                return PLAIN.get(node.kind, NOTHING)

    def _table(self, node: Node) -> Place:
        keys, items = node.all("key"), [self.place(item) for item in node.all("item")]
        fixed = all(key.kind in ("String", "RawString") for key in keys)
        words = tuple(key.text for key in keys) if fixed else ()
        return Place(Type("map", words=words, element=either(items).type), sure=all(item.sure for item in items))


def index_of(node: Node) -> str | None:
    """The fixed name by which a reference takes a member; ``None`` for a computed or numeric index."""
    if node.kind == "RefDot":
        return node.text
    index = node.part("index")
    return index.text if index is not None and index.kind in ("String", "RawString") else None


def _follow(place: Place, parts: Iterable[str]) -> Place:
    for name in parts:
        before, place = place, member(place, name)
        if place.wrong:
            return place
        if before.type.kind == "unknown":
            return NOTHING
    return place
