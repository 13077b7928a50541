"""Where each content of a directory of segments lies, by their indices and, where these end, by their own blocks.

Reads only. Several processes may be writing meanwhile: what is not found is looked for in what has been added since.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.ledger import segment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Catalogue", "Place"]

_NAME: Final = re.compile(r"([0-9]{8})-[0-9a-f]{8}")
_FIRST: Final = "00000000-"


@dataclass(frozen=True, slots=True)
class Place:
    """The block that has a content: its segment, its offset there, and whether an index says so.

    What an index covers was synced before the index was written.
    """

    segment: str
    offset: int
    indexed: bool


@dataclass(slots=True)
class _Known:
    """What is known of one segment.

    ``index`` is the size of its index, zero without one; ``covered`` how much of the segment that covers; ``rows`` the
    contents behind that, as far as ``end``.
    """

    index: int = 0
    covered: int = 0
    end: int = 0
    rows: dict[bytes, list[int]] = field(default_factory=dict)
    damaged: bool = False


@final
class Catalogue:
    """The segments in ``directory``.

    Opening reads the names, the first bytes of each index and, of a segment's part that its index does not cover, the
    heads of the blocks: of as many segments as had writers that were stopped since somebody wrote here last.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
    """

    __slots__ = ("_directory", "_segments")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segments: dict[str, _Known] = {}
        _ = self._refresh()

    @property
    def damaged(self) -> tuple[str, ...]:
        """Segments in which something is no block, although blocks follow it: contents may be missing there."""
        return tuple(name for name, known in self._segments.items() if known.damaged)

    def find(self, digest: bytes) -> tuple[Place, ...]:
        """Everywhere that content ``digest`` is said to lie, the newest first.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        found = tuple(self._places(digest))
        if not found and self._refresh():
            found = tuple(self._places(digest))
        return found

    def forget(self, name: str) -> None:
        """Read segment ``name`` from its beginning the next time."""
        _ = self._segments.pop(name, None)

    def reload(self) -> None:
        """Read everything again.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        self._segments.clear()
        _ = self._refresh()

    def unindexed(self) -> tuple[str, ...]:
        """The segments whose end no index covers: those of writers that were stopped, and those that are in use.

        Damaged ones are left out: their end is looked at whenever they are opened.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        _ = self._refresh()
        return tuple(name for name, known in self._segments.items() if known.rows and not known.damaged)

    def whole(self, name: str) -> tuple[list[bytes], int]:
        """Of a segment that nobody writes to: the rows of its index, and where it ends.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        found = self._scan(name, 0)
        return [segment.index_row(row.digest, at) for at, block in found.blocks for row in block.rows], found.end

    def next_name(self) -> str:
        """A name that sorts behind all others and that no other writer chooses."""
        last = max(self._segments, default=_FIRST)
        number = strict.decimal(last.partition("-")[0].lstrip("0") or "0", what="segment") + 1
        return f"{number:08d}-{os.urandom(4).hex()}"

    def _places(self, digest: bytes) -> Iterator[Place]:
        for name in sorted(self._segments, reverse=True):
            known = self._segments[name]
            for offset in reversed(known.rows.get(digest, [])):
                yield Place(name, offset, indexed=False)
            if known.covered:
                for offset in reversed(self._look_up(name, digest)):
                    yield Place(name, offset, indexed=True)

    def _refresh(self) -> bool:
        """Take up what has been added; whether anything was."""
        try:
            with os.scandir(self._directory) as entries:
                # What another writer has in the making may be gone by now.
                sizes = {
                    entry.name: entry.stat().st_size
                    for entry in entries
                    if _NAME.fullmatch(entry.name.removesuffix(segment.INDEX_SUFFIX))
                }
        except OSError as error:
            raise self._unreadable(error, self._directory) from error
        before = [(known.covered, known.end) for known in self._segments.values()]
        for name in sorted(filter(_NAME.fullmatch, sizes)):
            known = self._segments.setdefault(name, _Known())
            index = sizes.get(f"{name}{segment.INDEX_SUFFIX}", 0)
            if index != known.index:
                self._take_index(name, known, index)
            if sizes[name] > known.end:
                found = self._scan(name, known.end)
                for at, block in found.blocks:
                    for row in block.rows:
                        known.rows.setdefault(row.digest, []).append(at)
                known.end = found.end
                known.damaged = known.damaged or found.damaged is not None
        return before != [(known.covered, known.end) for known in self._segments.values()]

    def _take_index(self, name: str, known: _Known, size: int) -> None:
        """Rely on the index, which is ``size`` bytes long, instead of what is remembered."""
        covered = self._read_index(name)
        if covered > known.covered:
            known.index, known.covered, known.end = size, covered, max(known.end, covered)
            behind = {digest: [at for at in offsets if at >= covered] for digest, offsets in known.rows.items()}
            known.rows = {digest: offsets for digest, offsets in behind.items() if offsets}

    def _read_index(self, name: str) -> int:
        """How much of the segment its index covers: nothing, if it is none. Then the segment itself is read."""
        path = self._directory / f"{name}{segment.INDEX_SUFFIX}"
        try:
            with path.open("rb") as file:
                return segment.read_index_head(file)[1]
        except MalformedEvidence:
            return 0
        except OSError as error:
            raise self._unreadable(error, path) from error

    def _look_up(self, name: str, digest: bytes) -> tuple[int, ...]:
        path = self._directory / f"{name}{segment.INDEX_SUFFIX}"
        try:
            with path.open("rb") as file:
                return segment.look_up(file, digest)
        except MalformedEvidence as error:
            raise LedgerInconsistent(
                Code.LEDGER_INCONSISTENT,
                "an index of the content store was damaged",
                where=str(path),
                hint="Delete it: it is made again.",
            ) from error
        except OSError as error:
            raise self._unreadable(error, path) from error

    def _scan(self, name: str, start: int) -> segment.Scan:
        path = self._directory / name
        try:
            with path.open("rb") as file:
                return segment.scan(file, start)
        except OSError as error:
            raise self._unreadable(error, path) from error

    @staticmethod
    def _unreadable(error: OSError, path: Path) -> EnvironmentFault:
        reason = (error.strerror or type(error).__name__).lower()
        return EnvironmentFault(Code.FILE_UNREADABLE, reason, where=str(path))
