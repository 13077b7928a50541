"""Which directory each model was loaded from, also after a restart of the attester."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.durable import read_file, write_file
from weighbridge.attester.weights.directory import resolved
from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ModelDirectories"]

_VERSION: Final = "weighbridge/v1/model-directories"
# The last ones; a model that is served is loaded again after each boot.
_MODELS_MAX: Final = 64
_PATH_MAX: Final = 4096
_FILE_MAX: Final = _MODELS_MAX * (_PATH_MAX + 64)


@final
class ModelDirectories:
    """A file that maps manifest digests (32 bytes) to directories. What lies there now, nothing says.

    May be used from several threads.
    """

    __slots__ = ("_known", "_lock", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[bytes, str] | None = None

    def remember(self, manifest: bytes, directory: Path) -> None:
        """The model was measured in ``directory``, durably.

        Raises:
            EnvironmentFault: ``DISK_FULL``, ``FILE_UNWRITABLE``, ``FILE_UNREADABLE`` or ``STATE_CORRUPT``.
        """
        # A link that is changed afterwards leads elsewhere than where the server loaded from.
        real = str(resolved(directory))
        with self._lock:
            known = self._load()
            if known.get(manifest) == real:
                return
            known.pop(manifest, None)
            known[manifest] = real
            for oldest in list(known)[:-_MODELS_MAX]:
                del known[oldest]
            write_file(self._path, _encode(known.items()))

    def find(self, manifest: bytes) -> Path | None:
        """Where the model was loaded from last.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE`` or ``STATE_CORRUPT``.
        """
        with self._lock:
            directory = self._load().get(manifest)
        return None if directory is None else Path(directory)

    def _load(self) -> dict[bytes, str]:
        if self._known is None:
            self._known = self._read() if self._path.exists() else {}
        return self._known

    def _read(self) -> dict[bytes, str]:
        try:
            data = read_file(self._path, limit=_FILE_MAX, what="model directories")
            fields = cbor.read_versioned(data, version=_VERSION, limit=_FILE_MAX, what="directories")
            rows = fields.array(1, limit=_MODELS_MAX)
            fields.end()
            return dict(_row(row, f"directories[1][{index}]") for index, row in enumerate(rows))
        except MalformedEvidence as error:
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                f"the list of models' directories is damaged: {error}",
                where=str(self._path),
                hint="remove it: loading a model enters it again",
            ) from error


def _encode(rows: Iterable[tuple[bytes, str]]) -> bytes:
    return cbor.encode({0: _VERSION, 1: [[manifest, directory] for manifest, directory in rows]})


def _row(row: cbor.CborValue, where: str) -> tuple[bytes, str]:
    parts = cbor.Reader(dict(enumerate(cbor.read_array(row, where=where, limit=2, size=2))), where)
    return parts.digest(0), parts.text(1, limit=_PATH_MAX)
