"""What the client of object storage makes of answers, and of none: asked of a server that says what it is told."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.ledger import s3
from weighbridge.verifier.ledger.bucket import NOTE, Bucket, Patience, Refused, Unanswered
from weighbridge.verifier.ledger.s3 import S3Address, S3Objects


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers with what stands next in ``answers``: status, error code, or seconds of silence."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[list[tuple[int, str, bytes]]] = []
    silence: ClassVar[float] = 0.0
    asked: ClassVar[list[tuple[str, str, dict[str, str]]]] = []

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.asked.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))
        time.sleep(self.silence)
        status, reason, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if reason:
            body = f"<Error><Code>{reason}</Code><Message>m</Message></Error>".encode()
        self.send_response(status)
        self.send_header("ETag", '"tag"')
        self.send_header("Last-Modified", "Fri, 27 Nov 2026 09:39:57 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815 - named by what they answer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library calls it
        pass


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Objects]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    Scripted.answers, Scripted.asked, Scripted.silence = [(200, "", b"")], [], 0.0
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "here-1"),
    ):
        monkeypatch.setenv(name, value)
    yield S3Objects(S3Address.parse("s3://bucket/some/prefix"), seconds=0.5)
    server.shutdown()
    thread.join()
    server.server_close()


def say(status: int, reason: str = "", body: bytes = b"") -> None:
    Scripted.answers = [(status, reason, body)]


def test_what_is_asked(objects: S3Objects) -> None:
    say(200, body=b"data")
    found = objects.get("a/b", limit=4)
    assert found is not None
    assert (found.data, found.tag) == (b"data", '"tag"')
    say(200)
    assert objects.create("a/b", b"data", NOTE) == '"tag"'
    assert objects.replace("a/b", b"data", NOTE, tag='"old"') == '"tag"'
    assert [(method, path) for method, path, _ in Scripted.asked] == [
        ("GET", "/bucket/some/prefix/a/b"),
        ("PUT", "/bucket/some/prefix/a/b"),
        ("PUT", "/bucket/some/prefix/a/b"),
    ]
    created, replaced = (headers for _, _, headers in Scripted.asked[1:])
    assert created["if-none-match"] == "*"
    assert (created["content-type"], created["cache-control"]) == ("text/plain; charset=utf-8", "no-cache")
    assert replaced["if-match"] == '"old"'
    assert "here-1" in replaced["authorization"]


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (403, "AccessDenied", Code.STORAGE_FORBIDDEN),
        (401, "Unauthorized", Code.STORAGE_FORBIDDEN),
        (403, "SignatureDoesNotMatch", Code.STORAGE_FORBIDDEN),
        (404, "NoSuchBucket", Code.STORAGE_ABSENT),
        (507, "InsufficientStorage", Code.DISK_FULL),
        (403, "QuotaExceeded", Code.DISK_FULL),
        (500, "XMinioStorageFull", Code.DISK_FULL),
        (501, "NotImplemented", Code.STORAGE_UNFIT),
        (400, "InvalidRequest", Code.STORAGE_UNREACHABLE),
        (405, "MethodNotAllowed", Code.STORAGE_UNREACHABLE),
    ],
)
def test_what_another_try_does_not_change(objects: S3Objects, status: int, reason: str, expected: Code) -> None:
    """Asked once, with a hint, and told by the service's own word."""
    say(status, reason)
    bucket = Bucket(objects, patience=Patience(first_pause=0.001))
    with pytest.raises(EnvironmentFault) as caught:
        bucket.create("x", b"data", NOTE)
    assert caught.value.code is expected
    assert caught.value.hint
    assert caught.value.where == "s3://bucket/some/prefix/x"
    assert reason in (caught.value.got or "")
    assert len(Scripted.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429, 409, 408])
