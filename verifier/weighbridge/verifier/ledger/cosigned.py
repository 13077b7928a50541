"""Where a ledger's operator publishes what witnesses have cosigned: beside its checkpoint, in a directory or a bucket.

Whoever does so reads what was published before, adds to it, and puts it back; of two that come at once, one is told so.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.files import PosixFiles
from weighbridge.verifier.ledger.bucket import NOTE, Bucket, Object
from weighbridge.verifier.ledger.locked import LockedFile
from weighbridge.verifier.ledger.published import CHECKPOINT, COSIGNED
from weighbridge.verifier.ledger.source import BucketSource, DirectorySource
from weighbridge.verifier.ledger.storage import DirectoryStorage

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from weighbridge.verifier.ledger.source import Source

__all__ = ["Board", "board", "log_of"]


class Board(Protocol):
    """A ledger's cosigned head, and its checkpoint, from the side of who operates it."""

    @property
    def log(self) -> Source:
        """The ledger's files."""
        ...

    def read(self) -> bytes | None:
        """The cosigned head that is published; ``None`` before the first.

        Raises:
            EnvironmentFault: it cannot be read.
            MalformedEvidence: ``TOO_LARGE``.
        """
        ...

    def replace(self, signed: bytes) -> None:
        """Publish ``signed`` in the place of what was read.

        Raises:
            EnvironmentFault: ``STATE_LOCKED`` when somebody else has published since, or it cannot be written.
        """
        ...

    def publish(self, seen: bytes, signed: bytes) -> bool:
        """Put ``signed``, which is ``seen`` with more lines, in the place of the checkpoint; whether it is still that.

        A writer is not overtaken by an older head.

        Raises:
            EnvironmentFault: it cannot be written.
        """
        ...


def log_of(where: Path | Bucket) -> Source:
    """The files of the ledger at ``where``."""
    return BucketSource(where) if isinstance(where, Bucket) else DirectorySource(where)


@contextlib.contextmanager
def board(where: Path | Bucket) -> Generator[Board]:
    """The board of the ledger at ``where``.

    Raises:
        EnvironmentFault: ``STATE_LOCKED``: somebody else has it; or it cannot be written.
    """
    if isinstance(where, Bucket):
        yield _InBucket(where)
        return
    with LockedFile(where / COSIGNED) as file:
        yield _InDirectory(where, file)


@final
class _InDirectory:
    def __init__(self, directory: Path, file: LockedFile) -> None:
        self.log: Source = log_of(directory)
        self._directory = directory
        self._file = file

    def read(self) -> bytes | None:
        return self._file.read(limit=limits.CHECKPOINT_MAX)

    def replace(self, signed: bytes) -> None:
        self._file.replace(signed)

    def publish(self, seen: bytes, signed: bytes) -> bool:
        storage = DirectoryStorage(self._directory, PosixFiles())
        try:
            with storage.exclusive():
                if storage.read(CHECKPOINT) != seen:
                    return False
                storage.publish(signed)
        except EnvironmentFault as error:
            if error.code is Code.LEDGER_LOCKED:
                return False
            raise
        finally:
            storage.close()
        return True


@final
class _InBucket:
    def __init__(self, bucket: Bucket) -> None:
        self.log: Source = log_of(bucket)
        self._bucket = bucket
        self._seen: Object | None = None

    def read(self) -> bytes | None:
        self._seen = self._bucket.get(COSIGNED, limit=limits.CHECKPOINT_MAX)
        return None if self._seen is None else self._seen.data

    def replace(self, signed: bytes) -> None:
        if self._seen is not None and self._seen.data == signed:
            return
        if self._put(COSIGNED, self._seen, signed) is None:
            raise EnvironmentFault(
                Code.STATE_LOCKED,
                "somebody else has published a cosigned head meanwhile",
                where=self._bucket.place(COSIGNED),
                hint="run it again: it adds to what is there",
            )

    def publish(self, seen: bytes, signed: bytes) -> bool:
        found = self._bucket.get(CHECKPOINT, limit=limits.CHECKPOINT_MAX)
        return found is not None and found.data == seen and self._put(CHECKPOINT, found, signed) is not None

    def _put(self, name: str, seen: Object | None, signed: bytes) -> str | None:
        if seen is None:
            return self._bucket.create(name, signed, NOTE)
        return self._bucket.replace(name, signed, NOTE, tag=seen.tag)
