"""A verifier in real time with one attester, its relying party's gates, and servers behind them: all on loopback.

One event loop runs in a thread of its own: verifier, lines, servers. Tests and the gates' processes are beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from support.service import Authority
from support.world import World, requirements
from weighbridge.attester.client import GrpcTransport
from weighbridge.attester.keys import ensure_keys, load_serving
from weighbridge.proto.enrolment import EnrolmentChallenge
from weighbridge.proto.terms import SignedTerms
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.core import Opened
from weighbridge.verifier.relying_parties import RelyingParties, RelyingParty
from weighbridge.verifier.service import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from weighbridge.attester.client import Line as AttesterLine
    from weighbridge.attester.keys import ServingKey

_T = TypeVar("_T")
PROGRAM = Path(sys.executable).parent / "weighbridge"
AUDIENCE = "https://gate.example"
PERIOD_S = 1.0
# 1.5 windows and 2 s, rounded as seconds of a token are.
LIFE_S = 3.5
STARTED_S = 15.0


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Future[_T]:
        async def begin() -> asyncio.Task[_T]:
            return asyncio.create_task(work)

        return self.run(begin())

    def close(self) -> None:
        async def cancel() -> None:
            for server in self.servers:
                server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Line:
    """A way to a port, which can be cut, or fall silent."""

    def __init__(self, loop: Loop, target: int) -> None:
        self._loop = loop
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = loop.run(self._listen())

    async def _listen(self, port: int = 0) -> int:
        self._server = await asyncio.start_server(self._pipe, "127.0.0.1", port)
        self._loop.servers.append(self._server)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def mend(self) -> None:
        """Take connections again."""
        self._loop.run(self._listen(self.port))

    def cut(self) -> None:
        """Break all connections, and take no more."""

        async def work() -> None:
            self._server.close()
            for writer in [*self._writers]:
                writer.transport.abort()

        self._loop.run(work())

    def freeze(self) -> None:
        """Carry nothing any more; connections stay."""

        async def work() -> None:
            self._open.clear()

        self._loop.run(work())

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, far_writer}
            try:
                await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
            finally:
                for one in (writer, far_writer):
                    one.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Upstream:
    """A model's server: HTTPS with a key of its own; tells what headers it was sent."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        ensure_keys(directory, names=["localhost", "127.0.0.1"], at=datetime.now(UTC))
        self.key: ServingKey = load_serving(directory)
        self.asked = 0
        self._loop = loop
        self.port = loop.run(self._listen(0))

    async def _listen(self, port: int) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # As the demonstration's server: proxies that speak TLS 1.2 of themselves have to be told.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.key.certificate_file, self.key.key_file)
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", port, ssl=context)
        self._loop.servers.append(self._server)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def swap(self, other: Upstream) -> None:
        """From now on another host answers here."""
        self.serve(other.key)

    def serve(self, key: ServingKey) -> None:
        """From now on the server has this key."""

        async def work() -> None:
            self._server.close()
            self.key = key
            await self._listen(self.port)

        self._loop.run(work())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked += 1
            pairs = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
            body = json.dumps({name.lower(): value for name, value in pairs}).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\nx-weighbridge-result: forged\r\ncontent-length: %d\r\n\r\n"
                % len(body)
                + body
            )
            await writer.drain()
            writer.close()


@dataclass
class Answered:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


def get(port: int, path: str = "/v1/chat", **headers: str) -> Answered:
    """What a client gets; ``headers`` with underscores for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=named)
        response = connection.getresponse()
        return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def until(condition: Callable[[], object], *, within: float = STARTED_S) -> None:
    """Wait until ``condition()`` is true."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@dataclass
