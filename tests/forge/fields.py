"""Every field of what was signed, changed once: CBOR in CBOR in CBOR, down to the bytes of quotes and reports."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from weighbridge.proto import cbor, strict
from weighbridge.proto.errors import MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = os.environ.get("WEIGHBRIDGE_FIELDS") == "all"
"""Whether every field is changed, and not a few."""
FEW = 3
_SIGN1 = b"\xd2"
_LIMIT = 64 * 1024 * 1024
# Shorter structures are changed in every byte; in longer ones no field is left out that has as many bytes.
_SHORT, _STRIDE = 256, 8


def changed(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Where, and ``data`` with another value there: all fields, or a few, which follow from ``name``."""
    places = list(_places(data))
    if not ALL:
        places = random.Random(name).sample(places, min(FEW, len(places)))
    for path in places:
        yield "/".join(map(str, path)), _with_change(data, path)


def _places(data: bytes, path: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """All leaves of what ``data`` encodes; the last part of a path to bytes that encode nothing is a place in them."""
    value = _decoded(data)
    if value is None:
        step = 1 if len(data) <= _SHORT else _STRIDE
        yield from ((*path, place) for place in range(0, len(data), step))
        return
    yield from _leaves(value, path)


def _leaves(value: cbor.CborValue, path: tuple[int | str, ...]) -> Iterator[tuple[int | str, ...]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    elif isinstance(value, bytes):
        yield from _places(value, (*path, "bytes"))
    else:
        yield path


def _with_change(data: bytes, path: tuple[int | str, ...]) -> bytes:
    value = _decoded(data)
    if value is None:
        (place,) = path
        assert isinstance(place, int)
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        return bytes(flipped)
    prefix = _SIGN1 if data.startswith(_SIGN1) else b""
    return prefix + cbor.encode(_replaced(value, path))


def _replaced(value: cbor.CborValue, path: tuple[int | str, ...]) -> cbor.CborValue:
    if isinstance(value, bytes):
        return _with_change(value, path[1:])
    if isinstance(value, dict):
        return {**value, path[0]: _replaced(value[path[0]], path[1:])}
    if isinstance(value, list):
        assert isinstance(path[0], int)
        return [*value[: path[0]], _replaced(value[path[0]], path[1:]), *value[path[0] + 1 :]]
    return _another(value)


def _another(value: cbor.CborValue) -> cbor.CborValue:
    match value:
        case None:
            return 0
        case bool():
            return not value
        case int():
            return value ^ 1
        case str():
            return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "a"
        case _:
            raise AssertionError(value)


def _decoded(data: bytes) -> cbor.CborValue:
    """The map or list that ``data`` encodes, with or without the tag of COSE_Sign1; ``None`` for anything else."""
    try:
        value = cbor.decode(data.removeprefix(_SIGN1), limit=_LIMIT, what="data")
    except MalformedEvidence:
        return None
    return value if isinstance(value, dict | list) and value else None


def changed_token(name: str, token: str) -> Iterator[tuple[str, str]]:
    """As :func:`changed`, of a JWT: each member of its header and of its claims, and bits of its signature."""
    header, payload, signature = token.split(".")
    made = [
        *((f"header {key}", f"{other}.{payload}.{signature}") for key, other in _members(header)),
        *((f"claim {key}", f"{header}.{other}.{signature}") for key, other in _members(payload)),
        *((f"signature {place}", f"{header}.{payload}.{other}") for place, other in _flipped(signature)),
    ]
    yield from made if ALL else random.Random(name).sample(made, min(FEW, len(made)))


def _members(part: str) -> list[tuple[str, str]]:
    value = strict.json_decode(strict.base64url_decode(part, what="part"), what="part")
    assert isinstance(value, dict)
    return [(key, _part({**value, key: [item]})) for key, item in value.items()]


def _part(value: strict.JsonObject) -> str:
    return strict.base64url_encode(strict.json_encode(value))


def _flipped(part: str) -> list[tuple[int, str]]:
    data = strict.base64url_decode(part, what="part")
    return [
        (place, strict.base64url_encode(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]))
        for place in range(len(data))
    ]
