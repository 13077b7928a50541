"""What guards hand over, compared with what was measured: the attester's side of :mod:`weighbridge.attester.loading`.

The guard sends digests, never a verdict: which part of a file a range is, whether it is what was measured, and when all
of a file is handed over is decided here, over all processes that load the same file. A record is in the log, and in the
register, before the answer leaves on which a framework gets the bytes.

For one file of one load the log takes one record of each kind: whole, in part, not a match, changed. What comes after
says nothing new, and a server that tries again and again cannot fill the log.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.attester.weights.directory import resolved
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, NotAuthentic, PolicyDenied, shorten
from weighbridge.proto.measurement_log import ModelHanded, must_be_handed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from weighbridge.attester.weights import MeasurementLog
    from weighbridge.attester.workload.messages import Range
    from weighbridge.proto.manifest import FileEntry, Manifest, Part

__all__ = ["Handovers", "Place"]

# Room for what stands around a tensor's name.
_NAME_MAX: Final = limits.NAME_MAX // 2


@dataclass(frozen=True, slots=True)
class Place:
    """A file of a loaded model. ``kind`` is its format, ``size`` in bytes, ``algorithm`` that of its digests."""

    recnum: int
    path: str
    kind: str
    size: int
    algorithm: str


@dataclass(slots=True)
class _File:
    """``at`` finds parts by where they begin and how long they are; ``covered`` are those that were handed over."""

    entry: FileEntry
    parts: tuple[Part, ...]
    at: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    covered: set[int] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)

    @property
    def whole(self) -> bool:
        return len(self.covered) == len(self.parts)


@dataclass(frozen=True, slots=True)
class _Load:
    manifest: Manifest
    roots: tuple[Path, ...]
    files: dict[str, _File]


class Handovers:
    """The models that this process measured and that are loaded. Safe to use from several threads.

    Args:
        log: where it is recorded what was handed over.
    """

    def __init__(self, log: MeasurementLog) -> None:
        self._log = log
        self._loads: dict[int, _Load] = {}
        self._lock = threading.Lock()

    def add(self, recnum: int, directory: Path, manifest: Manifest) -> None:
        """Take note of a load: ``manifest`` was measured from ``directory`` and has its tables."""
        roots = tuple(dict.fromkeys((directory, resolved(directory))))
        files = {entry.path: _file(entry) for entry in manifest.files}
        with self._lock:
            self._loads[recnum] = _Load(manifest, roots, files)

    def remove(self, recnum: int) -> None:
        """Forget a load."""
        with self._lock:
            self._loads.pop(recnum, None)

    def whole(self, recnum: int) -> bool:
        """Whether every file of the load that has to be was handed over. ``False`` for a load that is not known."""
        with self._lock:
            load = self._loads.get(recnum)
            return load is not None and all(file.whole for file in load.files.values() if must_be_handed(file.entry))

    def find(self, name: str, recnum: int | None) -> Place:
        """The file at the absolute path ``name``, of the load of ``recnum`` or of the newest that has it.

        Raises:
            PolicyDenied: ``LOAD_UNGUARDED``: it lies in no directory that was measured, or its manifest does not have
                it.
            NotAuthentic: ``LOG_EVENT`` for a load that is not known.
        """
        with self._lock:
            loads = [recnum] if recnum is not None else sorted(self._loads, reverse=True)
            for number in loads:
                load = self._load(number)
                for path in _relative(Path(name), load.roots):
                    file = load.files.get(path)
                    if file is not None:
                        return Place(number, path, file.entry.kind, file.entry.size, load.manifest.algorithm)
        raise PolicyDenied(
            Code.LOAD_UNGUARDED,
            "no file of a model that was measured and is loaded",
            where=name,
            hint="have its directory measured first, and open the file by its path in there",
        )

    def compare(self, recnum: int, path: str, ranges: Sequence[Range]) -> int | None:
        """Compare what was read with what was measured, and record what is to be.

        Returns:
            The index of the first range that is not what was measured; ``None`` when all may be handed over.

        Raises:
            NotAuthentic: ``LOG_EVENT`` for a load or a file that is not known.
            EnvironmentFault: as :meth:`MeasurementLog.append`: then nothing may be handed over.
        """
        with self._lock:
            file = self._known(recnum, path)
            matches: list[int] = []
            for position, item in enumerate(ranges):
                indices = file.at.get((item.offset, item.size), [])
                same = [index for index in indices if file.parts[index].digest == item.digest]
                if not same:
                    self._record(file, ModelHanded(recnum, path, None, 0, 0, "mismatch", _what(file, item)))
                    return position
                matches += same
            covered = file.covered | set(matches)
            # First the record: without it nothing counts as handed over.
            if len(covered) == len(file.parts):
                self._record(file, _handed(recnum, file.entry, file.parts, covered))
            file.covered = covered
            return None

    def end(self, recnum: int, path: str, changed: str | None) -> bool:
        """Record that a guard is done with a file, in part, or gave it up; whether all of it was handed over.

        Raises:
            NotAuthentic: ``LOG_EVENT`` for a load or a file that is not known.
            MalformedEvidence: ``FIELD_RANGE`` for a reason that cannot be printed.
            EnvironmentFault: as :meth:`MeasurementLog.append`.
        """
        with self._lock:
            file = self._known(recnum, path)
            if changed is not None:
                detail = changed or "given up"
                self._record(file, ModelHanded(recnum, path, None, 0, 0, "changed", detail))
            elif file.covered and not file.whole:
                self._record(file, _handed(recnum, file.entry, file.parts, file.covered))
            return file.whole

    def _load(self, recnum: int) -> _Load:
        load = self._loads.get(recnum)
        if load is None:
            raise NotAuthentic(
                Code.LOG_EVENT,
                "no model that this attester measured and that is loaded",
                where=f"record {recnum}",
                hint="load the model again: the attester was restarted, or the model unloaded",
            )
        return load

    def _known(self, recnum: int, path: str) -> _File:
        file = self._load(recnum).files.get(path)
        if file is None:
            raise NotAuthentic(Code.LOG_EVENT, "no file of the model", where=f"record {recnum}, {path}")
        return file

    def _record(self, file: _File, event: ModelHanded) -> None:
        kind = event.outcome if event.digest is None else "whole"
        if kind not in file.recorded:
            self._log.append(event)
            file.recorded.add(kind)


def _file(entry: FileEntry) -> _File:
    if entry.parts is None:
        raise ValueError("a measured manifest has its tables")
    file = _File(entry, entry.parts)
    for index, part in enumerate(entry.parts):
        file.at.setdefault((part.offset, part.size), []).append(index)
    return file


def _handed(recnum: int, entry: FileEntry, table: Sequence[Part], covered: Collection[int]) -> ModelHanded:
    parts = [table[index] for index in covered]
    return ModelHanded(
        load=recnum,
        path=entry.path,
        digest=entry.digest if len(parts) == len(table) else None,
        tensors=sum(part.name is not None for part in parts),
        size=sum(part.size for part in parts),
        outcome="match",
    )


def _what(file: _File, item: Range) -> str:
    """What the file has where the range begins."""
    for part in file.parts:
        if part.offset <= item.offset < part.offset + max(part.size, 1) and part.name is not None:
            return f"tensor {_printable(part.name)}"
    return "no tensor" if file.entry.kind == "plain" else "header"


def _printable(name: str) -> str:
    return shorten(name if name.isprintable() else ascii(name), _NAME_MAX)


def _relative(file: Path, roots: Sequence[Path]) -> list[str]:
    """The file's path below each root: as it was named, and where it really is."""
    return [
        place.relative_to(root).as_posix()
        for place in dict.fromkeys((file, resolved(file)))
        for root in roots
        if place.is_relative_to(root)
    ]
