"""How a log is looked at that a case shows: by this project's own monitor, out of the step alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import note
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.conformance.fields import moment_of, octets
from weighbridge.verifier.ledger.monitor import Monitor

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.verifier.conformance.steps import Watch
    from weighbridge.verifier.ledger.watched import Watched

__all__ = ["look"]

# For how long nothing may come of a session: not what these cases are about.
_SILENCE_NS: Final = 300 * 10**9


def look(step: Watch, seen: Watched | None, directory: Path) -> Watched:
    """What is to be remembered of the log after ``step``.

    Args:
        step: untrusted.
        seen: of an earlier step; ``None``: there was none.
        directory: where two heads are kept that do not agree.

    Raises:
        WeighbridgeError: as :meth:`.Monitor.look`.
    """

    def keep(name: str, data: bytes) -> Path:
        path = directory / name
        path.write_bytes(data)
        return path

    key = note.parse_vkey(step.key)
    monitor = Monitor(_Shown(step), key, silence_ns=_SILENCE_NS, stall_ns=None, keep=keep)
    return monitor.look(seen, now_ns=nanoseconds(moment_of(step.at))).watched


@final
class _Shown:
    """The files of a step, as a :class:`~weighbridge.verifier.ledger.source.Source`."""

    def __init__(self, step: Watch) -> None:
        self._files = {file.name: file.content for file in step.files}

    def read(self, path: str, *, limit: int) -> bytes | None:
        text = self._files.get(path)
        data = None if text is None else octets(text)
        if data is not None and len(data) > limit:
            raise MalformedEvidence(Code.TOO_LARGE, "too long for such a file", where=path, got=len(data))
        return data

    def place(self, path: str) -> str:
        return path

    def close(self) -> None:
        """Nothing is held."""
