"""Sealed windows on disk until the verifier's answer to each is recorded; nothing sealed is lost to a crash.

One directory per session, below one root::

    <session, hex>/progress             what the verifier has recorded: next number, its link, its challenge, what that
                                        challenge asks of the model's files
    <session, hex>/session              the signed terms, never changed; without it the directory is nothing
    <session, hex>/header               the header about to be sealed, synced before anything is signed over it
    <session, hex>/window-<seq>         one sealed window
    <session, hex>.refused/…            a session that no verifier takes any more: kept, never read again

Every file is written whole and synced or not at all. The commit point of a window is the appearance of its file;
then its header goes. The commit point of an answer is ``progress``; then the window's file goes, oldest first. A crash
between two steps leaves the later file's predecessor behind, which opening takes away again. A header without its
window was never released: it is skipped, and since a restarted attester begins a new session, its number is not used
again.

When a write fails nothing more is written through the same object: what is on disk may be either side of the failure,
and opening it again finds out which.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Final, Self

from weighbridge.attester.durable import make_directory, write_fault
from weighbridge.attester.spool_files import (
    FILE_MAX,
    DiskStorage,
    Progress,
    SpooledWindow,
    SpoolStorage,
    corrupt,
    encode_header,
    encode_progress,
    encode_session,
    encode_window,
    read_progress,
    read_session,
    read_window,
)
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.proto.spot import SpotChallenge

__all__ = ["DEFAULT_MAX_BYTES", "Spool", "Spools"]

# A day of 10 s windows of 8 GPUs is about 900 MB; an hour without the verifier has to fit many times.
DEFAULT_MAX_BYTES: Final = 512 * 1024 * 1024

_WINDOW_NAME: Final = re.compile(r"window-([0-9]{16})")
_SESSION_NAME: Final = re.compile(r"[0-9a-f]{32}")
_REFUSED: Final = ".refused"


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

    def pending(self) -> tuple[Spool, ...]:
        """The sessions of earlier runs that are not delivered yet, in no particular order.

        A directory without a ``session`` file is what a crash left of a session that had not begun: it is removed.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT`` naming a damaged file.
        """
        spools: list[Spool] = []
        for path in sorted(self._root.iterdir()):
            if not _SESSION_NAME.fullmatch(path.name):
                continue
            if not (path / "session").exists():
                _remove_tree(path)
                continue
            spools.append(Spool.open(path, storage=self._storage, allowance=self._allowance(path)))
        return tuple(spools)

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
        return Spool.open(path, storage=self._storage, allowance=self._allowance(path))

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

    def set_aside(self, spool: Spool) -> Path:
        """Keep a spool that no verifier takes, where nothing reads it any more, and return its new place.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``.
        """
        target = spool.path.with_name(spool.path.name + _REFUSED)
        try:
            spool.path.rename(target)
        except OSError as error:
            raise write_fault(target, error) from error
        return target

    def _allowance(self, path: Path) -> int:
        """What is left for the spool at ``path``."""
        others = (file for file in self._root.glob("*/window-*") if file.parent != path)
        return self._max_bytes - sum(file.stat().st_size for file in others)


class Spool:
    """The spool of one session. Not safe to use from several threads at once.

    States: *usable*; *failed* after a write that failed: then everything but reading raises that failure again.
    """

    def __init__(self, path: Path, *, storage: SpoolStorage, allowance: int) -> None:
        """Not for callers: use :meth:`open` or :meth:`Spools.create`."""
        self.path: Final = path
        self._storage = storage
        self._allowance = allowance
        self._failure: EnvironmentFault | None = None
        self._sizes: dict[int, int] = {}
        self._session, self._terms = read_session(path / "session")
        self._progress = read_progress(path / "progress")
        self._next = self._progress.seq
        self._prev = self._progress.prev

    @classmethod
    def open(cls, path: Path, *, storage: SpoolStorage, allowance: int) -> Self:
        """The spool at ``path``, after tidying up what a crash left.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT`` naming a file that is damaged or missing; ``FILE_UNREADABLE``.
        """
        spool = cls(path, storage=storage, allowance=allowance)
        spool._recover()
        return spool

    @property
    def session(self) -> bytes:
        """The session's identifier, 16 bytes."""
        return self._session

    @property
    def terms(self) -> bytes:
        """The signed terms, as received. Their signature was verified before they were written."""
        return self._terms

    @property
    def progress(self) -> Progress:
        """What the verifier has recorded."""
        return self._progress

    @property
    def next_seq(self) -> int:
        """The number of the window to be sealed next."""
        return self._next

    @property
    def prev(self) -> bytes:
        """What the window to be sealed next continues."""
        return self._prev

    @property
    def backlog(self) -> int:
        """How many sealed windows wait for their answer."""
        return len(self._sizes)

    @property
    def has_room(self) -> bool:
        """Whether one more window of the largest size fits under the bound."""
        return sum(self._sizes.values()) + FILE_MAX <= self._allowance

    def begin(self, header: bytes) -> None:
        """Write the header of window :attr:`next_seq` to disk; on return it may be signed over.

        A header that was begun and not sealed is replaced: nothing made over it has left this host.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
            RuntimeError: there is no room; the caller asks :attr:`has_room` first.
        """
        if not self.has_room:
            raise RuntimeError("the spool is full")
        # If power fails here: no header, nothing signed.
        self._write("header", encode_header(self._next, header))

    def commit(self, window: SealedWindow) -> None:
        """Keep ``window``; on return it survives a crash.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
            RuntimeError: it is not window :attr:`next_seq`.
        """
        if window.seq != self._next:
            raise RuntimeError(f"window {window.seq} is not the next one, {self._next}")
        data = encode_window(SpooledWindow(window.seq, window.next_prev, window.evidence))
        # If power fails here: the header alone, a window that was never released.
        self._write(f"window-{window.seq:016d}", data)
        # If power fails here: the window, and a header that opening removes.
        self._sizes[window.seq] = len(data)
        self._next, self._prev = window.seq + 1, window.next_prev
        self._remove("header")

    def oldest(self) -> SpooledWindow | None:
        """The oldest window that waits for its answer.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT`` or ``FILE_UNREADABLE``.
        """
        if not self._sizes:
            return None
        return read_window(self.path / f"window-{min(self._sizes):016d}", min(self._sizes))

    def record(self, seq: int, *, challenge: bytes | None, spot: SpotChallenge | None = None) -> None:
        """The verifier has recorded window ``seq``, the oldest: forget it.

        Args:
            seq: the window's number.
            challenge: the challenge that the answer carried.
            spot: the spot challenge that the answer carried.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``: then the window may be sent again, and the verifier
                says what it has.
            RuntimeError: another window is the oldest.
        """
        window = self.oldest()
        if window is None or window.seq != seq:
            raise RuntimeError(f"window {seq} is not the oldest in the spool")
        self._advance(Progress(seq + 1, window.next_prev, challenge, spot))

    def skip_to(self, seq: int, *, challenge: bytes, spot: SpotChallenge | None = None) -> int:
        """The verifier says that it has every window before ``seq``: forget those.

        Args:
            seq: the next window that it wants; not before those it has recorded, not beyond the next to be sealed.
            challenge: its challenge for that window.
            spot: the spot challenge that came with it.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
            LedgerInconsistent: ``WINDOW_SEQ`` for a number that it cannot mean: it lost windows that it had recorded,
                or has some that were never sealed.

        Returns:
            How many windows were forgotten.
        """
        if not self._progress.seq <= seq <= self._next:
            raise LedgerInconsistent(
                Code.WINDOW_SEQ,
                "the verifier's place in this session is not one it can have",
                where=f"session {self._session.hex()}",
                expected=f"{self._progress.seq}..{self._next}",
                got=seq,
                hint="its record was lost or belongs to another session: start a new session",
            )
        before = self.backlog
        prev = self._progress.prev
        for number in range(self._progress.seq, seq):
            prev = read_window(self.path / f"window-{number:016d}", number).next_prev
        self._advance(Progress(seq, prev, challenge, spot))
        return before - self.backlog

    def _advance(self, progress: Progress) -> None:
        # If power fails here: the windows are sent again, and the verifier says that it has them.
        self._write("progress", encode_progress(progress))
        self._progress = progress
        # If power fails here: files of recorded windows, which opening removes.
        for seq in sorted(seq for seq in self._sizes if seq < progress.seq):
            self._remove(f"window-{seq:016d}")
            del self._sizes[seq]

    def _recover(self) -> None:
        for path in sorted(self.path.iterdir()):
            match = _WINDOW_NAME.fullmatch(path.name)
            if match is None:
                continue
            seq = int(match[1])  # lenient: the pattern admits sixteen ASCII digits only
            if seq < self._progress.seq:
                self._remove(path.name)
                continue
            if seq != self._next:
                raise corrupt(self.path / f"window-{self._next:016d}", "a sealed window is missing")
            self._sizes[seq] = path.stat().st_size
            self._prev = read_window(path, seq).next_prev
            self._next = seq + 1
        self._remove("header")

    def _write(self, name: str, data: bytes) -> None:
        self._check()
        try:
            self._storage.write(self.path / name, data)
        except EnvironmentFault as error:
            self._failure = error
            raise

    def _remove(self, name: str) -> None:
        self._check()
        try:
            self._storage.remove(self.path / name)
        except EnvironmentFault as error:
            self._failure = error
            raise

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise write_fault(path, error) from error
