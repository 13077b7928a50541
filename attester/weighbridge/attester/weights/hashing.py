"""Digests of byte ranges of files: every range is read once, by as many threads as there are cores.

Small ranges that lie one behind the other in a file are read together and hashed apart, so a file of ten thousand
tensors costs as few system calls as one of none. Memory is one buffer a thread, whatever the files' sizes.

A file is opened without following a link and must be the one that was found: same device, inode, size, modification
and change time, before and after each reading. Not seen: a write in the same tick of the kernel's clock (4 ms on many)
as the one that made the file what was found; one through a mapping whose time the kernel has not noted yet; and what
happens after the last reading.

>>> hash_ranges([FileRange(file, 0, file.size)])        # doctest: +SKIP
[b'...']
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from weighbridge.attester.weights.directory import changed, identity, unreadable
from weighbridge.attester.weights.reading import ReadFailedError, read_pieces
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.attester.weights.directory import FoundFile

__all__ = [
    "UNIT_SIZE",
    "ContentHash",
    "Done",
    "FileRange",
    "Progress",
    "check_same",
    "cores",
    "hash_ranges",
    "new_hash",
    "open_found",
]

ContentHash = Literal["sha256", "blake3", "blake2b"]
# Bytes done, bytes in all.
Progress = Callable[[int, int], None]
# The index of a range, its digest.
Done = Callable[[int, bytes], None]

# Neighbouring ranges are read together up to this size: the size of a shard, so that one shard is one unit of work.
UNIT_SIZE: Final = 64 * 1024 * 1024
# Of a small model less, so that every core gets several units, but not so little that opening files is felt.
_UNIT_SIZE_MIN: Final = 2 * 1024 * 1024
_UNITS_PER_WORKER: Final = 8
_WAKE_S: Final = 0.2
# Measured: what is copied should stay in the second-level cache until it is hashed. BLAKE3 is so quick that a larger
# buffer would wait for memory; for the others, a smaller one would only add system calls.
_BUFFER: Final = {"sha256": 1024 * 1024, "blake2b": 1024 * 1024, "blake3": 256 * 1024}
# Measured: mapping costs BLAKE3 a tenth of its speed unless a shard is mapped at once; the others gain by the kernel's
# reading ahead while they hash.
_STEP: Final = {"sha256": 8 * 1024 * 1024, "blake2b": 8 * 1024 * 1024, "blake3": UNIT_SIZE}


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> object: ...
    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FileRange:
    """The bytes ``begin`` up to, not including, ``end`` of a file.

    Raises:
        ValueError: the range is not within the file as it was found.
    """

    file: FoundFile
    begin: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.end <= self.file.size:
            raise ValueError(f"{self.begin} to {self.end} is no range of {self.file.size} bytes")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def hash_ranges(
    ranges: Sequence[FileRange],
    *,
    algorithm: ContentHash = "sha256",
    workers: int | None = None,
    progress: Progress | None = None,
    done: Done | None = None,
) -> list[bytes]:
    """The digest of each range, in the order given. A single range is never divided: cut what is large beforehand.

    Args:
        ranges: in any order; they may overlap, and are then read more than once.
        algorithm: ``sha256``, ``blake3`` (32 bytes each), or ``blake2b`` (64 bytes).
        workers: threads; one per core by default.
        progress: called with bytes done and bytes in all, from several threads but never from two at once.
        done: called with a range's index and its digest as soon as it has one, under the same rule. Files are worked
            on in the order of their paths, so that an interruption leaves few of them half done.

    Raises:
        EnvironmentFault: ``WEIGHTS_CHANGED`` or ``WEIGHTS_UNREADABLE``, naming the path; ``TOOL_MISSING`` where BLAKE3
            is asked for and its library is not installed. The first failure stops all threads.
    """
    create = new_hash(algorithm)
    digests = [b""] * len(ranges)
    workers = workers or cores()
    total = sum(part.end - part.begin for part in ranges)
    limit = max(_UNIT_SIZE_MIN, min(UNIT_SIZE, total // (workers * _UNITS_PER_WORKER)))
    # What is longer than a shard first, so that the last ones to end are small; the rest in the order of the disk.
    units = deque(sorted(_units(ranges, limit), key=lambda unit: -max(unit.size, UNIT_SIZE)))
    meter = _Meter(total, progress)

    buffer_size = min(_BUFFER[algorithm], max((unit.size for unit in units), default=0)) or 1

    def work() -> None:
        buffer = memoryview(bytearray(buffer_size))
        while True:
            try:
                unit = units.popleft()
            except IndexError:
                return
            for index, digest in zip(
                unit.indices, _hash_unit(unit, create, buffer, meter, step=_STEP[algorithm]), strict=True
            ):
                digests[index] = digest
            if done is not None:
                meter.report(done, ((index, digests[index]) for index in unit.indices))

    _in_threads(work, min(workers, len(units)), meter)
    return digests


def new_hash(algorithm: ContentHash) -> Callable[[], _Hash]:
    """What makes an empty hash of that algorithm.

    Raises:
        EnvironmentFault: ``TOOL_MISSING``: BLAKE3 comes with a library that need not be installed.
    """
    if algorithm == "sha256":
        return hashlib.sha256
    if algorithm == "blake2b":
        return hashlib.blake2b
    try:
        from blake3 import blake3  # noqa: PLC0415 - optional, and only for those who choose it
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING,
            "the library for BLAKE3 is not installed",
            where="blake3",
            hint="pip install blake3, or take sha256",
        ) from error
    return blake3


def open_found(file: FoundFile) -> int:
    """A descriptor of the very file that was found. The caller closes it.

    Raises:
        EnvironmentFault: ``WEIGHTS_CHANGED`` when it is gone or another one; ``WEIGHTS_UNREADABLE``.
    """
    try:
        # NONBLOCK: should a FIFO have taken the file's place, opening it must not wait for a writer.
        handle = os.open(file.real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise changed(file.path) from error
    except OSError as error:
        raise unreadable(file.path, error.strerror or str(error)) from error
    try:
        check_same(handle, file)
    except EnvironmentFault:
        os.close(handle)
        raise
    return handle


def check_same(handle: int, file: FoundFile) -> None:
    """Require that the open file is as it was found.

    Raises:
        EnvironmentFault: ``WEIGHTS_CHANGED``.
    """
    if identity(os.fstat(handle)) != file.identity:
        raise changed(file.path)


class _StoppedError(Exception):
    """Another thread has failed; its error is the one that is reported."""


class _Meter:
    """Counts bytes over all threads, and stops them all when one has failed."""

    def __init__(self, total: int, report: Progress | None) -> None:
        self._total = total
        self._report = report
        self._done = 0
        self._stopped = False
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            if self._stopped:
                raise _StoppedError
            self._done += size
            if self._report is not None:
                self._report(self._done, self._total)

    def report(self, done: Done, found: Iterable[tuple[int, bytes]]) -> None:
        with self._lock:
            for index, digest in found:
                done(index, digest)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True


@dataclass(frozen=True, slots=True)
class _Unit:
    """Ranges of one file, one behind the other: read once, hashed one by one. ``indices`` says which ranges."""

    file: FoundFile
    begin: int
    end: int
    sizes: tuple[int, ...]
    indices: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.end - self.begin


def _units(ranges: Sequence[FileRange], limit: int) -> Iterable[_Unit]:
    ordered = sorted(range(len(ranges)), key=lambda index: (ranges[index].file.path, ranges[index].begin))
    chosen: list[int] = []
    for index in ordered:
        if chosen and not _continues(ranges[chosen[0]], ranges[chosen[-1]], ranges[index], limit):
            yield _unit(ranges, chosen)
            chosen = []
        chosen.append(index)
    if chosen:
        yield _unit(ranges, chosen)


def _continues(first: FileRange, last: FileRange, following: FileRange, limit: int) -> bool:
    return following.file == last.file and following.begin == last.end and following.end - first.begin <= limit


def _unit(ranges: Sequence[FileRange], indices: list[int]) -> _Unit:
    sizes = tuple(ranges[index].end - ranges[index].begin for index in indices)
    return _Unit(ranges[indices[0]].file, ranges[indices[0]].begin, ranges[indices[-1]].end, sizes, tuple(indices))


def _in_threads(work: Callable[[], None], count: int, meter: _Meter) -> None:
    def guarded() -> None:
        try:
            work()
        except _StoppedError:
            return
        except BaseException:
            meter.stop()
            raise

    with ThreadPoolExecutor(max(count, 1), thread_name_prefix="hashing") as pool:
        try:
            futures = [pool.submit(guarded) for _ in range(count)]
            # Python raises an interrupt here, but not before this thread wakes: the system may have told another one.
            while wait(futures, timeout=_WAKE_S).not_done:
                pass
        except BaseException:
            meter.stop()
            raise
    for future in futures:
        future.result()


class _Splitter:
    """Hashes pieces, cut anywhere, into the digests of ranges of given sizes."""

    def __init__(self, sizes: Sequence[int], create: Callable[[], _Hash], meter: _Meter) -> None:
        self._sizes = iter(sizes)
        self._create = create
        self._meter = meter
        self._hash = create()
        self._left = next(self._sizes)
        self._digests: list[bytes] = []

    def update(self, piece: memoryview) -> None:
        rest = piece
        while len(rest) > self._left:
            self._hash.update(rest[: self._left])
            rest = rest[self._left :]
            self._digests.append(self._hash.digest())
            self._hash, self._left = self._create(), next(self._sizes)
        self._hash.update(rest)
        self._left -= len(rest)
        self._meter.add(len(piece))

    def digests(self) -> list[bytes]:
        """All digests, once all bytes are there."""
        # What follows the range that is open has no bytes.
        empty = [self._create().digest() for _ in self._sizes]
        return [*self._digests, self._hash.digest(), *empty]


def _hash_unit(
    unit: _Unit, create: Callable[[], _Hash], buffer: memoryview, meter: _Meter, *, step: int
) -> list[bytes]:
    handle = open_found(unit.file)
    try:
        splitter = _Splitter(unit.sizes, create, meter)
        count = read_pieces(handle, unit.begin, unit.end, buffer=buffer, step=step, consume=splitter.update)
        if count != unit.size:
            raise changed(unit.file.path)
        check_same(handle, unit.file)
    except ReadFailedError as error:
        raise unreadable(unit.file.path, str(error)) from error
    finally:
        os.close(handle)
    return splitter.digests()
