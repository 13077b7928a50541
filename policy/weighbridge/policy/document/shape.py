"""A declared type taken apart once: what is encoded, parsed, checked against, printed and written as JSON Schema.

Every field of a document is declared as ``Annotated[type, "what it says"]``, and the types that have a place in one
are few: text, an integer, true or false, a set of words, a tuple of one element, a mapping from text, another class,
and each of them or ``None``.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Annotated, Final, Literal, Union

__all__ = ["Kind", "Shape", "shape_of"]

Kind = Literal["text", "integer", "boolean", "list", "map", "object"]
_SCALARS: Final[Mapping[object, Kind]] = MappingProxyType({str: "text", int: "integer", bool: "boolean"})


@dataclass(frozen=True, slots=True)
class Shape:
    """What stands at one place of a document.

    Attributes:
        kind: a ``list`` has elements of one shape, a ``map`` values of one shape under names that are not fixed.
        type: the Python type that holds it.
        optional: whether ``null`` may stand there.
        words: the only texts that may stand there, of a map the only names; empty where any may.
        element: of each element of a list, and of each value of a map; ``None`` elsewhere.
        members: of an object, in the order in which they are declared; empty elsewhere.
        doc: what it says, one line without a full stop.
    """

    kind: Kind
    type: type
    optional: bool = False
    words: tuple[str, ...] = ()
    element: Shape | None = None
    members: Mapping[str, Shape] = field(default_factory=lambda: MappingProxyType({}))
    doc: str = ""


@cache
def shape_of(hint: Hashable) -> Shape:
    """The shape of a declared type.

    Raises:
        TypeError: a type that has no place in a document: misuse.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inner, doc = arguments
        return dataclasses.replace(shape_of(inner), doc=doc)
    if origin in (Union, types.UnionType):
        (inner,) = (arm for arm in arguments if arm is not types.NoneType)
        return dataclasses.replace(shape_of(inner), optional=True)
    if origin is tuple:
        return Shape("list", tuple, element=shape_of(arguments[0]))
    if origin is Mapping:
        return Shape("map", Mapping, words=shape_of(arguments[0]).words, element=shape_of(arguments[1]))
    return Shape("text", str, words=arguments) if origin is Literal else _plain(hint)


def _plain(hint: Hashable) -> Shape:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _object(hint)
    if hint not in _SCALARS:
        raise TypeError(f"{hint} has no place in a document")
    return Shape(_SCALARS[hint], typing.cast("type", hint))


def _object(kind: type) -> Shape:
    members = {name: shape_of(inner) for name, inner in typing.get_type_hints(kind, include_extras=True).items()}
    return Shape("object", kind, members=MappingProxyType(members), doc=_first_paragraph(kind))


def _first_paragraph(kind: type) -> str:
    text = inspect.cleandoc(kind.__doc__ or "").split("\n\n", maxsplit=1)[0]
    return " ".join(text.split()).removesuffix(".")
