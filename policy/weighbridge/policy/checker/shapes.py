"""What stands at a path: the types of the document, of reference values and of examples, as the checker needs them.

A :class:`Place` says what an expression gives, as far as that is known without evaluating: its type, the path under
which people know it, and whether it always has a value. Types come from the declared shape of the document
(:func:`weighbridge.policy.document.shape`), so that a field that is added is known here by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from types import MappingProxyType
from typing import Final, Literal

from weighbridge.policy import document
from weighbridge.policy.checker.spelling import listed, nearest
from weighbridge.policy.values.reference import CHECKS
from weighbridge.policy.values.reference_shape import reference_shape

__all__ = [
    "BOOLEAN",
    "GIVEN",
    "NOTHING",
    "NUMBER",
    "PLAIN",
    "TEXT",
    "UNKNOWN",
    "Place",
    "Type",
    "data_place",
    "either",
    "element",
    "input_place",
    "list_of",
    "member",
    "union",
    "words_of",
]

TypeKind = Literal["text", "number", "boolean", "null", "list", "set", "map", "object", "unknown"]
_SCALARS: Final = ("text", "number", "boolean", "null")
_AS_IT_IS: Final = "look at it as it is"
_NAMED: Final = {"text": "text", "number": "a number", "boolean": "true or false", "null": "null"}


@dataclass(frozen=True, slots=True)
class Type:
    """A type. ``words``: the only texts there are, of a map the only keys; ``optional``: ``null`` may stand there, too.

    A table that is written out is a map: what it holds may be looked up by a computed name.
    """

    kind: TypeKind
    optional: bool = False
    words: tuple[str, ...] = ()
    element: Type | None = None
    members: Mapping[str, Type] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def scalar(self) -> bool:
        """Whether it has no members and no elements."""
        return self.kind in _SCALARS

    def named(self) -> str:
        """For people, such as ``a list``."""
        return _NAMED.get(self.kind, f"an {self.kind}" if self.kind == "object" else f"a {self.kind}")


UNKNOWN: Final = Type("unknown")
TEXT: Final = Type("text")
NUMBER: Final = Type("number")
BOOLEAN: Final = Type("boolean")


@dataclass(frozen=True, slots=True)
class Place:
    """What an expression gives.

    Attributes:
        type: what is known of its values.
        path: as people write it, such as ``input.gpus[].fwid``; empty for what is no path into documents.
        sure: it has a value in every evaluation.
        wrong: why it leads nowhere; empty where it leads somewhere, or where nobody knows.
        hint: what was probably meant.
    """

    type: Type = UNKNOWN
    path: str = ""
    sure: bool = False
    wrong: str = ""
    hint: str = ""


NOTHING: Final = Place()
"""Nothing is known."""
PLAIN: Final = {
    "Number": Place(NUMBER, sure=True),
    "UnaryExpr": Place(NUMBER),
    "Bool": Place(BOOLEAN, sure=True),
    "BoolExpr": Place(BOOLEAN),
    "Membership": Place(BOOLEAN),
    "Null": Place(Type("null"), sure=True),
}
"""What literals and operators give, by the kind of their node."""
GIVEN: Final = {"text": TEXT, "number": NUMBER, "boolean": BOOLEAN}
"""What builtins give, by :data:`weighbridge.policy.checker.functions.GIVES`."""


def words_of(*words: str) -> Type:
    """Text that is one of ``words``."""
    return Type("text", words=words)


def list_of(inner: Type, kind: Literal["list", "set"] = "list") -> Type:
    """A list or set of ``inner``."""
    return Type(kind, element=inner)


def union(one: Type, other: Type) -> Type:
    """What is either: the same type, with ``null`` where either may be it; unknown for two types."""
    if one.kind == "null":
        return replace(other, optional=True) if other.kind != "unknown" else UNKNOWN
    if other.kind == "null":
        return union(other, one)
    if one.kind == other.kind == "text":
        words = tuple(dict.fromkeys((*one.words, *other.words))) if one.words and other.words else ()
        return Type("text", one.optional or other.optional, words)
    # An empty list beside a list of something: a default for what is missing.
    for mine, theirs in ((one, other), (other, one)):
        if mine.kind == theirs.kind and mine.kind in ("list", "set", "map") and mine.element is None:
            return theirs
    return replace(one, optional=one.optional or other.optional) if _same(one, other) else UNKNOWN


def _same(one: Type, other: Type) -> bool:
    return one.kind == other.kind and one.element == other.element and one.members == other.members


def either(places: list[Place]) -> Place:
    """What may be any of ``places``; under their path, where they have but one."""
    if not places:
        return NOTHING
    paths = {place.path for place in places}
    whole = reduce(union, (place.type for place in places))
    return Place(whole, paths.pop() if len(paths) == 1 else "", all(place.sure for place in places))


def member(place: Place, name: str | None) -> Place:
    """The place one step further; ``name`` is ``None`` for a number or something computed."""
    kind = place.type.kind
    if kind == "unknown":
        return replace(NOTHING, path=f"{place.path}.{name}" if place.path and name else "")
    known = place.type.members or dict.fromkeys(place.type.words if kind == "map" else (), place.type.element)
    if name is not None and known:
        if name not in known:
            meant = nearest(name, known)
            hint = f"did you mean {meant}?" if meant else f"there are: {listed(known)}"
            return Place(wrong=f"{place.path or 'this'} has no {name}", hint=hint)
        path = f"{place.path}.{name}" if place.path else ""
        written = kind == "object" or not place.path
        return Place(known[name] or UNKNOWN, path, place.sure and written and not place.type.optional)
    if kind in ("set", "map") or (kind == "list" and name is None):
        return Place(place.type.element or UNKNOWN, f"{place.path}[]" if place.path else "")
    return _nowhere(place, name)


def _nowhere(place: Place, name: str | None) -> Place:
    path = place.path or "this"
    match place.type.kind:
        case "object":
            hint = f"write one of: {listed(place.type.members)}"
            return Place(wrong=f"the members of {path} have fixed names", hint=hint)
        case "list":
            return Place(wrong=f"{path} is a list: it has elements, and no {name}", hint=f"some x in it, and x.{name}")
        case _:
            return Place(wrong=f"{path} is {place.type.named()}: there is nothing inside", hint=_AS_IT_IS)


def element(place: Place) -> Place:
    """What ``some … in`` and ``every`` go over: each element, or each value of a map."""
    kind = place.type.kind
    if kind in ("list", "set", "map"):
        return Place(place.type.element or UNKNOWN, f"{place.path}[]" if place.path else "", sure=True)
    if place.type.scalar:
        wrong = f"{place.path or 'this'} is {place.type.named()}: it has no elements"
        return Place(sure=True, wrong=wrong, hint=_AS_IT_IS)
    return Place(sure=True)


@cache
def input_place() -> Place:
    """``input``."""
    return Place(_converted(document.shape()), "input", sure=True)


def data_place(examples: frozenset[str]) -> Place:
    """``data`` beside rules; with the examples that test modules see, if there are any."""
    members = {"reference": _reference(), "author": UNKNOWN}
    if examples:
        example = Type("object", members={"input": input_place().type, "reference": _reference()})
        members["examples"] = Type("object", members=dict.fromkeys(sorted(examples), example))
    return Place(Type("object", members=members), "data", sure=True)


def _converted(shape: document.Shape) -> Type:
    inner = None if shape.element is None else _converted(shape.element)
    members = {name: _converted(item) for name, item in shape.members.items()}
    kind: TypeKind = "number" if shape.kind == "integer" else shape.kind
    return Type(kind, shape.optional, shape.words, inner, MappingProxyType(members))


@cache
def _reference() -> Type:
    """``data.reference``; the keys of ``unchecked`` are fixed as well, though any may be absent."""
    whole = _converted(reference_shape())
    members = {**whole.members, "unchecked": replace(whole.members["unchecked"], words=CHECKS)}
    return replace(whole, members=MappingProxyType(members))
