"""What a file consists of: spans that lie one behind the other and cover it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weighbridge.proto.manifest import Kind

__all__ = ["Layout", "Span"]


@dataclass(frozen=True, slots=True)
class Span:
    """A range of a file: a tensor, or bytes of none (``name`` is ``None``). Both ends count from its first byte."""

    name: str | None
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @classmethod
    def unnamed(cls, begin: int, end: int) -> Span:
        """Bytes that belong to no tensor: a header, padding, a whole file of no known format."""
        return cls(None, "", (), begin, end)


@dataclass(frozen=True, slots=True)
class Layout:
    """All spans of a file, ascending and contiguous from its first byte to its last, by the rules of ``kind``."""

    kind: Kind
    spans: tuple[Span, ...]
