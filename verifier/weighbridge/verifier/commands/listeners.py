"""What ``weighbridge serve`` answers beside gRPC: keys, discovery, introspection and health, each if it is wanted."""

from __future__ import annotations

import contextlib
from importlib import metadata
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.http_server import HttpServer, listening
from weighbridge.verifier.http_service import HttpService, Identity
from weighbridge.verifier.http_tls import server_context
from weighbridge.verifier.result.key_store import TokenKeyStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.core import Verifier
    from weighbridge.verifier.deployment import Deployment
    from weighbridge.verifier.parties_watch import Parties
    from weighbridge.verifier.readiness import Readiness
    from weighbridge.verifier.service import Listening, TlsFiles
    from weighbridge.verifier.settings.model import Settings

__all__ = ["over_http"]

_SERVICES: Final = ("weighbridge.proto.v1.AttestationService", "weighbridge.proto.v1.ResultService")


@contextlib.asynccontextmanager
async def over_http(
    *,
    verifier: Verifier,
    opened: Deployment,
    clock: Clock,
    settings: Settings,
    tls: TlsFiles,
    parties: Parties,
    readiness: Readiness,
    note: Callable[[str], None],
) -> AsyncGenerator[Callable[[Listening], None]]:
    """Answer over HTTP while the block lasts, where that is configured; give what is to be told the ports over gRPC.

    Raises:
        EnvironmentFault: ``PORT_UNAVAILABLE``, ``FILE_UNREADABLE``.
    """
    place = settings.http.listen
    if place is None:
        yield lambda _: None
        return
    plain = settings.http.plain
    service = HttpService(
        keys=TokenKeyStore(opened.keys),
        standings=verifier.standings,
        clock=clock,
        peers=tls.peers(parties),
        readiness=readiness,
    )
    server = HttpServer(service.routes())
    shared = settings.serve.workers > 1
    try:
        async with listening(server, place, tls=None if plain else server_context(tls), shared=shared) as port:
            scheme = "http" if plain else "https"
            note(f"answering {scheme} on {place.at(port)}")

            def started(bound: Listening) -> None:
                host = settings.serve.listen
                service.identify(
                    Identity(
                        issuer=opened.archive.ledger.key.name,
                        thumbprint=opened.keys.thumbprint,
                        ledger_origin=opened.archive.ledger.key.name,
                        ledger_key=opened.archive.ledger.key.vkey,
                        version=metadata.version("weighbridge"),
                        url=settings.http.url or f"{scheme}://{place.at(port)}",
                        grpc=str(host.at(bound.port)),
                        services=_SERVICES,
                        bearer=None if bound.bearer is None else str(host.at(bound.bearer)),
                        mutual=not plain,
                    )
                )

            yield started
    finally:
        service.close()
