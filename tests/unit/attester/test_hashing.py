"""Hashing ranges of files: in order, in parallel, and never of another file than was found."""

from __future__ import annotations

import builtins
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fakes.models import minilm_directory
from weighbridge.attester.weights import hashing
from weighbridge.attester.weights.directory import FoundFile, walk
from weighbridge.attester.weights.hashing import ContentHash, FileRange, cores, hash_ranges
from weighbridge.proto.errors import Code, EnvironmentFault

DATA = bytes(range(256)) * 40


@pytest.fixture
def found(tmp_path: Path) -> FoundFile:
    return found_file(tmp_path)


def found_file(directory: Path) -> FoundFile:
    (directory / "file").write_bytes(DATA)
    # A change that follows at once may fall into the same tick of the kernel's clock.
    os.utime(directory / "file", (1, 1))
    return walk(directory)[0]


def fault(action: Callable[[], object]) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        action()
    return caught.value


@pytest.mark.parametrize(
    ("algorithm", "reference"), [("sha256", hashlib.sha256), ("blake2b", hashlib.blake2b), ("blake3", blake3)]
)
def test_digests_are_those_of_the_libraries_in_the_order_given(
    found: FoundFile, algorithm: ContentHash, reference: Callable[[bytes], Any]
) -> None:
    ranges = [FileRange(found, 5000, 9000), FileRange(found, 0, 5000), FileRange(found, 7, 7)]
    expected = [reference(DATA[part.begin : part.end]).digest() for part in ranges]
    assert hash_ranges(ranges, algorithm=algorithm) == expected


@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=12), workers=st.integers(1, 4), buffer=st.integers(1, 12_000))
def test_any_cut_gives_the_same_digests(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], workers: int, buffer: int
) -> None:
    """Empty, neighbouring and overlapping ranges, whatever the buffer cuts."""
    found = found_file(tmp_path_factory.mktemp("cut"))
    ordered = sorted([0, *cuts, len(DATA)])
    ranges = [FileRange(found, begin, end) for begin, end in pairwise(ordered)]
    ranges += [FileRange(found, cut, len(DATA)) for cut in cuts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_BUFFER", {"sha256": buffer})
        patch.setattr(hashing, "_UNIT_SIZE_MIN", buffer)
        digests = hash_ranges(ranges, workers=workers)
    assert digests == [hashlib.sha256(DATA[part.begin : part.end]).digest() for part in ranges]


def test_nothing_to_hash_is_no_work(found: FoundFile) -> None:
    assert hash_ranges([]) == []
    assert hash_ranges([FileRange(found, 3, 3)]) == [hashlib.sha256(b"").digest()]


def test_neighbours_are_read_together(found: FoundFile, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    real_open = os.open

    def count(path: Path, flags: int) -> int:
        opened.append(path)
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", count)
    hash_ranges([FileRange(found, at, at + 10) for at in range(0, 10_000, 10)])
    assert len(opened) == 1


@pytest.mark.parametrize(("begin", "end"), [(-1, 5), (5, 4), (0, len(DATA) + 1)])
def test_only_ranges_of_the_file_can_be_asked_for(found: FoundFile, begin: int, end: int) -> None:
    with pytest.raises(ValueError, match="no range"):
        FileRange(found, begin, end)


def test_progress_and_digests_are_told_from_one_thread_at_a_time(tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / f"{index}").write_bytes(DATA)
    ranges = [FileRange(file, 0, file.size) for file in walk(tmp_path)]
    inside = threading.Lock()
    steps: list[tuple[int, int]] = []
    told: dict[int, bytes] = {}

    def progress(done: int, total: int) -> None:
        assert inside.acquire(blocking=False)
        steps.append((done, total))
        inside.release()

    def done(index: int, digest: bytes) -> None:
        assert inside.acquire(blocking=False)
        told[index] = digest
        inside.release()

    digests = hash_ranges(ranges, workers=4, progress=progress, done=done)
    assert [told[index] for index in range(20)] == digests
    assert steps == sorted(steps)
    assert steps[-1] == (20 * len(DATA), 20 * len(DATA))


def replaced(path: Path) -> None:
    path.rename(path.parent / "old")
    path.write_bytes(DATA)


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link(path: Path) -> None:
    path.rename(path.parent / "old")
    path.symlink_to("old")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (Path.unlink, Code.WEIGHTS_CHANGED),
        (replaced, Code.WEIGHTS_CHANGED),
        (as_fifo, Code.WEIGHTS_CHANGED),
        (as_link, Code.WEIGHTS_UNREADABLE),
        (lambda path: path.write_bytes(DATA + b"x"), Code.WEIGHTS_CHANGED),
        (lambda path: path.write_bytes(DATA[1:]), Code.WEIGHTS_CHANGED),
    ],
)
def test_another_file_than_was_found_is_refused(found: FoundFile, change: Callable[[Path], object], code: Code) -> None:
    change(found.real)
    error = fault(lambda: hash_ranges([FileRange(found, 0, 10)]))
    assert (error.code, error.where) == (code, "file")


