"""Arrays of signed integers in CBOR: big-endian, in the narrowest of four widths (RFC 8746 §2.1, tags 72 to 75).

Of the tags of RFC 8746 these four alone: no unsigned, little-endian or floating-point kinds. A wider array than its
values need is refused where it is read, so that one sequence of integers has one encoding.

>>> TypedArray.of([1, -300]).octets.hex()
'0001fed4'
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["WIDTHS", "TypedArray"]

# Bytes per integer by tag: sint8, sint16, sint32, sint64, all big-endian.
WIDTHS: Final[Mapping[int, int]] = {72: 1, 73: 2, 74: 4, 75: 8}
_LETTERS: Final[Mapping[int, str]] = {1: "b", 2: "h", 4: "i", 8: "q"}


@final
@dataclass(frozen=True, slots=True)
class TypedArray:
    """A tag of :data:`WIDTHS` and the octets under it, a whole number of integers. Not yet read."""

    tag: int
    octets: bytes

    @classmethod
    def of(cls, values: Sequence[int]) -> Self:
        """The one encoding of ``values``, each of which must fit 64 bits.

        Raises:
            ValueError: for a value that does not fit.
        """
        tag = _narrowest(values)
        return cls(tag, struct.pack(f">{len(values)}{_LETTERS[WIDTHS[tag]]}", *values))

    @property
    def width(self) -> int:
        """Bytes per integer."""
        return WIDTHS[self.tag]

    def __len__(self) -> int:
        """How many integers there are."""
        return len(self.octets) // self.width

    def integers(self, *, where: str) -> tuple[int, ...]:
        """The values; bound ``len`` first: each takes about 40 bytes.

        Raises:
            MalformedEvidence: ``NOT_DETERMINISTIC``: they would fit a narrower array.
        """
        self.check(where=where)
        return self._integers(where)

    def check(self, *, where: str) -> None:
        """Require that no narrower array would do: after that, :meth:`integers` raises nothing.

        Raises:
            MalformedEvidence: ``NOT_DETERMINISTIC``.
        """
        width = self.width
        # There is no narrower one than of single bytes; and as a rule, the first value needs the width.
        if width == 1 or not _fits(int.from_bytes(self.octets[:width], signed=True), width // 2):
            return
        values = self._integers(where)
        if _fit(values, width // 2):
            raise MalformedEvidence(
                Code.NOT_DETERMINISTIC,
                "a narrower array would do",
                where=where,
                expected=f"tag {_narrowest(values)}",
                got=f"tag {self.tag}",
                clause="RFC 8746 §2.1",
            )

    def _integers(self, where: str) -> tuple[int, ...]:
        width = self.width
        return strict.unpack(f">{len(self.octets) // width}{_LETTERS[width]}", self.octets, what=where)


def _narrowest(values: Sequence[int]) -> int:
    for tag, width in WIDTHS.items():
        if _fit(values, width):
            return tag
    raise ValueError(f"integers beyond 64 bits: {min(values)}..{max(values)}")


def _fit(values: Sequence[int], width: int) -> bool:
    return not values or (_fits(min(values), width) and _fits(max(values), width))


def _fits(value: int, width: int) -> bool:
    """Whether ``value`` takes no more than so many bytes."""
    bound = 1 << (8 * width - 1)
    return -bound <= value < bound
