"""What files were found to hold, so that an interrupted or repeated measurement does not read them again.

A file is known by device, inode, size, modification and change time in nanoseconds: any write, rename over or restored
time changes one of them, and the file is read again. What was changed less than two seconds before it was found is not
kept, since a second change may fall into the same tick of the kernel's clock.

**A cache proves nothing.** Whoever may write the cache, or the disk below the file system, decides what it says. It is
for people who measure a directory twice. A session's measurement must not use it, and cannot: the server that measures
what is loaded passes none. (It could be trusted for files whose content the kernel itself vouches for, fs-verity; that
is not done, since reading such a file's digest costs nothing in the first place.)

The file is an SQLite database: what is in it survives a crash, and two measurements may share it. One that cannot be
read or written is set aside for this run with a notice; it is never an error, and never deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from weighbridge.attester.weights.plan import kind_by_name
from weighbridge.proto import cbor
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.proto.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from weighbridge.attester.weights.directory import FoundFile
    from weighbridge.proto.manifest import Algorithm, FileEntry

__all__ = ["Cache", "default_path"]

# What a release writes that lays out files differently must not be taken for ours.
_VERSION: Final = 1
_APPLICATION_ID: Final = 0x57424D43  # "WBMC"
_SETTLED_NS: Final = 2_000_000_000
_FLUSH_INTERVAL_S: Final = 1.0
_LOCK_WAIT_S: Final = 5.0
# 100,000 entries take 20 MB, more where files have many tensors: the oldest go first.
_ENTRIES_MAX: Final = 100_000
_BYTES_MAX: Final = 256 * 1024 * 1024
# The cached value is a manifest of one file, by this name.
_NAME: Final = "file"


def default_path() -> Path | None:
    """Where the cache is unless a caller says otherwise: below ``XDG_CACHE_HOME``, or ``~/.cache``.

    ``None`` for a user without a home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The XDG specification has relative paths ignored.
        root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    except RuntimeError:
        return None
    return root / "weighbridge" / "measurements.sqlite"


class Cache:
    """A cache, opened for the first file that is worth it; to be closed, which writes what is still pending.

    Args:
        path: of the file; made, with its directory, where it is not there.
        notice: takes a sentence for people when the cache cannot be used.
        smallest: files of fewer bytes are not kept, and not looked for.
        clock: nanoseconds since 1970, the clock that file times are set by.
    """

    def __init__(
        self,
        path: Path,
        *,
        notice: Callable[[str], None],
        smallest: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = path
        self._notice = notice
        self._smallest = smallest
        self._clock = clock
        self._pending: dict[bytes, bytes] = {}
        self._flushed = time.monotonic()
        self._database: sqlite3.Connection | None = None
        self._tried = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def get(self, file: FoundFile, algorithm: Algorithm) -> FileEntry | None:
        """What the very file that was found held when it was last measured; ``None`` when that is not known."""
        database = self._database_for(file)
        if database is None:
            return None
        key = _key(file, algorithm)
        try:
            row = database.execute("SELECT value, sha256 FROM entries WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        entry = None if row is None else _entry(key, *row)
        return None if entry is None or entry.size != file.size else _renamed(entry, file.path)

    def put(self, file: FoundFile, algorithm: Algorithm, entry: FileEntry) -> None:
        """Keep what ``file`` holds. To be called from one thread at a time; it is on disk a second later at most."""
        if self._database_for(file) is None or not self._settled(file):
            return
        key = _key(file, algorithm)
        self._pending[key] = Manifest.build(_NAME, [_renamed(entry, _NAME)], algorithm=algorithm).pack()
        if time.monotonic() - self._flushed > _FLUSH_INTERVAL_S:
            self._flush()

    def close(self) -> None:
        """Write what is pending, drop what is too much, close."""
        self._tried = True
        self._flush()
        if self._database is None:
            return
        try:
            with self._database as database:
                database.execute(
                    "DELETE FROM entries WHERE id <= (SELECT max(id) FROM entries) - ? OR id IN (SELECT id FROM"
                    " (SELECT id, sum(length(value)) OVER (ORDER BY id DESC) AS bytes FROM entries) WHERE bytes > ?)",
                    (_ENTRIES_MAX, _BYTES_MAX),
                )
            self._database.close()
        except sqlite3.Error as error:
            self._give_up(error)
        self._database = None

    def _database_for(self, file: FoundFile) -> sqlite3.Connection | None:
        if file.size < self._smallest:
            return None
        if not self._tried:
            self._tried = True
            self._database = self._opened()
        return self._database

    def _settled(self, file: FoundFile) -> bool:
        _, _, _, modified, status_changed = file.identity
        return max(modified, status_changed) + _SETTLED_NS < self._clock()

    def _opened(self) -> sqlite3.Connection | None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made by us where it is not there, so that nobody else may write what we shall believe.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            # Used by one thread at a time: the hashing threads report in turn.
            database = sqlite3.connect(self._path, timeout=_LOCK_WAIT_S, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
            return None
        try:
            if not _prepare(database):
                database.close()
                self._give_up("it is no cache of this release")
                return None
        except sqlite3.Error as error:
            database.close()
            self._give_up(error)
            return None
        return database

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if self._database is None or not self._pending:
            return
        rows = [(key, value, _check(key, value)) for key, value in self._pending.items()]
        self._pending.clear()
        try:
            # A crash before the commit loses these rows only.
            with self._database as database:
                database.executemany("INSERT OR REPLACE INTO entries (key, value, sha256) VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, reason: object) -> None:
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()
        self._notice(f"measuring without the cache {self._path}: {reason}; to start another, delete it")


def _prepare(database: sqlite3.Connection) -> bool:
    """Make the table in a new database; whether the database is one of ours."""
    with database:
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if (application, version) == (_APPLICATION_ID, _VERSION):
            return True
        if (application, version) != (0, 0) or database.execute("SELECT 1 FROM sqlite_master").fetchone():
            return False
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "CREATE TABLE IF NOT EXISTS entries"
            " (id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB UNIQUE, value BLOB, sha256 BLOB)"
        )
        database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {_VERSION}")
    return True


def _key(file: FoundFile, algorithm: Algorithm) -> bytes:
    # By kind too: one file may be linked under two names, and is laid out by its name.
    return cbor.encode([algorithm, kind_by_name(file.path), *file.identity])


def _check(key: bytes, value: bytes) -> bytes:
    """Against a disk that forgets bits, not against anybody who means it."""
    return hashlib.sha256(cbor.encode([key, value])).digest()


def _entry(key: bytes, value: object, check: object) -> FileEntry | None:
    if not isinstance(value, bytes) or check != _check(key, value):
        return None
    try:
        (entry,) = Manifest.unpack(value).files
    except (MalformedEvidence, ValueError):
        return None
    return entry


def _renamed(entry: FileEntry, path: str) -> FileEntry:
    return replace(entry, path=path)
