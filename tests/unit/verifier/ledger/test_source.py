"""Whoever serves a log's files: slow, lying, or sending whatever it likes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.logs import Server, served
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.ledger.source import DirectorySource, HttpSource, open_source


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "checkpoint").write_bytes(b"a checkpoint")
    with served(tmp_path) as serving:
        yield serving


@pytest.fixture
def source(server: Server) -> Iterator[HttpSource]:
    with contextlib.closing(HttpSource(server.address, seconds=0.3)) as found:
        yield found


def test_files_that_are_there_and_not(source: HttpSource, server: Server) -> None:
    for _ in range(2):
        assert source.read("checkpoint", limit=100) == b"a checkpoint"
        assert source.read("tile/0/000", limit=100) is None
    assert server.asked == ["/log/checkpoint", "/log/tile/0/000"] * 2


def test_a_server_that_has_hung_up_is_asked_again(source: HttpSource, server: Server) -> None:
    """It says nothing about when: the next question finds out."""
    server.answer = (200, {}, [b"without a length"])
    for _ in range(3):
        assert source.read("checkpoint", limit=100) == b"without a length"
    server.answer = None
    assert source.read("checkpoint", limit=100) == b"a checkpoint"


@pytest.mark.parametrize(
    ("status", "headers", "chunks", "words"),
    [
        (301, {"Location": "http://127.0.0.1/", "Content-Length": "0"}, [], "the server redirects"),
        (500, {"Content-Length": "3"}, [b"why"], "answers otherwise than with 200"),
        (206, {"Content-Length": "3"}, [b"why"], "answers otherwise than with 200"),
        (200, {"Content-Length": "3", "Content-Encoding": "gzip"}, [b"why"], "the answer is compressed"),
        (200, {"Content-Length": "9", "Connection": "close"}, [b"why"], ""),
        (200, {"Transfer-Encoding": "chunked"}, [b"no chunk\r\n"], "no answer"),
    ],
)
def test_answers_that_are_none(
    source: HttpSource, server: Server, status: int, headers: dict[str, str], chunks: list[bytes], words: str
) -> None:
    server.answer = (status, headers, chunks)
    with pytest.raises(EnvironmentFault) as refusal:
        source.read("checkpoint", limit=100)
    assert (refusal.value.code, words in refusal.value.message) == (Code.LEDGER_UNREACHABLE, True)
    # What was left of it is not taken for the next answer.
    server.answer = None
    assert source.read("checkpoint", limit=100) == b"a checkpoint"


def test_an_answer_without_end_is_cut_off(source: HttpSource, server: Server) -> None:
    server.answer = (200, {}, [bytes(64)] * 100)
    with pytest.raises(MalformedEvidence) as refusal:
        source.read("checkpoint", limit=100)
    assert refusal.value.code is Code.TOO_LARGE


def test_a_server_that_takes_its_time(source: HttpSource, server: Server) -> None:
    """A byte now and then keeps every timeout of a single step; the whole has one as well."""
    server.answer, server.pause = (200, {"Content-Length": "100"}, [b"x"] * 100), 0.02
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as refusal:
        source.read("checkpoint", limit=100)
    assert (refusal.value.code, "not within 0.3 s" in refusal.value.message) == (Code.LEDGER_UNREACHABLE, True)
    assert time.monotonic() - began < 1.5


def test_a_slow_answer_without_a_length_is_not_taken_for_a_whole_one(source: HttpSource, server: Server) -> None:
    server.answer, server.pause = (200, {}, [b"x"] * 100), 0.02
    with pytest.raises(EnvironmentFault):
        source.read("checkpoint", limit=100)


def test_nobody_there() -> None:
    with contextlib.closing(open_source("http://127.0.0.1:1", seconds=1)) as nobody:
        with pytest.raises(EnvironmentFault) as refusal:
            nobody.read("checkpoint", limit=100)
        assert refusal.value.code is Code.LEDGER_UNREACHABLE
        assert refusal.value.where == "http://127.0.0.1:1/checkpoint"


def test_https_is_verified(server: Server) -> None:
    """A server that does not speak TLS is no server."""
    with contextlib.closing(open_source(server.address.replace("http", "https"), seconds=1)) as secure:
        with pytest.raises(EnvironmentFault) as refusal:
            secure.read("checkpoint", limit=100)
        assert refusal.value.code is Code.LEDGER_UNREACHABLE


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"a checkpoint")
    directory = open_source(str(tmp_path))
    assert isinstance(directory, DirectorySource)
    assert directory.read("checkpoint", limit=12) == b"a checkpoint"
    assert directory.read("checkpoint/below", limit=12) is None
    assert directory.read("tile/0/000", limit=12) is None
    with pytest.raises(MalformedEvidence) as refusal:
        directory.read("checkpoint", limit=11)
    assert refusal.value.code is Code.TOO_LARGE
    with pytest.raises(EnvironmentFault) as unreadable:
        directory.read("x" * 300, limit=11)
    assert unreadable.value.code is Code.FILE_UNREADABLE
