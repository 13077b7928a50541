"""One session's spool: what :mod:`.spool` keeps of it, and in which order.

A disk that has no space left is waited for; any other failed write ends the use of the object.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal, Self

from weighbridge.attester.spool_files import (
    FILE_MAX,
    Progress,
    SpooledWindow,
    SpoolStorage,
    corrupt,
    encode_header,
    encode_progress,
    encode_window,
    read_progress,
    read_session,
    read_window,
    window_files,
    window_name,
)
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.proto.spot import SpotChallenge

__all__ = ["FullReason", "Spool"]

FullReason = Literal["spool-full", "disk-full"]
# A backlog leaves so much of a file system to others: a twentieth, at most this.
_RESERVE_SHARE: Final = 20
_RESERVE_MAX: Final = 256 * 1024 * 1024
# So few windows are no backlog: they are on their way.
_FEW: Final = 4
# Answers to a backlog between two writings of ``progress``: what is sent again after a crash.
_BATCH: Final = 16


class Spool:
    """The spool of one session. Not safe to use from several threads at once.

    States: *usable*; *late*, when there was no space for a window that is sealed: nothing is sealed until it is
    written; *failed* after another write that failed: then everything but reading raises that failure again.
    """

    def __init__(self, path: Path, *, storage: SpoolStorage, allowance: int) -> None:
        """Not for callers: use :meth:`open` or :meth:`Spools.create`."""
        self.path: Final = path
        self._storage = storage
        self._allowance = allowance
        self._failure: EnvironmentFault | None = None
        self._late: SealedWindow | None = None
        self._session, self._terms = read_session(path / "session")
        self._progress = read_progress(path / "progress")
        # The windows on disk: their sizes, from number ``_first`` on.
        self._first = self._progress.seq
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._next = self._progress.seq
        self._prev = self._progress.prev
        # Of windows that were read and are not recorded yet: what the next one continues.
        self._links: dict[int, bytes] = {}

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
        return self._next - self._progress.seq

    @property
    def size(self) -> int:
        """What the windows on disk take, bytes."""
        return self._bytes

    @property
    def allowance(self) -> int:
        """What they may take, bytes: the bound, less what other sessions' windows take."""
        return self._allowance

    @property
    def late(self) -> bool:
        """Whether a window is sealed that could not be written. It is lost if the process ends now."""
        return self._late is not None

    def full(self) -> FullReason | None:
        """Why no window can be sealed now; ``None`` when one can. Writes first what could not be written before.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``.
        """
        if self._late is not None and not self._keep(self._late):
            return "disk-full"
        if self._bytes + FILE_MAX > self._allowance:
            return "spool-full"
        size, free = self._storage.space(self.path)
        reserve = 0 if len(self._sizes) < _FEW else min(size // _RESERVE_SHARE, _RESERVE_MAX)
        return "disk-full" if free < FILE_MAX + reserve else None

    def begin(self, header: bytes) -> None:
        """Write the header of window :attr:`next_seq` to disk; on return it may be signed over.

        A header that was begun and not sealed is replaced: nothing made over it has left this host.

        Raises:
            EnvironmentFault: ``DISK_FULL``: nothing may be signed, and the same may be tried again; or
                ``FILE_UNWRITABLE``.
            RuntimeError: there is no room; the caller asks :meth:`full` first.
        """
        self._check()
        if self._late is not None or self._bytes + FILE_MAX > self._allowance:
            raise RuntimeError("the spool is full")
        # If power fails here: no header, nothing signed.
        self._write("header", encode_header(self._next, header))

    def commit(self, window: SealedWindow) -> bool:
        """Keep ``window``; on return it survives a crash, if that is what is returned.

        Returns:
            ``False`` when there was no space: it is *late*, and :meth:`full` tries again.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``.
            RuntimeError: it is not window :attr:`next_seq`.
        """
        self._check()
        if window.seq != self._next or self._late is not None:
            raise RuntimeError(f"window {window.seq} is not the next one, {self._next}")
        return self._keep(window)

    def _keep(self, window: SealedWindow) -> bool:
        self._late = window
        data = encode_window(SpooledWindow(window.seq, window.next_prev, window.evidence))
        try:
            # If power fails here: the header alone, a window that was never released.
            self._write(window_name(window.seq), data)
        except EnvironmentFault as fault:
            if fault.code is not Code.DISK_FULL:
                raise
            return False
        # If power fails here: the window, and a header that opening removes.
        self._late = None
        self._sizes.append(len(data))
        self._bytes += len(data)
        self._next, self._prev = window.seq + 1, window.next_prev
        self._remove("header")
        return True

    def oldest(self) -> SpooledWindow | None:
        """The oldest window that waits for its answer.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT`` or ``FILE_UNREADABLE``.
        """
        return self.window(self._progress.seq) if self.backlog else None

    def window(self, seq: int) -> SpooledWindow:
        """Window ``seq``, one of those that wait for their answer.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT`` or ``FILE_UNREADABLE``.
            RuntimeError: it is none of them.
        """
        if not self._progress.seq <= seq < self._next:
            raise RuntimeError(f"window {seq} does not wait for an answer")
        window = read_window(self.path / window_name(seq), seq)
        self._links[seq] = window.next_prev
        return window

    def record(self, seq: int, *, challenge: bytes | None, spot: SpotChallenge | None = None) -> None:
        """The verifier has recorded window ``seq``, the oldest: forget it.

        Args:
            seq: the window's number.
            challenge: the challenge that the answer carried.
            spot: the spot challenge that the answer carried.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``: then the window may be sent again, and the verifier says what it has.
            RuntimeError: another window is the oldest.
        """
        if not self.backlog or seq != self._progress.seq:
            raise RuntimeError(f"window {seq} is not the oldest in the spool")
        self._advance(Progress(seq + 1, self._link(seq), challenge, spot))

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
        prev = self._progress.prev if seq == self._progress.seq else self._link(seq - 1)
        self._advance(Progress(seq, prev, challenge, spot))
        return before - self.backlog

    def _link(self, seq: int) -> bytes:
        return self._links[seq] if seq in self._links else self.window(seq).next_prev

    def _advance(self, progress: Progress) -> None:
        self._check()
        self._progress = progress
        self._links = {seq: link for seq, link in self._links.items() if seq >= progress.seq}
        if not self.backlog or progress.seq - self._first >= _BATCH:
            self.save()

    def save(self) -> None:
        """Write what the verifier has recorded, and let those windows go.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``. A disk that is full is no fault: the next answer tries again.
        """
        try:
            # If power fails here: the windows are sent again, and the verifier says that it has them.
            self._write("progress", encode_progress(self._progress))
        except EnvironmentFault as fault:
            if fault.code is not Code.DISK_FULL:
                raise
            # Removing a window's file before this is written would leave a hole.
            return
        # If power fails here: files of recorded windows, which opening removes.
        while self._sizes and self._first < self._progress.seq:
            if not self._remove(window_name(self._first)):
                return
            self._bytes -= self._sizes.popleft()
            self._first += 1
        self._first = self._progress.seq

    def _recover(self) -> None:
        found = window_files(self.path)
        for seq, _ in found:
            if seq < self._progress.seq:
                self._remove(window_name(seq))
        for seq, size in found:
            if seq < self._progress.seq:
                continue
            if seq != self._next:
                raise corrupt(self.path / window_name(self._next), "a sealed window is missing")
            self._sizes.append(size)
            self._bytes += size
            self._next = seq + 1
        if self._sizes:
            self._prev = self._link(self._next - 1)
        self._remove("header")

    def _write(self, name: str, data: bytes) -> None:
        self._check()
        try:
            self._storage.write(self.path / name, data)
        except EnvironmentFault as error:
            if error.code is not Code.DISK_FULL:
                self._failure = error
            raise

    def _remove(self, name: str) -> bool:
        """Whether it is gone: there are file systems that need space for that as well."""
        self._check()
        try:
            self._storage.remove(self.path / name)
        except EnvironmentFault as error:
            if error.code is Code.DISK_FULL:
                return False
            self._failure = error
            raise
        return True

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
