"""A small HTTP/1.1 listener in the event loop of the service: everything about a request is bounded.

h11 parses; what is ours is the reading, because servers that come whole have no deadline for a request's head. A
request is one head of some 16 KiB and a body of at most 96 KiB, all within ten seconds, however slowly it comes; an
idle connection is closed after thirty, a TLS handshake ended after ten; a response that is not taken within ten seconds
is not waited for. Connections are counted, from before TLS until their socket is closed, and the one too many is closed
at once. Nothing is upgraded, and there is no method that no route has.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import traceback
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, final

import h11

from weighbridge.verifier.http_messages import Request, Response, failure
from weighbridge.verifier.ports import check_port, unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping

    from weighbridge.verifier.http_messages import Route
    from weighbridge.verifier.settings.kinds import Place

__all__ = ["BODY_MAX", "HEAD_MAX", "HttpServer", "Timeouts", "listening"]

HEAD_MAX: Final = 16 * 1024
"""Bytes of a request's line and headers; twice as many are the most that can come."""
BODY_MAX: Final = 96 * 1024
"""Bytes of a request's body: a token (64 KiB at most) in a form."""
_CONNECTIONS_MAX: Final = 1024
_READ: Final = HEAD_MAX
_CLOSE_S: Final = 1.0
_AGAIN_S: Final = 0.1
_BACKLOG: Final = 128
_VERSIONS: Final = frozenset({b"1.0", b"1.1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """In seconds.

    Attributes:
        handshake: for TLS to begin.
        request: for a whole request to come, from its first byte.
        idle: for the next one to begin.
        taken: for a response to be taken.
        answer: for it to be made.
    """

    handshake: float = 10.0
    request: float = 10.0
    idle: float = 30.0
    taken: float = 10.0
    answer: float = 10.0


@final
class HttpServer:
    """Answers connections by ``routes``, each of a whole path."""

    def __init__(
        self, routes: Mapping[str, Route], *, timeouts: Timeouts | None = None, connections: int = _CONNECTIONS_MAX
    ) -> None:
        self._routes = routes
        self._timeouts = timeouts or Timeouts()
        self._connections = connections
        self._open: set[asyncio.Task[None]] = set()

    async def accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Answer whoever connects, for as long as the task runs."""
        loop = asyncio.get_running_loop()
        while True:
            # Others have their turn, however fast strangers come.
            await asyncio.sleep(0)
            try:
                taken, _ = await loop.sock_accept(listener)
            except OSError:
                # No descriptors are left, or the peer has gone already.
                await asyncio.sleep(_AGAIN_S)
                continue
            if len(self._open) >= self._connections:
                taken.close()
                continue
            # From here on it counts: TLS is yet to begin.
            task = asyncio.create_task(self._serve(taken, tls))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _serve(self, taken: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_READ, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        # A peer that goes, or that is too slow, gets no explanation.
        ended = (OSError, TimeoutError, asyncio.CancelledError)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                taken,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else self._timeouts.handshake,
            )
        except ended:
            taken.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        late = True
        try:
            with contextlib.suppress(*ended):
                await _Connection(self, reader, writer).run()
                late = False
        finally:
            await _let_go(writer, at_once=late)

    async def close(self) -> None:
        """End all connections."""
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=2)

    @property
    def timeouts(self) -> Timeouts:
        """Those it keeps to."""
        return self._timeouts

    async def answer(self, request: Request) -> Response:
        """The response to ``request``; a defect of ours is told to the operator and not to the peer."""
        route = self._routes.get(request.path)
        if route is None:
            return failure(HTTPStatus.NOT_FOUND, "not_found", "there is nothing here")
        if request.method not in route.allowed:
            return failure(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "method_not_allowed",
                f"this is for {', '.join(route.allowed)}",
                allow=", ".join(route.allowed),
            )
        try:
            async with asyncio.timeout(self._timeouts.answer):
                return await route.handler(request)
        except TimeoutError:
            return failure(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily_unavailable", "no answer in time: try again")
        except Exception as error:  # noqa: BLE001 - the answer is a refusal, never "go on"
            traceback.print_exception(error)
            return failure(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", "internal error")


async def _let_go(writer: asyncio.StreamWriter, *, at_once: bool) -> None:
    """Return when the socket is closed; what was written is sent first, as far as it is taken, unless ``at_once``."""

    async def over() -> None:
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    closed = asyncio.create_task(over())
    with contextlib.suppress(asyncio.CancelledError):
        if not at_once:
            writer.close()
            await asyncio.wait({closed}, timeout=_CLOSE_S)
    if not closed.done():
        writer.transport.abort()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({closed}, timeout=_CLOSE_S)


class _Connection:
    def __init__(self, server: HttpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
        self._certificate = None if tls is None else tls.getpeercert(binary_form=True)

    async def run(self) -> None:
        timeouts = self._server.timeouts
        while True:
            async with asyncio.timeout(timeouts.idle):
                await self._begin()
            if self._http.their_state is h11.CLOSED:
                return
            try:
                async with asyncio.timeout(timeouts.request):
                    request = await self._request()
            except h11.RemoteProtocolError as error:
                await self._send(_malformed(error), head=False)
                return
            except TimeoutError:
                await self._send(failure(HTTPStatus.REQUEST_TIMEOUT, "invalid_request", "too slow"), head=False)
                return
            if request is None:
                return
            response = request if isinstance(request, Response) else await self._server.answer(request)
            await self._send(response, head=isinstance(request, Request) and request.method == "HEAD")
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _begin(self) -> None:
        """Return when the next request has begun, or none comes."""
        if not self._http.trailing_data[0]:
            self._http.receive_data(await self._reader.read(_READ))

    async def _request(self) -> Request | Response | None:
        """The next request, the refusal of one that is too large; ``None`` when none comes."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            match event:
                case h11.NEED_DATA:
                    if self._http.they_are_waiting_for_100_continue:
                        self._write(h11.InformationalResponse(status_code=100, headers=[]))
                    self._http.receive_data(await self._reader.read(_READ))
                case h11.Request():
                    head = event
                    if (refusal := _refused(event)) is not None:
                        return refusal
                case h11.Data():
                    body += event.data
                    if len(body) > BODY_MAX:
                        return _TOO_LARGE
                case h11.EndOfMessage() if head is not None:
                    return self._made(head, bytes(body))
                case _:
                    return None

    def _made(self, head: h11.Request, body: bytes) -> Request:
        return Request(
            method=head.method.decode("ascii"),
            path=head.target.decode("ascii").partition("?")[0],
            headers=[(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers],
            body=body,
            certificate=self._certificate,
        )

    async def _send(self, response: Response, *, head: bool) -> None:
        bare = response.status is HTTPStatus.NOT_MODIFIED
        headers = {"date": formatdate(usegmt=True), **response.headers, "x-content-type-options": "nosniff"}
        if not bare:
            headers["content-length"] = str(len(response.body))
        if self._http.their_state is not h11.DONE:
            headers["connection"] = "close"
        with contextlib.suppress(h11.LocalProtocolError):
            self._write(
                h11.Response(
                    status_code=response.status.value,
                    reason=response.status.phrase.encode("ascii"),
                    headers=list(headers.items()),
                )
            )
            if not head and not bare:
                self._write(h11.Data(data=response.body))
            self._write(h11.EndOfMessage())
        async with asyncio.timeout(self._server.timeouts.taken):
            await self._writer.drain()

    def _write(self, event: h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage) -> None:
        if data := self._http.send(event):
            self._writer.write(data)


def _refused(head: h11.Request) -> Response | None:
    """The refusal of a request by its head alone."""
    if head.http_version not in _VERSIONS:
        return failure(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "invalid_request", "this is HTTP/1.1")
    lengths = [value for name, value in head.headers if name == b"content-length"]
    if lengths and any(name == b"transfer-encoding" for name, _ in head.headers):
        # Two readers could end it at two places (RFC 9112 §6.1).
        return failure(HTTPStatus.BAD_REQUEST, "invalid_request", "two lengths of one body")
    if any(len(length) > len(str(BODY_MAX)) for length in lengths):
        return _TOO_LARGE
    return None


_TOO_LARGE: Final = failure(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "invalid_request", f"the body has more than {BODY_MAX} bytes"
)


def _malformed(error: h11.RemoteProtocolError) -> Response:
    status = HTTPStatus(error.error_status_hint)
    return failure(status, "invalid_request", "not a request in HTTP/1.1, or too large")


@contextlib.asynccontextmanager
async def listening(
    server: HttpServer, place: Place, *, tls: ssl.SSLContext | None, shared: bool = False
) -> AsyncGenerator[int]:
    """Have ``server`` answer at ``place`` while the block lasts, and give the port.

    Args:
        server: what answers.
        place: port 0 takes any free one.
        tls: ``None``: plain.
        shared: other processes listen there too (``SO_REUSEPORT``).

    Raises:
        EnvironmentFault: ``PORT_UNAVAILABLE``.
    """
    if not shared:
        check_port(place.host, place.port, where=str(place))
    with contextlib.ExitStack() as stack:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            listeners = [
                stack.enter_context(socket.create_server(address, family=family, backlog=_BACKLOG, reuse_port=shared))
                for family, _, _, _, address in dict.fromkeys(found)
            ]
        except OSError as error:
            raise unavailable(error, where=str(place)) from error
        for listener in listeners:
            listener.settimeout(0)
        accepting = [asyncio.create_task(server.accept(listener, tls)) for listener in listeners]
        try:
            port: int = listeners[0].getsockname()[1]
            yield port
        finally:
            for task in accepting:
                task.cancel()
            await asyncio.wait(accepting)
            stack.close()
            await server.close()
