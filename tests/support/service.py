"""A world's verifier behind real gRPC and mutual TLS on the loopback interface, and attesters' channels to it.

Everything runs in one event loop that advances while a test waits for an answer; so tests are ordinary functions.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import grpc
import grpc.aio
from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.attester.client import Answer, GrpcTransport, Line, Timeouts
from weighbridge.attester.keys import ChannelKey, ensure_keys, load_channel
from weighbridge.proto import limits
from weighbridge.proto.enrolment import EnrolmentChallenge
from weighbridge.proto.terms import SignedTerms
from weighbridge.proto.v1 import attestation_pb2_grpc
from weighbridge.verifier import pki
from weighbridge.verifier.core import Opened, Verifier
from weighbridge.verifier.service import Listening, Options, TlsFiles, serve
from weighbridge.verifier.service_limits import PEER, Limits

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path
    from types import TracebackType

    from support.world import Host, World
    from weighbridge.proto.v1.attestation_pb2 import AttestRequest, AttestResponse
    from weighbridge.verifier.parties_watch import Parties

_T = TypeVar("_T")
_STARTED_S = 10.0
_MUCH = replace(PEER, openings_per_minute=10**6, windows_per_second=10**5)
GENEROUS = Limits(peer=_MUCH, tenant=replace(_MUCH, streams=10**5), total=replace(_MUCH, streams=10**5))
"""A test is faster than any attester."""


class Authority:
    """The channel authority of one verifier, and the attesters that it admitted."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        pki.create_authority(directory, name=directory.name, at=datetime.now(UTC))
        pki.issue_server(directory, hosts=("localhost", "127.0.0.1"), at=datetime.now(UTC))
        self.tls = TlsFiles(
            key=directory / "server-key.pem", certificate=directory / "server.pem", client_ca=directory / "ca.pem"
        )

    @property
    def certificate(self) -> bytes:
        """PEM; what attesters are given."""
        return self.tls.client_ca.read_bytes()

    def admit(self, name: str) -> ChannelKey:
        """The channel key of a new attester, certified."""
        state = self._directory / name
        ensure_keys(state, names=["localhost"], at=datetime.now(UTC))
        certificate = pki.issue_client(self._directory, (state / "channel.csr").read_bytes(), at=datetime.now(UTC))
        (state / "channel.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        return load_channel(state)


@dataclass
class Remote:
    """A verifier at the other end of an attester's line; stands where a host expects a verifier."""

    served: Served
    line: Line

    def open(self, data: bytes, *, peer: bytes = b"") -> EnrolmentChallenge:  # noqa: ARG002 - the channel says it
        return EnrolmentChallenge.parse(self.served.run(self.line.open(data)))

    def prove(self, data: bytes, *, peer: bytes = b"") -> Opened:  # noqa: ARG002 - the channel says it
        opened = self.served.run(self.line.prove(data))
        spot = None if opened.spot is None else opened.spot.encode()
        terms = SignedTerms.open(opened.terms, self.served.world.keys.signing.public_key())
        return Opened(terms, opened.challenge, spot)

    def enrol(self, host: Host) -> None:
        host.enrol(cast("Verifier", self))
        host.log.load(host.model)

    def send(self, data: bytes) -> Answer:
        return self.served.run(self.line.window(data))

    def window(self, host: Host) -> dict[str, Any]:
        """The host's next window, a period later; its verdict."""
        self.served.world.clock.advance(1)
        sealed = host.seal()
        answer = self.send(sealed.evidence)
        host.advance(sealed)
        host.challenge, host.spot = answer.challenge or b"", None if answer.spot is None else answer.spot.encode()
        verdict: dict[str, Any] = json.loads(answer.verdict)
        assert (verdict["seq"], answer.token is not None) == (answer.seq, verdict["outcome"] == "affirmed")
        return verdict

    def resume(self, session: bytes) -> tuple[int, bytes]:
        resumed = self.served.run(self.line.resume(session))
        return resumed.next_seq, resumed.challenge

    def close(self, session: bytes) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.served.run(self.line.close_session(session)))
        return summary

    def cut(self) -> None:
        self.served.run(self.line.disconnect())


