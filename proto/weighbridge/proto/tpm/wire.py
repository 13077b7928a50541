"""A bounded, big-endian reader of TPM 2.0 wire structures, and the one writer they need.

The TPM marshals every integer big-endian and every ``TPM2B`` as a 16-bit length and that many bytes (TPM 2.0 Part 1
§4.2, Part 2 §5). Nothing is skipped: each structure ends with :meth:`WireReader.end`.
"""

from __future__ import annotations

from typing import Final, final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["WireReader", "sized", "u16", "u32"]

_SIZED_MAX: Final = 0xFFFF


@final
class WireReader:
    """Takes fields off the front of a structure. Every method raises :class:`MalformedEvidence` and nothing else."""

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        """Start reading.

        Args:
            data: untrusted; at most :data:`limits.TPM_STRUCTURE_MAX` bytes.
            what: the name of the structure, for messages.

        Raises:
            MalformedEvidence: ``TOO_LARGE``.
        """
        if len(data) > limits.TPM_STRUCTURE_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE,
                f"{what} is too large",
                where=what,
                expected=f"<= {limits.TPM_STRUCTURE_MAX} bytes",
                got=f"{len(data)} bytes",
            )
        self._data = data
        self._offset = 0
        self._what = what

    @property
    def place(self) -> str:
        """Where the next field starts, for messages."""
        return self.place_before(0)

    def place_before(self, size: int) -> str:
        """Where a field started whose ``size`` bytes were taken last, for messages."""
        return f"{self._what}[{self._offset - size}]"

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes.

        Raises:
            MalformedEvidence: ``TRUNCATED``.
        """
        left = len(self._data) - self._offset
        if size > left:
            raise MalformedEvidence(
                Code.TRUNCATED,
                f"{self._what} ends early",
                where=self.place,
                expected=f"{size} bytes",
                got=f"{left} bytes",
            )
        start = self._offset
        self._offset += size
        return self._data[start : self._offset]

    def u8(self) -> int:
        """An unsigned 8-bit integer."""
        return self.take(1)[0]

    def u16(self) -> int:
        """An unsigned 16-bit integer."""
        return int.from_bytes(self.take(2))

    def u32(self) -> int:
        """An unsigned 32-bit integer."""
        return int.from_bytes(self.take(4))

    def u64(self) -> int:
        """An unsigned 64-bit integer."""
        return int.from_bytes(self.take(8))

    def sized(self, limit: int) -> bytes:
        """The contents of a ``TPM2B`` of at most ``limit`` bytes; may be empty.

        Raises:
            MalformedEvidence: ``TRUNCATED`` or ``TPM_STRUCTURE``.
        """
        size = self.u16()
        if size > limit:
            raise MalformedEvidence(
                Code.TPM_STRUCTURE,
                "TPM2B is too long",
                where=self.place_before(2),
                expected=f"<= {limit} bytes",
                got=f"{size} bytes",
            )
        return self.take(size)

    def end(self) -> None:
        """Require that nothing is left.

        Raises:
            MalformedEvidence: ``TRAILING_BYTES``.
        """
        left = len(self._data) - self._offset
        if left:
            raise MalformedEvidence(
                Code.TRAILING_BYTES, f"bytes follow {self._what}", where=self.place, got=f"{left} bytes"
            )


def u16(value: int) -> bytes:
    """A 16-bit integer, big-endian."""
    return value.to_bytes(2)


def u32(value: int) -> bytes:
    """A 32-bit integer, big-endian."""
    return value.to_bytes(4)


def sized(data: bytes) -> bytes:
    """``data`` as a ``TPM2B``: 16-bit length, then the bytes.

    Raises:
        ValueError: ``data`` is longer than 65,535 bytes.
    """
    if len(data) > _SIZED_MAX:
        raise ValueError(f"{len(data)} bytes do not fit in a TPM2B")
    return u16(len(data)) + data