def test_what_may_pass(objects: S3Objects, status: int) -> None:
    for request in (
        lambda: objects.get("x", limit=10),
        lambda: objects.create("x", b"data", NOTE),
        lambda: objects.replace("x", b"data", NOTE, tag='"old"'),
    ):
        say(status, "SlowDown")
        with pytest.raises(Unanswered, match=str(status)):
            request()
    Scripted.answers = [(status, "SlowDown", b"")] * 2 + [(200, "", b"data")]
    found = Bucket(objects, patience=Patience(first_pause=0.001)).get("x", limit=10)
    assert found is not None
    assert found.data == b"data"


@pytest.mark.parametrize("status", [412, 304])
def test_conditions_that_do_not_hold(objects: S3Objects, status: int) -> None:
    say(status, "PreconditionFailed" if status == 412 else "")
    if status == 304:
        with pytest.raises(Refused):
            objects.get("x", limit=10, unless='"tag"')
        assert Scripted.asked[-1][2]["if-none-match"] == '"tag"'
        return
    with pytest.raises(Refused):
        objects.create("x", b"data", NOTE)
    with pytest.raises(Refused):
        objects.replace("x", b"data", NOTE, tag='"old"')


def test_silence_ends(objects: S3Objects) -> None:
    """Each request has its time, and all tries together have theirs."""
    Scripted.silence = 1.0
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as caught:
        Bucket(objects, patience=Patience(tries=5, seconds=0.3)).get("x", limit=10)
    assert caught.value.code is Code.STORAGE_UNREACHABLE
    assert time.monotonic() - began < 2


def test_an_object_is_not_read_beyond_its_limit(objects: S3Objects) -> None:
    say(200, body=b"x" * 11)
    with pytest.raises(MalformedEvidence) as caught:
        objects.get("x", limit=10)
    assert caught.value.code is Code.TOO_LARGE


def test_nobody_there(objects: S3Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    del objects
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unanswered):
        S3Objects(S3Address.parse("s3://bucket")).get("x", limit=1)


def test_evidence_does_not_travel_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS only this machine is asked, or what the operator has said in so many words."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:9000")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(EnvironmentFault) as caught:
        S3Objects(S3Address.parse("s3://bucket")).get("x", limit=1)
    assert caught.value.code is Code.STORAGE_UNREACHABLE
    assert caught.value.where == "AWS_ENDPOINT_URL"
    # Nobody answers there, but it would be asked.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost.localdomain.invalid:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises(Unanswered):
        S3Objects(S3Address.parse("s3://bucket"), seconds=0.2).get("x", limit=1)


def test_settings_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(EnvironmentFault) as caught:
        S3Objects(S3Address.parse("s3://bucket")).get("x", limit=1)
    assert caught.value.code is Code.STORAGE_UNREACHABLE
    monkeypatch.setattr(s3, "find_spec", lambda _: None)
    with pytest.raises(EnvironmentFault) as caught:
        S3Objects(S3Address.parse("s3://bucket")).get("x", limit=1)
    assert caught.value.code is Code.TOOL_MISSING
    assert "weighbridge[fleet]" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("s3://abc", "abc", ""),
        ("s3://abc/", "abc", ""),
        ("s3://a-b-0/x/Y.z_1-2", "a-b-0", "x/Y.z_1-2"),
        ("s3://abc/x/", "abc", "x"),
    ],
)
def test_addresses(text: str, bucket: str, prefix: str) -> None:
    address = S3Address.parse(text)
    assert (address.bucket, address.prefix) == (bucket, prefix)
    assert S3Address.parse(str(address)) == address
    assert address.below("ledger").prefix == f"{prefix}/ledger".lstrip("/")


@pytest.mark.parametrize(
    "text",
    [
        "", "s3:", "s3://", "s3:///x", "s3://ab", "s3://Abc", "s3://a.b.c", "s3://abc//x", "s3://abc/../x", "s3://abc/.",
        "s3://abc/x y", "s3://abc/ä", "s3://abc?x", "s3://u:p@abc/x", "S3://abc", "http://abc", "s3://abc/x\n",
        "s3://" + "a" * 64, "s3://abc/" + "x/" * 9,
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"not s3|a prefix has"):
        S3Address.parse(text)
