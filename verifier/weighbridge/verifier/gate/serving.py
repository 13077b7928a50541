"""A gate as a process: it listens to the verifier, and answers Envoy over gRPC and other proxies over HTTP.

Whoever answers in the place of a gate opens it. So Envoy is answered over a Unix socket, over the loopback interface,
or over mutual TLS; other proxies over the loopback interface alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.gate import ext_authz
from weighbridge.verifier.gate.http_auth import HEAD_MAX, HttpGate
from weighbridge.verifier.ports import check_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from weighbridge.verifier.gate.checking import Gate
    from weighbridge.verifier.gate.place import Place
    from weighbridge.verifier.gate.watcher import Watcher
    from weighbridge.verifier.result_client import Credentials

__all__ = ["Listening", "serve"]

_GRACE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Listening:
    """The ports that were bound; ``None``: that face is not served, or over a socket."""

    envoy: int | None
    http: int | None


async def serve(
    gate: Gate,
    watcher: Watcher,
    *,
    envoy: Place | None,
    http: Place | None,
    tls: Credentials | None,
    started: Callable[[Listening], None],
    stop: asyncio.Event,
) -> None:
    """Serve until ``stop`` is set.

    Args:
        gate: what answers.
        watcher: of that gate.
        envoy: where Envoy is answered.
        http: where others are.
        tls: for Envoy: the gate's key and certificate, and who certifies Envoy's; ``None``: none.
        started: called once everything listens.
        stop: set to end.

    Raises:
        EnvironmentFault: ``PORT_UNAVAILABLE``.
    """
    async with contextlib.AsyncExitStack() as stack:
        ports = Listening(
            envoy=None if envoy is None else await stack.enter_async_context(_envoy(gate, envoy, tls)),
            http=None if http is None else await stack.enter_async_context(_http(gate, http)),
        )
        started(ports)
        watching, stopping = asyncio.create_task(watcher.run()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([watching, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watching, stopping):
                task.cancel()
            await asyncio.gather(watching, stopping, return_exceptions=True)
        if not watching.cancelled():
            watching.result()


@contextlib.asynccontextmanager
async def _envoy(gate: Gate, place: Place, tls: Credentials | None) -> AsyncGenerator[int | None]:
    server, checker = ext_authz.server(gate)
    if place.socket is None:
        check_port(place.host, place.port, where=str(place))
    try:
        if tls is None:
            bound = server.add_insecure_port(str(place))
        else:
            pair = tls.key, tls.certificate
            credentials = grpc.ssl_server_credentials([pair], tls.authority, require_client_auth=True)
            bound = server.add_secure_port(str(place), credentials)
    except RuntimeError as error:
        raise EnvironmentFault(Code.PORT_UNAVAILABLE, "cannot listen here", where=str(place)) from error
    await server.start()
    await checker.set("", ext_authz.SERVING)
    try:
        yield bound if place.socket is None else None
    finally:
        await server.stop(_GRACE_S)


@contextlib.asynccontextmanager
async def _http(gate: Gate, place: Place) -> AsyncGenerator[int | None]:
    check_port(place.host, place.port, where=str(place))
    try:
        server = await asyncio.start_server(HttpGate(gate).serve, place.host, place.port, limit=HEAD_MAX)
    except OSError as error:
        raise EnvironmentFault(Code.PORT_UNAVAILABLE, "cannot listen here", where=str(place)) from error
    async with server:
        found: tuple[str, int] = server.sockets[0].getsockname()[:2]
        yield found[1]