@dataclass
class Raw:
    """A stream without an attester's manners: any request, at any time."""

    served: Served
    channel: grpc.aio.Channel
    call: Any = field(init=False)

    def __post_init__(self) -> None:
        self.call = attestation_pb2_grpc.AttestationServiceStub(self.channel).Attest()

    def ask(self, request: AttestRequest) -> AttestResponse:
        """The response to ``request``.

        Raises:
            grpc.aio.AioRpcError: the stream is over.
        """

        async def exchange() -> AttestResponse:
            await self.call.write(request)
            response = await self.call.read()
            if response is grpc.aio.EOF:
                raise grpc.aio.AioRpcError(
                    await self.call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), await self.call.details()
                )
            return cast("AttestResponse", response)

        return self.served.run(exchange())

    def refused(self, request: AttestRequest) -> tuple[str | None, int]:
        """Code and exit status of the refusal of ``request``; its document is whole."""
        response = self.ask(request)
        assert response.WhichOneof("response") == "refusal", response
        document = json.loads(response.refusal.error)
        if document["code"] is not None:
            assert set(document) == {"code", "message", "where", "expected", "got", "clause", "hint"}
        return document["code"], response.refusal.exit_code


class Served:
    """A running server. A context manager; on leaving it, the server has stopped."""

    def __init__(
        self,
        world: World,
        authority: Authority,
        *,
        parties: Parties | None = None,
        options: Options | None = None,
    ) -> None:
        self.world = world
        self.authority = authority
        self.parties = parties
        self.port = 0
        self.listening: Listening | None = None
        self._options = replace(options or Options(bounds=GENEROUS), listening=self._listens)
        self._runner = asyncio.Runner()
        self._stop: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._channels: list[grpc.aio.Channel] = []
        self._lines: list[Line] = []

    def __enter__(self) -> Self:
        self.run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._runner.close()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(work)

    def ask_to_stop(self) -> None:
        assert self._stop is not None
        self._stop.set()

    def stop(self) -> None:
        """Stop the server and wait for it. Does nothing when it has stopped."""
        if self._task is None:
            return
        self.ask_to_stop()
        task, self._task = self._task, None

        async def wait() -> None:
            for line in self._lines:
                await line.disconnect()
            for channel in self._channels:
                await channel.close()
            await task

        self.run(wait())

    def _listens(self, listening: Listening) -> None:
        self.listening = listening

    async def _start(self) -> None:
        self._stop = asyncio.Event()
        started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(
            serve(
                self.world.verifier,
                host="127.0.0.1",
                port=0,
                tls=self.authority.tls,
                started=started.set_result,
                stop=self._stop,
                parties=self.parties,
                options=self._options,
            )
        )
        await asyncio.wait([started, self._task], timeout=_STARTED_S, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            await self._task
        self.port = await started

    def transport(
        self, channel: ChannelKey, *, authority: Authority | None = None, answer: float = 30
    ) -> GrpcTransport:
        return GrpcTransport(
            f"localhost:{self.port}",
            authority=(authority or self.authority).certificate,
            channel=channel,
            timeouts=Timeouts(connect=5, answer=answer),
        )

    def connect(self, channel: ChannelKey) -> Remote:
        """A line as an attester has it, from whoever holds ``channel``."""
        line = self.run(self.transport(channel).connect())
        self._lines.append(line)
        return Remote(self, line)

    def join(self, host: Host, name: str = "attester") -> Remote:
        """Admit a host's attester, connect it, and enrol it."""
        channel = self.authority.admit(name)
        host.peer = channel.peer
        remote = self.connect(channel)
        remote.enrol(host)
        return remote

    def dial(self, channel: ChannelKey | None, *, plain: bool = False) -> grpc.aio.Channel:
        """A gRPC channel, with or without a client's certificate, that may send more than anybody accepts."""

        async def make() -> grpc.aio.Channel:
            options = [("grpc.max_send_message_length", 4 * limits.MESSAGE_MAX), ("grpc.enable_retries", 0)]
            target = f"localhost:{self.port}"
            if plain:
                return grpc.aio.insecure_channel(target, options=options)
            credentials = grpc.ssl_channel_credentials(
                root_certificates=self.authority.certificate,
                private_key=None if channel is None else channel.key,
                certificate_chain=None if channel is None else channel.certificate,
            )
            return grpc.aio.secure_channel(target, credentials, options=options)

        made = self.run(make())
        self._channels.append(made)
        return made

    def raw(self, channel: ChannelKey | None) -> Raw:
        return Raw(self, self.dial(channel))
