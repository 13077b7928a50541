"""Changes encoded evidence where it has a structure: CBOR within CBOR, JSON, and signatures at the end of bytes.

What is changed, and how, is read out of bytes (:class:`Choices`): a fuzzer that mutates those bytes changes the
sequence of decisions, and the same bytes always give the same mutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weighbridge.proto import cbor
from weighbridge.proto.errors import WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["P384", "Choices", "Tree", "damage", "other_signature"]

_P256: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P384: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
_ORDERS: Final = ((32, _P256), (48, P384))
_LIMIT: Final = 16 * 1024 * 1024
# The first bytes of what is worth opening: arrays, maps, and COSE_Sign1 with its tag.
_TAG: Final = 0xD2
_CHILDREN_MAX: Final = 24
_NUMBERS: Final = (0, 1, -1, 23, 24, 255, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)

Path = tuple[Any, ...]


class Choices:
    """Decisions, read out of bytes; when these have run out, the first of each."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, count: int) -> int:
        """A number from 0 to ``count`` - 1; 0 where there is none."""
        if count <= 1:
            return 0
        return int.from_bytes(self.octets(1 + (count - 1).bit_length() // 8)) % count

    def octets(self, count: int) -> bytes:
        """``count`` bytes, or what is left."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken


@dataclass(frozen=True)
class _Packed:
    """A byte string that holds encoded CBOR, opened."""

    prefix: bytes
    value: Any

    def encode(self) -> bytes:
        return self.prefix + cbor.encode(_closed(self.value))


class Tree:
    """Encoded evidence, opened as far down as there is structure."""

    def __init__(self, data: bytes) -> None:
        self._root = _opened(data)
        self.paths: Final = tuple(_paths(self._root, ()))

    def at(self, path: Path) -> Any:  # noqa: ANN401 - whatever is there
        """What is at ``path``; ``None`` where nothing is."""
        found = self._root
        for key in path:
            inner = found.value if isinstance(found, _Packed) else found
            if isinstance(inner, dict):
                found = inner.get(key)
            elif isinstance(inner, list) and isinstance(key, int) and 0 <= key < len(inner):
                found = inner[key]
            else:
                return None
        return found

    def changed(self, choices: Choices, others: Sequence[Tree]) -> bytes:
        """The evidence with one to three changes, some of them taken from ``others``."""
        root = self._root
        for _ in range(1 + choices.below(3)):
            path = self.paths[choices.below(len(self.paths))]
            root = _with(root, path, lambda value, path=path: _change(value, path, choices, others))
        closed = _closed(root)
        data = closed if isinstance(closed, bytes) else cbor.encode(closed)
        return damage(data, choices) if choices.below(8) == 1 else data


class _Gone:
    """In the place of what is left out."""


def _opened(value: Any) -> Any:  # noqa: ANN401 - a tree of CBOR
    if isinstance(value, dict):
        return {key: _opened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_opened(item) for item in value]
    if isinstance(value, bytes) and len(value) > 1 and (value[0] >> 5 in {4, 5} or value[0] == _TAG):
        prefix = value[: value[0] == _TAG]
        try:
            inner = cbor.decode(value[len(prefix) :], limit=_LIMIT, what="part")
        except WeighbridgeError:
            return value
        return _Packed(prefix, _opened(inner)) if cbor.encode(inner) == value[len(prefix) :] else value
    return value


def _closed(value: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, _Packed):
        return value.encode()
    if isinstance(value, dict):
        return {key: _closed(item) for key, item in value.items()}
    return [_closed(item) for item in value] if isinstance(value, list) else value


def _paths(value: Any, path: Path) -> list[Path]:  # noqa: ANN401 - as above
    inner = value.value if isinstance(value, _Packed) else value
    found = [path]
    if isinstance(inner, dict):
        for key in list(inner)[:_CHILDREN_MAX]:
            found += _paths(inner[key], (*path, key))
    elif isinstance(inner, list):
        for index, item in enumerate(inner[:_CHILDREN_MAX]):
            found += _paths(item, (*path, index))
    return found


def _with(value: Any, path: Path, change: Any) -> Any:  # noqa: ANN401 - as above
    """``value`` with what is at ``path`` changed; as it is, where an earlier change has taken that away."""
    if not path:
        return change(value)
    if isinstance(value, _Packed):
        return _Packed(value.prefix, _with(value.value, path, change))
    key, rest = path[0], path[1:]
    if isinstance(value, dict) and key in value:
        new = _with(value[key], rest, change)
        return {
            other: item if other != key else new for other, item in value.items() if other != key or new is not _Gone
        }
    if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
        new = _with(value[key], rest, change)
        return [*value[:key], *([] if new is _Gone else [new]), *value[key + 1 :]]
    return value


def _change(value: Any, path: Path, choices: Choices, others: Sequence[Tree]) -> Any:  # noqa: ANN401 - as above
    match choices.below(6):
        case 0 if others:
            # The same place in other evidence, or any place there.
            other = others[choices.below(len(others))]
            there = other.at(path)
            return there if there is not None else other.at(other.paths[choices.below(len(other.paths))])
        case 1 if path:
            return _Gone
        case 2 if isinstance(value, list) and value:
            chosen = value[choices.below(len(value))]
            return [list(reversed(value)), [*value, chosen], [chosen, *value]][choices.below(3)]
        case 3:
            plain: tuple[Any, ...] = (
                None,
                b"",
                "",
                [],
                {},
                _NUMBERS[choices.below(len(_NUMBERS))],
                choices.octets(32),
                value,
            )
            return plain[choices.below(len(plain))]
        case _:
            return _scalar(value, choices)


def _scalar(value: Any, choices: Choices) -> Any:  # noqa: ANN401 - as above
    match value:
        case bool():
            return not value
        case int():
            return min(max(value + (1, -1, 256, -value, -2 * value)[choices.below(5)], -(2**64)), 2**64 - 1)
        case bytes() if value:
            return _signed_anew(value, choices) if choices.below(4) == 1 else damage(value, choices)
        case _Packed():
            return damage(value.encode(), choices)
        case str():
            return value + "x" if choices.below(2) else value[:-1]
        case _:
            return type(value)() if isinstance(value, list | dict) else choices.octets(8)


def _signed_anew(value: bytes, choices: Choices) -> bytes:
    """The other signature that is as valid, where the bytes end in one: the report of a GPU, of a TPM, of COSE."""
    size, order = _ORDERS[choices.below(2)]
    return other_signature(value, size, order)


def other_signature(value: bytes, size: int = 32, order: int = _P256) -> bytes:
    """``value`` with ``n - s`` for the ``s`` that it ends in: ECDSA accepts both (FIPS 186-5 §6.4.2)."""
    s = int.from_bytes(value[-size:])
    return value[:-size] + (order - s).to_bytes(size) if len(value) >= size and 0 < s < order else value


def damage(data: bytes, choices: Choices) -> bytes:
    """``data`` with a bit flipped, cut short, or with a few bytes put in or over."""
    place = choices.below(len(data))
    match choices.below(4):
        case 0:
            return data[:place] + bytes([data[place] ^ 1 << choices.below(8)]) + data[place + 1 :] if data else data
        case 1:
            return data[:place]
        case 2:
            return data[:place] + choices.octets(1 + choices.below(8)) + data[place:]
        case _:
            new = choices.octets(1 + choices.below(8))
            return data[:place] + new + data[place + len(new) :]
