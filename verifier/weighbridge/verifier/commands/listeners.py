"""What ``weighbridge serve`` answers beside gRPC, where that is wanted: keys, introspection, health; figures."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.commands.basis import read_authorities
from weighbridge.verifier.http_messages import NO_STORE, Response, Route
from weighbridge.verifier.http_server import HttpServer, listening
from weighbridge.verifier.http_service import HttpService, Identity
from weighbridge.verifier.http_tls import server_context
from weighbridge.verifier.metrics import CONTENT_TYPE, Metrics, Sources
from weighbridge.verifier.result.key_store import TokenKeyStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from datetime import timedelta
    from pathlib import Path

    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.core import Verifier
    from weighbridge.verifier.deployment import Deployment
    from weighbridge.verifier.http_messages import Request
    from weighbridge.verifier.metrics import Ends
    from weighbridge.verifier.parties_watch import Parties
    from weighbridge.verifier.readiness import Readiness
    from weighbridge.verifier.service import Gauges, Listening, TlsFiles
    from weighbridge.verifier.session import SessionState
    from weighbridge.verifier.settings.model import Settings

__all__ = ["new_metrics", "over_http", "over_metrics"]

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
                bearer = settings.relying_parties.listen
                service.identify(
                    Identity(
                        issuer=opened.archive.ledger.key.name,
                        thumbprint=opened.keys.thumbprint,
                        ledger_origin=opened.archive.ledger.key.name,
                        ledger_key=opened.archive.ledger.key.vkey,
                        version=metadata.version("weighbridge"),
                        url=settings.http.url or f"{scheme}://{place.at(port)}",
                        grpc=str(settings.serve.listen.at(bound.port)),
                        services=_SERVICES,
                        bearer=None if bearer is None or bound.bearer is None else str(bearer.at(bound.bearer)),
                        mutual=not plain,
                    )
                )

            yield started
    finally:
        service.close()


def new_metrics() -> Metrics:
    """What counts for this program."""
    return Metrics(version=metadata.version("weighbridge"))


@contextlib.asynccontextmanager
async def over_metrics(
    metrics: Metrics | None,
    *,
    verifier: Verifier,
    opened: Deployment,
    settings: Settings,
    tls: TlsFiles,
    number: int,
    note: Callable[[str], None],
) -> AsyncGenerator[Callable[[Gauges], None]]:
    """Answer the monitoring while the block lasts, where it is configured; give what is to be told what to count.

    Several workers have a port each: every one counts for itself, and whoever reads adds up.

    Args:
        metrics: what counts.
        verifier: what judges.
        opened: its state.
        settings: where to listen.
        tls: the certificates that are in use from now on.
        number: of this worker.
        note: takes lines for the operator.

    Raises:
        EnvironmentFault: ``PORT_UNAVAILABLE``, ``FILE_UNREADABLE``.
        MalformedEvidence: ``CERT_MALFORMED`` for a file of certificates that is none.
    """
    place = settings.metrics.listen
    if place is None or metrics is None:
        yield lambda _: None
        return
    latest = opened.archive.latest()
    metrics.look_at(
        Sources(
            sessions=partial(_sessions, opened),
            waiting=partial(_waiting, opened, settings.store.kept),
            entries=lambda: opened.archive.ledger.published().checkpoint.size,
            latest=0 if latest is None else nanoseconds(latest),
            junk=lambda: verifier.junk,
            ends=_ends(tls, TokenKeyStore(opened.keys)),
        )
    )
    gauges: list[Gauges] = []
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")

    async def answer(request: Request) -> Response:  # noqa: ARG001 - one is as the other
        now: Mapping[str, tuple[str, float]] = gauges[0]() if gauges else {}
        text = await asyncio.get_running_loop().run_in_executor(thread, metrics.text, now)
        return Response(headers={"content-type": CONTENT_TYPE, **NO_STORE}, body=text)

    try:
        own = place.at(place.port + number) if place.port else place
        async with listening(HttpServer({"/metrics": Route(answer)}), own, tls=None) as port:
            note(f"figures on http://{own.at(port)}/metrics")
            yield gauges.append
    finally:
        thread.shutdown()


def _ends(tls: TlsFiles, keys: TokenKeyStore) -> Callable[[], Mapping[Ends, float]]:
    """What tells when certificates end: those that are in use, which a file that is renewed does not change."""

    def first(*files: Path) -> float:
        return min(one.not_valid_after_utc.timestamp() for file in files for one in read_authorities(file))

    found: dict[Ends, float] = {
        # Of the chain, what is the server's own comes first.
        "server": read_authorities(tls.certificate)[0].not_valid_after_utc.timestamp(),
        "attester_ca": first(tls.client_ca, *tls.attester_cas),
    }
    if tls.relying_party_ca is not None:
        found["relying_party_ca"] = first(tls.relying_party_ca)

    def ends() -> dict[Ends, float]:
        # Of keys that follow one another, the last: after it none is left but the identity, which does not end.
        last = [key.not_after.timestamp() for key in keys.known() if key.retired is None]
        return {**found, "token_key": max(last)} if last else found

    return ends


def _sessions(opened: Deployment) -> dict[SessionState, int]:
    with opened.store.reading() as tx:
        return tx.sessions_by_state()


def _waiting(opened: Deployment, keep: timedelta | None) -> int:
    if keep is None:
        return 0
    before_ns = nanoseconds(datetime.now(UTC) - keep)
    return opened.store.look(lambda tx: tx.endings.count(before_ns=before_ns))
