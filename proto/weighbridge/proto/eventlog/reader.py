"""A bounded reader of event logs: big-endian for TCG's CEL, little-endian for firmware and for IMA.

Nothing is skipped, and no length is believed before the bytes are there. Every method raises
:class:`MalformedEvidence` and nothing else.
"""

from __future__ import annotations

from typing import final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["LogReader"]


@final
class LogReader:
    """Takes fields off the front of a log, or of a part of one."""

    __slots__ = ("_base", "_data", "_offset", "_what")

    def __init__(self, data: bytes, what: str, *, base: int = 0) -> None:
        """Start reading.

        Args:
            data: untrusted; at most :data:`limits.EVENT_LOG_MAX` bytes.
            what: the name of the log, for messages.
            base: where ``data`` begins in it, for messages.

        Raises:
            MalformedEvidence: ``TOO_LARGE``.
        """
        if len(data) > limits.EVENT_LOG_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE,
                f"{what} is too large",
                where=what,
                expected=f"<= {limits.EVENT_LOG_MAX} bytes",
                got=f"{len(data)} bytes",
            )
        self._data = data
        self._offset = 0
        self._what = what
        self._base = base

    @property
    def offset(self) -> int:
        """How many bytes were taken."""
        return self._offset

    @property
    def place(self) -> str:
        """Where the next field starts, for messages."""
        return f"{self._what}[{self._base + self._offset}]"

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self._offset < len(self._data)

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes.

        Raises:
            MalformedEvidence: ``TRUNCATED``.
        """
        end = self._offset + size
        if end > len(self._data):
            raise MalformedEvidence(
                Code.TRUNCATED,
                f"{self._what} ends early",
                where=self.place,
                expected=f"{size} bytes",
                got=f"{len(self._data) - self._offset} bytes",
            )
        taken = self._data[self._offset : end]
        self._offset = end
        return taken

    def since(self, offset: int) -> bytes:
        """What was taken since ``offset`` bytes had been."""
        return self._data[offset : self._offset]

    def part(self, size: int) -> LogReader:
        """A reader of the next ``size`` bytes, which are taken.

        Raises:
            MalformedEvidence: ``TRUNCATED``.
        """
        base = self._base + self._offset
        return LogReader(self.take(size), self._what, base=base)

    def u8(self) -> int:
        """An unsigned 8-bit integer."""
        return self.take(1)[0]

    def be32(self) -> int:
        """An unsigned 32-bit integer, big-endian."""
        return int.from_bytes(self.take(4))

    def le16(self) -> int:
        """An unsigned 16-bit integer, little-endian."""
        return int.from_bytes(self.take(2), "little")

    def le32(self) -> int:
        """An unsigned 32-bit integer, little-endian."""
        return int.from_bytes(self.take(4), "little")

    def le64(self) -> int:
        """An unsigned 64-bit integer, little-endian."""
        return int.from_bytes(self.take(8), "little")

    def sized(self) -> bytes:
        """A little-endian 32-bit length and that many bytes."""
        return self.take(self.le32())

    def end(self) -> None:
        """Require that nothing is left.

        Raises:
            MalformedEvidence: ``TRAILING_BYTES``.
        """
        if self.more:
            raise MalformedEvidence(
                Code.TRAILING_BYTES,
                f"bytes follow a part of {self._what}",
                where=self.place,
                got=f"{len(self._data) - self._offset} bytes",
            )
