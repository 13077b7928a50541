"""The newest result token, as a file that relying software on the host can read; absent when there is none that holds.

Replaced whole; taken away when the token expires, when a window is denied, and when the session ends otherwise than
by being closed. A reader still checks signature and expiry: a file can be stale for as long as it takes to remove it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, final

from weighbridge.attester.durable import write_fault, write_file
from weighbridge.attester.refusal import token_expiry

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.attester.clock import Clock

__all__ = ["TokenFile"]


@final
class TokenFile:
    """The token at ``path``."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._expires: datetime | None = None

    def put(self, token: str) -> datetime:
        """Write ``token``; return when it expires.

        Raises:
            MalformedEvidence: it is not a token.
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
        """
        expires = token_expiry(token)
        write_file(self._path, token.encode() + b"\n")
        self._expires = expires
        return expires

    def remaining_ns(self) -> int | None:
        """Nanoseconds until the token expires, at least 0; ``None`` when there is none."""
        if self._expires is None:
            return None
        present = self._clock.wall_ns()
        return max(0, round(self._expires.timestamp()) * 1_000_000_000 - present)

    def remove_expired(self) -> None:
        """Take the token away if it has expired."""
        if self.remaining_ns() == 0:
            self.remove()

    def remove(self) -> None:
        """Take the token away, if there is one, of this run or of an earlier one.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``.
        """
        self._expires = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise write_fault(self._path, error) from error
