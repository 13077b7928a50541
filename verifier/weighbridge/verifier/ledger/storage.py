"""What a ledger's writer needs of where it lies, and a directory as that: the steps of a write in their order.

Nothing here decides anything. Each step's comment says what a reader sees if power fails there; together they are the
argument why a reader of this ledger is never shown two histories.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, final

from weighbridge.verifier.file_lock import PATIENCE, locked, open_lock
from weighbridge.verifier.files import Directories, Files, fault, install
from weighbridge.verifier.ledger.published import CHECKPOINT
from weighbridge.verifier.ledger.reader import read_file
from weighbridge.verifier.ledger.source import DirectorySource

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from weighbridge.verifier.ledger.source import Source

__all__ = ["HEAD", "DirectoryStorage", "Storage"]

HEAD: Final = "writer/head"
_LOCK: Final = "writer/lock"
_STAGING: Final = "writer/staging"
# Tiles, bundles and checkpoints are for everybody; the writer's own directory is not.
_PUBLIC: Final = 0o644
_PUBLIC_DIRECTORY: Final = 0o755
_PRIVATE_DIRECTORY: Final = 0o700


class Storage(Protocol):
    """Where a ledger lies, open until :meth:`close`: any number of processes may have it open.

    An append is :meth:`write_tiles`, :meth:`commit_staged`, :meth:`publish_staged`, in :meth:`exclusive`. What each
    raises, and leaves behind when the process ends in the middle, is said where it is implemented: here for a
    directory, in :mod:`.bucket_storage` for a bucket.
    """

    @property
    def source(self) -> Source:
        """Where readers of this ledger read."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Let nobody else write while the block lasts; or let :meth:`commit_staged` fail if somebody has."""
        ...

    def close(self) -> None:
        """Let go of it; closing twice is allowed."""
        ...

    def holds(self) -> str | None:
        """Where some part of a ledger lies already; ``None`` where none does."""
        ...

    def read(self, path: str) -> bytes | None:
        """What lies under this name, ``None`` where nothing does."""
        ...

    def committed(self) -> tuple[bytes | None, Source]:
        """The newest checkpoint that any process has committed, as far as readers may know, and where its tiles are.

        May be asked by any thread, in no turn.
        """
        ...

    def ahead(self, paths: Sequence[str]) -> None:
        """Take note that these tiles are read next, a few dozen at most."""
        ...

    def is_head(self, signed: bytes) -> bool:
        """Whether the head is ``signed``, as far as can be told before the commit finds out."""
        ...

    def write_tiles(self, tiles: Mapping[str, bytes], signed: bytes) -> None:
        """Stage an append: its tiles, and the checkpoint that is to be committed and published."""
        ...

    def commit_staged(self) -> None:
        """Make what was staged the head, if the head is what it was."""
        ...

    def publish_staged(self) -> None:
        """Show readers what was committed."""
        ...

    def commit(self, signed: bytes) -> None:
        """Make ``signed`` the head, durably, whatever it was."""
        ...

    def publish(self, signed: bytes) -> None:
        """Show readers ``signed``, which was committed."""
        ...

    def tidy(self, tiles: Mapping[str, bytes]) -> None:
        """Delete what ``tiles`` have made superfluous, as far as can be."""
        ...


@final
class DirectoryStorage:
    """The directory of a ledger, open until :meth:`close`: any number of processes may have it open.

    Whoever writes does so in :meth:`exclusive`. Reading needs no lock.

    Args:
        directory: has a ``writer/`` in it.
        files: the file system.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE`` or ``DISK_FULL``.
    """

    __slots__ = ("_directories", "_files", "_lock", "_notes", "directory")

    def __init__(self, directory: Path, files: Files) -> None:
        self.directory: Final = directory
        self._files = files
        self._directories = Directories(files, directory, mode=_PUBLIC_DIRECTORY)
        # Where each of the two lies, and where it is staged.
        self._notes: Final = {name: _Note(directory, name) for name in (HEAD, CHECKPOINT)}
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

    @property
    def source(self) -> Source:
        """See :class:`Storage`."""
        return DirectorySource(self.directory)

    def holds(self) -> str | None:
        """See :class:`Storage`."""
        parts = (self.directory / part for part in (HEAD, CHECKPOINT, "tile"))
        return next((str(part) for part in parts if part.exists()), None)

    def read(self, path: str) -> bytes | None:
        """The content of a file, ``None`` when there is none.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        return read_file(self.directory / path)

    def committed(self) -> tuple[bytes | None, Source]:
        """See :class:`Storage`: what is published.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        return self.read(CHECKPOINT), self.source

    def ahead(self, paths: Sequence[str]) -> None:
        """See :class:`Storage`: a disk is near."""

    def is_head(self, signed: bytes) -> bool:
        """Whether the head is ``signed``: in :meth:`exclusive`, it stays so until the commit.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        return read_file(self._notes[HEAD].path) == signed

    def write_tiles(self, tiles: Mapping[str, bytes], signed: bytes) -> None:
        """Make tiles durable, which no checkpoint names yet, and stage ``signed``, waiting for the disk once.

        ``signed`` gets its names from :meth:`commit_staged` and :meth:`publish_staged`. Tiles are written under their
        own names: none of them has that of a tile of a signed checkpoint, for each is wider or further on.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
        """
        contents = {self.directory / name: data for name, data in tiles.items()}
        try:
            made: set[Path] = set()
            for path in contents:
                made.update(self._directories.make(path.parent))
            named = {path.parent for path in contents} | {path.parent for path in made}
            notes = {note.staged: signed for note in self._notes.values()}
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

    def commit(self, signed: bytes) -> None:
        """Make ``signed`` the head: from here on it is what this ledger has signed.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``; the head is then the old one or the new one.
        """
        # If power fails here: the head is the old one or the new one. Nobody has been shown the new one yet, so both
        # are right, and the tiles of both are durable.
        self._install(HEAD, signed, "committing to the ledger")

    def publish(self, signed: bytes) -> None:
        """Show readers what has been committed.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``; readers then see the last checkpoint or this one.
        """
        # If power fails here: readers see the last checkpoint or this one; opening publishes the head again.
        self._install(CHECKPOINT, signed, "publishing the ledger's checkpoint")

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
        note = self._notes[name]
        try:
            self._files.rename(note.staged, note.path)
            if durably:
                self._files.sync_directory(note.parent)
        except OSError as error:
            self._clear_staging()
            raise fault(error, note.path, doing) from error

    def _install(self, name: str, signed: bytes, doing: str) -> None:
        note = self._notes[name]
        try:
            install(self._files, signed, note.path, staging=note.staged, mode=_PUBLIC)
        except OSError as error:
            self._clear_staging()
            raise fault(error, note.path, doing) from error

    def _clear_staging(self) -> None:
        """Give back what a failed write has taken; when that fails too, the next one overwrites it."""
        for path in (self.directory / _STAGING).glob("*"):
            with contextlib.suppress(OSError):
                self._files.remove(path)


@final
class _Note:
    """A signed note's own name, the directory of that, and the name that it has until it gets its own."""

    __slots__ = ("parent", "path", "staged")

    def __init__(self, directory: Path, name: str) -> None:
        self.path: Final = directory / name
        self.parent: Final = self.path.parent
        self.staged: Final = directory / _STAGING / self.path.name
