"""What a gate answers over HTTP, in ASGI, and to Envoy; which TLS key a client takes."""

from __future__ import annotations

import asyncio
import json
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from envoy.service.auth.v3 import external_auth_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from support.relying import MODEL, NOON_NS, A, B, Bench, ScriptedSource, open_until, shut, token
from weighbridge.attester.keys import ensure_keys, load_serving
from weighbridge.proto.errors import Code
from weighbridge.verifier.gate import http_auth
from weighbridge.verifier.gate.asgi import Application, GateMiddleware, Message, Receive, Send
from weighbridge.verifier.gate.ext_authz import EnvoyGate
from weighbridge.verifier.gate.http_auth import HEAD_MAX, HttpGate
from weighbridge.verifier.gate.pin import PinMismatch, pinned_context
from weighbridge.verifier.gate.watcher import Watcher
from weighbridge.verifier.result_client import Answered

if TYPE_CHECKING:
    from pathlib import Path


class Sink:
    """A connection's other end."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None: ...

    def close(self) -> None: ...

    async def wait_closed(self) -> None: ...


def http(bench: Bench, data: bytes) -> bytes:
    async def talk() -> bytes:
        reader = asyncio.StreamReader(limit=HEAD_MAX)
        reader.feed_data(data)
        reader.feed_eof()
        sink = Sink()
        await HttpGate(bench.gate).serve(reader, sink)  # type: ignore[arg-type]  # what it uses of a writer
        return sink.data

    return asyncio.run(talk())


def asked(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n".encode()


def test_http_lets_go_of_whoever_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(Sink):
        transport = mock.Mock()

        async def wait_closed(self) -> None:
            await asyncio.Event().wait()

    async def talk() -> None:
        reader, gate = asyncio.StreamReader(), HttpGate(Bench.make().gate)
        reader.feed_eof()
        async with asyncio.timeout(5):
            await gate.serve(reader, Deaf())  # type: ignore[arg-type]  # what it uses of a writer

    monkeypatch.setattr(http_auth, "_CLOSE_S", 0.01)
    asyncio.run(talk())
    Deaf.transport.abort.assert_called_once_with()


def test_http_says_204_or_403() -> None:
    bench = Bench.make()
    closed = http(bench, asked("/auth/first"))
    assert closed.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b'www-authenticate: Attestation error="result_absent"\r\n' in closed
    assert json.loads(closed.partition(b"\r\n\r\n")[2])["code"] == "RESULT_ABSENT"
    bench.affirm()
    opened = http(bench, asked("/auth/first?x") * 2)
    assert opened.count(b"HTTP/1.1 204 No Content\r\n") == 2
    assert f"x-weighbridge-result: {A.hex()}.3\r\n".encode() in opened
    assert http(bench, asked("/auth/none")).startswith(b"HTTP/1.1 403")
    assert http(bench, asked("/auth/")).startswith(b"HTTP/1.1 403")
    assert http(bench, asked("/healthz")).startswith(b"HTTP/1.1 204")
    assert http(bench, asked("/other")).startswith(b"HTTP/1.1 404")
    standing = json.loads(http(bench, asked("/standing")).partition(b"\r\n\r\n")[2])
    assert [one["open"] for one in standing["sessions"]] == [True, False]


@pytest.mark.parametrize(
    "data",
    [
        b"GET /auth/first\r\n\r\n",
        b"GET /auth/first HTTP/2.0\r\n\r\n",
        b"GET http://x/auth/first HTTP/1.1\r\n\r\n",
        asked("/auth/first", "content-length: 5\r\n") + b"hello",
        asked("/auth/first", "transfer-encoding: chunked\r\n") + b"0\r\n\r\n",
        asked("/auth/first", "content-length: 5\r\ncontent-length: 0\r\n") + b"hello",
        asked("/auth/first", "content-length: 0\r\nContent-Length: 0\r\n"),
        asked("/auth/first", "transfer-encoding: chunked\r\ntransfer-encoding: \r\n"),
        asked("/auth/first", "connection: close\r\nconnection: keep-alive\r\n"),
        asked("/auth/first", "no colon\r\n"),
        asked("/auth/first", "a: b\r\n continued\r\n"),
    ],
)
def test_http_takes_nothing_else(data: bytes) -> None:
    bench = Bench.make()
    bench.affirm()
    assert http(bench, data).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_http_reads_a_bounded_head() -> None:
    assert http(Bench.make(), asked("/healthz", f"x: {'y' * HEAD_MAX}\r\n")) == b""


@settings(max_examples=50)
@given(data=st.binary(max_size=200))
def test_http_survives_anything(data: bytes) -> None:
    assert b" 204 " not in http(Bench.make(), data + b"\r\n\r\n")


def check(bench: Bench, extensions: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - messages have no types of ours
    request: Any = external_auth_pb2.CheckRequest()
    request.attributes.request.http.host = "a.example"
    request.attributes.request.http.path = "/v1/chat"
    request.attributes.request.http.headers.update(headers or {})
    request.attributes.context_extensions.update(extensions or {})
    return asyncio.run(EnvoyGate(bench.gate).Check(request, None))  # type: ignore[arg-type]  # it uses no context


def test_envoy_is_told_all_of_it() -> None:
    bench = Bench.make()
    denied = check(bench)
    assert (denied.status.code, denied.denied_response.status.code) == (7, 403)
    assert json.loads(denied.denied_response.body)["code"] == "RESULT_ABSENT"
    assert denied.dynamic_metadata["open"] is False
    bench.affirm()
    names = ("x-weighbridge-result", "x-weighbridge-other", "x_weighbridge_result", "X-Weighbridge_Other", "x-other")
    allowed = check(bench, None, dict.fromkeys(names, "forged"))
    assert allowed.status.code == 0
    told = {option.header.key: option.header.value for option in allowed.ok_response.headers}
    assert told["x-weighbridge-result"] == f"{A.hex()}.3"
    assert {option.append_action for option in allowed.ok_response.headers} == {2}
    assert list(allowed.ok_response.headers_to_remove) == [
        "X-Weighbridge_Other",
        "x-weighbridge-other",
        "x_weighbridge_result",
    ]
    assert [option.header.key for option in allowed.ok_response.response_headers_to_add] == ["x-weighbridge-result"]
    assert allowed.dynamic_metadata["cnf"]


def test_what_envoys_routes_say_chooses_the_session() -> None:
    bench = Bench.make()
    bench.affirm(session=B)
    assert check(bench).status.code == 7
    for extensions in (
        {"weighbridge_route": "any"},
        {"weighbridge_session": "b"},
        {"weighbridge_session": B.hex()},
        {"weighbridge_model": MODEL.hex(), "weighbridge_tenant": "acme"},
    ):
        assert check(bench, extensions).status.code == 0, extensions
    for extensions in (
        {"weighbridge_route": "none"},
        {"weighbridge_route": "any", "weighbridge_session": "b"},
        {"weighbridge_model": MODEL.hex()},
        {"weighbridge_tenant": "acme"},
    ):
        answer = check(bench, extensions)
        assert json.loads(answer.denied_response.body)["code"] == "GATE_ROUTE", extensions


def asgi(bench: Bench, scope: dict[str, Any], *, route: str | None = None) -> tuple[list[Any], list[Any]]:
    """What the client was sent, and the scopes that the application got."""
    sent: list[Any] = []
    seen: list[Any] = []

    async def app(inner: Message, receive: Receive, send: Send) -> None:
        await receive()
        seen.append(inner)
        if inner["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "one"})
            bench.hear(shut(seq=9))
            await send({"type": "websocket.send", "text": "two"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(GateMiddleware(app, bench.gate, None, route=route)(scope, receive, send))
    return sent, seen


def scope(**changes: object) -> dict[str, Any]:
    headers = [(b"host", b"a.example"), (b"X-Weighbridge-Result", b"forged"), (b"x_weighbridge_result", b"forged")]
    return {"type": "http", "path": "/v1/chat", "raw_path": b"/v1/chat", "headers": headers, **changes}


def test_asgi_answers_itself_while_closed() -> None:
    sent, seen = asgi(Bench.make(), scope())
    assert (sent[0]["status"], seen) == (403, [])
    assert json.loads(sent[1]["body"])["code"] == "RESULT_ABSENT"


def test_asgi_tells_the_application_the_session() -> None:
    bench = Bench.make()
    bench.affirm()
    for route in (None, "first"):
        sent, seen = asgi(bench, scope(), route=route)
        assert sent[0]["status"] == 200
        assert dict(seen[0]["headers"])[b"x-weighbridge-result"] == f"{A.hex()}.3".encode()
        assert b"forged" not in dict(seen[0]["headers"]).values()
        assert seen[0]["weighbridge"].allowed
    changes: tuple[dict[str, object], ...] = (
        {"raw_path": b"/v1/%2e%2e/x"},
        {"raw_path": None, "path": "/v1/../x"},
        {"raw_path": "/v1/é".encode()},
        {"headers": []},
        {"headers": [(b"host", b"a.example"), (b"host", b"b.example")]},
    )
    for changed in changes:
        sent, _ = asgi(bench, scope(**changed), route=None)
        # Without a host of its own, only the route for any host is left, whose turn may be another session's.
        assert sent[0]["status"] == (200 if "headers" in changed else 403), changed


def test_a_web_socket_is_closed_with_its_session() -> None:
    bench = Bench.make()
    sent, seen = asgi(bench, scope(type="websocket"))
    assert ([message["type"] for message in sent], seen) == (["websocket.close"], [])
    bench.affirm()
    with pytest.raises(ConnectionAbortedError):
        asgi(bench, scope(type="websocket"))
    with pytest.raises(RuntimeError, match="does not know"):
        asgi(bench, scope(type="other"))


async def silent(_scope: Message, _receive: Receive, _send: Send) -> None: ...


async def deaf(_scope: Message, receive: Receive, _send: Send) -> None:
    await receive()


async def without(_scope: Message, _receive: Receive, _send: Send) -> None:
    raise ValueError("only HTTP")


async def living(_scope: Message, receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{phase}"
        await send({"type": f"lifespan.{phase}.complete"})


async def failing(_scope: Message, _receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.startup.failed"})
    raise ValueError("no database")


@pytest.mark.parametrize("app", [silent, deaf, without, living])
def test_asgi_listens_as_long_as_the_server_runs(app: Application) -> None:
    async def run() -> None:
        bench, source = Bench.make(), ScriptedSource()
        line = source.line()
        said: asyncio.Queue[str] = asyncio.Queue()
        events: asyncio.Queue[Message] = asyncio.Queue()

        async def send(message: Message) -> None:
            said.put_nowait(message["type"])

        gated = GateMiddleware(app, bench.gate, Watcher(bench.gate, source, report=said.put_nowait))
        async with asyncio.timeout(5):
            serving = asyncio.create_task(gated({"type": "lifespan"}, events.get, send))
            events.put_nowait({"type": "lifespan.startup"})
            assert await said.get() == "lifespan.startup.complete"
            line.put_nowait(Answered(session=A, told=open_until(seq=3), token=token(A, 3, received_ns=NOON_NS)))
            while not bench.answer().allowed:  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.001)
            assert not serving.done()
            events.put_nowait({"type": "lifespan.shutdown"})
            await serving
            assert said.get_nowait() == "lifespan.shutdown.complete"

    asyncio.run(run())


def test_asgi_hides_no_failure_of_the_application() -> None:
    async def run() -> list[Message]:
        bench, sent = Bench.make(), list[Message]()

        async def send(message: Message) -> None:
            sent.append(message)

        gated = GateMiddleware(failing, bench.gate, Watcher(bench.gate, ScriptedSource(), report=print))
        with pytest.raises(ValueError, match="no database"):
            await gated({"type": "lifespan"}, mock.AsyncMock(), send)
        return sent

    assert asyncio.run(run()) == [{"type": "lifespan.startup.failed"}]


def test_a_pinned_context_takes_one_key_alone(tmp_path: Path) -> None:
    ensure_keys(tmp_path, names=["elsewhere.example"], at=datetime.now(UTC))
    key = load_serving(tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(key.certificate_file, key.key_file)

    async def talk(cnf: bytes) -> bytes:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if await reader.read(1):
                writer.write(b"hello")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=served) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=pinned_context(cnf))
            writer.write(b"x")
            try:
                return await reader.read()
            finally:
                writer.close()

    assert asyncio.run(talk(key.cnf)) == b"hello"
    with pytest.raises(PinMismatch, match=Code.UPSTREAM_KEY):
        asyncio.run(talk(bytes(32)))
    with pytest.raises(ValueError, match="digest"):
        pinned_context(b"")
