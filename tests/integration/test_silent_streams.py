"""What a connection keeps while nothing comes: the options of gRPC's that bound it may go with a version, unnoticed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import re
from typing import TYPE_CHECKING

import pytest

from support.service import Authority, Served
from support.world import World
from weighbridge.proto.v1 import attestation_pb2 as pb
from weighbridge.verifier import service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# As many as one peer may have, nearly.
STREAMS = 12
# More than a connection reads at first.
JUNK = pb.AttestRequest(window=bytes(30_000))
# Of 56: gRPC has 64 KiB ready for the next read, if nothing is said, and 8 by our word.
LEAST_KIB = 40
GRPC_RECORD = 2**14
LESS_THAN_AN_ANSWER = 4_096
HEADER = 5
APPLICATION_DATA = 23


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path)
    yield made
    made.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def handed_out() -> int:
    """Bytes that ``malloc`` has handed out and not got back, in all arenas; whether or not they were written to."""
    libc = ctypes.CDLL(None)
    libc.open_memstream.restype = ctypes.c_void_p
    text, size = ctypes.c_void_p(), ctypes.c_size_t()
    stream = ctypes.c_void_p(libc.open_memstream(ctypes.byref(text), ctypes.byref(size)))
    assert libc.malloc_info(0, stream) == 0
    assert libc.fclose(stream) == 0
    told = ctypes.string_at(text, size.value).decode().rpartition("</heap>")[2]
    libc.free(text)
    found = {
        kind: int(number)
        for kind, number in re.findall(r'<(?:system|total) type="(current|fast|rest|mmap)".*? size="([0-9]+)"', told)
    }
    return found["current"] - found["fast"] - found["rest"] + found["mmap"]


def kept(world: World, authority: Authority, name: str) -> float:
    """KiB of one silent stream, here and at its attester's end, once more has come over it than is read at first."""
    channel = authority.admit(name)
    with Served(world, authority) as served:

        def opened(count: int) -> None:
            for _ in range(count):
                raw = served.raw(channel)
                for _ in range(3):
                    raw.ask(JUNK)
            gc.collect()

        # What is made once for all.
        opened(2)
        before = handed_out()
        opened(STREAMS)
        return (handed_out() - before) / STREAMS / 1024


def test_what_the_next_read_goes_into_is_small(
    world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = kept(world, authority, "one")
    monkeypatch.setattr(service, "_READ_BUFFER", 4 * 2**20)
    assert kept(world, authority, "another") - ours > LEAST_KIB


def records(sent: bytes) -> Iterator[int]:
    """Bytes of each TLS record of application data in what a server has sent (RFC 8446 §5.1)."""
    at = 0
    while at + HEADER <= len(sent):
        size = HEADER + int.from_bytes(sent[at + 3 : at + HEADER])
        if sent[at] == APPLICATION_DATA:
            yield size
        at += size


@pytest.mark.parametrize("most", [service._TLS_RECORD, GRPC_RECORD])
def test_records_are_as_large_as_is_said(
    world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Each connection has a buffer for one: of 16 KiB, if nothing were said."""
    monkeypatch.setattr(service, "_TLS_RECORD", most)
    sent = bytearray()
    relays: list[asyncio.Task[object] | None] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.append(asyncio.current_task())
        theirs, ours = await asyncio.open_connection("127.0.0.1", port)

        async def pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter, noted: bytearray) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(2**16):
                    noted += data
                    to.write(data)
            to.close()
            with contextlib.suppress(OSError):
                await to.wait_closed()

        await asyncio.gather(pass_on(reader, ours, bytearray()), pass_on(theirs, writer, sent))

    async def ended() -> None:
        listening.close()
        await asyncio.wait([task for task in relays if task is not None], timeout=10)

    with Served(world, authority) as served:
        port = served.port
        listening = served.run(asyncio.start_server(relay, "127.0.0.1", 0))
        served.port = listening.sockets[0].getsockname()[1]
        remote = served.join(world.host)
        assert remote.window(world.host)["outcome"] == "affirmed"
        remote.cut()
        served.run(ended())
    # An answer has some 7 KiB: a record is full with it, or has all of it.
    largest = max(records(bytes(sent)))
    assert largest <= most
    assert (largest > LESS_THAN_AN_ANSWER) == (most == GRPC_RECORD)
