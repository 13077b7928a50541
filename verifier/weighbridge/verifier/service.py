"""The gRPC face of the verifier: one long-lived stream per attester, over mutual TLS.

This module only moves bytes: it names the peer by its TLS key, hands messages to :class:`~.core.Verifier` one at a
time in one thread, and turns answers into messages. protobuf goes no further in. Windows that came while the thread was
busy are judged one after the other and then settled together.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.v1 import attestation_pb2, attestation_pb2_grpc, results_pb2, results_pb2_grpc
from weighbridge.verifier.peers import Peers, authorities
from weighbridge.verifier.ports import check_port
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.result_service import ResultService
from weighbridge.verifier.settling import Judged
from weighbridge.verifier.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Sequence
    from pathlib import Path

    from weighbridge.verifier.core import Settled, Verifier

__all__ = ["AttestationService", "TlsFiles", "serve"]

_T = TypeVar("_T")
_JUNK_PERIOD: Final = 60.0
# Windows look for changed reference values themselves; this is for when none comes.
_REFRESH_PERIOD: Final = 1.0
# For answers that are on their way; attesters resume by themselves.
_GRACE: Final = 0.5
_STREAMS_MAX: Final = 1024
# So long are windows judged before those that have been are recorded: whoever came first waits no longer than that.
_TURN: Final = 0.01
_SESSION_SIZE: Final = 16


@final
class TlsFiles:
    """Paths of PEM files: the server's key and certificate, and the authorities that issue peers' certificates.

    ``client_ca`` issues attesters' and may issue relying parties'; ``relying_party_ca`` those of relying parties alone.
    """

    def __init__(self, *, key: Path, certificate: Path, client_ca: Path, relying_party_ca: Path | None = None) -> None:
        self.key = key
        self.certificate = certificate
        self.client_ca = client_ca
        self.relying_party_ca = relying_party_ca

    def with_relying_parties(self, authority: Path | None) -> TlsFiles:
        """The same, with an authority for relying parties."""
        return TlsFiles(
            key=self.key, certificate=self.certificate, client_ca=self.client_ca, relying_party_ca=authority
        )

    def credentials(self) -> grpc.ServerCredentials:
        """Mutual TLS: a peer without a certificate from one of the authorities does not get a stream.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        roots = _read(self.client_ca)
        if self.relying_party_ca is not None:
            roots += b"\n" + _read(self.relying_party_ca)
        pair = _read(self.key), _read(self.certificate)
        return grpc.ssl_server_credentials([pair], roots, require_client_auth=True)

    def peers(self, parties: RelyingParties) -> Peers:
        """Tells attesters from relying parties.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
            MalformedEvidence: ``CERT_MALFORMED``.
        """
        if self.relying_party_ca is None:
            return Peers(parties)
        authorities(_read(self.relying_party_ca), where=str(self.relying_party_ca))
        return Peers(parties, authorities(_read(self.client_ca), where=str(self.client_ca)))


