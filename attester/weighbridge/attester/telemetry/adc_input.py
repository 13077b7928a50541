"""Where a converter's bytes come from: a regular file, a FIFO, a character device or a Unix socket. Never waits."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Input"]

_CHUNK: Final = 64 * 1024


@final
class Input:
    """Opened at once, and again where the other side went away.

    Attributes:
        paced: what is read stays where it is until then, so that nothing has to be read before its time.

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE``: there is nothing at ``path`` that can be read as a stream.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        try:
            mode = path.stat().st_mode
            self.paced = stat.S_ISREG(mode)
            self._socket = stat.S_ISSOCK(mode)
            if not (self.paced or self._socket or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
                raise _refusal(path, "is no file, FIFO, character device or Unix socket")
            self._open()
        except OSError as error:
            raise _refusal(path, error.strerror or str(error)) from error

    def read(self) -> bytes | None:
        """What there is, at most 64 KiB; empty once where the writer has gone; ``None`` where there is nothing now."""
        if self._handle is None:
            with suppress(OSError):
                self._open()
            return None
        try:
            data = os.read(self._handle, _CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
            self.close()
        if not data and self._socket:
            self.close()
        return data if data or not self.paced else None

    def close(self) -> None:
        """Close what is open. It is opened again by the next :meth:`read`."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _open(self) -> None:
        if self._socket:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connecting:
                connecting.settimeout(0)
                connecting.connect(str(self._path))
                self._handle = connecting.detach()
            return
        self._handle = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _refusal(path: Path, text: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.TELEMETRY_SOURCE,
        f"cannot read a converter's samples: {text}",
        where=str(path),
        hint="the program that drives the converter has to make it first: mkfifo, or a socket that it listens on",
    )
