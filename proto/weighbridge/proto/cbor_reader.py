"""What CBOR is decoded to, and a typed reader of maps and arrays. :mod:`weighbridge.proto.cbor` has all of it, too.

>>> Reader({0: 7, 1: None}, "example").uint(0)
7
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.typed_array import TypedArray

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CborMap", "CborValue", "Reader", "read_array", "read_map"]

CborValue = int | bytes | str | bool | TypedArray | None | list["CborValue"] | dict["int | str", "CborValue"]
CborMap = dict["int | str", "CborValue"]

_TYPE_NAMES: Final[Mapping[type, str]] = {
    bytes: "byte string", str: "text", int: "integer", list: "array", dict: "map", bool: "boolean",
    TypedArray: "typed array",
}  # fmt: skip


@final
class Reader:
    """Takes fields out of a decoded map or array, each exactly once; whatever is left at the end is an error.

    Every method raises :class:`MalformedEvidence` with ``FIELD_MISSING``, ``FIELD_TYPE``, ``FIELD_RANGE`` or
    ``FIELD_UNKNOWN`` and the path of the field. Absent is not null: ``optional_*`` accepts an explicit null only.
    """

    __slots__ = ("_fields", "_where")

    def __init__(self, fields: CborMap, where: str) -> None:
        self._fields = dict(fields)
        self._where = where

    def path(self, key: int | str) -> str:
        """The place of ``key``, for messages."""
        return f"{self._where}[{key}]"

    def take(self, key: int | str) -> CborValue:
        """The raw value at ``key``."""
        if key not in self._fields:
            raise MalformedEvidence(Code.FIELD_MISSING, "required field is missing", where=self.path(key))
        return self._fields.pop(key)

    def has(self, key: int | str) -> bool:
        """Whether ``key`` is still to be taken; only for structures whose specification makes it optional."""
        return key in self._fields

    def octets(self, key: int | str, *, size: int | None = None, limit: int = limits.EVIDENCE_MAX) -> bytes:
        """A byte string of exactly ``size`` bytes, or of at most ``limit``."""
        value = self.take(key)
        if not isinstance(value, bytes):
            raise self._wrong_type(key, "byte string", value)
        if size is not None and len(value) != size:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "wrong length",
                where=self.path(key),
                expected=f"{size} bytes",
                got=f"{len(value)} bytes",
            )
        if len(value) > limit:
            raise MalformedEvidence(
                Code.TOO_LARGE,
                "too long",
                where=self.path(key),
                expected=f"<= {limit} bytes",
                got=f"{len(value)} bytes",
            )
        return value

    def optional_octets(
        self, key: int | str, *, size: int | None = None, limit: int = limits.EVIDENCE_MAX
    ) -> bytes | None:
        """As :meth:`octets`, or an explicit null."""
        return None if self._null(key) else self.octets(key, size=size, limit=limit)

    def digest(self, key: int | str) -> bytes:
        """A SHA-256 digest."""
        return self.octets(key, size=limits.DIGEST_SIZE)

    def optional_digest(self, key: int | str) -> bytes | None:
        """A SHA-256 digest or an explicit null."""
        return None if self._null(key) else self.digest(key)

    def uint(self, key: int | str, *, limit: int = 2**63 - 1) -> int:
        """An integer from 0 to ``limit``."""
        return self.integer(key, low=0, high=limit)

    def integer(self, key: int | str, *, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``."""
        value = self.take(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong_type(key, "integer", value)
        if not low <= value <= high:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "out of range", where=self.path(key), expected=f"{low}..{high}", got=value
            )
        return value

    def boolean(self, key: int | str) -> bool:
        """``true`` or ``false``."""
        value = self.take(key)
        if not isinstance(value, bool):
            raise self._wrong_type(key, "boolean", value)
        return value

    def text(self, key: int | str, *, limit: int = limits.NAME_MAX) -> str:
        """UTF-8 text of at most ``limit`` bytes, counted in bytes."""
        value = self.take(key)
        if not isinstance(value, str):
            raise self._wrong_type(key, "text", value)
        if len(value.encode()) > limit:
            raise MalformedEvidence(
                Code.TOO_LARGE, "text is too long", where=self.path(key), expected=f"<= {limit} bytes"
            )
        return value

    def optional_text(self, key: int | str, *, limit: int = limits.NAME_MAX) -> str | None:
        """As :meth:`text`, or an explicit null."""
        return None if self._null(key) else self.text(key, limit=limit)

    def array(self, key: int | str, *, limit: int) -> list[CborValue]:
        """An array of at most ``limit`` elements."""
        value = self.take(key)
        return read_array(value, where=self.path(key), limit=limit)

    def optional_array(self, key: int | str, *, limit: int) -> list[CborValue] | None:
        """As :meth:`array`, or an explicit null."""
        return None if self._null(key) else self.array(key, limit=limit)

    def ascending(self, key: int | str, *, below: int) -> tuple[int, ...]:
        """Distinct integers from 0 to ``below - 1`` in ascending order."""
        values = self.array(key, limit=below)
        numbers = tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 <= v < below)
        if list(numbers) != values or list(numbers) != sorted(set(numbers)):
            raise MalformedEvidence(
                Code.FIELD_RANGE, f"not distinct, ascending integers below {below}", where=self.path(key)
            )
        return numbers

    def octet_strings(self, key: int | str, *, count: int, limit: int) -> tuple[bytes, ...]:
        """At most ``count`` byte strings of at most ``limit`` bytes each."""
        values = self.array(key, limit=count)
        octets = tuple(value for value in values if isinstance(value, bytes) and len(value) <= limit)
        if len(octets) != len(values):
            raise MalformedEvidence(
                Code.FIELD_TYPE, f"not all byte strings of at most {limit} bytes", where=self.path(key)
            )
        return octets

    def table(self, key: int | str) -> Reader:
        """A nested map, to be read and ended in its turn."""
        return read_map(self.take(key), where=self.path(key))

    def optional_table(self, key: int | str) -> Reader | None:
        """As :meth:`table`, or an explicit null."""
        return None if self._null(key) else self.table(key)

    def keys(self) -> list[int | str]:
        """The keys not yet taken, in the order of the encoding."""
        return list(self._fields)

    def end(self) -> None:
        """Require that every field has been taken."""
        if self._fields:
            raise MalformedEvidence(
                Code.FIELD_UNKNOWN, "unknown field", where=self.path(next(iter(self._fields))), got=len(self._fields)
            )

    def _null(self, key: int | str) -> bool:
        if self._fields.get(key, 0) is None:
            del self._fields[key]
            return True
        return False

    def _wrong_type(self, key: int | str, expected: str, value: CborValue) -> MalformedEvidence:
        got = "null" if value is None else _TYPE_NAMES.get(type(value), type(value).__name__)
        return MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=self.path(key), expected=expected, got=got)


def read_map(value: CborValue, *, where: str) -> Reader:
    """Require a map.

    Raises:
        MalformedEvidence: ``FIELD_TYPE``.
    """
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="map")
    return Reader(value, where)


def read_array(value: CborValue, *, where: str, limit: int, size: int | None = None) -> list[CborValue]:
    """Require an array of at most ``limit`` elements, or of exactly ``size``.

    Raises:
        MalformedEvidence: ``FIELD_TYPE``, ``TOO_LARGE`` or ``FIELD_RANGE``.
    """
    if not isinstance(value, list):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="array")
    if len(value) > limit:
        raise MalformedEvidence(
            Code.TOO_LARGE, "too many elements", where=where, expected=f"<= {limit}", got=len(value)
        )
    if size is not None and len(value) != size:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "wrong number of elements", where=where, expected=size, got=len(value)
        )
    return value
