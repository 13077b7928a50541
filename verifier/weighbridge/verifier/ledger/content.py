"""A store of bytes under their SHA-256: evidence, verdict records, terms, manifests.

The ledger's leaves are small and name such digests; the bytes themselves lie here. What :meth:`ContentStore.put` has
returned stays; what :meth:`ContentStore.get` returns has just been hashed. Files are ``abc/abcd…`` below the store's
directory: none grows beyond what a file system handles well, and all 4096 are soon there: a new one costs a sync more.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, Indeterminate, LedgerInconsistent
from weighbridge.verifier.files import Directories, Files, PosixFiles, fault, install
from weighbridge.verifier.ledger.reader import read_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ContentStore"]

_STAGING: Final = "staging"
_FAN_OUT: Final = 3
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


@final
class ContentStore:
    """Bytes by digest in ``directory``, which is created when it is not there; its parent exists.

    May be used from several threads and processes at once: names are digests, and files appear whole.

    Raises:
        EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
    """

    __slots__ = ("_directories", "_directory", "_files")

    def __init__(self, directory: Path, *, files: Files | None = None) -> None:
        self._directory = directory
        self._files = files or PosixFiles()
        self._directories = Directories(self._files, directory, mode=_DIRECTORY_MODE)
        try:
            for path in (directory, directory / _STAGING):
                self._files.make_directory(path, mode=_DIRECTORY_MODE)
                self._files.sync_directory(path.parent)
        except OSError as error:
            raise fault(error, directory, "creating the content store") from error

    def put(self, data: bytes) -> bytes:
        """Keep ``data`` and return its SHA-256. Putting the same bytes again writes nothing.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``; nothing half-written is visible.
            LedgerInconsistent: ``LEDGER_INCONSISTENT`` when other bytes lie under this digest.
            ValueError: for more than ``limits.CONTENT_MAX``.
        """
        if len(data) > limits.CONTENT_MAX:
            raise ValueError(f"content of {len(data)} bytes")
        digest = sha256(data)
        target = self._path(digest)
        staging = self._directory / _STAGING / os.urandom(16).hex()
        try:
            self._directories.sync(target.parent)
            if self._load(digest) is None:
                install(self._files, data, target, staging=staging, mode=_FILE_MODE)
            else:
                # Whoever put it first may have been interrupted before its name was durable.
                self._files.sync_directory(target.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._files.remove(staging)
            raise fault(error, target, "storing content") from error
        return digest

    def get(self, digest: bytes) -> bytes:
        """The bytes whose SHA-256 is ``digest``, hashed again.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT`` when they are not here.
            LedgerInconsistent: ``LEDGER_INCONSISTENT`` when what is stored has another digest.
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        data = self._load(digest)
        if data is None:
            raise Indeterminate(Code.EVIDENCE_ABSENT, "content is not in the store", where=digest.hex())
        return data

    def has(self, digest: bytes) -> bool:
        """Whether something is stored under ``digest``. Does not read it."""
        return self._path(digest).is_file()

    def _load(self, digest: bytes) -> bytes | None:
        path = self._path(digest)
        data = read_file(path)
        if data is not None and sha256(data) != digest:
            raise LedgerInconsistent(
                Code.LEDGER_INCONSISTENT,
                "stored content was altered",
                where=str(path),
                expected=digest,
                got=sha256(data),
            )
        return data

    def _path(self, digest: bytes) -> Path:
        if len(digest) != limits.DIGEST_SIZE:
            raise ValueError("a digest has 32 bytes")
        name = digest.hex()
        return self._directory / name[:_FAN_OUT] / name
