"""Deterministic CBOR (RFC 8949 §4.2.1) behind one strict wrapper; :mod:`.cbor_reader` reads what is decoded.

The accepted subset: integers, byte strings, UTF-8 text, arrays, maps with integer or text keys, ``true``,
``false`` and ``null``. No floating point, no tags, no indefinite lengths, no duplicate keys, no trailing bytes,
no second encoding of the same value: ``encode(decode(b)) == b`` for every ``b`` that decodes. Where a structure has
them, and there alone, typed arrays of signed integers (:mod:`weighbridge.proto.typed_array`) are accepted too.

``cbor2`` alone does not give this: its ``canonical=True`` is the length-first order of RFC 7049, ``loads`` ignores
trailing bytes, and its default tags build objects from hostile input.

>>> encode({"b": 1, 10: b"x"}).hex()
'a20a4178616201'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import cbor2

from weighbridge.proto import limits
from weighbridge.proto.cbor_reader import CborMap, CborValue, Reader, read_array, read_map
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.typed_array import WIDTHS, TypedArray

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CborMap", "CborValue", "Reader", "decode", "encode", "read_array", "read_map", "read_versioned"]

_CLAUSE: Final = "RFC 8949 §4.2.1"
_STRING_TYPES: Final = frozenset({2, 3})
# Bytes of the argument that follows a head (RFC 8949 §3).
_ARGUMENTS: Final = {24: 1, 25: 2, 26: 4, 27: 8}

_INT_MAX: Final = 2**64 - 1
_INT_MIN: Final = -(2**64)
_LEAVES: Final = frozenset({int, bytes, str, bool, type(None), TypedArray})
_STRINGS: Final = frozenset({bytes, str})
_NUMBERS: Final = frozenset({int})
_PLAIN: Final = frozenset({bytes, str, bool, type(None)})
# Before every key.
_LOWEST: Final = (-1, 0, b"")


def encode(value: object) -> bytes:
    """The one deterministic encoding of ``value``.

    Args:
        value: built of ``int``, ``bytes``, ``str``, ``bool``, ``None``, ``list`` or ``tuple``, ``dict`` with ``int``
            or ``str`` keys, and ``TypedArray``.

    Raises:
        TypeError: for any other type, floats and ``int`` beyond 64 bits included: that is misuse, not bad input.
    """
    # What is hashed most often is a list of strings: there is nothing to order in it.
    if isinstance(value, list):
        items = cast("list[object]", value)
        return cbor2.dumps(items if _STRINGS.issuperset(map(type, items)) else _ordered(items))
    return cbor2.dumps(_ordered(value))


def _ordered(value: object) -> object:
    # Tuples and not unions in isinstance: this is called for every value that is hashed, and a union costs thrice.
    if value is None or isinstance(value, (bytes, str, bool)):
        return value
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise TypeError(f"integer beyond 64 bits: {value}")
        # An IntEnum member is encoded as its number.
        return int(value)
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in cast("Iterable[object]", value)]
    if isinstance(value, dict):
        items = cast("dict[object, object]", value)
        keys = items if _is_ordered(items) else sorted(items, key=_rank)
        return {key: item if type(item := items[key]) in _PLAIN else _ordered(item) for key in keys}
    if isinstance(value, TypedArray):
        return cbor2.CBORTag(value.tag, value.octets)
    raise TypeError(f"no CBOR encoding for {type(value).__name__}")


def _is_ordered(items: dict[object, object]) -> bool:
    """Whether the keys are numbers, not negative, and ascend: so our structures are written down as a rule."""
    if not _NUMBERS.issuperset(map(type, items)):
        return False
    keys = cast("list[int]", list(items))
    return keys == sorted(keys) and (not keys or keys[0] >= 0)


def _rank(key: object) -> tuple[int, int, bytes]:
    """Sorts keys as their encodings, bytewise: major type, then argument, then content (RFC 8949 §3, §4.2.1)."""
    if isinstance(key, str):
        octets = key.encode()
        return 3, len(octets), octets
    if isinstance(key, int) and not isinstance(key, bool):
        return (0, key, b"") if key >= 0 else (1, -1 - key, b"")
    raise TypeError(f"map key of type {type(key).__name__}")


def decode(data: bytes, *, limit: int, what: str, items: int | None = None, typed_arrays: bool = False) -> CborValue:
    """Decode ``data``, which must be exactly one deterministically encoded value.

    Args:
        data: untrusted.
        limit: largest accepted length in bytes (one of :mod:`weighbridge.proto.limits`).
        what: the name of the structure, for messages.
        items: most data items, nested ones included: an empty map takes one byte here and a hundred in memory.
        typed_arrays: whether the structure has them; their octets are not read yet.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``TOO_DEEP``, ``NOT_CBOR``, ``DUPLICATE_KEY`` or ``NOT_DETERMINISTIC``.
    """
    if len(data) > limit:
        raise MalformedEvidence(
            Code.TOO_LARGE, f"{what} is too large", where=what, expected=f"<= {limit} bytes", got=f"{len(data)} bytes"
        )
    if items is not None and len(data) > items:  # every item takes a byte at least
        _check_count(data, items, what)
    try:
        value: CborValue = cbor2.loads(
            data,
            max_depth=limits.CBOR_DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            tag_hook=_typed_array if typed_arrays else _refuse_tag,
            semantic_decoders=_NO_TAGS,
        )
        _check_subset(value, what)
        again = cbor2.dumps(value, default=_encode_typed_array) if typed_arrays else cbor2.dumps(value)
    except (cbor2.CBORDecodeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        code = Code.DUPLICATE_KEY if "uplicate" in reason else Code.TOO_DEEP if "depth" in reason else Code.NOT_CBOR
        raise MalformedEvidence(
            code, f"{what} is not in the accepted CBOR subset: {reason}", where=what, clause=_CLAUSE
        ) from error
    # NOTE: this also catches trailing bytes, which cbor2 ignores.
    if again != data:
        raise _not_deterministic(what)
    return value


def _check_count(data: bytes, limit: int, what: str) -> None:
    """Count heads before anything is built of them. What is no head is left for the decoder to refuse."""
    place = count = 0
    while place < len(data):
        count += 1
        if count > limit:
            raise MalformedEvidence(Code.TOO_LARGE, f"{what} has too many items", where=what, expected=f"<= {limit}")
        major, size = data[place] >> 5, data[place] & 31
        place += 1
        if width := _ARGUMENTS.get(size, 0):
            size = int.from_bytes(data[place : place + width])
            place += width
        if major in _STRING_TYPES:
            place += size


def _check_subset(value: CborValue, what: str) -> None:
    """Require the accepted types and keys in order, of what cbor2 has decoded; a map keeps the order it came in."""
    if type(value) is list:
        for item in value:
            if type(item) not in _LEAVES:
                _check_subset(item, what)
    elif type(value) is dict:
        before = _LOWEST
        for key, item in value.items():
            rank = _rank(key)
            if rank < before:
                raise _not_deterministic(what)
            before = rank
            if type(item) not in _LEAVES:
                _check_subset(item, what)
    elif type(value) not in _LEAVES:
        raise TypeError(f"{type(value).__name__} is not accepted here")


def _not_deterministic(what: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.NOT_DETERMINISTIC,
        f"{what} is not deterministically encoded, or bytes follow it",
        where=what,
        clause=_CLAUSE,
    )


def _typed_array(tag: cbor2.CBORTag, _: bool) -> TypedArray:  # noqa: FBT001 - cbor2 calls it so
    width = WIDTHS.get(tag.tag)
    octets = cast("object", tag.value)
    if width is None or not isinstance(octets, bytes) or len(octets) % width:
        raise ValueError("no tags but those of whole typed arrays of signed integers are accepted here")
    return TypedArray(tag.tag, octets)


def _encode_typed_array(encoder: cbor2.CBOREncoder, value: object) -> None:
    # Nothing else that was decoded is unknown to the encoder.
    typed = cast(TypedArray, value)
    encoder.encode(cbor2.CBORTag(typed.tag, typed.octets))


def _refuse_tag(*_: object) -> object:
    raise ValueError("tags are not accepted here")


# Every tag for which cbor2 6 has a decoder of its own: each would build an object out of hostile input.
_NO_TAGS: Final = dict.fromkeys(
    [*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799], _refuse_tag
)


def read_versioned(data: bytes, *, version: str, limit: int, what: str) -> Reader:
    """Decode a map whose key 0 names its type and version, and take that field.

    Raises:
        MalformedEvidence: ``VERSION_UNSUPPORTED`` for another version, or a decoding code.
    """
    fields = read_map(decode(data, limit=limit, what=what), where=what)
    got = fields.text(0)
    if got != version:
        raise MalformedEvidence(Code.VERSION_UNSUPPORTED, "unknown version", where=what, expected=version, got=got)
    return fields
