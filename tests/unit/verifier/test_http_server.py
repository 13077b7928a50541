"""The HTTP listener by itself: everything about a request is bounded, and nothing that is not one is answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus
from pathlib import Path

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from support.service import Authority
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.http_messages import Request, Response, Route, json_response, tagged
from weighbridge.verifier.http_server import BODY_MAX, HEAD_MAX, HttpServer, Timeouts, listening
from weighbridge.verifier.settings.kinds import Place

QUICK = Timeouts(handshake=0.2, request=0.2, idle=0.3, taken=0.5, answer=0.2)
LOCAL = Place("127.0.0.1", 0)


async def _hello(request: Request) -> Response:
    return tagged(json_response({"path": request.path, "got": len(request.body)}), request)


async def _slow(request: Request) -> Response:
    await asyncio.sleep(10)
    raise AssertionError(request)


async def _broken(request: Request) -> Response:
    raise ZeroDivisionError(request.path)


ROUTES = {
    "/": Route(_hello),
    "/form": Route(_hello, ("POST",)),
    "/slow": Route(_slow),
    "/broken": Route(_broken),
}


@contextlib.asynccontextmanager
async def served(connections: int = 9) -> AsyncGenerator[int]:
    async with listening(HttpServer(ROUTES, timeouts=QUICK, connections=connections), LOCAL, tls=None) as port:
        yield port


async def told(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that comes until the listener closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()

    async def read() -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                answer.extend(piece)

    reading = asyncio.create_task(read())
    try:
        for part in parts:
            with contextlib.suppress(OSError):
                writer.write(part)
                await writer.drain()
            await asyncio.sleep(pause)
        await asyncio.wait_for(reading, 5)
        return bytes(answer)
    finally:
        writer.close()


def ask(*parts: bytes, pause: float = 0.0, connections: int = 9) -> bytes:
    async def once() -> bytes:
        async with served(connections) as port:
            return await told(port, *parts, pause=pause)

    return asyncio.run(once())


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def get(path: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: here", "connection: close", *headers]
    if body:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def test_an_answer_is_whole_and_says_how_long_it_is() -> None:
    head, _, body = ask(get("/?x=1")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b'{"got":0,"path":"/"}\n'
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert b"x-content-type-options: nosniff" in head.lower()


def test_a_head_is_the_same_without_its_body() -> None:
    full, head = ask(get()), ask(get(method="HEAD"))
    assert head.endswith(b"\r\n\r\n")
    body = full.partition(b"\r\n\r\n")[2]
    assert f"content-length: {len(body)}".encode() in head.lower()


def test_what_the_peer_has_is_not_sent_again() -> None:
    tag = next(line for line in ask(get()).split(b"\r\n") if line.lower().startswith(b"etag:"))[6:].decode()
    for value in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = ask(get("/", f"if-none-match: {value}"))
        assert (status_of(answer), answer.partition(b"\r\n\r\n")[2]) == (304, b"")
    assert status_of(ask(get("/", 'if-none-match: "x"'))) == HTTPStatus.OK


def test_several_requests_on_one_connection_at_once() -> None:
    request = get().replace(b"connection: close\r\n", b"")
    answer = ask(request + request + get("/none"))
    assert [answer.count(b"HTTP/1.1 200"), answer.count(b"HTTP/1.1 404")] == [2, 1]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/none"), 404),
        (get("/form"), 405),
        (get(method="DELETE"), 405),
        (get(method="TRACE"), 405),
        (b"CONNECT here:1 HTTP/1.1\r\nhost: here\r\n\r\n", 404),
        (get("/form", method="POST", body=b"a" * BODY_MAX), 200),
        (get("/form", method="POST", body=b"a" * (BODY_MAX + 1)), 413),
        (get("/form", "content-length: 99999999999", method="POST"), 413),
        (get("/", "x: " + "a" * 2 * HEAD_MAX), 431),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nhost: h\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (get("/", "content-length: 1", "content-length: 2", method="POST"), 400),
        (get("/", "content-length: 1", "transfer-encoding: chunked", method="POST"), 400),
        (get("/slow"), 503),
    ],
)
def test_what_is_not_for_us(request_: bytes, status: int) -> None:
    answer = ask(request_)
    assert status_of(answer) == status
    if status not in {200, 413}:
        assert b'"error":' in answer


def test_a_defect_of_ours_is_told_to_the_operator_alone(capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(get("/broken"))
    assert status_of(answer) == HTTPStatus.INTERNAL_SERVER_ERROR
    assert b"ZeroDivision" not in answer
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_whoever_dribbles_is_cut_off() -> None:
    assert status_of(ask(*(bytes([byte]) for byte in get()[:20]), pause=0.05)) == HTTPStatus.REQUEST_TIMEOUT
    body = get("/form", "content-length: 50", method="POST")
    assert status_of(ask(body, *[b"a"] * 10, pause=0.05)) == HTTPStatus.REQUEST_TIMEOUT
    assert ask(b"", pause=0.0) == b""


def test_a_body_is_asked_for_where_the_peer_waits() -> None:
    async def once() -> bytes:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/form", "expect: 100-continue", "content-length: 2", method="POST"))
            first = await reader.readuntil(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 100")
            writer.write(b"ab")
            rest = await reader.read()
            writer.close()
            return rest

    assert b'"got":2' in asyncio.run(once())


def test_one_connection_too_many_is_closed() -> None:
    async def several() -> tuple[bytes, bytes]:
        async with served(1) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)
            refused = await told(port, get())
            writer.close()
            await asyncio.sleep(0.05)
            return refused, await told(port, get())

    refused, taken = asyncio.run(several())
    assert (refused, status_of(taken)) == (b"", 200)


LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's, and one that trusts it."""
    files = Authority(tmp_path_factory.mktemp("tls") / "authority").tls
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    return server, ssl.create_default_context(cafile=str(files.client_ca))


