"""Values of our own frozen classes, as CBOR and back, by the types that the classes name.

For what this program keeps for itself and can make again: never for what others send, whose ranges are to be checked,
and never for verified objects, which do not come back from bytes. A class with another field, or with another type of
one, is written in another way and has another :attr:`Form.spelled`: whoever keeps a digest of that beside the bytes
reads no form but his own.

Whole numbers beyond 64 bits are written as two's complement in a byte string, mappings as an array in their order, each
key before its value.

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True)
... class Reading:
...     at_ns: int
...     channel: str | None
>>> form = form_of(Reading)
>>> form.write(Reading(7, None))
[7, None]
>>> form.read([7, "power"])
Reading(at_ns=7, channel='power')
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, Union, cast, get_args, get_origin, get_type_hints

from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from weighbridge.proto.cbor import CborValue

__all__ = ["Form", "form_of"]

_SMALL: Final = range(-(2**63), 2**63)
_PLAIN: Final[frozenset[type]] = frozenset({bool, str, bytes, types.NoneType})


@dataclass(frozen=True, slots=True)
class Form:
    """How values of one type are written, and read.

    Attributes:
        spelled: the type with all that it is made of: where this is the same, so are the bytes.
        write: a value of the type as CBOR.
        read: what ``write`` has made; raises ``MalformedEvidence`` for anything else.
    """

    spelled: str
    write: Callable[[Any], CborValue]
    read: Callable[[CborValue], Any]


def form_of(  # noqa: PLR0911 - one for each kind of type
    kind: object, names: Mapping[str, object] = MappingProxyType({})
) -> Form:
    """The form of ``kind``: a frozen dataclass, or what fields of one may be.

    Args:
        kind: a type.
        names: types that modules name in annotations and import for type checkers only.

    Raises:
        TypeError: it is made of something that has no form here.
    """
    if kind is int:
        return Form("int", _write_int, _read_int)
    if isinstance(kind, type) and kind in _PLAIN:
        return _of_plain(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _of_words(kind.__name__, {item.value: item for item in kind})
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _of_class(kind, names)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _of_words("word", {word: word for word in cast("tuple[str, ...]", parts)})
    if origin in {Union, UnionType} and len(parts) == 2 and types.NoneType in parts:  # noqa: PLR2004 - one, or none
        return _of_optional(form_of(next(part for part in parts if part is not types.NoneType), names))
    if origin is Sequence or (origin is tuple and parts[-1:] == (Ellipsis,)):
        return _of_sequence(form_of(parts[0], names))
    if origin is tuple:
        return _of_tuple([form_of(part, names) for part in parts])
    if origin is Mapping:
        return _of_mapping(form_of(parts[0], names), form_of(parts[1], names))
    raise TypeError(f"no form for {kind}")


def _malformed(expected: str, got: CborValue) -> MalformedEvidence:
    return MalformedEvidence(Code.FIELD_TYPE, "not of this type", expected=expected, got=type(got).__name__)


def _write_int(value: int) -> CborValue:
    return value if value in _SMALL else value.to_bytes(value.bit_length() // 8 + 1, signed=True)


def _read_int(value: CborValue) -> int:
    if type(value) is int and value in _SMALL:
        return value
    if isinstance(value, bytes) and _write_int(large := int.from_bytes(value, signed=True)) == value:
        return large
    raise _malformed("int", value)


def _of_plain(kind: type) -> Form:
    def read(value: CborValue) -> CborValue:
        if type(value) is not kind:
            raise _malformed(kind.__name__, value)
        return value

    return Form(kind.__name__, lambda value: value, read)


def _of_words(name: str, words: Mapping[str, object]) -> Form:
    def read(value: CborValue) -> object:
        if not isinstance(value, str) or value not in words:
            raise _malformed(name, value)
        return words[value]

    return Form(f"{name}({'|'.join(words)})", str, read)


def _of_optional(form: Form) -> Form:
    return Form(
        f"{form.spelled}?",
        lambda value: None if value is None else form.write(value),
        lambda value: None if value is None else form.read(value),
    )


def _items(value: CborValue, spelled: str, size: int | None = None) -> list[CborValue]:
    if not isinstance(value, list) or size not in {None, len(value)}:
        raise _malformed(spelled, value)
    return value


def _of_sequence(form: Form) -> Form:
    spelled, write, read = f"[{form.spelled}*]", form.write, form.read
    return Form(
        spelled,
        lambda value: [write(item) for item in value],
        lambda value: tuple(read(item) for item in _items(value, spelled)),
    )


def _of_tuple(forms: Sequence[Form]) -> Form:
    spelled = f"[{','.join(form.spelled for form in forms)}]"

    def read(value: CborValue) -> object:
        items = _items(value, spelled, len(forms))
        return tuple(form.read(item) for form, item in zip(forms, items, strict=True))

    return Form(spelled, lambda value: [form.write(item) for form, item in zip(forms, value, strict=True)], read)


def _of_mapping(keys: Form, values: Form) -> Form:
    spelled = f"{{{keys.spelled}:{values.spelled}}}"

    def write(value: Mapping[object, object]) -> CborValue:
        return [part for key, item in value.items() for part in (keys.write(key), values.write(item))]

    def read(value: CborValue) -> object:
        items = _items(value, spelled)
        if len(items) % 2:
            raise _malformed(spelled, value)
        pairs = zip(items[::2], items[1::2], strict=True)
        made = {keys.read(key): values.read(item) for key, item in pairs}
        if len(made) != len(items) // 2:
            raise MalformedEvidence(Code.DUPLICATE_KEY, "one key twice", expected=spelled)
        return MappingProxyType(made)

    return Form(spelled, write, read)


def _of_class(kind: type, names: Mapping[str, object]) -> Form:
    hints: Mapping[str, object] = get_type_hints(kind, localns=dict(names))
    fields = {item.name: form_of(hints[item.name], names) for item in dataclasses.fields(kind)}
    spelled = f"{kind.__name__}({','.join(f'{name}:{form.spelled}' for name, form in fields.items())})"
    written = [(name, form.write) for name, form in fields.items()]

    def read(value: CborValue) -> object:
        items = _items(value, kind.__name__, len(fields))
        try:
            return kind(**{name: form.read(item) for (name, form), item in zip(fields.items(), items, strict=True)})
        except ValueError as error:
            # What the class itself refuses.
            raise MalformedEvidence(Code.FIELD_RANGE, str(error), where=kind.__name__) from error

    return Form(spelled, lambda value: [write(getattr(value, name)) for name, write in written], read)
