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
        width = self.width
        values = strict.unpack(f">{len(self.octets) // width}{_LETTERS[width]}", self.octets, what=where)
        # There is no narrower one than of single bytes.
        if width > 1 and _fit(values, width // 2):
            raise MalformedEvidence(
                Code.NOT_DETERMINISTIC,
                "a narrower array would do",
                where=where,
                expected=f"tag {_narrowest(values)}",
                got=f"tag {self.tag}",
                clause="RFC 8746 §2.1",
            )
        return values


def _narrowest(values: Sequence[int]) -> int:
    for tag, width in WIDTHS.items():
        if _fit(values, width):
            return tag
    raise ValueError(f"integers beyond 64 bits: {min(values)}..{max(values)}")


def _fit(values: Sequence[int], width: int) -> bool:
    """Whether each of ``values`` fits so many bytes. As a rule the first shows that they do not, if they do not."""
    bound = 1 << (8 * width - 1)
    return not values or (-bound <= values[0] < bound and min(values) >= -bound and max(values) < bound)
