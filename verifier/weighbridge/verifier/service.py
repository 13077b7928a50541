"""The verifier as a server: attestation and results on one port, over mutual TLS, until it is told to end.

Roles are told apart by key (:mod:`.peers`). Relying parties that have a token and no certificate are served on a port
of their own: there no certificate is asked for, so nobody can attest there.

What strangers can cost before they have said who they are is bounded here, by gRPC itself: connections, the time for
TLS, silence. What peers can, by :mod:`.quotas`. On ending, readiness is taken back first, then no stream is begun any
more, what was read is judged and answered, and all streams end; attesters resume elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError
from weighbridge.proto.v1 import attestation_pb2, attestation_pb2_grpc, results_pb2, results_pb2_grpc
from weighbridge.verifier.attestation_service import AttestationService
from weighbridge.verifier.notices import Notices, warn
from weighbridge.verifier.observed import UNOBSERVED, Observer
from weighbridge.verifier.parties_watch import PartiesWatch
from weighbridge.verifier.peers import Peers, authorities
from weighbridge.verifier.ports import check_port
from weighbridge.verifier.quotas import Quotas
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.result_service import ResultService
from weighbridge.verifier.service_limits import Limits
from weighbridge.verifier.side_services import Health, Reflection

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.verifier.core import Verifier
    from weighbridge.verifier.parties_watch import Parties
    from weighbridge.verifier.standings import Standings

Gauges = Callable[[], Mapping[str, tuple[str, float]]]

__all__ = ["Gauges", "Listening", "Options", "TlsFiles", "serve"]

# For what is on its way when everything has been answered.
_GRACE: Final = 0.5
# Of one connection: a relying party's calls and watches.
_STREAMS_MAX: Final = 128
# Health and reflection, of all peers.
_ASIDE: Final = 1024
_MILLISECONDS: Final = 1000
# Bytes that a connection has ready to be read into: one of the pieces in which gRPC takes them. It would be eight.
_READ_BUFFER: Final = 8_192
# Most bytes of a TLS record that is sent, and so of a buffer that each connection has for it: an answer takes three.
_TLS_RECORD: Final = 2_048
_PING_MS: Final = 5_000
_PING_STRIKES: Final = 2
_PARTIES_PERIOD: Final = 1.0


@final
class TlsFiles:
    """Paths of PEM files: the server's key and certificate, and the authorities that issue peers' certificates.

    ``client_ca`` issues attesters' and may issue relying parties'; ``relying_party_ca`` those of relying parties alone;
    ``attester_cas`` those of attesters of some tenants.
    """

    def __init__(
        self,
        *,
        key: Path,
        certificate: Path,
        client_ca: Path,
        relying_party_ca: Path | None = None,
        attester_cas: tuple[Path, ...] = (),
    ) -> None:
        self.key = key
        self.certificate = certificate
        self.client_ca = client_ca
        self.relying_party_ca = relying_party_ca
        self.attester_cas = attester_cas

    def with_authorities(self, relying_parties: Path | None, attesters: tuple[Path, ...] = ()) -> TlsFiles:
        """The same, with an authority for relying parties, and some for attesters of some tenants."""
        return TlsFiles(
            key=self.key,
            certificate=self.certificate,
            client_ca=self.client_ca,
            relying_party_ca=relying_parties,
            attester_cas=attesters,
        )

    def credentials(self) -> grpc.ServerCredentials:
        """Mutual TLS: a peer without a certificate from one of the authorities does not get a stream.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        given = (self.client_ca, self.relying_party_ca, *self.attester_cas)
        roots = b"\n".join(_read(path) for path in given if path is not None)
        pair = _read(self.key), _read(self.certificate)
        return grpc.ssl_server_credentials([pair], roots, require_client_auth=True)

    def server_only(self) -> grpc.ServerCredentials:
        """TLS that asks for no certificate: for those who show a token.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        return grpc.ssl_server_credentials([(_read(self.key), _read(self.certificate))])

    def peers(self, parties: Parties) -> Peers:
        """Tells attesters from relying parties, where there is more than one authority by who issued what.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
            MalformedEvidence: ``CERT_MALFORMED``.
        """
        if self.relying_party_ca is None and not self.attester_cas:
            return Peers(parties)
        if self.relying_party_ca is not None:
            authorities(_read(self.relying_party_ca), where=str(self.relying_party_ca))
        own = (self.client_ca, *self.attester_cas)
        return Peers(parties, [found for path in own for found in authorities(_read(path), where=str(path))])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, f"cannot read TLS material: {error.strerror}", where=str(path)
        ) from error


@dataclass(frozen=True, slots=True)
class Listening:
    """The ports that were bound; ``bearer`` is that for relying parties with tokens, if they have one."""

    port: int
    bearer: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be chosen of a service, beyond where it listens.

    Attributes:
        bounds: how much of each may be had.
        bearer: where relying parties are served that have a token and no certificate; nowhere by default.
        shared: other processes listen on the same port (``SO_REUSEPORT``).
        listening: called with all ports once the server listens.
        draining: called when it has begun to end: it is not ready any more.
        observer: told of what is refused.
        measured: called with what counts, whenever it is called, what there is at that moment, by name; each with what
            it is. It is of the service's event loop.
    """

    bounds: Limits = field(default_factory=Limits)
    bearer: tuple[str, int] | None = None
    shared: bool = False
    listening: Callable[[Listening], None] = lambda _: None
    draining: Callable[[], None] = lambda: None
    observer: Observer = UNOBSERVED
    measured: Callable[[Gauges], None] = lambda _: None


