"""Documents to JSON and back, by their declared types: the annotations are the schema, and both ways enforce it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, cycle
from json.encoder import encode_basestring
from operator import attrgetter, call
from typing import Final, cast

from weighbridge.policy.document.shape import Shape, shape_of
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["check_equal", "check_schema", "members", "plain", "write"]

_INT_MAX: Final = 2**53 - 1
_CLAUSE_NUMBER: Final = "RFC 7493 §2.2"
# What JSON holds, in the words of an error.
_NAMES: Final = {
    type(None): "null",
    bool: "true or false",
    int: "an integer",
    float: "a number with a fraction",
    str: "text",
    list: "a list",
    dict: "an object",
}
_EXPECTED: Final = {
    "text": "text",
    "integer": "an integer",
    "boolean": "true or false",
    "list": "a list",
    "map": "an object",
    "object": "an object",
}

_Encode = Callable[[object], str]
_APPLY: Final = cast("Callable[[_Encode, object], str]", call)


# ---- to JSON


def write(value: object, kind: type, where: str) -> bytes:
    """A document of class ``kind`` as deterministic JSON: members sorted, UTF-8, compact.

    Raises:
        MalformedEvidence: ``FIELD_RANGE`` for an integer beyond 53 bits, ``NOT_UTF8`` for a lone surrogate.
        TypeError: a field holds another type than declared: misuse.
    """
    try:
        return _class(kind).one(value).encode()
    except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
        # Something is not as declared: the slow way says what, and where.
        return strict.json_encode(plain(value, shape_of(kind), where))


def plain(value: object, shape: Shape, where: str) -> strict.JsonValue:
    """``value`` as JSON, each place checked and named when it is wrong: what :func:`write` does in a fifth of the time.

    Raises:
        MalformedEvidence, TypeError: as :func:`write`.
    """
    if value is None and shape.optional:
        return None
    if type(value) is not shape.type:
        raise TypeError(f"{where} is {type(value).__name__}, not {shape.type.__name__}")
    if shape.words and value not in shape.words:
        raise TypeError(f"{where} is not one of {shape.words}")
    if isinstance(value, str):
        return _whole(value, where)
    if isinstance(value, int):
        return _bounded(value, where)
    if shape.element is not None:
        items = cast("tuple[object, ...]", value)
        return [plain(item, shape.element, f"{where}[{index}]") for index, item in enumerate(items)]
    return {name: plain(getattr(value, name), inner, f"{where}.{name}") for name, inner in shape.members.items()}


@dataclass(frozen=True, slots=True)
class _Class:
    """How a class is encoded: made once, so that neither shapes are walked nor names sorted while a window waits.

    Objects that are always there are part of it: ``parts`` are their classes, in the order in which ``objects`` gets
    them, and ``fetch`` gets their fields among its own. ``types`` are those that any of the fields may have: nothing
    that only looks like text gets by. What is left of types each encoder looks at.
    """

    kind: type
    objects: Callable[[object], tuple[object, ...]]
    parts: tuple[type, ...]
    fetch: Callable[[object], tuple[object, ...]]
    encoders: tuple[_Encode, ...]
    types: frozenset[type]
    template: str

    def one(self, value: object) -> str:
        """A value of this class."""
        return self.template % tuple(map(_APPLY, self.encoders, self._fields(value)))

    def several(self, value: object) -> str:
        """A tuple of them, all at once: a quote alone has a dozen registers."""
        if value == ():
            return "[]"
        fields = tuple(map(self._fields, _tuple(value, frozenset({self.kind}))))
        template = ",".join([self.template] * len(fields))
        return f"[{template % tuple(map(_APPLY, cycle(self.encoders), chain.from_iterable(fields)))}]"

    def _fields(self, value: object) -> tuple[object, ...]:
        if type(value) is not self.kind or tuple(map(type, self.objects(value))) != self.parts:
            raise TypeError
        fields = self.fetch(value)
        if not self.types.issuperset(map(type, fields)):
            raise TypeError
        return fields


@cache
def _class(kind: type) -> _Class:
    places = list(_places(shape_of(kind), ""))
    fields = [(name, inner) for name, inner in places if not _is_part(inner)]
    return _Class(
        kind,
        _fetch(tuple(name for name, inner in places if _is_part(inner))),
        tuple(inner.type for _, inner in places if _is_part(inner)),
        _fetch(tuple(name for name, _ in fields)),
        tuple(_encode(inner) for _, inner in fields),
        frozenset({type(None), *(inner.type for _, inner in fields)}),
        _template(shape_of(kind)),
    )


def _is_part(shape: Shape) -> bool:
    """Whether an object is always there: its fields can be fetched through it."""
    return bool(shape.members) and not shape.optional


def _places(shape: Shape, path: str) -> Iterable[tuple[str, Shape]]:
    """Every member, and those of members that are parts, by its dotted name; an object before what is in it."""
    for name, inner in sorted(shape.members.items()):
        yield path + name, inner
        if _is_part(inner):
            yield from _places(inner, f"{path}{name}.")


def _template(shape: Shape) -> str:
    members = sorted(shape.members.items())
    return "{" + ",".join(f'"{name}":{_template(inner) if _is_part(inner) else "%s"}' for name, inner in members) + "}"


def _fetch(names: tuple[str, ...]) -> Callable[[object], tuple[object, ...]]:
    """What gets the fields of these names, always as a tuple."""
    if not names:
        return lambda _: ()
    fetch = attrgetter(*names)
    return fetch if len(names) > 1 else lambda value: (fetch(value),)


def _encode(shape: Shape) -> _Encode:
    if shape.words:
        words: dict[object, str] = {word: encode_basestring(word) for word in shape.words}
        return (words | {None: "null"} if shape.optional else words).__getitem__
    one = _required(shape)
    if not shape.optional:
        return one

    def encode(value: object) -> str:
        return "null" if value is None else one(value)

    return encode


def _required(shape: Shape) -> _Encode:
    if shape.members:
        return _class(shape.type).one
    if shape.element is not None:
        return _class(shape.element.type).several if shape.element.members else _elements(shape.element)
    # Refuses what is no text by itself. Half a character is found when all of the document becomes UTF-8.
    return {str: cast("_Encode", encode_basestring), int: _integer, bool: _boolean}[shape.type]


def _elements(element: Shape) -> _Encode:
    one, types = _encode(element), frozenset({element.type})

    def encode(value: object) -> str:
        return "[]" if value == () else f"[{','.join(map(one, _tuple(value, types)))}]"

    return encode


def _tuple(value: object, types: frozenset[type]) -> tuple[object, ...]:
    """``value``, if it is a tuple of these types."""
    if type(value) is not tuple or not types.issuperset(map(type, items := cast("tuple[object, ...]", value))):
        raise TypeError
    return items


def _integer(value: object) -> str:
    if type(value) is int and -_INT_MAX <= value <= _INT_MAX:
        return str(value)
    raise TypeError


def _boolean(value: object) -> str:
    if type(value) is bool:
        return "true" if value else "false"
    raise TypeError


def _bounded(value: int, where: str) -> int:
    if abs(value) > _INT_MAX:
        raise MalformedEvidence(Code.FIELD_RANGE, f"{where} is beyond 53 bits", where=where, clause=_CLAUSE_NUMBER)
    return value


def _whole(value: str, where: str) -> str:
    try:
        _ = value.encode()
    except UnicodeEncodeError as error:
        raise MalformedEvidence(Code.NOT_UTF8, f"{where} holds a lone surrogate", where=where) from error
    return value


# ---- from JSON


def check_schema(value: strict.JsonValue, schema: str, where: str) -> None:
    """Refuse another version before anything in it is found wrong.

    Raises:
        MalformedEvidence: ``VERSION_UNSUPPORTED``.
    """
    if isinstance(value, dict) and isinstance(got := value.get("schema"), str) and got != schema:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED,
            "the document has another schema",
            where=f"{where}.schema",
            expected=schema,
            got=got,
        )


def check_equal(got: object, expected: str, where: str) -> None:
    """Refuse the second spelling of a value when it is another value.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``.
    """
    if got != expected:
        raise MalformedEvidence(
            Code.FIELD_RANGE, f"{where} says another value than beside it", where=where, expected=expected, got=got
        )


def members(value: strict.JsonValue, shape: Shape, where: str) -> dict[str, object]:
    """The members of the object ``value``, each read: all that are declared, and no other.

    Raises:
        MalformedEvidence: ``FIELD_TYPE``, ``FIELD_MISSING``, ``FIELD_UNKNOWN``, ``FIELD_RANGE``.
    """
    if not isinstance(value, dict):
        raise _wrong_type(value, shape, where)
    for name in value:
        if name not in shape.members:
            raise _unknown(name, shape.members, where)
    for name in shape.members:
        if name not in value:
            raise MalformedEvidence(
                Code.FIELD_MISSING,
                f"{name} is missing",
                where=f"{where}.{name}",
                hint="every member is always there; one that is not known is null where it may be",
            )
    return {name: _read(value[name], inner, f"{where}.{name}") for name, inner in shape.members.items()}


def _read(value: strict.JsonValue, shape: Shape, where: str) -> object:
    if value is None and shape.optional:
        return None
    if shape.members:
        return shape.type(**members(value, shape, where))
    if shape.element is not None:
        if not isinstance(value, list):
            raise _wrong_type(value, shape, where)
        return tuple(_read(item, shape.element, f"{where}[{index}]") for index, item in enumerate(value))
    if type(value) is not shape.type:
        raise _wrong_type(value, shape, where)
    if shape.words and value not in shape.words:
        raise _unknown_word(str(value), shape.words, where)
    return _bounded(value, where) if isinstance(value, int) else value


def _wrong_type(value: strict.JsonValue, shape: Shape, where: str) -> MalformedEvidence:
    expected = _EXPECTED[shape.kind] + (" or null" if shape.optional else "")
    return MalformedEvidence(
        Code.FIELD_TYPE, "the value is of another type", where=where, expected=expected, got=_NAMES[type(value)]
    )


def _unknown(name: str, known: Mapping[str, Shape], where: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.FIELD_UNKNOWN,
        f"{name[:64]} is not a member",
        where=f"{where}.{name[:64]}",
        hint=_meant(name, tuple(known)),
    )


def _unknown_word(value: str, words: tuple[str, ...], where: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.FIELD_RANGE,
        "the text is none of those that may stand here",
        where=where,
        expected=", ".join(words),
        got=value,
        hint=_meant(value, words),
    )


def _meant(given: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(given[:64], known, n=1)
    return f"did you mean {near[0]}?" if near else ""
