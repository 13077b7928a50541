"""A directory of collateral: what a verifier has at hand, and judges by.

::

    STORE/items/<SHA-256 in hexadecimal>     one piece each, as its maker published it
    STORE/staging/                           what is being written; nobody reads it

The directory of pieces is all there is: what each piece is, and which is newer, is read out of the pieces themselves
whenever the directory has changed. So there is no index that could disagree with them, and nothing to repair after a
crash: a piece appears whole, under its digest, or not at all. Several processes may read and write at once.

Nothing here is verified: whoever can write into the directory can fill it, and leave out what they like. What a piece
proves is verified where it is used; that nothing was left out, by its age (:mod:`weighbridge.verifier.gpu.revocation`).
But what does not have the digest that its name says is a fault of this machine, and stops all judging: a revocation
that a disk has damaged must not become an absent one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto import limits
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.collateral.choice import choose, fill
from weighbridge.verifier.collateral.describe import recognise
from weighbridge.verifier.files import PosixFiles, fault, install

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from weighbridge.verifier.collateral.choice import Fill
    from weighbridge.verifier.collateral.describe import Description
    from weighbridge.verifier.files import Files

__all__ = ["CollateralStore", "Damaged"]

_ITEMS: Final = "items"
_STAGING: Final = "staging"
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
# A piece of staging this old is of a process that was killed. In seconds.
_ABANDONED: Final = 3600
# A directory that changed less than this before it was read may have changed again within one tick of its clock.
_TICK_NS: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Damaged:
    """What lies among the pieces and is none, and why.

    ``lost`` says that there was a piece of this digest, which cannot be had any more: nothing is judged then. What is
    of another name, or of a kind that is unknown here, hides nothing.
    """

    path: Path
    reason: str
    lost: bool


@dataclass(frozen=True, slots=True)
class _Content:
    fingerprint: tuple[int, ...] | None
    pieces: tuple[Description, ...]
    damaged: tuple[Damaged, ...]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What was chosen of ``content``, for times from ``begin`` until before ``end``, at which another issue begins."""

    content: _Content
    begin: datetime | None
    end: datetime | None
    collateral: Collateral

    def holds(self, content: _Content, at: datetime) -> bool:
        begun = self.begin is None or self.begin <= at
        return self.content is content and begun and (self.end is None or at < self.end)