async def serve(
    verifier: Verifier,
    *,
    host: str,
    port: int,
    tls: TlsFiles,
    started: Callable[[int], None],
    stop: asyncio.Event,
    parties: Parties | None = None,
    options: Options | None = None,
) -> None:
    """Serve until ``stop`` is set; then take nothing new, answer what was read, and end.

    Args:
        verifier: used from one thread.
        host: address to listen on.
        port: 0 for any free one.
        tls: mutual TLS material.
        started: called with the port once the server listens.
        stop: set to end.
        parties: who may ask for results; nobody by default.
        options: what else may be chosen.

    Raises:
        EnvironmentFault: ``PORT_UNAVAILABLE``, ``FILE_UNREADABLE``.
        MalformedEvidence: ``CERT_MALFORMED`` for a file of authorities that is none.
        Exception: what a part of it has failed with that runs beside the answers.
    """
    options = options or Options()
    bounds, shared = options.bounds, options.shared
    parties = parties or RelyingParties.none()
    peers = tls.peers(parties)
    notices = Notices(warn)
    quotas = Quotas(bounds, over=lambda session: _is_over(verifier.standings, session))
    service = AttestationService(verifier, peers, quotas, notices, options.observer)
    results = ResultService(verifier.results, peers, quotas)
    server = _server(bounds, shared=shared)
    attestation_pb2_grpc.add_AttestationServiceServicer_to_server(service, server)
    results_pb2_grpc.add_ResultServiceServicer_to_server(results, server)
    checker = Health(quotas)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    names = (
        attestation_pb2.DESCRIPTOR.services_by_name["AttestationService"].full_name,
        results_pb2.DESCRIPTOR.services_by_name["ResultService"].full_name,
        health.SERVICE_NAME,
        reflection.SERVICE_NAME,
    )
    Reflection(names, quotas).add_to(server)
    servers = [server]
    bound = Listening(_listen(server, host, port, tls.credentials(), shared=shared))
    if options.bearer is not None:
        # Whoever is there has not shown a certificate: results are all that there is.
        beside = _server(bounds, shared=shared)
        results_pb2_grpc.add_ResultServiceServicer_to_server(results, beside)
        bound = replace(bound, bearer=_listen(beside, *options.bearer, tls.server_only(), shared=shared))
        servers.append(beside)
    for one in servers:
        await one.start()
    await checker.set("", health_pb2.HealthCheckResponse.SERVING)
    works = [service.record_junk(), service.refresh(), service.prune(), results.follow()]
    if isinstance(parties, PartiesWatch):
        works.append(_look(parties))
    chores = [asyncio.create_task(work) for work in works]
    for chore in chores:
        chore.add_done_callback(partial(_ended, stop))
    options.measured(partial(_measured, service, quotas))
    try:
        started(bound.port)
        options.listening(bound)
        await stop.wait()
    finally:
        for chore in chores:
            chore.cancel()
        options.draining()
        await checker.enter_graceful_shutdown()
        # New connections are refused from here on; streams that there are go on to be answered.
        stopping = [asyncio.create_task(one.stop(bounds.drain)) for one in servers]
        results.end()
        await service.drain(bounds.drain)
        await service.settled()
        for one in servers:
            await one.stop(_GRACE)
        await asyncio.gather(*stopping)
        service.close()
        results.close()
    for ended in await asyncio.gather(*chores, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


def _ended(stop: asyncio.Event, chore: asyncio.Task[None]) -> None:
    """A service that does not take up what was revoked is none: it ends when a chore has failed."""
    if not chore.cancelled() and (error := chore.exception()) is not None:
        warn(f"the service ends, for a part of it has failed: {type(error).__name__}: {error}")
        stop.set()


def _measured(service: AttestationService, quotas: Quotas) -> dict[str, tuple[str, float]]:
    return {
        "queue": ("Requests that wait for the thread that judges.", service.waiting),
        "streams": ("Attesters' streams.", quotas.streams.total),
        "stream_sessions": ("Sessions that count for the limits.", quotas.sessions.total),
        "bytes_in_flight": ("Bytes of requests that are not answered yet.", quotas.bytes.total),
        "calls": ("Calls and watches of relying parties and gates.", quotas.calls.total),
        "credit_windows": ("Windows that an attester may have under way on one stream.", quotas.limits.credit),
    }


async def _look(parties: PartiesWatch) -> None:
    while True:
        await asyncio.sleep(_PARTIES_PERIOD)
        parties.look()


def _server(bounds: Limits, *, shared: bool) -> grpc.aio.Server:
    """A server that strangers cannot exhaust: each option bounds what one of them, or all, can hold."""

    def milliseconds(seconds: float) -> int:
        return round(seconds * _MILLISECONDS)

    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.MESSAGE_MAX),
            ("grpc.max_send_message_length", limits.MESSAGE_MAX),
            ("grpc.max_concurrent_streams", _STREAMS_MAX),
            ("grpc.max_allowed_incoming_connections", bounds.connections),
            # TCP, TLS and the first frames of HTTP/2: whoever has not come so far by then is let go.
            ("grpc.server_handshake_timeout_ms", milliseconds(bounds.handshake)),
            ("grpc.max_connection_idle_ms", milliseconds(bounds.connection_idle)),
            ("grpc.keepalive_time_ms", milliseconds(bounds.keepalive)),
            ("grpc.keepalive_timeout_ms", milliseconds(bounds.keepalive_timeout)),
            ("grpc.keepalive_permit_without_calls", 1),
            # Attesters and relying parties ping every 10 s; whoever pings faster is let go.
            ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS),
            ("grpc.http2.max_ping_strikes", _PING_STRIKES),
            ("grpc.max_metadata_size", bounds.metadata_bytes),
            ("grpc.absolute_max_metadata_size", bounds.metadata_bytes),
            # With it a stream's window grows to megabytes, whether anybody reads it or not.
            ("grpc.http2.bdp_probe", 0),
            # What a connection keeps while nothing comes: without these, what its largest reads and writes have taken.
            ("grpc.experimental.tcp_max_read_buffer_size", _READ_BUFFER),
            ("grpc.tsi.max_frame_size", _TLS_RECORD),
            # Nobody is told of connections and calls by gRPC itself.
            ("grpc.enable_channelz", 0),
            ("grpc.so_reuseport", 1 if shared else 0),
        ],
        maximum_concurrent_rpcs=bounds.total.streams + bounds.total.calls + _ASIDE,
    )


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials, *, shared: bool) -> int:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not shared:
        check_port(host, port, where=place)
    try:
        return server.add_secure_port(place, credentials)
    except RuntimeError as error:
        raise EnvironmentFault(
            Code.PORT_UNAVAILABLE,
            "cannot listen here",
            where=place,
            hint="does the certificate in STATE/tls fit its key?",
        ) from error


def _is_over(standings: Standings, session: bytes) -> bool:
    """Whether it is known to have ended."""
    try:
        return standings.of(session).state.final
    except WeighbridgeError:
        return False
