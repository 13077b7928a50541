"""Sealed windows on disk until the verifier's answer to each is recorded; nothing sealed is lost to a crash.

One directory per session, below one root::

    <session, hex>/progress             what the verifier has recorded: next number, its link, its challenge, what that
                                        challenge asks of the model's files
    <session, hex>/session              the signed terms, never changed; without it the directory is nothing
    <session, hex>/header               the header about to be sealed, synced before anything is signed over it
    <session, hex>/window-<seq>         one sealed window
    <session, hex>.refused/…            a session that no verifier takes any more: kept, never read again
    <session, hex>.damaged/…            a session of which a file was damaged: likewise
    losses                              what was not sealed or not delivered (:mod:`.losses`)

Every file is written whole and synced or not at all. The commit point of a window is the appearance of its file;
then its header goes. A crash between two steps leaves the later file's predecessor behind, which opening takes away
again. A header without its window was never released: it is skipped, and since a restarted attester begins a new
session, its number is not used again.

``progress`` may be behind what the verifier has recorded: it is written for every answer while one window waits at a
time, and for every sixteenth of a backlog; then the files of recorded windows go. After a crash the verifier says what
it has.

**What is kept when there is no more room.** The oldest: a chain cannot leave out a window, so none that is sealed is
ever given up, and when no other fits, none is sealed (:meth:`Spool.full`). There is no room beyond the bound, nor when
the file system is nearly full: the rest of the host must be able to write as well.

A disk that has no space left is waited for. A window that was sealed and could not be written is kept in memory, not
released, and written first of all when there is space. After any other failed write nothing more is written through
the same object: what is on disk may be either side of the failure, and opening it again finds out which.

Opening looks at names and sizes, and reads the newest window: it takes the same for a week's windows as for a day's. A
window that is damaged is found when it is read.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.attester.durable import make_directory, write_fault
from weighbridge.attester.losses import Losses
from weighbridge.attester.spool_files import (
    FILE_MAX,
    SESSION_NAME,
    DiskStorage,
    Progress,
    SpoolStorage,
    encode_progress,
    encode_session,
    window_files,
)
from weighbridge.attester.spool_session import FullReason, Spool
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.proto.spot import SpotChallenge

__all__ = ["DEFAULT_MAX_BYTES", "FullReason", "Spool", "Spools"]

# A week of 10 s windows of 8 GPUs, with a report of each in each, is 4 GB; 5 GB with every sensor of real ones.
DEFAULT_MAX_BYTES: Final = 8 * 1024 * 1024 * 1024


class Spools:
    """All sessions' spools below one root, and the bound that they share."""

    def __init__(self, root: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, storage: SpoolStorage | None = None) -> None:
        """Open the root, which is made when absent.

        Args:
            root: the directory.
            max_bytes: what all spools together may hold; at least one window of the largest size.
            storage: the operations that write.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
        """
        if max_bytes < FILE_MAX:
            raise ValueError(f"a spool must hold at least one window: {FILE_MAX} bytes")
        self._root = root
        self._max_bytes = max_bytes
        self._storage: SpoolStorage = DiskStorage() if storage is None else storage
        make_directory(root)
        self._losses = _losses(root / "losses", self._storage)

    @property
    def root(self) -> Path:
        """The directory."""
        return self._root

    @property
    def losses(self) -> Losses:
        """What was not sealed or not delivered."""
        return self._losses

    def paths(self) -> tuple[Path, ...]:
        """The directories of sessions of earlier runs that are not delivered yet, in no particular order.

        A directory without a ``session`` file is what a crash left of a session that had not begun: it is removed.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``.
        """
        found: list[Path] = []
        for path in sorted(self._root.iterdir()):
            if not SESSION_NAME.fullmatch(path.name):
                continue
            if not (path / "session").exists():
                _remove_tree(path)
                continue
            found.append(path)
        return tuple(found)

    def open(self, path: Path) -> Spool:
        """The spool of an earlier run at ``path``, which is one of :meth:`paths`.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT`` naming a damaged or missing file; ``FILE_UNREADABLE``.
        """
        return Spool.open(path, storage=self._storage, allowance=self._allowance(path))

    def pending(self) -> tuple[Spool, ...]:
        """All spools of earlier runs.

        Raises:
            EnvironmentFault: as :meth:`paths` and :meth:`open`.
        """
        return tuple(self.open(path) for path in self.paths())

    def create(
        self, session: bytes, terms: bytes, *, prev: bytes, challenge: bytes, spot: SpotChallenge | None = None
    ) -> Spool:
        """Begin the spool of a new session.

        Args:
            session: its identifier, 16 bytes.
            terms: the signed terms.
            prev: what the first window continues.
            challenge: the challenge for the first window.
            spot: the spot challenge that came with it.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
            RuntimeError: there is a spool of that session.
        """
        path = self._root / session.hex()
        if path.exists():
            raise RuntimeError(f"there is a spool of session {session.hex()}")
        make_directory(path)
        # If power fails before `session` is written, the next start removes the directory.
        first = Progress(0, prev, challenge, spot)
        self._storage.write(path / "progress", encode_progress(first))
        self._storage.write(path / "session", encode_session(session, terms))
        return self.open(path)

    def remove(self, spool: Spool) -> None:
        """Take away a spool that holds no window any more.

        Raises:
            RuntimeError: it still holds one.
            EnvironmentFault: ``FILE_UNWRITABLE``.
        """
        if spool.backlog:
            raise RuntimeError("the spool still holds windows")
        # `session` first: a crash after it leaves a directory that the next start removes.
        self._storage.remove(spool.path / "session")
        _remove_tree(spool.path)

    def set_aside(self, path: Path, why: Literal["refused", "damaged"]) -> Path:
        """Keep the spool at ``path``, of which no more can be delivered, where nothing reads it; return its new place.

        It goes on counting towards the bound until somebody removes it.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``.
        """
        target = path.with_name(f"{path.name}.{why}")
        try:
            path.rename(target)
        except OSError as error:
            raise write_fault(target, error) from error
        return target

    def _allowance(self, path: Path) -> int:
        """What is left for the spool at ``path``."""
        others = (other for other in self._root.iterdir() if other != path and other.is_dir())
        return self._max_bytes - sum(size for other in others for _, size in window_files(other))


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise write_fault(path, error) from error


def _losses(path: Path, storage: SpoolStorage) -> Losses:
    """The list at ``path``; a damaged one is moved aside."""
    try:
        return Losses.open(path, storage)
    except EnvironmentFault as fault:
        if fault.code is not Code.STATE_CORRUPT:
            raise
    try:
        path.replace(path.with_name(path.name + ".damaged"))
    except OSError as error:
        raise write_fault(path, error) from error
    return Losses.open(path, storage)
