"""The line to the verifier over real gRPC and mutual TLS on loopback: answers, refusals, silence, cuts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.attester.client import Answer, GrpcTransport, Line, Opened, Resumed, Timeouts
from weighbridge.attester.keys import ensure_keys, load_channel
from weighbridge.attester.refusal import Throttled
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.spot import SpotChallenge, SpotRange
from weighbridge.proto.v1 import attestation_pb2 as pb
from weighbridge.proto.v1 import attestation_pb2_grpc
from weighbridge.verifier.pki import create_authority, issue_client, issue_server

pytestmark = pytest.mark.asyncio

CHALLENGE = bytes(range(32))
SESSION = bytes(16)
SPOT = SpotChallenge(id=bytes(16), manifest=bytes(32), key=bytes(32), ranges=(SpotRange("model.safetensors", 0, 1),))
Handler = Callable[[pb.AttestRequest], pb.AttestResponse | None]


@dataclass
class Scripted(attestation_pb2_grpc.AttestationServiceServicer):
    """Answers as the test says; ``None`` is silence."""

    handler: Handler
    requests: list[pb.AttestRequest] = field(default_factory=list)
    end: asyncio.Event = field(default_factory=asyncio.Event)
    abort: grpc.StatusCode | None = None

    async def Attest(
        self,
        request_iterator: AsyncIterator[pb.AttestRequest],
        context: grpc.aio.ServicerContext[pb.AttestRequest, pb.AttestResponse],
    ) -> AsyncIterator[pb.AttestResponse]:
        if self.abort is not None:
            await context.abort(self.abort, "not you")
        async for request in request_iterator:
            self.requests.append(request)
            response = self.handler(request)
            if response is None:
                await self.end.wait()
                return
            yield response


class Peers:
    """A server and what an attester needs to reach it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        at = datetime.now(UTC)
        create_authority(directory, name="test", at=at)
        issue_server(directory, hosts=("localhost",), at=at)
        ensure_keys(directory / "state", names=["localhost"], at=at)
        certificate = issue_client(directory, (directory / "state" / "channel.csr").read_bytes(), at=at)
        (directory / "state" / "channel.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        self.channel = load_channel(directory / "state")
        self.ca = (directory / "ca.pem").read_bytes()
        self.port = 0
        self.server: grpc.aio.Server | None = None
        self.service = Scripted(lambda _: None)

    async def start(self) -> None:
        self.server = grpc.aio.server()
        attestation_pb2_grpc.add_AttestationServiceServicer_to_server(self.service, self.server)
        key, certificate = ((self.directory / name).read_bytes() for name in ("server-key.pem", "server.pem"))
        credentials = grpc.ssl_server_credentials([(key, certificate)], self.ca, require_client_auth=True)
        self.port = self.server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self.server.start()

    async def stop(self) -> None:
        self.service.end.set()
        if self.server is not None:
            await self.server.stop(0)
            self.server = None

    def transport(
        self, *, host: str = "localhost", ca: bytes | None = None, answer: float = 5.0, connect: float = 5.0
    ) -> GrpcTransport:
        return GrpcTransport(
            f"{host}:{self.port}",
            authority=ca or self.ca,
            channel=self.channel,
            timeouts=Timeouts(connect=connect, answer=answer),
        )


@pytest_asyncio.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    made = Peers(tmp_path)
    await made.start()
    yield made
    await made.stop()


def good(request: pb.AttestRequest) -> pb.AttestResponse:
    match request.WhichOneof("request"):
        case "opening":
            return pb.AttestResponse(challenge=b"challenge")
        case "proof":
            return pb.AttestResponse(opened=pb.Opened(terms=b"terms", challenge=CHALLENGE))
        case "resume":
            return pb.AttestResponse(resumed=pb.Resumed(next_seq=0, challenge=CHALLENGE))
        case "window":
            return pb.AttestResponse(answer=pb.Answer(seq=0, verdict=b"{}", token="t", challenge=CHALLENGE))
        case _:
            return pb.AttestResponse(closed=pb.Closed(summary=b"{}"))


async def test_every_request_has_its_answer(peers: Peers) -> None:
    peers.service.handler = good
    line = await peers.transport().connect()
    assert await line.open(b"opening") == b"challenge"
    assert await line.prove(b"proof") == Opened(b"terms", CHALLENGE)
    assert await line.resume(SESSION) == Resumed(0, CHALLENGE)
    assert await line.window(b"window") == Answer(0, b"{}", "t", CHALLENGE)
    assert await line.close_session(SESSION) == b"{}"
    assert [request.WhichOneof("request") for request in peers.service.requests] == [
        "opening",
        "proof",
        "resume",
        "window",
        "close",
    ]
    await line.disconnect()
    await line.disconnect()


async def test_a_spot_challenge_comes_with_each_challenge(peers: Peers) -> None:
    raw = SPOT.encode()
    responses = {
        "proof": pb.AttestResponse(opened=pb.Opened(terms=b"terms", challenge=CHALLENGE, spot=raw)),
        "resume": pb.AttestResponse(resumed=pb.Resumed(next_seq=0, challenge=CHALLENGE, spot=raw)),
        "window": pb.AttestResponse(answer=pb.Answer(seq=0, verdict=b"{}", challenge=CHALLENGE, spot=raw)),
    }
    peers.service.handler = lambda request: responses[request.WhichOneof("request") or ""]
    line = await peers.transport().connect()
    assert await line.prove(b"proof") == Opened(b"terms", CHALLENGE, SPOT)
    assert await line.resume(SESSION) == Resumed(0, CHALLENGE, SPOT)
    assert await line.window(b"window") == Answer(0, b"{}", None, CHALLENGE, SPOT)
    await line.disconnect()


async def test_as_many_windows_are_under_way_as_the_verifier_gives_credit_for(peers: Peers) -> None:
    """Written one after the other, answered in order; absent and 0 are 1, and nobody is believed beyond 64."""
    given: dict[bytes, int | None] = {b"none": None, b"zero": 0, b"five": 5, b"many": 2**32 - 1}

    def handler(request: pb.AttestRequest) -> pb.AttestResponse:
        if request.HasField("window"):
            return pb.AttestResponse(answer=pb.Answer(seq=request.window[0], verdict=b"{}", challenge=CHALLENGE))
        resumed = pb.Resumed(next_seq=0, challenge=CHALLENGE, credit=given[request.resume.session])
        return pb.AttestResponse(resumed=resumed)

    peers.service.handler = handler
    line = await peers.transport().connect()
    assert [(await line.resume(name)).credit for name in given] == [1, 1, 5, 64]
    for seq in range(5):
        await line.send_window(bytes([seq]) + bytes(1024 * 1024))
    assert [(await line.next_answer()).seq for _ in range(5)] == list(range(5))
    await line.disconnect()


async def test_a_verifier_that_wants_to_be_asked_later_keeps_the_line(peers: Peers) -> None:
    document = strict.json_encode({"code": "RATE_LIMITED", "message": "this peer has too many windows"})
    refused = pb.Refusal(error=document, exit_code=8, retry_after_ms=1500)
    answers = iter([pb.AttestResponse(refusal=refused)] * 2)
    peers.service.handler = lambda request: next(answers, None) or good(request)
    line = await peers.transport().connect()
    for ask in (line.window(b"w"), line.open(b"opening")):
        with pytest.raises(Throttled, match="this peer has too many windows") as caught:
            await ask
        assert (caught.value.code, caught.value.retry_after_ns) == (Code.RATE_LIMITED, 1_500_000_000)
    assert (await line.resume(SESSION)).next_seq == 0
    await line.disconnect()


async def test_absent_fields_of_an_answer_are_none(peers: Peers) -> None:
    peers.service.handler = lambda _: pb.AttestResponse(answer=pb.Answer(seq=7, verdict=b"{}"))
    line = await peers.transport().connect()
    assert await line.window(b"window") == Answer(7, b"{}", None, None)
    await line.disconnect()


@pytest.mark.parametrize(
    "response",
    [
        pb.AttestResponse(),
        pb.AttestResponse(closed=pb.Closed(summary=b"{}")),
        pb.AttestResponse(answer=pb.Answer(verdict=b"{}")),
        pb.AttestResponse(answer=pb.Answer(seq=1)),
        pb.AttestResponse(answer=pb.Answer(seq=1, verdict=b"{}", challenge=b"short")),
        pb.AttestResponse(answer=pb.Answer(seq=2**60, verdict=b"{}")),
        pb.AttestResponse(answer=pb.Answer(seq=1, verdict=b"{}", challenge=CHALLENGE, spot=b"")),
        pb.AttestResponse(answer=pb.Answer(seq=1, verdict=b"{}", challenge=CHALLENGE, spot=SPOT.encode()[:-1])),
    ],
)
async def test_an_answer_that_is_not_one(peers: Peers, response: pb.AttestResponse) -> None:
    """Absent equals default in protobuf: each field is demanded by its presence."""
    peers.service.handler = lambda _: response
    line = await peers.transport().connect()
    with pytest.raises(MalformedEvidence):
        await line.window(b"window")
    await line.disconnect()


@pytest.mark.parametrize("method", ["prove", "resume", "close_session"])
async def test_empty_answers(peers: Peers, method: str) -> None:
    empty = {
        "prove": pb.AttestResponse(opened=pb.Opened()),
        "resume": pb.AttestResponse(resumed=pb.Resumed()),
        "close_session": pb.AttestResponse(closed=pb.Closed()),
    }
    peers.service.handler = lambda _: empty[method]
    line = await peers.transport().connect()
    with pytest.raises(MalformedEvidence):
        await getattr(line, method)(SESSION)
    await line.disconnect()


async def test_a_refusal_is_the_error_that_it_was(peers: Peers) -> None:
    document = NotAuthentic(Code.WINDOW_PEER, "another peer", where="channel").document()
    refusal = pb.Refusal(error=strict.json_encode(document), exit_code=4)
    peers.service.handler = lambda _: pb.AttestResponse(refusal=refusal)
    line = await peers.transport().connect()
    with pytest.raises(NotAuthentic) as caught:
        await line.open(b"opening")
    assert caught.value.code is Code.WINDOW_PEER
    # A refusal is an answer: the line goes on.
    peers.service.handler = good
    assert await line.open(b"opening") == b"challenge"
    await line.disconnect()


async def unreachable(line: Line) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        await line.window(b"window")
    assert caught.value.code is Code.PEER_UNREACHABLE
    return caught.value


async def test_silence_is_a_cut_line(peers: Peers) -> None:
    line = await peers.transport(answer=0.2).connect()
    assert "no answer within 0.2 s" in (await unreachable(line)).message
    # The answer may still come: nothing else is asked on this line.
    await unreachable(line)
    await line.disconnect()


async def test_a_server_that_goes_away(peers: Peers) -> None:
    peers.service.handler = good
    line = await peers.transport().connect()
    await line.open(b"opening")
    losing = asyncio.ensure_future(line.lost())
    await asyncio.sleep(0)
    assert not losing.done()
    await peers.stop()
    async with asyncio.timeout(5):
        assert (await losing).code is Code.PEER_UNREACHABLE
    await unreachable(line)
    await line.disconnect()
    peers.service.end = asyncio.Event()
    await peers.start()
    again = await peers.transport().connect()
    assert await again.resume(SESSION) == Resumed(0, CHALLENGE)
    await again.disconnect()


async def test_a_line_that_ends_while_something_is_sent(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's client then says `Internal error from Core`, whatever the line ended with: no defect of anybody."""
    nothing = grpc.aio.Metadata()
    said = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, details="Internal error from Core")

    async def write(_call: object, _request: pb.AttestRequest) -> None:
        raise said

    line = await peers.transport().connect()
    monkeypatch.setattr("grpc.aio._call.StreamStreamCall.write", write)
    assert "ended while a request was being sent" in (await unreachable(line)).message
    await line.disconnect()


async def test_a_stream_that_the_server_ends(peers: Peers) -> None:
    peers.service.end.set()
    line = await peers.transport().connect()
    await unreachable(line)
    await line.disconnect()


async def test_a_peer_that_is_not_let_in(peers: Peers) -> None:
    peers.service.abort = grpc.StatusCode.PERMISSION_DENIED
    told: list[EnvironmentFault] = []
    # A write may fail before gRPC has read why the stream ended: an attester tries again, and learns it then.
    while len(told) < 5 and (not told or "ended while a request was being sent" in told[-1].message):
        with pytest.raises(EnvironmentFault) as caught:
            # Whichever is first: the connection, or that it is refused.
            await (await peers.transport().connect()).window(b"window")
        told.append(caught.value)
    assert told[-1].code is Code.PEER_REFUSED


async def test_nobody_listens(peers: Peers) -> None:
    await peers.stop()
    with pytest.raises(EnvironmentFault) as caught:
        await peers.transport().connect()
    assert caught.value.code is Code.PEER_UNREACHABLE
    assert "refused" in caught.value.message
    assert caught.value.hint


async def test_another_authority_is_not_believed(peers: Peers, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    create_authority(other, name="other", at=datetime.now(UTC))
    with pytest.raises(EnvironmentFault) as caught:
        await peers.transport(ca=(other / "ca.pem").read_bytes(), connect=3.0).connect()
    assert caught.value.code is Code.PEER_UNREACHABLE
    assert "certificate" in caught.value.hint


async def test_a_name_that_its_certificate_does_not_have(peers: Peers) -> None:
    with pytest.raises(EnvironmentFault, match="its certificate has other names than this one") as caught:
        await peers.transport(host="127.0.0.1").connect()
    assert caught.value.code is Code.PEER_UNREACHABLE


async def test_a_host_that_swallows_everything(peers: Peers) -> None:
    busy: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy[task] = writer
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    peers.port = silent.sockets[0].getsockname()[1]
    with pytest.raises(EnvironmentFault) as caught:
        await peers.transport(connect=0.3).connect()
    assert caught.value.code is Code.PEER_UNREACHABLE
    assert "0.3 s" in caught.value.message
    silent.close()
    await silent.wait_closed()
    for writer in busy.values():
        # gRPC would hold its half of a handshake for twenty seconds.
        writer.transport.abort()
    await asyncio.gather(*busy)


async def test_the_largest_window_passes(peers: Peers) -> None:
    peers.service.handler = good
    line = await peers.transport().connect()
    assert (await line.window(bytes(limits.EVIDENCE_MAX))).seq == 0
    await line.disconnect()
