"""Comparisons that never hold, or always: a rule with one in its body never fires, or is not the rule that it reads."""

from __future__ import annotations

from typing import Final

from weighbridge.policy.checker.bindings import dotted
from weighbridge.policy.checker.names import Scope
from weighbridge.policy.checker.notes import Notes
from weighbridge.policy.checker.shapes import Place, Type
from weighbridge.policy.checker.spelling import listed, nearest
from weighbridge.policy.checker.syntax import Node

__all__ = ["check_comparison"]

_LOOKED_AT: Final = frozenset({"BoolExpr", "Membership", "Call"})
_TEXTS: Final = frozenset({"String", "RawString"})
_COLLECTIONS: Final = frozenset({"list", "set", "map"})
_EQUAL: Final = frozenset({"Eq", "Ne"})
_MIRRORED: Final = {"Lt": "Gt", "Le": "Ge", "Gt": "Lt", "Ge": "Le"}
# Of count(x) compared with 0 and with a negative number: what always holds, and what never does.
_ALWAYS: Final = {"zero": ("Ge",), "negative": ("Ge", "Gt", "Ne")}
_NEVER: Final = {"zero": ("Lt",), "negative": ("Lt", "Le", "Eq")}


def check_comparison(scope: Scope, notes: Notes, node: Node) -> None:
    """What there is against a comparison or a membership, or a call of ``is_null``; nothing against other nodes."""
    if node.kind in _LOOKED_AT:
        _Comparison(scope, notes, node).check()