@pytest.mark.parametrize(
    "change",
    [lambda path: path.write_bytes(DATA[:600]), lambda path: path.write_bytes(DATA + b"x"), lambda path: path.touch()],
)
def test_file_that_changes_while_it_is_read_is_refused(
    found: FoundFile, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_BUFFER", {"sha256": 500})
    pending = [change]

    def progress(_done: int, _total: int) -> None:
        if pending:
            pending.pop()(found.real)

    error = fault(lambda: hash_ranges([FileRange(found, 0, found.size)], progress=progress))
    assert (error.code, error.where) == (Code.WEIGHTS_CHANGED, "file")


def test_disk_that_fails_is_an_error_that_names_the_file(found: FoundFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    error = fault(lambda: hash_ranges([FileRange(found, 0, 10)]))
    assert (error.code, error.where) == (Code.WEIGHTS_UNREADABLE, "file")
    assert "Input/output error" in error.message


@pytest.mark.parametrize("workers", [1, 4])
def test_first_failure_stops_the_other_threads(tmp_path: Path, workers: int) -> None:
    for index in range(50):
        (tmp_path / f"{index:02}").write_bytes(DATA)
    files = walk(tmp_path)
    files[2].real.write_bytes(b"other")
    read: list[int] = []
    error = fault(
        lambda: hash_ranges(
            [FileRange(file, 0, file.size) for file in files],
            workers=workers,
            progress=lambda done, _total: read.append(done),
        )
    )
    assert error.where == "02"
    assert len(read) < 20


def test_interruption_stops_all_threads(tmp_path: Path) -> None:
    for index in range(50):
        (tmp_path / f"{index:02}").write_bytes(DATA)
    read: list[int] = []

    def interrupt(done: int, _total: int) -> None:
        read.append(done)
        raise KeyboardInterrupt

    # A shell has what it runs in the background ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            hash_ranges([FileRange(file, 0, file.size) for file in walk(tmp_path)], workers=2, progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(read) <= 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hashing")]


def test_signal_stops_all_threads(tmp_path: Path) -> None:
    """Ctrl-C reaches the thread that waits."""
    for index in range(200):
        (tmp_path / f"{index:03}").write_bytes(DATA)
    read: list[int] = []

    def interrupt(done: int, _total: int) -> None:
        if not read:
            os.kill(os.getpid(), signal.SIGINT)
        read.append(done)
        time.sleep(0.01)

    # A shell has what it runs in the background ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            hash_ranges([FileRange(file, 0, file.size) for file in walk(tmp_path)], workers=2, progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    # The interrupt may come while a thread is being started, which then ends by itself.
    for thread in threading.enumerate():
        if thread.name.startswith("hashing"):
            thread.join(10)
            assert not thread.is_alive()
    assert len(read) < 200


def test_missing_library_says_what_to_install(found: FoundFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "blake3":
            raise ModuleNotFoundError(name)
        return real_import(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    error = fault(lambda: hash_ranges([FileRange(found, 0, 10)], algorithm="blake3"))
    assert (error.code, error.where) == (Code.TOOL_MISSING, "blake3")
    assert "pip install" in error.hint
    assert hash_ranges([FileRange(found, 0, 10)])


def test_library_is_not_loaded_unless_chosen() -> None:
    """It is an option: a host without it measures with SHA-256."""
    code = "import sys, weighbridge.attester.weights.hashing; sys.exit('blake3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cores_are_those_this_process_may_use() -> None:
    assert cores() == len(os.sched_getaffinity(0))


def test_published_digest_of_a_real_file() -> None:
    (file,) = [file for file in walk(minilm_directory()) if file.path == "model.safetensors"]
    digest = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert [found.hex() for found in hash_ranges([FileRange(file, 0, file.size)])] == [digest]
