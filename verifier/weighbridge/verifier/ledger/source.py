"""Where a ledger's files are read from: a directory, a server of static files, or a bucket of object storage.

Nothing that comes from here is believed: checkpoints are signed, tiles and entries are hashed by whoever asked for
them. So plain HTTP is as good as HTTPS, but that others can see what is asked for. Everything is bounded in size and
time; no redirection is followed, no ambient proxy asked.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import stat
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Protocol, final
from urllib.parse import SplitResult, urlsplit

from weighbridge.proto import hosts
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.ledger.bucket import Bucket
from weighbridge.verifier.ledger.s3 import S3Address, S3Objects

__all__ = ["DirectorySource", "HttpSource", "Source", "open_source", "source_of"]

_CHUNK: Final = 64 * 1024
_OK: Final = 200
_ABSENT: Final = frozenset({404, 410})
_REDIRECTS: Final = range(300, 400)
_SECONDS: Final = 20.0


class Source(Protocol):
    """The files of one ledger, by their path below its prefix."""

    def read(self, path: str, *, limit: int) -> bytes | None:
        """The file's bytes, or ``None`` where there is none; untrusted.

        Args:
            path: of C2SP tlog-tiles, such as ``checkpoint``.
            limit: as much as such a file can have.

        Raises:
            MalformedEvidence: ``TOO_LARGE``.
            EnvironmentFault: ``FILE_UNREADABLE`` or ``LEDGER_UNREACHABLE``; trying again later may help.
        """
        ...

    def place(self, path: str) -> str:
        """Where that is, for people."""
        ...

    def close(self) -> None:
        """Let go of what is held. Reading again takes it anew."""
        ...


def source_of(where: Path | Source) -> Source:
    """Where the files of a ledger are: ``where``, which may be its directory."""
    return DirectorySource(where) if isinstance(where, Path) else where


def open_source(where: str, *, seconds: float = _SECONDS) -> Source:
    """The ledger at ``where``: an address with ``http(s)://`` or ``s3://``, or a directory. Nothing is read yet.

    Args:
        where: as a person wrote it.
        seconds: how long one file may take to come, all in all; of a bucket, one answer.

    Raises:
        ValueError: it begins like an address and is none.
        EnvironmentFault: ``TOOL_MISSING``: the library for buckets.
    """
    if S3Address.is_one(where):
        return BucketSource(Bucket(S3Objects(S3Address.parse(where), seconds=seconds)))
    if where.startswith(("http://", "https://")):
        return HttpSource(where, seconds=seconds)
    return DirectorySource(Path(where))


@final
class DirectorySource:
    """A ledger's directory, as its writer has it or as it was copied."""

    __slots__ = ("_directory",)

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, path: str, *, limit: int) -> bytes | None:
        """See :meth:`Source.read`."""
        file = self._directory / path
        try:
            # What lies there was put there by somebody: opening a pipe must not wait for its other end.
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(error, file) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise EnvironmentFault(Code.FILE_UNREADABLE, "not a file", where=str(file))
            with open(descriptor, "rb", closefd=False) as stream:
                data = stream.read(limit + 1)
        except OSError as error:
            raise _unreadable(error, file) from error
        finally:
            os.close(descriptor)
        return _bounded(data, limit, str(file))

    def place(self, path: str) -> str:
        """See :meth:`Source.place`."""
        return str(self._directory / path)

    def close(self) -> None:
        """See :meth:`Source.close`."""


@final
class BucketSource:
    """A bucket of object storage, read as anybody may who has leave to."""

    __slots__ = ("_bucket",)

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def read(self, path: str, *, limit: int) -> bytes | None:
        """See :meth:`Source.read`."""
        found = self._bucket.get(path, limit=limit)
        return None if found is None else found.data

    def place(self, path: str) -> str:
        """See :meth:`Source.place`."""
        return self._bucket.place(path)

    def close(self) -> None:
        """See :meth:`Source.close`."""


