"""The ledger's directory: who writes to it, and the steps of a write in their order.

Nothing here decides anything. Each step's comment says what a reader sees if power fails there; together they are the
argument why a reader of this ledger is never shown two histories.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from weighbridge.verifier.file_lock import PATIENCE, locked, open_lock
from weighbridge.verifier.files import Directories, Files, fault, install
from weighbridge.verifier.ledger.published import CHECKPOINT
from weighbridge.verifier.ledger.reader import read_file

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = ["HEAD", "Storage"]

HEAD: Final = "writer/head"
_LOCK: Final = "writer/lock"
_STAGING: Final = "writer/staging"
# Tiles, bundles and checkpoints are for everybody; the writer's own directory is not.
_PUBLIC: Final = 0o644
_PUBLIC_DIRECTORY: Final = 0o755
_PRIVATE_DIRECTORY: Final = 0o700


@final
class Storage:
    """The directory of a ledger, open until :meth:`close`: any number of processes may have it open.

    Whoever writes does so in :meth:`exclusive`. Reading needs no lock.

    Args:
        directory: has a ``writer/`` in it.
        files: the file system.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE`` or ``DISK_FULL``.
    """

    __slots__ = ("_directories", "_files", "_lock", "directory")

    def __init__(self, directory: Path, files: Files) -> None:
        self.directory: Final = directory
        self._files = files
        self._directories = Directories(files, directory, mode=_PUBLIC_DIRECTORY)
        self._lock: int | None = open_lock(directory / _LOCK)

    @staticmethod
    def make(directory: Path, files: Files) -> None:
        """Create the directories of a ledger, durably; whatever is there already stays as it is.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
        """
        try:
            for path in (directory, directory / "writer", directory / _STAGING):
                files.make_directory(path, mode=_PUBLIC_DIRECTORY if path == directory else _PRIVATE_DIRECTORY)
                files.sync_directory(path.parent)
        except OSError as error:
            raise fault(error, directory, "creating the ledger") from error

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return self._lock is not None

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Let nobody else write while the block lasts.

        A process may be paused in it, but then nobody else gets in: what it has found to be the head is the head when
        it commits.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED`` when somebody else writes for :data:`.PATIENCE`.
            RuntimeError: it was closed.
        """
        if self._lock is None:
            raise RuntimeError("the ledger is closed")
        with locked(self._lock, self.directory / _LOCK, patience=PATIENCE):
            yield

    def close(self) -> None:
        """Let go of it; closing twice is allowed."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self, name: str) -> bytes | None:
        """The content of a file, ``None`` when there is none.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        return read_file(self.directory / name)

    def write_tiles(self, tiles: Mapping[str, bytes], note: bytes) -> None:
        """Make tiles durable, which no checkpoint names yet, and stage ``note``, waiting for the disk once.

        ``note`` gets its names from :meth:`commit_staged` and :meth:`publish_staged`. Tiles are written under their
        own names: none of them has that of a tile of a signed checkpoint, for each is wider or further on.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
        """
        staging = self.directory / _STAGING
        contents = {self.directory / name: data for name, data in tiles.items()}
        try:
            made: set[Path] = set()
            for path in contents:
                made.update(self._directories.make(path.parent))
            named = {path.parent for path in contents} | {path.parent for path in made}
            notes = {staging / _staged_name(name): note for name in (HEAD, CHECKPOINT)}
            # If power fails here: some tiles are there, whole or in part, that no checkpoint names. Readers of any
            # signed one see what they saw: its own tiles are untouched. The next append writes over what is there.
            self._files.write_all(contents | notes, mode=_PUBLIC, directories=sorted(named))
            self._directories.synced(made)
        except OSError as error:
            self._clear_staging()
            for path in contents:
                with contextlib.suppress(OSError):
                    self._files.remove(path)
            raise fault(error, self.directory, "appending to the ledger") from error

    def commit_staged(self) -> None:
        """:meth:`commit` the note that was staged."""
        # If power fails here: as there. The note's content was synced before it gets this name.
        self._name_staged(HEAD, "committing to the ledger", durably=True)

    def publish_staged(self) -> None:
        """:meth:`publish` the note that was staged: readers see it from now on, until power fails."""
        # If power fails here, or later: readers see an earlier checkpoint or this one, each whole; opening publishes
        # the head again. So nobody waits for the disk once more.
        self._name_staged(CHECKPOINT, "publishing the ledger's checkpoint", durably=False)

    def commit(self, note: bytes) -> None:
        """Make ``note`` the head: from here on it is what this ledger has signed.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``; the head is then the old one or the new one.
        """
        # If power fails here: the head is the old one or the new one. Nobody has been shown the new one yet, so both
        # are right, and the tiles of both are durable.
        self._install(HEAD, note, "committing to the ledger")

    def publish(self, note: bytes) -> None:
        """Show readers what has been committed.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``; readers then see the last checkpoint or this one.
        """
        # If power fails here: readers see the last checkpoint or this one; opening publishes the head again.
        self._install(CHECKPOINT, note, "publishing the ledger's checkpoint")

    def tidy(self, tiles: Mapping[str, bytes]) -> None:
        """Delete the partial tiles of those of ``tiles`` that are full (tlog-tiles, "Partial Tiles").

        If power fails here, or deleting fails, they only take up room.
        """
        for name in tiles:
            if ".p/" not in name:
                partial = self.directory / f"{name}.p"
                self._directories.forget(partial)
                with contextlib.suppress(OSError):
                    self._files.remove(partial)

    def _name_staged(self, name: str, doing: str, *, durably: bool) -> None:
        target = self.directory / name
        try:
            self._files.rename(self.directory / _STAGING / _staged_name(name), target)
            if durably:
                self._files.sync_directory(target.parent)
        except OSError as error:
            self._clear_staging()
            raise fault(error, target, doing) from error

    def _install(self, name: str, note: bytes, doing: str) -> None:
        target = self.directory / name
        try:
            install(self._files, note, target, staging=self.directory / _STAGING / _staged_name(name), mode=_PUBLIC)
        except OSError as error:
            self._clear_staging()
            raise fault(error, target, doing) from error

    def _clear_staging(self) -> None:
        """Give back what a failed write has taken; when that fails too, the next one overwrites it."""
        for path in (self.directory / _STAGING).glob("*"):
            with contextlib.suppress(OSError):
                self._files.remove(path)


def _staged_name(name: str) -> str:
    return Path(name).name
