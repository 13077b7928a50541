"""The inference server's own account of its work, from its Prometheus page: tokens, requests, times, by the second.

A second account beside the one that the server reports over the workload socket
(:mod:`weighbridge.attester.workload`): the verifier compares them. *Both are the host's word*; that they agree shows
that two paths of one server agree, and nothing of a server that neither speaks of.

The server may be absent, slow, or anything else at the other end of a port: what cannot be read within the time is a
missing reading and a *fault*. One that was started anew is a *wrap*: its counters began at zero.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final
from urllib.parse import urlsplit

from weighbridge.attester.telemetry.engine_page import CHANNELS, COUNTERS, PAGE_MAX, Page, read_page
from weighbridge.attester.telemetry.interface import Options
from weighbridge.attester.telemetry.sampler import Sampler
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.attester.telemetry.interface import HostFacts
    from weighbridge.attester.telemetry.sampler import SampleClock, Tick
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.workload import WorkSummary

__all__ = ["NAME", "Address", "Engine", "open_engine"]

NAME: Final = "engine"
_URL: Final = "http://127.0.0.1:8000/metrics"
_PORT: Final = 80
_PERIOD_MS: Final = 1000
_MS: Final = 1_000_000
_OK: Final = 200
# Status line and headers come on top of the page.
_ANSWER_MAX: Final = PAGE_MAX + 64 * 1024
_CHUNK: Final = 64 * 1024
# The server is asked at most this long, or for this share of the period.
_SECONDS_MAX: Final = 2.0
_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Address:
    """Where the page is: HTTP, since it is this host's; another host's only where it is asked for."""

    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str, *, remote: bool) -> Self:
        """Read ``http://HOST[:PORT]/PATH``.

        Args:
            url: as the operator gave it.
            remote: whether the host may be another one than this.

        Raises:
            ValueError: it is none, or names another host.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or _PORT
        except ValueError as error:
            raise ValueError("url must be http://HOST:PORT/PATH") from error
        odd = parts.username or parts.password or parts.fragment
        if parts.scheme != "http" or not host or odd or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("url must be http://HOST:PORT/PATH")
        # Not what a resolver makes of the name: that may be another host.
        host = "127.0.0.1" if host == "localhost" else host
        if not remote and not _is_loopback(host):
            raise ValueError("url must be on this host; remote=yes if it is not")
        query = f"?{parts.query}" if parts.query else ""
        return cls(host, port, (parts.path or "/") + query)

    def fetch(self, seconds: float) -> bytes:
        """The page, within ``seconds`` all in all (a name that must be resolved takes its own time).

        Raises:
            OSError: nobody answers, or not in time.
            EnvironmentFault: ``TELEMETRY_SOURCE``: the answer is too large, or not a page.
        """
        until = time.monotonic() + seconds
        host = f"[{self.host}]" if ":" in self.host else self.host
        request = (
            f"GET {self.path} HTTP/1.1\r\nHost: {host}:{self.port}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
        )
        answer = bytearray()
        with socket.create_connection((self.host, self.port), timeout=seconds) as connection:
            connection.sendall(request.encode())
            # Until the server closes. Parsed from memory: whatever drips, the time is bounded here alone.
            while len(answer) <= _ANSWER_MAX:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the answer takes too long")
                connection.settimeout(left)
                chunk = connection.recv(_CHUNK)
                if not chunk:
                    return _body(bytes(answer))
                answer += chunk
        raise _fault("the answer is too large")


class _Memory:
    """Bytes in place of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        _ = mode
        return io.BytesIO(self._data)


@final
class Engine:
    """A :class:`~weighbridge.attester.telemetry.interface.TelemetrySource` of one server's page.

    Args:
        address: of the page.
        period_ns: between questions.
        clock: of the sampler, the host's by default.
    """

    def __init__(self, address: Address, *, period_ns: int, clock: SampleClock | None = None) -> None:
        self._address = address
        self._seconds = min(_SECONDS_MAX, period_ns / 1e9 * _SHARE)
        self._last: dict[str, int] = {}
        self._started: float | None = None
        self._seen: frozenset[str] = frozenset()
        self.sampler = Sampler(self.read, columns=len(CHANNELS), period_ns=period_ns, clock=clock)

    def read(self, tick: Tick) -> None:
        """Ask once.

        Raises:
            OSError: nobody answers, or not in time.
            EnvironmentFault: the answer is no page.
        """
        page = read_page(self._address.fetch(self._seconds))
        anew = self._began_anew(page)
        for number, channel in enumerate(CHANNELS):
            if channel in page.senseless:
                tick.note(EventKind.SENTINEL, number)
            elif channel in page.values:
                tick.row[number] = page.values[channel]
            if channel in anew:
                tick.note(EventKind.WRAP, number)
        self._last.update(page.values)
        self._started = page.started if page.started is not None else self._started
        self._seen |= page.values.keys() | page.senseless

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`TelemetrySource.window`. What a server that has answered never spoke of is *not reported*."""
        _ = work
        samples = self.sampler.take(start_wall_ns=start_wall_ns, duration_ns=duration_ns)
        absent = frozenset(CHANNELS) - self._seen if self._seen else frozenset[str]()
        return [samples.source(device=None, name=NAME, columns=CHANNELS, absent=absent)]

    def close(self) -> None:
        """See :meth:`TelemetrySource.close`."""
        self.sampler.close()

    def _began_anew(self, page: Page) -> frozenset[str]:
        """Counters that count from zero again, since the last page that there was."""
        counters = COUNTERS & page.values.keys() & self._last.keys()
        if self._started is not None and page.started is not None and page.started != self._started:
            return counters
        return frozenset(name for name in counters if page.values[name] < self._last[name])


def open_engine(options: Mapping[str, str], host: HostFacts) -> Engine:
    """The plug-in ``engine``, asking already; whether there is a server shows later.

    Options: ``url=http://127.0.0.1:8000/metrics``; ``period_ms=1000``; ``remote=yes`` for a server that is not on this
    host, whose counts come over a network then and are anybody's word.

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE``: an option will not do.
    """
    _ = host
    given = Options(NAME, options)
    url = given.text("url", default=_URL)
    period_ms = given.number("period_ms", 100, 60_000, default=_PERIOD_MS)
    remote = given.text("remote", default="no")
    given.end()
    if remote not in {"yes", "no"}:
        raise given.refusal("remote must be yes or no", got=remote)
    try:
        address = Address.parse(url, remote=remote == "yes")
    except ValueError as error:
        raise given.refusal(str(error), got=url) from error
    source = Engine(address, period_ns=period_ms * _MS)
    source.sampler.start()
    return source


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _body(answer: bytes) -> bytes:
    response = http.client.HTTPResponse(_Memory(answer), method="GET")  # type: ignore[arg-type]  # wants makefile alone
    try:
        response.begin()
        if response.status != _OK or response.getheader("Content-Encoding"):
            raise _fault(f"the server answers with status {response.status}, or a page that is encoded")
        # All of it: less than its length is an error then.
        return response.read()
    except (http.client.HTTPException, ValueError) as error:
        raise _fault("the answer is not HTTP, or not whole") from error


def _fault(reason: str) -> EnvironmentFault:
    return EnvironmentFault(Code.TELEMETRY_SOURCE, reason, where=f"--telemetry {NAME}")
