"""Sequences of integers as typed arrays of differences: what changes slowly becomes narrow, and compresses.

The first difference is from zero. No value is beyond :data:`VALUE_MAX` either way, so that every difference of two
values fits 64 bits, here and in whatever is computed of them later.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final, final, overload

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.typed_array import TypedArray

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["VALUE_MAX", "Budget", "Packed", "ascends", "pack", "unpack"]

VALUE_MAX: Final = 2**62 - 1
_WIDEST: Final = 8


@final
class Budget:
    """How many integers one message may still unpack to: a megabyte of bytes would become forty of integers."""

    def __init__(self, values: int) -> None:
        self._left = values

    def take(self, number: int, *, where: str) -> None:
        """Before ``number`` integers are unpacked.

        Raises:
            MalformedEvidence: ``TOO_LARGE``.
        """
        self._left -= number
        if self._left < 0:
            raise MalformedEvidence(Code.TOO_LARGE, "too many values in one message", where=where, got=number)


@final
class Packed(Sequence[int]):
    """Values as their differences came, which were looked at and found well-formed; equal to the tuple of them.

    Most are asked for once, by whoever computes with all of them; :attr:`differences` is what that takes. Whatever else
    is asked makes the tuple, once.
    """

    __slots__ = ("_size", "_values", "differences")

    def __init__(self, differences: TypedArray) -> None:
        self.differences: Final = differences
        self._size = len(differences)
        self._values: tuple[int, ...] | None = None

    @property
    def values(self) -> tuple[int, ...]:
        """The values."""
        if self._values is None:
            self._values = tuple(accumulate(self.differences.integers(where="values")))
        return self._values

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[int, ...]: ...
    def __getitem__(self, place: int | slice) -> int | tuple[int, ...]:
        return self.values[place]

    def __iter__(self) -> Iterator[int]:
        return iter(self.values)

    def __eq__(self, other: object) -> bool:
        return self.values == (other.values if isinstance(other, Packed) else other)

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return repr(self.values)


def pack(values: Sequence[int]) -> TypedArray:
    """The differences of ``values``.

    Raises:
        ValueError: for a value beyond :data:`VALUE_MAX`: whoever read it leaves it out and says so.
    """
    if _beyond(values):
        raise ValueError(f"a value beyond 2**62: {min(values)}..{max(values)}")
    return TypedArray.of([value - before for before, value in pairwise((0, *values))])


def unpack(packed: object, *, budget: Budget, where: str) -> Packed:
    """The values again.

    Raises:
        MalformedEvidence: ``FIELD_TYPE`` for anything but a typed array; ``TOO_LARGE``; ``NOT_DETERMINISTIC``;
            ``FIELD_RANGE`` for a value beyond :data:`VALUE_MAX`.
    """
    if not isinstance(packed, TypedArray):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="typed array")
    values = Packed(packed)
    budget.take(len(values), where=where)
    packed.check(where=where)
    # As many narrower differences as a message may have cannot reach so far.
    if packed.width == _WIDEST and _beyond(values.values):
        raise MalformedEvidence(Code.FIELD_RANGE, "a value is beyond 2**62", where=where)
    return values


def ascends(values: Packed) -> bool:
    """Whether ``values`` ascend, from zero or above it."""
    differences = values.differences.integers(where="values")
    return not differences or (differences[0] >= 0 and min(differences[1:], default=1) > 0)


def _beyond(values: Sequence[int]) -> bool:
    return bool(values) and (min(values) < -VALUE_MAX or max(values) > VALUE_MAX)