@final
class HttpSource:
    """A server of static files. One connection, used again as long as the server keeps it.

    Args:
        address: the ledger's prefix, with ``http://`` or ``https://``.
        seconds: how long one file may take to come, all in all.

    Raises:
        ValueError: it is not a bare address.
    """

    __slots__ = ("_address", "_context", "_line", "_seconds")

    def __init__(self, address: str, *, seconds: float = _SECONDS) -> None:
        self._address = _checked(address)
        self._seconds = seconds
        self._context = ssl.create_default_context() if self._address.scheme == "https" else None
        self._line: http.client.HTTPConnection | None = None

    def read(self, path: str, *, limit: int) -> bytes | None:
        """See :meth:`Source.read`."""
        url = self.place(path)
        is_used = self._line is not None
        if self._line is None:
            self._line = self._connection()
        try:
            return self._ask(self._line, path, limit, url)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if is_used and not isinstance(error, TimeoutError):
                # The server has hung up since the last answer: that is no failure yet.
                return self.read(path, limit=limit)
            reason = f"not within {self._seconds:g} s" if isinstance(error, TimeoutError) else _reason(error)
            raise _unreachable(f"no answer: {reason}", url) from error

    def place(self, path: str) -> str:
        """See :meth:`Source.place`."""
        return f"{self._address.geturl()}/{path}"

    def close(self) -> None:
        """See :meth:`Source.close`."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=self._seconds)
        return http.client.HTTPSConnection(host, port, timeout=self._seconds, context=self._context)

    def _ask(self, line: http.client.HTTPConnection, path: str, limit: int, url: str) -> bytes | None:
        # Every step has its timeout; a server that sends a byte now and then would take for ever all the same.
        late = threading.Event()
        lines: list[socket.socket] = []
        watchdog = threading.Timer(self._seconds, _hang_up, (line, lines, late))
        watchdog.daemon = True
        watchdog.start()
        is_whole = False
        try:
            if line.sock is None:
                line.connect()
            # The library forgets the socket as soon as a server says that it will close it.
            sock: socket.socket | None = line.sock
            lines += [] if sock is None else [sock]
            data = _exchange(line, f"{self._address.path}/{path}", limit, url)
            is_whole = True
        except (OSError, http.client.HTTPException) as error:
            raise (TimeoutError() if late.is_set() else error) from error
        except EnvironmentFault as error:
            if late.is_set():
                # What was cut off, we have cut off.
                raise TimeoutError from error
            raise
        finally:
            watchdog.cancel()
            if not is_whole:
                # What is left of the answer would be taken for the next one.
                self.close()
        # An answer without a length ends where the connection does: who hung up?
        if late.is_set():
            self.close()
            raise TimeoutError
        return data


def _exchange(line: http.client.HTTPConnection, target: str, limit: int, url: str) -> bytes | None:
    line.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "weighbridge"})
    with closing(line.getresponse()) as response:
        if response.status in _ABSENT:
            # Whatever page says so is not read to its end: the next question takes a new connection.
            line.close()
            return None
        if response.status != _OK:
            got = f"{response.status} {response.reason[:40]}"
            what = "redirects" if response.status in _REDIRECTS else "answers otherwise than with 200"
            raise _unreachable(f"the server {what}", url, got)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _unreachable("the answer is compressed", url)
        data = bytearray()
        while chunk := response.read1(_CHUNK):
            data += chunk
            if len(data) > limit:
                raise _too_large(limit, url)
        if response.length:
            raise _unreachable("the answer was cut off", url, f"{response.length} bytes are missing")
        return bytes(data)


def _hang_up(line: http.client.HTTPConnection, lines: list[socket.socket], late: threading.Event) -> None:
    late.set()
    # While it is being connected, the library has it; there is none before, and a closed one cannot be shut down.
    found: socket.socket | None = lines[0] if lines else line.sock
    if found is not None:
        with suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)


def _checked(address: str) -> SplitResult:
    parts = urlsplit(address.rstrip("/"))
    try:
        _ = hosts.host_name(parts.hostname or "", what="the address"), parts.port
    except (MalformedEvidence, ValueError) as error:
        raise ValueError(f"not an address: {address}") from error
    is_plain = all(" " < letter <= "~" for letter in parts.path)
    if parts.scheme not in {"http", "https"} or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"not a bare address: {address}")
    if not is_plain:
        raise ValueError(f"not a path of printable ASCII: {address}")
    return parts


def _bounded(data: bytes, limit: int, where: str) -> bytes:
    if len(data) > limit:
        raise _too_large(limit, where)
    return data


def _too_large(limit: int, where: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.TOO_LARGE, "larger than such a file of a ledger can be", where=where, expected=f"<= {limit} bytes"
    )


def _reason(error: OSError | http.client.HTTPException) -> str:
    said = error.strerror if isinstance(error, OSError) else None
    return (said or str(error) or type(error).__name__).lower()


def _unreadable(error: OSError, file: Path) -> EnvironmentFault:
    return EnvironmentFault(Code.FILE_UNREADABLE, (error.strerror or type(error).__name__).lower(), where=str(file))


def _unreachable(message: str, url: str, got: str | None = None) -> EnvironmentFault:
    return EnvironmentFault(Code.LEDGER_UNREACHABLE, message, where=url, got=got)
