"""Peers without manners, over real sockets: each is bounded and told why, and whoever behaves notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2

from support.service import GENEROUS, Authority, Raw, Served
from support.world import World, requirements
from weighbridge.attester.keys import load_channel
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.v1 import attestation_pb2 as pb
from weighbridge.verifier import attestation_service, attester_stream, pki, reading
from weighbridge.verifier.service import Options
from weighbridge.verifier.service_limits import Limits, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from support.world import Host
    from weighbridge.attester.keys import ChannelKey
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.verifier.core import Judged

_HANDSHAKE_S = 0.5


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path, wanted=requirements(period_ns=1_000_000_000, lateness_ns=0))
    yield made
    made.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def bounds(**changes: float) -> Options:
    """Generous limits, but for these: of a peer by their names, of the service as ``service_…``."""
    share: dict[str, Any] = {name: value for name, value in changes.items() if name in Share.__slots__}
    rest: dict[str, Any] = {
        name.removeprefix("service_"): value for name, value in changes.items() if name not in share
    }
    return Options(bounds=replace(GENEROUS, peer=replace(GENEROUS.peer, **share), **rest))


def status_of(action: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        action()
    return caught.value.code(), caught.value.details() or ""


def ended(raw: Raw, within: float = 5) -> tuple[grpc.StatusCode, str]:
    """How a stream ends on which nothing more is sent."""

    async def wait() -> tuple[grpc.StatusCode, str]:
        async with asyncio.timeout(within):
            return await raw.call.code(), await raw.call.details()

    return raw.served.run(wait())


def limited(response: pb.AttestResponse) -> float:
    """Seconds after which a request may come again that was one too many."""
    document = json.loads(response.refusal.error)
    assert (document["code"], response.refusal.exit_code) == (Code.RATE_LIMITED, 8)
    assert response.refusal.retry_after_ms > 0
    return response.refusal.retry_after_ms / 1000


EMPTY = pb.AttestRequest()


# -- how much of each --------------------------------------------------------------------------------------------------


def test_streams_of_one_peer(world: World, authority: Authority) -> None:
    with Served(world, authority, options=bounds(streams=2)) as served:
        greedy, other = authority.admit("greedy"), authority.admit("other")
        held = [served.raw(greedy) for _ in range(2)]
        assert [raw.refused(EMPTY)[0] for raw in held] == ["FIELD_MISSING"] * 2
        status, details = status_of(lambda: served.raw(greedy).ask(EMPTY))
        assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert Code.RATE_LIMITED in details
        # It takes nothing from others, and may have one again when one has ended.
        assert served.raw(other).refused(EMPTY)[0] == "FIELD_MISSING"
        held[0].call.cancel()
        for _ in range(100):
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert served.raw(greedy).refused(EMPTY)[0] == "FIELD_MISSING"
                break
            time.sleep(0.02)
        else:
            pytest.fail("no stream any more")


def test_openings_of_one_peer(world: World, authority: Authority, capfd: pytest.CaptureFixture[str]) -> None:
    """The stream goes on, the operator is told once, and a host that behaves is enrolled."""
    with Served(world, authority, options=bounds(openings_per_minute=2)) as served:
        flood = served.raw(authority.admit("flood"))
        opening = pb.AttestRequest(opening=b"junk")
        answers = [flood.ask(opening) for _ in range(40)]
        malformed = [json.loads(one.refusal.error)["code"] for one in answers if not one.refusal.retry_after_ms]
        # Two a minute, and a minute's worth at once.
        assert malformed == ["NOT_CBOR"] * 3
        assert 0 < limited(answers[-1]) <= 30
        remote = served.join(world.host)
        assert remote.window(world.host)["outcome"] == "affirmed"
    told = [line for line in capfd.readouterr().err.splitlines() if "too fast" in line]
    assert len(told) == 2
    assert "36 more" in told[1]


def test_windows_that_come_too_fast_wait_and_are_refused_unjudged(world: World, authority: Authority) -> None:
    with Served(world, authority, options=bounds(windows_per_second=2, service_patience=0.3)) as served:
        host = world.host
        channel = authority.admit("attester")
        host.peer = channel.peer
        remote = served.connect(channel)
        remote.enrol(host)
        remote.cut()
        raw = served.raw(channel)
        raw.ask(pb.AttestRequest(resume=pb.Resume(session=host.session)))
        sealed = backlog(host, 3)
        waited: list[float] = []
        seq = 0
        for _ in range(20):
            answer = raw.ask(pb.AttestRequest(window=sealed[seq].evidence))
            if answer.HasField("answer"):
                assert answer.answer.seq == seq
                seq += 1
            else:
                waited.append(limited(answer))
                time.sleep(waited[-1])
            if seq == len(sealed):
                break
        # Nothing is lost.
        assert seq == len(sealed)
        assert waited


def test_bytes_that_wait(world: World, authority: Authority) -> None:
    with Served(world, authority, options=bounds(bytes_in_flight=100)) as served:
        raw = served.raw(authority.admit("attester"))
        assert limited(raw.ask(pb.AttestRequest(window=bytes(200)))) < 5
        assert raw.refused(pb.AttestRequest(window=bytes(50)))[0] == "SESSION_UNKNOWN"


def test_sessions_of_one_peer(world: World, authority: Authority) -> None:
    """Sessions that have ended make room, also those that were ended by another one."""
    with Served(world, authority, options=bounds(sessions=2)) as served:
        channel = authority.admit("attester")
        hosts = [world.host, *(world.another_host(name) for name in ("second", "third"))]
        for host in hosts:
            host.peer = channel.peer
        for host in hosts[:2]:
            served.connect(channel).enrol(host)
        refused = served.raw(channel).ask(pb.AttestRequest(opening=hosts[2].opening().encode()))
        assert limited(refused) > 0
        # Its attester is started again: the old session is over.
        first = served.connect(channel)
        refused = served.raw(channel).ask(pb.AttestRequest(opening=hosts[0].opening().encode()))
        assert limited(refused) > 0
        _, hosts[0].challenge = first.resume(hosts[0].session)
        first.close(hosts[0].session)


def backlog(host: Host, count: int) -> list[SealedWindow]:
    """Windows that were sealed while the line was cut."""
    made = []
    for _ in range(count):
        made.append(host.seal())
        host.advance(made[-1])
    return made


# -- credit ------------------------------------------------------------------------------------------------------------


@dataclass
class Gated:
    """A verifier that judges when it is told to; what it was given meanwhile was read and no more."""

    world: World
    go: threading.Event
    seen: list[bytes]

    def judge(self, session: bytes, data: bytes, *, peer: bytes, beside: Sequence[Judged] = ()) -> Judged:
        self.seen.append(data)
        assert self.go.wait(10)
        return type(self.world.verifier).judge(self.world.verifier, session, data, peer=peer, beside=beside)


def test_credit(world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are read as far as credit goes, answered in order; those behind a refused one are refused as it was."""
    gated = Gated(world, threading.Event(), [])
    received: list[int] = []
    original = reading.Reader._received

    def counted(reader: reading.Reader, request: pb.AttestRequest) -> reading.Received:
        received.append(len(request.window))
        return original(reader, request)

    monkeypatch.setattr(reading.Reader, "_received", counted)
    with Served(world, authority, options=bounds(service_credit=3)) as served:
        host = world.host
        channel = authority.admit("attester")
        host.peer = channel.peer
        remote = served.connect(channel)
        remote.enrol(host)
        remote.cut()
        raw = served.raw(channel)
        resumed = raw.ask(pb.AttestRequest(resume=pb.Resume(session=host.session)))
        assert resumed.resumed.credit == 3
        sealed = [window.evidence for window in backlog(host, 6)]
        monkeypatch.setattr(world.verifier, "judge", gated.judge)

        async def send(windows: list[bytes]) -> list[pb.AttestResponse]:
            gated.go.clear()
            gated.seen.clear()
            received.clear()
            for window in windows:
                await raw.call.write(pb.AttestRequest(window=window))
            await asyncio.sleep(0.3)
            assert len(received) == min(3, len(windows))
            assert len(gated.seen) == 1
            gated.go.set()
            return [await raw.call.read() for _ in windows]

        # Those that were read with it are refused as it was; what came later is told that others are missing.
        codes = [json.loads(one.refusal.error)["code"] for one in served.run(send([b"junk", *sealed[:4]]))]
        assert codes[:3] == ["NOT_CBOR"] * 3
        assert set(codes[3:]) == {"WINDOW_SEQ"}
        assert raw.ask(pb.AttestRequest(resume=pb.Resume(session=host.session))).resumed.next_seq == 0
        answers = served.run(send(sealed))
        assert [one.answer.seq for one in answers] == list(range(6))