@LOOPS
def test_a_large_request_comes_whole_over_tls(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def once() -> bytes:
        async with listening(HttpServer(ROUTES), LOCAL, tls=contexts[0]) as port:
            reader, writer = await asyncio.open_connection("localhost", port, ssl=contexts[1])
            writer.write(get("/form", method="POST", body=bytes(BODY_MAX)))
            answer = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            return answer

    with asyncio.Runner(loop_factory=loop) as runner:
        assert f'"got":{BODY_MAX}'.encode() in runner.run(once())


@LOOPS
def test_strangers_count_before_they_have_said_anything(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def several() -> bytes:
        server = HttpServer(ROUTES, timeouts=Timeouts(handshake=2.0), connections=1)
        async with listening(server, LOCAL, tls=contexts[0]) as port:
            silent, one = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)
            reader, another = await asyncio.open_connection("127.0.0.1", port)
            assert await asyncio.wait_for(reader.read(), 1) == b""
            # Nobody has silence for ever.
            assert await asyncio.wait_for(silent.read(), 5) == b""
            await asyncio.sleep(0.05)
            reader, writer = await asyncio.open_connection("localhost", port, ssl=contexts[1])
            writer.write(get())
            answer = await asyncio.wait_for(reader.read(), 5)
            for each in (one, another, writer):
                each.close()
            return answer

    with asyncio.Runner(loop_factory=loop) as runner:
        assert status_of(runner.run(several())) == HTTPStatus.OK


@LOOPS
def test_whoever_takes_nothing_is_let_go(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def large(request: Request) -> Response:  # noqa: ARG001 - one is as the other
        return Response(body=bytes(1 << 23))

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def once() -> None:
        server = HttpServer({**ROUTES, "/large": Route(large)}, timeouts=QUICK, connections=1)
        async with listening(server, LOCAL, tls=None) as port:
            assert status_of(await told(port, get())) == HTTPStatus.OK
            await asyncio.sleep(0.1)
            with socket.create_connection(("127.0.0.1", port)) as peer:
                before = descriptors()
                peer.sendall(get("/large"))
                await asyncio.sleep(0.1)
                assert descriptors() > before
                # It counts for as long as its socket is open.
                assert await told(port, get()) == b""
                async with asyncio.timeout(5):
                    while descriptors() > before:  # noqa: ASYNC110 - nobody tells of it
                        await asyncio.sleep(0.05)
                assert status_of(await told(port, get())) == HTTPStatus.OK

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(once())


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_is_taken_is_told_once(shared: bool) -> None:
    """By whoever does not share it."""
    ports: list[int] = []

    async def twice() -> None:
        async with served() as port:
            ports.append(port)
            async with listening(HttpServer(ROUTES), Place("127.0.0.1", port), tls=None, shared=shared):
                raise AssertionError

    with pytest.raises(EnvironmentFault) as caught:
        asyncio.run(twice())
    assert caught.value.code is Code.PORT_UNAVAILABLE
    assert str(caught.value).endswith(f"cannot listen here: address already in use, at 127.0.0.1:{ports[0]}")
    assert caught.value.hint == "choose another address, or stop the program that has this one"


_LINES = st.sampled_from([b"GET / HTTP/1.1\r\n", b"host: a\r\n", b"\r\n", b"content-length: 3\r\n", b"abc", b"\x00"])


@given(st.lists(st.binary(max_size=60) | _LINES, max_size=6))
@settings(max_examples=25)
def test_any_bytes_are_answered_or_refused(parts: list[bytes]) -> None:
    async def once() -> tuple[bytes, bytes]:
        async with served() as port:
            return await told(port, b"".join(parts) + b"\r\n\r\n"), await told(port, get())

    answer, after = asyncio.run(once())
    assert not answer or status_of(answer) in {200, 400, 404, 405, 408, 413, 431, 501, 505}
    assert status_of(after) == HTTPStatus.OK
