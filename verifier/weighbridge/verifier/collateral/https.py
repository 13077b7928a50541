"""Asks servers for collateral: HTTPS, no redirection, no ambient proxy, nothing unbounded in size or time."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final
from urllib.parse import urlsplit

from weighbridge.proto import hosts
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.collateral.wanted import HOSTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Answer", "Fetcher", "HttpsFetcher"]

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_OK: Final = 200
_CHUNK: Final = 64 * 1024
_OCSP_REQUEST: Final = "application/ocsp-request"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: nothing of it is believed. Names of headers are in lower case."""

    body: bytes
    headers: Mapping[str, str]


class Fetcher(Protocol):
    """Who asks. Called from several threads at once."""

    def fetch(self, url: str, *, body: bytes | None, limit: int) -> Answer:
        """The answer to GET, or to POST of ``body``; at most ``limit`` bytes.

        Raises:
            EnvironmentFault: ``COLLATERAL_FETCH``; trying again later may help.
        """
        ...


@final
class HttpsFetcher:
    """Asks the makers' own servers (:data:`~weighbridge.verifier.collateral.wanted.HOSTS`), or a mirror of them.

    Args:
        seconds: how long one question may take, all in all.
        mirror: asked instead of everybody, ``MIRROR/host/path``: an HTTPS address, or HTTP to this machine itself.
        proxy: host and port of a proxy that is to CONNECT.
        authorities: PEM file of certificates that servers must lead to, instead of the system's.

    Raises:
        ValueError: the mirror's address is neither.
        EnvironmentFault: ``FILE_UNREADABLE``, for the authorities.
    """

    __slots__ = ("_context", "_mirror", "_proxy", "_seconds")

    def __init__(
        self,
        *,
        seconds: float = 20,
        mirror: str | None = None,
        proxy: tuple[str, int] | None = None,
        authorities: Path | None = None,
    ) -> None:
        self._seconds = seconds
        self._proxy = proxy
        self._mirror = None if mirror is None else _checked_mirror(mirror)
        try:
            self._context = ssl.create_default_context(cafile=authorities)
        except (OSError, ssl.SSLError) as error:
            found = "not certificates in PEM" if isinstance(error, ssl.SSLError) else (error.strerror or "").lower()
            raise EnvironmentFault(Code.FILE_UNREADABLE, found, where=str(authorities)) from error

    def fetch(self, url: str, *, body: bytes | None, limit: int) -> Answer:
        """See :meth:`Fetcher.fetch`."""
        address = urlsplit(url)
        if address.scheme != "https" or address.netloc not in HOSTS:
            raise ValueError(f"not an address of a maker: {url}")
        if self._mirror is not None:
            address = urlsplit(f"{self._mirror}/{address.netloc}{address.path}?{address.query}".rstrip("?"))
        connection = self._connect(address.scheme, address.hostname or "", address.port)
        # Every step has its timeout; a server that sends a byte now and then would take for ever all the same.
        late = threading.Event()
        lines: list[socket.socket] = []
        watchdog = threading.Timer(self._seconds, _hang_up, (connection, lines, late))
        watchdog.daemon = True
        watchdog.start()
        try:
            target = address.path + (f"?{address.query}" if address.query else "")
            connection.connect()
            # The library forgets the socket as soon as a server says that it will close it.
            lines.append(connection.sock)
            answer = _exchange(connection, target, body, limit, url)
        except (OSError, http.client.HTTPException) as error:
            reason = f"not within {self._seconds:g} s" if late.is_set() else _reason(error)
            raise _failed(f"no answer{self._whose}: {reason}", url) from error
        finally:
            watchdog.cancel()
            connection.close()
        # An answer without a length ends where the connection does: who hung up?
        if late.is_set():
            raise _failed(f"no answer{self._whose}: not within {self._seconds:g} s", url)
        return answer

    @property
    def _whose(self) -> str:
        """Who was asked in the maker's place."""
        if self._mirror is not None:
            return f" from {self._mirror}"
        return "" if self._proxy is None else f" through {self._proxy[0]}:{self._proxy[1]}"

    def _connect(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._seconds)
        if self._proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=self._seconds, context=self._context)
        through = http.client.HTTPSConnection(*self._proxy, timeout=self._seconds, context=self._context)
        through.set_tunnel(host, port)
        return through


def _exchange(connection: http.client.HTTPConnection, target: str, body: bytes | None, limit: int, url: str) -> Answer:
    headers = {"Accept-Encoding": "identity", "User-Agent": "weighbridge"}
    if body is not None:
        headers["Content-Type"] = _OCSP_REQUEST
    connection.request("GET" if body is None else "POST", target, body=body, headers=headers)
    with closing(connection.getresponse()) as response:
        if response.status != _OK:
            got = f"{response.status} {response.reason[:40]}"
            raise _failed("the server answers otherwise than with 200", url, got)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _failed("the answer is compressed", url)
        data = bytearray()
        while chunk := response.read1(_CHUNK):
            data += chunk
            if len(data) > limit:
                raise _failed("the answer is too large", url, f"> {limit} bytes")
        if response.length:
            raise _failed("the answer was cut off", url, f"{response.length} bytes are missing")
        return Answer(bytes(data), {name.lower(): value for name, value in response.headers.items()})


def _reason(error: OSError | http.client.HTTPException) -> str:
    said = error.strerror if isinstance(error, OSError) else None
    return (said or str(error) or type(error).__name__).lower()


def _hang_up(connection: http.client.HTTPConnection, lines: list[socket.socket], late: threading.Event) -> None:
    late.set()
    # While it is being connected, the library has it; there is none before, and a closed one cannot be shut down.
    line: socket.socket | None = lines[0] if lines else connection.sock
    if line is not None:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)


def _checked_mirror(mirror: str) -> str:
    address = urlsplit(mirror)
    try:
        host = hosts.host_name(address.hostname or "", what="the mirror")
        _ = address.port
    except (MalformedEvidence, ValueError) as error:
        raise ValueError(f"not an address: {mirror}") from error
    if address.scheme != "https" and not (address.scheme == "http" and host in _LOOPBACK):
        raise ValueError(f"neither an HTTPS address, nor HTTP on this machine: {mirror}")
    if address.query or address.fragment or address.username is not None:
        raise ValueError(f"not a bare address: {mirror}")
    return mirror.rstrip("/")


def _failed(message: str, url: str, got: str | None = None) -> EnvironmentFault:
    return EnvironmentFault(
        Code.COLLATERAL_FETCH,
        message,
        where=url,
        got=got,
        hint="try again later; or fetch it elsewhere and import the file: weighbridge collateral import",
    )
