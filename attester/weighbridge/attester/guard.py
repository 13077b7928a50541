"""One file under guard: read once, hashed, and handed over only when the attester found it to be what it measured.

The part of :mod:`weighbridge.attester.loading` that knows no framework.
"""

from __future__ import annotations

import contextlib
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, cast, final

from weighbridge.attester.weights.hashing import ContentHash, cores, new_hash
from weighbridge.attester.workload.client import WorkloadClient, WorkloadError
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, WeighbridgeError
from weighbridge.proto.manifest import SHARD_SIZE, range_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from weighbridge.attester.weights.layout import Span
    from weighbridge.attester.workload.client import Handover, LoadedModel
    from weighbridge.proto.manifest import Kind

__all__ = ["Guard", "GuardError"]

# How the attester says that it has nothing to compare a file with.
_REFUSALS: Final = frozenset({Code.LOAD_UNGUARDED, Code.LOG_EVENT})
# What says that a measured file is there no more. Anything else (descriptors, rights, a disk) says nothing of the file,
# and what a guard has logged ends the session for good.
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})


@final
class GuardError(WeighbridgeError):
    """What was read is not what was measured, or there is nothing to compare it with; nothing was handed over.

    ``file`` is the path, ``tensor`` a name or ``None``: the header, or the file as such. ``code`` is ``LOAD_MISMATCH``,
    ``LOAD_UNGUARDED``, ``WEIGHTS_CHANGED``, or why the attester could not be asked.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.NOT_AUTHENTIC

    def __init__(self, code: Code, message: str, *, file: Path, tensor: str | None = None, hint: str = "") -> None:
        where = str(file) if tensor is None else f"{file}, tensor {tensor}"
        super().__init__(code, message, where=where, hint=hint)
        self.file: Path = file
        self.tensor: str | None = tensor


class Guard:
    """One open file: reads ranges of it once, and hands them over once the attester found them as measured.

    Args:
        path: the file, as it was measured.
        client: the connection to the attester.
        load: which load; ``None`` for the newest that has the file.
        kind: what it is going to be loaded as.

    Raises:
        GuardError: ``LOAD_UNGUARDED`` or ``LOG_EVENT`` when there is nothing to compare with; ``WEIGHTS_CHANGED``.
        EnvironmentFault: ``WEIGHTS_UNREADABLE``: the file cannot be opened, and nothing is said of it.
        WorkloadError: the attester is gone.
    """

    def __init__(self, path: Path, client: WorkloadClient, load: LoadedModel | None, *, kind: Kind) -> None:
        self._path = path
        self._client = client
        with self._told():
            self._place: Handover = client.handing(path, recnum=None if load is None else load.recnum)
        if self._place.kind != kind:
            raise GuardError(Code.LOAD_UNGUARDED, f"measured as {self._place.kind}, to be loaded as {kind}", file=path)
        self._create = new_hash(cast(ContentHash, self._place.algorithm))
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            reason = error.strerror or str(error)
            raise (self._changed(reason) if error.errno in _GONE else self._unreadable(reason)) from error
        self._open = True
        size = os.fstat(self._handle).st_size
        if size != self._place.size:
            self.close()
            raise self._changed(f"{size} bytes instead of {self._place.size}")

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self._place.size

    def close(self) -> None:
        """Tell the attester that nothing more is read."""
        if not self._open:
            return
        self._open = False
        os.close(self._handle)
        # That a file was handed over in part says little; a mismatch and the whole of a file are logged by now.
        with contextlib.suppress(WorkloadError):
            self._client.handed(self._place)

    def hand(self, spans: Sequence[Span]) -> list[bytearray]:
        """The bytes of each span, found to be what was measured: read and hashed on all cores, compared at once.

        Raises:
            GuardError: ``LOAD_MISMATCH``, once the attester has logged it; ``WEIGHTS_CHANGED``.
            EnvironmentFault: ``TOOL_MISSING`` where BLAKE3 is needed, and not installed; ``WEIGHTS_UNREADABLE``.
            WorkloadError: the attester is gone, or cannot log.
        """
        memories = [bytearray(span.end - span.begin) for span in spans]
        units = [
            (index, start)
            for index, span in enumerate(spans)
            for start in range(0, span.end - span.begin or 1, SHARD_SIZE)
        ]

        def work(unit: tuple[int, int]) -> bytes:
            index, start = unit
            shard = memoryview(memories[index])[start : start + SHARD_SIZE]
            self._fill(shard, spans[index].begin + start)
            hash_ = self._create()
            hash_.update(shard)
            return hash_.digest()

        shards: list[list[bytes]] = [[] for _ in spans]
        for (index, _), digest in zip(units, _on_all_cores(work, units), strict=True):
            shards[index].append(digest)
        ranges = [
            (span.begin, span.end - span.begin, range_digest(digests))
            for span, digests in zip(spans, shards, strict=True)
        ]
        with self._told():
            wrong = self._client.first_mismatch(self._place, ranges)
        if wrong is not None:
            tensor = spans[wrong].name
            raise GuardError(
                Code.LOAD_MISMATCH,
                "not what was measured"
                if tensor or self._place.kind == "plain"
                else "its header is not what was measured",
                file=self._path,
                tensor=tensor,
                hint="the file was exchanged or written to after it was measured: measure and load it again",
            )
        return memories

    def read(self, begin: int, size: int) -> bytearray:
        """Bytes that nobody has compared yet."""
        memory = bytearray(size)
        self._fill(memoryview(memory), begin)
        return memory

    def _fill(self, memory: memoryview, position: int) -> None:
        filled = 0
        while filled < len(memory):
            try:
                count = os.preadv(self._handle, [memory[filled:]], position + filled)
            except OSError as error:
                raise self._unreadable(error.strerror or str(error)) from error
            if count == 0:
                raise self._changed(f"ends at byte {position + filled}")
            filled += count

    def _unreadable(self, reason: str) -> EnvironmentFault:
        return EnvironmentFault(Code.WEIGHTS_UNREADABLE, f"cannot load: {reason}", where=str(self._path))

    def _changed(self, reason: str) -> GuardError:
        with contextlib.suppress(WorkloadError):
            self._client.handed(self._place, changed=reason)
        return GuardError(
            Code.WEIGHTS_CHANGED,
            f"not as it was measured: {reason}",
            file=self._path,
            hint="something writes to the model's directory: measure and load it again once that has ended",
        )

    @contextlib.contextmanager
    def _told(self) -> Generator[None]:
        """Turn the attester's refusal of a file into ours."""
        try:
            yield
        except WorkloadError as error:
            if error.code not in _REFUSALS:
                raise
            message = error.message.removeprefix(f"{error.code}: ")
            raise GuardError(Code(error.code), message, file=self._path) from error


def _on_all_cores(work: Callable[[tuple[int, int]], bytes], units: Sequence[tuple[int, int]]) -> list[bytes]:
    if len(units) == 1:
        return [work(units[0])]
    with ThreadPoolExecutor(cores(), thread_name_prefix="guard") as pool:
        return list(pool.map(work, units))
