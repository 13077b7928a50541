"""Reading without a copy where that is safe, by copies elsewhere; the same bytes either way."""

from __future__ import annotations

import mmap
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from weighbridge.attester.weights import reading
from weighbridge.attester.weights.reading import ReadFailedError, read_pieces

PAGE = mmap.PAGESIZE
DATA = random.Random(1).randbytes(10 * PAGE + 123)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(DATA)
    return tmp_path / "file"


@pytest.fixture
def handle(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MAPPED_FROM", 1)


def read(handle: int, begin: int, end: int, piece: int = 1000) -> bytes:
    got = bytearray()
    count = read_pieces(handle, begin, end, buffer=memoryview(bytearray(piece)), step=2 * PAGE, consume=got.extend)
    assert count == len(got)
    return bytes(got)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions from which something is copied."""
    seen: list[int] = []
    real = os.preadv

    def record(handle: int, buffers: list[memoryview], position: int) -> int:
        seen.append(position)
        return real(handle, buffers, position)

    monkeypatch.setattr(os, "preadv", record)
    return seen


def leases(handle: int) -> bool:
    with reading._leased(handle) as leased:
        return leased


@pytest.mark.parametrize("piece", [1, 1000, PAGE, 3 * PAGE, 10**6])
@pytest.mark.parametrize(
    ("begin", "end"), [(0, len(DATA)), (1, PAGE), (PAGE - 1, PAGE + 1), (PAGE, 5 * PAGE + 7), (7, 7)]
)
def test_every_range_is_handed_over_whole(handle: int, begin: int, end: int, piece: int) -> None:
    assert read(handle, begin, end, piece) == DATA[begin:end]


def test_nothing_is_copied_under_a_lease(handle: int, copies: list[int]) -> None:
    if not leases(handle):
        pytest.skip("the temporary directory's file system has no leases")
    assert read(handle, 0, len(DATA)) == DATA
    assert copies == []


def test_file_that_somebody_may_write_is_copied(path: Path, handle: int, copies: list[int]) -> None:
    with path.open("r+b"):
        assert not leases(handle)
        assert read(handle, 0, len(DATA)) == DATA
    assert copies


def test_small_ranges_are_copied(handle: int, copies: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MAPPED_FROM", len(DATA) + 1)
    assert read(handle, 0, len(DATA)) == DATA
    assert copies


def test_kernel_that_cannot_populate_copies_from_where_it_stopped(
    handle: int, copies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [2]

    def populated(_area: object, _begin: int, _size: int) -> bool:
        left[0] -= 1
        return left[0] >= 0

    monkeypatch.setattr(reading, "_populated", populated)
    if leases(handle):
        assert read(handle, 0, len(DATA)) == DATA
        assert copies[0] == 4 * PAGE


def test_advice_that_the_kernel_does_not_know_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_POPULATE_READ", 12345)
    with mmap.mmap(-1, PAGE) as area:
        assert not reading._populated(area, 0, PAGE)


def test_file_that_ends_early_hands_over_what_is_there(path: Path, handle: int) -> None:
    """Shortened before the lease: nothing of it is mapped."""
    with path.open("r+b") as file:
        file.truncate(PAGE + 5)
    assert read(handle, 0, len(DATA)) == DATA[: PAGE + 5]


def test_whoever_would_shorten_the_file_waits_and_nobody_dies(path: Path, handle: int) -> None:
    """A53: without the lease, the next access would end this process."""
    if not leases(handle):
        pytest.skip("the temporary directory's file system has no leases")
    shortening = threading.Thread(target=os.truncate, args=(path, 0))
    got = bytearray()

    def consume(piece: memoryview) -> None:
        if not got:
            shortening.start()
            # Long enough for it to be in the kernel, waiting.
            shortening.join(0.05)
        got.extend(piece)

    buffer = memoryview(bytearray(1000))
    assert read_pieces(handle, 0, len(DATA), buffer=buffer, step=2 * PAGE, consume=consume) == len(DATA)
    assert got == DATA
    shortening.join(10)
    assert path.stat().st_size == 0


def test_disk_that_fails_says_so(handle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reading, "_populated", lambda *_: False)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(ReadFailedError, match="Input/output error"):
        read(handle, 0, len(DATA))


@pytest.mark.parametrize("mapped_from", [1, 10**9])
def test_what_consuming_raises_passes_through(
    path: Path, handle: int, monkeypatch: pytest.MonkeyPatch, mapped_from: int
) -> None:
    """Its own errors of the system are not taken for those of reading; the lease is given back."""
    monkeypatch.setattr(reading, "_MAPPED_FROM", mapped_from)

    def consume(_piece: memoryview) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        read_pieces(handle, 0, len(DATA), buffer=memoryview(bytearray(10)), step=2 * PAGE, consume=consume)
    path.write_bytes(b"")