class _Comparison:
    def __init__(self, scope: Scope, notes: Notes, node: Node) -> None:
        self.scope: Scope = scope
        self.notes: Notes = notes
        self.node: Node = node

    def check(self) -> None:
        node = self.node
        left, right = node.part("lhs"), node.part("rhs")
        value, collection = node.part("value"), node.part("collection")
        params = node.all("params")
        if node.kind == "BoolExpr" and left is not None and right is not None:
            self.counted(left, right, node.text)
            self.counted(right, left, _MIRRORED.get(node.text, node.text))
            self.compared(left, right)
        elif node.kind == "Membership" and value is not None and collection is not None:
            self.member(value, collection)
        elif node.kind == "Call" and dotted(node.part("fcn")) == ["is_null"] and len(params) == 1:
            self.null(self.scope.place(params[0]), params[0])

    def compared(self, left: Node, right: Node) -> None:
        one, other = self.scope.place(left), self.scope.place(right)
        if self.node.text in _EQUAL and "null" in (one.type.kind, other.type.kind):
            self.null(*((other, right) if one.type.kind == "null" else (one, left)))
            return
        if _never_alike(one.type, other.type):
            self.mismatch(left, right)
        elif self.node.text in _EQUAL:
            self.words(left, right)

    def mismatch(self, left: Node, right: Node) -> None:
        kinds = [self.scope.place(side).type.named() for side in (left, right)]
        what = {"Eq": "they are never equal", "Ne": "they are always unequal"}.get(self.node.text, "only types compare")
        message = f"{self.name(left)} is {kinds[0]}, {self.name(right)} is {kinds[1]}: {what}"
        literal, field = (left, right) if left.kind in {*_TEXTS, "Number", "Bool"} else (right, left)
        written, wanted = literal.text, self.scope.place(field).type.kind
        hint = ""
        if wanted == "text" and literal.kind == "Number":
            hint = f'write "{written}"' if self.node.text in _EQUAL else f"compare to_number({self.name(field)})"
        elif wanted == "number" and literal.kind in _TEXTS:
            hint = "write the number without quotes"
        elif wanted == "boolean":
            hint = "write true or false without quotes"
        elif "set" in (left.kind.lower(), right.kind.lower()):
            hint = "write [] for a list, or compare count(…)"
        self.notes.add(self.node, "type-mismatch", message, hint=hint)

    def words(self, left: Node, right: Node) -> None:
        one, other = self.scope.place(left), self.scope.place(right)
        if not one.type.words or not other.type.words or set(one.type.words) & set(other.type.words):
            return
        if one.type.kind != "text" or other.type.kind != "text" or (one.type.optional and other.type.optional):
            return
        never = "is always other than" if self.node.text == "Ne" else "is never"
        for literal, field, place in ((right, left, one), (left, right, other)):
            if literal.kind in _TEXTS:
                message = f'{self.name(field)} {never} "{literal.text}"'
                self.notes.add(self.node, "word-unknown", message, hint=_meant(literal.text, place.type.words))
                return
        message = f"{self.name(left)} and {self.name(right)} have no word in common"
        hint = f"the one has {listed(one.type.words)}, the other {listed(other.type.words)}"
        self.notes.add(self.node, "word-unknown", message, hint=hint)

    def member(self, value: Node, collection: Node) -> None:
        one, whole = self.scope.place(value), self.scope.place(collection)
        if whole.type.scalar:
            message = f"{self.name(collection)} is {whole.type.named()}: nothing is in it"
            hint = "contains(text, part) looks for text inside of text" if whole.type.kind == "text" else ""
            self.notes.add(self.node, "type-mismatch", message, hint=hint)
            return
        if whole.type.kind not in _COLLECTIONS:
            return
        items = self.written(collection)
        for item in items:
            self.item(one, value, item)
        inner = whole.type.element
        if inner is None or items:
            return
        if _never_alike(one.type, inner):
            message = f"{self.name(value)} is {one.type.named()}, {self.name(collection)} holds {_plural(inner)}"
            key = f"in looks at values; {self.name(collection)}[{self.name(value)}] looks for a key"
            self.notes.add(self.node, "type-mismatch", message, hint=key if whole.type.kind == "map" else "")
        elif value.kind in _TEXTS and inner.kind == "text" and inner.words and value.text not in inner.words:
            message = f'{self.name(collection)} never holds "{value.text}"'
            self.notes.add(self.node, "word-unknown", message, hint=_meant(value.text, inner.words))

    def item(self, place: Place, value: Node, item: Node) -> None:
        """One member of a collection that is written out."""
        kind, inner = place.type.kind, self.scope.place(item).type
        if inner.kind == "null":
            self.null(place, value)
        elif kind in {"null", "unknown"} or inner.kind == "unknown":
            return
        elif _never_alike(place.type, inner):
            message = f"{self.name(value)} is {place.type.named()}, and {self.name(item)} is {inner.named()}"
            self.notes.add(self.node, "type-mismatch", f"{message}: they are never equal")
        elif item.kind in _TEXTS and place.type.words and place.path and item.text not in place.type.words:
            message = f'{self.name(value)} is never "{item.text}"'
            self.notes.add(self.node, "word-unknown", message, hint=_meant(item.text, place.type.words))

    def written(self, collection: Node) -> tuple[Node, ...]:
        """The members of a collection that is written out, here or where its name is given to it."""
        source = self.scope.source(collection)
        return source.all("items") if source.kind in ("Array", "Set") else ()

    def null(self, place: Place, node: Node) -> None:
        known = place.type.kind not in ("unknown", "null") and place.path.startswith(("input", "data"))
        # A function may be made for more than it is given today.
        given = any(binding.how == "argument" for binding in self.scope.locals.get(node.text, ()))
        if not known or place.type.optional or (given and node.kind == "Var"):
            return
        if place.type.words:
            hint = f"what is unknown has a word: {listed(place.type.words)}"
        elif place.type.kind in _COLLECTIONS:
            hint = f"count({self.notes.text(node)}) == 0, where nothing is known"
        elif place.type.kind == "text":
            hint = 'unknown text is ""'
        else:
            hint = "leave the line out"
        self.notes.add(self.node, "null-never", f"{self.name(node)} is never null", hint=hint)

    def counted(self, call: Node, number: Node, operator: str) -> None:
        if call.kind != "Call" or dotted(call.part("fcn")) != ["count"] or number.kind != "Number":
            return
        sign = "negative" if number.text.startswith("-") else "zero" if number.text == "0" else ""
        if not sign:
            return
        what = "always" if operator in _ALWAYS[sign] else "never" if operator in _NEVER[sign] else ""
        if what:
            text = self.notes.text(call)
            message = f"{self.notes.text(self.node)} {what} holds: count is never below 0"
            self.notes.add(self.node, "count-bound", message, hint=f"{text} == 0, or {text} > 0")

    def name(self, node: Node) -> str:
        """For people: the source, or the path behind a variable."""
        return self.notes.text(node)


def _never_alike(one: Type, other: Type) -> bool:
    """Whether no value is of both types."""
    if "unknown" in (one.kind, other.kind) or (one.optional and other.optional) or "null" in (one.kind, other.kind):
        return False
    return one.kind != other.kind and {one.kind, other.kind} != {"map", "object"}


def _meant(word: str, words: tuple[str, ...]) -> str:
    meant = nearest(word, words)
    return f'did you mean "{meant}"? It has: {listed(words)}' if meant else f"it has: {listed(words)}"


def _plural(kind: Type) -> str:
    return {"text": "text", "number": "numbers", "boolean": "true or false"}.get(kind.kind, f"{kind.kind}s")