class Process:
    """A program that runs beside the test."""

    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Scene:
    """All of it. A context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = Loop()
        self.authority = Authority(directory / "authority")
        self.upstream = Upstream(self.loop, directory / "host")
        self.channel = self.authority.admit("gate")
        self.processes: list[Process] = []
        self.world = World.make(
            directory, wanted=requirements(period_ns=int(PERIOD_S * 1e9), lateness_ns=30_000_000_000)
        )
        self.world.host.cnf = self.upstream.key.cnf
        self._stop = asyncio.Event()
        self._attester: AttesterLine | None = None
        for name, data in (("gate.key", self.channel.key), ("gate.pem", self.channel.certificate)):
            (directory / name).write_bytes(data)
        anchor, _ = self.world.keys.anchors(
            name="verifier",
            origin="ledger.example/test",
            platform="insecure-emulated",
            not_before=datetime(2026, 1, 1, tzinfo=UTC),
            not_after=datetime(2099, 1, 1, tzinfo=UTC),
        )
        self.anchors = TrustAnchors((anchor,))
        (directory / "anchors.json").write_bytes(self.anchors.encode())

    def __enter__(self) -> Self:
        party = RelyingParty(name="gate", key=self.channel.peer.hex(), tenants=("tenant-a",), audiences=(AUDIENCE,))
        self.loop.start(self._tick())
        self.verifier_port = self.loop.run(self._serve(RelyingParties(relying_parties=(party,))))
        self._enrol()
        (self.directory / "gates.json").write_text(json.dumps(self.document()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.stop()
        if self._attester is not None:
            self.loop.run(self._attester.disconnect())
        self.loop.run(self._end())
        self.loop.close()
        self.world.close()

    async def _tick(self) -> None:
        """The world's clock is the real one."""
        while True:
            self.world.clock.at = datetime.now(UTC)
            await asyncio.sleep(0.02)

    async def _serve(self, parties: RelyingParties) -> int:
        started = asyncio.get_running_loop().create_future()
        self._serving = asyncio.create_task(
            serve(
                self.world.verifier,
                host="127.0.0.1",
                port=0,
                tls=self.authority.tls,
                started=started.set_result,
                stop=self._stop,
                parties=parties,
            )
        )
        await asyncio.wait([started, self._serving], return_when=asyncio.FIRST_COMPLETED)
        port: int = await started
        return port

    async def _end(self) -> None:
        self._stop.set()
        await self._serving

    def _enrol(self) -> None:
        channel = self.authority.admit("attester")
        host = self.world.host
        host.peer = channel.peer
        host.wall_ns = time.time_ns()
        target = f"localhost:{self.verifier_port}"
        line = self.loop.run(GrpcTransport(target, authority=self.authority.certificate, channel=channel).connect())
        self._attester = line
        scene = self

        class _Verifier:
            def open(self, data: bytes, *, peer: bytes = b"") -> EnrolmentChallenge:  # noqa: ARG002
                return EnrolmentChallenge.parse(scene.loop.run(line.open(data)))

            def prove(self, data: bytes, *, peer: bytes = b"") -> Opened:  # noqa: ARG002
                opened = scene.loop.run(line.prove(data))
                terms = SignedTerms.open(opened.terms, scene.world.keys.signing.public_key())
                return Opened(terms, opened.challenge, None)

        host.enrol(_Verifier())  # type: ignore[arg-type]  # the two methods that enrolment calls
        host.log.load(host.model)

    def window(self) -> str:
        """The host's next window; its outcome."""
        assert self._attester is not None
        host = self.world.host
        sealed = host.seal()
        answer = self.loop.run(self._attester.window(sealed.evidence))
        host.advance(sealed)
        host.challenge = answer.challenge or b""
        outcome: str = json.loads(answer.verdict)["outcome"]
        return outcome

    def document(self) -> dict[str, Any]:
        """The gate's file."""
        host = self.world.host
        return {
            "schema": "weighbridge/gates/v1",
            "audience": AUDIENCE,
            "accept": "warning",
            "sessions": [
                {
                    "name": "h100-a",
                    "session": host.session.hex(),
                    "tenant": "tenant-a",
                    "model": host.model.digest.hex(),
                    "adapters": [],
                    "cnf": self.upstream.key.cnf.hex(),
                }
            ],
            "routes": [{"name": "chat", "hosts": ["*"], "path": "/v1", "sessions": ["h100-a"]}],
        }

    def line_arguments(self, port: int | None = None) -> list[str]:
        """How a gate reaches the verifier, or ``port`` in its place."""
        named = {
            "--config": "gates.json",
            "--verifier-ca": "authority/ca.pem",
            "--key": "gate.key",
            "--certificate": "gate.pem",
            "--anchors": "anchors.json",
        }
        pairs = [word for name, value in named.items() for word in (name, str(self.directory / value))]
        return [*pairs, "--verifier", f"localhost:{port or self.verifier_port}"]

    def run(self, name: str, *command: str) -> Process:
        process = Process(list(command), self.directory / f"{name}.log")
        self.processes.append(process)
        return process

    def gate(self, name: str, *, port: int | None = None) -> tuple[Process, dict[str, int]]:
        """A gate's process, and its ports once it listens."""
        ports = self.directory / f"{name}.ports"
        process = self.run(
            name,
            str(PROGRAM),
            "gate",
            "serve",
            *self.line_arguments(port),
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--port-file",
            str(ports),
        )
        until(lambda: ports.exists() or process.process.poll() is not None)
        assert process.process.poll() is None, process.log.read_text()
        found: dict[str, int] = json.loads(ports.read_text())
        return process, found
