"""What a call names, and what it is given."""

from __future__ import annotations

from weighbridge.policy.checker.bindings import dotted
from weighbridge.policy.checker.functions import ALLOWED, FORBIDDEN, MEANT, PRINT, TESTS
from weighbridge.policy.checker.names import Scope
from weighbridge.policy.checker.notes import Notes
from weighbridge.policy.checker.spelling import nearest
from weighbridge.policy.checker.syntax import Node

__all__ = ["check_call"]


def check_call(scope: Scope, notes: Notes, node: Node, *, test: bool) -> None:
    """What there is against one call, in a test module or in a policy."""
    _Call(scope, notes, node).check(test=test)


class _Call:
    def __init__(self, scope: Scope, notes: Notes, node: Node) -> None:
        self.scope: Scope = scope
        self.notes: Notes = notes
        self.node: Node = node
        fcn = node.part("fcn")
        self.name: str = scope.full_name(fcn)
        self.written: str = "this" if fcn is None else notes.text(fcn)

    def check(self, *, test: bool) -> None:
        scope, node, name = self.scope, self.node, self.name
        first = dotted(node.part("fcn"))[:1]
        if first and first[0] in scope.locals:
            self.notes.add(node, "name-taken", f"{first[0]} is a variable here, and no function")
            return
        if name == PRINT:
            if not test:
                self.notes.add(node, "print-in-policy", "print stands in a policy")
            return
        builtins = {**ALLOWED, **TESTS} if test else ALLOWED
        arity = builtins[name] if name in builtins else scope.packages.arity(name)
        given = len(node.all("params"))
        if arity is None:
            self.unknown()
        elif arity != given:
            arguments = "argument" if arity == 1 else "arguments"
            self.notes.add(node, "arity", f"{self.written} takes {arity} {arguments}, not {given}")
        else:
            self.given()
            place = scope.place(node)
            if place.wrong:
                self.notes.add(node, "path-unknown", place.wrong, hint=place.hint)

    def unknown(self) -> None:
        name, written = self.name, self.written
        if self.scope.packages.rules.get(name):
            hint = f"look at it without brackets: {written}"
            self.notes.add(self.node, "function-unknown", f"{written} is a rule and not a function", hint=hint)
            return
        reason = next((why for begin, why in FORBIDDEN.items() if name == begin or name.startswith(begin)), "")
        if reason:
            self.notes.add(self.node, "function-forbidden", f"{written} may not be called: it {reason}")
            return
        meant = MEANT.get(name.lower(), "") or nearest(written, {*ALLOWED, *self.reachable()})
        hint = f"did you mean {meant}?" if meant else ""
        self.notes.add(self.node, "function-unknown", f"{written} is not a function", hint=hint)

    def reachable(self) -> set[str]:
        """The functions of this package and of imported ones, as they are written here."""
        module = self.scope.module
        begins = {f"{path.removeprefix('data.')}.": f"{alias}." for alias, path in module.imports.items()}
        begins[f"{module.package}."] = ""
        functions = self.scope.packages.functions()
        return {
            short + function.removeprefix(begin)
            for begin, short in begins.items()
            for function in functions
            if function.startswith(begin)
        }

    def given(self) -> None:
        """What a function looks at must be there in what it is given, where its own checks could not see that."""
        packages, name = self.scope.packages, self.name
        # What another package's function takes is for its own calls to say, and not for this one.
        foreign = name.rpartition(".")[0] != self.scope.module.package
        for index, param in enumerate(self.node.all("params") if name in packages.rules else ()):
            place = self.scope.place(param)
            if not place.path or place.type.kind == "unknown":
                continue
            if not foreign and packages.parameter(name, index).type.kind != "unknown":
                continue
            needed = packages.needed(name, index)
            missing = [each for each in needed if each not in place.type.members]
            if missing:
                message = f"{self.written} looks at {missing[0]}, which {place.path} has not"
                hint = f"give it something that has {', '.join(sorted(needed))}"
                self.notes.add(param, "path-unknown", message, hint=hint)
