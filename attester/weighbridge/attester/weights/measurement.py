"""Measuring a model: every file below its directory is hashed once, its tensors in the same pass.

Memory is bounded whatever the files' sizes. A file that changes while it is read is refused, as is a directory that
changes while it is walked; nothing that cannot be read is left out silently. Not proven: that what a server maps later
are the bytes measured here (that takes fs-verity or dm-verity beneath, see ``docs/trust-model.md``).

>>> manifest = measure(Path("models/minilm"))           # doctest: +SKIP
>>> manifest.digest.hex()                               # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from weighbridge.attester.weights.directory import FoundFile, changed, identity, unreadable, walk
from weighbridge.attester.weights.safetensors import LENGTH_SIZE, TensorSpan, header_length, parse_header
from weighbridge.proto.manifest import FileEntry, Manifest, TensorEntry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import FileIO

__all__ = ["Progress", "measure"]

Progress = Callable[[int, int], None]

# Large enough that a system call costs nothing beside the hash, small enough to stay in a second-level cache's reach.
_CHUNK: Final = 4 * 1024 * 1024
# Files in flight. Each safetensors file keeps two cores busy: one hashes the file, one its tensors.
_FILES_AT_ONCE: Final = 2
_SUFFIX: Final = ".safetensors"


def measure(
    directory: Path, *, name: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """The manifest of every regular file below ``directory``.

    Symbolic links are followed while they stay inside; hidden files count. A ``*.safetensors`` file must be one.

    Args:
        directory: the model's directory.
        name: the model's name; the directory's own by default.
        progress: called with bytes done and bytes in all, from several threads but never from two at once.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE`` for what cannot be read, is no regular file, leaves the directory or
            has no UTF-8 name; ``WEIGHTS_CHANGED`` when something changed meanwhile. Both name the path.
        MalformedEvidence: for a malformed safetensors file, or a model beyond the manifest's limits.
    """
    root = directory.resolve()
    found = walk(root)
    meter = _Meter(sum(file.size for file in found), progress)
    # Largest first, so that the last one to end is a small one.
    queue = sorted(found, key=lambda file: -file.size)
    with ThreadPoolExecutor(_FILES_AT_ONCE) as files, ThreadPoolExecutor(_FILES_AT_ONCE) as helper:
        futures = [files.submit(_measure_file, file, helper, meter) for file in queue]
        entries = _results(futures, meter)
    _check_unchanged(found, walk(root))
    return Manifest.build(name if name is not None else root.name, entries)


def _results(futures: list[Future[FileEntry]], meter: _Meter) -> list[FileEntry]:
    try:
        return [future.result() for future in futures]
    except BaseException:
        meter.stop()
        for future in futures:
            future.cancel()
        raise


def _check_unchanged(before: Sequence[FoundFile], after: Sequence[FoundFile]) -> None:
    different = set(before) ^ set(after)
    if different:
        raise changed(min(different, key=lambda file: file.path).path)


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class _StoppedError(Exception):
    """Another file could not be measured; its error is the one that is reported."""


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

    def stop(self) -> None:
        with self._lock:
            self._stopped = True


class _TensorHasher:
    """Hashes tensors that lie one behind the other, from chunks that are cut anywhere."""

    def __init__(self, spans: Sequence[TensorSpan]) -> None:
        self._spans = spans
        self._index: int = 0
        self._position = spans[0].begin if spans else 0
        self._hash = hashlib.sha256()
        self._entries: list[TensorEntry] = []
        self._close_full()

    def update(self, chunk: memoryview) -> None:
        while chunk and self._index < len(self._spans):
            take = min(len(chunk), self._spans[self._index].end - self._position)
            self._hash.update(chunk[:take])
            self._position += take
            chunk = chunk[take:]
            self._close_full()

    def _close_full(self) -> None:
        # A loop: tensors without elements end where they begin.
        while self._index < len(self._spans) and self._position == self._spans[self._index].end:
            span = self._spans[self._index]
            self._entries.append(
                TensorEntry(span.name, span.dtype, span.shape, span.begin, span.end - span.begin, self._hash.digest())
            )
            self._hash = hashlib.sha256()
            self._index += 1

    def entries(self) -> tuple[TensorEntry, ...]:
        return tuple(self._entries)


def _measure_file(found: FoundFile, helper: ThreadPoolExecutor, meter: _Meter) -> FileEntry:
    try:
        # NONBLOCK: should a FIFO have taken the file's place, opening it must not wait for a writer.
        handle = os.open(found.real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
            if identity(os.fstat(handle)) != found.identity:
                raise changed(found.path)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            whole = hashlib.sha256()
            tensors = _tensor_hasher(file, found, whole) if found.path.endswith(_SUFFIX) else None
            size = _hash_rest(file, whole, tensors, helper=helper, meter=meter)
            if size != found.size or identity(os.fstat(handle)) != found.identity:
                raise changed(found.path)
    except OSError as error:
        raise unreadable(found.path, error.strerror or str(error)) from error
    return FileEntry(found.path, size, whole.digest(), tensors.entries() if tensors is not None else ())


def _tensor_hasher(file: FileIO, found: FoundFile, whole: _Hash) -> _TensorHasher:
    """Read the header, which belongs to the file's digest and to no tensor's."""
    prefix = _read(file, LENGTH_SIZE)
    header = _read(file, header_length(prefix, file_size=found.size, where=found.path))
    whole.update(prefix + header)
    return _TensorHasher(parse_header(header, file_size=found.size, where=found.path))


def _read(file: FileIO, size: int) -> bytes:
    """Up to ``size`` bytes: fewer only at the end of the file."""
    parts = bytearray()
    while len(parts) < size and (part := file.read(size - len(parts))):
        parts += part
    return bytes(parts)


def _hash_rest(
    file: FileIO, whole: _Hash, tensors: _TensorHasher | None, *, helper: ThreadPoolExecutor, meter: _Meter
) -> int:
    """Hash up to the end of the file, both hashes at once where there are two; return the file's size in bytes."""
    buffer = memoryview(bytearray(_CHUNK))
    meter.add(file.tell())
    while count := file.readinto(buffer):
        chunk = buffer[:count]
        if tensors is None:
            whole.update(chunk)
        else:
            # hashlib lets go of the interpreter's lock while it hashes.
            other = helper.submit(whole.update, chunk)
            tensors.update(chunk)
            other.result()
        meter.add(count)
    return file.tell()