@final
class CollateralStore:
    """Pieces of collateral in ``directory``. Made by :meth:`open` or :meth:`create`.

    May be used from several threads and processes.
    """

    __slots__ = ("_content", "_directory", "_files", "_known", "_snapshot")

    def __init__(self, directory: Path, *, files: Files | None = None) -> None:
        self._directory = directory
        self._files = files or PosixFiles()
        self._content: _Content | None = None
        # What was read once, under its digest, is the same always.
        self._known: dict[str, Description] = {}
        self._snapshot: _Snapshot | None = None

    @classmethod
    def open(cls, directory: Path, *, files: Files | None = None) -> Self:
        """The store in ``directory``, which is there.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        if not (directory / _ITEMS).is_dir():
            raise EnvironmentFault(
                Code.FILE_UNREADABLE,
                "no collateral store here",
                where=str(directory),
                hint="make one: weighbridge collateral import FILE… --store DIR",
            )
        return cls(directory, files=files)

    @classmethod
    def create(cls, directory: Path, *, files: Files | None = None) -> Self:
        """The store in ``directory``, which is made when it is not there; its parent exists.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
        """
        files = files or PosixFiles()
        if directory.exists() and not directory.is_dir():
            raise EnvironmentFault(
                Code.FILE_UNWRITABLE, "not a directory", where=str(directory), hint="name the store's directory"
            )
        try:
            for path in (directory, directory / _ITEMS, directory / _STAGING):
                files.make_directory(path, mode=_DIRECTORY_MODE)
                files.sync_directory(path.parent)
        except OSError as error:
            raise fault(error, directory, "creating the collateral store") from error
        store = cls(directory, files=files)
        store._sweep()
        return store

    def put(self, pieces: Iterable[Description]) -> tuple[bool, ...]:
        """Keep ``pieces``; for each, whether it is new here.

        Raises:
            EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``; nothing half-written is visible, and pieces before
                the one that failed are kept.
        """
        return tuple(self._put(piece) for piece in pieces)

    def named(self, beginnings: Iterable[str]) -> tuple[str, ...]:
        """The names of the pieces whose digests begin so, one for each, damaged or not.

        Args:
            beginnings: lower-case hexadecimal digits.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``, where no piece or several begin so, or the directory cannot be
                listed.
        """
        content = self._read()
        names = [piece.digest.hex() for piece in content.pieces]
        names += [damaged.path.name for damaged in content.damaged if _NAME.fullmatch(damaged.path.name)]
        return tuple(self._one(beginning, names) for beginning in beginnings)

    def remove(self, names: Iterable[str]) -> None:
        """Forget the pieces of these :meth:`named` names; one that is not there any more is no fault.

        A reader sees each of them or not. After a crash some may be there still, whole.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE``; those before the one that failed may be gone.
        """
        directory = self._directory / _ITEMS
        path = directory
        try:
            for name in names:
                path = directory / name
                self._files.remove(path)
            # If power fails before this: what has no trace on disk yet, comes back as its maker published it.
            self._files.sync_directory(directory)
        except OSError as error:
            raise fault(error, path, "removing collateral") from error

    def pieces(self) -> tuple[Description, ...]:
        """All pieces, in no particular order. The directory is read again if it has changed.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``, where the directory cannot be listed.
        """
        return self._read().pieces

    def damaged(self) -> tuple[Damaged, ...]:
        """What lies among the pieces and is none.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``, where the directory cannot be listed.
        """
        return self._read().damaged

    def check_whole(self, *, besides: Collection[str] = ()) -> None:
        """Refuse a store with damaged pieces, those of the names ``besides`` apart.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT``; ``FILE_UNREADABLE``.
        """
        _check_whole(self._read(), besides)

    def fill(self, at: datetime) -> Fill:
        """How near to its bounds a :meth:`snapshot` at ``at`` is.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        return fill(self._read().pieces, at)

    def snapshot(self, at: datetime) -> Collateral:
        """What to judge by at ``at``: the same object until the pieces to judge by are others.

        All pieces, where they are few. At most the newest four OCSP responses and lists of one subject, but everything
        that takes trust away; and of all that at most ``limits.COLLATERAL_SNAPSHOT_MAX`` pieces, and no more bytes than
        one record may name: first what takes trust away, then the newest. What claims to be of later than ``at`` comes
        last, so that nobody displaces anything by a date. Nor does anybody by numbers: where not all that takes trust
        away has room, nothing is handed out, since which of it is genuine cannot be told here.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT``, where a piece is damaged; ``TOO_LARGE``, where not all that takes trust
                away has room; ``FILE_UNREADABLE``.
            ValueError: ``at`` is naive.
        """
        if at.tzinfo is None:
            raise ValueError("naive time")
        content = self._read()
        _check_whole(content)
        known = self._snapshot
        if known is not None and known.holds(content, at):
            return known.collateral
        issued = [piece.issued for piece in content.pieces]
        collateral = Collateral.of(*(piece.item for piece in choose(content.pieces, at, where=str(self._directory))))
        made = _Snapshot(
            content,
            max((each for each in issued if each <= at), default=None),
            min((each for each in issued if each > at), default=None),
            # What has not changed is not read, verified and kept once more.
            known.collateral if known is not None and known.collateral == collateral else collateral,
        )
        self._snapshot = made
        return made.collateral

    def _one(self, beginning: str, names: Sequence[str]) -> str:
        found = [name for name in names if name.startswith(beginning)]
        if len(found) == 1:
            return found[0]
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            "several pieces have a digest that begins so" if found else "no piece has a digest that begins so",
            where=str(self._directory),
            expected=", ".join(f"{name[:16]}…" for name in itertools.islice(found, 3)) or None,
            got=beginning,
            hint="name more of its digits" if found else "weighbridge collateral list and check show what is there",
        )

    def _put(self, piece: Description) -> bool:
        target = self._directory / _ITEMS / piece.digest.hex()
        staging = self._directory / _STAGING / os.urandom(16).hex()
        try:
            if target.is_file() and not target.is_symlink() and target.read_bytes() == piece.item.data:
                # Whoever put it first may have been interrupted before its name was durable.
                self._files.sync_directory(target.parent)
                return False
            install(self._files, piece.item.data, target, staging=staging, mode=_FILE_MODE)
        except OSError as error:
            raise fault(error, target, "storing collateral") from error
        return True

    def _sweep(self) -> None:
        """Remove what killed processes have left in staging. Nobody relies on it."""
        with contextlib.suppress(OSError):
            for path in (self._directory / _STAGING).iterdir():
                if path.lstat().st_mtime < time.time() - _ABANDONED:
                    self._files.remove(path)

    def _read(self) -> _Content:
        directory = self._directory / _ITEMS
        try:
            status = directory.stat()
            fingerprint = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
            content = self._content
            if content is not None and content.fingerprint == fingerprint:
                return content
            names = sorted(os.listdir(directory))  # noqa: PTH208 - names, of which there are thousands
        except OSError as error:
            raise EnvironmentFault(
                Code.FILE_UNREADABLE, (error.strerror or type(error).__name__).lower(), where=str(directory)
            ) from error
        pieces: list[Description] = []
        damaged: list[Damaged] = []
        for name in names:
            found = self._load(directory / name)
            if isinstance(found, Damaged):
                damaged.append(found)
            else:
                pieces.append(found)
        # A piece that was removed is forgotten.
        self._known = {name: self._known[name] for name in names if name in self._known}
        settled = time.time_ns() - status.st_mtime_ns > _TICK_NS
        content = _Content(fingerprint if settled else None, tuple(pieces), tuple(damaged))
        self._content = content
        return content

    def _load(self, path: Path) -> Description | Damaged:
        known = self._known.get(path.name)
        if known is not None:
            return known
        if not _NAME.fullmatch(path.name):
            return Damaged(path, "not named by a digest", lost=False)
        try:
            data = _bytes_of(path)
        except OSError as error:
            # One that is gone since the directory was listed was removed by somebody, not lost.
            lost = not isinstance(error, FileNotFoundError)
            return Damaged(path, (error.strerror or type(error).__name__).lower(), lost=lost)
        if data is None or sha256(data).hex() != path.name:
            return Damaged(path, "not a file with the digest that its name says", lost=True)
        try:
            described = _piece(data, path.name)
        except MalformedEvidence as error:
            return Damaged(path, f"not a piece of collateral: {error}", lost=False)
        self._known[path.name] = described
        return described


def _check_whole(content: _Content, besides: Collection[str] = ()) -> None:
    lost = [damaged for damaged in content.damaged if damaged.lost and damaged.path.name not in besides]
    if lost:
        raise EnvironmentFault(
            Code.STATE_CORRUPT,
            f"{len(lost)} damaged in the collateral store: {lost[0].reason}",
            where=str(lost[0].path),
            hint="weighbridge collateral check lists them; `weighbridge collateral remove DIGEST…` forgets them: fetch "
            "what is missing again",
        )


def _piece(data: bytes, name: str) -> Description:
    """The one piece that ``data`` is, without anything around it."""
    found = recognise(data, where=name)
    if len(found) != 1 or found[0].item.data != data:
        raise MalformedEvidence(Code.COLLATERAL_INVALID, "not one piece as its maker publishes it", where=name)
    return found[0]


def _bytes_of(path: Path) -> bytes | None:
    """What the file holds; ``None`` for what is no regular file of a piece's size.

    No link is followed, and nobody waited for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limits.COLLATERAL_ITEM_MAX:
            return None
        data = file.read(limits.COLLATERAL_ITEM_MAX + 1)
    return data if len(data) <= limits.COLLATERAL_ITEM_MAX else None