def test_a_silent_stream_keeps_no_message(world: World, authority: Authority) -> None:
    """What came last and what was answered is let go of before more comes: windows are long, and streams many."""

    def messages() -> int:
        gc.collect()
        return sum(isinstance(one, pb.AttestRequest | pb.AttestResponse) for one in gc.get_objects())

    before = messages()
    with Served(world, authority) as served:
        raw = served.raw(authority.admit("attester"))
        for _ in range(2):
            raw.refused(pb.AttestRequest(window=bytes(1000)))
        # So that the server, in this very process, has come to wait for the next one.
        served.run(asyncio.sleep(0.05))
        assert messages() == before


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_a_stream_that_says_nothing_ends(world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it has a session, and later; whoever resumes loses nothing."""
    monkeypatch.setattr(attester_stream, "_IDLE_LEAST", 0.2)
    with Served(world, authority, options=bounds(service_enrolment=0.3, service_idle_periods=1)) as served:
        idle = served.raw(authority.admit("idle"))
        # Junk is no session.
        assert idle.refused(EMPTY)[0] == "FIELD_MISSING"
        status, details = ended(idle)
        assert status is grpc.StatusCode.DEADLINE_EXCEEDED
        assert details == "no session within 0.3 s"
        host = world.host
        channel = authority.admit("attester")
        host.peer = channel.peer
        served.connect(channel).enrol(host)
        raw = served.raw(channel)
        raw.ask(pb.AttestRequest(resume=pb.Resume(session=host.session)))
        status, details = ended(raw)
        assert (status, details) == (grpc.StatusCode.DEADLINE_EXCEEDED, "no request within 1 s")
        remote = served.connect(channel)
        _, host.challenge = remote.resume(host.session)
        assert remote.window(host)["outcome"] == "affirmed"


def test_an_old_stream_ends_between_two_windows(world: World, authority: Authority) -> None:
    with Served(world, authority, options=bounds(service_stream_age=0.5)) as served:
        raw = served.raw(authority.admit("attester"))
        assert raw.refused(EMPTY)[0] == "FIELD_MISSING"
        assert ended(raw) == (grpc.StatusCode.UNAVAILABLE, "the stream is old: connect again")


def test_no_stream_outlives_its_certificate(world: World, authority: Authority, tmp_path: Path) -> None:
    channel = authority.admit("attester")
    request = (tmp_path / "authority" / "attester" / "channel.csr").read_bytes()

    def until(left: timedelta) -> ChannelKey:
        made = pki.issue_client(tmp_path / "authority", request, at=datetime.now(UTC) - timedelta(days=825) + left)
        (tmp_path / "authority" / "attester" / "channel.pem").write_bytes(made.public_bytes(Encoding.PEM))
        return load_channel(tmp_path / "authority" / "attester")

    with Served(world, authority) as served:
        raw = served.raw(until(timedelta(seconds=2.5)))
        assert raw.refused(EMPTY)[0] == "FIELD_MISSING"
        assert ended(raw) == (grpc.StatusCode.UNAVAILABLE, "the stream is old: connect again")
        # Expired: there is no channel.
        assert status_of(lambda: served.raw(until(-timedelta(hours=1))).ask(EMPTY))[0] is grpc.StatusCode.UNAVAILABLE
        assert served.raw(channel).refused(EMPTY)[0] == "FIELD_MISSING"


def test_an_answer_that_nobody_takes(world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that reads nothing holds its stream for a bounded time."""
    monkeypatch.setattr(attestation_service, "_TAKEN", 0.3)
    with Served(world, authority, options=bounds(streams=1)) as served, h2(served, authority) as line:
        line.open_stream(window=0)
        line.data(pb.AttestRequest().SerializeToString())
        time.sleep(0.1)
        assert status_of(lambda: served.raw(line.channel).ask(EMPTY))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        served.run(asyncio.sleep(0.5))
        assert served.raw(line.channel).refused(EMPTY)[0] == "FIELD_MISSING"


# -- strangers ---------------------------------------------------------------------------------------------------------


@dataclass
class H2:
    """HTTP/2 by hand over TLS, slowly."""

    served: Served
    channel: ChannelKey
    line: ssl.SSLSocket

    def frame(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        self.line.sendall(len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body)

    def begin(self, *, window: int | None = None) -> None:
        self.line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        # SETTINGS_INITIAL_WINDOW_SIZE
        self.frame(4, 0, 0, b"" if window is None else b"\x00\x04" + window.to_bytes(4))

    def open_stream(self, *, window: int | None = None) -> None:
        self.begin(window=window)
        headers = {
            ":method": "POST",
            ":scheme": "https",
            ":path": "/weighbridge.proto.v1.AttestationService/Attest",
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        # RFC 7541 §6.2.2: literals that are not indexed, with lengths below 127.
        packed = b"".join(
            b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in headers.items()
        )
        self.frame(1, 4, 1, packed)

    def data(self, message: bytes) -> None:
        self.frame(0, 0, 1, b"\x00" + len(message).to_bytes(4) + message)

    def closed_after(self, within: float, *, drip: bytes = b"") -> float | None:
        """After how many seconds the other side closes; it is sent ``drip`` meanwhile, a byte in 50 ms."""
        began = time.monotonic()
        rest = list(drip)

        async def wait() -> float | None:
            while (passed := time.monotonic() - began) < within:
                try:
                    if rest:
                        self.frame(0, 0, 1, bytes([rest.pop(0)]))
                    self.line.settimeout(0.01)
                    if not self.line.recv(65536):
                        return passed
                except (TimeoutError, ssl.SSLWantReadError):
                    pass
                except OSError:
                    return passed
                await asyncio.sleep(0.05)
            return None

        return self.served.run(wait())


@contextlib.contextmanager
def h2(served: Served, authority: Authority) -> Generator[H2]:
    channel = authority.admit("slow")
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    directory = authority.tls.client_ca.parent / "slow"
    (directory / "plain.key").write_bytes(channel.key)
    context.load_cert_chain(directory / "channel.pem", directory / "plain.key")
    context.set_alpn_protocols(["h2"])

    def connect() -> ssl.SSLSocket:
        return context.wrap_socket(socket.create_connection(("127.0.0.1", served.port)), server_hostname="localhost")

    async def connected() -> ssl.SSLSocket:
        return await asyncio.get_running_loop().run_in_executor(None, connect)

    with served.run(connected()) as line:
        yield H2(served, channel, line)


def test_a_message_that_comes_drop_by_drop(world: World, authority: Authority) -> None:
    """Its stream ends as if it had said nothing."""
    with Served(world, authority, options=bounds(service_enrolment=0.4)) as served, h2(served, authority) as line:
        line.open_stream()
        line.frame(0, 0, 1, b"\x00" + (1000).to_bytes(4))
        ended_: list[bytes] = []
        line.line.settimeout(0.05)
        end = time.monotonic() + 3

        async def drip() -> None:
            while time.monotonic() < end and not any(
                b"grpc-status" in data or b"no session" in data for data in ended_
            ):
                with contextlib.suppress(TimeoutError):
                    line.frame(0, 0, 1, b"x")
                    ended_.append(line.line.recv(65536))
                await asyncio.sleep(0.05)

        began = time.monotonic()
        served.run(drip())
        assert b"no session within 0.4 s" in b"".join(ended_)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("said", ["nothing", "plain HTTP/1", "plain HTTP/2", "TLS and nothing", "TLS and HTTP/1"])
def test_whoever_does_not_speak_the_protocol_is_let_go(world: World, authority: Authority, said: str) -> None:
    with Served(world, authority, options=bounds(service_handshake=_HANDSHAKE_S)) as served:
        if said.startswith("TLS"):
            with h2(served, authority) as line:
                if said.endswith("HTTP/1"):
                    line.line.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert line.closed_after(4 * _HANDSHAKE_S) is not None
        else:
            with socket.create_connection(("127.0.0.1", served.port)) as plain:
                if said != "nothing":
                    plain.sendall(
                        b"GET / HTTP/1.1\r\n\r\n" if said.endswith("1") else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                    )

                async def closed() -> None:
                    plain.setblocking(False)
                    async with asyncio.timeout(4 * _HANDSHAKE_S):
                        with contextlib.suppress(ConnectionResetError):
                            while await asyncio.get_running_loop().sock_recv(plain, 4096):
                                pass

                served.run(closed())
        assert served.raw(authority.admit("attester")).refused(EMPTY)[0] == "FIELD_MISSING"


def test_connections_are_bounded(world: World, authority: Authority) -> None:
    with Served(world, authority, options=bounds(service_connections=2, service_handshake=_HANDSHAKE_S)) as served:

        async def strangers() -> list[bool]:
            lines = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(6)]
            await asyncio.sleep(0.2)
            let_go = [reader.at_eof() or reader.exception() is not None for reader, _ in lines]
            for _, writer in lines:
                writer.close()
            return let_go

        assert served.run(strangers()).count(True) == 4
        served.run(asyncio.sleep(2 * _HANDSHAKE_S))
        assert served.raw(authority.admit("attester")).refused(EMPTY)[0] == "FIELD_MISSING"


# -- many at once ------------------------------------------------------------------------------------------------------


def test_a_flood_of_enrolments_delays_nobody_else(world: World, authority: Authority) -> None:
    """All are answered; a window that comes after them is judged among the first."""
    with Served(world, authority) as served:
        remote = served.join(world.host)
        opening = pb.AttestRequest(opening=b"\xa0")
        flood = [served.raw(authority.admit(f"flood-{number % 4}")) for number in range(32)]
        world.clock.advance(1)
        sealed = world.host.seal()
        done: list[str] = []

        async def ask(raw: Raw) -> None:
            await raw.call.write(opening)
            response = await raw.call.read()
            assert response.HasField("refusal")
            done.append("refused")

        async def window() -> None:
            await asyncio.sleep(0)
            answer = await remote.line.window(sealed.evidence)
            done.append(json.loads(answer.verdict)["outcome"])

        async def all_of_them() -> None:
            await asyncio.gather(*(ask(raw) for raw in flood), window())

        served.run(all_of_them())
        assert sorted(done) == ["affirmed", *["refused"] * 32]


# -- the end -----------------------------------------------------------------------------------------------------------


def test_more_than_can_be_judged(world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each within its limits, and all together too much: openings are refused, sessions go on in time, and it is over
    when it is over."""

    def slow(data: bytes, **_: object) -> None:
        time.sleep(0.02)
        raise MalformedEvidence(Code.NOT_CBOR, "not an opening", where="opening", got=data)

    with Served(world, authority, options=bounds(service_patience=0.4)) as served:
        remote = served.join(world.host)
        flood = [served.raw(authority.admit(f"flood {number}")) for number in range(24)]
        monkeypatch.setattr(world.verifier, "open", slow)
        codes: list[str] = []
        over = asyncio.Event()

        async def storm(raw: Raw) -> None:
            while not over.is_set():
                await raw.call.write(pb.AttestRequest(opening=b"junk"))
                refusal = (await raw.call.read()).refusal
                codes.append(json.loads(refusal.error)["code"])
                assert (codes[-1] == Code.RATE_LIMITED) == (refusal.retry_after_ms > 0)
                await asyncio.sleep(0.05 if refusal.retry_after_ms else 0)

        async def window() -> tuple[str, float]:
            sealed, began = world.host.seal(), time.perf_counter()
            world.clock.advance(1)
            answer = await remote.line.window(sealed.evidence)
            world.host.advance(sealed)
            assert answer.challenge is not None
            world.host.challenge = answer.challenge
            return json.loads(answer.verdict)["outcome"], time.perf_counter() - began

        async def play() -> list[tuple[str, float]]:
            async with asyncio.TaskGroup() as tasks:
                for raw in flood:
                    tasks.create_task(storm(raw))
                await asyncio.sleep(0.5)
                told = [await window() for _ in range(3)]
                over.set()
            return told

        told = served.run(play())
        assert [outcome for outcome, _ in told] == ["affirmed"] * 3
        assert max(waited for _, waited in told) < 1
        assert set(codes) == {Code.NOT_CBOR, Code.RATE_LIMITED}
        # At once, nobody has to be forgotten first.
        assert flood[0].refused(pb.AttestRequest(opening=b"junk"))[0] == Code.NOT_CBOR


def test_ending_takes_readiness_back_first_and_refuses_new_streams(world: World, authority: Authority) -> None:
    """Attesters learn at once that they are to resume elsewhere."""
    with Served(world, authority, options=bounds(service_drain=1.0)) as served:
        channel = authority.admit("attester")
        idle = served.raw(channel)
        assert idle.refused(EMPTY)[0] == "FIELD_MISSING"
        line = served.dial(authority.admit("balancer"))
        watch = line.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

        async def end() -> tuple[list[int], grpc.StatusCode, str]:
            health: Any = watch(health_pb2.HealthCheckRequest())
            told = [(await health.read()).status]
            served.ask_to_stop()
            told.append((await health.read()).status)
            health.cancel()
            return told, await idle.call.code(), await idle.call.details()

        told, status, details = served.run(end())
        assert told == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
        assert (status, details) == (grpc.StatusCode.UNAVAILABLE, "the verifier is ending: resume here or elsewhere")
        assert status_of(lambda: served.raw(channel).ask(EMPTY))[0] is grpc.StatusCode.UNAVAILABLE
        began = time.monotonic()
        served.stop()
        assert time.monotonic() - began < 3


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="streams"):
        Limits(tenant=replace(Limits().tenant, streams=1))
    with pytest.raises(ValueError, match="credit"):
        Limits(credit=0)
    with pytest.raises(ValueError, match="drain"):
        Limits(drain=0.0)
