"""A gate over plain HTTP/1.1, for proxies that ask by a sub-request: nginx's ``auth_request`` and its like.

=================  ===================================================================================================
``/auth/ROUTE``    204 with the gate's headers, or 403 with the reason; of whatever method
``/standing``      how all sessions stand, as JSON, for whoever runs the gate
``/healthz``       204 while it answers, which says nothing of sessions
=================  ===================================================================================================

The route is in the path that the proxy's own configuration names; no header of a client is looked at. The parser takes
little: a request line and headers of at most 16 KiB within ten seconds, and no body.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import strict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.verifier.gate.checking import Gate

__all__ = ["HEAD_MAX", "HttpGate"]

HEAD_MAX: Final = 16 * 1024
"""Bytes of a request's head."""
_CONNECTIONS_MAX: Final = 1024
_HEAD_S: Final = 10.0
_IDLE_S: Final = 60.0
_CLOSE_S: Final = 1.0
_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*)")
_END: Final = b"\r\n\r\n"
# Those that say where a request ends: said twice, two readers may differ.
_ONCE: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_JSON: Final = {"content-type": "application/json", "cache-control": "no-store"}


@final
class HttpGate:
    """Answers sub-requests for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it is closed. What is not understood gets 400 and an end."""
        self._open += 1
        try:
            if self._open <= _CONNECTIONS_MAX:
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    await self._answer(reader, writer)
        finally:
            writer.close()
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await writer.wait_closed()
            except TimeoutError:
                # What is not taken keeps the socket open.
                writer.transport.abort()
            except OSError:
                pass
            finally:
                self._open -= 1

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        going = True
        while going:
            async with asyncio.timeout(_IDLE_S):
                first = await reader.readexactly(1)
            async with asyncio.timeout(_HEAD_S):
                head = first + await reader.readuntil(_END)
            if (parsed := _parse(head)) is None:
                writer.write(_message(HTTPStatus.BAD_REQUEST, {}, b"", going=False))
                return
            path, going = parsed
            writer.write(_message(*self._found(path), going=going))
            async with asyncio.timeout(_HEAD_S):
                await writer.drain()

    def _found(self, path: str) -> tuple[HTTPStatus, Mapping[str, str], bytes]:
        place, _, route = path[1:].partition("/")
        match place, route:
            case "auth", _:
                answer = self._gate.check(self._gate.router.named(route))
                if answer.allowed:
                    return HTTPStatus.NO_CONTENT, answer.headers, b""
                return HTTPStatus.FORBIDDEN, answer.refusal_headers, answer.body
            case "standing", "":
                return HTTPStatus.OK, _JSON, strict.json_encode(self._gate.standing()) + b"\n"
            case "healthz", "":
                return HTTPStatus.NO_CONTENT, {}, b""
            case _:
                return HTTPStatus.NOT_FOUND, {}, b""


def _parse(head: bytes) -> tuple[str, bool] | None:
    """The path, without its query, and whether the connection goes on; ``None`` if it is nothing that we answer."""
    line, *fields = head.removesuffix(_END).split(b"\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    names: dict[bytes, bytes] = {}
    for field in fields:
        pair = _FIELD.fullmatch(field)
        if pair is None:
            return None
        name = pair[1].lower()
        if name in names and name in _ONCE:
            return None
        names[name] = pair[2].strip().lower()
    if b"transfer-encoding" in names or names.get(b"content-length", b"0") != b"0":
        return None
    connection = names.get(b"connection", b"")
    going = connection != b"close" if found[3] == b"1" else connection == b"keep-alive"
    return found[2].decode().partition("?")[0], going


def _message(status: HTTPStatus, headers: Mapping[str, str], body: bytes, *, going: bool) -> bytes:
    told = {**headers, "connection": "keep-alive" if going else "close"}
    if status is not HTTPStatus.NO_CONTENT:
        told["content-length"] = str(len(body))
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
