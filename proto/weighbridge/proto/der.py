r"""Reads DER (X.690 §10) where no library has the type: elements of one level, with their tags.

Only what our inputs need: tags of one byte, lengths in their shortest form. Whether a SET is sorted, or what an element
means, is for the caller.

>>> [(hex(element.tag), element.content) for element in elements(b"\x02\x01\x07\x0c\x01a", what="example")]
[('0x2', b'\x07'), ('0xc', b'a')]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["BOOLEAN", "INTEGER", "OBJECT_IDENTIFIER", "SEQUENCE", "UTF8_STRING", "Element", "elements", "one"]

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
OBJECT_IDENTIFIER: Final = 0x06
UTF8_STRING: Final = 0x0C
SEQUENCE: Final = 0x30

_LONG_TAG: Final = 0x1F
_LONG_LENGTH: Final = 0x80
_ELEMENTS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag, its content, and ``raw``, both as they stand with the length between them."""

    tag: int
    content: bytes
    raw: bytes

    def elements(self, *, what: str) -> tuple[Element, ...]:
        """The elements inside; as :func:`elements`."""
        return elements(self.content, what=what)

    def natural(self, *, what: str) -> int:
        """The value of an INTEGER that is not negative, in its shortest form (X.690 §8.3.2).

        Raises:
            MalformedEvidence: ``CERT_MALFORMED``.
        """
        content = self.content
        shortest = bool(content) and not (len(content) > 1 and content[0] == 0 and content[1] < _LONG_LENGTH)
        if self.tag != INTEGER or not shortest or content[0] >= _LONG_LENGTH:
            raise _malformed("not an integer that is zero or more", what)
        return int.from_bytes(content)

    def truth(self, *, what: str) -> bool:
        """The value of a BOOLEAN (X.690 §11.1).

        Raises:
            MalformedEvidence: ``CERT_MALFORMED``.
        """
        if self.tag != BOOLEAN or self.content not in (b"\0", b"\xff"):
            raise _malformed("not a boolean", what)
        return self.content == b"\xff"

    def text(self, *, what: str) -> str:
        """The value of a UTF8String.

        Raises:
            MalformedEvidence: ``CERT_MALFORMED``.
        """
        if self.tag != UTF8_STRING:
            raise _malformed("not a text", what)
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _malformed("not UTF-8", what) from error


def elements(data: bytes, *, what: str) -> tuple[Element, ...]:
    """The elements that ``data`` is, one after another, to its last byte.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED``; also for more than 64 of them.
    """
    found: list[Element] = []
    place = 0
    while place < len(data):
        if len(found) == _ELEMENTS_MAX:
            raise _malformed("too many elements", what)
        start, end = _content(data, place, what)
        found.append(Element(tag=data[place], content=data[start:end], raw=data[place:end]))
        place = end
    return tuple(found)


def one(data: bytes, tag: int, *, what: str) -> Element:
    """The one element that ``data`` is, of that tag.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED``.
    """
    found = elements(data, what=what)
    if len(found) != 1 or found[0].tag != tag:
        raise _malformed(f"not one element of tag {tag:#04x}", what)
    return found[0]


def _content(data: bytes, place: int, what: str) -> tuple[int, int]:
    """Where the content of the element at ``place`` starts and ends (X.690 §8.1, §10.1)."""
    head = data[place : place + 2]
    if len(head) != 2 or head[0] & _LONG_TAG == _LONG_TAG:  # noqa: PLR2004 - a tag and a length
        raise _malformed("cut off, or of a long tag", f"{what}[{place}]")
    start, size = place + 2, head[1]
    if size >= _LONG_LENGTH:
        digits = data[start : start + size - _LONG_LENGTH]
        start += size - _LONG_LENGTH
        size = int.from_bytes(digits)
        if not digits or digits[0] == 0 or size < _LONG_LENGTH:
            raise _malformed("length is not in its shortest form", f"{what}[{place}]")
    if start + size > len(data):
        raise _malformed("cut off", f"{what}[{place}]")
    return start, start + size


def _malformed(message: str, where: str) -> MalformedEvidence:
    return MalformedEvidence(Code.CERT_MALFORMED, message, where=where, clause="X.690 §10")
