"""What keeps contents by their digest: a directory (:mod:`.content`), or a bucket (:mod:`.bucket_content`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Content", "Contents"]


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to be kept, and ``parts`` of them, in their order, that others have as well."""

    data: bytes
    parts: tuple[bytes, ...] = ()


class Contents(Protocol):
    """Bytes by their SHA-256. One thread at a time uses an object; several objects and processes may use one place."""

    def put(self, data: bytes, parts: Sequence[bytes] = ()) -> bytes:
        """Keep ``data`` durably and return its SHA-256. Putting the same bytes again writes nothing.

        Raises:
            EnvironmentFault: as :meth:`put_all`.
            ValueError: as :meth:`put_all`.
        """
        ...

    def put_all(self, contents: Sequence[Content], *, entry: int | None = None) -> tuple[bytes, ...]:
        """Keep all of ``contents`` durably, together, and return their digests.

        Args:
            contents: what is here already may be written again.
            entry: that of the ledger which is expected to be the first to lead to any of them.

        Raises:
            EnvironmentFault: none of them may be there, and all may be put again.
            ValueError: for more than ``limits.CONTENT_MAX`` in one.
        """
        ...

    def get(self, digest: bytes, *, entry: int | None = None) -> bytes:
        """The bytes whose SHA-256 is ``digest``, hashed again.

        Args:
            digest: 32 bytes.
            entry: that of the ledger which leads to them, where one does: then they are found wherever they lie.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT`` when they are not here.
            LedgerInconsistent: ``LEDGER_INCONSISTENT`` when what is stored was altered.
            EnvironmentFault: they cannot be read now.
        """
        ...

    def ahead(self, entries: Sequence[int]) -> None:
        """Take note that what these entries of the ledger lead to is asked for next, a few dozen at most.

        Raises:
            EnvironmentFault: it cannot be read now.
        """
        ...

    def has(self, digest: bytes) -> bool:
        """Whether something is stored under ``digest`` that was put alone, or together without an ``entry``.

        Raises:
            EnvironmentFault: it cannot be told now.
        """
        ...