@final
class AttestationService(attestation_pb2_grpc.AttestationServiceServicer):
    """Serves ``AttestationService.Attest``."""

    def __init__(self, verifier: Verifier, peers: Peers) -> None:
        self._verifier = verifier
        self._peers = peers
        # The verifier is one caller at a time; a thread of its own keeps the event loop answering.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="verifier")
        self._turns = Turns(self._thread, self._turn)
        self._fault = ""

    async def Attest(
        self,
        request_iterator: AsyncIterator[attestation_pb2.AttestRequest],
        context: grpc.aio.ServicerContext[attestation_pb2.AttestRequest, attestation_pb2.AttestResponse],
    ) -> AsyncIterator[attestation_pb2.AttestResponse]:
        """One stream: requests in, exactly one response each, in order."""
        try:
            peer = self._peers.attester(context.auth_context().get("x509_pem_cert", []))
        except NotAuthentic as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        stream = _Stream(self._verifier, peer)
        async for request in request_iterator:
            if request.HasField("window"):
                yield await self._turns.take(_Sent(stream, request.window), sender=stream.sender)
            else:
                yield await self._run(partial(stream.handle, request))

    async def record_junk(self) -> None:
        """Enter counted junk into the ledger, once per period, for as long as the task runs."""
        while True:
            await asyncio.sleep(_JUNK_PERIOD)
            await self._run(self._record_junk)

    async def refresh(self) -> None:
        """Look for changed reference values once per period, for as long as the task runs."""
        while True:
            await asyncio.sleep(_REFRESH_PERIOD)
            await self._run(self._refresh)

    async def settled(self) -> None:
        """Return when every request that came before has been judged."""
        await self._turns.done()
        await self._run(lambda: None)

    def _turn(self, windows: Sequence[_Sent]) -> list[attestation_pb2.AttestResponse]:
        """Judge windows one by one, as many as there is time for, and settle them together; their responses."""
        outcomes: list[Judged | attestation_pb2.AttestResponse] = []
        judged: list[Judged] = []
        until = time.monotonic() + _TURN
        for sent in windows:
            outcomes.append(_guarded(partial(sent.stream.judge, sent.window, judged)))
            judged = [item for item in outcomes if isinstance(item, Judged)]
            if time.monotonic() > until:
                break
        settled = _guarded(partial(self._verifier.settle, judged))
        if isinstance(settled, attestation_pb2.AttestResponse):
            # Nothing was recorded for certain: all of them may come again.
            return [settled if isinstance(item, Judged) else item for item in outcomes]
        answers = iter(settled)
        return [_guarded(partial(_answer, next(answers))) if isinstance(item, Judged) else item for item in outcomes]

    async def _run(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """Wait for the judgement in progress and record what junk is left."""
        self._thread.submit(self._record_junk).result()
        self._thread.shutdown()

    def _refresh(self) -> None:
        """Told once, not every second: the next window is refused for the same reason."""
        fault = ""
        try:
            self._verifier.refresh()
        except EnvironmentFault as error:
            fault = str(error)
        if fault not in {"", self._fault}:
            _report(f"nothing is judged for now: {fault}")
        self._fault = fault

    def _record_junk(self) -> None:
        try:
            self._verifier.record_junk()
        except WeighbridgeError as error:
            # What was counted is kept for the next time; nobody's window depends on it.
            _report(f"junk is not recorded yet: {error}")


@final
class _Stream:
    """One attester's stream: which session it speaks for, and whether it said so."""

    def __init__(self, verifier: Verifier, peer: bytes) -> None:
        self._verifier = verifier
        self._peer = peer
        self._session: bytes | None = None

    @property
    def sender(self) -> Hashable:
        """The session that it speaks for: another stream may, too, that has taken its place."""
        return id(self) if self._session is None else self._session

    def handle(self, request: attestation_pb2.AttestRequest) -> attestation_pb2.AttestResponse:
        """The response to anything but a window."""
        # What no session answers for is counted. Of windows the verifier keeps count itself.
        return _guarded(partial(self._handle, request), junk=self._verifier.count_junk)

    def judge(self, window: bytes, beside: Sequence[Judged]) -> Judged:
        return self._verifier.judge(self._own(), window, peer=self._peer, beside=beside)

    def _handle(self, request: attestation_pb2.AttestRequest) -> attestation_pb2.AttestResponse:
        match request.WhichOneof("request"):
            case "opening":
                challenge = self._verifier.open(request.opening, peer=self._peer)
                return attestation_pb2.AttestResponse(challenge=challenge.encode())
            case "proof":
                opened = self._verifier.prove(request.proof, peer=self._peer)
                self._session = opened.terms.terms.session
                message = attestation_pb2.Opened(terms=opened.terms.raw, challenge=opened.challenge, spot=opened.spot)
                return attestation_pb2.AttestResponse(opened=message)
            case "resume":
                session = _session_of(request.resume)
                resumed = self._verifier.resume(session, peer=self._peer)
                self._session = session
                state = attestation_pb2.Resumed(
                    next_seq=resumed.next_seq, challenge=resumed.challenge, spot=resumed.spot
                )
                return attestation_pb2.AttestResponse(resumed=state)
            case "close":
                session = _session_of(request.close)
                if session != self._own():
                    raise NotAuthentic(
                        Code.WINDOW_SESSION, "this stream has another session", where="close.session", got=session
                    )
                summary = self._verifier.close(session, peer=self._peer)
                self._session = None
                return attestation_pb2.AttestResponse(
                    closed=attestation_pb2.Closed(summary=strict.json_encode(summary))
                )
            case _:
                raise MalformedEvidence(
                    Code.FIELD_MISSING, "the request is empty or of a later version", where="request"
                )

    def _own(self) -> bytes:
        if self._session is None:
            raise NotAuthentic(
                Code.SESSION_UNKNOWN, "this stream has no session", where="stream", hint="enrol or resume first"
            )
        return self._session


@dataclass(frozen=True, slots=True)
class _Sent:
    """A window, and the stream that it came over."""

    stream: _Stream
    window: bytes


def _guarded(
    call: Callable[[], _T], *, junk: Callable[[WeighbridgeError], None] | None = None
) -> _T | attestation_pb2.AttestResponse:
    """What ``call`` returns, or the refusal that it comes to; ``junk`` counts what was not well-formed or genuine."""
    try:
        return call()
    except WeighbridgeError as error:
        if isinstance(error, EnvironmentFault):
            _report(f"nothing was judged: {error}")
        elif junk is not None and isinstance(error, MalformedEvidence | NotAuthentic):
            junk(error)
        return _refusal(error)
    except Exception as error:  # noqa: BLE001 - one of the two places: the answer is "refused", never "go on"
        return _internal(error)


def _answer(settled: Settled) -> attestation_pb2.AttestResponse:
    answer = settled()
    message = attestation_pb2.Answer(
        seq=answer.verdict.seq,
        verdict=answer.verdict.encode(),
        token=answer.token,
        challenge=answer.challenge,
        spot=answer.spot,
    )
    return attestation_pb2.AttestResponse(answer=message)


def _session_of(message: attestation_pb2.Resume | attestation_pb2.Close) -> bytes:
    if len(message.session) != _SESSION_SIZE:
        where = f"{type(message).__name__.lower()}.session"
        raise MalformedEvidence(Code.FIELD_RANGE, "a session has 16 bytes", where=where, got=len(message.session))
    return message.session


def _report(line: str) -> None:
    """Tell the operator, on standard error."""
    print(f"weighbridge: warning: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the log of a long-running command


def _refusal(error: WeighbridgeError) -> attestation_pb2.AttestResponse:
    document = strict.json_encode(error.document())
    refusal = attestation_pb2.Refusal(error=document, exit_code=error.exit_code.value)
    return attestation_pb2.AttestResponse(refusal=refusal)


def _internal(error: Exception) -> attestation_pb2.AttestResponse:
    """A defect of ours: told without detail to the peer, in full to the operator."""
    import traceback  # noqa: PLC0415 - only when something is broken

    traceback.print_exception(error)
    document = {"code": None, "message": f"internal error: {type(error).__name__}"}
    refusal = attestation_pb2.Refusal(error=strict.json_encode(document), exit_code=ExitCode.INTERNAL.value)
    return attestation_pb2.AttestResponse(refusal=refusal)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, f"cannot read TLS material: {error.strerror}", where=str(path)
        ) from error


async def serve(
    verifier: Verifier,
    *,
    host: str,
    port: int,
    tls: TlsFiles,
    started: Callable[[int], None],
    stop: asyncio.Event,
    parties: RelyingParties | None = None,
) -> None:
    """Serve until ``stop`` is set, then finish the judgement in progress.

    Args:
        verifier: used from one thread.
        host: address to listen on.
        port: 0 for any free one.
        tls: mutual TLS material.
        started: called with the port once the server listens.
        stop: set to end.
        parties: who may ask for results; nobody by default.

    Raises:
        EnvironmentFault: ``PORT_UNAVAILABLE``, ``FILE_UNREADABLE``.
        MalformedEvidence: ``CERT_MALFORMED`` for a file of authorities that is none.
    """
    peers = tls.peers(parties or RelyingParties.none())
    service = AttestationService(verifier, peers)
    results = ResultService(verifier.results, peers)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.MESSAGE_MAX),
            ("grpc.max_send_message_length", limits.MESSAGE_MAX),
            ("grpc.max_concurrent_streams", _STREAMS_MAX),
            ("grpc.so_reuseport", 0),
        ]
    )
    attestation_pb2_grpc.add_AttestationServiceServicer_to_server(service, server)
    results_pb2_grpc.add_ResultServiceServicer_to_server(results, server)
    checker = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    names = (
        attestation_pb2.DESCRIPTOR.services_by_name["AttestationService"].full_name,
        results_pb2.DESCRIPTOR.services_by_name["ResultService"].full_name,
        health.SERVICE_NAME,
        reflection.SERVICE_NAME,
    )
    reflection.enable_server_reflection(names, server)
    credentials = tls.credentials()
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    check_port(host, port, where=place)
    try:
        bound = server.add_secure_port(place, credentials)
    except RuntimeError as error:
        raise EnvironmentFault(
            Code.PORT_UNAVAILABLE,
            "cannot listen here",
            where=place,
            hint="does the certificate in STATE/tls fit its key?",
        ) from error
    await server.start()
    await checker.set("", health_pb2.HealthCheckResponse.SERVING)
    chores = [asyncio.create_task(work) for work in (service.record_junk(), service.refresh(), results.follow())]
    try:
        started(bound)
        await stop.wait()
    finally:
        for chore in chores:
            chore.cancel()
        await checker.enter_graceful_shutdown()
        await service.settled()
        await server.stop(_GRACE)
        service.close()
        results.close()
